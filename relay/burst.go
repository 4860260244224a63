package relay

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"sluice/media"
)

// Header is the first frame of a media stream. The others are bursts.
type Header struct {
	Subscription uint64 // QUIC stream number of the control stream
	Generation   uint64 // of the tracks
	Track        int
	GOP          uint64 // counts the media streams of this track and generation, from 0
	Gap          bool   // something between the one before and this one was left out
}

const flagGap, flagKey, flagDescribed = 1, 1, 2

// AppendHeader appends the frame with its length.
func AppendHeader(dst []byte, h Header) []byte {
	return framed(dst, func(dst []byte) []byte {
		var flags byte
		if h.Gap {
			flags |= flagGap
		}
		dst = binary.AppendUvarint(append(dst, flags), h.Subscription)
		dst = binary.AppendUvarint(dst, h.Generation)
		dst = binary.AppendUvarint(dst, uint64(h.Track))
		return binary.AppendUvarint(dst, h.GOP)
	})
}

// ParseHeader reads what Reader.Next returned.
func ParseHeader(b []byte) (Header, error) {
	c := cursor{b: b}
	h := Header{Gap: c.u8()&flagGap != 0}
	h.Subscription = c.uvarint(math.MaxUint64)
	h.Generation = c.uvarint(math.MaxUint64)
	h.Track = int(c.uvarint(MaxTracks - 1))
	h.GOP = c.uvarint(math.MaxUint64 - 1)
	if c.bad {
		return Header{}, fmt.Errorf("%w: media header of %d bytes", ErrMalformed, len(b))
	}
	return h, nil
}

// maxAge bounds the age that a burst may claim.
const maxAge = time.Hour

// AppendBurst appends the frame with its length. age is the time since the burst arrived
// at the node that the stream was published to, without the time on the wire. Descriptors are for peers since version 4.
func AppendBurst(dst []byte, b *media.Burst, age time.Duration, version uint64) []byte {
	return framed(dst, func(dst []byte) []byte {
		var flags byte
		if b.Key {
			flags |= flagKey
		}
		described := version >= 4 && slices.ContainsFunc(b.Packets, func(p media.Packet) bool { return len(p.Descriptor) > 0 })
		if described {
			flags |= flagDescribed
		}
		dst = binary.BigEndian.AppendUint32(append(dst, flags), b.Timestamp)
		dst = binary.BigEndian.AppendUint64(dst, uint64(b.Captured))
		dst = binary.AppendUvarint(dst, uint64(min(max(age, 0), maxAge).Microseconds()))
		dst = binary.AppendUvarint(dst, uint64(len(b.Packets)))
		for i := range b.Packets {
			p := &b.Packets[i]
			n := uint64(len(p.Payload)) << 1
			if p.Marker {
				n |= 1
			}
			dst = binary.BigEndian.AppendUint16(dst, p.Seq)
			dst = binary.AppendUvarint(dst, n)
			dst = append(dst, p.Payload...)
			if described {
				dst = append(dst, byte(len(p.Descriptor)))
				dst = append(dst, p.Descriptor...)
			}
		}
		return dst
	})
}

// ParseBurst reads what Reader.Next returned. The burst shares no memory with it, and belongs to the caller.
func ParseBurst(track int, frame []byte) (*media.Burst, time.Duration, error) {
	c := cursor{b: frame}
	flags := c.u8()
	b := media.NewBurstOf(track, c.u32(), len(frame))
	b.Key = flags&flagKey != 0
	b.Captured = int64(c.u64())
	age := time.Duration(c.uvarint(uint64(maxAge.Microseconds()))) * time.Microsecond
	n := c.uvarint(media.MaxPackets)
	for range n {
		seq := c.u16()
		size := c.uvarint(media.MaxPayload<<1 | 1)
		payload := c.bytes(size >> 1)
		var descriptor []byte
		if flags&flagDescribed != 0 {
			descriptor = c.bytes(uint64(c.u8()))
		}
		if c.bad {
			break
		}
		b.Append(seq, size&1 != 0, payload)
		b.Describe(descriptor)
	}
	if c.bad || n == 0 || len(c.b) > 0 {
		b.Release()
		return nil, 0, fmt.Errorf("%w: burst of %d bytes", ErrMalformed, len(frame))
	}
	return b, age, nil
}
