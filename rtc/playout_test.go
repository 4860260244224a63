package rtc

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtp"

	"sluice/media"
)

// Each packet of a key frame says how long the player may keep the picture back, beside the transport-wide number or without it; others don't.
func TestPlayoutDelayWithKeyFrames(t *testing.T) {
	for _, wideID := range []uint8{0, 3} {
		t.Run(fmt.Sprint("wide ", wideID), func(t *testing.T) {
			s := newStageOf(t, []media.Track{h264}, outTrack{wanted: true, pt: 96, delayID: 5, wideID: wideID, ssrc: 1})
			s.v.group.playout = 20
			s.join()
			for i := range uint32(4) {
				s.send(picture(uint16(100+3*i), i*3000, 3, i%2 == 0), false)
			}
			s.later(20 * time.Millisecond)
			packets, _ := s.got(t)
			if len(packets) != 12 {
				t.Fatalf("%d packets came", len(packets))
			}
			for i, b := range packets {
				var h rtp.Header
				n, err := h.Unmarshal(b)
				if err != nil {
					t.Fatal(err)
				}
				var delay rtp.PlayoutDelayExtension
				ext := h.GetExtension(5)
				if key := i/3%2 == 0; key != (ext != nil) {
					t.Errorf("packet %d of a key frame: %t, extension %x", i, key, ext)
				} else if key && (delay.Unmarshal(ext) != nil || delay.MinDelay != 0 || delay.MaxDelay != 20) {
					t.Errorf("packet %d says %+v", i, delay)
				}
				if wide := h.GetExtension(3); wideID != 0 && (len(wide) != 2 || int(wide[1]) != i) {
					t.Errorf("packet %d has the number %x", i, wide)
				}
				p := profiles()[0]
				o, err := newOpener(splitKeys(p, make([]byte, p.material()), true))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := o.open(b, &h, n); err != nil {
					t.Errorf("packet %d: %v", i, err)
				}
			}
		})
	}
}

// The extension is answered to who offers it, and offered, where the node has a delay to tell.
func TestPlayoutDelayIsAgreedOn(t *testing.T) {
	offer := "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=fingerprint:sha-256 " + strings.Repeat("AB:", 31) + "AB\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n" +
		"m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n"
	extension := "a=extmap:6 " + delayURI + "\r\n"
	some, far := 100*time.Millisecond, time.Hour
	for _, c := range []struct {
		name  string
		delay *time.Duration
		offer string
		want  []string // in the answer, and in an offer of ours
		value uint32
	}{
		{"both have it", &some, offer + extension, []string{"6", "1"}, 10},
		{"the peer has not", &some, offer, []string{"", "1"}, 10},
		{"the node has not", nil, offer + extension, []string{"", ""}, 0},
		{"longer than can be said", &far, offer + extension, []string{"6", "1"}, 1<<12 - 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := listen(t)
			g := e.NewGroup([]media.Track{{Kind: media.Video, Codec: media.Codec{Name: media.VP8, ClockRate: 90000}}}, false)
			g.SetPlayout(c.delay)
			v, answer, err := g.Answer(c.offer, SenderOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			w, ours, err := g.Offer(SenderOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			var got []string
			for _, sdp := range []string{answer, ours} {
				before, _, found := strings.Cut(sdp, " "+delayURI)
				id := ""
				if found {
					id = before[strings.LastIndex(before, ":")+1:]
				}
				got = append(got, id)
			}
			if !slices.Equal(got, c.want) || g.playout != c.value {
				t.Errorf("got %q and %d, want %q and %d", got, g.playout, c.want, c.value)
			}
		})
	}
}

// Viewers to whom we make the offer tell arrival times, too, where the path matters: those who take the extension, and no others.
func TestOffersAskForArrivalTimes(t *testing.T) {
	for _, c := range []struct {
		name     string
		adaptive bool
		lines    string // of the answer
		offered  bool
		want     uint8
	}{
		{"taken", true, "a=extmap:2 " + wideURI + "\r\na=rtcp-fb:96 transport-cc\r\n", true, 2},
		{"not taken", true, "a=rtcp-fb:96 goog-remb\r\n", true, 0},
		{"one rendition", false, "a=rtcp-fb:96 goog-remb\r\n", false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := listen(t).NewGroup([]media.Track{{Kind: media.Video, Codec: media.Codec{Name: media.VP8, ClockRate: 90000}}}, c.adaptive)
			v, offer, err := g.Offer(SenderOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			if got := strings.Contains(offer, "a=rtcp-fb:96 transport-cc") && strings.Contains(offer, wideURI); got != c.offered || !strings.Contains(offer, "goog-remb") {
				t.Errorf("offered %t:\n%s", got, offer)
			}
			err = v.SetAnswer("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=fingerprint:sha-256 " + strings.Repeat("AB:", 31) + "AB\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\na=setup:active\r\n" +
				"m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n" + c.lines)
			if err != nil || v.tracks[0].wideID != c.want {
				t.Errorf("the extension is %d, want %d; %v", v.tracks[0].wideID, c.want, err)
			}
		})
	}
}
