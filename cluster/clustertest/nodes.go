package clustertest

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/media"
)

func nodesRoundTrip(t *testing.T, f *fixture) {
	other := f.open(t)
	n := f.node("Edge-1")
	said := n
	said.LastHeartbeat, said.Fenced, said.Order = f.clock.Now().Add(time.Hour), true, cluster.Order{Drain: true} // not for a node to say
	ok(t, f.Join(f.ctx, said))
	n.LastHeartbeat = f.clock.Now()
	check := func(r cluster.Registry) {
		t.Helper()
		list, err := r.Nodes(f.ctx)
		ok(t, err)
		if len(list) != 1 {
			t.Fatalf("%d nodes, want 1", len(list))
		}
		got := list[0]
		if !same(got.Started, n.Started) || !same(got.LastHeartbeat, n.LastHeartbeat) {
			t.Errorf("started %v, heartbeat %v; want %v, %v", got.Started, got.LastHeartbeat, n.Started, n.LastHeartbeat)
		}
		got.Started, got.LastHeartbeat = n.Started, n.LastHeartbeat
		if !reflect.DeepEqual(got, n) {
			t.Errorf("node came back as\n%+v, want\n%+v", got, n)
		}
	}
	check(f.Store)
	check(other)

	// The next heartbeat replaces all of the row, from any handle; its stamp is the registry's.
	f.clock.Advance(time.Second)
	n.State, n.CPU, n.Serving = cluster.Ready, 0.5, []cluster.Serving{{Stream: stream("z"), Viewers: 9}}
	said = n
	said.Fenced, said.Order = true, cluster.Order{Drain: true}
	ok(t, other.Heartbeat(f.ctx, said))
	n.LastHeartbeat = f.clock.Now()
	check(f.Store)
	check(other)
}

func nodesOrderedRemoved(t *testing.T, f *fixture) {
	ids := func() (ids []string) {
		list, err := f.Nodes(f.ctx)
		ok(t, err)
		for _, n := range list {
			ids = append(ids, n.ID)
		}
		return ids
	}
	if got := ids(); len(got) != 0 {
		t.Errorf("a new store has the nodes %v", got)
	}
	for _, id := range []string{"b", "a", "B", "a-1", "10", "9"} {
		f.join(t, id)
	}
	f.clock.Advance(time.Hour) // dead ones are listed too
	if got, want := ids(), []string{"10", "9", "B", "a", "a-1", "b"}; !slices.Equal(got, want) {
		t.Errorf("nodes %v, want %v", got, want)
	}
	ok(t, f.Leave(f.ctx, "a", f.sessions["a"]))
	ok(t, f.Leave(f.ctx, "a", f.sessions["a"]))
	ok(t, f.Leave(f.ctx, "never", 1))
	ok(t, f.Leave(f.ctx, "b", f.sessions["b"]+1000)) // another process's word
	if got, want := ids(), []string{"10", "9", "B", "a-1", "b"}; !slices.Equal(got, want) {
		t.Errorf("nodes %v after removals, want %v", got, want)
	}
	if err := f.beat(t, "a"); !errors.Is(err, cluster.ErrFenced) {
		t.Errorf("heartbeat without a row: %v", err)
	}
	f.join(t, "a")
	if got := ids(); !slices.Contains(got, "a") {
		t.Errorf("nodes %v: the removed one has not come back", got)
	}
}

func nodesRefused(t *testing.T, f *fixture) {
	for _, n := range []cluster.Node{
		{ID: "", Session: 1}, {ID: "a.b", Session: 1}, {ID: "a b", Session: 1}, {ID: "ä", Session: 1}, {ID: strings.Repeat("x", 65), Session: 1},
		{ID: "a"}, {ID: "a", Session: -1},
		{ID: "a", Session: 1, Serving: []cluster.Serving{{}}},
		{ID: "a", Session: 1, Serving: []cluster.Serving{{Stream: media.Key{App: "live", ID: "a/b"}}}},
	} {
		if err := f.Join(f.ctx, n); err == nil {
			t.Errorf("join of %+v was accepted", n)
		}
		if err := f.Heartbeat(f.ctx, n); err == nil || errors.Is(err, cluster.ErrFenced) {
			t.Errorf("heartbeat of %+v: %v", n, err)
		}
	}
	if list, err := f.Nodes(f.ctx); err != nil || len(list) != 0 {
		t.Errorf("after refused heartbeats: nodes %v, error %v", list, err)
	}
}

