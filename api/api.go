// Package api is the HTTP interface for people's panels and customers' programs: REST under /rest/v2/, described at /openapi.json. Each operation
// is declared with the action that it needs; who asks, and whether he may, is decided before it runs.
//
// Imports: cluster, internal/access, internal/auth, internal/census, internal/problem, internal/settings, internal/trace, internal/webhook, media.
package api

import (
	"cmp"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"sluice/cluster"
	"sluice/internal/access"
	"sluice/internal/auth"
	"sluice/internal/census"
	"sluice/internal/problem"
	"sluice/internal/settings"
	"sluice/internal/webhook"
)

const (
	// CookieName is that of a session.
	CookieName = "sluice_session"
	// CSRFHeader is what unsafe requests with a cookie must bring. It is told with each log-in and by /rest/v2/session.
	CSRFHeader = "X-Sluice-CSRF"

	maxBody  = 64 << 10 // bytes, unless an operation says otherwise
	maxQuery = 4 << 10  // bytes
)

// Config says what the interface tells of itself.
type Config struct {
	Version string // of the program
}

// Deps are what it works with.
type Deps struct {
	Accounts *auth.Accounts
	Settings *settings.Store
	Access   *access.Guard
	Webhooks *webhook.Box
	Live     *census.Cluster
	Registry cluster.Registry // what is told of nodes and streams
	// Documents are those of the same registry.
	Documents cluster.Documents
	System    func() System
	Client    func(*http.Request) netip.Addr // the client, behind listed proxies
	Secure    func(*http.Request) bool       // the client's own connection has TLS
	Log       *slog.Logger
}

// API is a node's. It is an http.Handler for /rest/v2/, /{app}/rest/v2/, /openapi.json and /openapi.
type API struct {
	cfg    Config
	deps   Deps
	sorted sorted
	log    *slog.Logger
	mux    *http.ServeMux
	huma   huma.API
	origin *http.CrossOriginProtection

	live      *live
	listeners atomic.Int64
}

// New declares all operations. It does no I/O.
func New(cfg Config, deps Deps) *API {
	a := &API{cfg: cfg, deps: deps, sorted: sorted{apps: map[string]*whole{}}, log: cmp.Or(deps.Log, slog.New(slog.DiscardHandler)), mux: http.NewServeMux(), origin: http.NewCrossOriginProtection()}
	settings := huma.DefaultConfig("Sluice", cmp.Or(cfg.Version, "dev"))
	settings.Info.Description = "People log in and get a session; programs show an API key: Authorization: Bearer sluice_…. Errors are application/problem+json with a stable code."
	settings.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"session": {Type: "apiKey", In: "cookie", Name: CookieName, Description: "Unsafe methods need the header " + CSRFHeader + " too."},
		"key":     {Type: "http", Scheme: "bearer", Description: "An API key."},
	}
	settings.OpenAPIPath, settings.DocsPath, settings.SchemasPath = "/openapi", "", ""
	settings.CreateHooks = nil // no $schema in answers
	settings.Transformers = []huma.Transformer{ours}
	a.huma = humago.New(a.mux, settings)
	a.sessions()
	a.users()
	a.keys()
	a.audit()
	a.settings()
	a.applications()
	a.access()
	a.webhooks()
	a.cluster()
	a.nodes()
	a.broadcasts()
	a.system()
	a.page()
	a.describeErrors()
	return a
}

// Patterns are what a mux gives to this handler.
func Patterns() []string {
	return []string{"/rest/v2/", "/{app}/rest/v2/", "/openapi.json", "/openapi.yaml", "/openapi-3.0.json", "/openapi", "/openapi.js", "/openapi.css"}
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if len(r.URL.RawQuery) > maxQuery {
		a.refuse(w, r, problem.New(problem.TooLarge, "the query is larger than is taken here"))
		return
	}
	asked := r
	r = spelt(r)
	r, err := a.authenticate(r)
	if err == nil {
		err = a.sameSite(r)
	}
	if err != nil {
		a.fail(r.Context(), w, err)
		return
	}
	handler, pattern := a.mux.Handler(r)
	if pattern == "" {
		a.nothing(w, r, handler)
		return
	}
	asked.Pattern = pattern // for who counts requests
	a.mux.ServeHTTP(w, r)
}

// spelt is a request as the operations are declared: programs ask for …/broadcasts/?ids= with a slash, and for …/broadcasts/count/{search}, which
// …/broadcasts/{id}/… could be, too.
func spelt(r *http.Request) *http.Request {
	path := strings.TrimSuffix(r.URL.Path, "/")
	seg := strings.Split(path, "/")
	search, counts := "", len(seg) == 7 && seg[2] == "rest" && seg[4] == "broadcasts" && seg[5] == "count"
	if counts {
		search, path = seg[6], strings.Join(seg[:6], "/")
	}
	if path == r.URL.Path {
		return r
	}
	u := *r.URL
	u.Path, u.RawPath = path, ""
	if counts {
		q := u.Query()
		q.Set("search", search)
		u.RawQuery = q.Encode()
	}
	r = r.Clone(r.Context())
	r.URL = &u
	return r
}

// Allows reports whether whoever sent a request may do something on the server: for what a node serves beside this interface.
func (a *API) Allows(r *http.Request, do auth.Action) bool {
	r, err := a.authenticate(r)
	return err == nil && a.sameSite(r) == nil && auth.Can(auth.Of(r.Context()), do, "")
}

