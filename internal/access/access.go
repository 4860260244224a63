// Package access decides who may publish and play, by each application's rules: open, by one-time token, by JWT, by signed hash, or as a
// subscriber with a code; and what a customer's own server says. What it has allowed it can revoke: see Grant.
//
// Locks: Guard.mu and Grant.mu are never held together.
//
// Imports: cluster, media.
package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"sluice/cluster"
	"sluice/media"
)

// What Admit answers; test for them with errors.Is.
var (
	// ErrUnauthorized: a valid token, code or the like is needed, and what came is none, or no longer.
	ErrUnauthorized = errors.New("a valid token is needed")
	// ErrForbidden: it is known who asks, or with what, and he may not.
	ErrForbidden = errors.New("this is not allowed")
	// ErrBlocked: the subscriber may not for a while. It is an ErrForbidden.
	ErrBlocked = fmt.Errorf("%w: the subscriber is blocked", ErrForbidden)
	// ErrTooManySessions: a subscriber has as many as he may. It is an ErrForbidden.
	ErrTooManySessions = fmt.Errorf("%w: the subscriber has as many sessions as he may", ErrForbidden)
	// ErrTooMany: so many attempts have failed that more are not looked at for a while.
	ErrTooMany = errors.New("too many attempts failed")
	// ErrUnavailable: it can't be decided without the registry, which can't be reached.
	ErrUnavailable = errors.New("the registry can't be reached")
	// ErrNoAnswer: it can't be decided without somebody else's server, which does not answer.
	ErrNoAnswer = errors.New("the server that decides does not answer")
	// ErrRevoked is the reason with which a session ends whose grant was revoked.
	ErrRevoked = errors.New("the permission was revoked")
)

// Action is what somebody wants to do.
type Action string

const (
	Publish Action = "publish"
	Play    Action = "play"
)

// Request is one wish, as it came by any of the ways to ask. Its texts are the client's.
type Request struct {
	Action         Action
	Stream         media.Key
	Token          string // bearer token or the token of the protocol's message; "" none
	SubscriberID   string
	SubscriberCode string
	Remote         netip.Addr // the client, behind listed proxies; the zero Addr when unknown
	Session        string     // who asks again under the same name is the same client; "": nobody else is
	Name           string     // of the stream, as its publisher shows it
	Query          string     // of the URL, raw
	Origin         string     // header Origin: the page
	Metadata       string
}

// Sizes of what a client may send, in bytes.
const (
	MaxToken       = 8 << 10
	maxSubscriber  = 128
	maxCode        = 32
	maxDescription = 16 << 10 // name, query and metadata, each
)

// check refuses what is of no reasonable size or form.
func (r Request) check() error {
	switch {
	case len(r.Token) > MaxToken:
		return fmt.Errorf("%w: a token has at most %d bytes", ErrUnauthorized, MaxToken)
	case !plain(r.SubscriberID, maxSubscriber), !plain(r.SubscriberCode, maxCode):
		return fmt.Errorf("%w: a subscriber's id has at most %d bytes of text and his code %d", ErrUnauthorized, maxSubscriber, maxCode)
	case len(r.Name) > maxDescription, len(r.Query) > maxDescription, len(r.Metadata) > maxDescription, len(r.Origin) > maxDescription:
		return fmt.Errorf("%w: name, query and metadata have at most %d bytes each", ErrForbidden, maxDescription)
	}
	return nil
}

func plain(s string, most int) bool {
	return len(s) <= most && utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
}

// Hook is how ways in and out ask, once for each session, before anything is spent on it. It is called from any goroutine. The grant
// begins when the session is open and ends with it; it may be nil, which is one that nobody revokes.
type Hook func(ctx context.Context, r Request) (*Grant, error)

// AllowAll lets everybody do everything.
func AllowAll(context.Context, Request) (*Grant, error) { return nil, nil }

// Config of a Guard.
type Config struct {
	Rules  func(app string) Rules // that hold at this moment; it does not block
	Client *http.Client           // asks webhooks and key sets; it must be one that reaches nothing private
	// Session is told of sessions that begin and end; nil: nobody is. It does not block.
	Session func(r Request, began bool)
	Node    string       // for people who read who holds what
	Log     *slog.Logger // nil: none
}

