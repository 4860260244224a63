package census

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/media"
	"sluice/relay"
)

// registry has some rows, and may be away.
type registry struct {
	nodes   []cluster.Node
	streams []cluster.Stream
	away    atomic.Bool
	reads   atomic.Int32
}

func (r *registry) Nodes(context.Context) ([]cluster.Node, error) {
	r.reads.Add(1)
	if r.away.Load() {
		return nil, errors.New("away")
	}
	return r.nodes, nil
}
func (r *registry) Streams(context.Context) ([]cluster.Stream, error) { return r.streams, nil }
func (r *registry) Now() time.Time                                    { return time.Now() }

func nobody(context.Context, cluster.Node, string, string, any) error { return ErrNode }

func TestSnapshot(t *testing.T) {
	now := time.Now()
	key := func(id string) media.Key { return media.Key{App: "live", ID: id} }
	r := &registry{
		nodes: []cluster.Node{
			{ID: "dead", Session: 3, LastHeartbeat: now.Add(-time.Minute), Serving: []cluster.Serving{{Stream: key("a"), Viewers: 100}}},
			{ID: "edge", Session: 2, LastHeartbeat: now, Serving: []cluster.Serving{{Stream: key("a"), Viewers: 2}, {Stream: key("gone"), Viewers: 1}}},
			{ID: "origin", Session: 1, LastHeartbeat: now, Serving: []cluster.Serving{{Stream: key("a"), Viewers: 1}}},
		},
		streams: []cluster.Stream{
			{Key: key("a"), State: cluster.Leaving, Origin: "origin", Session: 1}, {Key: key("a"), Backup: true, State: cluster.Broadcasting, Origin: "edge", Session: 2},
			{Key: key("b"), State: cluster.Broadcasting, Origin: "dead", Session: 3}, {Key: key("c"), State: cluster.Interrupted, Origin: "origin", Session: 1},
			{Key: key("d"), State: cluster.Broadcasting, Origin: "origin", Session: 9},
		},
	}
	c := New(r, nobody)
	s, err := c.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a := s.Streams[key("a")]
	if len(s.App("live")) != 2 || s.Live("live") != 1 || a == nil || a.Viewers != 3 || !slices.Equal(a.Nodes, []string{"edge", "origin"}) || a.Backup != "edge" || s.Streams[key("c")].State != cluster.Interrupted {
		t.Errorf("the streams are %+v, a is %+v", s.App("live"), a)
	}
	if d := c.Details(t.Context(), s, key("a"), key("nosuch")); len(d) != 0 {
		t.Errorf("a silent node tells %+v", d)
	}
	if v, silent := c.Viewers(t.Context(), s, key("a")); len(v) != 0 || silent != 2 {
		t.Errorf("viewers %v, %d nodes are silent", v, silent)
	}
	if found, err := c.Stop(t.Context(), key("a")); !errors.Is(err, ErrNode) {
		t.Errorf("a stop that reaches nobody: %t, %v", found, err)
	}
	if found, err := c.Stop(t.Context(), key("b")); found || err != nil {
		t.Errorf("a stop of what is not live: %t, %v", found, err)
	}
}

// However many ask, the registry is read once; while it is away what was known is told, and then an error.
func TestReadsOnce(t *testing.T) {
	r := &registry{}
	c := New(r, nobody)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := c.Now(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := r.reads.Load(); n != 1 {
		t.Errorf("50 who ask at once make %d reads", n)
	}
	r.away.Store(true)
	was := c.last.Load()
	c.last.Store(&taken{was.Snapshot, time.Now().Add(-usable / 2)})
	if s, err := c.Now(t.Context()); err != nil || s != was.Snapshot {
		t.Errorf("five seconds into an outage: %v", err)
	}
	c.last.Store(&taken{was.Snapshot, time.Now().Add(-2 * usable)})
	if _, err := c.Now(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a long outage: %v", err)
	}
}

// TestGuard: only a node's call, to this node, once, within a short time, with nothing changed.
func TestGuard(t *testing.T) {
	us, stranger := identity(t), identity(t)
	var ahead atomic.Int64 // of the guard's clock
	clock := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	g := NewGuard("b", clock, func(_ context.Context, key string) bool { return key == us.Key() })
	var last *http.Request
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last = r
		if !g.Allows(r) {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprint(w, `["hello"]`)
	}))
	defer server.Close()
	b := cluster.Node{ID: "b", HTTP: strings.TrimPrefix(server.URL, "http://")}
	ask := func(by *relay.Identity, to cluster.Node, out any) error {
		caller := NewCaller(by, time.Now)
		defer caller.Close()
		return caller.Ask(t.Context(), to, http.MethodGet, "/.node/streams?stream=live%2Fa", out)
	}
	var got []string
	if err := ask(us, b, &got); err != nil || len(got) != 1 {
		t.Fatalf("a node's call: %q, %v", got, err)
	}
	again := last.Clone(t.Context())
	if g.Allows(again) {
		t.Error("a call is good twice")
	}
	if err := ask(stranger, b, nil); !errors.Is(err, ErrNode) {
		t.Errorf("a stranger's call: %v", err)
	}
	if err := ask(us, cluster.Node{ID: "c", HTTP: b.HTTP}, nil); err == nil {
		t.Error("a call for another node is good here")
	}
	for _, skewed := range []time.Duration{time.Minute, -time.Minute} {
		ahead.Store(int64(skewed))
		if err := ask(us, b, nil); err == nil {
			t.Errorf("a call is good %s later", skewed)
		}
	}
	ahead.Store(0)
	for _, change := range []struct {
		name string
		do   func(*http.Request)
	}{
		{"another method", func(r *http.Request) { r.Method = http.MethodPost }},
		{"another stream", func(r *http.Request) { r.URL.RawQuery = "stream=live%2Fb" }},
		{"another nonce", func(r *http.Request) { r.Header.Set(nonceHeader, "x") }},
		{"another time", func(r *http.Request) { r.Header.Set(timeHeader, fmt.Sprint(time.Now().UnixMilli()+1)) }},
		{"no signature", func(r *http.Request) { r.Header.Del(signatureHeader) }},
		{"junk", func(r *http.Request) { r.Header.Set(keyHeader, "AAAA") }},
		{"no base64", func(r *http.Request) { r.Header.Set(keyHeader, "%") }},
	} {
		r, err := http.NewRequest(http.MethodGet, server.URL+"/.node/streams?stream=live%2Fa", nil)
		if err != nil {
			t.Fatal(err)
		}
		at, nonce := fmt.Sprint(time.Now().UnixMilli()), "once-"+change.name
		spki, signature, err := us.Sign(signed(r.Method, r.URL.RequestURI(), "b", at, nonce))
		if err != nil {
			t.Fatal(err)
		}
		head(r, spki, signature, at, nonce)
		change.do(r)
		if g.Allows(r) {
			t.Errorf("a call with %s is good", change.name)
		}
	}
}

func identity(t *testing.T) *relay.Identity {
	t.Helper()
	i, err := relay.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// A guard remembers a bounded number of calls, and forgets those that are too old to come again.
func TestGuardForgets(t *testing.T) {
	g := NewGuard("b", time.Now, nil)
	now := time.Now()
	for i := range maxNonces {
		if !g.first(fmt.Sprint(i), now) {
			t.Fatalf("call %d is refused", i)
		}
	}
	if g.first("one more", now) {
		t.Error("more calls are taken than can be remembered")
	}
	if !g.first("later", now.Add(time.Minute)) {
		t.Error("old calls are not forgotten")
	}
}
