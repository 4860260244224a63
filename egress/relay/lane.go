package relay

import (
	"errors"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"sluice/media"
	wire "sluice/relay"
)

// A peer has fallen behind on a track when so much waits, or the oldest burst has waited for so long. It then loses the rest of
// the GOP, and goes on with the newest key frame. The first GOP, which comes from the cache at
// once, may take longer: cutting it would cost the viewers their first picture.
const (
	maxBursts   = 512
	maxBytes    = 8 << 20
	maxWait     = time.Second
	maxWaitJoin = 3 * time.Second
)

// item is a burst and when it came.
type item struct {
	b  *media.Burst
	at time.Time
}

// lane is the way of one track to one peer: the hub puts bursts in, one goroutine writes them. Each GOP has
// a QUIC stream of its own; sound has one for as long as nothing is cut.
type lane struct {
	sub   *subscription
	audio bool
	wake  chan struct{}

	mu       sync.Mutex
	header   wire.Header // of the next media stream
	first    []item      // from the GOP cache; bounded by it, and written first
	queue    []item
	bytes    int       // payload in queue
	busy     time.Time // when the burst came that is being written; zero: none is
	out      *quic.SendStream
	skipping bool // until the next key frame,
	slow     bool // because the peer is too slow; else it does not want the rest of the GOP
	ending   bool // stop when the queue is empty
	stopped  bool
}

// starts reports whether a receiver can begin with that burst.
func (l *lane) starts(b *media.Burst) bool { return l.audio || b.Key }

// cached takes a burst of the GOP cache.
func (l *lane) cached(b *media.Burst) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.stopped {
		l.first = append(l.first, item{b.Retain(), time.Now()})
		l.signal()
	}
}

// again begins with what is cached, after a time in which the peer did not want the track.
func (l *lane) again(bursts []*media.Burst) {
	l.mu.Lock()
	if !l.stopped && (l.header.GOP > 0 || l.out != nil || len(l.first)+len(l.queue) > 0) {
		l.cutLocked(false)
		release(l.queue)
		l.queue, l.bytes = nil, 0
	}
	l.skipping = len(bursts) == 0 // else what comes goes on from them
	l.mu.Unlock()
	for _, b := range bursts {
		l.cached(b)
	}
}

// push takes a live burst. It never blocks.
func (l *lane) push(b *media.Burst) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	now := time.Now()
	if l.behindLocked(now) {
		l.cutLocked(true)
	}
	if l.skipping && !l.starts(b) {
		if l.slow {
			l.sub.lost(0, 1)
		}
		return
	}
	l.skipping = false
	l.queue = append(l.queue, item{b.Retain(), now})
	l.bytes += b.Size()
	l.signal()
}

func (l *lane) behindLocked(now time.Time) bool {
	if len(l.queue) >= maxBursts || l.bytes > maxBytes {
		return true
	}
	oldest := l.busy
	if oldest.IsZero() && len(l.first) > 0 {
		oldest = l.first[0].at
	}
	if oldest.IsZero() && len(l.queue) > 0 {
		oldest = l.queue[0].at
	}
	limit := maxWait
	if l.header.GOP <= 1 && !l.header.Gap { // the first GOP is on its way
		limit = maxWaitJoin
	}
	return !oldest.IsZero() && now.Sub(oldest) > limit
}

// cutLocked gives the present GOP up and drops what waits before the newest key frame. It is counted when
// the peer is too slow, not when the peer has gone.
func (l *lane) cutLocked(slow bool) {
	if l.out != nil {
		l.out.CancelWrite(wire.StreamCut)
		l.out = nil
	}
	l.busy = time.Time{}
	l.header.Gap = true
	lost := len(l.first)
	release(l.first)
	l.first = nil
	start := len(l.queue)
	for i := len(l.queue) - 1; i >= 0; i-- {
		if l.starts(l.queue[i].b) {
			start = i
			break
		}
	}
	for _, it := range l.queue[:start] {
		l.bytes -= it.b.Size()
	}
	release(l.queue[:start])
	l.queue = l.queue[start:]
	l.skipping, l.slow = len(l.queue) == 0, slow
	if slow {
		l.sub.lost(1, lost+start)
	}
}

func release(items []item) {
	for i := range items {
		items[i].b.Release()
		items[i] = item{}
	}
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// finish ends the lane once everything is written, stop at once.
func (l *lane) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ending = true
	l.signal()
}

func (l *lane) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	l.stopped = true
	if l.out != nil {
		l.out.CancelWrite(wire.StreamUnsubscribed)
		l.out = nil
	}
	release(l.first)
	release(l.queue)
	l.first, l.queue = nil, nil
	l.signal()
}

// run writes until the lane or the connection ends.
func (l *lane) run() {
	defer l.stop()
	gone := l.sub.conn.Context().Done()
	var buf []byte
	for {
		b, out, header, over := l.next()
		if over {
			return
		}
		if b == nil {
			select {
			case <-l.wake:
				continue
			case <-gone:
				return
			}
		}
		buf = buf[:0]
		if header != nil {
			buf = wire.AppendHeader(buf, *header)
		}
		age := time.Duration(0)
		if b.Arrived != 0 {
			age = time.Duration(time.Now().UnixNano() - b.Arrived)
		}
		buf = wire.AppendBurst(buf, b, age, l.sub.version)
		b.Release()
		_, err := out.Write(buf) // blocks while the peer or the path takes no more
		l.written(out, err)
	}
}

// next takes the next burst, with the stream to write it to, and its header when it is a new one. No burst: wait.
func (l *lane) next() (b *media.Burst, out *quic.SendStream, header *wire.Header, over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.stopped {
		it, ok := l.popLocked()
		if !ok {
			if l.ending && l.out != nil {
				_ = l.out.Close()
				l.out = nil
			}
			return nil, nil, nil, l.ending
		}
		if l.out != nil && (l.audio || !it.b.Key) {
			l.busy = it.at
			return it.b, l.out, nil, false
		}
		if h, ok := l.openLocked(); ok {
			l.busy = it.at
			return it.b, l.out, h, false
		}
		it.b.Release()
		l.cutLocked(true)
	}
	return nil, nil, nil, true
}

func (l *lane) popLocked() (item, bool) {
	from := &l.first
	if len(*from) == 0 {
		from = &l.queue
	}
	if len(*from) == 0 {
		return item{}, false
	}
	it := (*from)[0]
	(*from)[0] = item{}
	*from = (*from)[1:]
	if from == &l.queue {
		l.bytes -= it.b.Size()
	}
	return it, true
}

// openLocked ends the stream of the GOP before and opens one for the next. It fails when the peer
// has not let go of enough streams: it is far behind.
func (l *lane) openLocked() (*wire.Header, bool) {
	if l.out != nil {
		_ = l.out.Close()
		l.out = nil
	}
	out, err := l.sub.conn.OpenUniStream()
	if err != nil {
		return nil, false
	}
	if l.audio {
		out.SetPriority(1, true) // before video: it is small, and its loss is heard
	}
	l.out = out
	h := l.header
	l.header.GOP++
	l.header.Gap = false
	return &h, true
}

// written notes that a write is over. It failed when the lane cut the stream meanwhile, or
// when the peer does not want the rest of it.
func (l *lane) written(out *quic.SendStream, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.out != out {
		return
	}
	l.busy = time.Time{}
	if err == nil {
		return
	}
	unwanted, ok := errors.AsType[*quic.StreamError](err)
	l.cutLocked(ok && unwanted.ErrorCode == wire.StreamCut)
}
