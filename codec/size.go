package codec

import (
	"strings"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/av1"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h265"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/vp9"

	"sluice/media"
)

// PictureSize reads the width and height in pixels from an RTP payload that has them: the first packet of
// a key frame, or the one with the parameter sets. ok is false for all others, and for malformed ones.
func PictureSize(name string, payload []byte) (width, height int, ok bool) {
	switch strings.ToUpper(name) {
	case media.H264:
		eachUnit(payload, 1, func(b byte) bool { return b&0x1f == h264STAPA }, func(unit []byte) {
			var s h264.SPS
			if unit[0]&0x1f == h264SPS && s.Unmarshal(unit) == nil {
				width, height, ok = s.Width(), s.Height(), true
			}
		})
	case media.H265:
		eachUnit(payload, 2, func(b byte) bool { return b>>1&0x3f == h265AP }, func(unit []byte) {
			var s h265.SPS
			if unit[0]>>1&0x3f == h265SPS && s.Unmarshal(unit) == nil {
				width, height, ok = s.Width(), s.Height(), true
			}
		})
	case media.VP8:
		return vp8Size(payload)
	case media.VP9:
		return vp9Size(payload)
	case media.AV1:
		return av1Size(payload)
	}
	return width, height, ok && width > 0 && height > 0
}

// eachUnit calls f for the units of an aggregation packet (RFC 6184 §5.7.1, RFC 7798 §4.4.2), or for the one unit that the payload is.
func eachUnit(p []byte, header int, aggregates func(byte) bool, f func(unit []byte)) {
	if len(p) <= header {
		return
	}
	if !aggregates(p[0]) {
		f(p)
		return
	}
	for p = p[header:]; len(p) > 2; {
		n := int(p[0])<<8 | int(p[1])
		if n == 0 || 2+n > len(p) {
			return
		}
		f(p[2 : 2+n])
		p = p[2+n:]
	}
}

// vp8Size reads the frame header of RFC 6386 §9.1, behind the descriptor of RFC 7741 §4.2.
func vp8Size(p []byte) (int, int, bool) {
	if !vp8Key(p) {
		return 0, 0, false
	}
	f := p[vp8Descriptor(p):]
	if len(f) < 10 || f[3] != 0x9d || f[4] != 0x01 || f[5] != 0x2a {
		return 0, 0, false
	}
	w, h := int(f[7]&0x3f)<<8|int(f[6]), int(f[9]&0x3f)<<8|int(f[8])
	return w, h, w > 0 && h > 0
}

func vp9Size(p []byte) (int, int, bool) {
	if !vp9Key(p) {
		return 0, 0, false
	}
	if sizes := LayerSizes(media.VP9, p); len(sizes) > 0 { // the highest layer is the picture
		top := sizes[len(sizes)-1]
		return top[0], top[1], top[0] > 0 && top[1] > 0
	}
	if p[0]&0x20 != 0 { // with layers the first one is not the picture
		return 0, 0, false
	}
	i := 1
	if p[0]&0x80 != 0 { // I: picture id
		if p[i]&0x80 != 0 {
			i++
		}
		i++
	}
	var h vp9.Header
	if i >= len(p) || p[0]&0x02 != 0 || h.Unmarshal(p[i:]) != nil || h.NonKeyFrame { // V: a scalability structure comes first
		return 0, 0, false
	}
	return h.Width(), h.Height(), h.Width() > 0 && h.Height() > 0
}

// av1Size reads the sequence header, which is the first unit of a new coded video sequence (AV1 RTP §4.3, §4.4).
func av1Size(p []byte) (int, int, bool) {
	if !av1Key(p) {
		return 0, 0, false
	}
	unit := p[1:]
	if p[0]&0x30 != 0x10 { // W is not 1: a length comes first, as LEB128
		n, i := 0, 0
		for ; i < len(unit) && i < 4; i++ {
			n |= int(unit[i]&0x7f) << (7 * i)
			if unit[i]&0x80 == 0 {
				i++
				break
			}
		}
		if n == 0 || i+n > len(unit) {
			return 0, 0, false
		}
		unit = unit[i : i+n]
	}
	var h av1.SequenceHeader
	if h.Unmarshal(unit) != nil {
		return 0, 0, false
	}
	return h.Width(), h.Height(), h.Width() > 0 && h.Height() > 0
}
