package antmedia

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"

	"sluice/internal/access"
	"sluice/internal/trace"
	"sluice/media"
	"sluice/stream"
)

const (
	maxReplies   = 512              // that wait for a slow client; one more, and its socket is closed
	maxWork      = 256              // messages that wait for one session
	maxEarly     = 64               // candidates that wait for a description
	maxQuestions = 64               // questions about streams that wait for their answer
	remembered   = 16               // streams stopped last
	sendWithin   = 10 * time.Second // one message to a client
)

// socket is one client. Its read loop never waits for a session: what may take time runs in
// lanes, in order for each stream.
type socket struct {
	h      *Handler
	app    string
	backup bool // its publishers are backups of their streams
	remote netip.Addr
	shown  access.Request // with the socket's URL, for messages that show nothing
	owner  string         // who publishes from this socket, for stream.PublishOptions.Session
	log    *slog.Logger
	ws     *websocket.Conn
	ctx    context.Context // ends with the socket
	cancel context.CancelCauseFunc
	work   sync.WaitGroup // lanes and the writer

	reads, opens bucket // the read loop's

	mu       sync.Mutex
	closed   bool
	told     bool     // to connect again
	out      [][]byte // messages to send, in order
	writing  bool
	sessions map[string]*session // by stream id
	waits    map[string]*wait    // by stream id
	stopped  []string            // streams whose sessions ended last, oldest first
	asks     lane
}

func newSocket(request context.Context, h *Handler, app string, remote netip.Addr) *socket {
	s := &socket{h: h, app: app, remote: remote, owner: rand.Text(), log: trace.Log(request, h.cfg.Log).With("app", app, "peer", remote.String()),
		sessions: map[string]*session{}, waits: map[string]*wait{},
		reads: newBucket(h.cfg.Limits.Rate), opens: newBucket(h.cfg.Limits.Opens)}
	s.ctx, s.cancel = context.WithCancelCause(trace.Adopt(h.base, request))
	return s
}

// serve reads until the socket closes, then ends what it began.
func (s *socket) serve(ws *websocket.Conn) {
	s.mu.Lock()
	s.ws = ws
	s.mu.Unlock()
	ws.SetReadLimit(s.h.cfg.Limits.Frame)
	s.log.Debug("socket opened")
	err := s.read()
	s.linger()
	s.cancel(err)
	s.endAll()
	s.work.Wait()
	_ = ws.CloseNow()
	s.log.Debug("socket closed", "reason", context.Cause(s.ctx))
}

func (s *socket) read() error {
	idle := time.AfterFunc(s.h.cfg.Limits.Idle, s.silent)
	defer idle.Stop()
	for {
		kind, b, err := s.ws.Read(s.ctx)
		if err != nil {
			return err
		}
		idle.Reset(s.h.cfg.Limits.Idle)
		if wait := s.reads.take(time.Now()); wait > 0 { // TCP makes the client wait too
			select {
			case <-time.After(wait):
			case <-s.ctx.Done():
				return context.Cause(s.ctx)
			}
		}
		if kind != websocket.MessageText {
			s.fail("", badRequest, "messages are text; binary data goes over the data channel")
			continue
		}
		r, err := decode(b)
		if err != nil {
			s.fail(echo(r.StreamID), badRequest, err.Error())
			continue
		}
		s.handle(r)
	}
}

// errMoved ends the socket of a client that did not move.
var errMoved = errors.New("the node is about to stop")

// move tells the client to connect again; false when it was told before.
func (s *socket) move() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told || s.closed {
		return false
	}
	s.told = true
	s.sayLocked(reply{Command: "notification", Definition: "server_will_stop"})
	return true
}

const (
	// lingerFor is how long the media of a client goes on that closed its socket because it was told to. The SDK closes the
	// socket at once, its peer connections half a second later, and asks for the stream again half a second after that.
	lingerFor  = 2 * time.Second
	lingerLook = 50 * time.Millisecond
)

// linger waits until the client has closed its sessions too, so that the picture stays as long as it can.
func (s *socket) linger() {
	over := time.NewTimer(lingerFor)
	defer over.Stop()
	look := time.NewTicker(lingerLook)
	defer look.Stop()
	shed := s.ctx.Err() != nil
	for {
		s.mu.Lock()
		goesOn := s.told && len(s.sessions) > 0
		s.mu.Unlock()
		if !goesOn || shed {
			return
		}
		select {
		case <-look.C:
		case <-over.C:
			return
		case <-s.h.base.Done(): // the node stops
			return
		}
	}
}

