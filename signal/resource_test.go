package signal_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	egress "sluice/egress/webrtc"
	ingest "sluice/ingest/webrtc"
	"sluice/internal/access"
	"sluice/media"
	"sluice/rtc"
	"sluice/signal"
	"sluice/signal/whep"
	"sluice/signal/whip"
	"sluice/stream"
)

// server is WHIP and WHEP over a real hub and real media.
type server struct {
	*httptest.Server
	hub  *stream.Hub
	whip *signal.Resource
	whep *signal.Resource
	rtc  *rtc.Endpoint
}

func serve(t *testing.T) *server {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	s := &server{hub: stream.NewHub(stream.Config{Log: quiet, Farewell: 100 * time.Millisecond}), rtc: rtc.New(rtc.Config{Listen: "127.0.0.1:0", Log: quiet})}
	if err := s.rtc.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.hub.Run(ctx) })
	running.Go(func() { _ = s.rtc.Run(ctx) })
	cfg := signal.Config{
		Node: "node-1", Apps: func() []string { return []string{"live"} }, Log: quiet,
		ICEServers: []signal.ICEServer{{URL: "stun:stun.example.org:3478"}, {URL: "turn:turn.example.org", Username: "u", Credential: "p"}},
		Relays: func() []signal.ICEServer {
			return []signal.ICEServer{{URL: "turn:192.0.2.1:3478?transport=tcp", Username: "1:x", Credential: "q="}}
		},
		Authorize: func(_ context.Context, r access.Request) (*access.Grant, error) {
			switch r.Token {
			case "bad":
				return nil, access.ErrUnauthorized
			case "other":
				return nil, access.ErrForbidden
			}
			return nil, nil
		},
		ClientAddr: func(*http.Request) netip.Addr { return netip.MustParseAddr("192.0.2.1") },
		Viewers:    func(media.Key) int { return 7 },
	}
	mux := http.NewServeMux()
	s.whip = whip.New(ingest.New(ingest.Config{Hub: s.hub, RTC: s.rtc, Log: quiet}), cfg)
	s.whep = whep.New(egress.New(egress.Config{Hub: s.hub, RTC: s.rtc, Log: quiet}), cfg)
	s.whip.Register(mux)
	s.whep.Register(mux)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(func() {
		s.Server.Close()
		cancel()
		running.Wait()
		if n := s.rtc.Sessions(); n != 0 {
			t.Errorf("%d WebRTC sessions are left", n)
		}
	})
	return s
}

// offer is a browser's offer of one kind of work.
func offer(t *testing.T, direction webrtc.RTPTransceiverDirection) (string, *webrtc.PeerConnection) {
	t.Helper()
	pc, err := webrtc.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	if direction == webrtc.RTPTransceiverDirectionSendonly {
		track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH264, ClockRate: 90000}, "v", "s")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: direction}); err != nil {
			t.Fatal(err)
		}
	} else if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: direction}); err != nil {
		t.Fatal(err)
	}
	o, err := pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := pc.SetLocalDescription(o); err != nil {
		t.Fatal(err)
	}
	return o.SDP, pc
}

// do sends a request; the code is that of the problem, if the answer is one.
func (s *server) do(t *testing.T, method, path, contentType, body string, headers ...string) (res *http.Response, text, code string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err = s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.Header.Get("Content-Type") == "application/problem+json" {
		var p struct{ Code, Detail string }
		if err := json.Unmarshal(b, &p); err != nil || p.Detail == "" {
			t.Errorf("problem without words: %s", b)
		}
		code = p.Code
	}
	return res, string(b), code
}

// attributeOf is the first value of an attribute.
func attributeOf(text, name string) string {
	_, rest, _ := strings.Cut(text, "a="+name+":")
	value, _, _ := strings.Cut(rest, "\r\n")
	return value
}

const (
	sdp  = "application/sdp"
	frag = "application/trickle-ice-sdpfrag"
)

