package rtc

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net"
	"testing"
	"time"

	"sluice/media"
)

// stage is a shard without its loop, with one viewer, and a socket that gets what is sent to it.
type stage struct {
	group *Group
	shard *shard
	lane  *lane
	v     *Sender
	sink  *net.UDPConn
	keys  int // key frames that were asked for
}

func newStage(t *testing.T, rtx uint8) *stage {
	return newStageOf(t, []media.Track{h264}, outTrack{wanted: true, pt: 96, rtxPT: rtx, nack: true, ssrc: 1, rtx: 2})
}

// newStageOf has these tracks on their way to the viewer.
func newStageOf(t *testing.T, tracks []media.Track, out ...outTrack) *stage {
	e := New(Config{Listen: "127.0.0.1:0", Shards: 1, NoTCP: true, Log: slog.New(slog.DiscardHandler)})
	if err := e.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.closeSockets)
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sink.Close() })
	_ = sink.SetReadBuffer(8 << 20)
	for i := range out {
		out[i].joint.source, out[i].next = i, i
	}
	g := e.NewGroup(tracks, false)
	s := &stage{group: g, shard: e.shards[0], lane: g.lanes[0], sink: sink}
	p := profiles()[0]
	s.v = &Sender{group: g, tracks: out, onKeyRequest: func(int) { s.keys++ }}
	s.v.endpoint, s.v.state, s.v.shard = e, stateConnected, e.shards[0]
	k := splitKeys(p, make([]byte, p.material()), false)
	if s.v.seal, err = newSealer(k); err != nil {
		t.Fatal(err)
	}
	if s.v.rtcp, err = newSRTCP(k); err != nil {
		t.Fatal(err)
	}
	s.v.addr = s.shard.sockets[0].MakeAddr(sink.LocalAddr().(*net.UDPAddr).AddrPort())
	s.shard.now = time.Now()
	s.v.report = s.shard.now
	return s
}

// join lets the viewer in, with a cached picture or none.
func (s *stage) join(cached ...*media.Burst) {
	s.lane.joined.Store(1)
	s.lane.join(s.shard, s.v, past(cached, 0))
	s.shard.flush()
}

// later is time that passes, in which the loop does what is due.
func (s *stage) later(d time.Duration) {
	for end := s.shard.now.Add(d); s.shard.now.Before(end); {
		s.shard.now = s.shard.now.Add(paceFor)
		s.shard.catchUp(paceAfter)
		s.shard.flush()
	}
}

func (s *stage) send(b *media.Burst, resync bool) {
	s.lane.send(s.shard, b, resync)
	s.shard.flush()
}

// got reads what came, RTP and RTCP.
func (s *stage) got(t *testing.T) (rtp, rtcp [][]byte) {
	t.Helper()
	var b [2000]byte
	for {
		_ = s.sink.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		n, err := s.sink.Read(b[:])
		if err != nil {
			return rtp, rtcp
		}
		if b[1] >= 192 && b[1] <= 223 {
			rtcp = append(rtcp, bytes.Clone(b[:n]))
		} else {
			rtp = append(rtp, bytes.Clone(b[:n]))
		}
	}
}

// picture is n packets of a frame; what tells it from any other is in its payload.
func picture(seq uint16, timestamp uint32, n int, key bool) *media.Burst {
	b := media.NewBurst(0, timestamp)
	for i := range n {
		b.Append(seq+uint16(i), i == n-1, binary.BigEndian.AppendUint32([]byte{0x41, byte(i), byte(i >> 8), byte(seq), byte(seq >> 8)}, timestamp))
	}
	b.Key = key
	return b
}

