package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sluice/cluster"
)

func TestRouting(t *testing.T) {
	r := start(t, Config{},
		startNode(t, "o1", cluster.Origin),
		startNode(t, "e1", cluster.Edge),
		startNode(t, "e2", cluster.Edge, stream1))
	cases := []struct {
		name, method, url, want string
	}{
		{"publish port, page", "GET", r.publish("/live/"), "o1"},
		{"publish port, whip", "POST", r.publish("/live/whip/stream1"), "o1"},
		{"publish port, whep", "POST", r.publish("/live/whep/stream1"), "o1"},
		{"play port, whep: the warm edge", "POST", r.play("/live/whep/stream1"), "e2"},
		{"play port, playlist: the warm edge", "GET", r.play("/live/streams/stream1.m3u8"), "e2"},
		{"play port, resource", "PATCH", r.play("/live/whep/stream1/e1.abc"), "e1"},
		{"resource of an edge on the publish port", "DELETE", r.publish("/live/whep/stream1/e1.abc"), "e1"},
		{"resource of an origin on the play port", "DELETE", r.play("/live/whip/stream1/o1.abc"), "o1"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := r.ask(t, c.method, c.url, "v=0"); got.Node != c.want || got.Method != c.method || got.Body != "v=0" {
				t.Errorf("got %+v, want node %s", got, c.want)
			}
		})
	}
	for _, path := range []string{"/live/whep/stream1/gone.abc", "/live/whep/stream1/nonsense"} {
		resp, body := r.do(t, "PATCH", r.play(path), "v=0")
		if resp.StatusCode != 404 || code(body) != "no_session" || resp.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %s %s", path, resp.Status, body)
		}
	}
	if resp, body := r.do(t, "GET", r.play("/gateway/healthz"), ""); resp.StatusCode != 200 || body != "ok\n" {
		t.Errorf("healthz: %s %q", resp.Status, body)
	}
}

func TestStandaloneTakesBothPorts(t *testing.T) {
	r := start(t, Config{}, startNode(t, "s1", cluster.Standalone))
	for _, url := range []string{r.publish("/live/whip/a"), r.play("/live/whep/a")} {
		if got := r.ask(t, "POST", url, "v=0"); got.Node != "s1" {
			t.Errorf("%s went to %q", url, got.Node)
		}
	}
}

// TestFiguresAreNotPublic: what nodes tell operators does not go through the front door.
func TestFiguresAreNotPublic(t *testing.T) {
	n := startNode(t, "s1", cluster.Standalone)
	r := start(t, Config{}, n)
	for _, url := range []string{r.play("/metrics"), r.publish("/load"), r.play("/scaling?role=edge"), r.play("/%6detrics")} {
		if resp, body := r.do(t, "GET", url, ""); resp.StatusCode != http.StatusNotFound || n.asked.Load() > 0 {
			t.Errorf("%s: %s %s", url, resp.Status, body)
		}
	}
}

func TestNoNode(t *testing.T) {
	r := start(t, Config{}, startNode(t, "e1", cluster.Edge))
	resp, body := r.do(t, "POST", r.publish("/live/whip/stream1"), "v=0", "Accept", "text/html")
	if resp.StatusCode != 503 || code(body) != "no_node" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("program: %s %s", resp.Status, body)
	}
	resp, body = r.do(t, "GET", r.publish("/live/"), "", "Accept", "text/html,*/*")
	if resp.StatusCode != 503 || !strings.Contains(resp.Header.Get("Content-Type"), "text/html") || !strings.Contains(body, "<h1>") || resp.Header.Get("Retry-After") == "" {
		t.Errorf("browser: %s %v %s", resp.Status, resp.Header, body)
	}
	resp, body = r.do(t, "GET", r.play("/live/whep/%3Cscript%3E"), "", "Accept", "text/html")
	if resp.StatusCode != 400 || strings.Contains(body, "<script") {
		t.Errorf("page repeats the client's words: %s %s", resp.Status, body)
	}
	began := time.Now()
	eventually(t, settle+5*time.Second, func() string {
		_, _ = r.do(t, "GET", r.publish("/live/"), "")
		if !strings.Contains(r.log.String(), "port=publish requests=") {
			return "the log does not tell that there is no node"
		}
		return ""
	})
	if took := time.Since(began); took < settle-time.Second {
		t.Errorf("the log told after %v, when the gateway had just begun", took)
	}
}

func TestDrainingNodeServesOnlyWhatItHas(t *testing.T) {
	n := startNode(t, "e1", cluster.Edge)
	n.row.State = cluster.Draining
	r := start(t, Config{}, n)
	if got := r.ask(t, "DELETE", r.play("/live/whep/stream1/e1.abc"), ""); got.Node != "e1" {
		t.Errorf("session went to %q", got.Node)
	}
	if got := r.ask(t, "GET", r.play("/live/player.html"), ""); got.Node != "e1" {
		t.Errorf("page came from %q", got.Node)
	}
	if resp, body := r.do(t, "POST", r.play("/live/whep/stream1"), "v=0"); resp.StatusCode != 503 || code(body) != "no_node" {
		t.Errorf("new viewer: %s %s", resp.Status, body)
	}
}

