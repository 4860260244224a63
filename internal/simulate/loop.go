package simulate

import (
	"context"
	"time"
)

// loop is virtual time: a heap of what will happen, in the order of time and then of asking.
type loop struct {
	now    time.Duration
	events []event
	asked  uint64
	played int
}

type event struct {
	at    time.Duration
	order uint64
	do    func()
}

// epoch is an arbitrary beginning of time.
func (l *loop) clock() time.Time { return time.Unix(1_900_000_000, 0).Add(l.now) }

// at plays do then, or now when that has passed.
func (l *loop) at(when time.Duration, do func()) {
	l.asked++
	l.events = append(l.events, event{max(when, l.now), l.asked, do})
	h, i := l.events, len(l.events)-1
	for i > 0 {
		parent := (i - 1) / 4
		if !h[i].before(&h[parent]) {
			break
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

func (l *loop) after(d time.Duration, do func()) { l.at(l.now+d, do) }

// every plays do now and then, until it says false.
func (l *loop) every(d time.Duration, do func() bool) {
	var again func()
	again = func() {
		if do() {
			l.after(d, again)
		}
	}
	again()
}

func (e *event) before(o *event) bool { return e.at < o.at || e.at == o.at && e.order < o.order }

// play runs until the end.
func (l *loop) play(ctx context.Context, end time.Duration) error {
	for len(l.events) > 0 && l.events[0].at <= end {
		if l.played++; l.played%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		e := l.pop()
		l.now = e.at
		e.do()
	}
	l.now = end
	return nil
}

func (l *loop) pop() event {
	h := l.events
	first, last := h[0], len(h)-1
	h[0] = h[last]
	h[last].do = nil
	h = h[:last]
	l.events = h
	for i := 0; ; {
		child := i
		for c := 4*i + 1; c < min(4*i+5, last); c++ {
			if h[c].before(&h[child]) {
				child = c
			}
		}
		if child == i {
			return first
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}
