package media

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// MaxPayload is the largest RTP payload that an ingest may produce or accept, in bytes:
// what is left of a 1,500 byte path after IP, UDP, SRTP, header extensions and a margin for tunnels
// is 1,200 for what we packetise; senders that are not ours use up to this.
const MaxPayload = 1440

// MaxPackets is the largest number of packets in one burst. An ingest closes a
// burst that reaches it and opens the next: no frame is refused for its size.
const MaxPackets = 512

// Packet is one RTP packet without its header (RFC 3550 §5.1). Its payload
// belongs to its burst.
type Packet struct {
	Seq     uint16
	Marker  bool
	Payload []byte
	// Descriptor is the dependency descriptor (RTP payload format for AV1, appendix A), by which a receiver of a picture in layers knows what it can decode. nil: there is none.
	Descriptor []byte
}

// Burst is what arrived together: the packets of one frame of one track, or of a part
// of it. All packets share a timestamp. After it was written to a hub it is immutable and may be read by
// any goroutine that holds a reference.
type Burst struct {
	Track     int    // index into the stream's tracks
	Timestamp uint32 // RTP timestamp, in units of the track's clock
	Captured  int64  // wall clock of the timestamp, Unix nanoseconds, by the publisher's clock; 0 unknown
	Arrived   int64  // when it came to the node it was published to, Unix nanoseconds of this node's clock
	Key       bool   // begins a key frame: a decoder can start here
	Packets   []Packet

	refs atomic.Int32
	mem  []byte
}

// A burst's memory is of one of two sizes, and grows when more comes: one fits most frames, the other what goes in one packet. Streams keep
// seconds of bursts, so the difference counts.
const (
	burstMemory = 16 << 10
	smallMemory = 2 << 10
)

var (
	bursts      = sync.Pool{New: func() any { return &Burst{mem: make([]byte, 0, burstMemory), Packets: make([]Packet, 0, 16)} }}
	smallBursts = sync.Pool{New: func() any { return &Burst{mem: make([]byte, 0, smallMemory), Packets: make([]Packet, 0, 2)} }}
)

// NewBurst returns an empty burst with one reference, which its creator owns.
func NewBurst(track int, timestamp uint32) *Burst { return NewBurstOf(track, timestamp, burstMemory) }

// NewBurstOf is NewBurst for about as many bytes of payload.
func NewBurstOf(track int, timestamp uint32, bytes int) *Burst {
	pool := &bursts
	if bytes <= smallMemory {
		pool = &smallBursts
	}
	b := pool.Get().(*Burst)
	*b = Burst{Track: track, Timestamp: timestamp, Packets: b.Packets[:0], mem: b.mem[:0]}
	b.refs.Store(1)
	return b
}

// Append copies a packet into the burst. Only its creator may call it, and only
// before the burst was handed on. It reports false when the burst is full or
// the payload is too large; the packet then is not in it.
func (b *Burst) Append(seq uint16, marker bool, payload []byte) bool {
	if len(payload) > MaxPayload || len(b.Packets) >= MaxPackets {
		return false
	}
	if len(b.mem)+len(payload) > cap(b.mem) {
		b.grow(len(payload))
	}
	at := len(b.mem)
	b.mem = append(b.mem, payload...)
	b.Packets = append(b.Packets, Packet{Seq: seq, Marker: marker, Payload: b.mem[at:len(b.mem):len(b.mem)]})
	return true
}

// Describe gives the packet that was appended last a descriptor of up to 255 bytes, which is copied.
func (b *Burst) Describe(descriptor []byte) {
	if len(descriptor) == 0 || len(descriptor) > 255 || len(b.Packets) == 0 {
		return
	}
	if len(b.mem)+len(descriptor) > cap(b.mem) {
		b.grow(len(descriptor))
	}
	at := len(b.mem)
	b.mem = append(b.mem, descriptor...)
	b.Packets[len(b.Packets)-1].Descriptor = b.mem[at:len(b.mem):len(b.mem)]
}

// grow moves the payloads to a larger memory.
func (b *Burst) grow(n int) {
	mem := make([]byte, len(b.mem), max(2*cap(b.mem), len(b.mem)+n, burstMemory))
	copy(mem, b.mem)
	at := 0
	for i := range b.Packets {
		p := &b.Packets[i]
		end := at + len(p.Payload)
		p.Payload = mem[at:end:end]
		at = end
		if n := len(p.Descriptor); n > 0 {
			p.Descriptor = mem[at : at+n : at+n]
			at += n
		}
	}
	b.mem = mem
}

// Clone copies a burst; the copy belongs to the caller, who may change it.
func (b *Burst) Clone() *Burst {
	c := NewBurstOf(b.Track, b.Timestamp, b.Size())
	c.Captured, c.Arrived, c.Key = b.Captured, b.Arrived, b.Key
	for i := range b.Packets {
		c.Append(b.Packets[i].Seq, b.Packets[i].Marker, b.Packets[i].Payload)
		c.Describe(b.Packets[i].Descriptor)
	}
	return c
}

// Retain adds a reference and returns the burst.
func (b *Burst) Retain() *Burst {
	if b.refs.Add(1) <= 1 {
		panic("media: Retain of a burst that was released")
	}
	return b
}

// Release gives a reference back; with the last one, the memory is used again.
func (b *Burst) Release() {
	switch n := b.refs.Add(-1); {
	case n > 0:
	case n < 0:
		panic(fmt.Sprintf("media: burst released %d times too often", -n))
	case cap(b.mem) < burstMemory:
		smallBursts.Put(b)
	case cap(b.mem) <= 16*burstMemory:
		bursts.Put(b)
	}
}

// Size is the sum of the lengths of payloads and descriptors in bytes.
func (b *Burst) Size() int { return len(b.mem) }
