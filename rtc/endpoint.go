// Package rtc is the WebRTC transport: sessions that are opened by an SDP, all on one
// UDP port, which take bursts to send and give bursts that arrived.
//
// The rest of the program sees Endpoint, Sender and Receiver and none of what is beneath.
//
// Imports: media.
package rtc

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/webrtc/v4"
)

// Errors of sessions; test for them with errors.Is.
var (
	ErrBadSDP       = errors.New("session description can't be used")
	ErrNoCodec      = errors.New("no codec in common")
	ErrBadCandidate = errors.New("ICE candidate can't be used")
	ErrClosed       = errors.New("session is closed")
	ErrTimeout      = errors.New("no connection within the time allowed")
	ErrDisconnected = errors.New("the peer went away")
)

// Config of an Endpoint.
type Config struct {
	// Listen is the UDP address of all media, "host:port"; port 0 takes any. Without a host, or with an unspecified one,
	// a socket is bound on the same port of each of the machine's addresses, loopback included.
	Listen string
	// Announce are the addresses told to clients in place of those listened on, for a machine
	// behind a one-to-one NAT.
	Announce []netip.Addr
	// ConnectWithin is how long a session may take to connect; default 10 s.
	ConnectWithin time.Duration
	Log           *slog.Logger // default slog.Default()
}

// Endpoint is a node's media port.
type Endpoint struct {
	cfg     Config
	cert    webrtc.Certificate
	muxes   []ice.UDPMux
	mux     ice.UDPMux
	port    uint16
	hosts   []netip.Addr
	logging logging.LoggerFactory

	mu       sync.Mutex
	sessions map[*session]struct{}
	closed   bool
}

// New returns an endpoint that has no socket yet.
func New(cfg Config) *Endpoint {
	cfg.ConnectWithin = cmp.Or(cfg.ConnectWithin, 10*time.Second)
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	quiet := &logging.DefaultLoggerFactory{Writer: io.Discard, DefaultLogLevel: logging.LogLevelDisabled}
	return &Endpoint{cfg: cfg, logging: quiet, sessions: map[*session]struct{}{}}
}

// The kernel's queues of a media socket, in bytes: a key frame for many viewers at once.
const socketBuffer = 4 << 20

// Listen binds the media port and makes the certificate.
func (e *Endpoint) Listen(ctx context.Context) error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a DTLS key: %w", err)
	}
	cert, err := webrtc.GenerateCertificate(private)
	if err != nil {
		return fmt.Errorf("make a DTLS certificate: %w", err)
	}
	e.cert = *cert
	host, port, err := net.SplitHostPort(e.cfg.Listen)
	if err != nil {
		return fmt.Errorf("media address %q is not host:port: %w", e.cfg.Listen, err)
	}
	hosts, err := e.addresses(host)
	if err != nil {
		return err
	}
	for _, h := range hosts {
		pc, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", net.JoinHostPort(h.String(), port))
		if err != nil {
			e.closeSockets()
			return fmt.Errorf("bind the media port: %w (is another node using it? choose another with --media)", err)
		}
		conn := pc.(*net.UDPConn)
		_ = conn.SetReadBuffer(socketBuffer) // the kernel may grant less
		_ = conn.SetWriteBuffer(socketBuffer)
		e.port = conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		port = strconv.Itoa(int(e.port)) // the same for the next address
		e.muxes = append(e.muxes, newMux(conn))
	}
	e.mux = ice.NewMultiUDPMuxDefault(e.muxes...)
	e.hosts = hosts
	return nil
}

// addresses lists what to bind: the named host, or all of this machine's.
func (e *Endpoint) addresses(host string) ([]netip.Addr, error) {
	if host != "" {
		if a, err := netip.ParseAddr(host); err != nil {
			return nil, fmt.Errorf("media address %q: the host must be an IP address: %w", e.cfg.Listen, err)
		} else if !a.IsUnspecified() {
			return []netip.Addr{a}, nil
		}
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list this machine's addresses: %w", err)
	}
	var hosts, loopback []netip.Addr
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		switch {
		case err != nil || prefix.Addr().IsLinkLocalUnicast():
		case !prefix.Addr().IsLoopback():
			hosts = append(hosts, prefix.Addr().Unmap())
		case prefix.Addr().Is4():
			loopback = append(loopback, prefix.Addr())
		}
	}
	hosts = append(hosts, loopback...) // last: there are clients that use the first candidate only
	if len(hosts) == 0 {
		return nil, errors.New("this machine has no address to send media from")
	}
	return hosts, nil
}

// Addr is the media port, with the first address that clients are told.
func (e *Endpoint) Addr() netip.AddrPort {
	if len(e.cfg.Announce) > 0 {
		return netip.AddrPortFrom(e.cfg.Announce[0], e.port)
	}
	return netip.AddrPortFrom(e.hosts[0], e.port)
}

// Run serves until ctx ends, then closes all sessions and the port.
func (e *Endpoint) Run(ctx context.Context) error {
	<-ctx.Done()
	e.mu.Lock()
	e.closed = true
	open := make([]*session, 0, len(e.sessions))
	for s := range e.sessions {
		open = append(open, s)
	}
	e.mu.Unlock()
	for _, s := range open {
		s.close(ErrClosed)
	}
	for _, s := range open {
		<-s.ended
	}
	e.closeSockets()
	return nil
}

func (e *Endpoint) closeSockets() {
	for _, m := range e.muxes {
		_ = m.Close()
	}
}

// Sessions is the number of open sessions.
func (e *Endpoint) Sessions() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.sessions)
}

// api makes a Pion API whose sessions share the port; role is ours in DTLS when we answer.
func (e *Endpoint) api(m *webrtc.MediaEngine, role webrtc.DTLSRole, options ...func(*webrtc.API)) *webrtc.API {
	s := webrtc.SettingEngine{LoggerFactory: e.logging}
	s.SetLite(true) // RFC 8445 §2.5: we have reachable addresses and wait to be checked
	s.SetICEUDPMux(e.mux)
	s.SetIncludeLoopbackCandidate(true)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6})
	s.SetICETimeouts(5*time.Second, 10*time.Second, 2*time.Second)
	s.SetDTLSRetransmissionInterval(100 * time.Millisecond)
	s.SetReceiveMTU(1500)
	s.SetFireOnTrackBeforeFirstRTP(true)
	_ = s.SetAnsweringDTLSRole(role) // only an unknown role fails
	options = append(options, webrtc.WithMediaEngine(m), webrtc.WithSettingEngine(s))
	return webrtc.NewAPI(options...)
}

// announce puts the announced addresses in the place of those listened on.
func (e *Endpoint) announce(sdp string) string {
	if len(e.cfg.Announce) == 0 {
		return sdp
	}
	var out strings.Builder
	done := false
	for line := range strings.Lines(sdp) {
		if !strings.HasPrefix(line, "a=candidate:") {
			out.WriteString(line)
			continue
		}
		if done {
			continue
		}
		done = true
		for i, a := range e.cfg.Announce { // RFC 8839 §5.1; priority as in RFC 8445 §5.1.2 for host candidates
			fmt.Fprintf(&out, "a=candidate:%d 1 udp %d %s %d typ host\r\n", i+1, uint32(126<<24|(65535-i)<<8|255), a, e.port)
		}
	}
	return out.String()
}
