package mongo

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"sluice/cluster"
	"sluice/cluster/mongo/mongotest"
	"sluice/media"
)

const password = "s3cret-word"

func TestOpenRefuses(t *testing.T) {
	plain := mongotest.Start(t, mongotest.Options{})
	guarded := mongotest.Start(t, mongotest.Options{User: "cms", Password: password}).Line(nil)
	certificate, file := certificate(t)
	safe := plain.Line(&tls.Config{Certificates: []tls.Certificate{certificate}})
	down := plain.Line(nil)
	down.Cut(true)
	hung := plain.Line(nil)
	hung.Hold(true)
	const quick = "&serverSelectionTimeoutMS=500&connectTimeoutMS=500"
	const handshakes = "&serverSelectionTimeoutMS=3000&connectTimeoutMS=2000" // which a busy machine needs time for
	const login = "cms:" + password + "@"
	for _, c := range []struct{ name, url, want string }{
		{"unescaped password", "mongodb://cms:" + password + "@x@127.0.0.1/db", "write @ as %40"},
		{"no host", "mongodb:///db", "can't be used"},
		{"unknown kind", "postgres://cms:" + password + "@127.0.0.1/db", "can't be used"},
		{"no such file", "mongodb://" + login + "127.0.0.1/db?tls=true&tlsCAFile=none.pem", "a file that it names can't be read"},
		{"no DNS", "mongodb+srv://" + login + "sluice.invalid/db", "DNS"},
		{"down", "mongodb://" + login + down.Address() + "/db?" + quick, "no answer"},
		{"hung", "mongodb://" + login + hung.Address() + "/db?" + quick, "no answer"},
		{"wrong password", "mongodb://cms:" + password + "x@" + guarded.Address() + "/db?authSource=admin" + quick, "authentication failed"},
		{"no user", guarded.URL("db") + "?" + quick, "the user may not do this"},
		{"TLS to a plain port", "mongodb://" + plain.Line(nil).Address() + "/db?tls=true" + quick, "does tls in the store's URL fit"},
		{"unknown certificate", "mongodb://" + login + safe.Address() + "/db?tls=true" + handshakes, "TLS failed"},
		{"plain to a TLS port", safe.URL("db") + "?" + quick, "does tls in the store's URL fit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin := time.Now()
			r, err := Open(t.Context(), c.url)
			if err == nil {
				t.Fatalf("opened it, %v", r.Close())
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), password) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q must be one line that says %q, and no password", err, c.want)
			}
			if took := time.Since(begin); took > openWithin && c.name != "no DNS" { // which takes as long as the resolver does
				t.Errorf("it took %v", took)
			}
			t.Log(err)
		})
	}
	t.Run("database", func(t *testing.T) {
		for url, want := range map[string]string{
			"mongodb://h/db": "db", "mongodb://h1:1,h2:2/db?tls=true": "db", "mongodb://h": "sluice", "mongodb://h/?tlsInsecure=false&tls=true": "sluice",
			"mongodb://u:p%2Fx@h/my%2Ddb?authSource=a": "my-db",
		} {
			if _, got, err := parse(url); err != nil || got != want {
				t.Errorf("%s: %q, %v; want %q", url, got, err, want)
			}
		}
	})
	t.Run("right password", func(t *testing.T) {
		r := open(t, "mongodb://"+login+guarded.Address()+"/db?authSource=admin")
		join(t, r, "a", 1)
	})
	t.Run("known certificate", func(t *testing.T) {
		r := open(t, safe.URL("")+"?tls=true&tlsCAFile="+file)
		join(t, r, "a", 1)
		if name := r.nodes.Database().Name(); name != "sluice" {
			t.Errorf("a URL without a database means %q", name)
		}
	})
}

// certificate is for 127.0.0.1, and in a file too.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err == nil {
		err = os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

