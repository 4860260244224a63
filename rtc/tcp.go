package rtc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/media"
	"sluice/udp"
)

// Limits of TCP connections.
const (
	tcpFrame       = udp.MaxDatagram  // bytes of a packet; a peer that sends larger ones is not one of ours
	tcpQueue       = 512 << 10        // bytes that wait for a peer at most, those that are being written included
	tcpKeep        = 64 << 10         // bytes of a buffer that is used again
	tcpBuffer      = 64 << 10         // bytes of each of the kernel's queues. What waits there is too late to be dropped
	tcpLate        = time.Second      // a peer that takes what was queued no faster is slow
	tcpHello       = 5 * time.Second  // within which a right check must come
	tcpSilence     = 30 * time.Second // a session's connection that nothing comes by: the peer has found a better path
	tcpLinger      = time.Second      // for the goodbye, when a session has ended
	tcpWaiting     = 300              // bursts of the past, and since, that wait for a new viewer
	tcpAskEvery    = 3 * time.Second  // a slow viewer asks for a key frame, which all others get too
	maxStrangers   = 512              // connections of whom no right check has come, to the endpoint
	maxStrangersOf = 32               // and of one address, or network of 64 bits in IPv6
)

// listenTCP opens the same port for TCP (RFC 6544): the way for those whose network lets no UDP through.
func (h *host) listenTCP(ctx context.Context, at netip.AddrPort) error {
	network := "tcp4"
	if at.Addr().Is6() {
		network = "tcp6"
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, network, at.String())
	if err != nil {
		return err
	}
	h.listener = l
	return nil
}

// acceptTCP takes connections until the listener is closed.
func (h *host) acceptTCP(e *Endpoint) {
	for {
		c, err := h.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // no more file descriptors, and the like
			time.Sleep(50 * time.Millisecond)
			continue
		}
		h.takeTCP(e, c)
	}
}

// takeTCP starts a connection, if there may be another.
func (h *host) takeTCP(e *Endpoint, c net.Conn) {
	from := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	t := &tcpConn{host: h, endpoint: e, conn: c, from: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || !e.strangers.enter(t.from.Addr()) {
		_ = c.Close()
		return
	}
	if k, ok := c.(*net.TCPConn); ok {
		_ = k.SetReadBuffer(tcpBuffer)
		_ = k.SetWriteBuffer(tcpBuffer)
	}
	_ = c.SetDeadline(time.Now().Add(tcpHello))
	h.conns[t] = struct{}{}
	h.work.Go(t.read)
}

// strangers counts connections that have not shown a session's password.
type strangers struct {
	mu  sync.Mutex
	all int
	of  map[netip.Prefix]int
}

func network(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.WithZone("").Prefix(bits) // never fails
	return p
}

func (s *strangers) enter(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := network(a)
	if s.all >= maxStrangers || s.of[n] >= maxStrangersOf {
		return false
	}
	if s.of == nil {
		s.of = map[netip.Prefix]int{}
	}
	s.all++
	s.of[n]++
	return true
}

func (s *strangers) leave(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := network(a)
	s.all--
	if s.of[n]--; s.of[n] == 0 {
		delete(s.of, n)
	}
}

// tcpConn is a TCP connection of a peer. It is a path as a UDP address is: a right check makes it a session's. One goroutine
// reads it; another writes, while there is something to write. What does not fit into the queue is lost, as on any path.
type tcpConn struct {
	host     *host
	endpoint *Endpoint
	conn     net.Conn
	from     netip.AddrPort
	session  atomic.Pointer[session] // nil: a stranger, or one that lingers
	heard    atomic.Int64            // when something came, by Endpoint.clock

	mu     sync.Mutex
	known  bool // a right check has come
	closed bool
	queue  []byte // framed
	spare  []byte
	flying int       // bytes that are being written
	since  time.Time // and since when
	writer sync.WaitGroup
	writes bool // the writer runs
}

// arrival is where the connection's packets come in.
func (c *tcpConn) arrival() arrival { return arrival{host: c.host, from: c.from, conn: c} }

// read hands packets to the connection's session until it ends.
func (c *tcpConn) read() {
	defer c.end()
	f := framed{from: c.conn}
	a := c.arrival()
	for {
		err := f.next(func(b []byte) {
			c.endpoint.receiving.Add(1)
			c.receive(a, b)
			c.endpoint.receiving.Add(-1)
		})
		if err != nil {
			return
		}
		c.endpoint.settle()
	}
}

func (c *tcpConn) receive(a arrival, b []byte) {
	c.heard.Store(int64(c.endpoint.clock(time.Now())))
	if b[0] <= 3 {
		if s := c.host.named(b); s != nil {
			s.check(a, b)
		}
	} else if s := c.session.Load(); s != nil {
		s.packet(a, b)
	}
}

// bind makes the connection a session's, which holds its mu.
func (c *tcpConn) bind(s *session) {
	c.mu.Lock()
	old := c.session.Swap(s)
	if !c.known {
		c.known = true
		c.endpoint.strangers.leave(c.from.Addr())
	}
	_ = c.conn.SetDeadline(time.Time{})
	c.mu.Unlock()
	if old != nil && old != s {
		old.endpoint.spawn(func() { old.unbind(c.arrival()) }) // not here: it takes the other's mu
	}
}

// release ends the connection, when a session is done with it and no other has it.
func (c *tcpConn) release(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session.CompareAndSwap(s, nil) {
		_ = c.conn.SetDeadline(time.Now().Add(tcpLinger))
	}
}

// stop ends the reader.
func (c *tcpConn) stop() { _ = c.conn.SetReadDeadline(time.Now()) }

// end is the end of the reader, after which the connection is closed.
func (c *tcpConn) end() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	_ = c.conn.SetWriteDeadline(time.Now().Add(tcpLinger))
	c.writer.Wait()
	_ = c.conn.Close()
	c.mu.Lock()
	if !c.known {
		c.endpoint.strangers.leave(c.from.Addr())
	}
	s := c.session.Swap(nil)
	c.mu.Unlock()
	c.host.mu.Lock()
	delete(c.host.conns, c)
	c.host.mu.Unlock()
	if s != nil {
		s.lost(c.arrival())
	}
}

