package rtc

import (
	"errors"
	"net"
	"net/netip"
	"sync"

	"sluice/udp"
)

// arrival says where a packet came in.
type arrival struct {
	host  *host
	shard int // of the socket
	from  netip.AddrPort
	conn  *tcpConn // nil: it came as a datagram
}

// send answers. What can't be sent is lost, as on any path.
func (a arrival) send(b []byte) {
	if a.conn != nil {
		a.conn.send(b, len(b))
		return
	}
	_ = a.host.sockets[a.shard].WriteTo(b, a.from)
}

// bind says that what comes from there is the session's; false: it is another's.
func (a arrival) bind(s *session) bool {
	if a.conn != nil {
		a.conn.bind(s)
		return true
	}
	return a.host.bind(a.from, s)
}

// release says that the session has nothing to do with it any more.
func (a arrival) release(s *session) {
	if a.conn != nil {
		a.conn.release(s)
		return
	}
	a.host.remove("", s, a.from)
}

// owner is the session to which what comes from there goes; nil: none.
func (a arrival) owner() *session {
	if a.conn != nil {
		return a.conn.session.Load()
	}
	a.host.mu.RLock()
	defer a.host.mu.RUnlock()
	return a.host.addrs[a.from]
}

// host is one address of the media port, with a socket for each shard: the kernel keeps a peer on one of them. It may take
// TCP connections, too.
//
// A connectivity check names its session by our user name fragment (RFC 8445 §7.2.2). When it has the session's password
// too, its source address belongs to that session from then on, also when it belonged to another before: a client's port may be used again before
// we know that the last one has gone.
type host struct {
	sockets  []*udp.Socket
	listener net.Listener // nil: no TCP
	work     sync.WaitGroup

	mu     sync.RWMutex
	ufrags map[string]*session
	addrs  map[netip.AddrPort]*session
	conns  map[*tcpConn]struct{}
	closed bool
}

func newHost(sockets []*udp.Socket) *host {
	return &host{sockets: sockets, ufrags: map[string]*session{}, addrs: map[netip.AddrPort]*session{}, conns: map[*tcpConn]struct{}{}}
}

// start reads the sockets until they are closed.
func (h *host) start(e *Endpoint) {
	if h.listener != nil {
		h.work.Go(func() { h.acceptTCP(e) })
	}
	for i, s := range h.sockets {
		h.work.Go(func() {
			r := s.NewReader()
			for {
				err := r.Read(func(b []byte, from netip.AddrPort) {
					e.receiving.Add(1)
					h.receive(arrival{host: h, shard: i, from: from}, b)
					e.receiving.Add(-1)
				})
				if errors.Is(err, net.ErrClosed) {
					return
				}
				e.settle()
			}
		})
	}
}

// receive hands a datagram to its session (RFC 7983 §7: the first byte tells STUN from the others).
func (h *host) receive(a arrival, b []byte) {
	if len(b) == 0 {
		return
	}
	if b[0] <= 3 && !isAnswer(b) {
		if s := h.named(b); s != nil {
			s.check(a, b)
		}
		return
	}
	s := a.owner()
	switch {
	case s == nil:
	case b[0] <= 3:
		s.answer(a, b)
	default:
		s.packet(a, b)
	}
}

// named is the session that a connectivity check is for.
func (h *host) named(b []byte) *session {
	ufrag := localUfrag(b)
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.ufrags[ufrag]
}

func (h *host) bind(from netip.AddrPort, s *session) bool {
	h.mu.Lock()
	old := h.addrs[from]
	h.addrs[from] = s
	h.mu.Unlock()
	if old != nil && old != s {
		old.endpoint.spawn(func() { old.unbind(arrival{host: h, from: from}) }) // not here: it takes the other's mu
	}
	return true
}

// add makes a session reachable by its user name fragment.
func (h *host) add(ufrag string, s *session) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.ufrags[ufrag] != nil {
		return false
	}
	h.ufrags[ufrag] = s
	return true
}

// remove forgets a session, a fragment and addresses of it.
func (h *host) remove(ufrag string, s *session, addrs ...netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ufrags[ufrag] == s {
		delete(h.ufrags, ufrag)
	}
	for _, a := range addrs {
		if h.addrs[a] == s {
			delete(h.addrs, a)
		}
	}
}

// Close closes the sockets, and waits for those who read them.
func (h *host) Close() error {
	h.mu.Lock()
	h.closed = true
	for c := range h.conns {
		c.stop()
	}
	h.mu.Unlock()
	var err error
	if h.listener != nil {
		err = h.listener.Close()
	}
	for _, s := range h.sockets {
		err = errors.Join(err, s.Close())
	}
	h.work.Wait()
	return err
}
