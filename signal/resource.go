// Package signal is what WHIP and WHEP share: HTTP resources that open, steer and end a WebRTC session
// (RFC 9725 and its sibling for playback).
//
// Imports: egress/webrtc, ingest/relay, media, rtc, stream, internal/access, internal/problem, internal/trace.
package signal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"mime"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"

	egress "sluice/egress/webrtc"
	"sluice/ingest/relay"
	"sluice/internal/access"
	"sluice/internal/problem"
	"sluice/internal/trace"
	"sluice/media"
	"sluice/rtc"
	"sluice/stream"
)

// Session is an open WebRTC session.
type Session interface {
	ID() string
	AddCandidate(rtc.Candidate) error
	RestartICE(ufrag, pwd string) (newUfrag, newPwd string, err error)
	Close(reason error)
}

// Open answers an offer with a session; ended is called when the session ends by itself.
type Open func(ctx context.Context, key media.Key, remote, offer string, ended func(error)) (Session, string, error)

// ICEServer is a STUN or TURN server that clients may use.
type ICEServer struct {
	URL        string // "stun:host:port", "turn:host:port?transport=udp"
	Username   string
	Credential string
}

// Config of a Resource.
type Config struct {
	Protocol   string // "whip" or "whep": the path element
	Action     access.Action
	Open       Open
	Node       string                        // this node's id, the first part of session names
	Apps       func() []string               // applications that exist
	Allows     func(app, origin string) bool // whether pages of a site may use an application; nil: all may
	ICEServers []ICEServer
	Relays     func() []ICEServer // more of them, with credentials for one client; nil: none
	Authorize  access.Hook
	Admit      func() error // refuses new sessions with an error, such as egress/webrtc's ErrFull; nil: takes all
	ClientAddr func(*http.Request) netip.Addr
	Viewers    func(media.Key) int // of a stream in the whole cluster; nil: clients are not told
	Log        *slog.Logger        // default slog.Default()
}

// Resource serves /{app}/whip/{id} or /{app}/whep/{id}, and the sessions below.
type Resource struct {
	cfg Config

	quiet context.Context // ends with Hush
	hush  context.CancelFunc

	mu       sync.Mutex
	sessions map[string]*entry // by the last element of the session's URL
}

// entry is a session and the version of its ICE session.
type entry struct {
	session Session
	viewer  viewer       // the same; nil: it publishes
	kinds   []media.Kind // of the media lines; 0: nothing is sent by it
	key     media.Key
	grant   *access.Grant
	gone    chan struct{} // closed when it is no longer among the sessions

	// Under the resource's mu.
	streams   int             // of its events that are open
	listeners []chan struct{} // those who want to be told to move; each has room for one
	told      bool            // to move

	mu    sync.Mutex
	etag  string // entity tag without quotes: identifies the ICE session (RFC 9725 §4.3.1)
	ufrag string // the client's
	ice   string // the part of our answer that a restart needs, with all our candidates
}

// New returns a Resource.
func New(cfg Config) *Resource {
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	if cfg.Admit == nil {
		cfg.Admit = func() error { return nil }
	}
	if cfg.Relays == nil {
		cfg.Relays = func() []ICEServer { return nil }
	}
	if cfg.Allows == nil {
		cfg.Allows = func(string, string) bool { return true }
	}
	r := &Resource{cfg: cfg, sessions: map[string]*entry{}}
	r.quiet, r.hush = context.WithCancel(context.Background())
	return r
}

// Register adds the routes.
func (r *Resource) Register(mux *http.ServeMux) {
	endpoint := "/{app}/" + r.cfg.Protocol + "/{id}"
	mux.HandleFunc(endpoint, r.endpoint)
	mux.HandleFunc(endpoint+"/{session}", r.session)
	mux.HandleFunc(endpoint+"/{session}/"+eventsPath, r.events)
	mux.HandleFunc(endpoint+"/{session}/"+layerPath, r.layer)
}

// Sizes of bodies, in bytes.
const (
	maxOffer    = 128 << 10
	maxFragment = 32 << 10
)

