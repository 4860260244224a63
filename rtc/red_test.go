package rtc

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"

	"sluice/media"
)

// redCases are payloads with redundancy (RFC 2198 §3) and what is in them: "AGO:TEXT" for each block.
func redCases() map[string]struct {
	in   []byte
	want string
} {
	return map[string]struct {
		in   []byte
		want string
	}{
		"one before":         {[]byte{0x80 | 111, 960 >> 6, 960 << 2 & 0xff, 3, 111, 'o', 'l', 'd', 'n', 'e', 'w'}, "[960:old 0:new]"},
		"two before":         {[]byte{0x80 | 111, 1920 >> 6, 1920 << 2 & 0xff, 1, 0x80 | 111, 960 >> 6, 960 << 2 & 0xff, 2, 111, 'a', 'b', 'b', 'c'}, "[1920:a 960:bb 0:c]"},
		"none before":        {[]byte{111, 'n', 'e', 'w'}, "[0:new]"},
		"one that was lost":  {[]byte{0x80 | 111, 0, 0, 0, 111, 'n'}, "[0: 0:n]"},
		"nothing":            {nil, "[]"},
		"the end is missing": {[]byte{0x80 | 111, 0, 0, 1}, "[]"},
		"half a header":      {[]byte{0x80 | 111, 0}, "[]"},
		"shorter than said":  {[]byte{0x80 | 111, 0, 0, 9, 111, 'o', 'l', 'd'}, "[]"},
		"too many":           {bytes.Repeat([]byte{0x80 | 111, 0, 0, 0}, 20), "[]"},
	}
}

