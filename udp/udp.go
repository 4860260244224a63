// Package udp sends and receives datagrams in batches: many messages to a system call, and
// many datagrams of one size to a message where the kernel can cut them (UDP_SEGMENT, UDP_GRO).
// Elsewhere, and to peers that a cut message does not reach, the same calls send one datagram at a time.
//
// Imports: nothing of ours.
package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// Limits of one message.
const (
	MaxSegments = 64    // datagrams in one message (the kernel's UDP_MAX_SEGMENTS of older versions)
	MaxMessage  = 65000 // bytes in one message; a UDP length has 16 bits
	MaxDatagram = 1500  // bytes of a datagram that is received without GRO
)

// Config of a Socket.
type Config struct {
	Shared  bool // others bind the same address: the kernel spreads peers over them (SO_REUSEPORT)
	NoGSO   bool // do without UDP_SEGMENT and UDP_GRO although the kernel has them
	Buffers int  // bytes of the kernel's queues, which may grant less; 0: leave them
}

// Socket is a bound UDP socket. One goroutine may read while others write; each has a Batch of its own.
type Socket struct {
	conn  *net.UDPConn
	raw   syscall.RawConn
	local netip.AddrPort
	six   bool // the socket is of IPv6
	gso   atomic.Bool
	gro   bool

	began   time.Time
	refused atomic.Int64 // when the device refused a cut message, since began; 0: it has not, or was tried again
	failed  atomic.Uint64
	sent    atomic.Uint64
}

// retryGSO is how long a socket does without the kernel's help after a device has refused it: another peer's may take it, or the route has changed.
const retryGSO = time.Minute

// refuse notes that a device can't cut messages.
func (s *Socket) refuse() {
	s.refused.Store(int64(max(time.Since(s.began), 1)))
	s.gso.Store(false)
}

// retry takes up GSO again after a while.
func (s *Socket) retry(now time.Time) {
	at := s.refused.Load()
	if at != 0 && now.Sub(s.began)-time.Duration(at) > retryGSO && s.refused.CompareAndSwap(at, 0) {
		s.gso.Store(true)
	}
}

func (b *Batch) fail() {
	b.Failed++
	b.socket.failed.Add(1)
}

// Sent is the number of bytes of datagrams handed to the system, without headers.
func (s *Socket) Sent() uint64 { return s.sent.Load() }

// Failed is the number of messages of batches that could not be sent.
func (s *Socket) Failed() uint64 { return s.failed.Load() }

// Listen binds a socket to an IP address and port; port 0 takes a free one.
func Listen(ctx context.Context, address netip.AddrPort, cfg Config) (*Socket, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		if !cfg.Shared {
			return nil
		}
		var failed error
		err := c.Control(func(fd uintptr) { failed = reusePort(fd) })
		return errors.Join(err, failed)
	}}
	network := "udp4"
	if address.Addr().Is6() {
		network = "udp6"
	}
	pc, err := lc.ListenPacket(ctx, network, address.String())
	if err != nil {
		return nil, err
	}
	s := &Socket{conn: pc.(*net.UDPConn), six: network == "udp6", began: time.Now()}
	s.local = s.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	s.local = netip.AddrPortFrom(s.local.Addr().Unmap(), s.local.Port())
	if cfg.Buffers > 0 {
		_ = s.conn.SetReadBuffer(cfg.Buffers)
		_ = s.conn.SetWriteBuffer(cfg.Buffers)
	}
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("reach the socket %s: %w", s.local, err), s.conn.Close())
	}
	if !cfg.NoGSO {
		s.offload()
	}
	return s, nil
}

// LocalAddr is the address the socket is bound to.
func (s *Socket) LocalAddr() netip.AddrPort { return s.local }

// Segments reports whether the kernel cuts messages for this socket. It is false for a minute after a device has refused.
func (s *Socket) Segments() bool { return s.gso.Load() }

// Close ends a Read that waits.
func (s *Socket) Close() error { return s.conn.Close() }
