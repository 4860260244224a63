package ladder

import (
	"encoding/binary"

	"sluice/media"
)

// wholesale is the size of packets of H.264 that FFmpeg makes: a frame in each, as a rule. To be woken for each packet that goes to viewers would cost more than
// to cut them here.
const wholesale = 60_000

// Types of RTP payloads (RFC 6184 §5.4).
const (
	aggregated = 24 // STAP-A: several NAL units, each after its length
	fragmented = 28 // FU-A: a part of one
)

// parts cuts a large packet into those for viewers. They are valid until emit returns.
func parts(codec string, p []byte, emit func(part []byte, last bool)) {
	switch {
	case codec != media.H264 || len(p) <= payload || len(p) < 3:
		emit(p, true)
	case p[0]&0x1f == aggregated:
		disaggregate(p, emit)
	case p[0]&0x1f == fragmented:
		fragment(p[0]&0xe0, p[1], p[2:], true, emit)
	default: // a NAL unit, whose header the fragments have in theirs
		fragment(p[0]&0xe0, p[0]&0x1f|0xc0, p[1:], true, emit)
	}
}

// disaggregate cuts several NAL units: the small ones, parameter sets as a rule, stay together.
func disaggregate(p []byte, emit func(part []byte, last bool)) {
	small := make([]byte, 1, payload)
	small[0] = p[0]
	flush := func(last bool) {
		switch {
		case len(small) == 1:
			return
		case len(small) == 3+int(binary.BigEndian.Uint16(small[1:])): // one, which travels as it is
			emit(small[3:], last)
		default:
			emit(small, last)
		}
		small = small[:1]
	}
	for rest := p[1:]; len(rest) > 2; {
		n := int(binary.BigEndian.Uint16(rest))
		if n == 0 || n > len(rest)-2 {
			break // not what FFmpeg makes
		}
		unit := rest[2 : 2+n]
		last := len(rest)-2-n <= 2
		if len(small)+2+n > payload {
			flush(false)
		}
		if 3+n > payload {
			fragment(unit[0]&0xe0, unit[0]&0x1f|0xc0, unit[1:], last, emit)
		} else {
			small = append(small, rest[:2+n]...)
			if last {
				flush(true)
			}
		}
		rest = rest[2+n:]
	}
}

// fragment cuts the data of a NAL unit, or of a part of one: head says its type, and whether it is the first (0x80) and the last (0x40) of it.
func fragment(nri, head byte, data []byte, last bool, emit func(part []byte, last bool)) {
	var buf [payload]byte
	buf[0] = nri | fragmented
	for first := true; first || len(data) > 0; first = false {
		n := copy(buf[2:], data)
		data = data[n:]
		buf[1] = head
		if !first {
			buf[1] &^= 0x80
		}
		if len(data) > 0 {
			buf[1] &^= 0x40
		}
		emit(buf[:2+n], last && len(data) == 0)
	}
}
