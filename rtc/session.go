package rtc

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"

	"sluice/media"
)

// Candidate is one ICE candidate as signalling carries it (RFC 8838, RFC 8839 §5.1).
type Candidate struct {
	Candidate string // "candidate:…"; "" ends the candidates
	MID       string
	MLine     int
}

// Events are what a session tells. They are called from the session's goroutines, one at a time, and may block
// only shortly. They may call the session's methods. None begins after Close, but for one that was about to. Each may be nil.
type Events struct {
	OnConnected func()              // once, when media can flow
	OnRestored  func()              // the peer, which had fallen silent, is back
	OnMessage   func(media.Message) // a message came on a data channel
	// OnClosed is the last call: the session is over, not by Close. The reason is one of the package's errors.
	OnClosed func(reason error)
}

// session is what publishers' and viewers' sessions have in common: ICE, DTLS, SRTCP, data channels, and an end.
// Once it is connected it has no goroutine of its own, but for a data channel.
type session struct {
	endpoint *Endpoint
	side     side
	events   Events
	label    string // of the data channel that we open
	sctp     outlet
	telling  sync.Mutex    // held while one of events is called
	done     chan struct{} // closed when the session ends
	ended    atomic.Bool
	opened   time.Time
	heard    atomic.Int64 // when the last check or media came that the peer alone can send, by Endpoint.clock; see alive

	mu       sync.Mutex
	ours     credentials
	theirs   credentials
	prints   fingerprints // of the peer's certificate, from its description
	active   bool         // the peer begins DTLS
	data     bool         // we open a data channel
	dataLine bool         // the peer's description has a data channel's line
	addrs    []address    // from where checks came
	at       arrival      // where media goes; host is nil until a check has come
	atHeard  time.Time    // when a check came from there last
	dtls     *handshake
	state    sessionState
	rtcp     *srtcp // nil before the session is connected
	quiet    bool   // nothing has come for a while
}

// side is the part of a session that knows its media. None of its methods is called with the session's mu held.
type side interface {
	// secured has the keys, and where the peer is: media can flow.
	secured(k keys, at arrival) error
	// moved says that media goes to another address from now on.
	moved(at arrival)
	// media has a datagram of SRTP.
	media(b []byte)
	// control has the peer's RTCP, but for what it tells of arrival times.
	control(packets []rtcp.Packet)
	// arrivals has that: transport-wide feedback behind the SSRCs, valid until it returns.
	arrivals(b []byte)
	// over says that the session has ended; a zero arrival was never connected.
	over(at arrival)
}

type sessionState int

const (
	stateNew sessionState = iota
	stateConnected
	stateClosed
)

// open lets checks reach the session.
func (s *session) open() error {
	s.ours, s.done, s.opened = newCredentials(), make(chan struct{}), time.Now()
	e := s.endpoint
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	for _, h := range e.hosts {
		if !h.add(s.ours.ufrag, s) {
			return fmt.Errorf("open a session: %w", ErrClosed)
		}
	}
	e.sessions[s] = struct{}{}
	return nil
}

// meet takes the transport's part of the peer's description.
func (s *session) meet(d *description) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.theirs, s.prints, s.active, s.dataLine = d.theirs, d.prints, d.active, d.data
}

// check has a connectivity check that names the session. The first
// that is right tells where the peer is; later a nomination moves the media there, as when a phone goes from one network to another,
// once the address has shown that it wants it: see address.
func (s *session) check(a arrival, b []byte) {
	s.mu.Lock()
	moved := s.checkLocked(a, b)
	s.mu.Unlock()
	if moved {
		s.side.moved(a)
	}
}

func (s *session) checkLocked(a arrival, b []byte) (moved bool) {
	c, err := readCheck(b, s.ours)
	if err != nil || s.state == stateClosed {
		return false
	}
	s.heardLocked()
	answer, err := answerCheck(c, a.from, s.ours)
	if err != nil {
		return false
	}
	if c.conflict {
		a.send(answer)
		return false
	}
	p, known := s.learnLocked(a)
	if p == nil {
		return false
	}
	a.send(answer)
	now := time.Now()
	switch stale := now.Sub(s.atHeard) > rebound; {
	case a == s.at:
		s.atHeard = now
	case s.at.host == nil, c.nominate, stale: // stale: a NAT on the way has given the peer another address
		moved = s.wantLocked(p, now)
	}
	if !s.active && len(s.prints) > 0 {
		s.beginDTLSLocked(a)
	}
	if s.state == stateNew && !known && !c.nominate && s.theirs.ufrag != "" {
		if again, err := makeCheck(s.ours, s.theirs); err == nil {
			a.send(again)
		}
	}
	return moved
}

