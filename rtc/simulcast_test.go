package rtc

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"sluice/media"
)

// A publisher's renditions become tracks of their own: found by their names, and by their sources when packets name them no longer.
func TestSimulcast(t *testing.T) {
	m := &webrtc.MediaEngine{}
	if err := m.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	if err := webrtc.ConfigureSimulcastExtensionHeaders(m); err != nil {
		t.Fatal(err)
	}
	s := webrtc.SettingEngine{}
	s.SetIncludeLoopbackCandidate(true)
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithSettingEngine(s), webrtc.WithInterceptorRegistry(&interceptor.Registry{})).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	var tracks []*webrtc.TrackLocalStaticRTP
	rids := []string{"q", "h", "f"}
	var sender *webrtc.RTPSender
	for _, rid := range rids {
		track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "v", "s", webrtc.WithRTPStreamID(rid))
		if err != nil {
			t.Fatal(err)
		}
		tracks = append(tracks, track)
		if sender == nil {
			sender, err = pc.AddTrack(track)
		} else {
			err = sender.AddEncoding(track)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	e := listen(t)
	var mu sync.Mutex
	got := map[int]map[byte]int{} // by track and rendition
	r, answer, err := e.AnswerReceiver(offer(t, pc, nil), ReceiverOptions{Codecs: []string{media.VP8}, OnBurst: func(b *media.Burst) {
		mu.Lock()
		defer mu.Unlock()
		if got[b.Track] == nil {
			got[b.Track] = map[byte]int{}
		}
		got[b.Track][b.Packets[0].Payload[1]]++
		b.Release()
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if all := r.Tracks(); len(all) != 3 || all[0].Rendition != "" || all[1].Rendition != "h" || all[2].Rendition != "q" {
		t.Errorf("tracks %v", all)
	}
	if !strings.Contains(answer, "a=simulcast:recv f;h;q\r\n") || !strings.Contains(answer, "a=rid:q recv\r\n") {
		t.Errorf("answer\n%s", answer)
	}
	connected := make(chan struct{})
	pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateConnected {
			close(connected)
		}
	})
	accept(t, pc, answer)
	<-connected
	id := uint8(0)
	for _, x := range sender.GetParameters().HeaderExtensions {
		if x.URI == ridURI {
			id = uint8(x.ID)
		}
	}
	for n := range uint16(60) {
		for i, track := range tracks {
			p := &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: n, Timestamp: uint32(n) * 3000, Marker: true}, Payload: []byte{0x10, byte('0' + i), 0}}
			if n < 40 {
				_ = p.SetExtension(id, []byte(rids[i]))
			}
			if err := track.WriteRTP(p); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(5 * time.Millisecond)
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		mu.Lock()
		text := fmt.Sprint(got)
		done := got[0]['2'] > 50 && got[1]['1'] > 50 && got[2]['0'] > 50
		mixed := len(got) != 3 || len(got[0]) != 1 || len(got[1]) != 1 || len(got[2]) != 1
		mu.Unlock()
		if done && !mixed {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("came by track and rendition: %s", text)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// What is no simulcast is none.
func TestSimulcastLines(t *testing.T) {
	const head = "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\na=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\na=setup:active\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendonly\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n"
	const ext = "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n"
	for _, c := range []struct{ name, lines, want string }{
		{"three", ext + "a=simulcast:send h;m;l\r\n", "[h m l]"},
		{"small first", ext + "a=simulcast:send q;h;f\r\n", "[f h q]"},
		{"names of their own", ext + "a=simulcast:send 1;2;x\r\n", "[1 2 x]"},
		{"both directions", ext + "a=simulcast:recv a;b send low;high\r\n", "[high low]"},
		{"alternatives and paused", ext + "a=simulcast:send h,h2;~l\r\n", "[h l]"},
		{"no extension", "a=simulcast:send h;m;l\r\n", "[]"},
		{"one", ext + "a=simulcast:send h\r\n", "[]"},
		{"the same twice", ext + "a=simulcast:send h;h\r\n", "[]"},
		{"no names", ext + "a=simulcast:send ;;\r\n", "[]"},
		{"too many", ext + "a=simulcast:send a;b;c;d;e;f;g\r\n", "[a b c d]"},
		{"nothing", ext + "a=simulcast:send\r\n", "[]"},
		{"long name", ext + "a=simulcast:send aaaaaaaaaaaaaaaaaaaaaaaaaa;h;l\r\n", "[h l]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := parseDescription(head + c.lines)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(d.sections[0].layers.rids); got != c.want {
				t.Errorf("layers %s, want %s", got, c.want)
			}
		})
	}
}