// cors lets pages of any origin use the resource (RFC 9725 §4.2), or of those that the application allows: others get false, and the refusal.
// There are clients that ask the endpoint by OPTIONS whether its sessions take PATCH, and that send the tag as ETag where they mean If-Match.
func (r *Resource) cors(w http.ResponseWriter, req *http.Request) bool {
	h := w.Header()
	h.Add("Vary", "Origin")
	if !r.cfg.Allows(req.PathValue("app"), req.Header.Get("Origin")) {
		problem.New(problem.Forbidden, "pages of this site may not use the application").Write(w)
		return false
	}
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "OPTIONS, GET, HEAD, POST, PATCH, DELETE")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match, ETag")
	h.Set("Access-Control-Expose-Headers", "Location, ETag, Link, Accept-Patch, Accept-Post, Access-Control-Allow-Methods, Retry-After")
	h.Set("Access-Control-Max-Age", "86400")
	return true
}

// links tells the client its ICE servers (RFC 9725 §4.6).
func (r *Resource) links(h http.Header) {
	for _, s := range slices.Concat(r.cfg.ICEServers, r.cfg.Relays()) {
		link := fmt.Sprintf(`<%s>; rel="ice-server"`, s.URL)
		if s.Username != "" {
			link += fmt.Sprintf(`; username=%q; credential=%q; credential-type="password"`, s.Username, s.Credential)
		}
		h.Add("Link", link)
	}
}

func (r *Resource) endpoint(w http.ResponseWriter, req *http.Request) {
	const methods = "OPTIONS, GET, HEAD, POST"
	if !r.cors(w, req) {
		return
	}
	key, err := r.key(req)
	switch {
	case req.Method == http.MethodOptions:
		w.Header().Set("Accept-Post", "application/sdp")
		w.Header().Set("Allow", methods)
		if req.Header.Get("Access-Control-Request-Method") == "" { // a browser's own question needs none
			r.links(w.Header())
		}
		w.WriteHeader(http.StatusNoContent)
	case err != nil:
		r.fail(w, req, err)
	case req.Method == http.MethodPost:
		r.fail(w, req, r.post(w, req, key))
	case req.Method == http.MethodGet || req.Method == http.MethodHead:
		w.WriteHeader(http.StatusNoContent) // RFC 9725 §4.1: it is there, and has nothing to show
	default:
		w.Header().Set("Allow", methods)
		r.fail(w, req, problem.New(problem.MethodNotAllowed, "POST an SDP offer here"))
	}
}

func (r *Resource) post(w http.ResponseWriter, req *http.Request, key media.Key) error {
	offer, err := body(w, req, "application/sdp", maxOffer)
	if err != nil {
		return err
	}
	if err := r.cfg.Admit(); err != nil {
		return err
	}
	remote := r.cfg.ClientAddr(req)
	asks := Asks(req)
	asks.Action, asks.Stream, asks.Remote = r.cfg.Action, key, remote
	grant, err := r.cfg.Authorize(req.Context(), asks)
	if err != nil {
		return err
	}
	e := &entry{key: key, grant: grant, gone: make(chan struct{})}
	began := false
	defer func() {
		if !began {
			grant.End()
		}
	}()
	published := key
	if backup, err := Backup(req); err != nil {
		return err
	} else if backup && r.cfg.Action == access.Publish {
		published = key.Backup()
	}
	var name string
	opened := make(chan struct{})
	session, answer, err := r.cfg.Open(req.Context(), published, remote.String(), offer, func(error) {
		go func() { // the end may come before the name is known
			<-opened
			r.forget(name)
		}()
	})
	if err != nil {
		close(opened)
		return err
	}
	if err := grant.Begin(req.Context()); err != nil {
		close(opened)
		session.Close(stream.ErrStopped)
		return err
	}
	if strings.Contains(offer, "a=rtcp-mux-only") { // RFC 9725 §4.4.1, RFC 8858 §3
		answer = strings.ReplaceAll(answer, "a=rtcp-mux\r\n", "a=rtcp-mux\r\na=rtcp-mux-only\r\n")
	}
	e.session, e.ice = session, restarted(answer, "", "")
	if e.viewer, _ = session.(viewer); e.viewer != nil {
		e.kinds = kindsOf(answer)
	}
	e.ufrag = strings.Clone(attribute(offer, "ice-ufrag")) // which else would keep the whole of it
	e.etag = tag(attribute(answer, "ice-ufrag"))
	name = r.cfg.Node + "." + session.ID()
	r.mu.Lock()
	r.sessions[name] = e
	r.mu.Unlock()
	began = true
	close(opened)
	grant.OnRevoked(func(reason error) { go r.revoke(name, e, reason) })
	h := w.Header()
	h.Set("Content-Type", "application/sdp")
	h.Set("Location", req.URL.EscapedPath()+"/"+name)
	h.Set("ETag", `"`+e.etag+`"`)
	h.Set("Accept-Patch", "application/trickle-ice-sdpfrag")
	h.Set("Cache-Control", "no-store")
	h.Add("Link", r.eventsLink(h.Get("Location"), session))
	if e.viewer != nil {
		h.Add("Link", fmt.Sprintf(`<%s/%s>; rel=%q`, h.Get("Location"), layerPath, layerURN))
	}
	r.links(h)
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, answer) // a client that went away is noticed by its session
	return nil
}

