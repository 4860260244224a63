package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sluice/cluster"
	"sluice/media"
)

// connect opens a WebSocket through the gateway.
func (r *rig) connect(t *testing.T, url string, header http.Header) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPHeader: header,
		HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}})
	if err != nil {
		t.Fatalf("connect: %v %v", err, resp)
	}
	c.SetReadLimit(2 << 20)
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

func say(t *testing.T, c *websocket.Conn, text string) {
	t.Helper()
	if err := c.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, c *websocket.Conn) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	_, b, err := c.Read(ctx)
	return string(b), err
}

func TestSocketPlacement(t *testing.T) {
	r := start(t, Config{},
		startNode(t, "o1", cluster.Origin, media.Key{App: "live", ID: "other"}),
		startNode(t, "o2", cluster.Origin, stream1),
		startNode(t, "e1", cluster.Edge, media.Key{App: "live", ID: "other"}),
		startNode(t, "e2", cluster.Edge, stream1))
	ping, ice := `{"command":"ping"}`, `{"command":"getIceServerConfig"}`
	cases := []struct {
		name, url string
		say       []string
		want      string // node, or a prefix of it
	}{
		{"play goes to the warm edge", r.play("/live/websocket"), []string{`{"command":"play","streamId":"stream1"}`}, "e2"},
		{"after the questions of the SDK", r.play("/live/websocket"), []string{ping, ice, `{"command":"play","streamId":"stream1","token":""}`}, "e2"},
		{"of another stream", r.play("/live/websocket"), []string{ice, `{"command":"play","streamId":"other"}`}, "e1"},
		{"publish goes to the origin that has it", r.publish("/live/websocket"), []string{`{"command":"publish","streamId":"stream1"}`}, "o2"},
		{"play on the publish port", r.publish("/live/websocket"), []string{`{"command":"play","streamId":"stream1"}`}, "o2"},
		{"publish on the play port", r.play("/live/websocket"), []string{`{"command":"publish","streamId":"stream1"}`}, "e2"},
		{"join of a room", r.play("/live/websocket"), []string{`{"command":"joinRoom","room":"stream1","streamId":null}`}, "e2"},
		{"only a ping: any edge after a moment", r.play("/live/websocket"), []string{ping}, "e"},
		{"rubbish: any edge", r.play("/live/websocket"), []string{"{", "[]", `{"streamId":7}`, `{"streamId":"a b"}`}, "e"},
		{"query and signalling address", r.play("/live/websocket?target=edge&a=%20b"), []string{`{"command":"play","streamId":"stream1"}`}, "e2"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			conn := r.connect(t, c.url, nil)
			for _, m := range c.say {
				say(t, conn, m)
			}
			uri := c.url[strings.Index(c.url, "/live"):]
			node := ""
			for i, m := range append(c.say, "later") { // all of it, in order
				if m == "later" {
					say(t, conn, m)
				}
				got, err := hear(t, conn)
				if err != nil {
					t.Fatalf("message %d: %v", i, err)
				}
				if i == 0 {
					node, _, _ = strings.Cut(got, " ")
				}
				if !strings.HasPrefix(node, c.want) || got != node+" "+uri+" "+m {
					t.Fatalf("message %d: got %q, want it from %q", i, got, c.want)
				}
			}
		})
	}
}

