// Package stream is the hub in the middle of the road: one publisher in, any
// number of subscribers out. It keeps the packets since the last key frame, makes
// numbering continuous over a change of publisher, and merges requests for key frames.
//
// Locks: Hub.mu before Stream.mu. Subscribers and publishers' callbacks run with Stream.mu
// held unless said otherwise, so they must neither block nor call back into the hub.
//
// Imports: media, codec.
package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/media"
)

// Errors of the hub, also given as reasons to publishers and subscribers.
var (
	ErrOffline   = errors.New("stream is not live")
	ErrInUse     = errors.New("stream is published by somebody else")
	ErrReplaced  = errors.New("another publisher took the stream over")
	ErrStopped   = errors.New("publisher stopped")
	ErrLost      = errors.New("publisher was lost")
	ErrIdle      = errors.New("nobody watches")
	ErrLeaseLost = errors.New("the stream is published on another node")
	ErrClosing   = errors.New("the server stops")
	ErrNoBackup  = errors.New("a backup publisher must be on another origin than the main one")
)

// Holding is the right of this node to publish a stream.
type Holding interface {
	// Report says whether media flows at this moment. It must not block.
	Report(flowing bool, codecs []string)
	// Release gives the right back. It may block for a round trip.
	Release()
}

// holding is a right and whether it was lost meanwhile.
type holding struct {
	Holding
	lost atomic.Bool
}

// Config of a Hub. The zero value is that of a lone node.
type Config struct {
	// Own takes the right to publish a stream for this node; lost is called
	// once, from any goroutine, when another node has taken it. nil: no other node exists.
	Own func(ctx context.Context, key media.Key, lost func()) (Holding, error)
	// Pull brings in a stream that is not here: on success it has published the stream to the
	// hub with Relayed set. nil, or an error: ErrOffline. One call at a time for each stream.
	Pull func(ctx context.Context, key media.Key) error

	Silence  time.Duration // a publisher that sends nothing for so long may be taken over; default 1 s
	Grace    time.Duration // a stream outlives a lost publisher for so long; default 10 s
	Farewell time.Duration // the same for a publisher that stopped of its own will; default 2 s
	Idle     time.Duration // a pulled stream outlives its last subscriber for so long; default 5 s
	KeyEvery time.Duration // after so long without a key frame one is requested; default 4 s
	KeyLeast time.Duration // key frames are requested from a publisher no more often than this; default 500 ms

	// OnGap hears for how long a stream had no media when it goes on from another source than before: video if it has a picture. It is called
	// with the stream locked and must not block. nil: nobody wants to know.
	OnGap func(gap time.Duration, relayed bool)

	Log *slog.Logger // default slog.Default()
}

// Hub holds the streams of a node.
type Hub struct {
	cfg Config

	mu        sync.Mutex
	streams   map[media.Key]*Stream
	pulls     map[media.Key]*pull
	admitting map[media.Key]bool // a Publish is under way
	closed    bool
	past      uint64          // payload of streams that have ended, in bytes
	work      sync.WaitGroup  // goroutines of Run and of pull
	pulling   context.Context // of Config.Pull; ends with Run
	stopPulls context.CancelFunc
}

// pull is one Config.Pull under way and those who wait for it.
type pull struct {
	done chan struct{}
	err  error
}

// NewHub returns an empty hub. Its timers run in Run.
func NewHub(cfg Config) *Hub {
	cfg.Silence = cmp.Or(cfg.Silence, time.Second)
	cfg.Grace = cmp.Or(cfg.Grace, 10*time.Second)
	cfg.Farewell = cmp.Or(cfg.Farewell, 2*time.Second)
	cfg.Idle = cmp.Or(cfg.Idle, 5*time.Second)
	cfg.KeyEvery = cmp.Or(cfg.KeyEvery, 4*time.Second)
	cfg.KeyLeast = cmp.Or(cfg.KeyLeast, 500*time.Millisecond)
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	h := &Hub{cfg: cfg, streams: map[media.Key]*Stream{}, pulls: map[media.Key]*pull{}, admitting: map[media.Key]bool{}}
	h.pulling, h.stopPulls = context.WithCancel(context.Background())
	return h
}

// sweep is how often the hub looks for silent publishers, ended graces and due key-frame requests.
const sweep = 100 * time.Millisecond