// Backup reads ?backup=1, with which a publisher comes as the backup of its stream.
func Backup(req *http.Request) (bool, error) {
	switch v := req.URL.Query().Get("backup"); v {
	case "", "0", "false":
		return false, nil
	case "1", "true":
		return true, nil
	default:
		return false, problem.New(problem.BadRequest, fmt.Sprintf("backup is 1 or 0, not %.20q", v))
	}
}

// tag makes an entity tag from our ICE user name fragment, which changes with each ICE session.
func tag(ufrag string) string {
	return strings.Clone(strings.NewReplacer("+", "-", "/", "_").Replace(ufrag))
}

func (r *Resource) session(w http.ResponseWriter, req *http.Request) {
	const methods = "OPTIONS, GET, HEAD, PATCH, DELETE"
	if !r.cors(w, req) {
		return
	}
	if req.Method == http.MethodOptions {
		w.Header().Set("Allow", methods)
		w.Header().Set("Accept-Patch", "application/trickle-ice-sdpfrag")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	e := r.find(req)
	if e == nil {
		r.fail(w, req, problem.New(problem.NoSession, "the session has ended; POST an offer to open another"))
		return
	}
	switch req.Method {
	case http.MethodDelete:
		r.forget(req.PathValue("session"))
		e.session.Close(stream.ErrStopped)
		w.WriteHeader(http.StatusOK)
	case http.MethodPatch:
		r.fail(w, req, e.patch(w, req))
	case http.MethodGet, http.MethodHead:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Allow", methods)
		r.fail(w, req, problem.New(problem.MethodNotAllowed, "PATCH trickles candidates, DELETE ends the session"))
	}
}

// find returns the session that a request's URL names, or nil.
func (r *Resource) find(req *http.Request) *entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.sessions[req.PathValue("session")]
	if e == nil || e.key.App != req.PathValue("app") || e.key.ID != req.PathValue("id") {
		return nil
	}
	return e
}

// patch adds candidates, or restarts ICE (RFC 9725 §4.3).
func (e *entry) patch(w http.ResponseWriter, req *http.Request) error {
	match := cmp.Or(req.Header.Get("If-Match"), req.Header.Get("ETag"))
	if match == "" {
		return problem.New(problem.NeedETag, `send the session's ETag as If-Match, or If-Match: * to restart ICE`)
	}
	text, err := body(w, req, "application/trickle-ice-sdpfrag", maxFragment)
	if err != nil {
		return err
	}
	f, err := parseFragment(text)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	restart := f.ufrag != "" && f.ufrag != e.ufrag
	if match != "*" && strings.Trim(strings.TrimPrefix(match, "W/"), `"`) != e.etag {
		w.Header().Set("ETag", `"`+e.etag+`"`)
		return problem.New(problem.WrongETag, "the candidates belong to an ICE session that was replaced")
	}
	if restart {
		ufrag, pwd, err := e.session.RestartICE(f.ufrag, f.pwd)
		if err != nil {
			return err
		}
		e.ufrag, e.etag = strings.Clone(f.ufrag), tag(ufrag)
		w.Header().Set("ETag", `"`+e.etag+`"`)
		w.Header().Set("Content-Type", "application/trickle-ice-sdpfrag")
		_, _ = io.WriteString(w, restarted(e.ice, ufrag, pwd))
		return nil
	}
	for _, c := range f.candidates {
		if err := e.session.AddCandidate(c); err != nil {
			return err
		}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// Close ends all sessions; for the end of the node.
func (r *Resource) Close(reason error) {
	r.Hush()
	r.Shed(math.MaxInt, reason)
}

// Protocol is "whip" or "whep".
func (r *Resource) Protocol() string { return r.cfg.Protocol }

// Sessions is the number of open sessions.
func (r *Resource) Sessions() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sessions)
}

func (r *Resource) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked(name)
}

func (r *Resource) forgetLocked(name string) {
	if e := r.sessions[name]; e != nil {
		delete(r.sessions, name)
		close(e.gone)
		e.grant.End()
	}
}

