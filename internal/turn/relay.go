package turn

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// user is whoever has certain credentials.
type user struct {
	name        string
	allocations int // under the server's mu

	mu   sync.Mutex
	left float64 // bytes that may go at once
	at   time.Time
}

// enter takes an allocation of a user.
func (s *Server) enter(name string) (*user, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[name]
	if s.all >= maxAll || u != nil && u.allocations >= maxOfUser {
		s.stats.Refused++
		return nil, errFull
	}
	if u == nil {
		u = &user{name: name, left: userRate, at: time.Now()}
		s.users[name] = u
	}
	u.allocations++
	s.all++
	s.stats.Made++
	return u, nil
}

func (s *Server) leave(u *user) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if u.allocations--; u.allocations == 0 {
		delete(s.users, u.name)
	}
}

// take reports whether so many bytes may go now: a second's worth may go at once.
func (u *user) take(n int, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.left = min(u.left+now.Sub(u.at).Seconds()*userRate, userRate)
	u.at = now
	if u.left < float64(n) {
		return false
	}
	u.left -= float64(n)
	return true
}

// relay is the socket of an allocation. It reaches the media port and nothing else; the client sees the addresses of it that it was told.
type relay struct {
	*net.UDPConn
	server *Server
	user   *user
	told   map[netip.AddrPort]netip.AddrPort // by the address bound
	bound  map[netip.AddrPort]netip.AddrPort // by the address told
	once   sync.Once
}

var errNotMedia = errors.New("not an address of the media port")

// WriteTo implements net.PacketConn.
func (r *relay) WriteTo(b []byte, to net.Addr) (int, error) {
	u, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, errNotMedia
	}
	a := u.AddrPort()
	at, ok := r.bound[netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())]
	if !ok {
		return 0, errNotMedia
	}
	if !r.user.take(len(b), time.Now()) {
		return len(b), nil // lost, as on any path
	}
	return r.UDPConn.WriteToUDPAddrPort(b, at)
}

// ReadFrom implements net.PacketConn.
func (r *relay) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := r.UDPConn.ReadFromUDPAddrPort(b)
		if err != nil {
			return 0, nil, err
		}
		told, ok := r.told[netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())]
		if ok && r.user.take(n, time.Now()) {
			return n, net.UDPAddrFromAddrPort(told), nil
		}
	}
}

// Close implements net.PacketConn.
func (r *relay) Close() error {
	err := net.ErrClosed
	r.once.Do(func() {
		err = r.UDPConn.Close()
		r.server.leave(r.user)
		r.server.work.Done()
	})
	return err
}

// listener takes a bounded number of connections, closes those that are silent, and all when it is closed itself.
type listener struct {
	net.Listener
	work *sync.WaitGroup

	mu     sync.Mutex
	conns  map[*conn]struct{}
	of     map[netip.Addr]int
	closed bool
}

func newListener(l net.Listener, work *sync.WaitGroup) *listener {
	return &listener{Listener: l, work: work, conns: map[*conn]struct{}{}, of: map[netip.Addr]int{}}
}

// Accept implements net.Listener. It returns an error only when the listener is closed: Pion would give up.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if err != nil { // no more file descriptors, and the like
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if k := l.take(c); k != nil {
			_ = c.(*net.TCPConn).SetWriteBuffer(connBuffer)
			return k, nil
		}
		_ = c.Close()
	}
}

func (l *listener) take(c net.Conn) *conn {
	from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.conns) >= maxConns || l.of[from] >= maxConnsOf {
		return nil
	}
	k := &conn{Conn: c, listener: l, from: from}
	l.conns[k] = struct{}{}
	l.of[from]++
	l.work.Add(1)
	return k
}

// Close implements net.Listener.
func (l *listener) Close() error {
	err := l.Listener.Close()
	l.mu.Lock()
	l.closed = true
	var all []*conn
	for c := range l.conns {
		all = append(all, c)
	}
	l.mu.Unlock()
	for _, c := range all {
		_ = c.Close()
	}
	return err
}

// conn is a client's connection.
type conn struct {
	net.Conn
	listener *listener
	from     netip.Addr
	once     sync.Once
}

// Read implements net.Conn. Who is silent for long is closed: clients check their path every few seconds.
func (c *conn) Read(b []byte) (int, error) {
	_ = c.Conn.SetReadDeadline(time.Now().Add(connSilence))
	return c.Conn.Read(b)
}

// Write implements net.Conn. What comes while it waits for a slow client overflows the allocation's socket: it is lost, as on any path.
func (c *conn) Write(b []byte) (int, error) {
	_ = c.Conn.SetWriteDeadline(time.Now().Add(connStuck))
	n, err := c.Conn.Write(b)
	if err != nil {
		_ = c.Close() // a part of a message may have gone
	}
	return n, err
}

// Close implements net.Conn.
func (c *conn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		err = c.Conn.Close()
		l := c.listener
		l.mu.Lock()
		delete(l.conns, c)
		if l.of[c.from]--; l.of[c.from] == 0 {
			delete(l.of, c.from)
		}
		l.mu.Unlock()
		l.work.Done()
	})
	return err
}
