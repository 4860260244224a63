package codec

import "sluice/media"

// Numbers are the running numbers of pictures in the head of a payload, by which players tell what they miss: VP8's and VP9's picture id, TL0PICIDX and
// KEYIDX (RFC 7741 §4.2, RFC 9628 §4.2). They count modulo 2^15 (or 2^7, as their sender wants), 2^8 and 2^5.
type Numbers struct {
	Picture   uint16
	Base, Key uint8
}

// MaxHead is how many bytes of a payload its numbers are within.
const MaxHead = 6

// places are where the numbers of a payload are; 0: there is none.
type places struct {
	picture, base, key int
	wide               bool // the picture id has 15 bits
	end                int  // of the head
}

// find looks for the numbers of a payload.
func find(name string, p []byte) (at places, ok bool) {
	if len(p) < 2 {
		return at, false
	}
	i := 1
	switch name {
	case media.VP8:
		if p[0]&0x80 == 0 { // X: extensions
			return at, false
		}
		x := p[1]
		i = 2
		if x&0x80 != 0 { // I
			at.picture, i = i, i+1
			if at.wide = at.picture < len(p) && p[at.picture]&0x80 != 0; at.wide { // M
				i++
			}
		}
		if x&0x40 != 0 { // L
			at.base, i = i, i+1
		}
		if x&0x30 != 0 { // T or K
			if x&0x10 != 0 {
				at.key = i
			}
			i++
		}
	case media.VP9:
		if p[0]&0x80 != 0 { // I
			at.picture, i = i, i+1
			if at.wide = p[at.picture]&0x80 != 0; at.wide { // M
				i++
			}
		}
		if p[0]&0x30 == 0x20 { // L, and not F: the layers' indices, then TL0PICIDX
			at.base, i = i+1, i+2
		}
	default:
		return at, false
	}
	at.end = i
	return at, i <= len(p) && at.picture+at.base+at.key > 0
}

// ReadNumbers reads those of a payload. It reports false if there are none.
func ReadNumbers(name string, p []byte) (n Numbers, ok bool) {
	at, ok := find(name, p)
	if !ok {
		return n, false
	}
	if at.picture > 0 {
		if n.Picture = uint16(p[at.picture] & 0x7f); at.wide {
			n.Picture = n.Picture<<8 | uint16(p[at.picture+1])
		}
	}
	if at.base > 0 {
		n.Base = p[at.base]
	}
	if at.key > 0 {
		n.Key = p[at.key] & 0x1f
	}
	return n, true
}

// Renumber writes the head of a payload to dst, which has room for MaxHead bytes, with its numbers shifted, and returns how long it is: it stands for as many
// bytes of the payload. 0: there are no numbers.
func Renumber(dst []byte, name string, p []byte, shift Numbers) int {
	at, ok := find(name, p)
	if !ok {
		return 0
	}
	n := copy(dst, p[:at.end])
	if at.picture > 0 {
		if at.wide {
			id := (uint16(p[at.picture]&0x7f)<<8 | uint16(p[at.picture+1])) + shift.Picture
			dst[at.picture], dst[at.picture+1] = byte(id>>8)|0x80, byte(id)
		} else {
			dst[at.picture] = (p[at.picture] + byte(shift.Picture)) & 0x7f
		}
	}
	if at.base > 0 {
		dst[at.base] = p[at.base] + shift.Base
	}
	if at.key > 0 {
		dst[at.key] = p[at.key]&0xe0 | (p[at.key]+shift.Key)&0x1f
	}
	return n
}

// Until is the shift by which what begins with first follows last.
func (first Numbers) Until(last Numbers) Numbers {
	return Numbers{last.Picture + 1 - first.Picture, last.Base + 1 - first.Base, last.Key + 1 - first.Key}
}

// Plus is n, shifted.
func (n Numbers) Plus(shift Numbers) Numbers {
	return Numbers{n.Picture + shift.Picture, n.Base + shift.Base, n.Key + shift.Key}
}
