// Package antmedia speaks the Ant Media signalling protocol: JSON over a WebSocket, by which the
// widely used JavaScript SDK publishes and plays. What of it we do stands in docs/protocols/antmedia.md.
//
// Locks: Handler.mu and socket.mu are never held together. Sessions' callbacks take socket.mu.
//
// Imports: media, stream, rtc, cluster, internal/access, internal/problem, internal/trace, ingest/relay, ingest/webrtc, egress/webrtc, signal.
package antmedia

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"sluice/egress/webrtc"
	"sluice/internal/access"
	"sluice/internal/problem"
	"sluice/media"
	"sluice/rtc"
	"sluice/signal"
)

// Session is a publisher's or a viewer's connection as this package steers it.
type Session interface {
	// AddCandidate takes one of the client's candidates, after both descriptions are set.
	AddCandidate(rtc.Candidate) error
	// Close ends the session; neither OnStarted nor OnEnded is called afterwards.
	Close(reason error)
}

// PlaySession is a viewer's connection, to which the server makes the offer.
type PlaySession interface {
	Session
	SetAnswer(sdp string) error

	Qualities() []webrtc.Quality // the best first
	Rates() webrtc.Rates
	Pin(track int) bool      // one of the qualities, whatever the path takes; false: there is none such
	Adapt(width, height int) // what the path takes, at most so many pixels; 0: no limit
	Show(kind media.Kind, on bool)
}

// Request asks for a session. Its callbacks are called from any goroutine, OnEnded once at most.
type Request struct {
	Key     media.Key
	Session string // publishers: who it is; the same one takes its stream over without waiting
	Remote  string // address, for logs

	OnStarted  func()      // media flows
	OnRestored func()      // the client, which had fallen silent, is back
	OnEnded    func(error) // the session ended by itself
	// OnRendition: a viewer gets another rendition of the picture.
	OnRendition func(webrtc.Quality)
}

// publisher opens sessions that bring a stream in (Publishing). An error of a stream
// that is taken wraps stream.ErrInUse or cluster.ErrStreamInUse.
type publisher interface {
	Publish(ctx context.Context, r Request, offer string) (Session, string, error)
}

// player opens sessions that carry a stream out (Playing). The error for a stream that is not
// live wraps stream.ErrOffline.
type player interface {
	Offer(ctx context.Context, r Request) (PlaySession, string, error)
}

// directory knows streams, also those that are elsewhere (Known).
type directory interface {
	// Stream describes a stream; false when it was never heard of. It may take a round trip.
	Stream(ctx context.Context, key media.Key) (Stream, bool, error)
	// Look is Stream, and waits a moment until the size and rate of each rendition are known.
	Look(ctx context.Context, key media.Key) (Stream, bool, error)
	// Watch calls f when the stream is live, now or later, and again each time it starts anew. f
	// does not block. A call that has begun may still run when cancel returns.
	Watch(key media.Key, f func()) (cancel func())
}

// Limits bound what clients can cost. Zero means the default.
type Limits struct {
	Sockets  int           // open at once; default 50,000
	Idle     time.Duration // a socket that says nothing for so long is closed; clients ping every 3 s; default 60 s
	Start    time.Duration // from publish or play to media; default 10 s
	Sessions int           // publishing and playing on one socket; default 64
	Waiting  int           // streams that one socket waits for; default 100
	Frame    int64         // bytes of one message; default 256 KiB
	Rate     float64       // messages a second that a socket is read at, after a burst of 10 s' worth; default 100
	Measure  time.Duration // between two measurements of a viewer's path that he is told; default 2 s
	Opens    float64       // publish and play commands a second of a socket, after a burst of 10 s' worth; default 10
}

// Config of a Handler.
type Config struct {
	Publisher publisher // nil: this node takes no publishers
	Player    player    // nil: this node serves no viewers
	Directory directory

	Apps       func() []string               // applications that exist
	Allows     func(app, origin string) bool // whether pages of a site may use an application; nil: all may
	ICEServers []signal.ICEServer
	Relays     func() []signal.ICEServer // more of them, with credentials for one client; nil: none
	Authorize  access.Hook
	Admit      func() error // refuses new sessions with an error; it does not block. nil: takes all
	ClientAddr func(*http.Request) netip.Addr
	Limits     Limits
	Log        *slog.Logger // default slog.Default()
}

// Handler serves GET /{app}/websocket.
type Handler struct {
	cfg      Config
	base     context.Context // ends with Close
	end      context.CancelFunc
	draining atomic.Bool

	mu      sync.Mutex
	sockets map[*socket]struct{}
	closed  bool
	done    sync.WaitGroup // sockets
}

