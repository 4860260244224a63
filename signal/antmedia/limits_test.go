package antmedia

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sluice/internal/access"
)

func TestRefusedUpgrades(t *testing.T) {
	for _, c := range []struct {
		name, path string
		change     func(*Config)
		before     func(*Handler)
		upgrade    bool
		status     int
		code       string
	}{
		{"unknown application", "/nope/websocket", nil, nil, true, 404, "unknown_app"},
		{"not a websocket", "/live/websocket", nil, nil, false, 400, "bad_request"},
		{"draining", "/live/websocket?target=edge", nil, (*Handler).Drain, true, 503, "draining"},
		{"closed", "/live/websocket", nil, func(h *Handler) { h.Close() }, true, 503, "draining"},
		{"full", "/live/websocket", func(c *Config) { c.Limits.Sockets = -1 }, nil, true, 503, "node_full"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, url := serve(t, newWorld(), c.change)
			if c.before != nil {
				c.before(h)
			}
			url = "http" + strings.TrimSuffix(strings.TrimPrefix(url, "ws"), "/live/websocket") + c.path
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			if c.upgrade {
				r.Header.Set("Connection", "Upgrade")
				r.Header.Set("Upgrade", "websocket")
				r.Header.Set("Sec-WebSocket-Version", "13")
				r.Header.Set("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
			}
			resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			var p struct{ Code string }
			if err := json.Unmarshal(b, &p); err != nil || p.Code != c.code || resp.StatusCode != c.status {
				t.Fatalf("got %d %s, want %d %s", resp.StatusCode, b, c.status, c.code)
			}
		})
	}
}

func TestSilentSocketIsClosed(t *testing.T) {
	_, url := serve(t, newWorld(), func(c *Config) { c.Limits.Idle = 50 * time.Millisecond })
	c := dial(t, url)
	if _, err := c.read(); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Fatalf("got %v", err)
	}
}

func TestHugeMessageClosesTheSocket(t *testing.T) {
	_, url := serve(t, newWorld(), func(c *Config) { c.Limits.Frame = 1000 })
	c := dial(t, url)
	c.send(`{"command":"ping","x":"` + strings.Repeat("x", 900) + `"}`)
	c.want(`{"command":"pong"}`)
	c.send(`{"command":"ping","x":"` + strings.Repeat("x", 1000) + `"}`)
	if _, err := c.read(); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Fatalf("got %v", err)
	}
}

func TestBinaryMessageIsRefused(t *testing.T) {
	_, url := serve(t, newWorld(), nil)
	c := dial(t, url)
	if err := c.ws.Write(t.Context(), websocket.MessageBinary, []byte(`{"command":"ping"}`)); err != nil {
		t.Fatal(err)
	}
	c.want(`{"command":"error","definition":"bad_request","information":"messages are text; binary data goes over the data channel"}`)
	c.send(`{"command":"ping"}`)
	c.want(`{"command":"pong"}`)
}

func TestSocketsEndEndsItsSessions(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(h *Handler, c *client)
	}{
		{"the client closes", func(_ *Handler, c *client) { _ = c.ws.Close(websocket.StatusGoingAway, "") }},
		{"the connection breaks", func(_ *Handler, c *client) { _ = c.ws.CloseNow() }},
		{"the server closes", func(h *Handler, _ *client) { h.Close() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			w.live["a"] = true
			h, url := serve(t, w, nil)
			cl := dial(t, url)
			cl.send(`{"command":"publish","streamId":"mine"}`)
			cl.want(`{"command":"start","streamId":"mine"}`)
			cl.send(`{"command":"takeConfiguration","streamId":"mine","type":"offer","sdp":"O"}`)
			cl.want(`{"command":"takeConfiguration","streamId":"mine","type":"answer","sdp":"ANSWER"}`)
			cl.send(`{"command":"play","streamId":"a"}`)
			if _, err := cl.read(); err != nil {
				t.Fatal(err)
			}
			cl.send(`{"command":"play","streamId":"later"}`)
			if _, err := cl.read(); err != nil {
				t.Fatal(err)
			}
			w.until(t, "watch later")
			c.end(h, cl)
			w.until(t, "closed mine: publisher was lost")
			w.until(t, "closed a: publisher was lost")
			h.Close()
			if n := h.Sockets(); n != 0 {
				t.Errorf("%d sockets are left", n)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			if n := len(w.watchers["later"]); n != 0 {
				t.Errorf("%d watchers are left", n)
			}
		})
	}
}

