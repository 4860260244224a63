package crowd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/rtcp"
	"github.com/pion/stun/v4"

	"sluice/load"
)

// medium is what a session is for. Its methods are called in the loop's goroutine.
type medium interface {
	rtp(b []byte, at int64)
	rtcp(packets []rtcp.Packet, at int64)
	hurry(now time.Time) (more bool) // every 20 ms, as long as it says so
	beat(now time.Time)              // every half second
}

// session is a WebRTC session with a server, made of a socket and little more: when its handshake is over it has no goroutine.
type session struct {
	loop   *loop
	medium medium
	ours   credentials
	local  func(netip.Addr) bool // where media may go; nil: anywhere

	bye    func(context.Context) error // tells the server; nil before it knows of us
	at     *load.Resource              // of WHIP and WHEP; nil: none yet, or another signalling
	notice time.Duration               // a server that says nothing for so long is gone; 0: see maxQuiet
	answer *answer
	pipe   *pipe         // as long as the handshake takes
	up     chan struct{} // closed when the server has answered a check
	over   chan struct{} // closed when the server ended it or is gone

	// The loop's.
	socket  *socket
	phase   int
	peer    netip.AddrPort // where media goes and comes from; not valid before up is closed
	checks  []check        // those without an answer
	tried   int            // candidates
	again   time.Time      // when to check again
	quiet   int            // checks in a row without an answer
	beats   int
	keys    *keys     // nil before the handshake is over
	latest  time.Time // when something came; with notice only
	asked   time.Time // when it was checked last; with notice only
	heard   int64     // arrival of the handshake's last message, Unix nanoseconds: from then on media can flow
	early   []earlier
	gone    bool // over is closed
	removed bool // from the loop
	bad     int  // packets of the sample that could not be decrypted
	sample  int  // counts packets
}

type check struct {
	id [stun.TransactionIDSize]byte
	to netip.AddrPort
}

type earlier struct {
	b  []byte
	at int64
}

const (
	connectTimeout = 10 * time.Second // for ICE and DTLS
	firstCheck     = 50 * time.Millisecond
	checkEvery     = 5   // beats: 2.5 s
	maxQuiet       = 3   // unanswered checks until the session counts as lost: 7.5 s
	maxEarly       = 256 // packets that wait for the keys
	sampleEvery    = 512 // packets, of which one is decrypted as a whole
)

