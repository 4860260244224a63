package relay

import (
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"sluice/media"
	wire "sluice/relay"
	"sluice/stream"
)

// A GOP that has not ended when the next one has begun is given up when nothing came for patience (or two round trips, so
// that what was lost on a long path can be sent again), and at the latest after patienceMost.
const (
	patience     = 100 * time.Millisecond
	patienceMost = time.Second
)

// maxWaiting bounds the media streams that wait for their turn; the oldest is given up first. Where every frame is a key frame
// there is one for each, so a second of them must fit.
const maxWaiting = 64

// gop is one media stream: a GOP, or a run of sound.
type gop struct {
	header wire.Header
	st     *quic.ReceiveStream
	rd     *wire.Reader
	began  time.Time
}

// lane is one track on its way from the node to the hub. Its goroutine reads one GOP after the other.
type lane struct {
	up    *upstream
	track int
	video bool
	wake  chan struct{}
	begun atomic.Bool // something came

	feed sync.Mutex // one burst at a time, in order
	pub  *stream.Publisher
	held []*media.Burst // without pub: the picture since the last key frame
	size int            // bytes of it
	pace pace

	mu      sync.Mutex
	next    uint64 // the GOP whose turn it is
	current *gop
	waiting []*gop // ordered, none before next
	stopped bool
}

// offer adds a media stream. It never blocks.
func (l *lane) offer(g *gop) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, twice := slices.BinarySearchFunc(l.waiting, g, func(a, b *gop) int {
		return int(min(max(int64(a.header.GOP-b.header.GOP), -1), 1))
	})
	if l.stopped || twice || g.header.GOP < l.next {
		g.st.CancelRead(wire.StreamCut)
		return
	}
	l.waiting = slices.Insert(l.waiting, at, g)
	if len(l.waiting) > maxWaiting {
		l.waiting[0].st.CancelRead(wire.StreamCut)
		l.waiting = slices.Delete(l.waiting, 0, 1)
	}
	l.hurryLocked()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// hurryLocked limits the time for the rest of the present GOP once a later one has begun.
func (l *lane) hurryLocked() {
	if l.current == nil || len(l.waiting) == 0 {
		return
	}
	until := time.Now().Add(l.patience())
	if most := l.waiting[0].began.Add(patienceMost); most.Before(until) {
		until = most
	}
	_ = l.current.st.SetReadDeadline(until)
}

func (l *lane) patience() time.Duration {
	return max(patience, 2*l.up.peer.conn.ConnectionStats().SmoothedRTT)
}

func (l *lane) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	l.stopped = true
	if l.current != nil {
		l.current.st.CancelRead(wire.StreamUnsubscribed)
	}
	for _, g := range l.waiting {
		g.st.CancelRead(wire.StreamUnsubscribed)
	}
	l.waiting = nil
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run gives GOPs to the hub, in order, until the lane is stopped.
func (l *lane) run() {
	whole := true // nothing is missing before the next GOP
	for {
		g, skipped, wait := l.take()
		if g == nil {
			if wait < 0 {
				return
			}
			var late <-chan time.Time
			if wait > 0 {
				late = time.After(wait)
			}
			select {
			case <-l.wake:
			case <-late:
			}
			continue
		}
		if g.header.Gap || skipped || !whole {
			l.skip()
		}
		whole = l.copy(g)
	}
}

// take returns the GOP whose turn it is, and whether some before it did not come. When there is none, it says how long to wait:
// 0 until something comes, less than 0 because the lane has ended.
func (l *lane) take() (g *gop, skipped bool, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current = nil
	if l.stopped {
		return nil, false, -1
	}
	if len(l.waiting) == 0 {
		return nil, false, 0
	}
	g = l.waiting[0]
	if skipped = g.header.GOP != l.next; skipped {
		if wait := time.Until(g.began.Add(l.patience())); wait > 0 {
			return nil, false, wait
		}
	}
	l.waiting = slices.Delete(l.waiting, 0, 1)
	l.next = g.header.GOP + 1
	l.current = g
	l.hurryLocked()
	return g, skipped, 0
}

// copy gives the bursts of a GOP to the hub; false when the end of it is missing.
func (l *lane) copy(g *gop) bool {
	for {
		frame, err := g.rd.Next()
		if errors.Is(err, io.EOF) {
			return true
		}
		if err != nil {
			g.st.CancelRead(wire.StreamCut)
			l.up.peer.check(err)
			return false
		}
		b, age, err := wire.ParseBurst(l.track, frame)
		if err != nil {
			g.st.CancelRead(wire.StreamMalformed)
			l.up.peer.check(err)
			return false
		}
		now := time.Now()
		// When it would have come if nothing had waited for anything: a cached GOP is as old as it is, so
		// that the hub continues timestamps by the time that passed in the picture.
		b.Arrived = now.Add(-age).UnixNano()
		if !l.give(b, now) {
			g.st.CancelRead(wire.StreamUnsubscribed)
			return false
		}
		l.mu.Lock()
		l.hurryLocked()
		l.mu.Unlock()
	}
}
