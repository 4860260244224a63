package webrtc

import (
	"slices"
	"sync"
	"time"
)

// pauseAfter is how long nobody has taken a rendition of which something came before its publisher is told to pause it: it is measured meanwhile, and viewers
// who go down for a moment find it again.
const pauseAfter = 5 * time.Second

// layers are the renditions in which a publisher sends his picture at once: which of them nobody takes.
type layers struct {
	rids []string // by track; none: he sends one

	mu      sync.Mutex
	states  []layer
	closed  bool
	changed chan struct{} // closed when what is paused changes
}

type layer struct {
	came   bool
	wanted bool
	paused bool
	timer  *time.Timer // until it is paused; nil: it is not about to be
}

func newLayers(rids []string) *layers {
	l := &layers{rids: rids, states: make([]layer, len(rids)), changed: make(chan struct{})}
	if len(rids) > 0 {
		l.states[0].wanted = true // the picture itself, as the hub has it
	}
	return l
}

// want is told by the hub.
func (l *layers) want(track int, wanted, _ bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if track >= len(l.states) {
		return
	}
	s := &l.states[track]
	if s.wanted = wanted; !wanted {
		l.waitLocked(track)
		return
	}
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if s.paused {
		s.paused = false
		l.tellLocked()
	}
}

// came is told of each burst.
func (l *layers) came(track int) {
	if len(l.rids) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if track < len(l.states) && !l.states[track].came {
		l.states[track].came = true
		l.waitLocked(track)
	}
}

// waitLocked pauses a rendition after a while, if it is not wanted until then.
func (l *layers) waitLocked(track int) {
	s := &l.states[track]
	if !s.came || s.wanted || s.paused || s.timer != nil || l.closed {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(pauseAfter, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if s.timer == timer {
			s.timer, s.paused = nil, true
			l.tellLocked()
		}
	})
	s.timer = timer
}

func (l *layers) tellLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *layers) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for i := range l.states {
		if t := l.states[i].timer; t != nil {
			t.Stop()
			l.states[i].timer = nil
		}
	}
}

// Paused are the names of the renditions that nobody takes, which the publisher need not send, and a channel that is closed when that changes.
// nil: the publisher sends one.
func (s *Session) Paused() (rids []string, changed <-chan struct{}) {
	l := s.layers
	if len(l.rids) == 0 {
		return nil, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	rids = []string{}
	for i, rid := range l.rids {
		if l.states[i].paused {
			rids = append(rids, rid)
		}
	}
	slices.Sort(rids)
	return rids, l.changed
}
