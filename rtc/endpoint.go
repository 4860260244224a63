// Package rtc is the WebRTC transport: sessions that are opened by an SDP, all on one
// UDP port, or the TCP port of the same number, which take bursts to send and give bursts that arrived.
//
// A session is of a publisher (Receiver) or of a viewer (Sender). The kernel spreads peers over sockets, one for each processor, and
// who reads a socket also decrypts what came. Viewers are entries in the slices of shards, each of which has a loop; what a stream
// sends goes through a Group.
//
// Locks, outer first: Receiver.in, shard.turn, session.telling, session.mu, then Endpoint.mu, host.mu or shard.mu, then tcpConn.mu and strangers.mu.
//
// Imports: codec, congestion, media, udp.
package rtc

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/logging"

	"sluice/udp"
)

// Errors of sessions; test for them with errors.Is.
var (
	ErrBadSDP       = errors.New("session description can't be used")
	ErrNoCodec      = errors.New("no codec in common")
	ErrBadCandidate = errors.New("ICE candidate can't be used")
	ErrClosed       = errors.New("session is closed")
	ErrTimeout      = errors.New("no connection within the time allowed")
	ErrDisconnected = errors.New("the peer went away")
	ErrLeft         = errors.New("the peer said goodbye")
)

// Config of an Endpoint.
type Config struct {
	// Listen is the UDP and TCP address of all media, "host:port"; port 0 takes any. Without a host, or with an unspecified one,
	// a socket is bound on the same port of each of the machine's addresses, loopback included.
	Listen string
	// Announce are the addresses told to clients in place of those listened on, for a machine
	// behind a one-to-one NAT.
	Announce []netip.Addr
	// ConnectWithin is how long a session may take to connect; default 10 s.
	ConnectWithin time.Duration
	Shards        int          // loops that send to viewers; default one for each processor
	NoTCP         bool         // take no TCP connections, which are for peers without UDP
	NoGSO         bool         // do without the kernel's help in sending, which it may not have anyway
	Log           *slog.Logger // default slog.Default()
}

// Endpoint is a node's media port: its sockets, the shards that send to viewers, and the sessions.
type Endpoint struct {
	cfg       Config
	began     time.Time
	tls       []tls.Certificate
	print     string // its fingerprint as descriptions have it
	hosts     []*host
	addrs     []netip.Addr // of hosts
	port      uint16
	shards    []*shard
	logging   logging.LoggerFactory
	turns     chan struct{}  // see turns
	work      sync.WaitGroup // goroutines of sessions
	strangers strangers
	health    health // of who runs Run
	counts    counts
	receiving atomic.Int32 // datagrams that are being handled; see settle

	mu       sync.Mutex
	sessions map[*session]struct{}
	closed   bool // no more sessions
	still    bool // no more goroutines
}

// spawn runs a goroutine of a session; Run waits for it.
func (e *Endpoint) spawn(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.still {
		e.work.Go(f)
	}
}

// New returns an endpoint that has no socket yet.
func New(cfg Config) *Endpoint {
	cfg.ConnectWithin = cmp.Or(cfg.ConnectWithin, 10*time.Second)
	cfg.Shards = cmp.Or(cfg.Shards, runtime.GOMAXPROCS(0))
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	quiet := &logging.DefaultLoggerFactory{Writer: io.Discard, DefaultLogLevel: logging.LogLevelDisabled}
	return &Endpoint{cfg: cfg, began: time.Now(), logging: quiet, sessions: map[*session]struct{}{},
		turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1))}
}

// clock is the time since the endpoint was made. Steps of the machine's clock don't change it, if now is from time.Now.
func (e *Endpoint) clock(now time.Time) time.Duration { return now.Sub(e.began) }

// The kernel's queues of a media socket, in bytes: a key frame for many viewers at once.
const socketBuffer = 4 << 20

