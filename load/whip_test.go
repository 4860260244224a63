package load

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"sluice/internal/problem"
)

func TestOffer(t *testing.T) {
	created := func(h map[string]string, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for k, v := range h {
				w.Header().Set(k, v)
			}
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, body)
		}
	}
	sdp := "application/sdp"
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		wantURL string // path of the resource
		code    string // of the refusal
		want    string // in the error
	}{
		{"relative location", created(map[string]string{"Content-Type": sdp, "Location": "/live/whip/s/o1.x", "ETag": `"e"`}, "v=0"), "/live/whip/s/o1.x", "", ""},
		{"type with parameter", created(map[string]string{"Content-Type": sdp + "; charset=utf-8", "Location": "s/o1.x"}, "v=0"), "/live/whip/s/o1.x", "", ""},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.URL.Path, "/other/") {
				http.Redirect(w, r, "/other/s", http.StatusTemporaryRedirect)
				return
			}
			if b, _ := io.ReadAll(r.Body); string(b) != "offer" || r.Header.Get("Authorization") != "Bearer tok" || r.Header.Get("Content-Type") != sdp {
				problem.New(problem.BadSDP, "the redirect lost something").Write(w)
				return
			}
			created(map[string]string{"Content-Type": sdp, "Location": "r1"}, "v=0")(w, r)
		}, "/other/r1", "", ""},
		{"no location", created(map[string]string{"Content-Type": sdp}, "v=0"), "", "", "Location"},
		{"not an SDP", created(map[string]string{"Content-Type": "text/html", "Location": "x"}, "<html>"), "", "", `content type "text/html"`},
		{"endless body", created(map[string]string{"Content-Type": sdp, "Location": "x"}, strings.Repeat("x", maxAnswer+1)), "", "", "larger than"},
		{"problem", func(w http.ResponseWriter, r *http.Request) {
			problem.New(problem.NodeFull, "try another one").Write(w)
		}, "", "node_full", "node_full: try another one (HTTP 503)"},
		{"offline", func(w http.ResponseWriter, r *http.Request) { problem.New(problem.StreamOffline, "not now").Write(w) }, "", "stream_offline", "sluice publish test-pattern"},
		{"unauthorised", func(w http.ResponseWriter, r *http.Request) { problem.New(problem.Unauthorized, "").Write(w) }, "", "unauthorized", "--token"},
		{"problem with control characters", func(w http.ResponseWriter, r *http.Request) {
			problem.New(problem.BadSDP, "a\x1b[31mred\x00\nsecond line").Write(w)
		}, "", "bad_sdp", "bad_sdp: a[31mred (HTTP 400)"},
		{"broken problem", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, `{"code":`)
		}, "", "", "Bad Gateway (HTTP 502)"},
		{"not ours", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, "", "", "is this a WHIP or WHEP address"},
		{"200 instead of 201", func(w http.ResponseWriter, r *http.Request) {}, "", "", "OK (HTTP 200)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewServer(c.handler)
			defer srv.Close()
			client := NewClient("tok", nil, false)
			defer client.Close()
			r, err := client.Offer(t.Context(), srv.URL+"/live/whip/s", "offer")
			if c.wantURL != "" {
				if err != nil || r.URL != srv.URL+c.wantURL || r.Answer != "v=0" {
					t.Fatalf("resource %+v, error %v", r, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("error %v, want one line with %q", err, c.want)
			}
			var ref *Refused
			if errors.As(err, &ref) && ref.Code != c.code || !errors.As(err, &ref) && c.code != "" {
				t.Errorf("refusal %+v, want code %q", ref, c.code)
			}
		})
	}
}

func TestResource(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.Method == http.MethodDelete && r.URL.Path == "/gone":
			problem.New(problem.NoSession, "it is over").Write(w)
		case r.Method == http.MethodDelete:
			w.WriteHeader(http.StatusOK)
		case r.Header.Get("Content-Type") != "application/trickle-ice-sdpfrag":
			problem.New(problem.WrongMedia, "no fragment").Write(w)
		case r.Header.Get("If-Match") == `"1"` && strings.HasPrefix(string(body), "a=candidate"):
			w.WriteHeader(http.StatusNoContent)
		case r.Header.Get("If-Match") == "*":
			w.Header().Set("ETag", `"2"`)
			_, _ = io.WriteString(w, "a=ice-ufrag:new")
		default:
			problem.New(problem.WrongETag, "it has changed").Write(w)
		}
	}))
	defer srv.Close()
	client := NewClient("", nil, false)
	defer client.Close()
	r := &Resource{URL: srv.URL + "/s", ETag: `"1"`, client: client}
	if _, err := r.Patch(t.Context(), "a=candidate:1", r.ETag); err != nil {
		t.Errorf("trickle: %v", err)
	}
	if got, err := r.Patch(t.Context(), "a=ice-ufrag:x", "*"); err != nil || got != "a=ice-ufrag:new" || r.ETag != `"2"` {
		t.Errorf("restart: %q, ETag %s, %v", got, r.ETag, err)
	}
	var ref *Refused
	if _, err := r.Patch(t.Context(), "a=candidate:1", `"0"`); !errors.As(err, &ref) || ref.Code != "wrong_etag" {
		t.Errorf("wrong ETag: %v", err)
	}
	if err := r.Delete(t.Context()); err != nil {
		t.Errorf("delete: %v", err)
	}
	gone := &Resource{URL: srv.URL + "/gone", client: client}
	if err := gone.Delete(t.Context()); !errors.As(err, &ref) || ref.Code != "no_session" {
		t.Errorf("delete what is gone: %v", err)
	}
}

