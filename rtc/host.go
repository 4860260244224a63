package rtc

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"

	"sluice/udp"
)

// party is who gets the datagrams of an address.
type party interface {
	// check has a connectivity check that names the party's user name fragment; bind makes
	// the address the party's.
	check(a arrival, b []byte, bind func())
	// packet has any other datagram from an address of the party.
	packet(a arrival, b []byte)
	// unbind says that an address belongs to somebody else from now on.
	unbind(h *host, from netip.AddrPort)
}

// arrival says where a datagram came in.
type arrival struct {
	host  *host
	shard int
	from  netip.AddrPort
}

// host is one address of the media port, with a socket for each shard: the kernel keeps a peer on one of them. It is
// an ice.UDPMux for the sessions of publishers.
//
// A connectivity check names its session by our user name fragment (RFC 8445 §7.2.2). When it has the session's password
// too, its source address belongs to that session from then on, also when it belonged to another before: a client's port may be used again before
// we know that the last one has gone.
type host struct {
	sockets []*udp.Socket
	work    sync.WaitGroup

	mu     sync.RWMutex
	ufrags map[string]party
	addrs  map[netip.AddrPort]party
	closed bool
}

func newHost(sockets []*udp.Socket) *host {
	return &host{sockets: sockets, ufrags: map[string]party{}, addrs: map[netip.AddrPort]party{}}
}

// start reads the sockets until they are closed.
func (h *host) start() {
	for i, s := range h.sockets {
		h.work.Go(func() {
			r := s.NewReader()
			for {
				err := r.Read(func(b []byte, from netip.AddrPort) { h.receive(arrival{h, i, from}, b) })
				if errors.Is(err, net.ErrClosed) {
					return
				}
			}
		})
	}
}

// receive hands a datagram to its party (RFC 7983 §7: the first byte tells STUN from the others).
func (h *host) receive(a arrival, b []byte) {
	if len(b) == 0 {
		return
	}
	if b[0] > 3 {
		h.mu.RLock()
		p := h.addrs[a.from]
		h.mu.RUnlock()
		if p != nil {
			p.packet(a, b)
		}
		return
	}
	ufrag := localUfrag(b)
	h.mu.RLock()
	p := h.ufrags[ufrag]
	if ufrag == "" {
		p = h.addrs[a.from]
	}
	h.mu.RUnlock()
	switch {
	case p == nil:
	case ufrag == "":
		p.packet(a, b)
	default:
		p.check(a, b, func() { h.bind(a.from, p) })
	}
}

func (h *host) bind(from netip.AddrPort, p party) {
	h.mu.Lock()
	old := h.addrs[from]
	h.addrs[from] = p
	h.mu.Unlock()
	if old != nil && old != p {
		old.unbind(h, from)
	}
}

// add makes a party reachable by its user name fragment.
func (h *host) add(ufrag string, p party) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.ufrags[ufrag] != nil {
		return false
	}
	h.ufrags[ufrag] = p
	return true
}

// remove forgets a party, a fragment and addresses of it.
func (h *host) remove(ufrag string, p party, addrs ...netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ufrags[ufrag] == p {
		delete(h.ufrags, ufrag)
	}
	for _, a := range addrs {
		if h.addrs[a] == p {
			delete(h.addrs, a)
		}
	}
}

// maxAddrs is from how many addresses a session's checks may come; the oldest is forgotten for another.
const maxAddrs = 16

// guest is a publisher's session of Pion.
type guest struct {
	*pipe
	mu    sync.Mutex
	ours  credentials // no password: the peer has no description of ours yet
	addrs []netip.AddrPort
}

// check lets a check through that has our password; Pion reads it again.
func (g *guest) check(a arrival, b []byte, bind func()) {
	g.mu.Lock()
	ours := g.ours
	g.mu.Unlock()
	if ours.pwd == "" {
		return
	}
	if _, err := readCheck(b, ours); err != nil {
		return
	}
	g.mu.Lock()
	known := slices.Contains(g.addrs, a.from)
	var old netip.AddrPort
	if !known {
		if len(g.addrs) == maxAddrs {
			old, g.addrs = g.addrs[0], g.addrs[1:]
		}
		g.addrs = append(g.addrs, a.from)
	}
	g.mu.Unlock()
	if !known {
		bind()
	}
	if old.IsValid() {
		a.host.remove("", g, old)
	}
	g.push(b, a.from)
}

// admit gives a guest its password, once the peer is about to learn it.
func (h *host) admit(ours credentials) {
	h.mu.RLock()
	g, ok := h.ufrags[ours.ufrag].(*guest)
	h.mu.RUnlock()
	if ok {
		g.mu.Lock()
		g.ours = ours
		g.mu.Unlock()
	}
}

func (g *guest) packet(a arrival, b []byte) { g.push(b, a.from) }

func (g *guest) unbind(_ *host, from netip.AddrPort) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, have := range g.addrs {
		if have == from {
			g.addrs = append(g.addrs[:i], g.addrs[i+1:]...)
			return
		}
	}
}

// GetConn implements ice.UDPMux: it is called when a publisher's session gathers its candidates.
func (h *host) GetConn(ufrag string, _ net.Addr) (net.PacketConn, error) {
	h.mu.RLock()
	have := h.ufrags[ufrag]
	h.mu.RUnlock()
	if g, ok := have.(*guest); ok {
		return g, nil
	}
	g := &guest{}
	g.pipe = newPipe(h.sockets[0].LocalAddr(), queueDatagrams, h.sockets[0].WriteTo, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		h.remove(ufrag, g, g.addrs...)
	})
	if !h.add(ufrag, g) {
		return nil, ErrClosed
	}
	return g, nil
}

// RemoveConnByUfrag implements ice.UDPMux: it is called when a session ends or restarts ICE.
func (h *host) RemoveConnByUfrag(ufrag string) {
	h.mu.RLock()
	g, ok := h.ufrags[ufrag].(*guest)
	h.mu.RUnlock()
	if ok {
		_ = g.Close()
	}
}

// GetListenAddresses implements ice.UDPMux: it is what candidates are made of.
func (h *host) GetListenAddresses() []net.Addr {
	return []net.Addr{net.UDPAddrFromAddrPort(h.sockets[0].LocalAddr())}
}

// Close implements ice.UDPMux: it ends all guests, and closes the sockets.
func (h *host) Close() error {
	h.mu.Lock()
	h.closed = true
	var guests []*guest
	for _, p := range h.ufrags {
		if g, ok := p.(*guest); ok {
			guests = append(guests, g)
		}
	}
	h.mu.Unlock()
	for _, g := range guests {
		_ = g.Close()
	}
	var err error
	for _, s := range h.sockets {
		err = errors.Join(err, s.Close())
	}
	h.work.Wait()
	return err
}
