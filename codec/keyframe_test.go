package codec

import (
	"bytes"
	"testing"

	"sluice/media"
)

var keyCases = []struct {
	name, codec string
	payload     []byte
	want        bool
}{
	{"h264 idr slice", media.H264, []byte{0x65, 0x88}, true},
	{"h264 sps", media.H264, []byte{0x67, 0x42}, true},
	{"h264 pps alone", media.H264, []byte{0x68, 0xce}, false},
	{"h264 inter slice", media.H264, []byte{0x41, 0x9a}, false},
	{"h264 stap-a of sps and pps", media.H264, []byte{0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce}, true},
	{"h264 stap-a of aud and idr", media.H264, []byte{0x78, 0, 2, 0x09, 0xf0, 0, 2, 0x65, 0x88}, true},
	{"h264 stap-a of sei", media.H264, []byte{0x78, 0, 2, 0x06, 0x05}, false},
	{"h264 stap-a cut off", media.H264, []byte{0x78, 0, 9, 0x06, 0x05}, false},
	{"h264 stap-a of size zero", media.H264, []byte{0x78, 0, 0, 0x06, 0x05}, false},
	{"h264 fu-a first of idr", media.H264, []byte{0x7c, 0x85}, true},
	{"h264 fu-a second of idr", media.H264, []byte{0x7c, 0x05}, false},
	{"h264 fu-a first of inter", media.H264, []byte{0x7c, 0x81}, false},
	{"h264 in lower case", "h264", []byte{0x65, 0x88}, true},
	{"h265 vps", media.H265, []byte{0x40, 0x01, 0x0c}, true},
	{"h265 idr", media.H265, []byte{0x26, 0x01, 0xaf}, true},
	{"h265 trail", media.H265, []byte{0x02, 0x01, 0xd0}, false},
	{"h265 ap with sps", media.H265, []byte{0x60, 0x01, 0, 2, 0x42, 0x01}, true},
	{"h265 fu first of cra", media.H265, []byte{0x62, 0x01, 0x80 | 21}, true},
	{"h265 fu second of cra", media.H265, []byte{0x62, 0x01, 21}, false},
	{"vp8 key", media.VP8, []byte{0x10, 0x50}, true},
	{"vp8 inter", media.VP8, []byte{0x10, 0x51}, false},
	{"vp8 second packet of key", media.VP8, []byte{0x00, 0x50}, false},
	{"vp8 key with 15 bit id, tl0, tid", media.VP8, []byte{0x90, 0xe0, 0x80, 0x01, 0x02, 0x03, 0x50}, true},
	{"vp8 descriptor cut off", media.VP8, []byte{0x90, 0x80}, false},
	{"vp9 key without layers", media.VP9, []byte{0x88, 0x01}, true},
	{"vp9 inter", media.VP9, []byte{0xc8, 0x01}, false},
	{"vp9 key, upper layer", media.VP9, []byte{0xa8, 0x01, 0x02}, false},
	{"vp9 key, layer 0, 15 bit id", media.VP9, []byte{0xa8, 0x81, 0x01, 0x00}, true},
	{"av1 new sequence", media.AV1, []byte{0x18, 0x0a}, true},
	{"av1 delta", media.AV1, []byte{0x10, 0x32}, false},
	{"audio", media.Opus, []byte{0x65, 0x88}, false},
	{"empty", media.H264, nil, false},
}

func TestStartsKeyFrame(t *testing.T) {
	for _, c := range keyCases {
		t.Run(c.name, func(t *testing.T) {
			if got := StartsKeyFrame(c.codec, c.payload); got != c.want {
				t.Errorf("StartsKeyFrame(%s, %x) = %v", c.codec, c.payload, got)
			}
		})
	}
}

func FuzzStartsKeyFrame(f *testing.F) {
	for _, c := range sizeCases {
		f.Add(c.codec, c.payload)
	}
	for _, c := range keyCases {
		f.Add(c.codec, c.payload)
	}
	f.Fuzz(func(t *testing.T, codec string, payload []byte) {
		before := bytes.Clone(payload)
		StartsKeyFrame(codec, payload)
		PictureSize(codec, payload)
		if !bytes.Equal(before, payload) {
			t.Fatal("the payload was modified")
		}
	})
}
