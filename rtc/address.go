package rtc

import (
	"slices"
	"time"
)

// address is one from where a session's checks come.
//
// A peer can write any source address on what it sends. So that nobody can aim a session's media at a third party, a connected
// session moves only to an address that has shown that it wants it: by the answer to a check of ours, whose transaction nobody
// else can know. Reports show nothing: who has the keys could send them from anywhere. A TCP connection has shown that it is there.
type address struct {
	arrival
	proven bool      // what we send there reaches the peer
	wanted time.Time // when the peer wanted to have its media there; zero: it does not
	asked  []byte    // our check, sent again until it is answered
	at     time.Time // when it was sent first
	last   time.Time // and last
}

const (
	askEvery = 50 * time.Millisecond // how often one address is sent a check at most
	askFor   = 3 * time.Second       // how long a peer's wish to move holds; then its check must come again
)

// findLocked is the session's address, nil if no check has come from there.
func (s *session) findLocked(a arrival) *address {
	if i := slices.IndexFunc(s.addrs, func(p address) bool { return p.arrival == a }); i >= 0 {
		return &s.addrs[i]
	}
	return nil
}

// learnLocked takes an address from which a right check has come; nil: it is another session's. Of too many the oldest that is not used is forgotten.
func (s *session) learnLocked(a arrival) (p *address, known bool) {
	if !a.bind(s) {
		return nil, false
	}
	if p := s.findLocked(a); p != nil {
		return p, true
	}
	if len(s.addrs) == maxAddrs {
		i := 0
		if s.addrs[0].arrival == s.at {
			i = 1
		}
		old := s.addrs[i]
		s.addrs = slices.Delete(s.addrs, i, i+1)
		old.release(s)
	}
	s.addrs = append(s.addrs, address{arrival: a, proven: a.conn != nil})
	return &s.addrs[len(s.addrs)-1], false
}

// wantLocked moves the media, or asks the address whether it may. Without the peer's credentials there is nothing to ask with.
func (s *session) wantLocked(p *address, now time.Time) (moved bool) {
	if s.state == stateConnected && !p.proven && s.theirs.ufrag != "" {
		p.wanted = now
		s.askLocked(p, now)
		return false
	}
	return s.moveLocked(p, now)
}

func (s *session) moveLocked(p *address, now time.Time) (moved bool) {
	for i := range s.addrs {
		s.addrs[i].wanted = time.Time{}
	}
	s.at, s.atHeard = p.arrival, now
	return s.state == stateConnected
}

// askLocked sends a check of ours.
func (s *session) askLocked(p *address, now time.Time) {
	if now.Sub(p.last) < askEvery {
		return
	}
	if p.asked == nil || now.Sub(p.at) > askFor {
		b, err := makeCheck(s.ours, s.theirs)
		if err != nil {
			return
		}
		p.asked, p.at = b, now
	}
	p.last = now
	p.send(p.asked)
}

// askAgainLocked asks those who have not answered yet: a check, or its answer, may be lost.
func (s *session) askAgainLocked(now time.Time) {
	for i := range s.addrs {
		if p := &s.addrs[i]; !p.proven && now.Sub(p.wanted) < askFor {
			s.askLocked(p, now)
		}
	}
}

// answer has what may be the answer to a check of ours.
func (s *session) answer(a arrival, b []byte) {
	s.mu.Lock()
	moved := false
	if p := s.findLocked(a); p != nil && s.state != stateClosed && answersCheck(b, p.asked, s.theirs) {
		s.heardLocked()
		p.asked = nil
		moved = s.provenLocked(p, time.Now())
	}
	s.mu.Unlock()
	if moved {
		s.side.moved(a)
	}
}

// provenLocked says that what is sent to an address reaches the peer: if it wants its media there, it gets it.
func (s *session) provenLocked(p *address, now time.Time) (moved bool) {
	p.proven = true
	wanted := now.Sub(p.wanted) < askFor
	p.wanted = time.Time{}
	return wanted && p.arrival != s.at && s.moveLocked(p, now)
}