func TestLifeOfASession(t *testing.T) {
	s := serve(t)
	publish, publisher := offer(t, webrtc.RTPTransceiverDirectionSendonly)
	res, answer, code := s.do(t, "POST", "/live/whip/one", sdp, publish, "Authorization", "Bearer good")
	if res.StatusCode != 201 {
		t.Fatalf("publish: %s %s", res.Status, code)
	}
	h := res.Header
	location, etag := h.Get("Location"), h.Get("ETag")
	if !strings.HasPrefix(location, "/live/whip/one/node-1.") || !strings.HasPrefix(etag, `"`) || h.Get("Content-Type") != sdp {
		t.Errorf("Location %q, ETag %q, Content-Type %q", location, etag, h.Get("Content-Type"))
	}
	if links := strings.Join(h.Values("Link")[1:], "\n"); links != "<stun:stun.example.org:3478>; rel=\"ice-server\"\n<turn:turn.example.org>; rel=\"ice-server\"; username=\"u\"; credential=\"p\"; credential-type=\"password\"\n"+
		"<turn:192.0.2.1:3478?transport=tcp>; rel=\"ice-server\"; username=\"1:x\"; credential=\"q=\"; credential-type=\"password\"" {
		t.Errorf("Link %s", links)
	}
	if h.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(h.Get("Access-Control-Expose-Headers"), "Location") {
		t.Error("a page of another origin can't read the answer's headers")
	}
	if err := publisher.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(answer, "a=ice-lite") || !strings.Contains(answer, "a=candidate:") {
		t.Error("the answer has no candidates of an ICE-lite side")
	}

	play, _ := offer(t, webrtc.RTPTransceiverDirectionRecvonly)
	res, _, code = s.do(t, "POST", "/live/whep/one", sdp, play)
	if res.StatusCode != 201 {
		t.Fatalf("play: %s %s", res.Status, code)
	}
	viewer := res.Header.Get("Location")

	candidate := "a=mid:0\r\na=candidate:1 1 udp 2130706431 192.0.2.7 5000 typ host\r\na=end-of-candidates\r\n"
	for _, c := range []struct {
		name, path, contentType, body, match string
		status                               int
		code                                 string
	}{
		{"trickle", location, frag, candidate, etag, 204, ""},
		{"trickle to any version", location, frag, candidate, "*", 204, ""},
		{"trickle without If-Match", location, frag, candidate, "", 428, "need_etag"},
		{"trickle to an old version", location, frag, candidate, `"old"`, 412, "wrong_etag"},
		{"trickle of another type", location, sdp, candidate, etag, 415, "wrong_media_type"},
		{"nonsense candidate", location, frag, "a=candidate:x\r\n", etag, 400, "bad_candidate"},
		{"not a fragment", location, frag, "hello\r\n", etag, 400, "bad_sdp"},
		{"what else a client may have", location, frag, "a=ice-ufrag:" + attributeOf(publish, "ice-ufrag") + "\r\na=ice-pwd:" + attributeOf(publish, "ice-pwd") + "\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n" +
			"a=candidate:1 1 TCP 1518280447 192.0.2.7 9 typ host tcptype active\r\n" +
			"a=candidate:2 0 udp 2113937151 192.0.2.7 5000 typ host\r\n" +
			"a=candidate:3 1 udp 2113937151 3d1f6a0e-7a55-4d6b-9c1e-7f7b0c9a1c11.local 52210 typ host generation 0 ufrag x network-cost 999\r\n" +
			"a=candidate:4 1 udp 1677729535 198.51.100.7 5000 typ srflx raddr 0.0.0.0 rport 0\r\n" +
			"a=candidate:5 1 UDP 41885439 2001:db8::7 50000 typ relay raddr 198.51.100.7 rport 5000\r\n" +
			"a=candidate:6 1 ssltcp 1518280447 192.0.2.7 443 typ host\r\n" +
			"a=candidate:7 1 udp 1 host.example.org 5000 typ host\r\n" +
			"a=end-of-candidates\r\n", etag, 204, ""},
		{"too large", location, frag, "a=" + strings.Repeat("x", 40<<10), etag, 413, "too_large"},
		{"too many candidates", location, frag, strings.Repeat("a=candidate:1 1 udp 1 192.0.2.7 5000 typ host\r\n", 200), etag, 400, "bad_candidate"},
		{"restart with bad credentials", location, frag, "a=ice-ufrag:ab\r\na=ice-pwd:short\r\n", "*", 400, "bad_sdp"},
		{"no such session", location + "x", frag, candidate, etag, 404, "no_session"},
		{"another stream's path", strings.Replace(location, "/one/", "/two/", 1), frag, candidate, etag, 404, "no_session"},
		{"the other protocol", strings.Replace(location, "/whip/", "/whep/", 1), frag, candidate, etag, 404, "no_session"},
	} {
		t.Run(c.name, func(t *testing.T) {
			headers := []string{}
			if c.match != "" {
				headers = []string{"If-Match", c.match}
			}
			res, text, code := s.do(t, "PATCH", c.path, c.contentType, c.body, headers...)
			if res.StatusCode != c.status || code != c.code {
				t.Errorf("%s %q: %s", res.Status, code, text)
			}
		})
	}

	for _, path := range []string{location, viewer} {
		if res, text, _ := s.do(t, "GET", path, "", ""); res.StatusCode != 204 || text != "" {
			t.Errorf("GET: %s %q", res.Status, text)
		}
		if res, _, code := s.do(t, "PUT", path, sdp, publish); res.StatusCode != 405 || code != "method_not_allowed" || !strings.Contains(res.Header.Get("Allow"), "PATCH") {
			t.Errorf("PUT: %s %s", res.Status, code)
		}
	}

	if res, text, _ := s.do(t, "PATCH", location, frag, candidate, "ETag", etag); res.StatusCode != 204 {
		t.Errorf("the tag as ETag: %s %s", res.Status, text)
	}

	res, text, _ := s.do(t, "PATCH", location, frag, "a=ice-ufrag:abcdefgh\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n", "If-Match", "*")
	if res.StatusCode != 200 || res.Header.Get("ETag") == etag || res.Header.Get("Content-Type") != frag {
		t.Errorf("ICE restart: %s, ETag %s, %q", res.Status, res.Header.Get("ETag"), text)
	}
	if old := attributeOf(answer, "ice-ufrag"); strings.Contains(text, old) {
		t.Errorf("the answer to a restart still has the user name %s: %q", old, text)
	}
	for _, want := range []string{"a=ice-lite", "a=group:BUNDLE 0", "m=video ", "a=mid:0", "a=ice-ufrag:", "a=ice-pwd:", "a=candidate:", "a=end-of-candidates"} {
		if !strings.Contains(text, want) {
			t.Errorf("the answer to a restart has no %s: %q", want, text)
		}
	}
	for _, path := range []string{viewer, location} {
		if res, _, _ := s.do(t, "DELETE", path, "", ""); res.StatusCode != 200 {
			t.Errorf("DELETE: %s", res.Status)
		}
		if res, _, code := s.do(t, "DELETE", path, "", ""); res.StatusCode != 404 || code != "no_session" {
			t.Errorf("DELETE again: %s %s", res.Status, code)
		}
	}
}

