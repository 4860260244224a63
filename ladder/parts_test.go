package ladder

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/pion/rtp/codecs"

	"sluice/media"
)

// What is cut is put together again by another implementation, into the same NAL units.
func FuzzParts(f *testing.F) {
	unit := func(kind byte, n int) []byte { return append([]byte{kind}, bytes.Repeat([]byte{0xab, kind}, n/2)...) }
	stap := func(units ...[]byte) []byte {
		p := []byte{0x78}
		for _, u := range units {
			p = append(binary.BigEndian.AppendUint16(p, uint16(len(u))), u...)
		}
		return p
	}
	f.Add(unit(0x41, 100))
	f.Add(unit(0x41, 5000))
	f.Add(unit(0x65, 1198))
	f.Add(unit(0x65, 1200))
	f.Add(stap(unit(0x67, 20), unit(0x68, 6), unit(0x65, 5000)))
	f.Add(stap(unit(0x67, 20), unit(0x68, 6), unit(0x06, 700), unit(0x65, 1196)))
	f.Add(stap(unit(0x41, 5000), unit(0x06, 30)))
	f.Add(append([]byte{0x7c, 0x85}, bytes.Repeat([]byte{7}, 4000)...))
	f.Fuzz(func(t *testing.T, p []byte) {
		before := bytes.Clone(p)
		clean := len(p) > 0 && p[0]&0x80 == 0 // the forbidden bit, which not everybody keeps
		if clean && p[0]&0x1f == aggregated {
			for rest := p[1:]; len(rest) > 2; rest = rest[min(len(rest), 2+int(binary.BigEndian.Uint16(rest))):] {
				clean = clean && rest[2]&0x80 == 0
			}
		}
		var got, want []byte
		in, out := codecs.H264Packet{IsAVC: true}, codecs.H264Packet{IsAVC: true}
		want, err := in.Unmarshal(p)
		lasts, cut := 0, 0
		parts(media.H264, p, func(part []byte, last bool) {
			if len(part) > payload && len(p) > payload || lasts > 0 {
				t.Errorf("a part of %d bytes, after %d that were the last", len(part), lasts)
			}
			if last {
				lasts++
			}
			cut++
			b, _ := out.Unmarshal(part)
			got = append(got, b...)
		})
		if !bytes.Equal(before, p) {
			t.Error("the input was changed")
		}
		if err == nil && clean && cut > 0 && lasts == 1 && p[0]&0x1f <= aggregated && len(want) > 0 && !bytes.Equal(got, want) {
			t.Errorf("%d bytes become %d parts with %d", len(want), cut, len(got))
		}
	})
}