// alive notes a sign of life: something that the peer alone can send.
func (s *session) alive(now time.Time) { s.heard.Store(int64(s.endpoint.clock(now))) }

// heardLocked notes a sign of life that ends a silence at once.
func (s *session) heardLocked() {
	s.alive(time.Now())
	if s.quiet {
		s.restoredLocked()
	}
}

func (s *session) restoredLocked() {
	s.quiet = false
	if f := s.events.OnRestored; f != nil && s.state == stateConnected {
		s.endpoint.spawn(func() { s.tell(f) })
	}
}

// tell calls one of events, unless the session has ended.
func (s *session) tell(f func()) {
	s.telling.Lock()
	defer s.telling.Unlock()
	if !s.ended.Load() {
		f()
	}
}

// rebound is how long an address is silent before a check from another one, which was not nominated, moves the media there, or
// before a check of another session takes it.
const rebound = 3 * time.Second

// maxAddrs is from how many addresses a session's checks may come; the oldest is forgotten for another.
const maxAddrs = 16

// packet has a datagram from an address of the session that is no check (RFC 7983 §7); RFC 5761 §4 tells SRTCP from SRTP.
func (s *session) packet(a arrival, b []byte) {
	switch {
	case b[0] >= 20 && b[0] <= 63:
		s.dtlsPacket(a, b)
	case b[0] < 128 || b[0] > 191 || len(b) < headerSize:
	case b[1] >= 192 && b[1] <= 223:
		s.rtcpPacket(a, b)
	default:
		s.side.media(b)
	}
}

// unbind says that what comes from somewhere belongs to another session, or that nothing comes any more.
func (s *session) unbind(gone arrival) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if gone.owner() == s {
		return // it came back meanwhile
	}
	s.addrs = slices.DeleteFunc(s.addrs, func(a address) bool {
		return a.host == gone.host && a.from == gone.from && a.conn == gone.conn
	})
}

// rtcpPacket has a datagram of SRTCP. What does not decrypt, or was seen before, changes nothing.
func (s *session) rtcpPacket(a arrival, b []byte) {
	s.mu.Lock()
	if s.rtcp == nil || s.state != stateConnected {
		s.mu.Unlock()
		return
	}
	plain, err := s.rtcp.open(b)
	if err == nil {
		s.heardLocked() // there are peers that send no checks once they are connected
		a.heard(s, time.Now())
	}
	s.mu.Unlock()
	if err != nil {
		return
	}
	if plain = s.takeArrivals(plain); len(plain) == 0 {
		return
	}
	if packets, err := rtcp.Unmarshal(plain); err == nil {
		s.side.control(packets)
	}
}

// takeArrivals takes transport-wide feedback out of a compound packet (RFC 3550 §6.1), and returns the rest: ten messages a
// second of each viewer are not worth the general way.
func (s *session) takeArrivals(b []byte) []byte {
	for at := 0; len(b)-at >= 4; {
		n := 4 * (1 + int(binary.BigEndian.Uint16(b[at+2:])))
		if n > len(b)-at {
			return b // Unmarshal says what is wrong
		}
		if b[at+1] == uint8(rtcp.TypeTransportSpecificFeedback) && b[at]&31 == rtcp.FormatTCC && n >= 12 {
			s.side.arrivals(b[at+12 : at+n])
			b = append(b[:at], b[at+n:]...)
			continue
		}
		at += n
	}
	return b
}

// sendControl sends RTCP to the peer at once. It never blocks.
func (s *session) sendControl(packets ...rtcp.Packet) {
	plain, err := rtcp.Marshal(packets)
	if err != nil {
		return
	}
	s.mu.Lock()
	if s.state != stateConnected {
		s.mu.Unlock()
		return
	}
	sealed, err := s.rtcp.seal(nil, plain)
	at := s.at
	s.mu.Unlock()
	if err == nil {
		at.send(sealed)
	}
}