// New returns a handler. Close ends its sockets.
func New(cfg Config) *Handler {
	l := &cfg.Limits
	l.Sockets = cmp.Or(l.Sockets, 50_000)
	l.Idle = cmp.Or(l.Idle, 60*time.Second)
	l.Start = cmp.Or(l.Start, 10*time.Second)
	l.Sessions = cmp.Or(l.Sessions, 64)
	l.Waiting = cmp.Or(l.Waiting, 100)
	l.Frame = cmp.Or(l.Frame, 256<<10)
	l.Rate = cmp.Or(l.Rate, 100)
	l.Opens = cmp.Or(l.Opens, 10)
	l.Measure = cmp.Or(l.Measure, 2*time.Second)
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	if cfg.Admit == nil {
		cfg.Admit = func() error { return nil }
	}
	if cfg.Relays == nil {
		cfg.Relays = func() []signal.ICEServer { return nil }
	}
	base, end := context.WithCancel(context.Background())
	return &Handler{cfg: cfg, base: base, end: end, sockets: map[*socket]struct{}{}}
}

// Register adds the routes.
func (h *Handler) Register(mux *http.ServeMux) {
	mux.Handle("GET /{app}/websocket", h)
	mux.Handle("GET /{app}/websocket/signaling", h) // where players look for a signalling node
}

// ServeHTTP serves one socket until it closes. The pattern it is mounted on names {app}.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	app := r.PathValue("app")
	if !slices.Contains(h.cfg.Apps(), app) {
		problem.New(problem.UnknownApp, "the URL is /{app}/websocket").Write(w)
		return
	}
	if f := h.cfg.Allows; f != nil && !f(app, r.Header.Get("Origin")) {
		problem.New(problem.Forbidden, "pages of this site may not use the application").Write(w)
		return
	}
	if r.Header.Get("Upgrade") == "" {
		problem.New(problem.BadRequest, "this address takes WebSockets only").Write(w)
		return
	}
	backup, err := signal.Backup(r)
	if err != nil {
		signal.ProblemOf(err).Write(w)
		return
	}
	if h.draining.Load() {
		problem.New(problem.Draining, "connect again, to another node").Write(w)
		return
	}
	s := newSocket(r.Context(), h, app, h.cfg.ClientAddr(r))
	s.backup, s.shown = backup, signal.Asks(r)
	if !h.add(s) {
		problem.New(problem.NodeFull, "too many WebSockets are open").Write(w)
		return
	}
	defer h.remove(s)
	// Any page that Allows lets in may speak to us: no cookie or other ambient right is used here.
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		h.cfg.Log.Debug("no WebSocket", "peer", s.remote, "err", err)
		return
	}
	s.serve(ws)
}

func (h *Handler) add(s *socket) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.sockets) >= h.cfg.Limits.Sockets {
		return false
	}
	h.sockets[s] = struct{}{}
	h.done.Add(1)
	return true
}

func (h *Handler) remove(s *socket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.sockets, s)
	h.done.Done()
}

// Sockets is the number of open sockets.
func (h *Handler) Sockets() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.sockets)
}

// Drain takes no new work from now on. What runs goes on; Move tells clients to connect again.
func (h *Handler) Drain() { h.draining.Store(true) }

// Stay takes work again after Drain.
func (h *Handler) Stay() {
	for _, s := range h.all() {
		s.mu.Lock()
		s.told = false
		s.mu.Unlock()
	}
	h.draining.Store(false)
}

// Listening is how many clients have not been told to move.
func (h *Handler) Listening() (n int) {
	for _, s := range h.all() {
		s.mu.Lock()
		if !s.told && !s.closed {
			n++
		}
		s.mu.Unlock()
	}
	return n
}

// Move tells n clients, any, to connect again, which leads them to another node.
func (h *Handler) Move(n int) {
	for _, s := range h.all() {
		if n <= 0 {
			return
		}
		if s.move() {
			n--
		}
	}
}

// Shed ends n sockets, any, with their sessions: those of clients that did not move when they were told.
func (h *Handler) Shed(n int) {
	all := h.all()
	for _, s := range all[:min(n, len(all))] {
		s.cancel(errMoved)
	}
}

// Close ends all sockets and their sessions, and returns when they have ended.
func (h *Handler) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.draining.Store(true)
	h.end()
	h.done.Wait()
}

// all sockets, in no order.
func (h *Handler) all() []*socket {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]*socket, 0, len(h.sockets))
	for s := range h.sockets {
		list = append(list, s)
	}
	return list
}