func TestMediaThatDoesNotCome(t *testing.T) {
	w := newWorld()
	w.live["a"] = true
	_, url := serve(t, w, func(c *Config) { c.Limits.Start = 100 * time.Millisecond })
	c := dial(t, url)
	c.send(`{"command":"publish","streamId":"mine"}`)
	c.want(`{"command":"start","streamId":"mine"}`)
	c.want(`{"command":"error","definition":"publishTimeoutError","streamId":"mine","information":"no media came"}`)
	c.want(`{"command":"notification","definition":"publish_finished","streamId":"mine"}`)
	c.send(`{"command":"play","streamId":"a"}`)
	if m, err := c.read(); err != nil || !strings.Contains(m, `"offer"`) {
		t.Fatal(m, err)
	}
	c.want(`{"command":"notification","definition":"play_finished","streamId":"a"}`)
	w.until(t, "closed a: no connection within the time allowed")
}

func TestTooManyPlays(t *testing.T) {
	_, url := serve(t, newWorld(), func(c *Config) { c.Limits.Opens = 0.1 })
	c := dial(t, url)
	c.send(`{"command":"play","streamId":"a"}`)
	c.want(`{"command":"error","definition":"no_stream_exist","streamId":"a","error_code":"404","information":"stream_not_exist_or_not_streaming"}`)
	c.send(`{"command":"play","streamId":"a"}`)
	c.want(`{"command":"error","definition":"highResourceUsage","streamId":"a","information":"too many publish and play commands on one socket; wait a second"}`)
}

func TestFullNode(t *testing.T) {
	_, url := serve(t, newWorld(), func(c *Config) { c.Admit = func() error { return errors.New("full") } })
	c := dial(t, url+"/signaling")
	c.send(`{"command":"publish","streamId":"a"}`)
	c.want(`{"command":"error","definition":"highResourceUsage","streamId":"a","information":"this server has no room for more; connect again"}`)
}

// An edge takes no publishers, an origin may have no viewers.
func TestOneWayNodes(t *testing.T) {
	_, url := serve(t, newWorld(), func(c *Config) { c.Publisher, c.Player = nil, nil })
	c := dial(t, url)
	c.send(`{"command":"publish","streamId":"a"}`)
	c.want(`{"command":"error","definition":"not_supported","streamId":"a","information":"this server takes no publishers; publish through the publishing address"}`)
	c.send(`{"command":"play","streamId":"a"}`)
	c.want(`{"command":"error","definition":"no_stream_exist","streamId":"a","error_code":"404","information":"webrtc_not_enabled"}`)
}

func TestBucket(t *testing.T) {
	b, now := newBucket(10), time.Unix(0, 0)
	for range 100 {
		if wait := b.take(now); wait != 0 {
			t.Fatalf("had to wait %v within the burst", wait)
		}
	}
	if wait := b.take(now); wait != 100*time.Millisecond {
		t.Fatalf("wait is %v", wait)
	}
	if b.try(now.Add(150 * time.Millisecond)) {
		t.Fatal("half a token is none")
	}
	if !b.try(now.Add(200 * time.Millisecond)) {
		t.Fatal("no token after its time")
	}
}

// A client that sends and never reads is closed, not remembered without bound.
func TestSlowReader(t *testing.T) {
	h, url := serve(t, newWorld(), func(c *Config) { c.Limits.Rate = 1e9 })
	c := dial(t, url)
	m := []byte(`{"command":"x","streamId":"` + strings.Repeat("x", 250) + `"}`)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		if err := c.ws.Write(ctx, websocket.MessageText, m); err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				t.Fatal("the socket stays open")
			}
			break
		}
	}
	h.Close()
}

