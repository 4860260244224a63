package crowd

import (
	"sync"
	"time"
)

// loop owns a part of the sessions: it reads their sockets and keeps their time, in one goroutine.
type loop struct {
	poller *poller

	mu    sync.Mutex
	tasks []func()
	ended bool

	// The goroutine's.
	now     time.Time
	beats   [beatTicks]map[*session]struct{} // sessions, by the tick at which they have their turn
	tick    int
	hurried map[*session]struct{} // have a turn at each tick
	figures loopFigures
}

const (
	tickEvery = 20 * time.Millisecond
	beatTicks = 25 // a turn every half second

	// receiveBuffer is what the kernel may keep for a session, in bytes: a key frame and more. It counts
	// twice what the datagrams have. The kernel may grant less (net.core.rmem_max).
	receiveBuffer = 1 << 20
)

func newLoop() (*loop, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	l := &loop{poller: p, now: time.Now(), hurried: map[*session]struct{}{}}
	for i := range l.beats {
		l.beats[i] = map[*session]struct{}{}
	}
	return l, nil
}

// do runs f in the loop's goroutine and waits for its end. After the loop's end it does nothing.
func (l *loop) do(f func()) {
	done := make(chan struct{})
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return
	}
	l.tasks = append(l.tasks, func() { f(); close(done) })
	l.mu.Unlock()
	l.poller.wake()
	<-done
}

// stop ends run.
func (l *loop) stop() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.poller.wake()
}

// run returns after stop, or when the system does not let it wait.
func (l *loop) run() error {
	next := time.Now().Add(tickEvery)
	batch := func() { l.now = time.Now() }
	for {
		err := l.poller.wait(max(time.Millisecond, time.Until(next)), l.take, batch)
		l.mu.Lock()
		tasks, ended := l.tasks, l.ended
		l.tasks = nil
		if err != nil {
			l.ended = true
		}
		l.mu.Unlock()
		for _, f := range tasks {
			f()
		}
		if err != nil || ended {
			return err
		}
		if now := time.Now(); !now.Before(next) {
			l.now = now
			l.turn()
			if next = next.Add(tickEvery); next.Before(now) {
				next = now.Add(tickEvery)
			}
		}
	}
}

func (l *loop) turn() {
	for s := range l.hurried {
		if !s.hurry(l.now) {
			delete(l.hurried, s)
		}
	}
	l.tick = (l.tick + 1) % beatTicks
	for s := range l.beats[l.tick] {
		s.beat(l.now)
	}
}

// add takes a session, whose socket it opens.
func (l *loop) add(s *session, six bool) (err error) {
	if s.socket, err = l.poller.open(s, six); err != nil {
		return err
	}
	s.phase = l.figures.added % beatTicks
	l.figures.added++
	l.beats[s.phase][s] = struct{}{}
	l.hurried[s] = struct{}{}
	s.hurry(l.now)
	return nil
}

// remove closes a session's socket.
func (l *loop) remove(s *session) {
	if s.socket == nil || s.removed {
		return
	}
	s.removed = true
	if v, ok := s.medium.(*viewer); ok {
		l.figures.gone.add(v.seen)
	}
	delete(l.beats[s.phase], s)
	delete(l.hurried, s)
	l.poller.remove(s.socket)
}

func (l *loop) take(s *session, b []byte, at int64) { s.datagram(b, at) }