// peers: rows without what only gateways read; of all, or of those that can hold streams and one more.
func peers(t *testing.T, f *fixture) {
	roles := map[string]cluster.Role{"e1": cluster.Edge, "e2": cluster.Edge, "o1": cluster.Origin, "o2": cluster.Origin, "s1": cluster.Standalone}
	for i, id := range slices.Sorted(maps.Keys(roles)) {
		n := f.node(id)
		n.Role, n.Session = roles[id], int64(i+1)
		ok(t, f.Join(f.ctx, n))
	}
	check := func(self string, ids ...string) {
		t.Helper()
		list, err := f.Peers(f.ctx, self)
		ok(t, err)
		full, err := f.Nodes(f.ctx)
		ok(t, err)
		var want []cluster.Node
		for _, n := range full {
			if len(n.Serving) != 2 || len(n.Backups) != 1 {
				t.Errorf("the full row is %+v", n)
			}
			if n.Serving, n.Backups = nil, nil; slices.Contains(ids, n.ID) {
				want = append(want, n)
			}
		}
		if !reflect.DeepEqual(list, want) || len(list) != len(ids) {
			t.Errorf("peers of %q:\n%+v, want\n%+v", self, list, want)
		}
	}
	check("", "e1", "e2", "o1", "o2", "s1")
	check("e2", "e2", "o1", "o2", "s1")
	check("o1", "o1", "o2", "s1")
	check("unknown", "o1", "o2", "s1")
	n := f.node("e1") // a heartbeat writes it too
	n.Role, n.Session = cluster.Origin, 1
	ok(t, f.Heartbeat(f.ctx, n))
	check("e2", "e1", "e2", "o1", "o2", "s1")
}

// viewers of a stream are those on all nodes that live.
func viewers(t *testing.T, f *fixture) {
	check := func(key media.Key, want int) {
		t.Helper()
		n, err := f.Viewers(f.ctx, key, stream("none"), media.Key{App: "live", ID: "\xff' OR 1"})
		if want > 0 && len(n) != 1 || err != nil || n[key] != want {
			t.Errorf("%v viewers of %s, %v; want %d", n, key, err, want)
		}
	}
	node := func(id string, session int64, serving ...cluster.Serving) cluster.Node {
		return cluster.Node{ID: id, Session: session, Role: cluster.Edge, Serving: serving}
	}
	check(stream("a"), 0)
	a, b := cluster.Serving{Stream: stream("a"), Viewers: 3}, cluster.Serving{Stream: stream("b"), Viewers: 40}
	ok(t, f.Join(f.ctx, node("e1", 1, a, b)))
	ok(t, f.Join(f.ctx, node("e2", 2, a)))
	ok(t, f.Join(f.ctx, node("e3", 3)))
	check(stream("a"), 6)
	check(stream("b"), 40)
	check(stream("c"), 0)
	both, err := f.Viewers(f.ctx, stream("a"), stream("b"), stream("a"))
	if err != nil || len(both) != 2 || both[stream("a")] != 6 || both[stream("b")] != 40 {
		t.Errorf("viewers %v, %v", both, err)
	}
	f.clock.Advance(cluster.DeadAfter)
	check(stream("a"), 0) // all are dead
	b.Viewers = 1
	ok(t, f.Heartbeat(f.ctx, node("e1", 1, b, a)))
	check(stream("a"), 3)
	check(stream("b"), 1)
}

