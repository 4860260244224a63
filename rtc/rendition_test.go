package rtc

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtp"

	"sluice/media"
)

// rendition is picture of another track.
func rendition(track int, seq uint16, timestamp uint32, n int, key bool) *media.Burst {
	b := picture(seq, timestamp, n, key)
	b.Track = track
	return b
}

// shown is what a decoder sees of the packets that came.
type shown struct {
	seq       uint16
	stamp     uint32
	source    uint16 // the number of the burst that the packet was in
	timestamp uint32 // and its timestamp
}

// frames opens what came.
func (s *stage) frames(t *testing.T) (all []shown) {
	t.Helper()
	s.opened(t, func(h *rtp.Header, plain []byte) {
		all = append(all, shown{seq: h.SequenceNumber, stamp: h.Timestamp, source: uint16(plain[3]) | uint16(plain[4])<<8, timestamp: binary.BigEndian.Uint32(plain[5:])})
	})
	return all
}

// opened calls f for each packet that came.
func (s *stage) opened(t *testing.T, f func(h *rtp.Header, plain []byte)) {
	t.Helper()
	packets, _ := s.got(t)
	p := profiles()[0]
	o, err := newOpener(splitKeys(p, make([]byte, p.material()), true))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range packets {
		var h rtp.Header
		n, err := h.Unmarshal(b)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := o.open(b, &h, n)
		if err != nil {
			t.Fatal(err)
		}
		f(&h, plain)
	}
}

// unbroken ends the test when numbers have a gap or time goes back.
func unbroken(t *testing.T, all []shown) {
	t.Helper()
	for i := 1; i < len(all); i++ {
		if all[i].seq != all[i-1].seq+1 {
			t.Fatalf("packet %d follows %d", all[i].seq, all[i-1].seq)
		}
		if int32(all[i].stamp-all[i-1].stamp) < 0 {
			t.Fatalf("packet %d has the timestamp %d after %d", all[i].seq, all[i].stamp, all[i-1].stamp)
		}
	}
}

// A viewer goes over to another rendition at its key frame; numbers and timestamps go on.
func TestTakeARendition(t *testing.T) {
	s := newStage(t, 97)
	s.join()
	big, small := uint16(100), uint16(40000)
	for i := range uint32(30) {
		if i == 5 {
			s.take(1)
		}
		s.send(rendition(0, big, i*3000, 8, i%10 == 0), false)
		s.send(rendition(1, small, i*3000, 2, i%10 == 0), false)
		big, small = big+8, small+2
	}
	all := s.frames(t)
	unbroken(t, all)
	if len(all) != 11*8+20*2 { // up to the small one's key frame both were due
		t.Errorf("%d packets came", len(all))
	}
	if got := s.v.Rendition(); got != 1 {
		t.Errorf("the rendition is %d", got)
	}
	for _, f := range all[:88] {
		if f.source >= 40000 {
			t.Fatalf("packet %d is of the other rendition already", f.seq)
		}
	}
	for _, f := range all[88:] {
		if f.source < 40000 {
			t.Fatalf("packet %d is of the old rendition still", f.seq)
		}
	}
}

// take is Group.Take without the loop.
func (s *stage) take(track int, cached ...*media.Burst) { s.v.take(s.shard, track, AtOnce, cached) }

// What was lost on both sides of a joint comes again, the right packet under each number.
func TestRepairAcrossRenditions(t *testing.T) {
	s := newStage(t, 0)
	s.join()
	for i := range uint32(40) {
		if i%10 == 9 {
			s.take(int(i/10+1) % 2)
		}
		s.send(rendition(0, uint16(100+8*i), i*3000, 8, i%10 == 0), false)
		s.send(rendition(1, uint16(40000+2*i), i*3000, 2, i%10 == 0), false)
	}
	first := s.frames(t)
	unbroken(t, first)
	if len(s.v.tracks[0].before) != 3 {
		t.Errorf("%d joints are remembered", len(s.v.tracks[0].before))
	}
	for _, f := range first {
		s.v.asked = append(s.v.asked, asked{0, f.seq})
	}
	s.v.sendAgain(s.shard)
	s.later(100 * time.Millisecond)
	again := s.frames(t)
	if len(again) != len(first) {
		t.Fatalf("%d packets came again, want %d", len(again), len(first))
	}
	for i := range again {
		if again[i] != first[i] {
			t.Errorf("packet %+v came again as %+v", first[i], again[i])
		}
	}
}