// Listen binds the media port and makes the certificate.
func (e *Endpoint) Listen(ctx context.Context) error {
	if err := e.makeCertificate(); err != nil {
		return err
	}
	name, port, err := net.SplitHostPort(e.cfg.Listen)
	if err != nil {
		return fmt.Errorf("media address %q is not host:port: %w", e.cfg.Listen, err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("media address %q: the port must be a number: %w", e.cfg.Listen, err)
	}
	e.port = uint16(number)
	if e.addrs, err = e.addresses(name); err != nil {
		return err
	}
	if err := e.bind(ctx); err != nil {
		return fmt.Errorf("bind the media port: %w (is another node using it? choose another with --media)", err)
	}
	for i := range e.cfg.Shards {
		var sockets []*udp.Socket
		for _, h := range e.hosts {
			sockets = append(sockets, h.sockets[i])
		}
		e.shards = append(e.shards, newShard(e, i, sockets))
	}
	e.opened()
	return nil
}

// bindTries is how often a free port is looked for that is free on all addresses, for UDP and TCP.
const bindTries = 20

// bind opens a socket for each address and shard, all on one port.
func (e *Endpoint) bind(ctx context.Context) (err error) {
	wanted := e.port
	for range bindTries {
		if err = e.bindPort(ctx, wanted); err == nil || wanted != 0 {
			return err
		}
	}
	return err
}

func (e *Endpoint) bindPort(ctx context.Context, port uint16) error {
	for _, a := range e.addrs {
		h, err := e.bindHost(ctx, netip.AddrPortFrom(a, port))
		e.hosts = append(e.hosts, h)
		if err != nil {
			e.closeSockets()
			e.hosts = nil
			return err
		}
		port = h.sockets[0].LocalAddr().Port() // the same for the next
	}
	e.port = port
	return nil
}

// bindHost opens the sockets of one address. With an error it returns those that it has.
func (e *Endpoint) bindHost(ctx context.Context, at netip.AddrPort) (*host, error) {
	h := newHost(nil)
	for range e.cfg.Shards {
		s, err := udp.Listen(ctx, at, udp.Config{Shared: e.cfg.Shards > 1, NoGSO: e.cfg.NoGSO, Buffers: socketBuffer})
		if err != nil {
			return h, err
		}
		at = s.LocalAddr()
		h.sockets = append(h.sockets, s)
	}
	if e.cfg.NoTCP {
		return h, nil
	}
	return h, h.listenTCP(ctx, at)
}

func (e *Endpoint) makeCertificate() error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a DTLS key: %w", err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().AddDate(10, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return fmt.Errorf("make a DTLS certificate: %w", err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("make a DTLS certificate: %w", err)
	}
	e.tls = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private, Leaf: parsed}}
	e.print = formatFingerprint(der)
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
	return netip.AddrPortFrom(e.addrs[0], e.port)
}

// Route is an address that clients are told, and the address of this machine which that is.
type Route struct{ Told, Bound netip.AddrPort }

// Routes are all of the media port. Of announced addresses the first is the first of this machine, the second
// the second, and so on, for each version of IP.
func (e *Endpoint) Routes() (all []Route) {
	if len(e.cfg.Announce) == 0 {
		for _, a := range e.addrs {
			at := netip.AddrPortFrom(a, e.port)
			all = append(all, Route{at, at})
		}
		return all
	}
	for _, six := range []bool{false, true} {
		other := func(a netip.Addr) bool { return a.Is6() != six }
		bound := slices.DeleteFunc(slices.Clone(e.addrs), other)
		for i, a := range slices.DeleteFunc(slices.Clone(e.cfg.Announce), other) {
			if len(bound) > 0 {
				all = append(all, Route{netip.AddrPortFrom(a, e.port), netip.AddrPortFrom(bound[min(i, len(bound)-1)], e.port)})
			}
		}
	}
	return all
}

func (e *Endpoint) hostIndex(h *host) int { return max(slices.Index(e.hosts, h), 0) }

