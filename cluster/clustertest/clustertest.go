// Package clustertest is the conformance suite that every cluster.Store passes.
//
// Imports: media, cluster.
package clustertest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/media"
)

// Open opens one more registry on a store, as another process of the cluster would.
// It leaves closing to t.Cleanup; a test may close it earlier.
type Open func(t *testing.T) cluster.Store

// NewStore makes an empty store. Its registries take the time from now, from any goroutine.
type NewStore func(t *testing.T, now func() time.Time) Open

// Run runs the suite; each of its tests has a store of its own.
func Run(t *testing.T, newStore NewStore) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *fixture)
	}{
		{"nodes round trip", nodesRoundTrip},
		{"nodes are ordered and removed", nodesOrderedRemoved},
		{"faulty nodes are refused", nodesRefused},
		{"join, heartbeat, fence, replace", lifeOfASession},
		{"what nodes read of each other", peers},
		{"viewers of a stream", viewers},
		{"orders", orders},
		{"claim, report, release", lifeOfALease},
		{"who may claim", whoMayClaim},
		{"a takeover of an interrupted stream keeps the start", takeoverKeepsStart},
		{"epochs only grow", epochsGrow},
		{"a late holder changes nothing", lateHolder},
		{"resume", resume},
		{"resume in an emptied registry", emptied},
		{"a backup is a lease of its own", backups},
		{"one of many claimers wins", oneClaimerWins},
		{"one of heartbeat and fence wins", heartbeatAgainstFence},
		{"one of report and takeover wins", reportAgainstTakeover},
		{"what is gone is forgotten", forgotten},
		{"lookup", lookup},
		{"streams", streams},
		{"a thousand streams", thousandStreams},
		{"weird names", weirdNames},
		{"faulty claims and reports are refused", claimsRefused},
		{"contexts are obeyed", contextsObeyed},
		{"close", closeOne},
		{"the clock", theClock},
		{"random histories", randomHistories},
		{"documents: round trip", documentsRoundTrip},
		{"documents: compare and swap", documentsSwap},
		{"documents: what is refused", documentsRefused},
		{"documents: one of many writers wins", documentsOneWins},
		{"documents: expiry", documentsExpire},
		{"documents: pages, order, search", documentsFound},
		{"documents: notices", documentsNotices},
		{"documents: contexts are obeyed", documentsContexts},
	} {
		t.Run(c.name, func(t *testing.T) {
			clock := &Clock{at: time.Date(2030, 1, 2, 3, 4, 5, 678e6, time.UTC)}
			open := newStore(t, clock.Now)
			c.test(t, &fixture{Store: open(t), ctx: t.Context(), clock: clock, open: open, sessions: map[string]int64{}})
		})
	}
}

// Clock is a clock that stands still until it is moved.
type Clock struct {
	mu sync.Mutex
	at time.Time
}

// Now is safe for any goroutine.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// Advance moves the clock.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// ttl of sessions; nothing waits for it.
const ttl = cluster.SessionTTL

// fixture is a store with a first registry on it.
type fixture struct {
	cluster.Store
	ctx   context.Context
	clock *Clock
	open  Open

	mu       sync.Mutex
	sessions map[string]int64 // of nodes that have joined
	last     int64
}

var (
	broadcasting = cluster.StreamInfo{State: cluster.Broadcasting, Codecs: []string{media.H264, media.Opus}}
	leaving      = cluster.StreamInfo{State: cluster.Leaving, Codecs: []string{media.H264, media.Opus}}
	interrupted  = cluster.StreamInfo{State: cluster.Interrupted, Codecs: []string{media.H264, media.Opus}}
)

func stream(id string) media.Key { return media.Key{App: "live", ID: id} }

// join joins as a node, with a session that was never used.
func (f *fixture) join(t *testing.T, id string) int64 {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	ok(t, f.Join(f.ctx, cluster.Node{ID: id, Session: f.last}))
	f.sessions[id] = f.last
	return f.last
}

