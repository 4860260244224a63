package signal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	psdp "github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"sluice/media"
	"sluice/stream"
)

// read returns an offer of testdata as it goes over the wire.
func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "offers", name+".sdp"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), "\n", "\r\n")
}

// publish makes a stream live without a publisher's session.
func (s *server) publish(t *testing.T, id string, tracks ...media.Track) {
	t.Helper()
	p, err := s.hub.Publish(t.Context(), media.Key{App: "live", ID: id}, stream.PublishOptions{Tracks: tracks})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(stream.ErrStopped) })
}

var (
	h264 = media.Track{Kind: media.Video, Codec: media.Codec{Name: media.H264, ClockRate: 90000, Fmtp: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"}}
	high = media.Track{Kind: media.Video, Codec: media.Codec{Name: media.H264, ClockRate: 90000, Fmtp: "packetization-mode=1;profile-level-id=640c1f"}}
	vp8  = media.Track{Kind: media.Video, Codec: media.Codec{Name: media.VP8, ClockRate: 90000}}
	opus = media.Track{Kind: media.Audio, Codec: media.Codec{Name: media.Opus, ClockRate: 48000, Channels: 2}}
)

// sections says in short what an answer holds: "video mid=1 H264/126 recvonly passive" for each media line.
func sections(t *testing.T, answer string) (lines []string, d psdp.SessionDescription) {
	t.Helper()
	if err := d.UnmarshalString(answer); err != nil {
		t.Fatalf("the answer can't be read: %v\n%s", err, answer)
	}
	for _, m := range d.MediaDescriptions {
		value := func(key string) string { v, _ := m.Attribute(key); return v }
		names := map[string]string{}
		for _, a := range m.Attributes {
			if a.Key == "rtpmap" {
				pt, name, _ := strings.Cut(a.Value, " ")
				names[pt], _, _ = strings.Cut(name, "/")
			}
		}
		line := m.MediaName.Media + " mid=" + value("mid")
		if m.MediaName.Port.Value == 0 {
			lines = append(lines, line+" refused")
			continue
		}
		for _, pt := range m.MediaName.Formats {
			line += " " + names[pt] + "/" + pt
		}
		for _, direction := range []string{"sendrecv", "sendonly", "recvonly", "inactive"} {
			if _, ok := m.Attribute(direction); ok {
				line += " " + direction
			}
		}
		lines = append(lines, line+" "+value("setup"))
	}
	return lines, d
}

// layers are the simulcast layers of a media line in one direction, and its rid lines after them.
func layers(m *psdp.MediaDescription, direction string) (list []string) {
	if line, ok := m.Attribute("simulcast"); ok {
		list = append(list, strings.TrimPrefix(line, direction+" "))
	}
	for _, a := range m.Attributes {
		if id, way, _ := strings.Cut(a.Value, " "); a.Key == "rid" {
			list = append(list, strings.TrimSuffix(id+" "+way, " "+direction))
		}
	}
	return list
}

// check looks at what every answer must hold, whatever the offer was.
func check(t *testing.T, offer string, d psdp.SessionDescription) {
	t.Helper()
	var o psdp.SessionDescription
	if err := o.UnmarshalString(offer); err != nil {
		t.Fatal(err)
	}
	if _, lite := d.Attribute("ice-lite"); !lite {
		t.Error("no ice-lite, though we send no checks (RFC 8839 §5.3)")
	}
	bundle, transport := "BUNDLE", false
	for i, m := range d.MediaDescriptions {
		candidates := slices.ContainsFunc(m.Attributes, func(a psdp.Attribute) bool { return a.IsICECandidate() })
		if m.MediaName.Port.Value == 0 {
			if candidates {
				t.Errorf("media line %d is refused and has candidates", i)
			}
			continue
		}
		if bundle == "BUNDLE" {
			transport = candidates
		}
		mid, _ := m.Attribute("mid")
		bundle += " " + mid
		has := func(key string) bool { _, ok := m.Attribute(key); _, all := d.Attribute(key); return ok || all }
		for _, key := range []string{"ice-ufrag", "ice-pwd", "fingerprint", "rtcp-mux"} {
			if !has(key) {
				t.Errorf("media line %d has no %s", i, key)
			}
		}
		if sent, taken := layers(o.MediaDescriptions[i], "send"), layers(m, "recv"); !slices.Equal(sent, taken) {
			t.Errorf("media line %d is offered in the layers %q, and takes %q (RFC 8853 §5.3)", i, sent, taken)
		}
		if _, only := o.MediaDescriptions[i].Attribute("rtcp-mux-only"); only && !has("rtcp-mux-only") {
			t.Errorf("media line %d has no rtcp-mux-only (RFC 9725 §4.4.1)", i)
		}
	}
	if !transport {
		t.Error("the first media line that is taken has no candidates")
	}
	if group, _ := d.Attribute("group"); group != bundle {
		t.Errorf("group %q, want %q: what is taken (RFC 9143 §7.3)", group, bundle)
	}
}

// What programs that are not ours offer. Those of Chromium 156 and GStreamer 1.22 were recorded; the others have the
// shape that those programs are known for.
func TestOffersOfOtherPrograms(t *testing.T) {
	s := serve(t)
	s.publish(t, "h264", h264, opus)
	s.publish(t, "high", high, opus)
	s.publish(t, "vp8", vp8, opus)
	s.publish(t, "sound", opus)
	s.publish(t, "picture", h264)
	for i, c := range []struct {
		offer, stream string // stream: what is played; "" for a publisher
		want          []string
	}{
		{"chrome-156-whip", "", []string{"audio mid=0 opus/111 red/63 recvonly passive", "video mid=1 H264/108 rtx/109 recvonly passive"}},
		{"chrome-156-simulcast", "", []string{"video mid=0 H264/108 rtx/109 recvonly passive"}},
		{"chrome-79-whip", "", []string{"audio mid=0 opus/111 recvonly passive", "video mid=1 H264/125 rtx/107 recvonly passive"}},
		{"firefox-whip", "", []string{"audio mid=0 opus/109 recvonly passive", "video mid=1 H264/126 rtx/127 recvonly passive"}},
		{"safari-whip", "", []string{"audio mid=0 opus/111 red/63 recvonly passive", "video mid=1 H264/98 rtx/99 recvonly passive"}},
		{"obs-whip", "", []string{"audio mid=0 opus/111 recvonly passive", "video mid=1 H264/96 recvonly passive"}},
		{"libdatachannel-whip", "", []string{"audio mid=audio opus/111 recvonly passive", "video mid=video H264/96 recvonly passive"}},
		{"gstreamer-1.22-whip", "", []string{"video mid=video0 H264/96 recvonly passive", "audio mid=audio1 OPUS/111 recvonly passive"}},
		{"gstreamer-1.22-whip-no-mode", "", []string{"video mid=video0 H264/96 recvonly passive", "audio mid=audio1 OPUS/111 recvonly passive"}},
		{"ffmpeg-passive-whip", "", []string{"audio mid=0 opus/111 recvonly active", "video mid=1 H264/106 recvonly active"}},
		{"ffmpeg-active-whip", "", []string{"audio mid=0 opus/111 recvonly passive", "video mid=1 H264/106 recvonly passive"}},

		{"chrome-156-whep", "h264", []string{"video mid=0 H264/108 rtx/109 sendonly passive", "audio mid=1 opus/111 red/63 sendonly passive"}},
		{"chrome-156-whep", "vp8", []string{"video mid=0 VP8/96 rtx/97 sendonly passive", "audio mid=1 opus/111 red/63 sendonly passive"}},
		{"chrome-156-whep", "high", []string{"video mid=0 H264/102 rtx/103 sendonly passive", "audio mid=1 opus/111 red/63 sendonly passive"}},
		{"chrome-156-whep", "sound", []string{"video mid=0 refused", "audio mid=1 opus/111 red/63 sendonly passive"}},
		{"chrome-156-whep", "picture", []string{"video mid=0 H264/108 rtx/109 sendonly passive", "audio mid=1 refused"}},
		{"firefox-whep", "h264", []string{"audio mid=0 opus/109 sendonly passive", "video mid=1 H264/126 rtx/127 sendonly passive"}},
		{"firefox-whep", "high", []string{"audio mid=0 opus/109 sendonly passive", "video mid=1 H264/126 rtx/127 sendonly passive"}},
		{"firefox-whep", "vp8", []string{"audio mid=0 opus/109 sendonly passive", "video mid=1 VP8/120 rtx/124 sendonly passive"}},
		{"firefox-no-openh264-whep", "vp8", []string{"audio mid=0 opus/109 sendonly passive", "video mid=1 VP8/120 rtx/124 sendonly passive"}},
		{"safari-whep", "h264", []string{"audio mid=0 opus/111 red/63 sendonly passive", "video mid=1 H264/98 rtx/99 sendonly passive"}},
		{"safari-whep", "high", []string{"audio mid=0 opus/111 red/63 sendonly passive", "video mid=1 H264/96 rtx/97 sendonly passive"}},
		{"gstreamer-1.22-whep", "h264", []string{"video mid=video0 H264/96 sendonly passive", "audio mid=audio1 OPUS/111 sendonly passive"}},
		{"gstreamer-1.22-whep", "vp8", []string{"video mid=video0 VP8/97 sendonly passive", "audio mid=audio1 OPUS/111 sendonly passive"}},
	} {
		t.Run(strings.TrimSuffix(c.offer+" "+c.stream, " "), func(t *testing.T) {
			path := fmt.Sprintf("/live/whip/published-%d", i)
			if c.stream != "" {
				path = "/live/whep/" + c.stream
			}
			offer := read(t, c.offer)
			res, answer, _ := s.do(t, "POST", path, sdp, offer)
			if res.StatusCode != 201 {
				t.Fatalf("%s: %s", res.Status, answer)
			}
			got, d := sections(t, answer)
			if !slices.Equal(got, c.want) {
				t.Errorf("answer\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(c.want, "\n  "))
			}
			check(t, offer, d)
			if res, _, _ := s.do(t, "DELETE", res.Header.Get("Location"), "", ""); res.StatusCode != 200 {
				t.Errorf("DELETE: %s", res.Status)
			}
		})
	}
}

// Offers that would give a session in which something is missing are refused (RFC 9725 §4.4.2, §4.4.3).
func TestOffersOfTheWrongKind(t *testing.T) {
	s := serve(t)
	s.publish(t, "live", h264, opus)
	sends, asks := read(t, "chrome-156-whip"), read(t, "chrome-156-whep")
	video := sends[strings.Index(sends, "m=video"):]
	for _, c := range []struct {
		name, path, offer string
		status            int
		code              string
	}{
		{"a player's offer to publish", "/live/whip/s", asks, 400, "bad_sdp"},
		{"a publisher's offer to play", "/live/whep/live", sends, 406, "no_codec"},
		{"two pictures", "/live/whip/s", strings.Replace(sends, "BUNDLE 0 1", "BUNDLE 0 1 2", 1) + strings.Replace(video, "a=mid:1", "a=mid:2", 1), 400, "bad_sdp"},
		{"no direction", "/live/whip/s", strings.ReplaceAll(sends, "a=sendonly\r\n", ""), 400, "bad_sdp"},
		{"inactive", "/live/whip/s", strings.ReplaceAll(sends, "a=sendonly", "a=inactive"), 400, "bad_sdp"},
		{"a codec that nobody knows", "/live/whip/s", strings.NewReplacer("opus/", "speex/", "PCMU/", "x/", "PCMA/", "y/").Replace(sends), 406, "no_codec"},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, text, code := s.do(t, "POST", c.path, sdp, c.offer)
			if res.StatusCode != c.status || code != c.code {
				t.Errorf("%s %q: %s", res.Status, code, text)
			}
			if n := s.rtc.Sessions(); n != 0 {
				t.Errorf("%d sessions are left behind", n)
			}
		})
	}
}

// ffmpeg's publisher wants to be DTLS server: then we begin the handshake (RFC 8842 §5.3).
func TestPublisherThatIsDTLSServer(t *testing.T) {
	s := serve(t)
	publish, publisher := offer(t, webrtc.RTPTransceiverDirectionSendonly)
	res, answer, _ := s.do(t, "POST", "/live/whip/one", sdp, strings.ReplaceAll(publish, "a=setup:actpass", "a=setup:passive"))
	if res.StatusCode != 201 || attributeOf(answer, "setup") != "active" {
		t.Fatalf("%s: %s", res.Status, answer)
	}
	connected := make(chan struct{})
	publisher.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateConnected {
			close(connected)
		}
	})
	if err := publisher.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-connected:
	case <-time.After(10 * time.Second):
		t.Fatalf("no connection within 10 s: %s", publisher.ConnectionState())
	}
}
