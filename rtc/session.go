package rtc

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"

	"sluice/media"
)

// Candidate is one ICE candidate as signalling carries it (RFC 8838, RFC 8839 §5.1).
type Candidate struct {
	Candidate string // "candidate:…"; "" ends the candidates
	MID       string
	MLine     int
}

// Events are what a session tells. They are called from the session's goroutines, one at a time, and may block
// only shortly. Each may be nil.
type Events struct {
	OnConnected func()              // once, when media can flow
	OnRestored  func()              // the peer, which had fallen silent, is back
	OnMessage   func(media.Message) // a message came on a data channel
	// OnClosed is the last call: the session is over, not by Close. The reason is one of the package's errors.
	OnClosed func(reason error)
}

// session is a publisher's peer connection, its life and its data channels.
type session struct {
	endpoint *Endpoint
	pc       *webrtc.PeerConnection
	events   Events
	timeout  *time.Timer
	data     channels
	work     sync.WaitGroup // the session's own goroutines
	done     chan struct{}  // closed when the session begins to end
	ended    chan struct{}  // closed when it has ended

	life      sync.Mutex // guards timeout, closing and additions to work
	closing   bool
	mu        sync.Mutex // serialises negotiation
	remote    string     // the last description from the peer
	closeOnce sync.Once
	connected sync.Once
}

// newSession makes a session whose goroutines begin with its negotiation.
func (e *Endpoint) newSession(api *webrtc.API, events Events) (*session, error) {
	pc, err := api.NewPeerConnection(webrtc.Configuration{Certificates: []webrtc.Certificate{e.cert}})
	if err != nil {
		return nil, fmt.Errorf("open a session: %w", err)
	}
	s := &session{endpoint: e, pc: pc, events: events, done: make(chan struct{}), ended: make(chan struct{})}
	s.data.onMessage = events.OnMessage
	e.mu.Lock()
	closed := e.closed
	if !closed {
		e.sessions[s] = struct{}{}
	}
	e.mu.Unlock()
	if closed {
		_ = pc.Close()
		return nil, ErrClosed
	}
	pc.OnDataChannel(s.data.add)
	pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		switch state {
		case webrtc.PeerConnectionStateConnected:
			tell := events.OnRestored
			s.connected.Do(func() {
				s.stopTimer()
				tell = events.OnConnected
			})
			if tell != nil {
				tell()
			}
		case webrtc.PeerConnectionStateFailed:
			go s.fail(ErrDisconnected) // closing waits for this callback to return
		case webrtc.PeerConnectionStateClosed:
			go s.fail(ErrLeft)
		}
	})
	s.life.Lock()
	defer s.life.Unlock()
	s.timeout = time.AfterFunc(e.cfg.ConnectWithin, func() { s.fail(ErrTimeout) })
	return s, nil
}

// fail ends the session and says why.
func (s *session) fail(reason error) {
	if s.close(reason) {
		if f := s.events.OnClosed; f != nil {
			f(reason)
		}
	}
}

// close ends the session; only the first call does, and reports true.
func (s *session) close(error) (first bool) {
	s.closeOnce.Do(func() {
		first = true
		s.stopTimer()
		s.life.Lock()
		s.closing = true
		s.life.Unlock()
		close(s.done)
		s.data.close()
		_ = s.pc.Close() // what it complains about is already gone
		s.work.Wait()
		s.endpoint.mu.Lock()
		delete(s.endpoint.sessions, s)
		s.endpoint.mu.Unlock()
		close(s.ended)
	})
	return first
}

func (s *session) stopTimer() {
	s.life.Lock()
	defer s.life.Unlock()
	s.timeout.Stop()
}

// spawn runs a goroutine that ends with the session.
func (s *session) spawn(f func()) {
	s.life.Lock()
	defer s.life.Unlock()
	if !s.closing {
		s.work.Go(f)
	}
}

// answer applies an offer and returns our answer with all candidates in it.
func (s *session) answer(offer string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		return "", fmt.Errorf("%w: %w", ErrBadSDP, err)
	}
	answer, err := s.pc.CreateAnswer(nil)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrBadSDP, err)
	}
	if err := s.describe(answer); err != nil {
		return "", err
	}
	s.remote = offer
	return s.endpoint.announce(mended(s.pc.LocalDescription().SDP, offer)), nil
}

// describe sets our description and waits for its candidates, which takes no network round trip.
func (s *session) describe(d webrtc.SessionDescription) error {
	gathered := webrtc.GatheringCompletePromise(s.pc)
	if err := s.pc.SetLocalDescription(d); err != nil {
		return fmt.Errorf("%w: %w", ErrBadSDP, err)
	}
	select {
	case <-gathered:
		ours := credentials{field(s.pc.LocalDescription().SDP, "a=ice-ufrag:"), field(s.pc.LocalDescription().SDP, "a=ice-pwd:")}
		for _, h := range s.endpoint.hosts {
			h.admit(ours)
		}
		return nil
	case <-s.done:
		return ErrClosed
	}
}

// field is the value of the first line of a description that begins with prefix.
func field(sdp, prefix string) string {
	for line := range strings.Lines(sdp) {
		if v, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// AddCandidate takes a candidate of the peer. An ICE-lite side sends no checks, so it is only looked at: a peer that
// sends nonsense should know. Transports, types and host names of any kind pass (RFC 9725 §4.3.2).
func (s *session) AddCandidate(c Candidate) error { return checkCandidate(c) }

func checkCandidate(c Candidate) error {
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

// ice lines of a description, RFC 8839 §5.4.
var iceLine = regexp.MustCompile(`(?m)^a=ice-(ufrag|pwd):.*?(\r?)$`)

// RestartICE takes the peer's new credentials and returns ours (RFC 8445 §9): the
// session goes on over whatever path the peer checks next.
func (s *session) RestartICE(ufrag, pwd string) (newUfrag, newPwd string, err error) {
	if !iceChars(ufrag, 4) || !iceChars(pwd, 22) {
		return "", "", fmt.Errorf("%w: ice-ufrag or ice-pwd is malformed", ErrBadSDP)
	}
	s.mu.Lock()
	offer := s.remote
	s.mu.Unlock()
	if offer == "" {
		return "", "", fmt.Errorf("%w: there is nothing to restart", ErrBadSDP)
	}
	offer = iceLine.ReplaceAllStringFunc(offer, func(line string) string {
		end := line[len(strings.TrimRight(line, "\r")):]
		if strings.HasPrefix(line, "a=ice-ufrag:") {
			return "a=ice-ufrag:" + ufrag + end
		}
		return "a=ice-pwd:" + pwd + end
	})
	answer, err := s.answer(offer)
	if err != nil {
		return "", "", err
	}
	for _, line := range strings.Split(answer, "\r\n") {
		if v, ok := strings.CutPrefix(line, "a=ice-ufrag:"); ok {
			newUfrag = v
		} else if v, ok := strings.CutPrefix(line, "a=ice-pwd:"); ok {
			newPwd = v
		}
	}
	return newUfrag, newPwd, nil
}

// iceChars checks a string of ice-chars (RFC 8839 §5.4) of at least least and at most 256.
func iceChars(s string, least int) bool {
	if len(s) < least || len(s) > 256 {
		return false
	}
	for _, c := range s {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '+', c == '/':
		default:
			return false
		}
	}
	return true
}

// SendMessage sends a message on the data channel that was opened last; without one it is dropped.
func (s *session) SendMessage(m media.Message) { s.data.send(m) }

// Close ends the session without a word to Events; it waits for the session's goroutines.
func (s *session) Close() {
	s.close(ErrClosed)
	<-s.ended
}