// No number is sealed with two texts, whatever is dropped, comes late or is asked for again: AES-GCM would give its key away (RFC 7714 §9.1).
func TestNoNumberHasTwoTexts(t *testing.T) {
	everything := func(s *stage) {
		for seq := range uint16(900) {
			s.v.asked = append(s.v.asked, asked{0, seq})
		}
		s.v.sendAgain(s.shard)
		s.later(100 * time.Millisecond)
	}
	for _, c := range []struct {
		name  string
		do    func(s *stage)
		least int // packets that must come
	}{
		{"frames wait for the path when others are dropped", func(s *stage) {
			s.join()
			for i := range 3 {
				s.send(picture(uint16(i*200), uint32(i)*3000, 200, i == 0), false)
			}
			s.send(picture(5000, 90000, 200, true), true)
			s.later(time.Second)
			everything(s)
		}, 800},
		{"a packet from before what was dropped comes late", func(s *stage) {
			s.join()
			s.send(picture(0, 0, 20, true), false)
			s.send(picture(40, 6000, 20, true), true)
			s.send(picture(30, 3000, 1, false), false)
			s.send(picture(60, 9000, 20, false), false)
			everything(s)
		}, 60},
		{"the cached picture has packets that came late", func(s *stage) {
			s.join(picture(0, 0, 5, true), picture(5, 3000, 3, false), picture(9, 6000, 3, false), picture(8, 3000, 1, false), picture(12, 9000, 3, false))
			s.send(picture(16, 15000, 3, false), false)
			s.send(picture(15, 12000, 1, false), false) // late, after the join
			everything(s)
		}, 19},
		{"the numbers come round", func(s *stage) {
			s.join()
			for i := range 700 {
				s.send(picture(uint16(65000+i*100), uint32(i)*3000, 30, i == 0), false)
				if i%50 == 0 {
					everything(s)
				}
			}
		}, 5000},
		{"renditions change all the time", func(s *stage) {
			s.join()
			for i := range 300 {
				s.take(i * 7 % 3)
				for track := range 3 {
					s.send(rendition(track, uint16(65000+track*20000+i*40), uint32(i)*3000, 40-15*track, i%5 == track), false)
				}
				if i%20 == 0 {
					everything(s)
				}
			}
		}, 4000},
		{"the same comes twice", func(s *stage) {
			s.join()
			s.send(picture(0, 0, 20, true), false)
			s.send(picture(0, 3000, 20, true), false)
			everything(s)
		}, 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, 0) // without RTX the very same packet goes out again
			index, top := uint64(0), uint64(0)
			seen := map[uint64][]byte{}
			c.do(s)
			all, _ := s.got(t)
			for i, b := range all {
				seq := binary.BigEndian.Uint16(b[2:])
				if i == 0 {
					top = uint64(seq)
				}
				index = uint64(int64(top) + int64(int16(seq-uint16(top))))
				top = max(top, index)
				if have, ok := seen[index]; ok && !bytes.Equal(have, b) {
					t.Fatalf("packet %d was sealed as %x and as %x", index, have, b)
				}
				seen[index] = b
			}
			if len(all) < c.least {
				t.Errorf("%d packets came, want at least %d", len(all), c.least)
			}
		})
	}
}

// All packets of a frame of the past get one timestamp, also those that came late.
func TestAFrameOfThePastHasOneTimestamp(t *testing.T) {
	stamps := map[uint32]uint32{}
	var last uint32
	for _, it := range past([]*media.Burst{picture(0, 4294966296, 5, true), picture(5, 2000, 3, false), picture(9, 5000, 3, false), picture(8, 2000, 1, false)}, 0) {
		if have, ok := stamps[it.burst.Timestamp]; ok && have != it.timestamp {
			t.Errorf("frame %d has the timestamps %d and %d", it.burst.Timestamp, have, it.timestamp)
		}
		stamps[it.burst.Timestamp] = it.timestamp
		last = it.timestamp
	}
	if stamps[4294966296] != 5000-180 || stamps[5000] != 5000 || last != 5000-90 {
		t.Errorf("timestamps %v", stamps)
	}
}