// Run watches over the streams until ctx ends, then ends them all with ErrClosing.
func (h *Hub) Run(ctx context.Context) error {
	tick := time.NewTicker(sweep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			h.mu.Lock()
			h.closed = true
			h.mu.Unlock()
			for _, s := range h.snapshot() {
				h.end(s, ErrClosing)
			}
			h.stopPulls()
			h.work.Wait()
			return nil
		case now := <-tick.C:
			for _, s := range h.snapshot() {
				over, moved := s.sweep(now)
				if moved {
					h.work.Go(func() { _ = h.pull(ctx, s.key) }) // when it fails, the stream's grace decides
				}
				if over != nil {
					h.end(s, over)
				}
			}
		}
	}
}

func (h *Hub) snapshot() []*Stream {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*Stream, 0, len(h.streams))
	for _, s := range h.streams {
		all = append(all, s)
	}
	return all
}

// end removes a stream and tells everybody on it.
func (h *Hub) end(s *Stream, reason error) {
	h.mu.Lock()
	if h.streams[s.key] == s {
		delete(h.streams, s.key)
		h.past += s.received()
	}
	h.mu.Unlock()
	s.finish(reason)
}

// Stop ends a stream that is published here, with its publisher; ErrStopped tells viewers that it was meant. It reports false when there is none.
func (h *Hub) Stop(key media.Key, reason error) bool {
	s := h.stream(key)
	if s == nil || s.info().Relayed {
		return false
	}
	h.end(s, reason)
	return true
}

// Received is the number of bytes of RTP payload that have come since the start.
func (h *Hub) Received() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	sum := h.past
	for _, s := range h.streams {
		sum += s.received()
	}
	return sum
}

// PublishOptions describe a publisher.
type PublishOptions struct {
	Tracks  []media.Track
	Session string // who publishes; the same session replaces itself without waiting. "" matches nobody
	Request string // id of the request by which it came, for logs; "": none
	Trace   string // its W3C traceparent; "": it is not traced
	Relayed bool   // comes from another node: no right is taken, and it ends when nobody watches
	// Beside: publishes renditions of a stream that somebody else publishes, which ErrOffline says is not so. It ends with the stream, or when
	// the stream's codecs change.
	Beside bool
	// Exact: what is published beside has the timestamps that the stream's own frames have for subscribers.
	Exact bool

	// Called with the stream locked: they must not block.
	OnKeyFrameRequest func(track int)
	// OnWanted says that a track begins to be taken by somebody, or that nobody takes it any more. At first all are but renditions. The picture itself is
	// also wanted while nobody watches, so that the first who does sees it at once.
	// Now says that what is cached of the track is of use; else it begins with its next key frame.
	OnWanted  func(track int, wanted, now bool)
	OnMessage func(media.Message)
	// OnEnd is called once, from a goroutine of its own, when the stream no longer takes from this publisher
	// although it did not Close.
	OnEnd func(reason error)
}

// Publish puts a publisher on a stream. When the stream has one that still sends, it waits
// up to two Silences for it to fall silent, then fails with ErrInUse.
func (h *Hub) Publish(ctx context.Context, key media.Key, o PublishOptions) (*Publisher, error) {
	if o.Beside {
		return h.publishBeside(key, o)
	}
	if err := h.admit(ctx, key, o); err != nil {
		return nil, fmt.Errorf("publish %s: %w", key, err)
	}
	defer h.admitted(key)
	p := &Publisher{options: o}
	var right *holding
	for {
		if s := h.stream(key); right == nil && !o.Relayed && h.cfg.Own != nil && (s == nil || !s.held()) {
			right = &holding{}
			var err error
			if right.Holding, err = h.cfg.Own(ctx, key, func() { right.lost.Store(true) }); err != nil {
				return nil, fmt.Errorf("publish %s: %w", key, err)
			}
		}
		h.mu.Lock()
		s := h.streams[key]
		if s == nil && !h.closed {
			s = newStream(key, &h.cfg)
			h.streams[key] = s
		}
		h.mu.Unlock()
		if s == nil {
			if right != nil {
				right.Release()
			}
			return nil, fmt.Errorf("publish %s: %w", key, ErrClosing)
		}
		p.stream = s
		if s.attach(p, right) {
			return p, nil
		} // it ended in between, or lost the right on which we counted: again
	}
}

