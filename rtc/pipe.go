package rtc

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"sluice/udp"
)

type datagram struct {
	b    [udp.MaxDatagram]byte
	n    int
	from netip.AddrPort
}

var datagrams = sync.Pool{New: func() any { return new(datagram) }}

// pipe is one session's share of the sockets, for DTLS, which wants a net.PacketConn.
type pipe struct {
	local net.Addr
	write func(b []byte, to netip.AddrPort) error
	turns *turns // taken with each datagram, given back before the wait for the next; nil: nobody counts

	queue    chan *datagram
	deadline deadline
	once     sync.Once
	closed   chan struct{}
}

// newPipe makes a pipe in which so many datagrams wait; what comes then is lost, as on any path.
func newPipe(local netip.AddrPort, queue int, write func([]byte, netip.AddrPort) error) *pipe {
	p := &pipe{local: net.UDPAddrFromAddrPort(local), write: write, queue: make(chan *datagram, queue), closed: make(chan struct{})}
	p.deadline.init()
	return p
}

// push takes a copy of a datagram. It never blocks.
func (p *pipe) push(b []byte, from netip.AddrPort) {
	if len(b) > udp.MaxDatagram {
		return
	}
	d := datagrams.Get().(*datagram)
	d.n, d.from = copy(d.b[:], b), from
	select {
	case p.queue <- d:
	default:
		datagrams.Put(d)
	}
}

// ReadFrom implements net.PacketConn.
func (p *pipe) ReadFrom(b []byte) (int, net.Addr, error) {
	p.turns.give()
	select {
	case d := <-p.queue:
		p.turns.take(p.closed)
		n := copy(b, d.b[:d.n])
		from := net.UDPAddrFromAddrPort(d.from)
		datagrams.Put(d)
		return n, from, nil
	case <-p.closed:
		return 0, nil, net.ErrClosed
	case <-p.deadline.passed():
		return 0, nil, os.ErrDeadlineExceeded
	}
}

// WriteTo implements net.PacketConn.
func (p *pipe) WriteTo(b []byte, to net.Addr) (int, error) {
	addr, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, net.InvalidAddrError("not a UDP address")
	}
	return len(b), p.write(b, addr.AddrPort())
}

// Close implements net.PacketConn.
func (p *pipe) Close() error {
	p.once.Do(func() {
		close(p.closed)
		p.turns.give() // after that: who takes one now sees that it is closed
	})
	return nil
}

// LocalAddr implements net.PacketConn.
func (p *pipe) LocalAddr() net.Addr { return p.local }

// SetDeadline implements net.PacketConn; only reading can wait.
func (p *pipe) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

// SetReadDeadline implements net.PacketConn.
func (p *pipe) SetReadDeadline(t time.Time) error { p.deadline.set(t); return nil }

// SetWriteDeadline implements net.PacketConn; writing never waits.
func (p *pipe) SetWriteDeadline(time.Time) error { return nil }

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