// A path is given 32 packets at once, and one that takes fewer than come loses pictures, not memory.
func TestPathsThatAreTooSlow(t *testing.T) {
	s := newStage(t, 97)
	s.join()
	s.send(picture(0, 0, 300, true), false)
	if n := s.v.tracks[0].packets; n != paceAfter {
		t.Errorf("%d packets at once, want %d", n, paceAfter)
	}
	seq, most := uint16(300), 0
	for i := range 400 { // 500 packets each 10 ms: the path takes 160
		s.send(picture(seq, uint32(i)*900, 500, i%100 == 99), false)
		seq += 500
		s.later(10 * time.Millisecond)
		most = max(most, len(s.v.waiting))
	}
	if most > 110 || most < 50 {
		t.Errorf("up to %d frames waited, want about a second's", most)
	}
	if s.keys == 0 {
		t.Error("no key frame was asked for")
	}
}

// A viewer who comes after the last one has been gone for long, in which numbers went on, gets all there is.
func TestViewerAfterALongTimeWithout(t *testing.T) {
	for _, passed := range []uint16{100, 20000, 33000, 45000, 60000} {
		s := newStage(t, 97)
		s.join()
		s.send(picture(1000, 0, 20, true), false)
		s.send(picture(1050, 3000, 20, true), true) // others were dropped
		s.lane.leave(s.v)
		next := &Sender{group: s.group, tracks: []outTrack{{wanted: true, pt: 96, ssrc: 3}}, onKeyRequest: func(int) {}, seal: s.v.seal, addr: s.v.addr, report: s.v.report}
		next.endpoint, next.state, next.rtcp = s.v.endpoint, stateConnected, s.v.rtcp
		_, _ = s.got(t)
		s.v = next
		s.join(picture(1070+passed, 900000, 10, true))
		s.send(picture(1080+passed, 903000, 10, false), false)
		if got, _ := s.got(t); len(got) != 20 {
			t.Errorf("after %d packets that nobody got: %d packets came, want 20", passed, len(got))
		}
		if s.lane.tracks[0].ring == nil {
			t.Errorf("after %d packets that nobody got nothing is kept", passed)
		}
	}
}

// Whoever asks for everything over and over gets some of it.
func TestAskingForEverything(t *testing.T) {
	s := newStage(t, 97)
	s.join()
	for i := range 20 {
		s.send(picture(uint16(i*32), uint32(i)*3000, 32, i == 0), false)
	}
	_, _ = s.got(t)
	before := len(s.shard.inbox)
	for range 1000 {
		for seq := range uint16(640) {
			if len(s.v.asked) < maxAgain {
				s.v.asked = append(s.v.asked, asked{0, seq})
			}
		}
		s.v.sendAgain(s.shard)
	}
	s.later(time.Second)
	if again := s.v.Stats().Again; again > againBurst+againRate || again < 512 {
		t.Errorf("%d packets were sent again", again)
	}
	if n := len(s.shard.inbox); n != before {
		t.Errorf("%d tasks wait", n)
	}
}

// Sender reports go out every two seconds, also when frames are paced.
func TestReportsArePaced(t *testing.T) {
	s := newStage(t, 97)
	s.join()
	for i := range 120 {
		b := picture(uint16(i*60), uint32(i)*3000, 60, i == 0)
		b.Captured = int64(i+1) * 33e6
		s.send(b, false)
		s.later(33 * time.Millisecond)
	}
	if _, reports := s.got(t); len(reports) < 1 || len(reports) > 2 {
		t.Errorf("%d reports in four seconds", len(reports))
	}
}

// What was sent again is taken only for a packet that is missing.
func TestHistoryMisses(t *testing.T) {
	var h history
	now := time.Now()
	h.add(100, now)
	h.add(103, now)
	if !h.misses(101) || !h.misses(102) || h.misses(100) || h.misses(104) || h.misses(99) {
		t.Errorf("missing %v", h.missing)
	}
	h.add(700, now)
	if h.misses(101) || h.misses(699) {
		t.Errorf("after a tear %v are missing", h.missing)
	}
}
