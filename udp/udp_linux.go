//go:build linux

package udp

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func reusePort(fd uintptr) error {
	return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}

// System calls that never wait are raw ones: the scheduler need not know of them, and its monitor is not woken by the
// first one after every pause.

// offload asks whether the kernel cuts messages, and lets it join what it receives.
func (s *Socket) offload() {
	_ = s.raw.Control(func(fd uintptr) { // it fails on a closed socket only
		_, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		s.gso.Store(err == nil)
		s.gro = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil
	})
}

// mmsghdr is struct mmsghdr of sendmmsg(2) and recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// Addr is an address as the kernel takes it. It belongs to the sockets of its family.
type Addr struct {
	raw [unix.SizeofSockaddrInet6]byte
	len uint32
}

// MakeAddr prepares an address for a socket.
func (s *Socket) MakeAddr(to netip.AddrPort) (a Addr) {
	if s.six {
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(&a.raw))
		sa.Family = unix.AF_INET6
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], to.Port())
		sa.Addr = to.Addr().As16()
		a.len = unix.SizeofSockaddrInet6
		return a
	}
	sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw))
	sa.Family = unix.AF_INET
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], to.Port())
	sa.Addr = to.Addr().Unmap().As4()
	a.len = unix.SizeofSockaddrInet4
	return a
}

// netip reads an address that the kernel wrote.
func (a *Addr) netip() netip.AddrPort {
	switch (*unix.RawSockaddr)(unsafe.Pointer(&a.raw)).Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:]))
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(&a.raw))
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:]))
	}
	return netip.AddrPort{}
}

// WriteTo sends one datagram at once.
func (s *Socket) WriteTo(b []byte, to netip.AddrPort) error {
	if len(b) == 0 {
		return nil
	}
	addr := s.MakeAddr(to)
	var errno syscall.Errno
	err := s.raw.Write(func(fd uintptr) bool {
		_, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&addr.raw)), uintptr(addr.len))
		return errno != unix.EAGAIN
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}

// batchMessages is how many messages go to one system call at most.
const batchMessages = 64

// segmentControl is the control message of UDP_SEGMENT.
type segmentControl struct {
	hdr  unix.Cmsghdr
	size uint16
	_    [6]byte
}

// Batch collects messages for one socket and sends them together. It belongs to one goroutine.
type Batch struct {
	socket   *Socket
	n        int
	headers  [batchMessages]mmsghdr
	vectors  [batchMessages]unix.Iovec
	addrs    [batchMessages]*Addr
	sizes    [batchMessages]int
	controls [batchMessages]segmentControl

	from, sent int // of one system call
	errno      syscall.Errno
	call       func(fd uintptr) bool
	bytes      int // of messages that wait
	Failed     int // messages that could not be sent, since the start
}

// NewBatch returns an empty batch.
func (s *Socket) NewBatch() *Batch {
	b := &Batch{socket: s}
	b.call = b.sendmmsg
	return b
}

// Full reports that the next Add must wait for Flush.
func (b *Batch) Full() bool { return b.n == batchMessages }

// Empty reports that there is nothing to flush.
func (b *Batch) Empty() bool { return b.n == 0 }

// Add puts a message into the batch: datagrams of size bytes behind each other, the last of which may be shorter. Neither the data nor
// the address may change until Flush has returned.
func (b *Batch) Add(to *Addr, data []byte, size int) {
	i := b.n
	b.n++
	b.addrs[i], b.sizes[i] = to, size
	b.bytes += len(data)
	b.vectors[i].Base = &data[0]
	b.vectors[i].SetLen(len(data))
	h := &b.headers[i].hdr
	h.Name, h.Namelen = &to.raw[0], to.len
	h.Iov = &b.vectors[i]
	h.SetIovlen(1)
	h.Control = nil
	h.SetControllen(0)
	if len(data) > size {
		c := &b.controls[i]
		c.hdr.Level, c.hdr.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
		c.hdr.SetLen(unix.CmsgLen(2))
		c.size = uint16(size)
		h.Control = (*byte)(unsafe.Pointer(c))
		h.SetControllen(unix.CmsgSpace(2))
	}
}

