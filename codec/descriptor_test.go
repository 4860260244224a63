package codec

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// binaryOf makes bytes of ones and zeros; blanks are for readers, and the last byte is filled with zeros.
func binaryOf(s string) (b []byte) {
	s = strings.ReplaceAll(s, " ", "")
	for i, c := range s {
		if i%8 == 0 {
			b = append(b, 0)
		}
		if c == '1' {
			b[i/8] |= 1 << (7 - i%8)
		}
	}
	return b
}

// l2t2 is the descriptor of a key frame with the structure of two spatial and two temporal layers: template ids from 60 on, four decode targets, two chains, sizes. The frame
// uses template 60, is number 258, begins and does not end.
func l2t2() []byte {
	return binaryOf("1 0 111100 0000000100000010" + "1 0 0 0 0" + "111100 00011" + // head, flags, offset 60, four targets
		"01 10 01 11" + // four templates: 0/0, 0/1, 1/0, 1/1
		"10 10 10 10" + "00 10 00 10" + "00 00 10 10" + "00 00 00 10" + // which target needs which
		"0" + "1 0000 0" + "1 0001 1 0000 0" + "0" + // differences of frame numbers
		"10" + "0 0 1 1" + "0000 0000 0001 0001 0001 0000 0000 0001" + // two chains, of up to four; what protects each target; differences
		"1" + "0000000100111111 0000000010110011" + "0000001001111111 0000000101100111") // 320x180, 640x360
}

func TestDescriptor(t *testing.T) {
	key := l2t2()
	d, ok := ParseDescriptor(key, nil)
	if !ok || d.Structure == nil || d.Layer != (Layer{0, 0, true, false}) || d.Frame != 258 {
		t.Fatalf("%+v %v", d, ok)
	}
	s := d.Structure
	if s.Top != (Layer{Spatial: 1, Temporal: 1}) || !slices.Equal(s.Sizes, [][2]int{{320, 180}, {640, 360}}) || len(s.templates) != 4 {
		t.Errorf("%+v", s)
	}
	for _, c := range []struct {
		name string
		in   []byte
		want Layer
		ok   bool
	}{
		{"template 61", []byte{0x80 | 61, 1, 3}, Layer{0, 1, true, false}, true},
		{"template 63, ends", []byte{0x40 | 63, 1, 3}, Layer{1, 1, false, true}, true},
		{"template 0 is none", []byte{0x80, 1, 3}, Layer{}, false},
		{"torn", []byte{0x80, 1}, Layer{}, false},
		{"structure, torn", key[:12], Layer{}, false},
		{"with custom fields", []byte{0xc0 | 62, 1, 3, 0x10, 0}, Layer{1, 0, true, true}, true},
	} {
		if d, ok := ParseDescriptor(c.in, s); ok != c.ok || ok && (d.Layer != c.want || d.Structure != nil) {
			t.Errorf("%s: %+v %v", c.name, d, ok)
		}
	}
	if _, ok := ParseDescriptor([]byte{0x80 | 60, 1, 3}, nil); ok {
		t.Error("a descriptor was read without a structure")
	}
}

// The decode targets that are left are those that need no more than the layers that are left.
func TestRestrict(t *testing.T) {
	d, _ := ParseDescriptor(l2t2(), nil)
	for _, c := range []struct {
		upTo Layer
		want int
	}{{Layer{Spatial: 0, Temporal: 0}, 0b0001}, {Layer{Spatial: 0, Temporal: 8}, 0b0011}, {Layer{Spatial: 1, Temporal: 0}, 0b0101}, {Layer{Spatial: 1, Temporal: 8}, 0b1111}} {
		in := l2t2()
		out := d.Structure.Restrict(nil, in, c.upTo)
		again := d.Structure.Restrict(nil, out, c.upTo) // it has a mask already
		r := bits{b: out, at: d.Structure.end}
		if got := r.read(4); got != c.want || out[3]&0x40 == 0 || !bytes.Equal(out, again) {
			t.Errorf("up to %+v: targets %04b, want %04b", c.upTo, got, c.want)
		}
		if e, ok := ParseDescriptor(out, nil); !ok || !slices.Equal(e.Structure.Sizes, d.Structure.Sizes) || e.Layer != d.Layer {
			t.Errorf("it became %+v %v", e, ok)
		}
	}
	if !bytes.Equal(l2t2(), l2t2()) {
		t.Error("the descriptor was changed")
	}
}

// Whatever comes is read within bounds, unchanged, and what is left of it can be read again.
func FuzzDescriptor(f *testing.F) {
	f.Add(l2t2(), uint8(0), uint8(0))
	f.Add([]byte{0xc0, 0, 1}, uint8(1), uint8(1))
	known, _ := ParseDescriptor(l2t2(), nil)
	f.Fuzz(func(t *testing.T, b []byte, spatial, temporal uint8) {
		in := bytes.Clone(b)
		d, ok := ParseDescriptor(b, known.Structure)
		if !bytes.Equal(in, b) {
			t.Fatal("it was changed")
		}
		if !ok || d.Structure == nil {
			return
		}
		out := d.Structure.Restrict(nil, b, Layer{Spatial: spatial, Temporal: temporal})
		e, ok := ParseDescriptor(out, nil)
		if !ok || e.Layer != d.Layer || e.Frame != d.Frame || len(out) > MaxDescriptor || !bytes.Equal(in, b) {
			t.Errorf("% x became % x: %+v, %+v", b, out, d, e)
		}
	})
}