// silent closes the socket of a client that says nothing.
func (s *socket) silent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.work.Go(func() {
			_ = s.ws.Close(websocket.StatusPolicyViolation, "no message for "+s.h.cfg.Limits.Idle.String())
		})
	}
}

// endAll ends the sessions of a socket that has closed. Publishers count as lost: their viewers wait a while for them.
func (s *socket) endAll() {
	s.mu.Lock()
	s.closed = true
	for _, x := range s.sessions {
		x.endLocked(stream.ErrLost)
	}
	var cancels []func()
	for _, w := range s.waits {
		if w.cancel != nil {
			cancels = append(cancels, w.cancel)
		}
	}
	s.waits = map[string]*wait{}
	s.mu.Unlock()
	for _, c := range cancels {
		c()
	}
}

// key checks a message's stream id and answers when it can't be one.
func (s *socket) key(r request) (media.Key, bool) {
	if r.StreamID == "" {
		s.fail("", noStreamName, "")
		return media.Key{}, false
	}
	key, err := media.NewKey(s.app, string(r.StreamID))
	if err != nil {
		s.fail(echo(r.StreamID), invalidName, err.Error())
		return media.Key{}, false
	}
	return key, true
}

// echo is a stream id as it goes back in an error, "" for one of unreasonable length.
func echo(id text) string {
	if len(id) > 256 {
		return ""
	}
	return string(id)
}

func (s *socket) fail(id, definition, information string) {
	s.sayAll(refusal{definition, information}.reply(id))
}

// sayAll sends messages, in this order.
func (s *socket) sayAll(messages ...reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range messages {
		s.sayLocked(m)
	}
}

// sayLocked queues a message and never blocks.
func (s *socket) sayLocked(m reply) {
	if s.closed || s.ws == nil {
		return
	}
	if len(s.out) >= maxReplies {
		s.cancel(errors.New("the client reads too slowly"))
		return
	}
	b, _ := json.Marshal(m) // strings, numbers and maps of them
	s.out = append(s.out, b)
	if !s.writing {
		s.writing = true
		s.work.Go(s.write)
	}
}

// write sends what is queued, then ends: a quiet socket has no writer.
func (s *socket) write() {
	for {
		s.mu.Lock()
		batch := s.out
		s.out = nil
		s.writing = len(batch) > 0
		s.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for _, b := range batch {
			ctx, cancel := context.WithTimeout(s.ctx, sendWithin)
			err := s.ws.Write(ctx, websocket.MessageText, b)
			cancel()
			if err != nil {
				s.cancel(err)
				break
			}
		}
	}
}

// lane runs functions one after the other, in a goroutine that lives as long as there are any. It
// belongs to a socket and is guarded by its lock.
type lane struct {
	queue   []func()
	running bool
}

// doLocked adds to a lane; false when limit functions wait already.
func (s *socket) doLocked(l *lane, limit int, f func()) bool {
	if len(l.queue) >= limit {
		return false
	}
	l.queue = append(l.queue, f)
	if !l.running {
		l.running = true
		s.work.Go(func() { s.run(l) })
	}
	return true
}

func (s *socket) run(l *lane) {
	for {
		s.mu.Lock()
		if len(l.queue) == 0 {
			l.running = false
			s.mu.Unlock()
			return
		}
		f := l.queue[0]
		l.queue = slices.Delete(l.queue, 0, 1)
		s.mu.Unlock()
		f()
	}
}

// bucket limits a rate, with a burst of ten seconds' worth.
type bucket struct {
	rate float64 // a second
	full float64
	left float64
	at   time.Time
}

func newBucket(rate float64) bucket { return bucket{rate: rate, full: 10 * rate, left: 10 * rate} }

func (b *bucket) refill(now time.Time) {
	if !b.at.IsZero() {
		b.left = math.Min(b.full, b.left+now.Sub(b.at).Seconds()*b.rate)
	}
	b.at = now
}

// take takes one; the answer is how long to wait for it.
func (b *bucket) take(now time.Time) time.Duration {
	b.refill(now)
	b.left--
	if b.left >= 0 {
		return 0
	}
	return time.Duration(-b.left / b.rate * float64(time.Second))
}

// try takes one if there is one.
func (b *bucket) try(now time.Time) bool {
	b.refill(now)
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}
