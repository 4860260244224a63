package codec

import (
	"testing"

	"sluice/media"
)

// The parameter sets and frame headers of one picture of 322x242, as encoders wrote them.
var (
	spsH264 = []byte{0x67, 0x64, 0x00, 0x0d, 0xac, 0xd9, 0x41, 0x50, 0x87, 0x88, 0x88, 0xc0, 0x44, 0x00, 0x00, 0x03, 0x00, 0x04, 0x00, 0x00, 0x03, 0x00, 0xf0, 0x3c, 0x50, 0xa6, 0x58}
	spsH265 = []byte{0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00, 0x3c, 0xa0, 0x0a, 0x48, 0x0f, 0x9c, 0x92, 0x65, 0x95, 0x9a, 0x49, 0x32, 0xbc, 0x05, 0xa0, 0x20, 0x00, 0x00, 0x03, 0x00, 0x20, 0x00, 0x00, 0x03, 0x03, 0xc1}
	keyVP8  = []byte{0x10, 0x74, 0x00, 0x9d, 0x01, 0x2a, 0x42, 0x01, 0xf2, 0x00, 0x00, 0x07}
	keyVP9  = []byte{0x82, 0x49, 0x83, 0x42, 0x00, 0x14, 0x10, 0x0f, 0x16, 0x04, 0x38, 0x24, 0x1c, 0x18}
	seqAV1  = []byte{0x08, 0x00, 0x00, 0x00, 0x04, 0x3d, 0x07, 0xc4, 0xda, 0xf9, 0x00, 0x40}
)

func join(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

var sizeCases = []struct {
	name, codec string
	payload     []byte
	known       bool
}{
	{"h264 sps alone", media.H264, spsH264, true},
	{"h264 sps and pps together", media.H264, join([]byte{0x78, 0, byte(len(spsH264))}, spsH264, []byte{0, 2, 0x68, 0xce}), true},
	{"h264 sps cut off", media.H264, spsH264[:8], false},
	{"h264 picture", media.H264, []byte{0x65, 0x88, 0x84}, false},
	{"h265 sps alone", media.H265, spsH265, true},
	{"h265 sps in an aggregation packet", media.H265, join([]byte{0x60, 0x01, 0, byte(len(spsH265))}, spsH265), true},
	{"h265 sps cut off", media.H265, spsH265[:9], false},
	{"vp8 key frame", media.VP8, join([]byte{0x10}, keyVP8), true},
	{"vp8 key frame with a picture id", media.VP8, join([]byte{0x90, 0x80, 0x81, 0x02}, keyVP8), true},
	{"vp8 key frame cut off", media.VP8, join([]byte{0x10}, keyVP8[:8]), false},
	{"vp9 key frame", media.VP9, join([]byte{0x08}, keyVP9), true},
	{"vp9 key frame with a picture id", media.VP9, join([]byte{0x88, 0x81, 0x02}, keyVP9), true},
	{"vp9 key frame cut off", media.VP9, join([]byte{0x08}, keyVP9[:3]), false},
	{"av1 sequence, one unit", media.AV1, join([]byte{0x18}, seqAV1), true},
	{"av1 sequence with lengths", media.AV1, join([]byte{0x08, byte(len(seqAV1))}, seqAV1, []byte{0x02, 0x32, 0x00}), true},
	{"av1 sequence of two units", media.AV1, join([]byte{0x28, byte(len(seqAV1))}, seqAV1, []byte{0x32, 0x00}), true},
	{"av1 sequence cut off", media.AV1, join([]byte{0x08, byte(len(seqAV1))}, seqAV1[:5]), false},
	{"sound", media.Opus, spsH264, false},
	{"empty", media.H264, nil, false},
}

func TestPictureSize(t *testing.T) {
	for _, c := range sizeCases {
		t.Run(c.name, func(t *testing.T) {
			w, h, ok := PictureSize(c.codec, c.payload)
			if ok != c.known || ok && (w != 322 || h != 242) {
				t.Errorf("PictureSize(%s, %x) = %d, %d, %v", c.codec, c.payload, w, h, ok)
			}
		})
	}
}
