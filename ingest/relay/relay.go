// Package relay brings streams from the nodes they are published to, or from others that have them, into this node's hub, over QUIC
// (docs/protocols/relay.md). Viewers keep their sessions when such a node dies and the stream comes back elsewhere.
//
// Locks: upstream.turn before lane.feed before the hub's stream lock before upstream.mu before lane.mu; Relay.mu
// and peer.mu nest with none.
//
// Imports: internal/metrics, internal/trace, media, relay, stream.
package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"sluice/internal/metrics"
	"sluice/internal/trace"
	"sluice/media"
	wire "sluice/relay"
	"sluice/stream"
)

// Source is where a stream can be had.
type Source struct {
	Addr  string // host:port of the node's relay (UDP)
	Key   string // of the node's relay, as in the registry
	Node  string // its id
	Epoch int64  // of its lease on the stream
	// Backup says that the stream has a backup publisher at this moment, whether or not the rest says anything.
	Backup bool
}

// Config of a Relay.
type Config struct {
	Hub      *stream.Hub
	Identity *wire.Identity
	Node     string // id of this node

	// Lookup asks the registry who publishes a stream at this moment; nobody: an error that wraps
	// stream.ErrOffline. It is called once for each Pull, and again when the upstream was lost or is silent.
	Lookup func(ctx context.Context, key media.Key) (Source, error)
	// Watch calls fn, from any goroutine, when the stream has a publisher, now or later, and again for each new epoch of it; nil: nobody
	// tells. Suspect says that it does not come from where the registry says.
	Watch   func(key media.Key, fn func(Source)) (cancel func())
	Suspect func(key media.Key)

	// For the tree of each stream. Region is where this node is, Addr at which address it serves streams itself; nil, or "": it
	// does not. Below says who takes a stream from here, and Rerouted hears that a stream comes another way: see Path.
	Region   string
	Addr     func() string
	Below    func(key media.Key) wire.Below
	Rerouted func(key media.Key)

	Grace time.Duration // a stream that was lost is looked for so long; default 10 s

	Metrics *metrics.Set // nil: none
	Log     *slog.Logger // default slog.Default()
}

const (
	pullWithin   = 3 * time.Second         // a Pull succeeds or fails within
	attachWithin = 1500 * time.Millisecond // the same for each attempt to find a lost stream again
	retryLeast   = 200 * time.Millisecond  // pause between attempts, doubled up to retryMost
	retryMost    = time.Second
)

// ErrUnreachable is what Pull returns when somebody publishes the stream, but it can't be had from there, or when the
// registry does not say who. The log says why: clients learn no addresses.
var ErrUnreachable = errors.New("the stream's origin can't be reached; try again")

// Relay is the way in from other nodes.
type Relay struct {
	cfg    Config
	meters meters

	ctx    context.Context // of everything that goes on; ends with Run
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	udp      net.PacketConn
	socket   *quic.Transport // bound with the first connection
	peers    map[peerID]*peer
	sessions map[media.Key]*session
	warned   time.Time // when a pull that failed was told last
	untold   int       // those since
}

// New returns a relay. Pull works at once, until Run ends.
func New(cfg Config) *Relay {
	cfg.Grace = cmp.Or(cfg.Grace, 10*time.Second)
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	if cfg.Watch == nil {
		cfg.Watch = func(media.Key, func(Source)) func() { return func() {} }
	}
	if cfg.Suspect == nil {
		cfg.Suspect = func(media.Key) {}
	}
	if cfg.Addr == nil {
		cfg.Addr = func() string { return "" }
	}
	if cfg.Below == nil {
		cfg.Below = func(media.Key) wire.Below { return wire.Below{} }
	}
	if cfg.Rerouted == nil {
		cfg.Rerouted = func(media.Key) {}
	}
	r := &Relay{cfg: cfg, peers: map[peerID]*peer{}, sessions: map[media.Key]*session{}}
	r.meters = newMeters(cfg.Metrics, r)
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// Run waits until ctx ends, then closes everything.
func (r *Relay) Run(ctx context.Context) error {
	<-ctx.Done()
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.wg.Wait()
	if r.socket != nil {
		_ = r.socket.Close()
		_ = r.udp.Close()
	}
	return nil
}

// pullRetries is how often a Pull asks again.
const pullRetries = 2

// Path is by which nodes a stream comes here at this moment, the one that it is published to first; nil: it does not.
func (r *Relay) Path(key media.Key) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sessions[key]; s != nil {
		return *s.path.Load()
	}
	return nil
}

