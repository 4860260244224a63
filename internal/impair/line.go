package impair

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Path says what happens to packets in one direction. Zero is a path on which nothing happens.
type Path struct {
	Delay  time.Duration
	Jitter time.Duration // each packet's delay differs from Delay by up to this; packets stay in order

	// Shares of the packets, 0 to 1.
	Loss      float64
	Duplicate float64 // come twice
	Reorder   float64 // come late, and others pass them

	Late time.Duration // by up to how much those come late; 0: 20 ms

	Rate  int // bit/s of UDP payload; 0: no limit
	Queue int // bytes that may wait for the rate; what comes then is dropped. 0: 64 KiB
}

const (
	defaultLate  = 20 * time.Millisecond
	defaultQueue = 64 << 10
)

// ErrPath is the error of a path that can't be.
var ErrPath = errors.New("no path is like this")

func (p Path) check() error {
	for _, share := range []struct {
		name  string
		value float64
	}{{"loss", p.Loss}, {"duplicate", p.Duplicate}, {"reorder", p.Reorder}} {
		if !(share.value >= 0 && share.value <= 1) {
			return fmt.Errorf("%w: %s is %v, a share is from 0 to 1", ErrPath, share.name, share.value)
		}
	}
	if p.Delay < 0 || p.Jitter < 0 || p.Late < 0 || p.Rate < 0 || p.Queue < 0 {
		return fmt.Errorf("%w: a time, the rate or the queue is negative", ErrPath)
	}
	return nil
}

// Stats count what happened in one direction.
type Stats struct {
	Packets    uint64 // that came
	Bytes      uint64 // of them, UDP payload
	Dropped    uint64 // by loss, at a full queue, or because the relay has no room
	Reordered  uint64
	Duplicated uint64
}

// Fate is what happens to one packet.
type Fate struct {
	Dropped, Reordered, Duplicated bool
}

// line is one direction at work. It does no I/O and has no clock.
type line struct {
	path  Path
	rand  *rand.Rand
	free  time.Time // when everything that was given to the line is sent
	last  time.Time // when the last packet that keeps the order comes out
	stats Stats
}

func newLine(p Path, seed, stream uint64) line {
	return line{path: p, rand: rand.New(rand.NewPCG(seed, stream))}
}

// decide says what happens to a packet that came now, and when it comes out. A packet takes the same random numbers
// whatever happens to it, so that a seed means the same losses with and without jitter.
func (l *line) decide(now time.Time, size int) (f Fate, out time.Time) {
	loss, duplicate, reorder := l.rand.Float64(), l.rand.Float64(), l.rand.Float64()
	jitter, late := 2*l.rand.Float64()-1, l.rand.Float64()
	l.stats.Packets++
	l.stats.Bytes += uint64(size)
	if loss < l.path.Loss {
		l.stats.Dropped++
		return Fate{Dropped: true}, time.Time{}
	}
	out = now
	if l.path.Rate > 0 {
		if l.free.Before(now) {
			l.free = now
		}
		waiting := int64(l.free.Sub(now)) * int64(l.path.Rate) / 8 / int64(time.Second)
		if waiting+int64(size) > int64(orDefault(l.path.Queue, defaultQueue)) {
			l.stats.Dropped++
			return Fate{Dropped: true}, time.Time{}
		}
		l.free = l.free.Add(time.Duration(int64(size) * 8 * int64(time.Second) / int64(l.path.Rate)))
		out = l.free
	}
	out = out.Add(max(0, l.path.Delay+time.Duration(jitter*float64(l.path.Jitter))))
	if f.Reordered = reorder < l.path.Reorder; f.Reordered {
		l.stats.Reordered++
		out = out.Add(time.Duration(late * float64(orDefault(l.path.Late, defaultLate))))
	} else {
		if out.Before(l.last) {
			out = l.last
		}
		l.last = out
	}
	if f.Duplicated = duplicate < l.path.Duplicate; f.Duplicated {
		l.stats.Duplicated++
	}
	return f, out
}

func orDefault[T comparable](v, or T) T {
	if v == *new(T) {
		return or
	}
	return v
}