func join(t *testing.T, r *Registry, id string, session int64) cluster.Node {
	t.Helper()
	n := cluster.Node{ID: id, Session: session}
	if err := r.Join(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	return n
}

func stream(id string) media.Key { return media.Key{App: "live", ID: id} }

// within is a context that ends so soon.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// A registry outlives its server: what was written is there again, and sessions go on.
func TestServerRestarts(t *testing.T) {
	server := mongotest.Start(t, mongotest.Options{})
	r := open(t, server.Line(nil).URL("db"))
	n := join(t, r, "a", 1)
	lease, err := r.Claim(t.Context(), cluster.Lease{Key: stream("s"), Node: "a", Session: 1})
	if err != nil {
		t.Fatal(err)
	}
	server.Kill()
	for name, call := range map[string]func(context.Context) error{
		"heartbeat": func(ctx context.Context) error { return r.Heartbeat(ctx, n) },
		"nodes":     func(ctx context.Context) error { _, err := r.Nodes(ctx); return err },
		"claim":     func(ctx context.Context) error { _, err := r.Claim(ctx, lease); return err },
	} {
		begin := time.Now()
		err := call(within(t, time.Second))
		if err == nil || !strings.Contains(err.Error(), "no answer") || errors.Is(err, cluster.ErrFenced) || errors.Is(err, cluster.ErrStreamInUse) {
			t.Errorf("%s without a server: %v", name, err)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("%s without a server took %v of the second it had", name, took)
		}
	}
	sameClock(t, r) // it goes on while the server is away
	server.Restart()
	for deadline := time.Now().Add(20 * time.Second); ; {
		err := r.Heartbeat(within(t, time.Second), n)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("20 s after the server came back: %v", err)
		}
	}
	if err := r.Report(t.Context(), lease, cluster.StreamInfo{State: cluster.Broadcasting, Codecs: []string{media.H264}}); err != nil {
		t.Errorf("report after the server came back: %v", err)
	}
}

// A server that hangs keeps nobody longer than he wants to wait.
func TestServerHangs(t *testing.T) {
	t.Parallel() // it waits
	line := mongotest.Start(t, mongotest.Options{}).Line(nil)
	r := open(t, line.URL("db"))
	n := join(t, r, "a", 1)
	line.Hold(true)
	for _, c := range []struct {
		name  string
		ctx   context.Context
		least time.Duration
	}{
		{"of a heartbeat", within(t, 300*time.Millisecond), 200 * time.Millisecond},
		{"without an end", t.Context(), time.Second},
	} {
		begin := time.Now()
		err := r.Heartbeat(c.ctx, n)
		if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took < c.least || took > callWithin+time.Second {
			t.Errorf("a context %s ended after %v: %v", c.name, took, err)
		}
	}
	line.Hold(false)
	if err := r.Heartbeat(within(t, 5*time.Second), n); err != nil {
		t.Errorf("after that: %v", err)
	}
}

