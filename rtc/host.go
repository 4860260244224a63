package rtc

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

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
	if o := a.host.addrs[a.from]; o != nil {
		return o.session
	}
	return nil
}

// heard notes that a session's peer is at an address of it.
func (a arrival) heard(s *session, now time.Time) {
	if a.conn != nil {
		return
	}
	a.host.mu.RLock()
	defer a.host.mu.RUnlock()
	if o := a.host.addrs[a.from]; o != nil && o.session == s {
		o.heard.Store(int64(s.endpoint.clock(now)))
	}
}

// host is one address of the media port, with a socket for each shard: the kernel keeps a peer on one of them. It may take
// TCP connections, too.
//
// A connectivity check names its session by our user name fragment (RFC 8445 §7.2.2). When it has the session's password
// too, its source address belongs to that session from then on. An address of another session is taken only when that has ended, or
// was not heard from there for a while: the check's source may be spoofed, but a client's port may also be used again before we know that the
// last one has gone.
type host struct {
	sockets  []*udp.Socket
	listener net.Listener  // nil: no TCP
	sent     atomic.Uint64 // bytes, over TCP
	work     sync.WaitGroup

	mu     sync.RWMutex
	ufrags map[string]*session
	addrs  map[netip.AddrPort]*owner
	conns  map[*tcpConn]struct{}
	closed bool
}

// owner is the session that an address belongs to.
type owner struct {
	session *session
	heard   atomic.Int64 // when the peer was heard from there, by Endpoint.clock
}

func newHost(sockets []*udp.Socket) *host {
	return &host{sockets: sockets, ufrags: map[string]*session{}, addrs: map[netip.AddrPort]*owner{}, conns: map[*tcpConn]struct{}{}}
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

// bind gives a session an address, unless another one has it that is there.
func (h *host) bind(from netip.AddrPort, s *session) bool {
	old, ok := h.take(from, s)
	if old != nil {
		old.endpoint.spawn(func() { old.unbind(arrival{host: h, from: from}) }) // not here: it takes the other's mu
	}
	return ok
}

// take returns the session, not ended yet, whose address it was.
func (h *host) take(from netip.AddrPort, s *session) (old *session, ok bool) {
	now := s.endpoint.clock(time.Now())
	h.mu.Lock()
	defer h.mu.Unlock()
	o := h.addrs[from]
	switch {
	case o == nil || o.session.ended.Load():
	case o.session == s:
		o.heard.Store(int64(now))
		return nil, true
	case now-time.Duration(o.heard.Load()) < rebound:
		return nil, false
	default:
		old = o.session
	}
	o = &owner{session: s}
	o.heard.Store(int64(now))
	h.addrs[from] = o
	return old, true
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
		if o := h.addrs[a]; o != nil && o.session == s {
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
