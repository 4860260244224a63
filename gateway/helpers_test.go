package gateway

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sluice/cluster"
	"sluice/internal/problem"
	"sluice/media"
)

var _ directory = (*cluster.Directory)(nil)

var stream1 = media.Key{App: "live", ID: "stream1"}

// fakeDirectory is a view that tests set.
type fakeDirectory struct {
	mu   sync.Mutex
	view cluster.View
}

func (d *fakeDirectory) View() cluster.View {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.view
}

func (d *fakeDirectory) set(nodes ...*fakeNode) {
	v := cluster.View{At: time.Now()}
	for _, n := range nodes {
		row := n.row
		row.LastHeartbeat = v.At
		v.Nodes = append(v.Nodes, row)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.view = v
}

// fakeNode is a node that answers with what it was asked.
type fakeNode struct {
	row     cluster.Node
	srv     *httptest.Server
	ready   atomic.Int32 // status of /readyz
	full    atomic.Bool
	hung    atomic.Bool
	asked   atomic.Int64 // requests but /readyz
	dead    context.Context
	die     context.CancelFunc
	hello   chan http.Header // of each socket
	arrived chan struct{}    // a request hangs now
}

// seen is what a fake node answers with.
type seen struct {
	Node, Method, Path, Query, Host, Proto string
	Header                                 http.Header
	Body                                   string
}

func startNode(t *testing.T, id string, role cluster.Role, serving ...media.Key) *fakeNode {
	t.Helper()
	n := &fakeNode{row: cluster.Node{ID: id, Role: role, State: cluster.Ready}, hello: make(chan http.Header, 100), arrived: make(chan struct{}, 100)}
	for _, k := range serving {
		n.row.Serving = append(n.row.Serving, cluster.Serving{Stream: k, Viewers: 1})
	}
	n.ready.Store(200)
	n.dead, n.die = context.WithCancel(context.Background())
	n.srv = httptest.NewServer(n)
	n.row.HTTP = n.srv.Listener.Addr().String()
	t.Cleanup(n.kill)
	return n
}

// kill ends the node as SIGKILL would: all connections break, nobody listens.
func (n *fakeNode) kill() {
	n.die()
	n.srv.CloseClientConnections()
	n.srv.Close()
}

func (n *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if n.hung.Load() {
		if r.URL.Path != "/readyz" {
			n.arrived <- struct{}{}
		}
		<-n.dead.Done()
		return
	}
	if r.URL.Path == "/readyz" {
		w.WriteHeader(int(n.ready.Load()))
		return
	}
	n.asked.Add(1)
	seg := strings.Split(r.URL.Path, "/")
	switch {
	case len(seg) == 3 && seg[2] == "websocket":
		n.socket(w, r)
		return
	case len(seg) == 4 && (seg[2] == "whip" || seg[2] == "whep") && r.Method == http.MethodPost:
		if n.full.Load() {
			problem.New(problem.NodeFull, n.row.ID).Write(w)
			return
		}
		if strings.HasPrefix(seg[3], "none") {
			problem.New(problem.NotFound, "no such stream").Write(w)
			return
		}
		w.Header().Set("Location", r.URL.Path+"/"+n.row.ID+".abc")
		w.WriteHeader(http.StatusCreated)
	case r.URL.Path == "/drip": // two parts, the second when the client has the first
		_, _ = io.WriteString(w, "one")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return
	}
	body, _ := io.ReadAll(r.Body)
	_ = json.NewEncoder(w).Encode(seen{n.row.ID, r.Method, r.URL.Path, r.URL.RawQuery, r.Host, r.Proto, r.Header, string(body)})
}

// socket answers each text with the node's id and the text, each binary with itself. The text
// "close" ends it with 4001.
func (n *fakeNode) socket(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Query().Get("refuse") {
	case "404":
		problem.New(problem.UnknownApp, "no such app").Write(w)
		return
	case n.row.ID:
		problem.New(problem.Draining, "leaving").Write(w)
		return
	}
	c, err := websocket.Accept(w, r, nil) // checks Origin against Host
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(2 << 20)
	select {
	case n.hello <- r.Header:
	default: // nobody wants to know
	}
	for {
		kind, data, err := c.Read(n.dead)
		if err != nil {
			return
		}
		if string(data) == "close" {
			_ = c.Close(4001, "as you wish")
			return
		}
		switch {
		case bytes.Contains(data, []byte("getIceServerConfig")) && r.URL.Query().Has("sdk"):
			data = []byte(`{"command":"iceServerConfig"}`)
		case n.full.Load() && bytes.Contains(data, []byte(`"play"`)):
			data = fmt.Appendf(nil, `{"command":"error","definition":"highResourceUsage","streamId":"%s"}`, n.row.ID)
		case kind == websocket.MessageText:
			data = append([]byte(n.row.ID+" "+r.URL.RequestURI()+" "), data...)
		}
		if c.Write(n.dead, kind, data) != nil {
			return
		}
	}
}

// rig is a gateway with its nodes.
type rig struct {
	*Gateway
	dir    *fakeDirectory
	client *http.Client
	stop   context.CancelFunc
	ended  chan error
	log    *lockedBuffer
}

func start(t *testing.T, cfg Config, nodes ...*fakeNode) *rig {
	t.Helper()
	checkLeaks(t)
	cert := selfSigned(t)
	cfg.PublishListen, cfg.PlayListen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }
	r := &rig{dir: &fakeDirectory{}, ended: make(chan error, 1), log: &lockedBuffer{}}
	r.dir.set(nodes...)
	r.Gateway = New(cfg, Deps{Directory: r.dir, Log: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err := r.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.ended <- r.Run(ctx) }()
	r.client = &http.Client{
		Timeout:       10 * time.Second,
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		cancel()
		for _, n := range nodes {
			n.die() // hanging requests end
		}
		select {
		case err := <-r.ended:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(15 * time.Second):
			t.Error("gateway did not stop within 15 s")
		}
		if t.Failed() {
			t.Logf("log of the gateway:\n%s", r.log.String())
		}
	})
	return r
}

func (r *rig) publish(path string) string { return "https://" + r.PublishAddr().String() + path }
func (r *rig) play(path string) string    { return "https://" + r.PlayAddr().String() + path }

// do sends a request and returns the answer with its body.
func (r *rig) do(t *testing.T, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// ask is do for a fake node's answer.
func (r *rig) ask(t *testing.T, method, url, body string, header ...string) seen {
	t.Helper()
	resp, b := r.do(t, method, url, body, header...)
	var s seen
	if resp.StatusCode >= 300 || json.Unmarshal([]byte(b), &s) != nil {
		t.Fatalf("%s %s: %s %s", method, url, resp.Status, b)
	}
	return s
}

func code(body string) string {
	var p struct{ Code string }
	_ = json.Unmarshal([]byte(body), &p)
	return p.Code
}

// eventually polls until why is empty.
func eventually(t *testing.T, within time.Duration, why func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		reason := why()
		if reason == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, reason)
		}
		<-tick.C
	}
}

// checkLeaks fails the test when goroutines of this package outlive it.
func checkLeaks(t *testing.T) {
	t.Cleanup(func() {
		eventually(t, 5*time.Second, func() string {
			buf := make([]byte, 1<<20)
			for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
				if strings.Contains(g, "sluice/gateway.") && !strings.Contains(g, "gateway.eventually") && !strings.Contains(g, "testing.(*T).Run") {
					return "goroutine still runs:\n" + g
				}
			}
			return ""
		})
	})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(writeCert(t, t.TempDir(), 1))
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// writeCert writes cert.pem and key.pem.
func writeCert(t *testing.T, dir string, serial int64) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}