// start runs f in a goroutine that Run waits for; false when Run has ended.
func (r *Relay) start(f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.wg.Go(f)
	return true
}

// Pull finds a stream, publishes it to the hub and keeps it there for as long as it is watched. It returns once the
// stream's tracks are known. It is what stream.Config.Pull wants.
func (r *Relay) Pull(ctx context.Context, key media.Key) (err error) {
	defer func() { r.meters.pulls.Add(resultOf(err)) }()
	ctx, cancel := context.WithTimeout(ctx, pullWithin)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	s := newSession(r, key, trace.Log(ctx, r.cfg.Log))
	s.asked = trace.RequestOf(ctx)
	if err := r.enter(ctx, s); err != nil {
		return fmt.Errorf("pull %s: %w", key, r.failed(s, err))
	}
	err = s.attach(ctx)
	for range pullRetries {
		// The registry knows of a publisher before its node does, and after; and the tree may have had no room at that moment.
		if !s.found || !errors.Is(err, stream.ErrOffline) && !errors.Is(err, errFull) {
			break
		}
		select {
		case <-time.After(retryLeast):
			err = s.attach(ctx)
		case <-ctx.Done():
		}
	}
	if err == nil && !r.start(s.run) {
		s.leave(stream.ErrClosing)
		err = stream.ErrClosing
	}
	if err != nil {
		r.exit(s)
		return fmt.Errorf("pull %s: %w", key, r.failed(s, err))
	}
	return nil
}

// warnEvery is how often pulls that fail are told.
const warnEvery = time.Second

// failed makes of an error what clients may know, and tells the operator the rest.
func (r *Relay) failed(s *session, err error) error {
	switch {
	case errors.Is(err, stream.ErrOffline), errors.Is(err, stream.ErrClosing):
		return err
	case r.ctx.Err() != nil:
		return stream.ErrClosing
	case errors.Is(err, stream.ErrInUse): // published here meanwhile
		return stream.ErrOffline
	case errors.Is(err, context.Canceled): // nobody wants it any more
		return context.Canceled
	}
	r.mu.Lock()
	now, untold := time.Now(), r.untold
	tell := now.Sub(r.warned) >= warnEvery
	if tell {
		r.warned, r.untold = now, 0
	} else {
		r.untold++
	}
	r.mu.Unlock()
	if tell {
		s.log.Warn("can't get a stream from the node that has it", "stream", s.key, "node", s.src.Node, "addr", s.src.Addr, "error", err, "untold", untold)
	}
	return ErrUnreachable
}

// enter makes s the session of its stream, after the one before has ended: the hub has given that one up.
func (r *Relay) enter(ctx context.Context, s *session) error {
	s.ctx, s.cancel = context.WithCancel(r.ctx)
	for {
		r.mu.Lock()
		old := r.sessions[s.key]
		if old == nil {
			r.sessions[s.key] = s
		}
		r.mu.Unlock()
		if old == nil {
			return nil
		}
		old.cancel()
		select {
		case <-old.done:
		case <-ctx.Done():
			s.cancel()
			return context.Cause(ctx)
		}
	}
}

// exit is the end of a session.
func (r *Relay) exit(s *session) {
	s.cancel()
	r.mu.Lock()
	delete(r.sessions, s.key)
	r.mu.Unlock()
	close(s.done)
	r.cfg.Rerouted(s.key)
}

// transport returns the UDP socket that all connections share.
func (r *Relay) transport() (*quic.Transport, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, stream.ErrClosing
	}
	if r.socket == nil {
		udp, err := net.ListenPacket("udp", ":0")
		if err != nil {
			return nil, fmt.Errorf("open a socket for relays: %w", err)
		}
		r.udp, r.socket = udp, &quic.Transport{Conn: udp}
	}
	return r.socket, nil
}