// nothing answers for paths and methods that are none. The mux has an answer of its own.
func (a *API) nothing(w http.ResponseWriter, r *http.Request, handler http.Handler) {
	says := &silent{header: http.Header{}}
	handler.ServeHTTP(says, r)
	if says.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", says.header.Get("Allow"))
		a.refuse(w, r, problem.New(problem.MethodNotAllowed, "this address takes "+says.header.Get("Allow")))
		return
	}
	a.refuse(w, r, problem.New(problem.NotFound, "no operation has this address; /openapi.json has them all"))
}

// silent keeps what somebody else would have answered.
type silent struct {
	header http.Header
	status int
}

func (s *silent) Header() http.Header         { return s.header }
func (s *silent) Write(b []byte) (int, error) { return len(b), nil }
func (s *silent) WriteHeader(status int)      { s.status = status }

func (a *API) refuse(w http.ResponseWriter, r *http.Request, p *problem.Problem) {
	a.fail(r.Context(), w, p)
}

// visitor is who asks, as far as a request's context knows; why says why nobody is known.
type visitor struct {
	token  string // of the session
	from   netip.Addr
	secure bool
	why    error
}

// authenticate finds out who asks. Wrong credentials are told by the operations that need right ones.
func (a *API) authenticate(r *http.Request) (*http.Request, error) {
	v := visitor{from: a.deps.Client(r), secure: a.deps.Secure(r)}
	ctx := r.Context()
	if shown := r.Header.Values("Authorization"); len(shown) > 0 {
		scheme, key, _ := strings.Cut(shown[0], " ")
		if len(shown) > 1 || !strings.EqualFold(scheme, "Bearer") {
			return r, problem.New(problem.Unauthorized, "the header Authorization is `Bearer` and an API key")
		}
		id, err := a.deps.Accounts.ByKey(ctx, strings.TrimSpace(key), v.from)
		if v.why = err; err == nil {
			ctx = auth.With(ctx, id)
		}
	} else if cookie, err := r.Cookie(CookieName); err == nil {
		id, err := a.deps.Accounts.BySession(ctx, cookie.Value, v.from)
		if v.why = err; err == nil {
			v.token = cookie.Value
			ctx = auth.With(ctx, id)
		}
	}
	return r.WithContext(withVisitor(ctx, v)), nil
}

// sameSite refuses what another site's page may have sent with a visitor's cookie. Programs with a key have no cookie.
func (a *API) sameSite(r *http.Request) error {
	if safe(r.Method) || r.Header.Get("Authorization") != "" {
		return nil
	}
	if a.origin.Check(r) != nil {
		return problem.New(problem.BadCSRF, "this request comes from a page of another site")
	}
	id := auth.Of(r.Context())
	if id.Kind == auth.User && !equal(r.Header.Get(CSRFHeader), id.CSRF) {
		return problem.New(problem.BadCSRF, "the header "+CSRFHeader+" must have what the log-in, or GET /rest/v2/session, has told")
	}
	return nil
}

func safe(method string) bool {
	return slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodOptions}, method)
}

// asProblem says what an error is to a client. Others are ours: false.
func asProblem(err error) (p *problem.Problem, known bool) {
	if errors.As(err, &p) {
		return p, true
	}
	for _, k := range []struct {
		is   error
		code problem.Code
	}{
		{auth.ErrBadCredentials, problem.BadCredentials}, {auth.ErrTooMany, problem.TooMany}, {auth.ErrUnavailable, problem.RegistryAway},
		{auth.ErrBadAccount, problem.Invalid}, {auth.ErrWeakPassword, problem.WeakPassword}, {auth.ErrNoAccount, problem.NotFound},
		{auth.ErrAccountExists, problem.AlreadyExists}, {auth.ErrLastAdministrator, problem.LastAdministrator}, {auth.ErrBadLink, problem.BadLink},
		{auth.ErrChanged, problem.Conflict}, {settings.ErrBad, problem.Invalid}, {settings.ErrNoApp, problem.UnknownApp}, {settings.ErrAppExists, problem.AlreadyExists},
		{access.ErrNone, problem.NotFound}, {webhook.ErrNone, problem.NotFound}, {webhook.ErrUnavailable, problem.RegistryAway}, {access.ErrBad, problem.Invalid}, {access.ErrUnavailable, problem.RegistryAway},
		{access.ErrUnauthorized, problem.Unauthorized}, {access.ErrForbidden, problem.Forbidden}, {settings.ErrNoVersion, problem.NotFound}, {settings.ErrChanged, problem.Conflict}, {settings.ErrUnavailable, problem.RegistryAway}, {census.ErrUnavailable, problem.RegistryAway}, {census.ErrNode, problem.OriginUnreachable},
		{cluster.ErrBadDocument, problem.Invalid},
	} {
		if !errors.Is(err, k.is) {
			continue
		}
		detail := err.Error()
		if k.code == problem.RegistryAway { // why is for the operator's log
			detail = "what needs the cluster's registry must wait until it is back; media goes on"
		}
		return problem.New(k.code, detail), true
	}
	return problem.New(problem.Internal, "this is a fault of the server; its log says more"), false
}