// in is the session of a node, which joins unless it has.
func (f *fixture) in(t *testing.T, id string) int64 {
	t.Helper()
	f.mu.Lock()
	session, joined := f.sessions[id]
	f.mu.Unlock()
	if joined {
		return session
	}
	return f.join(t, id)
}

// beat is a heartbeat of a node that has joined.
func (f *fixture) beat(t *testing.T, id string) error {
	t.Helper()
	return f.Heartbeat(f.ctx, cluster.Node{ID: id, Session: f.in(t, id)})
}

// want is what a node asks for in a Claim.
func (f *fixture) want(t *testing.T, key media.Key, node string) cluster.Lease {
	t.Helper()
	return cluster.Lease{Key: key, Node: node, Session: f.in(t, node)}
}

// claim claims or ends the test.
func (f *fixture) claim(t *testing.T, key media.Key, node string) cluster.Lease {
	t.Helper()
	return f.take(t, f.Store, f.want(t, key, node))
}

func (f *fixture) take(t *testing.T, r cluster.Registry, asked cluster.Lease) cluster.Lease {
	t.Helper()
	l, err := r.Claim(f.ctx, asked)
	if err != nil {
		t.Fatalf("claim %+v: %v", asked, err)
	}
	if asked.Epoch = l.Epoch; l != asked || l.Epoch < 1 {
		t.Fatalf("claim %+v returned the lease %+v", asked, l)
	}
	return l
}

// one looks a stream up that must be there.
func (f *fixture) one(t *testing.T, key media.Key) cluster.Stream {
	t.Helper()
	list, err := f.Lookup(f.ctx, key)
	if err != nil || len(list) != 1 || list[0].Key != key || list[0].Backup {
		t.Fatalf("lookup of %s = %+v, %v; want that stream", key, list, err)
	}
	return list[0]
}

// want compares a stream with what is expected of it.
func want(t *testing.T, s cluster.Stream, state cluster.StreamState, l cluster.Lease) {
	t.Helper()
	if s.State != state || s.Backup != l.Backup || s.Origin != l.Node || s.Session != l.Session || s.Epoch != l.Epoch {
		t.Errorf("the stream is %+v; want %s by %+v", s, state, l)
	}
}

// same compares times to the millisecond that registries keep.
func same(a, b time.Time) bool { return a.Sub(b).Abs() < time.Millisecond }

// ok ends the test on an error.
func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// node is a row with every field set that a node sets.
func (f *fixture) node(id string) cluster.Node {
	return cluster.Node{
		ID: id, Session: 1<<62 + 12345, Role: cluster.Edge, State: cluster.Draining, PID: 4711, Host: "host.example", Region: "west", Version: "1.2.3",
		HTTP: "192.0.2.1:5080", Media: "[2001:db8::1]:50000", Relay: "192.0.2.1:5000", RelayKey: "qZ+/==",
		CPU: 0.125, Memory: 0.75, Egress: 1.5e9, Load: 0.625, Full: "why", Started: f.clock.Now().Add(-time.Hour),
		Serving: []cluster.Serving{{Stream: stream("a"), Viewers: 3}, {Stream: stream("b.c-d_e"), Viewers: 0}},
		Backups: []media.Key{stream("c")},
	}
}

// eachHandle calls fn at once with n registries of the same store, and waits.
func (f *fixture) eachHandle(t *testing.T, handles []cluster.Registry, fn func(i int, r cluster.Registry) error) {
	t.Helper()
	var wg sync.WaitGroup
	start := make(chan struct{})
	errs := make([]error, len(handles))
	for i, r := range handles {
		wg.Go(func() {
			<-start
			errs[i] = fn(i, r)
		})
	}
	close(start)
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("handle %d: %v", i, err)
		}
	}
}

func (f *fixture) handles(t *testing.T, n int) []cluster.Registry {
	list := []cluster.Registry{f.Store}
	for len(list) < n {
		list = append(list, f.open(t))
	}
	return list
}

func nodeName(i int) string { return fmt.Sprintf("node-%d", i) }
