package rtc

import (
	"errors"
	"net"
	"net/netip"
	"sync"

	"sluice/udp"
)

// arrival says where a datagram came in.
type arrival struct {
	host  *host
	shard int
	from  netip.AddrPort
}

// socket is where it came in, and from where it is answered.
func (a arrival) socket() *udp.Socket { return a.host.sockets[a.shard] }

// host is one address of the media port, with a socket for each shard: the kernel keeps a peer on one of them.
//
// A connectivity check names its session by our user name fragment (RFC 8445 §7.2.2). When it has the session's password
// too, its source address belongs to that session from then on, also when it belonged to another before: a client's port may be used again before
// we know that the last one has gone.
type host struct {
	sockets []*udp.Socket
	work    sync.WaitGroup

	mu     sync.RWMutex
	ufrags map[string]*session
	addrs  map[netip.AddrPort]*session
	closed bool
}

func newHost(sockets []*udp.Socket) *host {
	return &host{sockets: sockets, ufrags: map[string]*session{}, addrs: map[netip.AddrPort]*session{}}
}

// start reads the sockets until they are closed.
func (h *host) start(e *Endpoint) {
	for i, s := range h.sockets {
		h.work.Go(func() {
			r := s.NewReader()
			for {
				err := r.Read(func(b []byte, from netip.AddrPort) {
					e.receiving.Add(1)
					h.receive(arrival{h, i, from}, b)
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
	if b[0] > 3 {
		h.mu.RLock()
		s := h.addrs[a.from]
		h.mu.RUnlock()
		if s != nil {
			s.packet(a, b)
		}
		return
	}
	ufrag := localUfrag(b)
	h.mu.RLock()
	s := h.ufrags[ufrag]
	h.mu.RUnlock()
	if s != nil {
		s.check(a, b, func() { h.bind(a.from, s) })
	}
}

func (h *host) bind(from netip.AddrPort, s *session) {
	h.mu.Lock()
	old := h.addrs[from]
	h.addrs[from] = s
	h.mu.Unlock()
	if old != nil && old != s {
		old.unbind(h, from)
	}
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
	h.mu.Unlock()
	var err error
	for _, s := range h.sockets {
		err = errors.Join(err, s.Close())
	}
	h.work.Wait()
	return err
}