// open makes the session: signalling, ICE, DTLS. The caller closes it also when it failed.
func (s *session) open(ctx context.Context, id *identity, signal Signal, endpoint string, ours offer, two func() medium) (err error) {
	theirs, bye, err := signal(ctx, endpoint, ours.describe)
	if err != nil {
		return err
	}
	s.bye = bye
	if s.answer, err = parseAnswer(theirs); err != nil {
		return err
	}
	if err := s.answer.keep(s.local); err != nil {
		return err
	}
	var reached netip.Addr
	if u, err := url.Parse(endpoint); err == nil {
		reached = hostAddr(u.Hostname())
	}
	s.answer.order(reached)
	s.medium = two()
	s.pipe = newPipe(func(b []byte) { s.socket.send(b) })
	six := false
	for _, a := range s.answer.at {
		six = six || a.Addr().Is6()
	}
	s.loop.do(func() {
		if err = s.loop.add(s, six); err != nil && six {
			err = s.loop.add(s, false) // a machine without IPv6
		}
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, fmt.Errorf("%w: the server's media port can't be reached from here: %v; check its firewall for UDP", load.ErrNoMedia, s.answer.at))
	defer cancel()
	select {
	case <-s.up:
	case <-s.over:
		return load.ErrEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.handshake(ctx, id)
}

// hostAddr is the address of a URL's host, if it is one; that of "localhost" is loopback.
func hostAddr(host string) netip.Addr {
	if host == "localhost" {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	a, _ := netip.ParseAddr(host)
	return a.Unmap()
}

// handshake agrees on keys. DTLS ends with it: nobody says goodbye by DTLS after a DELETE.
func (s *session) handshake(ctx context.Context, id *identity) error {
	begin := dtls.Client
	if s.answer.active {
		begin = dtls.Server
	}
	conn, err := begin(s.pipe, s.pipe.LocalAddr(), id.dtlsConfig(s.answer.prints))
	if err != nil {
		return fmt.Errorf("%w: DTLS: %w", load.ErrNoMedia, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.pipe.Close() })
	err = conn.HandshakeContext(ctx)
	stop()
	var k *keys
	if err == nil {
		k, err = exportKeys(conn, !s.answer.active)
	}
	s.pipe.mute()
	_ = conn.Close()
	_ = s.pipe.Close()
	if err != nil {
		if errors.Is(context.Cause(ctx), load.ErrNoMedia) {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("%w: DTLS: %w", load.ErrNoMedia, err)
	}
	s.loop.do(func() { s.begin(k) })
	return nil
}

// begin takes the keys into use.
func (s *session) begin(k *keys) {
	s.keys, s.pipe = k, nil
	early := s.early
	s.early = nil
	for _, e := range early {
		s.datagram(e.b, e.at)
	}
	s.loop.hurried[s] = struct{}{}
}

// close ends the session on both sides; the server is told also when ctx has ended.
func (s *session) close(ctx context.Context) {
	s.loop.do(func() { s.loop.remove(s) })
	if s.bye == nil {
		return
	}
	bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTimeout)
	defer cancel()
	_ = s.bye(bye) // a resource that is gone already is no error; nor is a server that is
}

const goodbyeTimeout = 5 * time.Second // for the DELETE when all is over

// datagram is told apart by its first byte (RFC 7983 §7).
func (s *session) datagram(b []byte, at int64) {
	if len(b) < 12 {
		return
	}
	s.latest = s.loop.now
	switch {
	case b[0] < 4:
		s.stun(b)
	case b[0] >= 20 && b[0] <= 63:
		if s.keys != nil {
			if b[0] == 21 { // an alert (RFC 6347 §4.1): the server has ended the session
				s.end()
			}
			return
		}
		if s.pipe != nil {
			s.heard = at
			s.pipe.push(b)
		}
	case b[0]>>6 == 2:
		if s.keys == nil {
			if len(s.early) < maxEarly {
				s.early = append(s.early, earlier{append([]byte(nil), b...), at})
			}
			return
		}
		s.secured(b, at)
	}
}

// secured has RTP or RTCP (RFC 5761 §4).
func (s *session) secured(b []byte, at int64) {
	if pt := b[1]; pt < 192 || pt > 223 {
		if s.sample++; s.sample%sampleEvery == 1 {
			if _, err := s.keys.in.DecryptRTP(nil, b, nil); err != nil {
				s.bad++
			}
		}
		s.medium.rtp(b, at)
		return
	}
	plain, err := s.keys.in.DecryptRTCP(nil, b, nil)
	if err != nil {
		s.bad++
		return
	}
	packets, err := rtcp.Unmarshal(plain)
	if err != nil {
		return
	}
	for _, p := range packets {
		if _, bye := p.(*rtcp.Goodbye); bye {
			s.end()
		}
	}
	s.medium.rtcp(packets, at)
}

func (s *session) stun(b []byte) {
	id, request, success, ok := readSTUN(b, s.ours, s.answer.theirs)
	switch {
	case !ok:
	case request && s.peer.IsValid():
		if m, err := answerCheck(id, s.peer, s.ours); err == nil {
			s.socket.send(m)
		}
	case success:
		for _, c := range s.checks {
			if c.id == id {
				s.answered(c)
				return
			}
		}
	}
}

func (s *session) answered(c check) {
	s.quiet, s.checks = 0, s.checks[:0]
	if s.peer.IsValid() {
		return
	}
	s.peer = c.to
	s.socket.connect(c.to)
	if s.tried > 1 { // the server may have taken another one for nominated meanwhile
		s.check(c.to)
	}
	close(s.up)
}

// check asks the server whether it is there.
func (s *session) check(to netip.AddrPort) {
	c := check{newTransaction(), to}
	m, err := makeCheck(c.id, s.ours, s.answer.theirs)
	if err != nil {
		return
	}
	if s.checks = append(s.checks, c); len(s.checks) > 32 {
		s.checks = append(s.checks[:0], s.checks[1:]...)
	}
	if s.peer.IsValid() {
		s.socket.send(m)
		return
	}
	s.socket.sendTo(m, to)
}

// hurry has a turn every 20 ms until it says false.
func (s *session) hurry(now time.Time) bool {
	if s.gone {
		return false
	}
	if !s.peer.IsValid() {
		// One candidate more every time, until all are tried; the first that answers is the one.
		if !now.Before(s.again) {
			s.tried = min(s.tried+1, len(s.answer.at))
			for _, a := range s.answer.at[:s.tried] {
				s.check(a)
			}
			s.again = now.Add(firstCheck)
		}
		return true
	}
	if s.keys == nil {
		return false
	}
	more := s.medium.hurry(now)
	if s.notice > 0 {
		s.vigil(now)
	}
	return more || s.notice > 0
}

// checksInNotice is how often a server is asked for a sign of life within the time after which it counts as gone.
const checksInNotice = 4

// vigil ends the session as soon as the server has been silent for notice.
func (s *session) vigil(now time.Time) {
	if now.Sub(s.latest) >= s.notice {
		s.end()
		return
	}
	if now.Sub(s.asked) >= s.notice/checksInNotice {
		s.asked = now
		s.check(s.peer)
	}
}

func (s *session) beat(now time.Time) {
	if s.gone || s.keys == nil {
		return
	}
	if s.beats++; s.beats%checkEvery == 0 {
		if s.quiet++; s.quiet > maxQuiet {
			s.end()
			return
		}
		s.check(s.peer)
	}
	s.medium.beat(now)
}

// end tells that the server has ended the session.
func (s *session) end() {
	if !s.gone {
		s.gone = true
		close(s.over)
	}
}

// sendRTCP is for the loop's goroutine.
func (s *session) sendRTCP(packets ...rtcp.Packet) {
	plain, err := rtcp.Marshal(packets)
	if err != nil {
		return
	}
	if sealed, err := s.keys.out.EncryptRTCP(nil, plain, nil); err == nil {
		s.socket.send(sealed)
	}
}

var (
	_ net.PacketConn = (*pipe)(nil)
)