// TestSocketOfFullNode: a client that a node has no room for is given to another, with all that it said; when there is none it hears so.
func TestSocketOfFullNode(t *testing.T) {
	e1, e2, e3 := startNode(t, "e1", cluster.Edge, stream1), startNode(t, "e2", cluster.Edge), startNode(t, "e3", cluster.Edge)
	r := start(t, Config{}, e1, e2, e3)
	e1.full.Store(true)
	e2.full.Store(true)
	const ice, play = `{"command":"getIceServerConfig"}`, `{"command":"play","streamId":"stream1"}`
	begin := func() *websocket.Conn {
		conn := r.connect(t, r.play("/live/websocket?sdk"), nil)
		say(t, conn, ice)
		say(t, conn, play)
		return conn
	}
	// next skips the list of ICE servers, which each node gives.
	next := func(conn *websocket.Conn) string {
		for {
			got, err := hear(t, conn)
			if err != nil {
				t.Fatal(err)
			}
			if got != `{"command":"iceServerConfig"}` {
				return got
			}
		}
	}
	conn := begin()
	if got := next(conn); got != "e3 /live/websocket?sdk "+play {
		t.Errorf("got %q, want e3", got)
	}
	say(t, conn, "more")
	if got := next(conn); got != "e3 /live/websocket?sdk more" {
		t.Errorf("later: %q", got)
	}

	e3.full.Store(true)
	conn = begin()
	if got := next(conn); !strings.Contains(got, "highResourceUsage") {
		t.Errorf("all are full: %q", got)
	}
	e1.full.Store(false) // whoever was asked last may have room later
	e2.full.Store(false)
	e3.full.Store(false)
	say(t, conn, play)
	if got := next(conn); !strings.HasSuffix(got, play) {
		t.Errorf("on the same socket, later: %q", got)
	}
}

func TestSocketSilentClientIsPlacedByLoad(t *testing.T) {
	n := startNode(t, "e1", cluster.Edge)
	r := start(t, Config{FirstMessage: 20 * time.Millisecond}, n)
	r.connect(t, r.play("/live/websocket"), nil)
	select {
	case <-n.hello:
	case <-time.After(5 * time.Second):
		t.Error("a socket that says nothing never reached a node")
	}
}

func TestSocketManyEarlyMessages(t *testing.T) {
	r := start(t, Config{FirstMessage: time.Hour}, startNode(t, "e1", cluster.Edge))
	for _, text := range []string{`{"command":"ping"}`, strings.Repeat(" ", maxEarlyBytes/maxEarly+1)} {
		conn := r.connect(t, r.play("/live/websocket"), nil)
		for range maxEarly {
			say(t, conn, text)
		}
		if got, err := hear(t, conn); err != nil || got != "e1 /live/websocket "+text {
			t.Errorf("got %.80q, %v", got, err)
		}
	}
}

func TestSocketHeaders(t *testing.T) {
	n := startNode(t, "e1", cluster.Edge)
	r := start(t, Config{}, n)
	origin := "https://" + r.PlayAddr().String()
	conn := r.connect(t, r.play("/live/websocket"), http.Header{"Origin": {origin}, "Cookie": {"a=b"}, "X-Forwarded-For": {"1.2.3.4"}})
	say(t, conn, `{"command":"play","streamId":"stream1"}`)
	if _, err := hear(t, conn); err != nil { // the fake node checks Origin against Host
		t.Fatal(err)
	}
	h := <-n.hello
	for name, want := range map[string]string{"Origin": origin, "Cookie": "a=b", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": r.PlayAddr().String()} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestSocketBinaryAndSizes(t *testing.T) {
	r := start(t, Config{MaxMessage: 100_000}, startNode(t, "e1", cluster.Edge))
	conn := r.connect(t, r.play("/live/websocket"), nil)
	data := []byte(strings.Repeat("\x00\xff", 50_000))
	if err := conn.Write(t.Context(), websocket.MessageBinary, data); err != nil {
		t.Fatal(err)
	}
	if kind, got, err := conn.Read(t.Context()); err != nil || kind != websocket.MessageBinary || string(got) != string(data) {
		t.Errorf("binary message came back as %v of %d bytes, %v", kind, len(got), err)
	}
	_ = conn.Write(t.Context(), websocket.MessageText, append(data, 'x'))
	if _, err := hear(t, conn); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Errorf("too large message: %v", err)
	}
}

func TestSocketEnds(t *testing.T) {
	cases := []struct {
		name string
		do   func(t *testing.T, r *rig, n *fakeNode, c *websocket.Conn)
		want websocket.StatusCode
		why  string
	}{
		{"node closes", func(t *testing.T, r *rig, n *fakeNode, c *websocket.Conn) { say(t, c, "close") }, 4001, "as you wish"},
		{"node dies", func(t *testing.T, r *rig, n *fakeNode, c *websocket.Conn) { n.kill() }, websocket.StatusServiceRestart, "connect again"},
		{"gateway stops", func(t *testing.T, r *rig, n *fakeNode, c *websocket.Conn) { r.stop() }, websocket.StatusGoingAway, "stopping"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			n := startNode(t, "e1", cluster.Edge)
			r := start(t, Config{}, n)
			conn := r.connect(t, r.play("/live/websocket"), nil)
			say(t, conn, `{"streamId":"stream1"}`)
			if _, err := hear(t, conn); err != nil {
				t.Fatal(err)
			}
			c.do(t, r, n, conn)
			_, err := hear(t, conn)
			var ce websocket.CloseError
			if !errors.As(err, &ce) || ce.Code != c.want || !strings.Contains(ce.Reason, c.why) {
				t.Errorf("got %v, want %v %q", err, c.want, c.why)
			}
		})
	}
}