// Ten thousand viewers wait for one stream: they are told at once, each once, and cost neither
// timers nor queries of their own.
func TestManyWaiting(t *testing.T) {
	const viewers = 10_000
	w := newWorld()
	h := New(Config{Publisher: w, Player: w, Directory: w, Apps: func() []string { return []string{"live"} }, Authorize: access.AllowAll, Log: quiet()})
	var told atomic.Int64
	sockets := make([]*socket, viewers)
	for i := range sockets {
		s := newSocket(t.Context(), h, "live", netip.Addr{})
		s.closed = false
		s.ws, s.writing = new(websocket.Conn), true // nobody writes: what is said stays in s.out
		sockets[i] = s
		s.handle(request{Command: "play", StreamID: "later"})
	}
	for _, s := range sockets {
		s.work.Wait()
	}
	begin := time.Now()
	w.start("later")
	took := time.Since(begin)
	for _, s := range sockets {
		s.mu.Lock()
		for _, m := range s.out {
			if strings.Contains(string(m), "streaming_started") {
				told.Add(1)
			}
		}
		s.mu.Unlock()
	}
	if told.Load() != viewers {
		t.Errorf("%d of %d were told", told.Load(), viewers)
	}
	t.Logf("told %d viewers in %v", viewers, took)
	if took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	for _, s := range sockets {
		s.endAll()
	}
	if n := len(w.watchers["later"]); n != 0 {
		t.Errorf("%d watchers are left", n)
	}
	h.Close()
}

func TestIDMapping(t *testing.T) {
	for _, c := range []struct{ name, sdp, want string }{
		{"empty", "", "map[]"},
		{"no msid", "m=video 9 x 96\r\na=mid:0\r\n", "map[]"},
		{"session msid before media", "a=msid:s t\r\nm=video 9 x 96\r\na=mid:v\r\n", "map[]"},
		{"two tracks", "m=video 9 x 96\na=mid:v\na=msid:s tv\nm=audio 9 x 97\na=msid:s ta\na=mid:a\n", "map[a:ta v:tv]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := fmt.Sprint(idMapping(c.sdp)); got != c.want {
				t.Fatalf("got %s, want %s", got, c.want)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"command":"ping"}`, `{"command":"takeCandidate","streamId":"s","label":"1","id":null,"candidate":""}`,
		`{"command":"play","streamId":1,"trackList":["!a"],"video":"true"}`, `{"command":"toggleVideo","enabled":"false"}`, `[]`, `null`, `{`, `{"command":{}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := string(b)
		r, err := decode(b)
		if string(b) != before {
			t.Fatal("the input was changed")
		}
		if err == nil && r.Command == "" {
			t.Fatal("no command and no error")
		}
		if len(echo(r.StreamID)) > 256 {
			t.Fatal("an endless id is sent back")
		}
	})
}

// A thousand sessions come and go; serve checks that no goroutine stays.
func TestThousandSessions(t *testing.T) {
	w := newWorld()
	h, url := serve(t, w, func(c *Config) { c.Limits.Opens, c.Limits.Rate = 1e6, 1e6 })
	for i := range 20 {
		c := dial(t, url)
		for n := range 50 {
			id := fmt.Sprintf("s%d-%d", i, n)
			c.send(`{"command":"publish","streamId":"` + id + `"}`)
			c.want(`{"command":"start","streamId":"` + id + `"}`)
			c.send(`{"command":"takeConfiguration","streamId":"` + id + `","type":"offer","sdp":"O"}`)
			c.want(`{"command":"takeConfiguration","streamId":"` + id + `","type":"answer","sdp":"ANSWER"}`)
			if n%2 == 0 { // the others end with the socket
				c.send(`{"command":"stop","streamId":"` + id + `"}`)
				c.want(`{"command":"notification","definition":"publish_finished","streamId":"` + id + `"}`)
			}
		}
		_ = c.ws.CloseNow()
	}
	h.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	closed := 0
	for _, line := range w.log {
		if strings.HasPrefix(line, "closed ") {
			closed++
		}
	}
	if closed != 1000 {
		t.Errorf("%d of 1000 sessions were closed", closed)
	}
}