// contextsObeyed: a context that has ended ends every call, and nothing is written.
func contextsObeyed(t *testing.T, f *fixture) {
	key := stream("s")
	l := f.claim(t, key, "a")
	before := f.one(t, key)
	done, cancel := context.WithCancel(f.ctx)
	cancel()
	for name, call := range map[string]func() error{
		"Join":      func() error { return f.Join(done, cluster.Node{ID: "b", Session: 99}) },
		"Heartbeat": func() error { return f.Heartbeat(done, cluster.Node{ID: "a", Session: l.Session}) },
		"Leave":     func() error { return f.Leave(done, "a", l.Session) },
		"Nodes":     func() error { _, err := f.Nodes(done); return err },
		"Peers":     func() error { _, err := f.Peers(done, "a"); return err },
		"Viewers":   func() error { _, err := f.Viewers(done, key); return err },
		"Order":     func() error { return f.Order(done, "a", cluster.Order{Drain: true}) },
		"Claim":     func() error { _, err := f.Claim(done, l); return err },
		"Resume":    func() error { _, err := f.Resume(done, l, 98); return err },
		"Report":    func() error { return f.Report(done, l, interrupted) },
		"Release":   func() error { return f.Release(done, l) },
		"Lookup":    func() error { _, err := f.Lookup(done, key); return err },
		"Streams":   func() error { _, err := f.Streams(done); return err },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v", name, err)
		}
	}
	if after := f.one(t, key); !reflect.DeepEqual(after, before) {
		t.Errorf("the stream was %+v and is %+v", before, after)
	}
	if list, err := f.Nodes(f.ctx); err != nil || len(list) != 1 || list[0].ID != "a" || list[0].Order.Drain {
		t.Errorf("nodes %+v, error %v; want a alone, without an order", list, err)
	}
}

// closeOne: closing one registry leaves the others, and what they share, as it was.
func closeOne(t *testing.T, f *fixture) {
	first := f.open(t)
	want := f.want(t, stream("s"), "a")
	f.take(t, first, want)
	ok(t, first.Close())
	if _, err := first.Claim(f.ctx, want); err == nil {
		t.Error("claim on a closed registry succeeded")
	}
	if _, err := first.Nodes(f.ctx); err == nil {
		t.Error("a closed registry lists nodes")
	}
	if s := f.one(t, stream("s")); s.State != cluster.Broadcasting {
		t.Errorf("stream is %s after another registry was closed", s.State)
	}
}

// lifeOfASession: a session lives by its heartbeats, until another process joins under the id, or it is fenced.
func lifeOfASession(t *testing.T, f *fixture) {
	first := f.join(t, "a")
	f.clock.Advance(time.Second)
	ok(t, f.beat(t, "a"))
	state := func(when string, session int64, fenced bool, heard time.Time) {
		t.Helper()
		list, err := f.Nodes(f.ctx)
		ok(t, err)
		n, found := cluster.View{Nodes: list}.Node("a")
		if !found || n.Session != session || n.Fenced != fenced || !same(n.LastHeartbeat, heard) {
			t.Errorf("%s: node %+v; want session %d, fenced %v, heard at %v", when, n, session, fenced, heard)
		}
	}
	state("after a heartbeat", first, false, f.clock.Now())

	// Old, but nobody minds: it goes on as if nothing had been.
	f.clock.Advance(time.Hour)
	ok(t, f.beat(t, "a"))
	state("after an hour", first, false, f.clock.Now())

	l := f.claim(t, stream("s"), "a")
	heard := f.clock.Now()
	f.clock.Advance(ttl - time.Millisecond)
	var busy *cluster.InUse
	if _, err := f.Claim(f.ctx, f.want(t, stream("s"), "b")); !errors.As(err, &busy) || busy.Origin != "a" || !same(busy.Until, heard.Add(ttl)) {
		t.Errorf("claim from a living session: %v, %+v", err, busy)
	}
	state("after a refused claim", first, false, heard)
	f.clock.Advance(time.Millisecond)
	taken := f.claim(t, stream("s"), "b")
	state("after a takeover", first, true, heard)
	if err := f.beat(t, "a"); !errors.Is(err, cluster.ErrFenced) {
		t.Errorf("heartbeat of a fenced session: %v", err)
	}
	state("after a refused heartbeat", first, true, heard)
	want(t, f.one(t, stream("s")), cluster.Broadcasting, taken)
	if taken.Epoch <= l.Epoch {
		t.Errorf("epoch %d after %d", taken.Epoch, l.Epoch)
	}

	second := f.join(t, "a")
	state("joined again", second, false, f.clock.Now())
	ok(t, f.beat(t, "a"))
	if err := f.Heartbeat(f.ctx, cluster.Node{ID: "a", Session: first}); !errors.Is(err, cluster.ErrReplaced) {
		t.Errorf("heartbeat of a replaced session: %v", err)
	}
	f.join(t, "a") // a process that started anew while the one before was well
	if err := f.Heartbeat(f.ctx, cluster.Node{ID: "a", Session: second}); !errors.Is(err, cluster.ErrReplaced) {
		t.Errorf("heartbeat of a replaced session: %v", err)
	}
	ok(t, f.beat(t, "a"))
}