func (h *Hub) stream(key media.Key) *Stream {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.streams[key]
}

// admit waits until the new publisher may take the stream, and keeps others off it until admitted.
func (h *Hub) admit(ctx context.Context, key media.Key, o PublishOptions) error {
	ctx, cancel := context.WithTimeout(ctx, 2*h.cfg.Silence)
	defer cancel()
	tick := time.NewTicker(sweep / 2)
	defer tick.Stop()
	for {
		h.mu.Lock()
		s := h.streams[key]
		free := !h.admitting[key] && (s == nil || s.mayReplace(o, time.Now()))
		if free {
			h.admitting[key] = true
		}
		h.mu.Unlock()
		if free {
			return nil
		}
		select {
		case <-ctx.Done():
			return ErrInUse
		case <-tick.C:
		}
	}
}

func (h *Hub) admitted(key media.Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.admitting, key)
}

// Subscribe puts a subscriber on a stream, which must be live or be had by Config.Pull. Media begins with
// Subscription.Start.
func (h *Hub) Subscribe(ctx context.Context, key media.Key, o SubscribeOptions) (*Subscription, error) {
	for range 3 { // a stream may end between the pull and the subscription
		if s := h.stream(key); s != nil {
			sub, ended := s.subscribe(o)
			if sub != nil {
				return sub, nil
			}
			if !ended {
				break
			}
		}
		if err := h.pull(ctx, key); err != nil {
			return nil, fmt.Errorf("subscribe to %s: %w", key, err)
		}
	}
	return nil, fmt.Errorf("subscribe to %s: %w", key, ErrOffline)
}

// pull runs Config.Pull once for all who want the stream at this moment.
func (h *Hub) pull(ctx context.Context, key media.Key) error {
	if h.cfg.Pull == nil {
		return ErrOffline
	}
	h.mu.Lock()
	p := h.pulls[key]
	if p == nil {
		if h.closed {
			h.mu.Unlock()
			return ErrClosing
		}
		p = &pull{done: make(chan struct{})}
		h.pulls[key] = p
		asked, stop := context.WithCancel(context.WithoutCancel(ctx)) // with what it says of the first caller, for logs
		kept := context.AfterFunc(h.pulling, stop)
		h.work.Go(func() { // outlives the first caller, who may go away while others wait
			p.err = h.cfg.Pull(asked, key)
			kept()
			stop()
			h.mu.Lock()
			delete(h.pulls, key)
			h.mu.Unlock()
			close(p.done)
		})
	}
	h.mu.Unlock()
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Info describes a stream at one moment.
type Info struct {
	Key     media.Key
	Tracks  []TrackInfo
	Flowing bool      // media arrived within the last Silence
	Last    time.Time // when media came last; without a publisher, when it went
	Relayed bool      // its publisher is on another node
	Viewers int
	Relays  int // other nodes that take it from here
	Started time.Time
	Bytes   uint64 // RTP payload received since the start
	// Request and Trace are the publisher's; see PublishOptions.
	Request, Trace string
}

// TrackInfo describes a track of a stream.
type TrackInfo struct {
	media.Track
	Flowing       bool          // something came within the last Silence
	Wanted        bool          // somebody takes it
	Bitrate       int           // bit/s of payload in the last second or so
	Width, Height int           // pixels; 0: not known
	KeyDistance   time.Duration // between the last two key frames; 0: not known
}

// Codecs names the codecs of a stream, video first.
func (i Info) Codecs() []string {
	tracks := make([]media.Track, len(i.Tracks))
	for j, t := range i.Tracks {
		tracks[j] = t.Track
	}
	return media.CodecNames(tracks)
}

// List describes all streams, ordered by key.
func (h *Hub) List() []Info {
	var all []Info
	for _, s := range h.snapshot() {
		all = append(all, s.info())
	}
	slices.SortFunc(all, func(a, b Info) int { return cmp.Compare(a.Key.String(), b.Key.String()) })
	return all
}

// Info describes one stream.
func (h *Hub) Info(key media.Key) (Info, bool) {
	s := h.stream(key)
	if s == nil {
		return Info{}, false
	}
	return s.info(), true
}