// candidates are the endpoint's as in an SDP (RFC 8839 §5.1, RFC 6544 §4.5), the one to be preferred first.
func (e *Endpoint) candidates() (all []string) {
	addrs := e.addrs
	if len(e.cfg.Announce) > 0 {
		addrs = e.cfg.Announce
	}
	for i, a := range addrs { // priority as in RFC 8445 §5.1.2 for host candidates
		all = append(all, fmt.Sprintf("%d 1 udp %d %s %d typ host", i+1, uint32(126<<24|(65535-i)<<8|255), a, e.port))
	}
	if e.cfg.NoTCP {
		return all
	}
	for i, a := range addrs { // after UDP; RFC 6544 §4.2 for what is passive
		all = append(all, fmt.Sprintf("%d 1 tcp %d %s %d typ host tcptype passive", len(addrs)+i+1, uint32(90<<24|(4<<13|(8191-i))<<8|255), a, e.port))
	}
	return all
}

// Times in the life of a session.
const (
	sweepEvery = time.Second
	// A peer that is not heard for hush has a broken path, and for silence it is gone. Browsers send a check every 2.5 s.
	hush    = 5 * time.Second
	silence = 15 * time.Second
)

// Run serves until ctx ends, then closes all sessions and the port.
func (e *Endpoint) Run(ctx context.Context) error {
	done := make(chan struct{})
	var loops sync.WaitGroup
	for _, h := range e.hosts {
		h.start(e)
	}
	for _, sh := range e.shards {
		loops.Go(func() { sh.run(done) })
	}
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-sweep.C:
			e.sweep(now)
			e.observe(now)
		}
	}
	e.mu.Lock()
	e.closed = true
	all := slices.Collect(maps.Keys(e.sessions))
	e.mu.Unlock()
	for _, s := range all {
		s.Close()
	}
	e.mu.Lock()
	e.still = true
	e.mu.Unlock()
	e.work.Wait()
	close(done)
	loops.Wait()
	e.closeSockets()
	return nil
}

// sweep ends sessions that did not connect in time, or whose peer has gone.
func (e *Endpoint) sweep(now time.Time) {
	e.mu.Lock()
	all := slices.Collect(maps.Keys(e.sessions))
	e.mu.Unlock()
	for _, s := range all {
		if err := s.age(now, e.cfg.ConnectWithin); err != nil {
			e.counts.gone(err)
			s.fail(err)
		}
	}
}

func (e *Endpoint) closeSockets() {
	for _, h := range e.hosts {
		_ = h.Close()
	}
}

// Sessions is the number of open sessions.
func (e *Endpoint) Sessions() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.sessions)
}

// Sent is the number of bytes of media handed to the system, without headers of UDP and TCP. What handshakes send is not counted.
func (e *Endpoint) Sent() (bytes uint64) {
	for _, h := range e.hosts {
		bytes += h.sent.Load()
		for _, s := range h.sockets {
			bytes += s.Sent()
		}
	}
	return bytes
}

// spread is up to how many viewers share a shard before the next one gets some: for a few of them, waking another thread takes longer
// than sending.
const spread = 64

// place chooses the shard of a viewer.
func (e *Endpoint) place() *shard {
	best := e.shards[0]
	for _, sh := range e.shards {
		n := sh.viewers.Load()
		if n < spread {
			best = sh
			break
		}
		if n < best.viewers.Load() {
			best = sh
		}
	}
	best.viewers.Add(1)
	return best
}

// settle does what the datagrams that were just handled have given the shards to do: the last shard's part right here,
// which saves waking its loop. Posts that come while receiving is not 0 rely on it.
func (e *Endpoint) settle() {
	var mine *shard
	for _, sh := range e.shards {
		if sh.pending.Load() {
			if mine != nil {
				mine.signal()
			}
			mine = sh
		}
	}
	if mine != nil {
		mine.help()
	}
}