// orders last as long as the session.
func orders(t *testing.T, f *fixture) {
	check := func(when string, want cluster.Order) {
		t.Helper()
		list, err := f.Nodes(f.ctx)
		ok(t, err)
		if len(list) != 1 || list[0].Order.Drain != want.Drain || !same(list[0].Order.Deadline, want.Deadline) || list[0].Order.Deadline.IsZero() != want.Deadline.IsZero() {
			t.Errorf("%s: nodes %+v, want the order %+v", when, list, want)
		}
	}
	f.join(t, "a")
	check("at first", cluster.Order{})
	until := f.clock.Now().Add(5 * time.Minute)
	ok(t, f.Order(f.ctx, "a", cluster.Order{Drain: true, Deadline: until}))
	check("ordered", cluster.Order{Drain: true, Deadline: until})
	ok(t, f.beat(t, "a"))
	check("after a heartbeat", cluster.Order{Drain: true, Deadline: until})
	ok(t, f.Order(f.ctx, "a", cluster.Order{Drain: true}))
	check("without a deadline", cluster.Order{Drain: true})
	ok(t, f.Order(f.ctx, "a", cluster.Order{}))
	check("taken back", cluster.Order{})
	ok(t, f.Order(f.ctx, "a", cluster.Order{Drain: true}))
	f.join(t, "a")
	check("joined again", cluster.Order{})
	n := cluster.Node{ID: "a", PID: 7, Host: "h", Started: f.clock.Now()}
	joinAs := func(n cluster.Node) {
		f.last++
		n.Session = f.last
		ok(t, f.Join(f.ctx, n))
	}
	joinAs(n)
	ok(t, f.Order(f.ctx, "a", cluster.Order{Drain: true, Deadline: until}))
	joinAs(n)
	check("joined again by the same process", cluster.Order{Drain: true, Deadline: until})
	n.Started = n.Started.Add(time.Second)
	joinAs(n)
	check("joined by another process", cluster.Order{})
	if err := f.Order(f.ctx, "b", cluster.Order{Drain: true}); !errors.Is(err, cluster.ErrNoNode) {
		t.Errorf("order to nobody: %v", err)
	}
}

// theClock is that by which heartbeats are stamped.
func theClock(t *testing.T, f *fixture) {
	for range 3 {
		f.join(t, "a")
		list, err := f.Nodes(f.ctx)
		ok(t, err)
		if now := f.Now(); !same(now, list[0].LastHeartbeat) {
			t.Errorf("the registry's clock says %v, the heartbeat of this moment was stamped %v", now, list[0].LastHeartbeat)
		}
		f.clock.Advance(time.Hour)
	}
}

// heartbeatAgainstFence: either the holder was heard and keeps its stream, or it is told that it was fenced.
func heartbeatAgainstFence(t *testing.T, f *fixture) {
	handles := f.handles(t, 2)
	var heard, fenced int
	for i := range 40 {
		id, key := nodeName(i), stream(nodeName(i))
		l, other := f.claim(t, key, id), f.want(t, key, "b")
		f.clock.Advance(ttl) // both are possible
		ok(t, f.beat(t, "b"))
		var beat, claim error
		var taken cluster.Lease
		f.eachHandle(t, handles, func(i int, r cluster.Registry) error {
			if i == 0 {
				beat = r.Heartbeat(f.ctx, cluster.Node{ID: id, Session: l.Session})
			} else {
				taken, claim = r.Claim(f.ctx, other)
			}
			return nil
		})
		switch {
		case beat == nil && errors.Is(claim, cluster.ErrStreamInUse):
			heard++
			want(t, f.one(t, key), cluster.Broadcasting, l)
		case claim == nil && errors.Is(beat, cluster.ErrFenced):
			fenced++
			want(t, f.one(t, key), cluster.Broadcasting, taken)
		default:
			t.Errorf("round %d: heartbeat says %v, claim says %v", i, beat, claim)
		}
	}
	t.Logf("heard %d times, fenced %d times", heard, fenced)
}