// lost says that a path has ended: another that is checked takes its place.
func (s *session) lost(a arrival) {
	s.unbind(a)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == a {
		s.atHeard = time.Time{}
	}
}

// dropSilentLocked closes connections of the session that it does not use; its mu is held.
func (s *session) dropSilentLocked(now time.Time) {
	s.addrs = slices.DeleteFunc(s.addrs, func(a address) bool {
		silent := a.conn != nil && s.endpoint.clock(now)-time.Duration(a.conn.heard.Load()) > tcpSilence
		if silent {
			a.release(s)
		}
		return silent
	})
}

// send queues a message, cut into packets of size bytes, the last of which may be shorter. It never blocks.
func (c *tcpConn) send(b []byte, size int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.queue)+c.flying+len(b)+2*(len(b)/size+1) > tcpQueue {
		return false
	}
	for len(b) > 0 {
		n := min(size, len(b))
		c.queue = append(append(c.queue, byte(n>>8), byte(n)), b[:n]...) // RFC 4571 §2
		b = b[n:]
	}
	if !c.writes {
		c.writes = true
		c.writer.Go(c.write)
	}
	return true
}

// write empties the queue.
func (c *tcpConn) write() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) > 0 {
		b := c.queue
		c.queue, c.spare, c.flying, c.since = c.spare[:0], nil, len(b), time.Now()
		c.mu.Unlock()
		_, err := c.conn.Write(b)
		c.host.sent.Add(uint64(len(b)))
		if err != nil {
			_ = c.conn.Close() // the reader ends, too
		}
		c.mu.Lock()
		c.flying = 0
		if cap(b) <= tcpKeep {
			c.spare = b
		}
		if err != nil {
			c.closed, c.queue, c.spare = true, nil, nil
		}
	}
	if cap(c.queue) > tcpKeep {
		c.queue = nil
	}
	c.writes = false
}

// room reports whether so many bytes may be queued for a peer that is not slow.
func (c *tcpConn) room(n int, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed && len(c.queue)+c.flying+n <= tcpQueue && (c.flying == 0 || now.Sub(c.since) < tcpLate)
}

// idle reports whether nothing waits.
func (c *tcpConn) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue)+c.flying == 0
}

// framed reads packets with their length before them (RFC 4571 §2).
type framed struct {
	from io.Reader
	head [2]byte
}

// next gives a packet that is not empty to f, which must not keep it. It has no buffer while it waits for one.
func (r *framed) next(f func(b []byte)) error {
	if _, err := io.ReadFull(r.from, r.head[:]); err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint16(r.head[:]))
	if n > tcpFrame {
		return fmt.Errorf("a packet of %d bytes; %d are allowed", n, tcpFrame)
	}
	d := datagrams.Get().(*datagram)
	defer datagrams.Put(d)
	if _, err := io.ReadFull(r.from, d.b[:n]); err != nil {
		return err
	}
	if n > 0 {
		f(d.b[:n])
	}
	return nil
}

// tcpOut is a viewer's way over TCP, in the shard's loop. For a viewer that is too slow video is left out up to the next key frame, so that
// it neither takes memory nor falls behind.
type tcpOut struct {
	conn  *tcpConn
	cut   []bool // by track: video is left out
	asked time.Time
}

func newTCPOut(c *tcpConn, tracks int) *tcpOut {
	if c == nil {
		return nil
	}
	return &tcpOut{conn: c, cut: make([]bool, tracks)}
}

// admits decides whether a burst of a track goes to the viewer.
func (o *tcpOut) admits(sh *shard, v *Sender, b *media.Burst, track int) bool {
	size := 0
	for i := range b.Packets {
		size += len(b.Packets[i].Payload) + headerSize + v.seal.overhead + 2
	}
	room := o.conn.room(size, sh.now)
	if v.group.tracks[track].Kind != media.Video {
		return room
	}
	if o.cut[track] && !b.Key {
		if sh.now.Sub(o.asked) > tcpAskEvery && o.conn.room(tcpQueue/2, sh.now) {
			o.asked = sh.now
			v.onKeyRequest(b.Track)
		}
		return false
	}
	o.cut[track] = !room
	return room
}

// later decides whether what waits for a new viewer must wait longer; if too much does it is given up.
func (o *tcpOut) later(sh *shard, v *Sender) bool {
	if o.conn.room(largest, sh.now) {
		return false
	}
	if len(v.waiting) > tcpWaiting {
		releaseItems(v.waiting)
		v.waiting = nil
		for i := range o.cut {
			o.cut[i] = true
		}
	}
	return true
}
