package congestion

import "encoding/binary"

// headSize is that of what stands before the chunks: base number, count, reference time, count of messages.
const headSize = 8

// each walks through a feedback message (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1): the packets' numbers in order, whether each came, and
// how much later than the one before, in microseconds.
func each(b []byte, see func(number uint16, came bool, delta int64)) {
	if len(b) < headSize {
		return
	}
	number, count := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
	chunks := b[headSize:]
	deltas := chunks
	for n := 0; n < count; { // they stand behind the last chunk
		if len(deltas) < 2 {
			return
		}
		size, _ := chunk(binary.BigEndian.Uint16(deltas))
		n += size
		deltas = deltas[2:]
	}
	for count > 0 {
		size, symbol := chunk(binary.BigEndian.Uint16(chunks))
		chunks = chunks[2:]
		for i := range min(size, count) {
			came, delta := true, int64(0)
			switch s := symbol.at(i); {
			case s == 1 && len(deltas) >= 1:
				delta, deltas = int64(deltas[0]), deltas[1:]
			case s == 2 && len(deltas) >= 2:
				delta, deltas = int64(int16(binary.BigEndian.Uint16(deltas))), deltas[2:]
			case s == 1 || s == 2:
				return // cut short
			default:
				came = false
			}
			see(number, came, delta*deltaUnit)
			number++
		}
		count -= size
	}
}

// deltaUnit and referenceUnit are those of the times, in microseconds.
const (
	deltaUnit     = 250
	referenceUnit = 64_000
)

// symbols are those of a chunk.
type symbols struct{ bits, kind uint16 }

const (
	run  = iota // all the same
	ones        // 14 of one bit
	twos        // 7 of two
)

// chunk says how many packets a chunk is about (§3.1.3, §3.1.4).
func chunk(b uint16) (int, symbols) {
	switch b >> 14 {
	case 2:
		return 14, symbols{b, ones}
	case 3:
		return 7, symbols{b, twos}
	}
	return int(b & 0x1fff), symbols{b >> 13 & 3, run}
}

// at is 0 for a packet that did not come, 1 or 2 for one that did, with so many bytes of time.
func (s symbols) at(i int) uint16 {
	switch s.kind {
	case ones:
		return s.bits >> (13 - i) & 1
	case twos:
		return s.bits >> (12 - 2*i) & 3
	}
	return s.bits
}

// clock is the peer's, in microseconds: its reference time has 24 bits.
type clock struct {
	begun     bool
	reference int64
	now       int64
}

func (c *clock) begin(b []byte) {
	if len(b) < headSize {
		return
	}
	r := int64(b[4])<<16 | int64(b[5])<<8 | int64(b[6])
	if !c.begun {
		c.begun, c.reference = true, r
	}
	c.reference += int64(int32(uint32(r-c.reference)<<8)) >> 8
	c.now = c.reference * referenceUnit
}

func (c *clock) add(delta int64) int64 {
	c.now += delta
	return c.now
}
