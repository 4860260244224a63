package rtc

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/pion/dtls/v3"

	"sluice/udp"
)

// fingerprints are those of a peer's certificate, by SHA-256, as its description has them (RFC 8122 §5).
type fingerprints [][sha256.Size]byte

// parseFingerprint reads "sha-256 AB:CD:…"; other hashes are not used by anybody who speaks WebRTC.
func parseFingerprint(value string) (f [sha256.Size]byte, ok bool) {
	hash, text, _ := strings.Cut(strings.TrimSpace(value), " ")
	if !strings.EqualFold(hash, "sha-256") {
		return f, false
	}
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(text), ":", ""))
	if err != nil || len(b) != len(f) {
		return f, false
	}
	return [sha256.Size]byte(b), true
}

func formatFingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	var out strings.Builder
	out.WriteString("sha-256 ")
	for i, b := range sum {
		if i > 0 {
			out.WriteByte(':')
		}
		fmt.Fprintf(&out, "%02X", b)
	}
	return out.String()
}

var errFingerprint = errors.New("the peer's certificate is not that of its description")

// handshake is the DTLS side of a session: a goroutine until the keys are there. After that DTLS has no goroutine and no
// memory but what it takes to answer a peer that has not got our last flight, and to
// believe a peer that says goodbye; a data channel keeps it running.
type handshake struct {
	session *session
	pipe    *pipe
	peer    net.Addr

	mu     sync.Mutex
	turn   bool     // something came since the last write: a new flight begins
	flight [][]byte // our last flight
	done   bool     // the keys are there
	state  *dtls.State
	conn   *dtls.Conn   // as long as it runs
	early  []byte       // an alert that came before the handshake was done: perhaps the goodbye of a peer that was done first
	muted  bool         // what it writes is not sent
	again  [2]time.Time // when the last flight was sent again, and when an alert was looked at
}

// dtlsPacket has a datagram of DTLS.
func (s *session) dtlsPacket(a arrival, b []byte) {
	s.mu.Lock()
	if s.state == stateClosed || s.at.host == nil || len(s.prints) == 0 {
		s.mu.Unlock()
		return
	}
	h := s.beginDTLSLocked(a)
	s.mu.Unlock()
	h.packet(b, a.from)
}

func (s *session) beginDTLSLocked(a arrival) *handshake {
	if s.dtls == nil {
		h := &handshake{session: s, peer: net.UDPAddrFromAddrPort(a.from)}
		h.pipe = newPipe(a.host.sockets[0].LocalAddr(), 32, h.write)
		h.pipe.turns = &turns{all: s.endpoint.turns}
		s.dtls = h
		s.endpoint.spawn(h.run)
	}
	return s.dtls
}

// turns bound how many handshakes compute at once, so that a thousand that come together leave the
// processors to those who watch. A handshake takes its turn with each datagram that it reads, and gives it back when it waits for the next.
type turns struct {
	all chan struct{} // of the endpoint: its capacity is the bound

	mu   sync.Mutex
	mine bool
	over bool // the handshake is done: no turns are needed any more
}

func (t *turns) give() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mine {
		<-t.all
		t.mine = false
	}
}

// take waits for a turn; it returns without one when the pipe is closed, for then nobody would give it back.
func (t *turns) take(closed <-chan struct{}) {
	if t == nil {
		return
	}
	t.mu.Lock()
	over := t.over
	t.mu.Unlock()
	if over {
		return
	}
	select {
	case t.all <- struct{}{}:
	case <-closed:
		return
	}
	t.mu.Lock()
	t.mine = true
	over = t.over
	t.mu.Unlock()
	select {
	case <-closed:
		over = true
	default:
	}
	if over {
		t.give()
	}
}

// end gives the turn back for good.
func (t *turns) end() {
	t.mu.Lock()
	t.over = true
	t.mu.Unlock()
	t.give()
}

// Types of DTLS records (RFC 6347 §4.1).
const (
	recordChangeCipher = 20
	recordAlert        = 21
	recordHandshake    = 22
)

func (h *handshake) packet(b []byte, from netip.AddrPort) {
	h.mu.Lock()
	if !h.done || h.conn != nil {
		h.turn = true
		if b[0] == recordAlert && !h.done {
			h.early = append([]byte(nil), b...)
		}
		pipe := h.pipe
		h.mu.Unlock()
		pipe.push(b, from)
		return
	}
	last := &h.again[0]
	if b[0] == recordAlert {
		last = &h.again[1]
	}
	if time.Since(*last) < 50*time.Millisecond {
		h.mu.Unlock()
		return
	}
	*last = time.Now()
	flight, state := h.flight, h.state
	h.mu.Unlock()
	switch b[0] {
	case recordChangeCipher, recordHandshake: // it has not got our last flight (RFC 6347 §4.2.4)
		for _, d := range flight {
			_ = h.send(d)
		}
	case recordAlert:
		if state != nil {
			h.goodbye(state, b, from)
		}
	}
}

// goodbye looks at an alert with the keys of the connection, which are taken up again for it.
func (h *handshake) goodbye(state *dtls.State, b []byte, from netip.AddrPort) {
	alert := append([]byte(nil), b...)
	h.session.endpoint.spawn(func() {
		quiet := newPipe(netip.AddrPortFrom(from.Addr(), 0), 4, func([]byte, netip.AddrPort) error { return nil })
		conn, err := dtls.Resume(state, quiet, h.peer, h.session.endpoint.dtlsConfig(nil))
		if err != nil {
			return
		}
		quiet.push(alert, from)
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		var ignored [64]byte
		_, err = conn.Read(ignored[:])
		_ = conn.Close()
		var late net.Error
		if err != nil && !(errors.As(err, &late) && late.Timeout()) {
			h.session.fail(ErrLeft)
		}
	})
}

