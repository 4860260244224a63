package clustertest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/media"
)

func lookup(t *testing.T, f *fixture) {
	if list, err := f.Lookup(f.ctx); err != nil || len(list) != 0 {
		t.Errorf("lookup of nothing: %+v, %v", list, err)
	}
	a, b := f.claim(t, stream("a"), "n1"), f.claim(t, stream("b"), "n2")
	f.claim(t, stream("c"), "n1")
	ok(t, f.Release(f.ctx, b))
	list, err := f.Lookup(f.ctx, stream("b"), stream("unknown"), stream("a"), stream("a"), media.Key{App: "other", ID: "a"})
	ok(t, err)
	slices.SortFunc(list, func(x, y cluster.Stream) int { return cmp.Compare(x.Key.ID, y.Key.ID) })
	if len(list) != 2 {
		t.Fatalf("lookup found %+v, want a and b once each", list)
	}
	want(t, list[0], cluster.Broadcasting, a)
	want(t, list[1], cluster.Finished, b)

	f.clock.Advance(time.Hour) // rows are as they were written: readers judge
	want(t, f.one(t, stream("a")), cluster.Broadcasting, a)
}

func streams(t *testing.T, f *fixture) {
	check := func(when string, want ...string) {
		t.Helper()
		list, err := f.Streams(f.ctx)
		ok(t, err)
		var got []string
		for _, s := range list {
			got = append(got, fmt.Sprintf("%s %s %s", s.Key, s.State, s.Origin))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: streams %q, want %q", when, got, want)
		}
	}
	check("in a new store")
	released := f.claim(t, stream("released"), "n1")
	silent := f.claim(t, stream("silent"), "n2")
	f.claim(t, media.Key{App: "live-2", ID: "b"}, "n3")
	f.claim(t, stream("b"), "n1")
	f.claim(t, stream("B"), "n1")
	ok(t, f.Release(f.ctx, released))
	ok(t, f.Report(f.ctx, silent, interrupted))
	check("now", "live-2/b broadcasting n3", "live/B broadcasting n1", "live/b broadcasting n1", "live/silent interrupted n2")
	f.clock.Advance(time.Hour)
	check("an hour later", "live-2/b broadcasting n3", "live/B broadcasting n1", "live/b broadcasting n1", "live/silent interrupted n2")
}

// forgotten: nodes that died and streams that nobody holds go after a while, and nothing else; epochs grow all the same.
func forgotten(t *testing.T, f *fixture) {
	held, old := f.claim(t, stream("held"), "a"), f.claim(t, stream("old"), "a")
	void, dead := f.claim(t, stream("void"), "left"), f.claim(t, stream("dead"), "dead")
	ok(t, f.Release(f.ctx, old))
	ok(t, f.Leave(f.ctx, "left", void.Session)) // it could not release what it held
	keys := []media.Key{stream("held"), stream("old"), stream("void"), stream("dead")}
	check := func(when string, nodes []string, streams ...string) {
		t.Helper()
		list, err := f.Lookup(f.ctx, keys...)
		ok(t, err)
		var got []string
		for _, s := range list {
			got = append(got, s.Key.ID)
		}
		slices.Sort(got)
		if slices.Sort(streams); !slices.Equal(got, streams) {
			t.Errorf("%s: streams %v, want %v", when, got, streams)
		}
		rows, err := f.Nodes(f.ctx)
		ok(t, err)
		var ids []string
		for _, n := range rows {
			ids = append(ids, n.ID)
		}
		if !slices.Equal(ids, nodes) {
			t.Errorf("%s: nodes %v, want %v", when, ids, nodes)
		}
	}
	f.clock.Advance(cluster.ForgetAfter - cluster.ForgetEvery)
	ok(t, f.beat(t, "a"))
	ended := f.claim(t, stream("ended"), "a")
	keys = append(keys, ended.Key)
	ok(t, f.Release(f.ctx, ended))
	check("before a day is over", []string{"a", "dead"}, "held", "old", "void", "dead", "ended")
	f.clock.Advance(cluster.ForgetEvery + time.Second)
	ok(t, f.beat(t, "a")) // nobody joins
	check("after a day", []string{"a"}, "held", "ended")
	f.clock.Advance(cluster.ForgetAfter)
	ok(t, f.beat(t, "a"))
	check("after two days", []string{"a"}, "held")
	want(t, f.one(t, stream("held")), cluster.Broadcasting, held)
	ok(t, f.Report(f.ctx, held, broadcasting))

	if again := f.claim(t, stream("old"), "a"); again.Epoch <= old.Epoch {
		t.Errorf("epoch %d after %d", again.Epoch, old.Epoch)
	}
	if err := f.beat(t, "dead"); !errors.Is(err, cluster.ErrFenced) { // it was only suspended
		t.Errorf("heartbeat of a node that was forgotten: %v", err)
	}
	session := f.join(t, "dead")
	back, err := f.Resume(f.ctx, dead, session)
	ok(t, err)
	want(t, f.one(t, stream("dead")), cluster.Broadcasting, back)
}