// A request that was done although its answer got lost is neither done twice nor taken for somebody else's.
func TestLostAnswers(t *testing.T) {
	line := mongotest.Start(t, mongotest.Options{}).Line(nil)
	url := line.URL("db")
	other := open(t, url) // of which nothing gets lost, since it waits
	join(t, other, "b", 99)
	session := int64(0)
	for _, c := range []struct {
		name, lose string
		before     func(cluster.Lease) // on the stream that session 99 holds
		wantInUse  bool
		epoch      int64 // least of the claim
	}{
		{"first claim of all", "insert streams", nil, false, 2},
		{"takeover", "update streams", func(l cluster.Lease) { must(t, other.Release(t.Context(), l)) }, false, 3},
		{"reading", "find streams", func(l cluster.Lease) { must(t, other.Release(t.Context(), l)) }, false, 2},
		{"held by another", "find nodes", func(cluster.Lease) {}, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := open(t, url)
			session++
			join(t, r, "a", session)
			key := stream(strings.ReplaceAll(c.name, " ", "-"))
			if c.before != nil {
				l, err := other.Claim(t.Context(), cluster.Lease{Key: key, Node: "b", Session: 99})
				must(t, err)
				must(t, other.Heartbeat(t.Context(), cluster.Node{ID: "b", Session: 99}))
				c.before(l)
			}
			line.LoseAnswer(c.lose)
			lease, err := r.Claim(t.Context(), cluster.Lease{Key: key, Node: "a", Session: session})
			if errors.Is(err, cluster.ErrStreamInUse) != c.wantInUse || (err == nil) == c.wantInUse {
				t.Fatalf("claim says %v", err)
			}
			if c.wantInUse {
				return
			}
			rows, err := other.Lookup(t.Context(), key)
			if err != nil || len(rows) != 1 || rows[0].Epoch != lease.Epoch || rows[0].Session != session || lease.Epoch < c.epoch {
				t.Fatalf("lease %+v, rows %+v, %v; want epoch %d", lease, rows, err, c.epoch)
			}
			if _, err := other.Claim(t.Context(), cluster.Lease{Key: key, Node: "b", Session: 99}); !errors.Is(err, cluster.ErrStreamInUse) {
				t.Errorf("somebody else's claim: %v", err)
			}
			line.LoseAnswer("update streams")
			if _, err := r.Resume(t.Context(), lease, session+50); err == nil {
				t.Error("nothing was lost of a Resume")
			}
			next, err := r.Resume(t.Context(), lease, session+50)
			if err != nil || next.Epoch != lease.Epoch+1 {
				t.Errorf("resumed again: %+v, %v", next, err)
			}
			must(t, r.Release(t.Context(), next))
		})
	}
	t.Run("heartbeat", func(t *testing.T) {
		r := open(t, url)
		n := join(t, r, "h", 7)
		line.LoseAnswer("update nodes")
		if err := r.Heartbeat(t.Context(), n); err == nil || errors.Is(err, cluster.ErrFenced) {
			t.Errorf("heartbeat whose answer got lost: %v", err)
		}
		must(t, r.Heartbeat(t.Context(), n))
		line.LoseAnswer("update nodes")
		if err := r.Join(t.Context(), cluster.Node{ID: "h", Session: 8}); err == nil {
			t.Error("nothing was lost of a Join")
		}
		if err := r.Heartbeat(t.Context(), n); !errors.Is(err, cluster.ErrReplaced) {
			t.Errorf("heartbeat of the session before: %v", err)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What each call costs, in commands on collections.
func TestRoundTrips(t *testing.T) {
	line := mongotest.Start(t, mongotest.Options{}).Line(nil)
	r := open(t, line.URL("db"))
	a, b := join(t, r, "a", 1), join(t, r, "b", 2)
	var keys []media.Key
	var lease cluster.Lease
	for i := range 50 {
		keys = append(keys, stream(string(rune('a'+i/26))+string(rune('a'+i%26))))
	}
	ctx := t.Context()
	info := cluster.StreamInfo{State: cluster.Broadcasting}
	for _, c := range []struct {
		name string
		call func() error
		most int
	}{
		{"join", func() error { return r.Join(ctx, b) }, 2}, // the second looks for rows to forget
		{"heartbeat", func() error { return r.Heartbeat(ctx, a) }, 1},
		{"nodes", func() error { _, err := r.Nodes(ctx); return err }, 1},
		{"peers", func() error { _, err := r.Peers(ctx, "a"); return err }, 1},
		{"viewers", func() error { _, err := r.Viewers(ctx, keys[0]); return err }, 1},
		{"claim of a new stream", func() (err error) {
			lease, err = r.Claim(ctx, cluster.Lease{Key: keys[0], Node: "a", Session: 1})
			return err
		}, 2},
		{"claim of a held one", func() error {
			if _, err := r.Claim(ctx, cluster.Lease{Key: keys[0], Node: "b", Session: 2}); !errors.Is(err, cluster.ErrStreamInUse) {
				return errors.Join(errors.New("not in use"), err)
			}
			return nil
		}, 2},
		{"report", func() error { return r.Report(ctx, lease, info) }, 1},
		{"resume", func() (err error) { lease, err = r.Resume(ctx, lease, 3); return err }, 1},
		{"look-up of 50 streams", func() error { _, err := r.Lookup(ctx, keys...); return err }, 1},
		{"look-up of none", func() error { _, err := r.Lookup(ctx); return err }, 0},
		{"streams", func() error { _, err := r.Streams(ctx); return err }, 1},
		{"release", func() error { return r.Release(ctx, lease) }, 1},
		{"claim of a free one", func() error { _, err := r.Claim(ctx, cluster.Lease{Key: keys[0], Node: "b", Session: 2}); return err }, 2},
		{"order", func() error { return r.Order(ctx, "a", cluster.Order{Drain: true}) }, 1},
		{"leave", func() error { return r.Leave(ctx, "a", 1) }, 1},
		{"now", func() error { r.Now(); return nil }, 0},
	} {
		before := line.Operations()
		if err := c.call(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if n := line.Operations() - before; n != c.most {
			t.Errorf("%s makes %d calls, want %d", c.name, n, c.most)
		}
	}
}

// What a cluster reads a second, in docs/cluster.md and from the simulator, rests on these sizes.
func TestSizes(t *testing.T) {
	key := media.Key{App: "live", ID: "stream00001"}
	n := cluster.Node{ID: "origin-00001", Session: 1 << 61, Role: cluster.Origin, State: cluster.Ready, PID: 123456, Host: "sluice-origin-00001", Region: "region-1",
		Version: "1.2.3", HTTP: "10.10.100.100:5080", Media: "10.10.100.100:50000", Relay: "10.10.100.100:5000", RelayKey: strings.Repeat("k", 44),
		CPU: 0.123456789, Memory: 0.123456789, Egress: 123456789, Load: 0.123456789, Started: time.Now()}
	size := func(n cluster.Node) float64 {
		d, err := rowOf(n)
		must(t, err)
		b, err := bson.Marshal(d)
		must(t, err)
		return float64(len(b))
	}
	row := size(n)
	for range 20 {
		n.Serving = append(n.Serving, cluster.Serving{Stream: key, Viewers: 50})
	}
	serving := (size(n) - row) / 20
	b, err := bson.Marshal(streamRow{ID: key.String(), Key: key.String(), State: string(cluster.Broadcasting), Origin: n.ID, Session: 1 << 61, Epoch: 1 << 40,
		Codecs: []string{media.H264, media.Opus}, Started: time.Now()})
	must(t, err)
	for _, s := range []struct {
		what     string
		is, want float64
	}{{"node", row, cluster.RowBytes}, {"stream of a node", serving, cluster.ServingBytes}, {"stream", float64(len(b)), cluster.StreamBytes}} {
		if s.is > s.want || s.is < 0.8*s.want {
			t.Errorf("the row of a %s takes %.0f bytes; it is counted as %.0f", s.what, s.is, s.want)
		}
	}
}

// Rows of nodes that died long ago go, with whoever joins next, and what they held.
func TestForget(t *testing.T) {
	line := mongotest.Start(t, mongotest.Options{}).Line(nil)
	now := time.Now()
	r := open(t, line.URL("db"), WithClock(func() time.Time { return now }))
	join(t, r, "dead", 1)
	_, err := r.Claim(t.Context(), cluster.Lease{Key: stream("s"), Node: "dead", Session: 1})
	must(t, err)
	now = now.Add(cluster.ForgetAfter / 2)
	join(t, r, "alive", 2)
	now = now.Add(cluster.ForgetAfter/2 + time.Second)
	join(t, r, "new", 3)
	nodes, err := r.Nodes(t.Context())
	must(t, err)
	if len(nodes) != 2 || nodes[0].ID != "alive" || nodes[1].ID != "new" {
		t.Errorf("nodes %+v", nodes)
	}
	rows, err := r.Lookup(t.Context(), stream("s"))
	must(t, err)
	if len(rows) != 0 {
		t.Errorf("streams %+v", rows)
	}
	if err := r.Heartbeat(t.Context(), cluster.Node{ID: "dead", Session: 1}); !errors.Is(err, cluster.ErrFenced) {
		t.Errorf("who comes back after all: %v", err)
	}
}

// An open registry and its calls leave no goroutine behind.
func TestNoGoroutineLeaks(t *testing.T) {
	line := mongotest.Start(t, mongotest.Options{}).Line(nil)
	before := runtime.NumGoroutine()
	for range 3 {
		r, err := Open(t.Context(), line.URL("db"))
		must(t, err)
		if _, err := r.Streams(t.Context()); err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if _, err := r.Nodes(t.Context()); err == nil || !strings.Contains(err.Error(), "closed") {
			t.Errorf("after Close: %v", err)
		}
	}
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// A document that can't be read, as of another version, hides no other; the log names it once.
func TestBadRows(t *testing.T) {
	var log bytes.Buffer
	r := open(t, mongotest.Start(t, mongotest.Options{}).Line(nil).URL("db"), WithLog(slog.New(slog.NewTextHandler(&log, nil))))
	join(t, r, "a", 1)
	_, err := r.Claim(t.Context(), cluster.Lease{Key: stream("s"), Node: "a", Session: 1})
	must(t, err)
	for _, d := range []bson.D{
		{{Key: "_id", Value: "zz"}, {Key: "row", Value: `{"ID": "zz", "Version": "v9", "Load": "new-format"}`}},
		{{Key: "_id", Value: "yy"}, {Key: "session", Value: "text"}, {Key: "row", Value: "{}"}},
	} {
		_, err := r.nodes.InsertOne(t.Context(), d)
		must(t, err)
	}
	_, err = r.streams.InsertOne(t.Context(), bson.D{{Key: "_id", Value: "x"}, {Key: "key", Value: "no key"}, {Key: "state", Value: "broadcasting"}})
	must(t, err)
	for range 2 {
		nodes, err := r.Nodes(t.Context())
		if err != nil || len(nodes) != 1 || nodes[0].ID != "a" {
			t.Errorf("nodes %+v, %v; want a", nodes, err)
		}
		streams, err := r.Streams(t.Context())
		if err != nil || len(streams) != 1 || streams[0].Key != stream("s") {
			t.Errorf("streams %+v, %v; want one", streams, err)
		}
	}
	if text := log.String(); strings.Count(text, "\n") != 3 || !strings.Contains(text, `id="node zz" version=v9`) {
		t.Errorf("the log says\n%s", text)
	}
}