// Flush sends what was added. A message that a peer's path does not take is counted and left out: it is lost, as on any path.
func (b *Batch) Flush() error {
	defer func() { b.n = 0 }()
	b.socket.sent.Add(uint64(b.bytes))
	b.bytes = 0
	if b.socket.refused.Load() != 0 {
		b.socket.retry(time.Now())
	}
	for b.from = 0; b.from < b.n; {
		if !b.socket.gso.Load() && b.vectors[b.from].Len > uint64(b.sizes[b.from]) {
			b.cut(b.from)
			b.from++
			continue
		}
		if err := b.socket.raw.Write(b.call); err != nil {
			return err // the socket was closed
		}
		if b.errno == 0 {
			b.from += b.sent
			continue
		}
		if b.vectors[b.from].Len > uint64(b.sizes[b.from]) && (b.errno == unix.EIO || b.errno == unix.EINVAL || b.errno == unix.EMSGSIZE || b.errno == unix.EOPNOTSUPP) {
			if b.errno == unix.EIO || b.errno == unix.EOPNOTSUPP {
				b.socket.refuse() // the device can't compute checksums of cut messages
			}
			b.cut(b.from)
		} else {
			b.fail()
		}
		b.from++
	}
	return nil
}

// sendmmsg sends from b.from on; it reports false to wait for room in the socket's queue.
func (b *Batch) sendmmsg(fd uintptr) bool {
	end := b.n
	if !b.socket.gso.Load() { // up to the next message that must be cut by hand
		for end = b.from; end < b.n && b.vectors[end].Len <= uint64(b.sizes[end]); end++ {
		}
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.headers[b.from])), uintptr(end-b.from), unix.MSG_DONTWAIT, 0, 0)
	if errno == unix.EAGAIN {
		return false
	}
	b.sent, b.errno = int(n), errno
	if errno == 0 && b.sent == 0 {
		b.errno = unix.EIO
	}
	return true
}

// cut sends a message one datagram at a time.
func (b *Batch) cut(i int) {
	data := unsafe.Slice(b.vectors[i].Base, b.vectors[i].Len)
	to := b.addrs[i].netip()
	for len(data) > 0 {
		n := min(b.sizes[i], len(data))
		if err := b.socket.WriteTo(data[:n], to); err != nil {
			b.fail()
		}
		data = data[n:]
	}
}

// readMessages is how many messages are taken from the kernel at once. With GRO each may be 64 KiB.
const readMessages = 8

// Reader takes datagrams from a socket in batches. It belongs to one goroutine.
type Reader struct {
	socket   *Socket
	headers  [readMessages]mmsghdr
	vectors  [readMessages]unix.Iovec
	addrs    [readMessages]Addr
	controls [readMessages][32]byte
	buffers  [][]byte
	n        int
	errno    syscall.Errno
	call     func(fd uintptr) bool
}

// NewReader returns a reader with its buffers.
func (s *Socket) NewReader() *Reader {
	r := &Reader{socket: s}
	size := MaxDatagram
	if s.gro {
		size = 1 << 16
	}
	for range readMessages {
		r.buffers = append(r.buffers, make([]byte, size))
	}
	r.call = r.recvmmsg
	return r
}

// Read waits for datagrams and hands each to f; the bytes are valid until f returns, and f may change them.
func (r *Reader) Read(f func(b []byte, from netip.AddrPort)) error {
	for i := range r.headers {
		r.vectors[i].Base = &r.buffers[i][0]
		r.vectors[i].SetLen(len(r.buffers[i]))
		h := &r.headers[i].hdr
		h.Name, h.Namelen = &r.addrs[i].raw[0], uint32(len(r.addrs[i].raw))
		h.Iov = &r.vectors[i]
		h.SetIovlen(1)
		h.Control = &r.controls[i][0]
		h.SetControllen(len(r.controls[i]))
	}
	if err := r.socket.raw.Read(r.call); err != nil {
		return err
	}
	if r.errno != 0 {
		return nil // an ICMP error of one peer is nobody else's business
	}
	for i := range r.n {
		b := r.buffers[i][:r.headers[i].len]
		from := r.addrs[i].netip()
		size := segmentSize(r.controls[i][:r.headers[i].hdr.Controllen])
		if size <= 0 {
			size = len(b)
		}
		for len(b) > 0 {
			n := min(size, len(b))
			f(b[:n:n], from)
			b = b[n:]
		}
	}
	return nil
}

func (r *Reader) recvmmsg(fd uintptr) bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.headers[0])), readMessages, unix.MSG_DONTWAIT, 0, 0)
	if errno == unix.EAGAIN || errno == unix.EINTR {
		return false
	}
	r.n, r.errno = int(n), errno
	return true
}

// segmentSize finds the size of the datagrams that the kernel joined; 0: it joined none.
func segmentSize(control []byte) int {
	for len(control) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		n := int(h.Len)
		if n < unix.SizeofCmsghdr || n > len(control) {
			return 0
		}
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && n >= unix.CmsgLen(2) {
			return int(*(*uint16)(unsafe.Pointer(&control[unix.CmsgLen(0)])))
		}
		control = control[min(unix.CmsgSpace(n-unix.CmsgLen(0)), len(control)):]
	}
	return 0
}
