// Package codec reads just enough of a codec's RTP payload to steer it: where a
// key frame begins. It never decodes a picture and never modifies its input.
//
// Imports: media.
package codec

import (
	"strings"

	"sluice/media"
)

// StartsKeyFrame reports whether an RTP payload is the beginning of a key frame, that is of
// a picture from which a decoder can start. For H.264 and H.265 parameter sets count as the beginning.
// Audio, unknown codecs and malformed payloads are false.
func StartsKeyFrame(name string, payload []byte) bool {
	switch strings.ToUpper(name) {
	case media.H264:
		return h264Key(payload)
	case media.H265:
		return h265Key(payload)
	case media.VP8:
		return vp8Key(payload)
	case media.VP9:
		return vp9Key(payload)
	case media.AV1:
		return av1Key(payload)
	}
	return false
}

// H.264 NAL unit and packet types, RFC 6184 §5.2.
const (
	h264IDR   = 5
	h264SPS   = 7
	h264STAPA = 24
	h264FUA   = 28
)

func h264Key(p []byte) bool {
	if len(p) < 2 {
		return false
	}
	switch t := p[0] & 0x1f; t {
	case h264IDR, h264SPS:
		return true
	case h264STAPA: // RFC 6184 §5.7.1: 16 bits of size before each unit
		for p = p[1:]; len(p) > 2; {
			n := int(p[0])<<8 | int(p[1])
			if t := p[2] & 0x1f; t == h264IDR || t == h264SPS {
				return true
			}
			if 2+n > len(p) || n == 0 {
				return false
			}
			p = p[2+n:]
		}
	case h264FUA: // RFC 6184 §5.8: S bit, then the type
		return p[1]&0x80 != 0 && p[1]&0x1f == h264IDR
	}
	return false
}

// H.265 NAL unit and packet types, RFC 7798 §1.1.4 and §4.4.
const (
	h265IRAPFirst = 16
	h265IRAPLast  = 21
	h265VPS       = 32
	h265SPS       = 33
	h265AP        = 48
	h265FU        = 49
)

func h265Key(p []byte) bool {
	starts := func(t byte) bool {
		return t >= h265IRAPFirst && t <= h265IRAPLast || t == h265VPS || t == h265SPS
	}
	if len(p) < 3 {
		return false
	}
	switch t := p[0] >> 1 & 0x3f; t {
	case h265AP: // RFC 7798 §4.4.2
		for p = p[2:]; len(p) > 2; {
			n := int(p[0])<<8 | int(p[1])
			if starts(p[2] >> 1 & 0x3f) {
				return true
			}
			if 2+n > len(p) || n == 0 {
				return false
			}
			p = p[2+n:]
		}
		return false
	case h265FU: // RFC 7798 §4.4.3
		return p[2]&0x80 != 0 && starts(p[2]&0x3f)
	default:
		return starts(t)
	}
}

// vp8Key reads the payload descriptor of RFC 7741 §4.2 and the first byte of the frame (§4.3).
func vp8Key(p []byte) bool {
	if len(p) < 2 || p[0]&0x10 == 0 || p[0]&0x07 != 0 { // S set, partition 0
		return false
	}
	i := vp8Descriptor(p)
	return i < len(p) && p[i]&0x01 == 0 // P: inverse key frame flag
}

// vp8Descriptor is the length of the payload descriptor; it may be more than the payload has.
func vp8Descriptor(p []byte) int {
	if p[0]&0x80 == 0 { // X: extensions
		return 1
	}
	x, i := p[1], 2
	if x&0x80 != 0 { // I: picture id of 7 or 15 bits
		if i < len(p) && p[i]&0x80 != 0 {
			i++
		}
		i++
	}
	if x&0x40 != 0 { // L: TL0PICIDX
		i++
	}
	if x&0x30 != 0 { // T or K
		i++
	}
	return i
}

// vp9Key reads the payload descriptor of RFC 9628 §4.2.
func vp9Key(p []byte) bool {
	if len(p) < 2 || p[0]&0x40 != 0 || p[0]&0x08 == 0 { // P: inter-picture predicted; B: start of a frame
		return false
	}
	if p[0]&0x20 == 0 { // L: no layers
		return true
	}
	i := 1
	if p[0]&0x80 != 0 { // I: picture id
		if p[i]&0x80 != 0 {
			i++
		}
		i++
	}
	return i < len(p) && p[i]>>1&0x07 == 0 // SID: lowest spatial layer
}

// av1Key reads the N bit of the aggregation header (RTP payload format for AV1, §4.4): a
// new coded video sequence begins here.
func av1Key(p []byte) bool {
	return len(p) > 1 && p[0]&0x08 != 0
}