func TestRefusals(t *testing.T) {
	s := serve(t)
	publish, _ := offer(t, webrtc.RTPTransceiverDirectionSendonly)
	play, _ := offer(t, webrtc.RTPTransceiverDirectionRecvonly)
	for _, c := range []struct {
		name, method, path, contentType, body, token string
		status                                       int
		code                                         string
	}{
		{"stream that is not live", "POST", "/live/whep/nobody", sdp, play, "", 409, "stream_offline"},
		{"unknown application", "POST", "/other/whip/s", sdp, publish, "", 404, "unknown_app"},
		{"bad name", "POST", "/live/whip/a%20b", sdp, publish, "", 400, "bad_name"},
		{"very long name", "POST", "/live/whip/" + strings.Repeat("x", 300), sdp, publish, "", 400, "bad_name"},
		{"wrong content type", "POST", "/live/whip/s", "text/plain", publish, "", 415, "wrong_media_type"},
		{"no content type", "POST", "/live/whip/s", "", publish, "", 415, "wrong_media_type"},
		{"empty offer", "POST", "/live/whip/s", sdp, "", "", 400, "bad_sdp"},
		{"malformed offer", "POST", "/live/whip/s", sdp, "v=0\r\nm=video\r\n", "", 400, "bad_sdp"},
		{"enormous offer", "POST", "/live/whip/s", sdp, strings.Repeat("a=x\r\n", 50_000), "", 413, "too_large"},
		{"bad token", "POST", "/live/whip/s", sdp, publish, "bad", 401, "unauthorized"},
		{"token of somebody else", "POST", "/live/whip/s", sdp, publish, "other", 403, "forbidden"},
		{"a backup that is neither one nor none", "POST", "/live/whip/s?backup=perhaps", sdp, publish, "", 400, "bad_request"},
		{"the name of a backup", "POST", "/live/whip/s~backup", sdp, publish, "", 400, "bad_name"},
		{"the name of a backup, to watch", "POST", "/live/whep/s~backup", sdp, play, "", 400, "bad_name"},
		{"GET", "GET", "/live/whip/s", "", "", "", 204, ""},
		{"GET of an unknown application", "GET", "/other/whip/s", "", "", "", 404, "unknown_app"},
		{"PUT", "PUT", "/live/whip/s", "", "", "", 405, "method_not_allowed"},
		{"DELETE of the endpoint", "DELETE", "/live/whip/s", "", "", "", 405, "method_not_allowed"},
		{"PUT on a session", "PUT", "/live/whip/s/node-1.x", "", "", "", 404, "no_session"},
	} {
		t.Run(c.name, func(t *testing.T) {
			headers := []string{}
			if c.token != "" {
				headers = []string{"Authorization", "Bearer " + c.token}
			}
			res, text, code := s.do(t, c.method, c.path, c.contentType, c.body, headers...)
			if res.StatusCode != c.status || code != c.code {
				t.Errorf("%s %q: %s", res.Status, code, text)
			}
			if n := s.rtc.Sessions(); n != 0 {
				t.Errorf("%d sessions are left behind", n)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	s := serve(t)
	for _, c := range []struct {
		name, path, ask, key, value string
		links                       int
	}{
		{"endpoint", "/live/whip/s", "", "Accept-Post", "application/sdp", 3},
		{"session", "/live/whep/s/node-1.x", "", "Accept-Patch", "application/trickle-ice-sdpfrag", 0},
		{"a browser asks before POST: no credentials", "/live/whip/s", "POST", "Access-Control-Allow-Methods", "POST", 0},
		{"a browser asks before PATCH", "/live/whep/s/node-1.x", "PATCH", "Access-Control-Allow-Methods", "PATCH", 0},
		{"a client asks the endpoint for trickle", "/live/whip/s", "", "Access-Control-Allow-Methods", "PATCH", 3},
		{"and its page may read that", "/live/whip/s", "", "Access-Control-Expose-Headers", "Access-Control-Allow-Methods", 3},
		{"headers that a page may send", "/live/whip/s", "POST", "Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			headers := []string{"Origin", "https://example.org"}
			if c.ask != "" {
				headers = append(headers, "Access-Control-Request-Method", c.ask)
			}
			res, _, _ := s.do(t, "OPTIONS", c.path, "", "", headers...)
			if res.StatusCode != 204 || !strings.Contains(res.Header.Get(c.key), c.value) {
				t.Errorf("%s, %s: %s", res.Status, c.key, res.Header.Get(c.key))
			}
			if n := len(res.Header.Values("Link")); n != c.links {
				t.Errorf("%d links, want %d", n, c.links)
			}
		})
	}
}

func TestSessionIsForgottenWhenItEnds(t *testing.T) {
	s := serve(t)
	publish, publisher := offer(t, webrtc.RTPTransceiverDirectionSendonly)
	res, answer, _ := s.do(t, "POST", "/live/whip/one", sdp, publish)
	if res.StatusCode != 201 {
		t.Fatal(res.Status)
	}
	up := make(chan struct{})
	publisher.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateConnected {
			close(up)
		}
	})
	if err := publisher.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-up:
	case <-time.After(10 * time.Second):
		t.Fatal("no connection within 10 s")
	}
	_ = publisher.Close()
	poll(t, func() error {
		if n := s.whip.Sessions(); n != 0 {
			return errors.New("the session is still known")
		}
		return nil
	})
}

// poll waits until f returns nil, and says what it said last when it takes too long.
func poll(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func FuzzOfferOverHTTP(f *testing.F) {
	f.Add("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n")
	e := rtc.New(rtc.Config{Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
	if err := e.Listen(context.Background()); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, _, err := e.AnswerReceiver(text, rtc.ReceiverOptions{OnBurst: func(b *media.Burst) { b.Release() }})
		if err == nil {
			r.Close()
		}
		if n := e.Sessions(); n != 0 {
			t.Fatalf("%d sessions are left behind", n)
		}
	})
}