func thousandStreams(t *testing.T, f *fixture) {
	const n = 1000
	keys := make([]media.Key, n)
	for i := range keys {
		keys[i] = stream(fmt.Sprintf("s-%04d", i))
		l := f.claim(t, keys[i], nodeName(i%7))
		ok(t, f.Report(f.ctx, l, broadcasting))
	}
	list, err := f.Streams(f.ctx)
	ok(t, err)
	if len(list) != n {
		t.Fatalf("%d streams, want %d", len(list), n)
	}
	for i, s := range list {
		if s.Key != keys[i] || s.Origin != nodeName(i%7) || !slices.Equal(s.Codecs, broadcasting.Codecs) {
			t.Fatalf("stream %d is %+v", i, s)
		}
	}
	unknown := make([]media.Key, n)
	for i := range unknown {
		unknown[i] = stream(fmt.Sprintf("unknown-%04d", i))
	}
	if list, err = f.Lookup(f.ctx, append(unknown, keys...)...); err != nil || len(list) != n {
		t.Errorf("lookup of %d found %d, %v", 2*n, len(list), err)
	}
}

func weirdNames(t *testing.T, f *fixture) {
	long := strings.Repeat("x", 128)
	good := []media.Key{
		{App: "live", ID: "a.b"}, {App: "live", ID: "a-b"}, {App: "live", ID: "a_b"}, {App: "live", ID: "_id"}, {App: "live", ID: "-"},
		{App: "live", ID: "A"}, {App: "live", ID: "a"}, {App: "LIVE", ID: "a"}, {App: "0", ID: "00"}, {App: "0", ID: "0"},
		{App: "live", ID: "a..b"}, {App: "live", ID: "a."}, {App: long, ID: long}, {App: "null", ID: "true"},
	}
	for i, key := range good {
		ok(t, f.Report(f.ctx, f.claim(t, key, nodeName(i)), broadcasting))
	}
	for i, key := range good { // each is a stream of its own
		if s := f.one(t, key); s.Origin != nodeName(i) || s.Epoch != cluster.NextEpoch(0, f.clock.Now()) {
			t.Errorf("%s is of %s, epoch %d; want %s, the first epoch", key, s.Origin, s.Epoch, nodeName(i))
		}
	}
	for _, key := range []media.Key{
		{}, {App: "live"}, {ID: "a"}, {App: "live", ID: "a/b"}, {App: "live/a", ID: "b"}, {App: "live", ID: ".a"}, {App: "live", ID: "a b"},
		{App: "live", ID: "a' OR '1'='1"}, {App: "live", ID: "%"}, {App: "live", ID: "a\x00"}, {App: "live", ID: "ä"}, {App: "live", ID: "\xff"},
		{App: "live", ID: "$where"}, {App: "live", ID: long + "x"},
	} {
		if _, err := f.Claim(f.ctx, cluster.Lease{Key: key, Node: "a", Session: 1}); !errors.Is(err, media.ErrBadKey) {
			t.Errorf("claim of %q: %v, want ErrBadKey", key, err)
		}
		if list, err := f.Lookup(f.ctx, key); err != nil || len(list) != 0 {
			t.Errorf("lookup of %q: %+v, %v; want nothing", key, list, err)
		}
		l := cluster.Lease{Key: key, Node: "a", Session: 1, Epoch: 1}
		if err := f.Report(f.ctx, l, broadcasting); !errors.Is(err, cluster.ErrLeaseLost) {
			t.Errorf("report of %q: %v", key, err)
		}
	}
	if list, err := f.Streams(f.ctx); err != nil || len(list) != len(good) {
		t.Errorf("%d streams, %v; want %d", len(list), err, len(good))
	}
}
