// Package impair is a bad network: a relay for UDP between clients and one target that loses, delays, reorders and
// doubles packets, each direction as it was told. Tests put it between a client and a node, break the path and mend it.
//
// Imports: nothing of ours.
package impair

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Direction of a packet.
type Direction int

// The two directions.
const (
	Up   Direction = iota // from a client to the target
	Down                  // from the target to a client
)

// Config of a relay. Zero lets everything through.
type Config struct {
	Up, Down Path
	Seed     uint64 // the same seed does the same to the first, second, … packet of a direction
	// Tap is shown every packet that comes, and what will happen to it; may be nil. Calls come one after the other, from
	// goroutines of the relay: it must be quick, must not keep the bytes, and must not call the relay.
	Tap func(d Direction, b []byte, f Fate)
}

// What a relay has room for. What comes above that is dropped.
const (
	maxClients = 256
	maxWaiting = 8192 // packets in each direction
)

// Relay is a path from clients to one target. Its methods may be called from any goroutine.
type Relay struct {
	target netip.AddrPort
	tap    func(Direction, []byte, Fate)
	front  *net.UDPConn // to the clients
	wake   chan struct{}
	pool   sync.Pool

	mu      sync.Mutex
	lines   [2]line // by direction
	waiting waiting
	clients map[netip.AddrPort]*client
	closed  bool
	readers sync.WaitGroup
}

// client has a socket of its own, so that the target can tell clients apart.
type client struct {
	addr netip.AddrPort
	conn *net.UDPConn // to the target; Rebind changes it
}

// Listen opens a relay to a target on a port of this machine that is free. Close it with Run.
func Listen(_ context.Context, target netip.AddrPort, cfg Config) (*Relay, error) {
	if err := errors.Join(cfg.Up.check(), cfg.Down.check()); err != nil {
		return nil, fmt.Errorf("relay to %s: %w", target, err)
	}
	here := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if target.Addr().Is6() && !target.Addr().Is4In6() {
		here = netip.IPv6Loopback()
	}
	front, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(here, 0)))
	if err != nil {
		return nil, fmt.Errorf("relay to %s: %w", target, err)
	}
	enlarge(front)
	r := &Relay{target: target, tap: cfg.Tap, front: front, wake: make(chan struct{}, 1), clients: map[netip.AddrPort]*client{}}
	r.lines[Up], r.lines[Down] = newLine(cfg.Up, cfg.Seed, uint64(Up)), newLine(cfg.Down, cfg.Seed, uint64(Down))
	r.pool.New = func() any { b := make([]byte, 0, 1500); return &b }
	return r, nil
}

// enlarge makes room for bursts, as far as the system lets us: the relay itself should lose nothing.
func enlarge(c *net.UDPConn) { _ = c.SetReadBuffer(4 << 20) }

// Addr is where clients send to.
func (r *Relay) Addr() netip.AddrPort { return r.front.LocalAddr().(*net.UDPAddr).AddrPort() }

// Stats of a direction.
func (r *Relay) Stats(d Direction) Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lines[d].stats
}

// Set changes a direction. What is under way already comes out as it was decided.
func (r *Relay) Set(d Direction, p Path) error {
	if err := p.check(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines[d].path = p
	return nil
}

// Rebind gives every client another port at the target, as a NAT does that has forgotten it. What the target sends to the
// old one is lost.
func (r *Relay) Rebind() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.clients {
		old := c.conn
		if err := r.dialLocked(c); err != nil {
			return err
		}
		_ = old.Close() // ends its reader
	}
	return nil
}

// Run carries packets until ctx ends; then nothing of the relay is left. It must be called once.
func (r *Relay) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, r.close)
	defer stop()
	var sender sync.WaitGroup
	sender.Go(func() { r.send(ctx) })
	err := r.receive()
	sender.Wait()
	r.readers.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (r *Relay) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	_ = r.front.Close()
	for _, c := range r.clients {
		_ = c.conn.Close()
	}
}

// receive takes packets of clients until the socket is closed.
func (r *Relay) receive() error {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := r.front.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			continue // a client has gone, and the system says so
		}
		r.take(Up, from, nil, buf[:n])
	}
}

// back takes packets that the target sends to a client, until the client's socket is closed.
func (r *Relay) back(to netip.AddrPort, conn *net.UDPConn) {
	buf := make([]byte, 1<<16)
	for {
		n, err := conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // nobody listens at the target: it may come back
		}
		r.take(Down, to, conn, buf[:n])
	}
}

// take decides what happens to a packet of or for a client; conn is the socket it came by from the target.
func (r *Relay) take(d Direction, who netip.AddrPort, conn *net.UDPConn, b []byte) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := r.clientLocked(who)
	if err != nil || conn != nil && conn != c.conn { // no room, or it came just before Rebind
		return
	}
	l := &r.lines[d]
	fate, at := l.decide(now, len(b))
	if !fate.Dropped && r.waiting.held[d] >= maxWaiting-1 {
		l.stats.Dropped++
		fate = Fate{Dropped: true}
	}
	if r.tap != nil {
		r.tap(d, b, fate)
	}
	if fate.Dropped {
		return
	}
	for range 1 + btoi(fate.Duplicated) {
		buf := r.pool.Get().(*[]byte)
		*buf = append((*buf)[:0], b...)
		r.waiting.push(packet{at: at, buf: buf, dir: d, out: c.conn, to: who})
	}
	select {
	case r.wake <- struct{}{}:
	default: // it will look anyway
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

var errFull = errors.New("the relay is full or closed")

// clientLocked finds a client, or makes room for it.
func (r *Relay) clientLocked(who netip.AddrPort) (*client, error) {
	if c := r.clients[who]; c != nil {
		return c, nil
	}
	if r.closed || len(r.clients) == maxClients {
		return nil, errFull
	}
	c := &client{addr: who}
	if err := r.dialLocked(c); err != nil {
		return nil, err
	}
	r.clients[who] = c
	return c, nil
}

// dialLocked opens a socket to the target for a client, and reads from it.
func (r *Relay) dialLocked(c *client) error {
	if r.closed {
		return errFull
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(r.target))
	if err != nil {
		return fmt.Errorf("relay to %s: %w", r.target, err)
	}
	enlarge(conn)
	c.conn = conn
	r.readers.Go(func() { r.back(c.addr, conn) })
	return nil
}

// send lets packets out when their time has come, until ctx ends.
func (r *Relay) send(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-timer.C:
		}
		for {
			now := time.Now()
			r.mu.Lock()
			p, ok := r.waiting.pop(now)
			wait, more := r.waiting.next(now)
			r.mu.Unlock()
			if !ok {
				if more {
					timer.Reset(wait)
				}
				break
			}
			if p.dir == Up {
				_, _ = p.out.Write(*p.buf) // closed or refused: lost, as on any path
			} else {
				_, _ = r.front.WriteToUDPAddrPort(*p.buf, p.to)
			}
			r.pool.Put(p.buf)
		}
	}
}
