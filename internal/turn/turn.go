// Package turn is a TURN server (RFC 8656) for clients whose network lets nothing but a known service through. It relays to
// this node's media port, and to nothing else.
//
// Imports: nothing of ours.
package turn

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v5"
)

// Limits.
const (
	maxOfUser   = 10      // allocations of one user: a browser makes one for each of its networks, server and transport
	maxAll      = 2000    // allocations of all
	maxConns    = 2000    // TCP connections
	maxConnsOf  = 64      // and of one address
	userRate    = 5 << 20 // bytes a second of one user, both ways together: what is more is dropped
	connSilence = time.Minute
	connStuck   = 10 * time.Second // a client that takes nothing for so long has gone
	connBuffer  = 128 << 10        // bytes of the kernel's queue to a client, which are late when it is slow
	lifetime    = 24 * time.Hour   // of credentials: each refresh of an allocation needs them
	realm       = "sluice"
)

// Route is an address of the media port that clients are told, and where that is on this machine.
type Route struct{ Told, Bound netip.AddrPort }

// Config of a Server.
type Config struct {
	Listen string     // address of UDP and TCP, "host:port"; port 0 takes any that is free for both
	Secret string     // shared with nobody but other makers of credentials; "": made at random
	Public netip.Addr // told to clients; the zero one: the first address of Media
	Ports  Ports      // where allocations get their sockets; they need not be open in a firewall
	// Media are the addresses that may be relayed to. It is called after Listen.
	Media func() []Route
}

// Ports is a range of UDP ports; the zero one is any.
type Ports struct{ First, Last uint16 }

// Server is a TURN server.
type Server struct {
	cfg       Config
	port      uint16
	packets   []net.PacketConn
	listeners []*listener
	work      sync.WaitGroup // all that is open

	mu    sync.Mutex
	users map[string]*user
	all   int // allocations
	stats Stats
}

// Stats are what a server has and has done since the start.
type Stats struct {
	Allocations int
	Users       int
	Made        uint64 // allocations
	Refused     uint64 // allocations, because there were too many
}

// Stats may be called from any goroutine.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Allocations, st.Users = s.all, len(s.users)
	return st
}

// New returns a server that has no socket yet.
func New(cfg Config) *Server {
	cfg.Secret = cmp.Or(cfg.Secret, rand.Text())
	return &Server{cfg: cfg, users: map[string]*user{}}
}

// Login is a server's URL (RFC 7065) with a user's credentials.
type Login struct{ URL, Username, Password string }

// Logins makes credentials for a new user, as in draft-uberti-behave-turn-rest-00 §2.2: they are good until a time
// which the user's name begins with.
func (s *Server) Logins() []Login {
	host := s.cfg.Public
	if routes := s.cfg.Media(); !host.IsValid() && len(routes) > 0 {
		host = routes[0].Told.Addr()
	}
	at := netip.AddrPortFrom(host, s.port)
	name := fmt.Sprintf("%d:%s", time.Now().Add(lifetime).Unix(), rand.Text()[:12])
	password := s.password(name)
	return []Login{{"turn:" + at.String() + "?transport=udp", name, password}, {"turn:" + at.String() + "?transport=tcp", name, password}}
}