func TestSocketCloseReachesTheNode(t *testing.T) {
	for _, code := range []websocket.StatusCode{websocket.StatusNormalClosure, 4002} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			n := startNode(t, "e1", cluster.Edge)
			got := make(chan error, 1)
			n.srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/readyz" {
					return
				}
				c, err := websocket.Accept(w, r, nil)
				if err == nil {
					_, _, err = c.Read(n.dead)
					_ = c.CloseNow()
				}
				got <- err
			})
			r := start(t, Config{FirstMessage: time.Millisecond}, n)
			conn := r.connect(t, r.play("/live/websocket"), nil)
			eventually(t, within, func() string {
				if !strings.Contains(r.log.String(), "socket is open") {
					return "no socket to the node"
				}
				return ""
			})
			if err := conn.Close(code, "enough"); err != nil {
				t.Fatal(err)
			}
			var ce websocket.CloseError
			if err := <-got; !errors.As(err, &ce) || ce.Code != code || ce.Reason != "enough" {
				t.Errorf("node saw %v", err)
			}
		})
	}
}

func TestSocketSilenceAndDeafNode(t *testing.T) {
	t.Run("silent client", func(t *testing.T) {
		r := start(t, Config{FirstMessage: time.Millisecond, SocketPing: 20 * time.Millisecond, SocketIdle: 200 * time.Millisecond}, startNode(t, "e1", cluster.Edge))
		_, err := hear(t, r.connect(t, r.play("/live/websocket"), nil))
		if websocket.CloseStatus(err) != websocket.StatusPolicyViolation || !strings.Contains(err.Error(), "nothing was heard") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("node that answers no ping", func(t *testing.T) {
		n := startNode(t, "e1", cluster.Edge)
		n.srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/readyz" {
				return
			}
			if c, err := websocket.Accept(w, r, nil); err == nil {
				<-n.dead.Done() // never reads
				_ = c.CloseNow()
			}
		})
		r := start(t, Config{FirstMessage: time.Millisecond, SocketPing: 50 * time.Millisecond}, n)
		if _, err := hear(t, r.connect(t, r.play("/live/websocket"), nil)); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
			t.Errorf("got %v", err)
		}
	})
}

func TestSocketOfNodeThatFallsSilent(t *testing.T) {
	n := startNode(t, "e1", cluster.Edge)
	r := start(t, Config{HealthInterval: 10 * time.Millisecond, HealthTimeout: 100 * time.Millisecond}, n)
	upAndRunning(t, r, 1)
	conn := r.connect(t, r.play("/live/websocket"), nil)
	says := func(why string) {
		t.Helper()
		say(t, conn, `{"streamId":"stream1"}`)
		if _, err := hear(t, conn); err != nil {
			t.Fatalf("%s: %v", why, err)
		}
	}
	says("a node that is up")
	r.pool.failed("e1", &net.OpError{Op: "dial", Err: errors.New("too many open files")})
	says("a node that could not be dialled")
	upAndRunning(t, r, 1)
	r.dir.set()
	eventually(t, within, func() string {
		if r.placer.ready(cluster.Edge) {
			return "the node is still known"
		}
		return ""
	})
	says("a node that has left the registry")

	r.dir.set(n)
	upAndRunning(t, r, 1)
	other := r.connect(t, r.play("/live/websocket"), nil)
	say(t, other, `{"streamId":"stream1"}`)
	if _, err := hear(t, other); err != nil {
		t.Fatal(err)
	}
	n.hung.Store(true) // open sockets stay, but nothing is answered
	if _, err := hear(t, other); websocket.CloseStatus(err) != websocket.StatusServiceRestart || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("a node that fell silent: %v", err)
	}
}