// Guard is a node's. Everything may be called from any goroutine.
type Guard struct {
	docs   cluster.Documents // nil: there are no tokens and subscribers
	cfg    Config
	log    *slog.Logger
	holder string // this process, in the seats that it holds

	strangers *limiter // failed attempts of an address
	guesses   *limiter // of codes, for each subscriber
	asking    chan struct{}
	keys      keySets
	leaving   atomic.Bool // see Leave

	mu      sync.Mutex
	grants  map[*Grant]struct{}
	cuts    map[string]cut // by app and what is revoked
	loaded  time.Time      // by the registry's clock: cuts up to then are known
	release map[string]seat
	seated  time.Time // when the registry was told last that this process holds seats
}

// New does no I/O.
func New(docs cluster.Documents, cfg Config) *Guard {
	if cfg.Session == nil {
		cfg.Session = func(Request, bool) {}
	}
	if cfg.Rules == nil {
		cfg.Rules = func(string) Rules { return Rules{} }
	}
	return &Guard{docs: docs, cfg: cfg, log: cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)), holder: newID(),
		strangers: newLimiter(strangerBurst, strangerPause), guesses: newLimiter(guessBurst, guessPause), asking: make(chan struct{}, mostAsking),
		keys: keySets{sets: map[string]*keySet{}}, grants: map[*Grant]struct{}{}, cuts: map[string]cut{}, release: map[string]seat{}}
}

// registryWithin is how long a client waits for the registry.
const registryWithin = 2 * time.Second

func (g *Guard) now() time.Time {
	if g.docs == nil {
		return time.Now()
	}
	return g.docs.Now()
}

// proof is what has admitted somebody.
type proof struct {
	method     string
	token      string                      // one-time token's id
	jwt        string                      // the whole of it, or a hash
	jwtID      string                      // the claim jti
	subscriber string                      // who he is, if he has proven it
	commit     func(context.Context) error // takes what can be had once; nil: nothing
}

// Admit is the Hook.
func (g *Guard) Admit(ctx context.Context, r Request) (*Grant, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	rule := g.cfg.Rules(r.Stream.App).Of(r.Action)
	gr := &Grant{guard: g, request: r, rule: rule, began: g.now()}
	var err error
	if gr.proof, err = g.prove(ctx, rule, gr); err != nil {
		return nil, err
	}
	if gr.proof.subscriber != "" {
		gr.request.SubscriberID = gr.proof.subscriber
	}
	if err := g.revoked(gr); err != nil {
		return nil, err
	}
	if rule.Webhook != "" {
		if err := g.ask(ctx, rule, gr.request); err != nil {
			return nil, err
		}
	}
	g.mu.Lock()
	g.grants[gr] = struct{}{}
	g.mu.Unlock()
	if err := g.revoked(gr); err != nil { // meanwhile
		gr.End()
		return nil, err
	}
	return gr, nil
}

// prove finds a method of the rule by which a request is admitted. Its error is the most telling one of all methods.
func (g *Guard) prove(ctx context.Context, rule Rule, gr *Grant) (proof, error) {
	r := gr.request
	if rule.has(Open) {
		return proof{method: Open}, nil
	}
	address := addressKey(r.Remote)
	worst := fmt.Errorf("%w: this application takes %s", ErrUnauthorized, strings.Join(rule.Methods, ", "))
	for _, method := range rule.Methods {
		if !offers(method, r) {
			continue
		}
		costs := method == Token || method == TOTP // a look at the registry: strangers get only so many
		if costs {
			if err := g.strangers.full(address); err != nil {
				worst = err
				continue
			}
		}
		p, err := g.try(ctx, method, rule, gr)
		if err == nil {
			return p, nil
		}
		if costs && (errors.Is(err, ErrUnauthorized) || errors.Is(err, ErrForbidden)) {
			_ = g.strangers.spend(address) // the next is told
		}
		if severity(err) >= severity(worst) {
			worst = err
		}
	}
	return proof{}, worst
}

// severity orders errors by how much they tell: what could have been decided otherwise comes last.
func severity(err error) int {
	for i, is := range []error{ErrUnauthorized, ErrForbidden, ErrTooMany, ErrNoAnswer, ErrUnavailable} {
		if errors.Is(err, is) {
			return i
		}
	}
	return 5
}