func TestParseRED(t *testing.T) {
	for name, c := range redCases() {
		t.Run(name, func(t *testing.T) {
			if got := blocksOf(c.in); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func blocksOf(payload []byte) string {
	got := []string{}
	for _, b := range parseRED(payload, nil) {
		got = append(got, fmt.Sprintf("%d:%s", b.ago, b.payload))
	}
	return fmt.Sprint(got)
}

func FuzzRED(f *testing.F) {
	for _, c := range redCases() {
		f.Add(c.in)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		was := slices.Clone(b)
		size := 0
		for _, block := range parseRED(b, nil) {
			size += len(block.payload)
		}
		if size > len(b) || !bytes.Equal(was, b) {
			t.Fatalf("%d bytes of %d, %x was %x", size, len(b), b, was)
		}
	})
}

// Who has told of a loss gets each packet twice, for a while; the others don't notice.
func TestRedundancyForWhoLoses(t *testing.T) {
	s := newStageOf(t, []media.Track{opus}, outTrack{wanted: true, pt: 111, redPT: 63, ssrc: 3})
	s.join()
	seq := uint16(100)
	say := func(n int) {
		for range n {
			b := media.NewBurst(0, uint32(seq)*960)
			b.Append(seq, false, fmt.Appendf(nil, "p%d", seq))
			s.send(b, false)
			b.Release()
			seq++
		}
	}
	say(2)
	s.v.redUntil.Store(s.shard.now.Add(redFor).UnixNano())
	say(2)
	seq++ // one that the node has not got
	say(2)
	s.shard.now = s.shard.now.Add(redFor)
	say(1)
	want := []string{"111 p100", "111 p101", "63 [960:p101 0:p102]", "63 [960:p102 0:p103]", "111 p105", "63 [960:p105 0:p106]", "111 p107"}
	if got := s.said(t); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if b := s.lane.tracks[0].latest; b == nil {
		t.Error("nothing is kept for the next one")
	}
	s.v.leave(s.shard)
	if b := s.lane.tracks[0].latest; b != nil {
		t.Error("it is kept after the last viewer has left")
	}
}

// said is what came: payload types, and text.
func (s *stage) said(t *testing.T) (all []string) {
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
		text := string(plain)
		if h.PayloadType == 63 {
			text = blocksOf(plain)
		}
		all = append(all, fmt.Sprint(h.PayloadType, " ", text))
	}
	return all
}

func TestRedundancyAllocatesNothing(t *testing.T) {
	s := newStageOf(t, []media.Track{opus}, outTrack{wanted: true, pt: 111, redPT: 63, ssrc: 3})
	s.join()
	s.v.redUntil.Store(s.shard.now.Add(time.Hour).UnixNano())
	s.v.report = s.shard.now
	var bursts []*media.Burst
	for i := range 300 {
		b := media.NewBurst(0, uint32(i)*960)
		b.Append(uint16(i), false, make([]byte, 80))
		bursts = append(bursts, b)
	}
	i := 0
	if n := testing.AllocsPerRun(200, func() {
		s.send(bursts[i], false)
		i++
	}); n > 0 {
		t.Errorf("%v allocations for a packet", n)
	}
}

// What was lost on the way in comes out of the next packet, in order and once.
func TestRedundancyFromAPublisher(t *testing.T) {
	var got []string
	r := &Receiver{tracks: []media.Track{opus}, lanes: []inTrack{{pt: 111, redPT: 63}}}
	r.clocks = newClocks(r.tracks)
	r.onBurst = func(b *media.Burst) {
		got = append(got, fmt.Sprintf("%d@%d %s", b.Packets[0].Seq, b.Timestamp, b.Packets[0].Payload))
		b.Release()
	}
	say := func(seq uint16, payload ...byte) {
		r.takeRED(0, &rtp.Header{SequenceNumber: seq, Timestamp: uint32(seq) * 960, PayloadType: 63}, payload, time.Now())
	}
	with := func(old, text string) []byte {
		b := append([]byte{0x80 | 111, 960 >> 6, 960 << 2 & 0xff, byte(len(old)), 111}, old...)
		return append(b, text...)
	}
	say(1, with("zero", "one")...) // what came before the first is not asked for
	say(2, with("one", "two")...)
	say(4, with("three", "four")...) // 3 was lost
	say(7, with("six", "seven")...)  // 5 and 6 were lost
	say(6, with("five", "six")...)   // which comes late, after all
	say(8, 0x80)                     // malformed
	want := []string{"1@960 one", "2@1920 two", "3@2880 three", "4@3840 four", "6@5760 six", "7@6720 seven", "5@4800 five"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// The peer's order says whether it prefers redundancy, and the answer has that order; what is asked for again is agreed on.
func TestRedundancyIsAgreedOn(t *testing.T) {
	for name, c := range map[string]struct{ order, extra, want string }{
		"opus first":      {"111 63", "", "m=audio 111 63"},
		"red first":       {"63 111", "", "m=audio 63 111"},
		"red without red": {"111", "", "m=audio 111"},
		"nack":            {"111", "a=rtcp-fb:111 nack\r\n", "m=audio 111 nack"},
		"nack and red":    {"111 63", "a=rtcp-fb:111 nack\r\n", "m=audio 111 63"},
	} {
		t.Run(name, func(t *testing.T) {
			e := listen(t)
			offer := "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=fingerprint:sha-256 " + string(bytes.Repeat([]byte("AB:"), 31)) + "AB\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n" +
				"m=audio 9 UDP/TLS/RTP/SAVPF " + c.order + "\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n" + c.extra
			v, answer, err := e.NewGroup([]media.Track{opus}, false).Answer(offer, SenderOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			var d sdp.SessionDescription
			if err := d.UnmarshalString(answer); err != nil {
				t.Fatal(err)
			}
			m := d.MediaDescriptions[0]
			got := "m=audio"
			for _, f := range m.MediaName.Formats {
				got += " " + f
			}
			for _, a := range m.Attributes {
				if a.String() == "rtcp-fb:111 nack" {
					got += " nack"
				}
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if fmtp := formats(m)[0].codec.Param("useinbandfec"); fmtp != "1" {
				t.Errorf("useinbandfec is %q in the answer", fmtp)
			}
		})
	}
}

// Sound is sent again to who has agreed on that, and only to them.
func TestSoundIsSentAgain(t *testing.T) {
	for _, nack := range []bool{true, false} {
		s := newStageOf(t, []media.Track{opus}, outTrack{wanted: true, pt: 111, nack: nack, ssrc: 3})
		s.join()
		for i := range uint16(5) {
			b := media.NewBurst(0, uint32(i)*960)
			b.Append(i, false, fmt.Appendf(nil, "p%d", i))
			s.send(b, false)
			b.Release()
		}
		_ = s.said(t)
		s.v.asked = []asked{{0, 3}}
		s.v.sendAgain(s.shard)
		s.later(10 * time.Millisecond)
		want := []string{"111 p3"}
		if !nack {
			want = nil
		}
		if got := s.said(t); !slices.Equal(got, want) {
			t.Errorf("agreed on %t: got %q", nack, got)
		}
	}
}
