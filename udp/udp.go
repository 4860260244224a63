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
}

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
	s := &Socket{conn: pc.(*net.UDPConn), six: network == "udp6"}
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

// Segments reports whether the kernel cuts messages for this socket. It may change to false when the device refuses.
func (s *Socket) Segments() bool { return s.gso.Load() }

// Close ends a Read that waits.
func (s *Socket) Close() error { return s.conn.Close() }