func (s *Server) password(name string) string {
	mac := hmac.New(sha1.New, []byte(s.cfg.Secret))
	mac.Write([]byte(name))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// authenticate gives the key of a user whose name is not too old.
func (s *Server) authenticate(r *turn.RequestAttributes) (id string, key []byte, ok bool) {
	until, _, _ := strings.Cut(r.Username, ":")
	at, err := strconv.ParseInt(until, 10, 64)
	if err != nil || at < time.Now().Unix() {
		return "", nil, false
	}
	return r.Username, turn.GenerateAuthKey(r.Username, r.Realm, s.password(r.Username)), true
}

// listenTries is how often a port is looked for that is free for UDP and TCP.
const listenTries = 20

// Listen binds the port.
func (s *Server) Listen(ctx context.Context) error {
	host, port, err := net.SplitHostPort(s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("TURN address %q is not host:port: %w", s.cfg.Listen, err)
	}
	for range listenTries {
		if err = s.bind(ctx, host, port); err == nil || port != "0" {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("bind the TURN port: %w (choose another with --turn-listen)", err)
	}
	return nil
}

func (s *Server) bind(ctx context.Context, host, port string) (err error) {
	defer func() {
		if err != nil {
			s.closeSockets()
			s.packets, s.listeners = nil, nil
		}
	}()
	lc := &net.ListenConfig{}
	for _, v := range families(host) {
		p, err := lc.ListenPacket(ctx, "udp"+v, net.JoinHostPort(host, port))
		if err != nil {
			return err
		}
		s.packets = append(s.packets, p)
		s.port = p.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		port = strconv.Itoa(int(s.port)) // the same for the next
		l, err := lc.Listen(ctx, "tcp"+v, net.JoinHostPort(host, port))
		if err != nil {
			return err
		}
		s.listeners = append(s.listeners, newListener(l, &s.work))
	}
	return nil
}

// families are the versions of IP to listen on: for an allocation it matters by which the client came.
func families(host string) []string {
	a, err := netip.ParseAddr(host)
	switch {
	case err == nil && a.Is4():
		return []string{"4"}
	case err == nil && !a.IsUnspecified():
		return []string{"6"}
	}
	if probe, err := net.ListenPacket("udp6", "[::1]:0"); err == nil {
		_ = probe.Close()
		return []string{"4", "6"}
	}
	return []string{"4"}
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	quiet := &logging.DefaultLoggerFactory{Writer: io.Discard, DefaultLogLevel: logging.LogLevelDisabled}
	cfg := turn.ServerConfig{Realm: realm, AuthHandler: s.authenticate, LoggerFactory: quiet}
	for _, p := range s.packets {
		cfg.PacketConnConfigs = append(cfg.PacketConnConfigs, turn.PacketConnConfig{PacketConn: p, RelayAddressGenerator: s, PermissionHandler: s.permit})
	}
	for _, l := range s.listeners {
		cfg.ListenerConfigs = append(cfg.ListenerConfigs, turn.ListenerConfig{Listener: l, RelayAddressGenerator: s, PermissionHandler: s.permit})
	}
	server, err := turn.NewServer(cfg)
	if err != nil {
		s.closeSockets()
		return fmt.Errorf("start the TURN server: %w", err)
	}
	<-ctx.Done()
	err = server.Close()
	s.closeSockets()
	s.work.Wait()
	return err
}

func (s *Server) closeSockets() {
	for _, p := range s.packets {
		_ = p.Close()
	}
	for _, l := range s.listeners {
		_ = l.Close()
	}
}

// Addr is where the server listens, as clients are told.
func (s *Server) Addr() string { return s.Logins()[0].URL }

// permit is asked for each address that a client wants to reach; the ports are looked at when it sends.
func (s *Server) permit(_ net.Addr, peer net.IP) bool {
	a, _ := netip.AddrFromSlice(peer)
	for _, r := range s.cfg.Media() {
		if r.Told.Addr() == a.Unmap() {
			return true
		}
	}
	return false
}

// Validate implements turn.RelayAddressGenerator.
func (s *Server) Validate() error { return nil }

var (
	errFull    = errors.New("too many allocations")
	errOnlyUDP = errors.New("media goes over UDP only")
)

// AllocatePacketConn implements turn.RelayAddressGenerator: the client gets a socket on this machine.
func (s *Server) AllocatePacketConn(c turn.AllocateListenerConfig) (net.PacketConn, net.Addr, error) {
	u, err := s.enter(c.UserID)
	if err != nil {
		return nil, nil, err
	}
	r := &relay{server: s, user: u, told: map[netip.AddrPort]netip.AddrPort{}, bound: map[netip.AddrPort]netip.AddrPort{}}
	at := netip.Addr{}
	for _, route := range s.cfg.Media() {
		if route.Told.Addr().Is4() != strings.HasSuffix(c.Network, "4") {
			continue
		}
		r.bound[route.Told] = route.Bound
		r.told[route.Bound] = route.Told
		if at.IsValid() && at != route.Bound.Addr() {
			at = netip.IPv4Unspecified() // the kernel takes the address that reaches the other
			if route.Bound.Addr().Is6() {
				at = netip.IPv6Unspecified()
			}
			continue
		}
		at = route.Bound.Addr()
	}
	if !at.IsValid() {
		s.leave(u)
		return nil, nil, fmt.Errorf("media has no address for %s", c.Network)
	}
	if r.UDPConn, err = s.socket(c.Network, at); err != nil {
		s.leave(u)
		return nil, nil, fmt.Errorf("allocate a socket: %w", err)
	}
	s.work.Add(1)
	local := r.UDPConn.LocalAddr().(*net.UDPAddr)
	if at.IsUnspecified() {
		for bound := range r.told {
			local = &net.UDPAddr{IP: bound.Addr().AsSlice(), Port: local.Port} // it is for the client to look at only
			break
		}
	}
	return r, local, nil
}

// socket opens a socket on a port of the range.
func (s *Server) socket(network string, at netip.Addr) (c *net.UDPConn, err error) {
	p := s.cfg.Ports
	if p == (Ports{}) {
		return net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
	}
	n := int(p.Last) - int(p.First) + 1
	begin := int(randomPort()) % n
	for i := range min(n, 100) {
		port := p.First + uint16((begin+i)%n)
		if c, err = net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, port))); err == nil {
			return c, nil
		}
	}
	return nil, err
}

func randomPort() uint16 {
	var b [2]byte
	_, _ = rand.Read(b[:]) // never fails
	return uint16(b[0])<<8 | uint16(b[1])
}

// AllocateListener implements turn.RelayAddressGenerator.
func (s *Server) AllocateListener(turn.AllocateListenerConfig) (net.Listener, net.Addr, error) {
	return nil, nil, errOnlyUDP
}

// AllocateConn implements turn.RelayAddressGenerator.
func (s *Server) AllocateConn(turn.AllocateConnConfig) (net.Conn, error) { return nil, errOnlyUDP }