// write is what DTLS sends.
func (h *handshake) write(b []byte, _ netip.AddrPort) error {
	h.mu.Lock()
	if h.muted {
		h.mu.Unlock()
		return nil
	}
	if !h.done {
		if h.turn {
			h.turn, h.flight = false, nil
		}
		h.flight = append(h.flight, append([]byte(nil), b...))
	}
	h.mu.Unlock()
	return h.send(b)
}

// send goes to where the peer is now.
func (h *handshake) send(b []byte) error {
	h.session.mu.Lock()
	at := h.session.at
	h.session.mu.Unlock()
	at.send(b)
	return nil
}

// run makes the handshake.
func (h *handshake) run() {
	s := h.session
	e := s.endpoint
	ctx, cancel := context.WithTimeout(context.Background(), e.cfg.ConnectWithin)
	defer cancel()
	s.mu.Lock()
	begin := dtls.Server
	if !s.active {
		begin = dtls.Client
	}
	client := !s.active
	s.mu.Unlock()
	pipe := h.pipe
	conn, err := begin(pipe, h.peer, e.dtlsConfig(s.verify))
	if err != nil {
		s.fail(fmt.Errorf("%w: %w", ErrDisconnected, err))
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = pipe.Close() })
	err = conn.HandshakeContext(ctx)
	stop()
	var k keys
	if err == nil {
		k, err = exportKeys(conn, client)
	}
	if err != nil {
		h.mute()
		_ = conn.Close()
		_ = pipe.Close()
		if !s.ended.Load() {
			e.cfg.Log.Debug("DTLS handshake failed", "peer", h.peer, "error", err)
		}
		s.fail(fmt.Errorf("%w: DTLS: %w", ErrTimeout, err))
		return
	}
	state, _ := conn.ConnectionState()
	h.mu.Lock()
	h.done, h.state = true, &state
	data := s.wantsData()
	if data {
		h.conn = conn
	}
	early := h.early
	h.mu.Unlock()
	pipe.turns.end()
	if !data {
		h.mute()
		_ = conn.Close()
		_ = pipe.Close()
		h.forget()
		if early != nil {
			defer h.goodbye(&state, early, h.peer.(*net.UDPAddr).AddrPort())
		}
	}
	e.receiving.Add(1) // what this gives the shards to do is done here, see settle
	err = s.connected(k)
	e.receiving.Add(-1)
	e.settle()
	if err != nil {
		s.fail(err)
		return
	}
	if data {
		s.runData(conn)
	}
}

// forget drops what only the handshake needed.
func (h *handshake) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pipe, h.early = nil, nil
}

func (h *handshake) mute() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.muted = true
}

// close says goodbye to the peer and ends what still runs.
func (h *handshake) close() {
	h.mu.Lock()
	conn, state, done, pipe := h.conn, h.state, h.done, h.pipe
	h.mu.Unlock()
	if !done {
		_ = pipe.Close()
		return
	}
	e := h.session.endpoint
	e.spawn(func() {
		if conn == nil {
			last := newPipe(netip.AddrPort{}, 1, func(b []byte, _ netip.AddrPort) error { return h.send(b) })
			var err error
			if conn, err = dtls.Resume(state, last, h.peer, e.dtlsConfig(nil)); err != nil {
				return
			}
			_ = conn.Handshake() // it has been made; without it Close says nothing
		}
		_ = conn.Close()
		if pipe != nil {
			_ = pipe.Close()
		}
	})
}

// verify compares the peer's certificate with its description.
func (s *session) verify(raw [][]byte, _ [][]*x509.Certificate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(raw) > 0 {
		sum := sha256.Sum256(raw[0])
		for _, f := range s.prints {
			if f == sum {
				return nil
			}
		}
	}
	return errFingerprint
}

// exportKeys takes the SRTP keys out of a connection (RFC 5764 §4.2).
func exportKeys(conn *dtls.Conn, client bool) (keys, error) {
	agreed, ok := conn.SelectedSRTPProtectionProfile()
	state, alive := conn.ConnectionState()
	if !ok || !alive {
		return keys{}, errors.New("no SRTP profile in common")
	}
	for _, p := range profiles() {
		if p.dtls == agreed {
			material, err := state.ExportKeyingMaterial("EXTRACTOR-dtls_srtp", nil, p.material())
			if err != nil {
				return keys{}, fmt.Errorf("export the keys: %w", err)
			}
			return splitKeys(p, material, client), nil
		}
	}
	return keys{}, fmt.Errorf("SRTP profile %v is not ours", agreed)
}

// dtlsConfig is the same for all sessions but for the check of the peer's certificate.
func (e *Endpoint) dtlsConfig(verify func([][]byte, [][]*x509.Certificate) error) *dtls.Config {
	c := &dtls.Config{
		Certificates:            e.tls,
		CipherSuites:            []dtls.CipherSuiteID{dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, dtls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA},
		ExtendedMasterSecret:    dtls.RequireExtendedMasterSecret,
		ClientAuth:              dtls.RequireAnyClientCert,
		VerifyPeerCertificate:   verify,
		InsecureSkipVerify:      true, // the fingerprint decides
		InsecureSkipVerifyHello: true, // ICE has shown that the peer receives at its address
		FlightInterval:          100 * time.Millisecond,
		MTU:                     udp.MaxDatagram - 300,
		LoggerFactory:           e.logging,
	}
	for _, p := range profiles() {
		c.SRTPProtectionProfiles = append(c.SRTPProtectionProfiles, p.dtls)
	}
	return c
}
