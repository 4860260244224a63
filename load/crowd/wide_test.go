package crowd

import "testing"

func TestWideNumber(t *testing.T) {
	head := func(first byte, ext ...byte) []byte {
		return append(append([]byte{first, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9}, ext...), 1, 2, 3)
	}
	for _, c := range []struct {
		name   string
		packet []byte
		number uint16
		ok     bool
	}{
		{"none", head(0x80), 0, false},
		{"alone", head(0x90, 0xbe, 0xde, 0, 1, 0x31, 0x12, 0x34, 0), 0x1234, true},
		{"behind another, and padding", head(0x90, 0xbe, 0xde, 0, 2, 0x50, 7, 0, 0x31, 0xff, 0xfe, 0, 0), 0xfffe, true},
		{"behind a source", append(head(0x91)[:12], 1, 2, 3, 4, 0xbe, 0xde, 0, 1, 0x31, 0, 5, 0), 5, true},
		{"another", head(0x90, 0xbe, 0xde, 0, 1, 0x51, 0x12, 0x34, 0), 0, false},
		{"two-byte headers", head(0x90, 0x10, 0, 0, 1, 3, 1, 9, 0), 0, false},
		{"cut short", head(0x90, 0xbe, 0xde, 0, 9)[:16], 0, false},
		{"cut within it", head(0x90, 0xbe, 0xde, 0, 1, 0x31, 0x12)[:18], 0, false},
	} {
		if n, ok := wideNumber(c.packet); n != c.number || ok != c.ok {
			t.Errorf("%s: %x, %v", c.name, n, ok)
		}
	}
}
