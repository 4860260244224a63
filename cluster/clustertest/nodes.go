package clustertest

import (
	"context"
	"errors"
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
	ok(t, f.Heartbeat(f.ctx, n))
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
	check(f.Registry)
	check(other)

	// The next heartbeat replaces all of the row, from any handle; its stamp is the registry's.
	f.clock.Advance(time.Second)
	n.State, n.CPU, n.Serving, n.LastHeartbeat = cluster.Ready, 0.5, []cluster.Serving{{Stream: stream("z"), Viewers: 9}}, time.Time{}
	ok(t, other.Heartbeat(f.ctx, n))
	n.LastHeartbeat = f.clock.Now()
	check(f.Registry)
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
		ok(t, f.Heartbeat(f.ctx, cluster.Node{ID: id, Role: cluster.Origin, State: cluster.Ready}))
	}
	f.clock.Advance(time.Hour) // dead ones are listed too
	if got, want := ids(), []string{"10", "9", "B", "a", "a-1", "b"}; !slices.Equal(got, want) {
		t.Errorf("nodes %v, want %v", got, want)
	}
	ok(t, f.RemoveNode(f.ctx, "a"))
	ok(t, f.RemoveNode(f.ctx, "a"))
	ok(t, f.RemoveNode(f.ctx, "never"))
	if got, want := ids(), []string{"10", "9", "B", "a-1", "b"}; !slices.Equal(got, want) {
		t.Errorf("nodes %v after removals, want %v", got, want)
	}
	ok(t, f.Heartbeat(f.ctx, cluster.Node{ID: "a"}))
	if got := ids(); !slices.Contains(got, "a") {
		t.Errorf("nodes %v: the removed one has not come back with its heartbeat", got)
	}
}

func nodesRefused(t *testing.T, f *fixture) {
	for _, n := range []cluster.Node{
		{ID: ""}, {ID: "a.b"}, {ID: "a b"}, {ID: "ä"}, {ID: strings.Repeat("x", 65)},
		{ID: "a", Serving: []cluster.Serving{{}}},
		{ID: "a", Serving: []cluster.Serving{{Stream: media.Key{App: "live", ID: "a/b"}}}},
	} {
		if err := f.Heartbeat(f.ctx, n); err == nil {
			t.Errorf("heartbeat of %+v was accepted", n)
		}
	}
	if list, err := f.Nodes(f.ctx); err != nil || len(list) != 0 {
		t.Errorf("after refused heartbeats: nodes %v, error %v", list, err)
	}
}

// contextsObeyed: a context that has ended ends every call, and nothing is written.
func contextsObeyed(t *testing.T, f *fixture) {
	key := stream("s")
	l := f.claim(t, key, "a")
	ok(t, f.Heartbeat(f.ctx, cluster.Node{ID: "a"}))
	before := f.one(t, key)
	done, cancel := context.WithCancel(f.ctx)
	cancel()
	for name, call := range map[string]func() error{
		"Heartbeat":  func() error { return f.Heartbeat(done, cluster.Node{ID: "b"}) },
		"RemoveNode": func() error { return f.RemoveNode(done, "a") },
		"Nodes":      func() error { _, err := f.Nodes(done); return err },
		"Claim":      func() error { _, err := f.Claim(done, key, "a", ttl); return err },
		"Renew":      func() error { return f.Renew(done, l, interrupted, ttl) },
		"Release":    func() error { return f.Release(done, l) },
		"Lookup":     func() error { _, err := f.Lookup(done, key); return err },
		"Streams":    func() error { _, err := f.Streams(done); return err },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v", name, err)
		}
	}
	if after := f.one(t, key); !reflect.DeepEqual(after, before) {
		t.Errorf("the stream was %+v and is %+v", before, after)
	}
	if list, err := f.Nodes(f.ctx); err != nil || len(list) != 1 || list[0].ID != "a" {
		t.Errorf("nodes %+v, error %v; want a alone", list, err)
	}
}

// closeOne: closing one registry leaves the others, and what they share, as it was.
func closeOne(t *testing.T, f *fixture) {
	first := f.open(t)
	_, err := first.Claim(f.ctx, stream("s"), "a", ttl)
	ok(t, err)
	ok(t, first.Close())
	if _, err := first.Claim(f.ctx, stream("s"), "a", ttl); err == nil {
		t.Error("claim on a closed registry succeeded")
	}
	if _, err := first.Nodes(f.ctx); err == nil {
		t.Error("a closed registry lists nodes")
	}
	if s := f.one(t, stream("s")); s.State != cluster.Broadcasting {
		t.Errorf("stream is %s after another registry was closed", s.State)
	}
}