func TestSocketWithoutANode(t *testing.T) {
	a, b := startNode(t, "e1", cluster.Edge, stream1), startNode(t, "e2", cluster.Edge)
	r := start(t, Config{MaxSockets: 2}, a, b)
	dial := func(url string) (int, error) {
		_, resp, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPClient: r.client})
		if resp == nil {
			return 0, err
		}
		return resp.StatusCode, err
	}
	if status, err := dial(r.publish("/live/websocket")); status != 503 {
		t.Errorf("no origin: %d %v", status, err)
	}
	play := `{"command":"play","streamId":"stream1"}`

	conn := r.connect(t, r.play("/live/websocket?refuse=404"), nil) // what every node would say
	say(t, conn, play)
	if _, err := hear(t, conn); websocket.CloseStatus(err) != websocket.StatusPolicyViolation || !strings.Contains(err.Error(), "unknown_app") {
		t.Errorf("refused socket: %v", err)
	}
	conn = r.connect(t, r.play("/live/websocket?refuse=e1"), nil) // what the next node may not say
	say(t, conn, play)
	if got, err := hear(t, conn); !strings.HasPrefix(got, "e2 ") {
		t.Errorf("socket that one node refused: %q %v", got, err)
	}
	conn2 := r.connect(t, r.play("/live/websocket"), nil)
	if status, err := dial(r.play("/live/websocket")); status != 503 {
		t.Errorf("third of two sockets: %d %v", status, err)
	}
	_ = conn2.CloseNow()
	_ = conn.CloseNow()
	eventually(t, within, func() string {
		if n := r.sockets.Load(); n != 0 {
			return fmt.Sprintf("%d sockets count as open", n)
		}
		return ""
	})
	a.kill()
	conn = r.connect(t, r.play("/live/websocket"), nil)
	say(t, conn, play)
	if got, err := hear(t, conn); !strings.HasPrefix(got, "e2 ") {
		t.Errorf("socket after its node was killed: %q %v", got, err)
	}
	b.hung.Store(true)
	conn = r.connect(t, r.play("/live/websocket"), nil)
	say(t, conn, play)
	if _, err := hear(t, conn); websocket.CloseStatus(err) != websocket.StatusTryAgainLater {
		t.Errorf("socket without a node: %v", err)
	}
}

func FuzzStreamNamed(f *testing.F) {
	for _, s := range []string{`{"command":"play","streamId":"stream1"}`, `{"command":"joinRoom","room":"r"}`, `{"streamId":null}`, `{"streamId":{}}`, `[`, ``, `{"streamId":"../x"}`} {
		f.Add(s, "/live/websocket")
	}
	f.Fuzz(func(t *testing.T, s, path string) {
		key := streamNamed(message{websocket.MessageText, []byte(s)}, path)
		if key != (media.Key{}) {
			if _, err := media.NewKey(key.App, key.ID); err != nil {
				t.Error(err)
			}
		}
	})
}

// Sessions that come and go leave nothing behind: start checks the goroutines at the end.
func TestManySessions(t *testing.T) {
	r := start(t, Config{}, startNode(t, "e1", cluster.Edge), startNode(t, "e2", cluster.Edge))
	const workers, each = 20, 50
	errs := make(chan error, workers)
	for range workers {
		go func() {
			errs <- func() error {
				for i := range each {
					ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
					defer cancel()
					c, _, err := websocket.Dial(ctx, r.play("/live/websocket"), &websocket.DialOptions{HTTPClient: r.client})
					if err != nil {
						return err
					}
					if err = c.Write(ctx, websocket.MessageText, []byte(`{"command":"play","streamId":"stream1"}`)); err == nil {
						_, _, err = c.Read(ctx)
					}
					if err != nil {
						return err
					}
					if i%2 == 0 { // half of them leave without a word
						_ = c.CloseNow()
					} else if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	for range workers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	eventually(t, 10*time.Second, func() string {
		if n := r.sockets.Load(); n != 0 {
			return fmt.Sprintf("%d sockets count as open", n)
		}
		return ""
	})
}
