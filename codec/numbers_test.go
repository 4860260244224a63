package codec

import (
	"bytes"
	"testing"

	"sluice/media"
)

type numberCase struct {
	name, codec string
	in          []byte
	want        Numbers
	ok          bool
	shift       Numbers
	out         []byte
}

func numberCases() []numberCase {
	shift := Numbers{Picture: 2, Base: 3, Key: 4}
	return []numberCase{
		{"VP8 without extensions", media.VP8, []byte{0x10, 0, 1, 2}, Numbers{}, false, shift, nil},
		{"VP8, 7 bits", media.VP8, []byte{0x90, 0x80, 0x7f, 0xaa}, Numbers{Picture: 127}, true, shift, []byte{0x90, 0x80, 0x01}},
		{"VP8, 15 bits", media.VP8, []byte{0x90, 0x80, 0xff, 0xff, 0xaa}, Numbers{Picture: 32767}, true, shift, []byte{0x90, 0x80, 0x80, 0x01}},
		{"VP8, all", media.VP8, []byte{0x90, 0xf0, 0x81, 0x02, 0xfe, 0x7f, 0xaa}, Numbers{0x102, 254, 31}, true, shift, []byte{0x90, 0xf0, 0x81, 0x04, 0x01, 0x63}},
		{"VP8, a layer without KEYIDX", media.VP8, []byte{0x90, 0xe0, 0x81, 0x02, 9, 0x5f, 0xaa}, Numbers{Picture: 0x102, Base: 9}, true, shift, []byte{0x90, 0xe0, 0x81, 0x04, 12, 0x5f}},
		{"VP8, torn", media.VP8, []byte{0x90, 0xf0, 0x81, 0x02}, Numbers{}, false, shift, nil},
		{"VP9, picture id alone", media.VP9, []byte{0x88, 0x81, 0x02, 0xaa}, Numbers{Picture: 0x102}, true, shift, []byte{0x88, 0x81, 0x04}},
		{"VP9, layers", media.VP9, []byte{0xa8, 0x81, 0x02, 0x20, 7, 0xaa}, Numbers{Picture: 0x102, Base: 7}, true, shift, []byte{0xa8, 0x81, 0x04, 0x20, 10}},
		{"VP9, flexible", media.VP9, []byte{0xb8, 0x81, 0x02, 0x20, 7, 0xaa}, Numbers{Picture: 0x102}, true, shift, []byte{0xb8, 0x81, 0x04}},
		{"VP9 without a picture id", media.VP9, []byte{0x08, 0xaa}, Numbers{}, false, shift, nil},
		{"H.264", media.H264, []byte{0x65, 0x88}, Numbers{}, false, shift, nil},
		{"nothing", media.VP8, nil, Numbers{}, false, shift, nil},
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range numberCases() {
		t.Run(c.name, func(t *testing.T) {
			in := bytes.Clone(c.in)
			if n, ok := ReadNumbers(c.codec, c.in); n != c.want || ok != c.ok {
				t.Errorf("read %+v %v, want %+v %v", n, ok, c.want, c.ok)
			}
			var head [MaxHead]byte
			if n := Renumber(head[:], c.codec, c.in, c.shift); !bytes.Equal(head[:n], c.out) {
				t.Errorf("renumbered % x, want % x", head[:n], c.out)
			}
			if !bytes.Equal(in, c.in) {
				t.Error("the payload was changed")
			}
		})
	}
}

// What is shifted follows what was before, whatever both were.
func FuzzNumbers(f *testing.F) {
	for _, c := range numberCases() {
		f.Add(c.codec == media.VP9, c.in, c.in)
	}
	f.Fuzz(func(t *testing.T, vp9 bool, a, b []byte) {
		name := media.VP8
		if vp9 {
			name = media.VP9
		}
		last, ok := ReadNumbers(name, a)
		first, ok2 := ReadNumbers(name, b)
		var head [MaxHead]byte
		n := Renumber(head[:], name, b, first.Until(last))
		if ok2 != (n > 0) {
			t.Fatalf("numbers: %v, head of %d bytes", ok2, n)
		}
		if !ok || !ok2 {
			return
		}
		at, _ := find(name, b)
		out, ok := ReadNumbers(name, head[:n])
		mask := uint16(0x7fff)
		if !at.wide {
			mask = 0x7f
		}
		if !ok || at.picture > 0 && (out.Picture-last.Picture-1)&mask != 0 || at.base > 0 && out.Base != last.Base+1 || at.key > 0 && (out.Key-last.Key-1)&0x1f != 0 {
			t.Errorf("%+v after %+v", out, last)
		}
	})
}