// connected is called by the handshake's goroutine with the keys.
func (s *session) connected(k keys) error {
	control, err := newSRTCP(k)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if s.state == stateClosed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.state, s.rtcp = stateConnected, control
	at := s.at
	if p := s.findLocked(at); p != nil {
		p.proven = true // the handshake went there and back
	}
	s.mu.Unlock()
	if err := s.side.secured(k, at); err != nil {
		return err
	}
	if f := s.events.OnConnected; f != nil {
		s.tell(f)
	}
	return nil
}

// age says whether the session should end: ErrTimeout, ErrDisconnected, or nil.
func (s *session) age(now time.Time, connectWithin time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropSilentLocked(now)
	s.askAgainLocked(now)
	unheard := s.endpoint.clock(now) - time.Duration(s.heard.Load())
	if quiet := s.state == stateConnected && unheard > hush; quiet {
		s.quiet = true
	} else if s.quiet { // media came
		s.restoredLocked()
	}
	switch {
	case s.state == stateNew && now.Sub(s.opened) > connectWithin:
		return ErrTimeout
	case s.state == stateConnected && unheard > silence:
		return ErrDisconnected
	}
	return nil
}

// AddCandidate takes a candidate of the peer. An ICE-lite side sends no checks, so it is only looked at: a peer that
// sends nonsense should know. Transports, types and host names of any kind pass (RFC 9725 §4.3.2).
func (s *session) AddCandidate(c Candidate) error {
	if c.Candidate == "" {
		return nil
	}
	if len(c.Candidate) > 1024 {
		return fmt.Errorf("%w: it has more than 1024 bytes", ErrBadCandidate)
	}
	if !candidateLine.MatchString(c.Candidate) {
		return fmt.Errorf("%w: %.60q is not foundation, component, transport, priority, address, port, type", ErrBadCandidate, c.Candidate)
	}
	return nil
}

// RFC 8839 §5.1; the foundation may be empty.
var candidateLine = regexp.MustCompile(`^(candidate:)?[^ ]* [0-9]{1,3} [^ ]+ [0-9]{1,10} [^ ]+ [0-9]{1,5} typ [^ ]+( .*)?$`)

// RestartICE takes the peer's new credentials and returns ours (RFC 8445 §9): the session goes on over
// whatever path the peer checks next.
func (s *session) RestartICE(ufrag, pwd string) (newUfrag, newPwd string, err error) {
	if !iceChars(ufrag, 4) || !iceChars(pwd, 22) {
		return "", "", fmt.Errorf("%w: ice-ufrag or ice-pwd is malformed", ErrBadSDP)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == stateClosed {
		return "", "", ErrClosed
	}
	old := s.ours
	s.ours, s.theirs = newCredentials(), credentials{ufrag, pwd}
	for i := range s.addrs {
		s.addrs[i].asked = nil // it was made with the old ones
	}
	for _, h := range s.endpoint.hosts {
		h.add(s.ours.ufrag, s)
		h.remove(old.ufrag, s)
	}
	return s.ours.ufrag, s.ours.pwd, nil
}

// SendMessage sends a message on the data channel that was opened last; without one it is dropped.
func (s *session) SendMessage(m media.Message) { s.sctp.send(m) }

// Close ends the session without a word to Events.
func (s *session) Close() { s.end() }

// fail ends the session and says why.
func (s *session) fail(reason error) {
	if s.end() {
		if f := s.events.OnClosed; f != nil {
			s.telling.Lock()
			defer s.telling.Unlock()
			f(reason)
		}
	}
}

// end ends the session; only the first call does, and reports true.
func (s *session) end() bool {
	if s.ended.Swap(true) {
		return false
	}
	close(s.done)
	s.mu.Lock()
	s.state = stateClosed
	addrs, at, dtls, ufrag := s.addrs, s.at, s.dtls, s.ours.ufrag
	s.addrs = nil
	s.mu.Unlock()
	if dtls != nil {
		dtls.close()
	}
	e := s.endpoint
	for _, h := range e.hosts {
		h.remove(ufrag, s)
	}
	for _, a := range addrs {
		a.release(s)
	}
	s.side.over(at)
	e.mu.Lock()
	delete(e.sessions, s)
	e.mu.Unlock()
	return true
}