func (r *Resource) key(req *http.Request) (media.Key, error) {
	key, err := media.NewKey(req.PathValue("app"), req.PathValue("id"))
	if err != nil {
		return key, problem.New(problem.BadName, err.Error())
	}
	apps := r.cfg.Apps()
	if slices.Contains(apps, key.App) {
		return key, nil
	}
	return key, problem.New(problem.UnknownApp, fmt.Sprintf("there is no application %q here; there are: %s", key.App, strings.Join(apps, ", ")))
}

// revoke ends a session that was allowed to begin, and no longer is. A publisher's stream ends at once: nobody waits for him.
func (r *Resource) revoke(name string, e *entry, reason error) {
	r.forget(name)
	e.session.Close(fmt.Errorf("%w: %w", stream.ErrStopped, reason))
}

// Asks is what a request shows of who asks: the token of RFC 6750 §2.1, or that of the query for clients that can't set headers, and
// what goes with it. Action, Stream and Remote are left to the caller.
func Asks(req *http.Request) access.Request {
	q := req.URL.Query()
	a := access.Request{Token: q.Get("token"), SubscriberID: q.Get("subscriberId"), SubscriberCode: q.Get("subscriberCode"),
		Name: q.Get("streamName"), Metadata: q.Get("metaData"), Query: req.URL.RawQuery, Origin: req.Header.Get("Origin")}
	if scheme, token, _ := strings.Cut(req.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		a.Token = strings.TrimSpace(token)
	}
	return a
}

// body reads a request's body of one content type.
func body(w http.ResponseWriter, req *http.Request, contentType string, limit int64) (string, error) {
	got, _, err := mime.ParseMediaType(req.Header.Get("Content-Type"))
	if err != nil || got != contentType {
		return "", problem.New(problem.WrongMedia, fmt.Sprintf("the content type must be %s, not %.60q", contentType, req.Header.Get("Content-Type")))
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, req.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return "", problem.New(problem.TooLarge, fmt.Sprintf("at most %d bytes are taken", limit))
	case err != nil:
		return "", problem.New(problem.BadRequest, "the body ended early: "+err.Error())
	}
	return string(b), nil
}

// fail writes an error as a problem; nil writes nothing.
func (r *Resource) fail(w http.ResponseWriter, req *http.Request, err error) {
	if err == nil {
		return
	}
	p := ProblemOf(err)
	if p.Code.Name == problem.StreamOffline.Name && r.cfg.Protocol == "whep" {
		p.Code.Status = http.StatusConflict // as WHEP says; elsewhere 404
	}
	if p.Code.Name == problem.StreamOffline.Name || p.Code.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "2")
	}
	if p.Code == problem.Unauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if p.Code == problem.Internal {
		trace.Log(req.Context(), r.cfg.Log).Error("request failed", "path", req.URL.Path, "error", err)
	}
	p.Write(w)
}

// ProblemOf gives an error of the road its code.
func ProblemOf(err error) *problem.Problem {
	var p *problem.Problem
	if errors.As(err, &p) {
		return p
	}
	if errors.Is(err, access.ErrUnavailable) { // why is for the operator's log
		return problem.New(problem.RegistryAway, "what needs the cluster's registry must wait until it is back; media goes on")
	}
	for _, c := range []struct {
		is   error
		code problem.Code
	}{
		{access.ErrBlocked, problem.UserBlocked},
		{access.ErrTooManySessions, problem.TooManySessions},
		{access.ErrUnauthorized, problem.Unauthorized},
		{access.ErrForbidden, problem.Forbidden},
		{access.ErrTooMany, problem.TooMany},
		{access.ErrNoAnswer, problem.HookAway},
		{rtc.ErrBadSDP, problem.BadSDP},
		{rtc.ErrNoCodec, problem.NoCodec},
		{rtc.ErrBadCandidate, problem.BadCandidate},
		{rtc.ErrClosed, problem.NoSession},
		{egress.ErrFull, problem.NodeFull},
		{egress.ErrViewers, problem.ViewerLimit},
		{stream.ErrOffline, problem.StreamOffline},
		{relay.ErrUnreachable, problem.OriginUnreachable},
		{stream.ErrInUse, problem.StreamInUse},
		{stream.ErrNoBackup, problem.NoBackup},
		{stream.ErrClosing, problem.Draining},
		{context.DeadlineExceeded, problem.Timeout},
		{context.Canceled, problem.Timeout},
	} {
		if errors.Is(err, c.is) {
			return problem.New(c.code, err.Error())
		}
	}
	return problem.New(problem.Internal, "the server's log says more")
}