func TestReachHints(t *testing.T) {
	tls := httptest.NewUnstartedServer(http.NotFoundHandler())
	tls.Config.ErrorLog = log.New(io.Discard, "", 0) // it is refused on purpose
	tls.StartTLS()
	defer tls.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for _, c := range []struct{ name, url, want string }{
		{"self-signed", tls.URL, "--insecure"},
		{"https to http", strings.Replace(plain.URL, "http:", "https:", 1), "try http://"},
		{"nobody there", gone.URL, "is the server running?"},
		{"no scheme", "localhost:5080/live/whip/s", "it must begin with http://"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := NewClient("", nil, false)
			defer client.Close()
			if _, err := client.Offer(t.Context(), c.url, "x"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want a hint with %q", err, c.want)
			}
		})
	}
	roots := x509.NewCertPool()
	roots.AddCert(tls.Certificate())
	trusting := NewClient("", roots, false)
	defer trusting.Close()
	var ref *Refused
	if _, err := trusting.Offer(t.Context(), tls.URL, "x"); !errors.As(err, &ref) {
		t.Errorf("with its certificate: %v, want to reach it", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("no longer wanted"))
	client := NewClient("", nil, true)
	defer client.Close()
	if _, err := client.Offer(ctx, tls.URL, "x"); err == nil || err.Error() != "no longer wanted" {
		t.Errorf("cancelled: %v", err)
	}
}

func TestAnswered(t *testing.T) {
	sdp := func(media ...string) string {
		return "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n" + strings.Join(media, "")
	}
	for _, c := range []struct {
		name, sdp, direction, want string
	}{
		{"both", sdp("m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=sendonly\r\n", "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=sendonly\r\n"), "sendonly", "video audio"},
		{"audio is inactive", sdp("m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=sendrecv\r\n", "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=inactive\r\n"), "sendonly", "video"},
		{"video is refused", sdp("m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=sendonly\r\n", "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"), "sendonly", "audio"},
		{"other direction", sdp("m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=recvonly\r\n"), "sendonly", ""},
		{"data channel", sdp("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"), "sendonly", ""},
		{"nonsense", "x", "sendonly", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := strings.Join(answered(c.sdp, c.direction), " "); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestHoldBack(t *testing.T) {
	sdp := func(n int) string {
		s := "v=0\r\nm=video 9\r\n"
		for i := range n {
			s += fmt.Sprintf("a=candidate:%d 1 udp 1 127.0.0.1 %d typ host\r\n", i, 5000+i)
		}
		return s + "a=end-of-candidates\r\na=mid:0\r\n"
	}
	for n, want := range []int{0, 0, 1, 1, 2, 2, 3} {
		rest, held := holdBack(sdp(n))
		if len(held) != want || strings.Count(rest, "a=candidate:") != n-want || !strings.HasSuffix(rest, "a=mid:0\r\n") {
			t.Errorf("of %d candidates %d are held back, want %d; the rest:\n%s", n, len(held), want, rest)
		}
		for i, c := range held {
			if !strings.HasPrefix(c, fmt.Sprintf("candidate:%d 1 udp", n-want+i)) || strings.TrimSpace(c) != c {
				t.Errorf("held back: %q", c)
			}
		}
	}
}

func TestReportAsTableAndJSON(t *testing.T) {
	rep := PlayReport{URL: "https://h/live/whep/s", Duration: Millis(10 * time.Second), Answered: Millis(80 * time.Millisecond), FirstPacket: Millis(90 * time.Millisecond),
		FirstFrame: Millis(1234567 * time.Microsecond), KeyFrameRequests: 2, Out: "out.mkv",
		Video: &TrackStats{Codec: "H264", Width: 1280, Height: 720, FPS: 29.97, Bitrate: 2_500_000, Packets: 199, Lost: 1, Frames: 300,
			Latency: Latency{Frames: 300, P50: Millis(23400 * time.Microsecond)}},
		Audio: &TrackStats{Codec: "opus", Bitrate: 96_000}}
	table := rep.String()
	for _, want := range []string{"first picture after", "1.23 s", "H264 1280x720, 29.97 frames/s, 2.50 Mbit/s", "1 lost (0.50 %)", "p50 23.4 ms",
		"opus, 96 kbit/s", "unknown: the server sent no sender reports", "out.mkv"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table does not say %q:\n%s", want, table)
		}
	}
	b, err := json.Marshal(rep)
	if err != nil || !strings.Contains(string(b), `"firstFrameMs":1234.567`) || !strings.Contains(string(b), `"p50Ms":23.4`) {
		t.Errorf("JSON: %s, %v", b, err)
	}
	var back PlayReport
	if err := json.Unmarshal(b, &back); err != nil || back.FirstFrame != rep.FirstFrame || *back.Video != *rep.Video {
		t.Errorf("there and back: %+v, %v", back, err)
	}
}

// TestFollow: an answer leads neither out of encryption nor where nobody has allowed it.
func TestFollow(t *testing.T) {
	for _, tc := range []struct{ name, from, to, want string }{
		{"the same server", "https://a/x", "https://a/y", ""},
		{"into encryption", "http://a/x", "https://a/y", ""},
		{"out of encryption", "https://a/x", "http://a/y", "from https to http://a"},
		{"forbidden", "http://a/x", "http://b/y", "not b"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := NewClient("", nil, false)
			defer c.Close()
			c.Allow(func(u *url.URL) error {
				if u.Host == "b" {
					return errors.New("not b")
				}
				return nil
			})
			var req [2]*http.Request
			for i, s := range []string{tc.from, tc.to} {
				var err error
				if req[i], err = http.NewRequestWithContext(t.Context(), http.MethodPost, s, nil); err != nil {
					t.Fatal(err)
				}
			}
			err := c.http.CheckRedirect(req[1], req[:1])
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}