func TestFullNodeIsPassedOver(t *testing.T) {
	full, other := startNode(t, "e1", cluster.Edge, stream1), startNode(t, "e2", cluster.Edge)
	full.full.Store(true)
	r := start(t, Config{}, full, other)
	if got := r.ask(t, "POST", r.play("/live/whep/stream1"), "v=0"); got.Node != "e2" || got.Body != "v=0" {
		t.Errorf("got %+v", got)
	}
	other.full.Store(true)
	if resp, body := r.do(t, "POST", r.play("/live/whep/stream1"), "v=0"); resp.StatusCode != 503 || code(body) != "node_full" {
		t.Errorf("all full: %s %s", resp.Status, body)
	}
}

func TestBodies(t *testing.T) {
	n := startNode(t, "s1", cluster.Standalone)
	r := start(t, Config{}, n)
	cases := []struct {
		name, method, path string
		size               int
		unknownLength      bool
		want               string
	}{
		{"sdp", "POST", "/live/whip/a", 5000, false, ""},
		{"largest", "POST", "/live/whip/a", maxSignal, false, ""},
		{"largest, chunked", "POST", "/live/whep/a", maxSignal, true, ""},
		{"too large", "POST", "/live/whip/a", maxSignal + 1, false, "too_large"},
		{"too large, chunked", "POST", "/live/whep/a", maxSignal + 1, true, "too_large"},
		{"too large candidate", "PATCH", "/live/whep/a/s1.x", maxSignal + 1, false, "too_large"},
		{"rest, kept", "POST", "/live/rest/v2/broadcasts", 100, false, ""},
		{"upload, passed through", "PUT", "/live/rest/v2/vods", 3 << 20, false, ""},
		{"upload, chunked", "POST", "/live/rest/v2/vods", 3 << 20, true, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var body io.Reader = strings.NewReader(strings.Repeat("x", c.size))
			if c.unknownLength {
				body = io.MultiReader(body)
			}
			req, err := http.NewRequestWithContext(t.Context(), c.method, r.publish(c.path), body)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := r.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			b, _ := io.ReadAll(resp.Body)
			if c.want != "" {
				if resp.StatusCode != 413 || code(string(b)) != c.want {
					t.Errorf("%s %.200s", resp.Status, b)
				}
			} else if got := strings.Count(string(b), "x"); resp.StatusCode/100 != 2 || got < c.size {
				t.Errorf("%s, %d of %d bytes arrived", resp.Status, got, c.size)
			}
		})
	}
}

func TestHTTP2AndHeaders(t *testing.T) {
	forged := []string{"X-Forwarded-For", "198.51.100.7:5000", "X-Forwarded-Proto", "http", "X-Forwarded-Host", "tv.example", "Forwarded", "for=1.1.1.1"}
	cases := []struct {
		name             string
		trusted          string
		header           []string
		xff, proto, host string
	}{
		{"nothing before us", "127.0.0.0/8", nil, "127.0.0.1", "https", ""},
		{"listed proxy before us", "127.0.0.0/8", forged, "198.51.100.7:5000, 127.0.0.1", "http", "tv.example"},
		{"stranger", "10.0.0.0/8", forged, "127.0.0.1", "https", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix(c.trusted)}}, startNode(t, "s1", cluster.Standalone))
			r.client.Transport.(*http.Transport).ForceAttemptHTTP2 = true
			if resp, _ := r.do(t, "GET", r.play("/live/"), ""); resp.ProtoMajor != 2 {
				t.Errorf("client speaks %s, want HTTP/2", resp.Proto)
			}
			if c.host == "" {
				c.host = r.PlayAddr().String()
			}
			got := r.ask(t, "GET", r.play("/a%20b/c?q=1&r=%2F"), "", c.header...)
			h := got.Header
			if h.Get("X-Forwarded-For") != c.xff || h.Get("X-Forwarded-Proto") != c.proto || h.Get("X-Forwarded-Host") != c.host || h.Get("Forwarded") != "" {
				t.Errorf("got %v", h)
			}
			if got.Host != r.PlayAddr().String() || got.Path != "/a b/c" || got.Query != "q=1&r=%2F" {
				t.Errorf("address was changed: %+v", got)
			}
			if got := r.ask(t, "POST", r.play("/live/whep/a"), "v=0"); got.Body != "v=0" {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestStreamedAnswerIsNotHeldBack(t *testing.T) {
	r := start(t, Config{}, startNode(t, "s1", cluster.Standalone))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", r.play("/drip"), nil)
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b := make([]byte, 3)
	if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "one" {
		t.Errorf("first part did not come before the second: %q %v", b, err)
	}
}

// Sockets that are none of the signalling's pass through, and end when the gateway does.
func TestOtherUpgrade(t *testing.T) {
	n := startNode(t, "s1", cluster.Standalone)
	n.srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/readyz" {
			return
		}
		if c, err := websocket.Accept(w, req, nil); err == nil {
			_ = c.Write(n.dead, websocket.MessageText, []byte("hello"))
			_, _, _ = c.Read(n.dead)
			_ = c.CloseNow()
		}
	})
	r := start(t, Config{}, n)
	conn := r.connect(t, r.play("/rest/v2/events"), nil)
	if got, err := hear(t, conn); got != "hello" {
		t.Fatalf("got %q %v", got, err)
	}
	if got := r.sockets.Load(); got != 1 {
		t.Errorf("%d sockets count, want 1", got)
	}
	r.stop()
	if _, err := hear(t, conn); err == nil {
		t.Error("socket outlives the gateway")
	}
}

