package webrtc

import (
	"fmt"
	"slices"
	"testing"

	"sluice/media"
)

// vp9 is a packet of a layer, as RFC 9628 §4.2 has it; what follows the head is not looked at.
func vp9(spatial, temporal, picture int, begins, ends, key bool) []byte {
	head := byte(0xa0) // I, L
	if begins {
		head |= 0x08
	}
	if ends {
		head |= 0x04
	}
	if !key {
		head |= 0x40
	}
	return []byte{head, 0x80 | byte(picture>>8), byte(picture), byte(temporal<<5 | spatial<<1), byte(picture), 0xaa}
}

// layered publishes pictures of s spatial layers, two packets each, and t temporal ones, and returns what the renditions got.
func layered(s, t int, pictures int, order func(packets []media.Packet) [][]media.Packet) (added []string, got map[int][]media.Packet) {
	sc := newScalable([]media.Track{{Kind: media.Video, Codec: media.Codec{Name: media.VP9, ClockRate: 90000}}, {Kind: media.Audio}})
	got = map[int][]media.Packet{}
	seq := uint16(65500)
	for n := range pictures {
		temporal := []int{0, t - 1, min(1, t-1), t - 1}[n%4]
		var packets []media.Packet
		for l := range s {
			for k := range 2 {
				packets = append(packets, media.Packet{Seq: seq, Marker: l == s-1 && k == 1, Payload: vp9(l, temporal, n, k == 0, k == 1, n == 0)})
				seq++
			}
		}
		for _, part := range order(packets) {
			b := media.NewBurst(0, uint32(n)*3000)
			for _, p := range part {
				b.Append(p.Seq, p.Marker, p.Payload)
			}
			sc.split(b, func(ts []media.Track) {
				for _, t := range ts {
					added = append(added, t.Rendition)
				}
			}, func(b *media.Burst) {
				for _, p := range b.Packets {
					got[b.Track] = append(got[b.Track], media.Packet{Seq: p.Seq, Marker: p.Marker, Payload: slices.Clone(p.Payload)})
				}
				b.Release()
			})
			b.Release()
		}
	}
	return added, got
}

func whole(packets []media.Packet) [][]media.Packet { return [][]media.Packet{packets} }

// Each rendition has its layers and no others, with numbers without gaps, and pictures that end.
func TestScalable(t *testing.T) {
	for _, c := range []struct {
		name string
		s, t int
		want string
	}{
		{"L1T1", 1, 1, "[]"}, {"L1T2", 1, 2, "[t0]"}, {"L1T3", 1, 3, "[t1 t0]"}, {"L2T1", 2, 1, "[s0]"}, {"L2T2", 2, 2, "[s0 t0]"}, {"L3T3", 3, 3, "[s1 s0 t1 t0]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			added, got := layered(c.s, c.t, 40, whole)
			if fmt.Sprint(added) != c.want {
				t.Fatalf("renditions %v, want %s", added, c.want)
			}
			for i, name := range added {
				spatial, temporal := 0, 7
				fmt.Sscanf(name, "s%d", &spatial)
				if name[0] == 't' {
					fmt.Sscanf(name, "t%d", &temporal)
				}
				check(t, name, got[2+i], spatial, temporal)
			}
		})
	}
}

func check(t *testing.T, name string, packets []media.Packet, spatial, temporal int) {
	t.Helper()
	if len(packets) == 0 {
		t.Errorf("%s got nothing", name)
	}
	for i, p := range packets {
		s, tl := int(p.Payload[3]>>1&7), int(p.Payload[3]>>5)
		ends := s == spatial && p.Payload[0]&0x04 != 0
		if i > 0 && p.Seq != packets[i-1].Seq+1 || s > spatial || tl > temporal || p.Marker != ends {
			t.Fatalf("%s: packet %d, layer %d/%d, marker %v, after %d", name, p.Seq, s, tl, p.Marker, packets[max(i-1, 0)].Seq)
		}
	}
}

// What comes late gets the number that was left for it.
func TestScalableLate(t *testing.T) {
	_, got := layered(2, 1, 40, func(p []media.Packet) [][]media.Packet {
		return [][]media.Packet{{p[0]}, {p[2], p[3]}, {p[1]}} // the lower layer's last packet comes last
	})
	seen := map[uint16]bool{}
	for _, p := range got[2] {
		if seen[p.Seq] {
			t.Fatalf("%d twice", p.Seq)
		}
		seen[p.Seq] = true
	}
	first := slices.MinFunc(got[2], func(a, b media.Packet) int { return int(int16(a.Seq - b.Seq)) }).Seq
	for i := range got[2] {
		if !seen[first+uint16(i)] {
			t.Errorf("%d is missing", first+uint16(i))
		}
	}
}

func TestThinned(t *testing.T) {
	var n thinned
	for _, c := range []struct {
		seq  uint16
		keep bool
		want int // -1: none
	}{
		{100, true, 100}, {101, false, -1}, {102, true, 101}, {105, true, 104}, // 103 and 104 are to come
		{104, true, 103}, {103, false, -1}, {106, true, 105},
		{106 + 5000, true, 105 + 5000}, {106, true, -1}, {106 + 5000 - 1023, true, 105 + 5000 - 1023},
	} {
		got := -1
		if seq, ok := n.number(c.seq, c.keep); ok {
			got = int(seq)
		}
		if got != c.want {
			t.Errorf("%d is %d, want %d", c.seq, got, c.want)
		}
	}
}
