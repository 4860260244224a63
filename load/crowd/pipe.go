package crowd

import (
	"net"
	"os"
	"sync"
	"time"
)

// pipe is a session's socket as DTLS wants it, as long as the handshake takes.
type pipe struct {
	send  func([]byte)
	local net.Addr
	queue chan []byte

	once   sync.Once
	closed chan struct{}

	mu    sync.Mutex
	muted bool
	until time.Time
	moved chan struct{} // closed when until has changed
}

func newPipe(send func([]byte)) *pipe {
	return &pipe{send: send, local: &net.UDPAddr{}, queue: make(chan []byte, 32), closed: make(chan struct{}), moved: make(chan struct{})}
}

// push takes a copy; what there is no room for is lost, as on any path.
func (p *pipe) push(b []byte) {
	select {
	case p.queue <- append([]byte(nil), b...):
	default:
	}
}

// ReadFrom implements net.PacketConn.
func (p *pipe) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		p.mu.Lock()
		until, moved := p.until, p.moved
		p.mu.Unlock()
		var late <-chan time.Time
		if !until.IsZero() {
			timer := time.NewTimer(time.Until(until))
			defer timer.Stop()
			late = timer.C
		}
		select {
		case d := <-p.queue:
			return copy(b, d), p.local, nil
		case <-p.closed:
			return 0, nil, net.ErrClosed
		case <-late:
			return 0, nil, os.ErrDeadlineExceeded
		case <-moved:
		}
	}
}

// WriteTo implements net.PacketConn.
func (p *pipe) WriteTo(b []byte, _ net.Addr) (int, error) {
	p.mu.Lock()
	muted := p.muted
	p.mu.Unlock()
	if !muted {
		p.send(b)
	}
	return len(b), nil
}

// mute lets nothing more be sent: DTLS would say goodbye while the session goes on.
func (p *pipe) mute() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.muted = true
}

// Close implements net.PacketConn.
func (p *pipe) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// LocalAddr implements net.PacketConn.
func (p *pipe) LocalAddr() net.Addr { return p.local }

// SetDeadline implements net.PacketConn.
func (p *pipe) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

// SetReadDeadline implements net.PacketConn.
func (p *pipe) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = t
	close(p.moved)
	p.moved = make(chan struct{})
	return nil
}

// SetWriteDeadline implements net.PacketConn; writing never waits.
func (p *pipe) SetWriteDeadline(time.Time) error { return nil }