func TestSlowBodyIsCutOff(t *testing.T) {
	r := start(t, Config{BodyTimeout: 50 * time.Millisecond}, startNode(t, "s1", cluster.Standalone))
	c, err := tls.Dial("tcp", r.PlayAddr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(c, "POST /live/whep/a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nv=0")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("no answer to half a body: %v", err)
	}
	if resp.StatusCode != 400 {
		t.Errorf("got %s", resp.Status)
	}
}

func TestRedirects(t *testing.T) {
	r := start(t, Config{RedirectListen: "127.0.0.1:0"}, startNode(t, "s1", cluster.Standalone))
	resp, _ := r.do(t, "GET", "http://"+r.RedirectAddr().String()+"/live/?id=a%20b", "")
	if got, want := resp.Header.Get("Location"), r.publish("/live/?id=a%20b"); resp.StatusCode != 308 || got != want {
		t.Errorf("redirect port: %s to %q, want %q", resp.Status, got, want)
	}
	resp, body := r.do(t, "GET", "http://"+r.PlayAddr().String()+"/live/player.html?x=1", "")
	if got, want := resp.Header.Get("Location"), r.play("/live/player.html?x=1"); resp.StatusCode != 308 || got != want || !strings.Contains(body, "https") {
		t.Errorf("plain HTTP on the TLS port: %s to %q, want %q", resp.Status, got, want)
	}
	// Neither rubbish nor silence hurts the port.
	for _, s := range []string{"GARBAGE\r\n\r\n", "\x00\x01", ""} {
		c, err := net.Dial("tcp", r.PlayAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, s)
		_ = c.(*net.TCPConn).CloseWrite()
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if b, err := io.ReadAll(c); isTimeout(err) {
			t.Errorf("connection that said %q stays open: %q", s, b)
		}
		_ = c.Close()
	}
	if got := r.ask(t, "GET", r.play("/"), ""); got.Node != "s1" {
		t.Errorf("port is broken: %+v", got)
	}
}

// TestSlowBodies: a client that sends its body byte by byte does not keep its connection.
func TestSlowBodies(t *testing.T) {
	n := startNode(t, "s1", cluster.Standalone)
	r := start(t, Config{BodyTimeout: 300 * time.Millisecond}, n)
	for _, c := range []struct{ name, head, status string }{
		{"offer", "POST /live/whip/x HTTP/1.1\r\nContent-Length: 100000", "400"},
		{"offer in chunks", "POST /live/whip/x HTTP/1.1\r\nTransfer-Encoding: chunked", "400"},
		{"too large an offer", "POST /live/whip/x HTTP/1.1\r\nContent-Length: 140000", "413"},
		{"a body nobody wants", "POST /gateway/healthz HTTP/1.1\r\nContent-Length: 100000", "200"},
		{"a body for nobody", "POST /live/whip/%00 HTTP/1.1\r\nContent-Length: 100000", "400"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(t.Context(), "tcp", r.PublishAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if _, err := io.WriteString(conn, c.head+"\r\nHost: localhost\r\nContent-Type: application/sdp\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			drip := "v"
			if strings.Contains(c.head, "chunked") {
				drip = "1\r\nv\r\n"
			}
			done := make(chan struct{})
			var dripping sync.WaitGroup
			dripping.Go(func() {
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-done:
						return
					case <-tick.C:
						_, _ = io.WriteString(conn, drip) // fails once the gateway has closed
					}
				}
			})
			_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			answer, err := io.ReadAll(conn)
			close(done)
			dripping.Wait()
			if isTimeout(err) {
				t.Error("the connection is still open after 5 s")
			}
			if !strings.HasPrefix(string(answer), "HTTP/1.1 "+c.status) {
				t.Errorf("answer %q", answer)
			}
		})
	}
}

// TestSocketLimitIsTold: the limit that holds is told.
func TestSocketLimitIsTold(t *testing.T) {
	r := start(t, Config{MaxSockets: 7}, startNode(t, "s1", cluster.Standalone))
	eventually(t, 5*time.Second, func() string {
		if !strings.Contains(r.log.String(), "max_sockets=7") {
			return "the log does not say max_sockets=7"
		}
		return ""
	})
}