// offers reports whether a request has what a method needs, by its form: a token that is no JWT needs no verification as one.
func offers(method string, r Request) bool {
	jwt := strings.Count(r.Token, ".") == 2
	hash := len(r.Token) == 64 && strings.Trim(r.Token, "0123456789abcdefABCDEF") == ""
	switch method {
	case Token:
		return r.Token != "" && !jwt && !hash
	case JWT:
		return jwt
	case Hash:
		return hash
	}
	return r.SubscriberID != ""
}

func (g *Guard) try(ctx context.Context, method string, rule Rule, gr *Grant) (proof, error) {
	switch method {
	case Token:
		return g.byToken(ctx, gr)
	case JWT:
		return g.byJWT(ctx, rule, gr.request)
	case Hash:
		return byHash(rule, gr.request)
	case TOTP:
		return g.bySubscriber(ctx, rule, gr)
	}
	return proof{}, fmt.Errorf("%w: there is no method %.20q", ErrForbidden, method)
}

// Running is how many sessions have a grant.
func (g *Guard) Running() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.grants)
}

// Publisher is what whoever publishes a stream here has shown; false: nobody does.
func (g *Guard) Publisher(key media.Key) (Request, bool) {
	for _, gr := range g.running() {
		if gr.request.Action == Publish && gr.request.Stream == key {
			return gr.request, true
		}
	}
	return Request{}, false
}

func (g *Guard) running() []*Grant {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]*Grant, 0, len(g.grants))
	for gr := range g.grants {
		list = append(list, gr)
	}
	return list
}

// Rules are an application's.
type Rules struct {
	Publish Rule
	Play    Rule
}

// Of is the rule for an action.
func (r Rules) Of(a Action) Rule {
	if a == Publish {
		return r.Publish
	}
	return r.Play
}

// Methods by which a rule admits.
const (
	Open  = "open"  // everybody
	Token = "token" // one-time tokens
	JWT   = "jwt"
	Hash  = "hash" // of stream, role and a secret
	TOTP  = "totp" // subscribers with a code
)

// Rule is who may do one thing in an application. It has no types of its own within, so that settings can be converted to it.
type Rule struct {
	Methods     []string // any of them admits; none: everybody is
	HashSecret  string
	JWTSecret   string // of HS256
	JWTKey      string // public key of RS256 or ES256, PEM
	JWKS        string // address of a set of such keys
	TOTPSecret  string // of which subscribers' secrets are made that are not registered; "": they are refused
	Webhook     string // address of a server that must agree too; "": none
	WebhookOpen bool   // it is taken for agreement when that does not answer
}

func (r Rule) has(method string) bool {
	return len(r.Methods) == 0 && method == Open || slices.Contains(r.Methods, method)
}

const minSecret = 16 // bytes; JWT secrets: 32 (RFC 7518 §3.2)

// Check reports the first mistake.
func (r Rule) Check(checkURL func(string) error) error {
	for _, m := range r.Methods {
		switch m {
		case Open, Token:
		case JWT:
			if r.JWTSecret == "" && r.JWTKey == "" && r.JWKS == "" {
				return errors.New("jwt needs a secret, a public key or the address of a key set")
			}
			if r.JWTSecret != "" && len(r.JWTSecret) < 2*minSecret {
				return fmt.Errorf("the JWT secret has fewer than %d bytes", 2*minSecret)
			}
			if _, err := publicKey(r.JWTKey); err != nil {
				return err
			}
		case Hash:
			if len(r.HashSecret) < minSecret {
				return fmt.Errorf("hash needs a secret of at least %d bytes", minSecret)
			}
		case TOTP:
			if r.TOTPSecret != "" && len(r.TOTPSecret) < minSecret {
				return fmt.Errorf("the secret of subscribers has fewer than %d bytes", minSecret)
			}
		default:
			return fmt.Errorf("method %.20q is none of open, token, jwt, hash and totp", m)
		}
	}
	for _, u := range []string{r.JWKS, r.Webhook} {
		if u != "" {
			if err := checkURL(u); err != nil {
				return fmt.Errorf("%.80q: %w", u, err)
			}
		}
	}
	return nil
}