// What is missing of a rendition that was given up is asked for again and again. That must not use up what the peer may ask for of the one that he gets now.
func TestWhatWasGivenUpIsNotSentAgain(t *testing.T) {
	s := newStage(t, 0)
	s.join()
	s.send(rendition(0, 100, 3000, 90, true), false)
	s.take(1, rendition(1, 40000, 3000, 4, true))
	s.later(100 * time.Millisecond)
	first := s.frames(t)
	unbroken(t, first)
	old, wanted := first[:len(first)-4], first[len(first)-4:]
	for range 2 * againBurst / len(old) {
		for _, f := range old {
			s.v.asked = append(s.v.asked, asked{0, f.seq})
		}
		s.v.sendAgain(s.shard)
	}
	for _, f := range wanted {
		s.v.asked = append(s.v.asked, asked{0, f.seq})
	}
	s.v.sendAgain(s.shard)
	s.later(100 * time.Millisecond)
	if again := s.frames(t); !slices.Equal(again, wanted) {
		t.Errorf("%d packets came again, want the %d of the rendition that he gets", len(again), len(wanted))
	}
}

// With a cached picture a viewer goes over at once; what waited for his slow path is not sent any more.
func TestTakeACachedRendition(t *testing.T) {
	s := newStage(t, 97)
	s.join()
	s.send(rendition(0, 100, 30000, 200, true), false) // 168 of them wait
	var cached []*media.Burst
	for i := range uint32(10) {
		cached = append(cached, rendition(1, uint16(7000+2*i), 3000+i*3000, 2, i == 0))
	}
	s.take(1, cached...)
	s.later(100 * time.Millisecond)
	s.send(rendition(0, 300, 33000, 20, false), false)
	s.send(rendition(1, 7020, 33000, 2, false), false)
	all := s.frames(t)
	unbroken(t, all)
	if len(all) != paceAfter+22 {
		t.Errorf("%d packets came, want %d", len(all), paceAfter+22)
	}
	if last := all[len(all)-1]; last.timestamp != 33000 || last.stamp-30000 > 3300 {
		t.Errorf("the last packet is %+v", last)
	}
	if n := len(s.v.waiting); n != 0 {
		t.Errorf("%d bursts wait", n)
	}
}

// To take what one has, or what never comes, changes nothing.
func TestTakeNothing(t *testing.T) {
	s := newStage(t, 97)
	s.join()
	s.take(0)
	s.take(9)
	for i := range uint32(20) {
		s.send(rendition(0, uint16(100+8*i), i*3000, 8, i%10 == 0), false)
	}
	s.take(1)
	s.take(0) // the last one counts
	for i := range uint32(20) {
		s.send(rendition(0, uint16(260+8*i), 60000+i*3000, 8, i%10 == 0), false)
		s.send(rendition(1, uint16(8*i), 60000+i*3000, 8, i%10 == 0), false)
	}
	all := s.frames(t)
	unbroken(t, all)
	if len(all) != 320 || s.v.Rendition() != 0 {
		t.Errorf("%d packets came of rendition %d", len(all), s.v.Rendition())
	}
}

// vp8Picture is a frame of VP8 with the numbers that its encoder gave it; i counts the frames.
func vp8Picture(track int, i uint32, n int, id uint16, base uint8) *media.Burst {
	b := media.NewBurst(track, i*3000)
	for k := range n {
		first := byte(0x90) // the frame's first packet
		if k > 0 {
			first = 0x80
		}
		b.Append(uint16(1000*track)+uint16(i)*uint16(n)+uint16(k), k == n-1, []byte{first, 0xe0, byte(id>>8) | 0x80, byte(id), base, 0x20, byte(i), byte(i >> 8), byte(track), byte(k)})
	}
	b.Key = i%10 == 0
	return b
}

