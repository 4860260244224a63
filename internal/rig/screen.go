package rig

import (
	"sync"
	"time"

	"github.com/pion/rtp"
)

// screen is what a decoder shows: frames whose packets are all there, from a key frame on, one after the other.
type screen struct {
	mu      sync.Mutex
	begun   bool
	next    uint16 // the number that is needed next
	packets map[uint16]*rtp.Packet
	since   time.Time // when it was found missing
	key     bool      // only a key frame will do
	part    int       // packets of the frame that is being put together
	bytes   int       // of it

	frames []picture
}

// picture is one that was shown.
type picture struct {
	at    time.Time
	stamp uint32
	of    int // packets
}

// patience is how long a decoder waits for a packet before it waits for a key frame instead.
const patience = 700 * time.Millisecond

func newScreen() *screen { return &screen{packets: map[uint16]*rtp.Packet{}, key: true} }

func (s *screen) take(p *rtp.Packet) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun {
		s.begun, s.next = true, p.SequenceNumber
	}
	if int16(p.SequenceNumber-s.next) < 0 || len(p.Payload) < 8 {
		return
	}
	s.packets[p.SequenceNumber] = p
	s.run(now)
	if len(s.packets) == 0 {
		s.since = time.Time{}
		return
	}
	if s.since.IsZero() {
		s.since = now
	}
	if at, ok := s.picture(); ok { // nothing before it is needed any more
		s.part = 0
		for s.next != at {
			delete(s.packets, s.next)
			s.next++
		}
		s.run(now)
		return
	}
	if now.Sub(s.since) > patience { // go on behind what is missing
		s.key, s.part = true, 0
		for s.packets[s.next] == nil {
			s.next++
		}
		s.since = time.Time{}
		s.run(now)
	}
}

// picture finds the first key frame that is whole among what came too early.
func (s *screen) picture() (first uint16, ok bool) {
	for n := s.next; int16(n-s.next) < 2000; n++ {
		p := s.packets[n]
		switch {
		case p == nil:
			ok = false
		case p.Payload[0] == 0x65:
			first, ok = n, true
		}
		if ok && p.Marker {
			return first, true
		}
	}
	return 0, false
}

func (s *screen) run(now time.Time) {
	for p := s.packets[s.next]; p != nil; p = s.packets[s.next] {
		delete(s.packets, s.next)
		s.next++
		s.since = time.Time{}
		if s.part == 0 && p.Payload[0] == 0x65 {
			s.key = false
		}
		s.part++
		if p.Marker {
			if !s.key {
				s.frames = append(s.frames, picture{now, p.Timestamp, s.part})
			}
			s.part = 0
		}
	}
}

const usual = time.Second / 30 // from one picture to the next

// frozen is for how long the picture stood still since a moment, as browsers count it (W3C webrtc-stats, freezeCount): pauses longer than three
// usual ones, and 150 ms longer. Those in which beside, a viewer without troubles, had to wait too are not his path's: the whole machine stood still.
func (s *screen) frozen(since time.Time, beside *screen) (total, longest time.Duration) {
	for _, p := range s.pauses(since, max(3*usual, usual+150*time.Millisecond)) {
		if beside.waited(p.from, p.to) {
			continue
		}
		total += p.to.Sub(p.from)
		longest = max(longest, p.to.Sub(p.from))
	}
	return total, longest
}

type pause struct{ from, to time.Time }

// pauses are the times without a new picture that ended since a moment.
func (s *screen) pauses(since time.Time, least time.Duration) (all []pause) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 1; i < len(s.frames); i++ {
		if p := (pause{s.frames[i-1].at, s.frames[i].at}); !p.to.Before(since) && p.to.Sub(p.from) >= least {
			all = append(all, p)
		}
	}
	return all
}

// waited says whether there was a pause of more than three usual ones within a time.
func (s *screen) waited(from, to time.Time) bool {
	for _, p := range s.pauses(from, 3*usual) {
		if p.from.Before(to) {
			return true
		}
	}
	return false
}

// shown are the pictures since a moment.
func (s *screen) shown(since time.Time) (all []picture) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.frames {
		if !f.at.Before(since) {
			all = append(all, f)
		}
	}
	return all
}
