package impair

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// sent is a packet that came out.
type sent struct {
	n     int // which one it was
	delay time.Duration
	twice bool
}

// run gives n packets of 1000 bytes to a line, every apart, and returns those that come out, in the order in which they do.
func run(l *line, n int, every time.Duration) []sent {
	var w waiting
	begin := time.Unix(0, 0)
	for i := range n {
		came := begin.Add(time.Duration(i) * every)
		f, at := l.decide(came, 1000)
		if f.Dropped {
			continue
		}
		for range 1 + btoi(f.Duplicated) {
			w.push(packet{at: at, order: uint64(i), buf: nil, to: addrOf(i)})
		}
	}
	var out []sent
	for end := begin.Add(time.Duration(n)*every + time.Hour); ; {
		p, ok := w.pop(end)
		if !ok {
			return out
		}
		i := int(p.to.Port())
		s := sent{n: i, delay: p.at.Sub(begin.Add(time.Duration(i) * every))}
		if len(out) > 0 && out[len(out)-1].n == i {
			out[len(out)-1].twice = true
			continue
		}
		out = append(out, s)
	}
}

func count(out []sent, f func(sent) bool) (n int) {
	for _, s := range out {
		if f(s) {
			n++
		}
	}
	return n
}

// late is how many packets came out after one that had come after them.
func late(out []sent) (n int) {
	highest := -1
	for _, s := range out {
		if s.n < highest {
			n++
		}
		highest = max(highest, s.n)
	}
	return n
}

func TestLine(t *testing.T) {
	const n, every = 20_000, time.Millisecond
	always := func(sent) bool { return true }
	twice := func(s sent) bool { return s.twice }
	delayed := func(from, to time.Duration) func(sent) bool {
		return func(s sent) bool { return s.delay >= from && s.delay <= to }
	}
	for _, c := range []struct {
		name    string
		path    Path
		what    func(sent) bool
		share   float64 // of the packets that came
		off     float64
		inOrder bool
	}{
		{"nothing happens", Path{}, delayed(0, 0), 1, 0, true},
		{"everything is lost", Path{Loss: 1}, always, 0, 0, true},
		{"5 % are lost", Path{Loss: 0.05}, always, 0.95, 0.008, true},
		{"losses do not depend on delay and jitter", Path{Loss: 0.05, Delay: time.Second, Jitter: time.Second}, always, 0.95, 0.008, true},
		{"delay", Path{Delay: 50 * time.Millisecond}, delayed(50*time.Millisecond, 50*time.Millisecond), 1, 0, true},
		{"jitter stays within its bounds and keeps the order", Path{Delay: 50 * time.Millisecond, Jitter: 20 * time.Millisecond}, delayed(30*time.Millisecond, 70*time.Millisecond), 1, 0, true},
		{"jitter above the delay", Path{Delay: time.Millisecond, Jitter: 20 * time.Millisecond}, delayed(0, 21*time.Millisecond), 1, 0, true},
		{"10 % come twice", Path{Duplicate: 0.1}, twice, 0.1, 0.008, true},
		{"reordered packets are late", Path{Reorder: 0.1, Late: 10 * time.Millisecond}, delayed(1, 10*time.Millisecond), 0.1, 0.008, false},
		{"reordered packets are late by the default", Path{Reorder: 1}, delayed(0, defaultLate), 1, 0, false},
		{"half of what comes fits through", Path{Rate: 4_000_000, Queue: 10_000}, always, 0.5, 0.01, true},
		{"a queue's delay", Path{Rate: 4_000_000, Queue: 10_000}, delayed(0, 20*time.Millisecond), 0.5, 0.01, true},
		{"all fits through", Path{Rate: 8_000_000, Queue: 1000}, delayed(time.Millisecond, time.Millisecond), 1, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLine(c.path, 1, 0)
			out := run(&l, n, every)
			if got := float64(count(out, c.what)) / n; math.Abs(got-c.share) > c.off {
				t.Errorf("share %.4f, want %.4f ± %.4f", got, c.share, c.off)
			}
			if got := late(out); c.inOrder && got > 0 || !c.inOrder && got == 0 {
				t.Errorf("%d packets were passed by others", got)
			}
			s := l.stats
			if s.Packets != n || s.Bytes != n*1000 || int(s.Dropped) != n-len(out) || int(s.Duplicated) != count(out, twice) {
				t.Errorf("stats %+v, %d packets came out, %d twice", s, len(out), count(out, twice))
			}
			if c.path.Reorder > 0 && math.Abs(float64(s.Reordered)/n-c.path.Reorder) > 0.008 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func TestSeed(t *testing.T) {
	lost := func(p Path, seed uint64) (n []int) {
		l := newLine(p, seed, 0)
		have := map[int]bool{}
		for _, s := range run(&l, 1000, time.Millisecond) {
			have[s.n] = true
		}
		for i := range 1000 {
			if !have[i] {
				n = append(n, i)
			}
		}
		return n
	}
	plain := lost(Path{Loss: 0.05}, 7)
	if len(plain) == 0 || !slices.Equal(plain, lost(Path{Loss: 0.05}, 7)) {
		t.Error("the same seed loses other packets")
	}
	if !slices.Equal(plain, lost(Path{Loss: 0.05, Delay: time.Second, Jitter: time.Second, Reorder: 0.5, Duplicate: 0.5}, 7)) {
		t.Error("the same seed loses other packets when more happens to them")
	}
	if slices.Equal(plain, lost(Path{Loss: 0.05}, 8)) {
		t.Error("another seed loses the same packets")
	}
}

// A line is idle: what waits for the rate is not counted from the last packet on.
func TestRateAfterAPause(t *testing.T) {
	l := newLine(Path{Rate: 8000}, 1, 0)
	now := time.Unix(0, 0)
	for i := range 3 {
		if _, at := l.decide(now, 1000); at.Sub(now) != time.Second {
			t.Errorf("packet %d took %v, want 1 s", i, at.Sub(now))
		}
		now = now.Add(time.Minute)
	}
}

func TestPathsThatCanNotBe(t *testing.T) {
	for _, p := range []Path{{Loss: -0.1}, {Loss: 1.1}, {Duplicate: 2}, {Reorder: math.NaN()}, {Delay: -1}, {Jitter: -1}, {Late: -1}, {Rate: -1}, {Queue: -1}} {
		t.Run(fmt.Sprintf("%+v", p), func(t *testing.T) {
			if _, err := Listen(t.Context(), addrOf(9), Config{Down: p}); !errors.Is(err, ErrPath) {
				t.Errorf("got %v", err)
			}
		})
	}
}