// Pictures are counted on over each change of renditions, whose encoders count by themselves; what is sent again has the numbers it had.
func TestPicturesAreCountedOn(t *testing.T) {
	for _, rtx := range []uint8{0, 97} {
		s := newStage(t, rtx)
		s.group.tracks = []media.Track{{Kind: media.Video, Codec: media.Codec{Name: media.VP8, ClockRate: 90000}}}
		s.join()
		for i := range uint32(60) {
			if i%10 == 9 {
				s.take(int(i/10+1) % 3)
			}
			for track, from := range []struct {
				id   uint16
				base uint8
			}{{100, 7}, {32700, 250}, {20000, 90}} { // the second wraps
				b := vp8Picture(track, i, 3, (from.id+uint16(i))&0x7fff, from.base+uint8(i))
				s.send(b, false)
				b.Release()
			}
		}
		type packet struct {
			seq, id, frame uint16
			base           uint8
		}
		var first, again []packet
		read := func(to *[]packet) func(*rtp.Header, []byte) {
			return func(h *rtp.Header, p []byte) {
				seq := h.SequenceNumber
				if h.PayloadType == 97 {
					seq, p = binary.BigEndian.Uint16(p), p[2:]
				}
				*to = append(*to, packet{seq, uint16(p[2]&0x7f)<<8 | uint16(p[3]), uint16(p[6]) | uint16(p[8])<<8, p[4]})
			}
		}
		s.opened(t, read(&first))
		for i := 1; i < len(first); i++ {
			a, b := first[i-1], first[i]
			if b.frame == a.frame && (b.id != a.id || b.base != a.base) || b.frame != a.frame && (b.id != (a.id+1)&0x7fff || b.base != a.base+1) {
				t.Fatalf("%+v follows %+v", b, a)
			}
		}
		if n := len(first); n != 3*(60+4) || first[0].frame>>8 != 0 || first[n-1].frame>>8 != 2 { // at four joints the old rendition's picture came before the new one's
			t.Errorf("%d packets, from %+v to %+v", n, first[0], first[n-1])
		}
		for _, p := range first {
			s.v.asked = append(s.v.asked, asked{0, p.seq})
		}
		s.v.sendAgain(s.shard)
		s.later(100 * time.Millisecond)
		s.opened(t, read(&again))
		if !slices.Equal(first, again) {
			t.Errorf("with payload type %d for what is sent again, other packets came again", rtx)
		}
	}
}

// To renumber costs no memory.
func TestRenumberingAllocatesNothing(t *testing.T) {
	s := newStage(t, 97)
	s.group.tracks = []media.Track{{Kind: media.Video, Codec: media.Codec{Name: media.VP8, ClockRate: 90000}}}
	s.join()
	b := vp8Picture(0, 0, 9, 100, 7)
	s.v.tracks[0].joint.pics.Picture = 5
	s.send(b, false)
	if n := testing.AllocsPerRun(100, func() {
		for i := range b.Packets {
			b.Packets[i].Seq += 9
		}
		s.lane.send(s.shard, b, false)
		s.shard.flush()
	}); n > 0 {
		t.Errorf("%v allocations for a frame", n)
	}
}

// Descriptors reach players that agreed on them, long ones too, and their frames are counted on over a change of renditions.
func TestDescriptors(t *testing.T) {
	for _, wide := range []uint8{0, 3} {
		s := newStage(t, 97)
		s.group.tracks = []media.Track{{Kind: media.Video, Codec: media.Codec{Name: media.AV1, ClockRate: 90000}}}
		s.v.tracks[0].described, s.v.tracks[0].wideID = 12, wide
		s.join()
		for i := range uint32(20) {
			if i == 5 {
				s.take(1)
			}
			for track, from := range []uint16{100, 65530} {
				b := media.NewBurst(track, i*3000)
				b.Key = i%10 == 0
				for k := range uint16(3) {
					b.Append(uint16(1000*track)+uint16(i)*3+k, k == 2, []byte{0x10, byte(i), 1, 2, 3})
					d := binary.BigEndian.AppendUint16([]byte{0x80}, from+uint16(i))
					if b.Key && k == 0 {
						d = append(d, make([]byte, 60)...)
					}
					b.Describe(d)
				}
				s.send(b, false)
				b.Release()
			}
		}
		var frames []uint16
		s.opened(t, func(h *rtp.Header, plain []byte) {
			d := h.GetExtension(12)
			if len(d) != 3 && len(d) != 63 || len(plain) != 5 || wide != 0 && len(h.GetExtension(wide)) != 2 {
				t.Fatalf("%v % x", h, plain)
			}
			if n := binary.BigEndian.Uint16(d[1:]); len(frames) == 0 || frames[len(frames)-1] != n {
				frames = append(frames, n)
			}
		})
		for i := range frames {
			if frames[i] != 100+uint16(i) {
				t.Errorf("frames %v", frames)
				break
			}
		}
		if len(frames) != 21 { // at the joint the old rendition's picture came before the new one's
			t.Errorf("%d frames", len(frames))
		}
	}
}
