package rig

import (
	"slices"
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"sluice/internal/impair"
)

// Ledger has what a viewer got: packet by packet, and as a decoder sees it.
type Ledger struct {
	patience time.Duration // before a packet that is missing is asked for: it may only be late
	trip     time.Duration // until it is asked for again

	mu      sync.Mutex
	begun   bool
	ssrc    uint32
	first   int64 // sequence numbers without end
	highest int64
	missing map[int64]*gap
	given   int             // packets that were missed and are not asked for
	frames  map[int]*pieces // by number
	oldest  int             // the first frame that was shown
	newest  int             // the last one; a frame is shown when it is whole and the one before was shown, or is a key frame
	shown   []showing
	passed  int // frames that a later key frame was shown before
	doubles int // packets that came again, and not because one was asked for
	foreign int // packets that are no publisher's of ours
}

// gap is a packet that is missing.
type gap struct {
	since, asked time.Time
	tries        int
}

// pieces are what there is of a frame.
type pieces struct {
	have, asked uint64 // a bit for each packet; asked: it was asked for, and may come twice
	of          int
	key         bool
}

func (p *pieces) whole() bool { return p.have == 1<<p.of-1 }

type showing struct {
	frame int
	at    time.Time
}

const (
	maxTries = 10  // of asking, as browsers do
	maxGap   = 500 // packets that are missed at once; what is older is not asked for
)

func newLedger(p impair.Config) *Ledger {
	l := &Ledger{missing: map[int64]*gap{}, frames: map[int]*pieces{}, patience: 30 * time.Millisecond, trip: 40 * time.Millisecond}
	for _, d := range []impair.Path{p.Up, p.Down} {
		l.trip += d.Delay + d.Jitter
	}
	return l
}

// take has a packet; again: it came as RTX.
func (l *Ledger) take(p *rtp.Packet, again bool) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.begun {
		l.begun, l.ssrc = true, p.SSRC
		l.highest = int64(p.SequenceNumber) - 1
		l.first, l.oldest, l.newest = l.highest+1, -1, -1
	}
	seq := l.highest + int64(int16(p.SequenceNumber-uint16(l.highest)))
	l.given += int(max(0, seq-maxGap-l.highest-1))
	for lost := max(l.highest+1, seq-maxGap); lost < seq; lost++ {
		l.missing[lost] = &gap{since: now}
	}
	l.highest = max(l.highest, seq)
	again = again || l.missing[seq] != nil && l.missing[seq].tries > 0
	delete(l.missing, seq)

	number, index, of, ok := stamped(p.Payload)
	if !ok {
		l.foreign++
		return
	}
	f := l.frames[number]
	if f == nil {
		f = &pieces{of: of}
		l.frames[number] = f
	}
	bit := uint64(1) << index
	if again {
		f.asked |= bit
	}
	if f.have&bit != 0 {
		if f.asked&bit == 0 {
			l.doubles++
		}
		return
	}
	f.have |= bit
	f.key = f.key || index == 0 && p.Payload[0] == 0x65
	if f.whole() {
		l.showLocked(number, f.key, now)
	}
}

// showLocked shows what can be shown after a frame has become whole.
func (l *Ledger) showLocked(number int, key bool, now time.Time) {
	switch {
	case l.newest < 0 && !key, number <= l.newest, !key && number != l.newest+1:
		return
	case l.newest < 0:
		l.oldest = number
	default:
		l.passed += number - l.newest - 1
	}
	for f := l.frames[number]; f != nil && f.whole(); f = l.frames[number] {
		l.newest = number
		l.shown = append(l.shown, showing{number, now})
		number++
	}
}

// wanted is a request for what is missing (RFC 4585 §6.2.1); nil: nothing is, or not yet.
func (l *Ledger) wanted(now time.Time) *rtcp.TransportLayerNack {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lost []int64
	for seq, g := range l.missing {
		if now.Sub(g.since) < l.patience || g.tries == maxTries || now.Sub(g.asked) < l.trip {
			continue
		}
		g.asked = now
		g.tries++
		lost = append(lost, seq)
	}
	if len(lost) == 0 {
		return nil
	}
	slices.Sort(lost)
	numbers := make([]uint16, len(lost))
	for i, seq := range lost {
		numbers[i] = uint16(seq)
	}
	return &rtcp.TransportLayerNack{MediaSSRC: l.ssrc, Nacks: rtcp.NackPairsFromSequenceNumbers(numbers)}
}

// Summary of a ledger.
type Summary struct {
	Packets int // sequence numbers from the first to the last
	Missing int // of them
	Frames  int // from the first that was shown to the last of which something came
	Whole   int // of them
	Shown   int // of them
	Passed  int // of them: a later key frame was whole before, so they would be shown too late
	Doubles int
	Foreign int
	Newest  int           // number of the frame that was shown last
	Freeze  time.Duration // the longest time between two frames that were shown
}

// Sum says what there is so far.
func (l *Ledger) Sum() Summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Summary{Missing: len(l.missing) + l.given, Shown: len(l.shown), Passed: l.passed, Doubles: l.doubles, Foreign: l.foreign, Newest: l.newest}
	if !l.begun || l.newest < 0 {
		s.Newest = -1
		return s
	}
	s.Packets = int(l.highest - l.first + 1)
	last := l.oldest
	for n, f := range l.frames {
		last = max(last, n)
		if n >= l.oldest && f.whole() {
			s.Whole++
		}
	}
	s.Frames = last - l.oldest + 1
	for i := 1; i < len(l.shown); i++ {
		s.Freeze = max(s.Freeze, l.shown[i].at.Sub(l.shown[i-1].at))
	}
	return s
}

// ShownAt is when a frame with at least this number was shown first; false: not yet.
func (l *Ledger) ShownAt(number int) (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.shown {
		if s.frame >= number {
			return s.at, true
		}
	}
	return time.Time{}, false
}
