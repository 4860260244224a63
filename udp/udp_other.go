//go:build !linux

package udp

import "net/netip"

func reusePort(uintptr) error { return nil } // one socket then gets all

func (s *Socket) offload() {}

// Addr is an address as the socket takes it.
type Addr struct{ to netip.AddrPort }

// MakeAddr prepares an address for a socket.
func (s *Socket) MakeAddr(to netip.AddrPort) Addr { return Addr{to} }

// WriteTo sends one datagram at once.
func (s *Socket) WriteTo(b []byte, to netip.AddrPort) error {
	s.sent.Add(uint64(len(b)))
	_, err := s.conn.WriteToUDPAddrPort(b, to)
	return err
}

// Batch sends messages one datagram at a time. It belongs to one goroutine.
type Batch struct {
	socket *Socket
	Failed int // datagrams that could not be sent, since the start
}

// NewBatch returns an empty batch.
func (s *Socket) NewBatch() *Batch { return &Batch{socket: s} }

// Full reports that the next Add must wait for Flush: never.
func (b *Batch) Full() bool { return false }

// Empty reports that there is nothing to flush: always.
func (b *Batch) Empty() bool { return true }

// Add sends datagrams of size bytes that stand behind each other, the last of which may be shorter.
func (b *Batch) Add(to *Addr, data []byte, size int) {
	for len(data) > 0 {
		n := min(size, len(data))
		if err := b.socket.WriteTo(data[:n], to.to); err != nil {
			b.fail()
		}
		data = data[n:]
	}
}

// Flush has nothing to do here.
func (b *Batch) Flush() error { return nil }

// Reader takes datagrams from a socket. It belongs to one goroutine.
type Reader struct {
	socket *Socket
	buffer [MaxDatagram]byte
}

// NewReader returns a reader with its buffer.
func (s *Socket) NewReader() *Reader { return &Reader{socket: s} }

// Read waits for a datagram and hands it to f; the bytes are valid until f returns, and f may change them.
func (r *Reader) Read(f func(b []byte, from netip.AddrPort)) error {
	n, from, err := r.socket.conn.ReadFromUDPAddrPort(r.buffer[:])
	if err != nil {
		return err
	}
	f(r.buffer[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
	return nil
}
