package rtc

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pion/stun/v4"
)

// mux shares one UDP socket among sessions (it is an ice.UDPMux). A connectivity check names its session by our user name
// fragment (RFC 8445 §7.2.2); from then on its source address belongs to that session, also when it
// belonged to another before: a client's port may be used again before we know that the last one has gone.
type mux struct {
	socket *net.UDPConn
	done   chan struct{} // closed when the socket is read no more

	mu     sync.Mutex
	ufrags map[string]*muxConn
	addrs  map[netip.AddrPort]*muxConn
	closed bool
}

// A datagram of WebRTC is no larger than a path of Ethernet takes.
const maxDatagram = 1500

func newMux(socket *net.UDPConn) *mux {
	m := &mux{socket: socket, done: make(chan struct{}), ufrags: map[string]*muxConn{}, addrs: map[netip.AddrPort]*muxConn{}}
	go m.read()
	return m
}

// read hands datagrams to their sessions until the socket is closed.
func (m *mux) read() {
	defer close(m.done)
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := m.socket.ReadFromUDPAddrPort(buf)
		if err != nil {
			m.mu.Lock()
			closed := m.closed
			m.mu.Unlock()
			if closed {
				return
			}
			continue // an ICMP error of one peer is nobody else's business
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if c := m.route(buf[:n], from); c != nil {
			c.push(buf[:n], from)
		}
	}
}

// route finds the session of a datagram; nil: nobody's.
func (m *mux) route(b []byte, from netip.AddrPort) *muxConn {
	ufrag := ""
	if stun.IsMessage(b) {
		ufrag = localUfrag(b)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if ufrag == "" {
		return m.addrs[from]
	}
	c := m.ufrags[ufrag]
	if c == nil {
		return nil
	}
	if old := m.addrs[from]; old != c {
		if old != nil {
			delete(old.addrs, from)
		}
		m.addrs[from] = c
		c.addrs[from] = struct{}{}
	}
	return c
}

// localUfrag is our part of a binding request's USERNAME, "" when it has none.
func localUfrag(b []byte) string {
	msg := &stun.Message{Raw: b}
	if err := msg.Decode(); err != nil {
		return ""
	}
	name, err := msg.Get(stun.AttrUsername)
	if err != nil {
		return ""
	}
	ours, _, _ := strings.Cut(string(name), ":")
	return ours
}

// GetConn is called when a session gathers its candidates.
func (m *mux) GetConn(ufrag string, _ net.Addr) (net.PacketConn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	c := m.ufrags[ufrag]
	if c == nil {
		c = &muxConn{mux: m, ufrag: ufrag, addrs: map[netip.AddrPort]struct{}{}, queue: make(chan *datagram, queueDatagrams), closed: make(chan struct{})}
		c.deadline.init()
		m.ufrags[ufrag] = c
	}
	return c, nil
}

// RemoveConnByUfrag is called when a session ends or restarts ICE.
func (m *mux) RemoveConnByUfrag(ufrag string) {
	m.mu.Lock()
	c := m.ufrags[ufrag]
	m.mu.Unlock()
	if c != nil {
		_ = c.Close()
	}
}

// GetListenAddresses is what candidates are made of.
func (m *mux) GetListenAddresses() []net.Addr { return []net.Addr{m.socket.LocalAddr()} }

// Close ends all connections, and the socket.
func (m *mux) Close() error {
	m.mu.Lock()
	m.closed = true
	var all []*muxConn
	for _, c := range m.ufrags {
		all = append(all, c)
	}
	m.mu.Unlock()
	for _, c := range all {
		_ = c.Close()
	}
	err := m.socket.Close()
	<-m.done
	return err
}

// queueDatagrams is how many datagrams wait for one session; what comes then is lost, as on any path.
const queueDatagrams = 512

type datagram struct {
	b    [maxDatagram]byte
	n    int
	from netip.AddrPort
}

var datagrams = sync.Pool{New: func() any { return new(datagram) }}

// muxConn is one session's share of the socket (it is a net.PacketConn).
type muxConn struct {
	mux      *mux
	ufrag    string
	addrs    map[netip.AddrPort]struct{} // under mux.mu
	queue    chan *datagram
	deadline deadline
	once     sync.Once
	closed   chan struct{}
}

func (c *muxConn) push(b []byte, from netip.AddrPort) {
	d := datagrams.Get().(*datagram)
	d.n, d.from = copy(d.b[:], b), from
	select {
	case c.queue <- d:
	default:
		datagrams.Put(d)
	}
}

// ReadFrom implements net.PacketConn.
func (c *muxConn) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case d := <-c.queue:
		n := copy(p, d.b[:d.n])
		from := net.UDPAddrFromAddrPort(d.from)
		datagrams.Put(d)
		return n, from, nil
	case <-c.closed:
		return 0, nil, net.ErrClosed
	case <-c.deadline.passed():
		return 0, nil, os.ErrDeadlineExceeded
	}
}

// WriteTo implements net.PacketConn.
func (c *muxConn) WriteTo(p []byte, to net.Addr) (int, error) {
	addr, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, net.InvalidAddrError("not a UDP address")
	}
	return c.mux.socket.WriteToUDPAddrPort(p, addr.AddrPort())
}

// Close implements net.PacketConn.
func (c *muxConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.mux.mu.Lock()
		defer c.mux.mu.Unlock()
		delete(c.mux.ufrags, c.ufrag)
		for a := range c.addrs {
			if c.mux.addrs[a] == c {
				delete(c.mux.addrs, a)
			}
		}
	})
	return nil
}

// LocalAddr implements net.PacketConn.
func (c *muxConn) LocalAddr() net.Addr { return c.mux.socket.LocalAddr() }

// SetDeadline implements net.PacketConn; only reading can wait.
func (c *muxConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.PacketConn.
func (c *muxConn) SetReadDeadline(t time.Time) error { c.deadline.set(t); return nil }

// SetWriteDeadline implements net.PacketConn; writing never waits.
func (c *muxConn) SetWriteDeadline(time.Time) error { return nil }

// deadline is a read deadline that may be moved while somebody waits.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	done  chan struct{}
}

func (d *deadline) init() { d.done = make(chan struct{}) }

func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	select {
	case <-d.done:
		d.done = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	done := d.done
	d.timer = time.AfterFunc(time.Until(t), func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		select {
		case <-done:
		default:
			if d.done == done && d.timer != nil {
				close(done)
			}
		}
	})
}
