package codec

import (
	"bytes"
	"slices"
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

// Layers are read of whatever comes, and nothing of it changes.
func FuzzLayers(f *testing.F) {
	for _, c := range layerCases() {
		f.Add(c.in)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		in := bytes.Clone(p)
		l, _ := LayerOf(media.VP9, p)
		sizes := LayerSizes(media.VP9, p)
		if l.Spatial > 7 || l.Temporal > 7 || len(sizes) > MaxSpatial || 4*len(sizes) > len(p) || !bytes.Equal(in, p) {
			t.Errorf("%+v %v of % x", l, sizes, p)
		}
	})
}

type layerCase struct {
	name  string
	in    []byte
	want  Layer
	ok    bool
	sizes [][2]int
}

func layerCases() []layerCase {
	return []layerCase{
		{"no layers", []byte{0x88, 0x81, 0x02, 0xaa}, Layer{}, false, nil},
		{"lowest, whole", []byte{0xac, 0x81, 0x02, 0x00, 7, 0xaa}, Layer{0, 0, true, true}, true, nil},
		{"spatial 2, temporal 1, begins", []byte{0xa8, 0x81, 0x02, 0x25, 7, 0xaa}, Layer{2, 1, true, false}, true, nil},
		{"7 bits, flexible, ends", []byte{0xf4, 0x02, 0x42, 0x03, 0x02, 0xaa}, Layer{1, 2, false, true}, true, nil},
		{"two sizes", []byte{0xaa, 0x81, 0x02, 0x00, 7, 0x30, 0x01, 0x40, 0x00, 0xb4, 0x02, 0x80, 0x01, 0x68, 0xaa}, Layer{0, 0, true, false}, true, [][2]int{{320, 180}, {640, 360}}},
		{"two sizes, flexible", []byte{0xba, 0x81, 0x02, 0x00, 0x30, 0x01, 0x40, 0x00, 0xb4, 0x02, 0x80, 0x01, 0x68, 0xaa}, Layer{0, 0, true, false}, true, [][2]int{{320, 180}, {640, 360}}},
		{"sizes, torn", []byte{0xaa, 0x81, 0x02, 0x00, 7, 0x30, 0x01, 0x40}, Layer{0, 0, true, false}, true, nil},
		{"torn", []byte{0xa0, 0x81, 0x02}, Layer{}, false, nil},
	}
}

func TestLayers(t *testing.T) {
	for _, c := range layerCases() {
		t.Run(c.name, func(t *testing.T) {
			l, ok := LayerOf(media.VP9, c.in)
			if l != c.want || ok != c.ok {
				t.Errorf("%+v %v, want %+v", l, ok, c.want)
			}
			if sizes := LayerSizes(media.VP9, c.in); !slices.Equal(sizes, c.sizes) {
				t.Errorf("sizes %v, want %v", sizes, c.sizes)
			}
		})
	}
}
