package clustertest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/media"
)

func lifeOfALease(t *testing.T, f *fixture) {
	key, start := stream("s"), f.clock.Now()
	l := f.claim(t, key, "a")
	s := f.one(t, key)
	want(t, s, cluster.Broadcasting, l)
	if len(s.Codecs) != 0 || !same(s.Started, start) {
		t.Errorf("after the claim: %+v; want no codecs, started %v", s, start)
	}

	f.clock.Advance(time.Second)
	ok(t, f.Report(f.ctx, l, broadcasting))
	s = f.one(t, key)
	want(t, s, cluster.Broadcasting, l)
	if !slices.Equal(s.Codecs, broadcasting.Codecs) || !same(s.Started, start) {
		t.Errorf("after the report: %+v", s)
	}

	ok(t, f.Report(f.ctx, l, interrupted))
	want(t, f.one(t, key), cluster.Interrupted, l)
	ok(t, f.Report(f.ctx, l, leaving))
	want(t, f.one(t, key), cluster.Leaving, l)
	if all, err := f.Streams(f.ctx); err != nil || len(all) != 1 {
		t.Errorf("streams while one is leaving: %+v, %v", all, err)
	}
	ok(t, f.Report(f.ctx, l, cluster.StreamInfo{State: cluster.Broadcasting}))
	if s = f.one(t, key); len(s.Codecs) != 0 {
		t.Errorf("codecs %v after a report without any", s.Codecs)
	}

	ok(t, f.Release(f.ctx, l))
	want(t, f.one(t, key), cluster.Finished, l) // the row stays with its epoch
	if err := f.Release(f.ctx, l); !errors.Is(err, cluster.ErrLeaseLost) {
		t.Errorf("second release: %v", err)
	}
	if err := f.Report(f.ctx, l, broadcasting); !errors.Is(err, cluster.ErrLeaseLost) {
		t.Errorf("report after release: %v", err)
	}
	if _, err := f.Resume(f.ctx, l, 1<<40); !errors.Is(err, cluster.ErrLeaseLost) {
		t.Errorf("resumption after release: %v", err)
	}
	want(t, f.one(t, key), cluster.Finished, l)
}

func whoMayClaim(t *testing.T, f *fixture) {
	other := f.open(t)
	for i, c := range []struct {
		name   string
		before func(l cluster.Lease) // a's
		node   string
		inUse  bool
	}{
		{"nobody while it is held", func(cluster.Lease) {}, "b", true},
		{"nobody a millisecond before the session is old", func(cluster.Lease) { f.clock.Advance(ttl - time.Millisecond) }, "b", true},
		{"anyone when the session is old", func(cluster.Lease) { f.clock.Advance(ttl) }, "b", false},
		{"nobody when the session was renewed in time", func(l cluster.Lease) {
			f.clock.Advance(ttl / 2)
			ok(t, f.beat(t, l.Node))
			f.clock.Advance(ttl / 2)
		}, "b", true},
		{"nobody when it was renewed late", func(l cluster.Lease) {
			f.clock.Advance(time.Hour)
			ok(t, f.beat(t, l.Node))
		}, "b", true},
		{"anyone when the node is about to go, although media flows", func(l cluster.Lease) { ok(t, f.Report(f.ctx, l, leaving)) }, "b", false},
		{"anyone when the node has left", func(l cluster.Lease) { ok(t, f.Leave(f.ctx, l.Node, l.Session)) }, "b", false},
		{"anyone when another session has replaced it", func(l cluster.Lease) { f.join(t, l.Node) }, "b", false},
		{"anyone when the session was fenced for another stream", func(l cluster.Lease) {
			twin := f.claim(t, media.Key{App: "twin", ID: l.Key.ID}, l.Node)
			f.clock.Advance(ttl)
			f.claim(t, twin.Key, "c")
		}, "b", false},
		{"anyone when it is interrupted", func(l cluster.Lease) { ok(t, f.Report(f.ctx, l, interrupted)) }, "b", false},
		{"nobody when it is broadcasting again", func(l cluster.Lease) {
			ok(t, f.Report(f.ctx, l, interrupted))
			ok(t, f.Report(f.ctx, l, broadcasting))
		}, "b", true},
		{"anyone when it is released", func(l cluster.Lease) { ok(t, f.Release(f.ctx, l)) }, "b", false},
		{"the same session always", func(cluster.Lease) {}, "", false},
		{"the same node with its next session", func(l cluster.Lease) { f.join(t, l.Node) }, "", false},
	} {
		key, holder := media.Key{App: "app", ID: fmt.Sprintf("%x", c.name)}, nodeName(i)
		l := f.claim(t, key, holder)
		c.before(l)
		if c.node == "" {
			c.node = holder
		}
		got, err := other.Claim(f.ctx, f.want(t, key, c.node))
		if errors.Is(err, cluster.ErrStreamInUse) != c.inUse || err == nil && c.inUse || err != nil && !c.inUse {
			t.Errorf("%s: claim says %v", c.name, err)
			continue
		}
		if c.inUse {
			want(t, f.one(t, key), cluster.Broadcasting, l)
			continue
		}
		if got.Epoch <= l.Epoch {
			t.Errorf("%s: epoch %d after %d", c.name, got.Epoch, l.Epoch)
		}
		s := f.one(t, key)
		want(t, s, cluster.Broadcasting, got)
		if len(s.Codecs) != 0 {
			t.Errorf("%s: codecs %v are the last holder's", c.name, s.Codecs)
		}
	}

	// Who was replaced does not get the stream of who replaced him.
	old := f.want(t, stream("s"), "x")
	f.join(t, "x")
	l := f.claim(t, stream("s"), "x")
	if _, err := other.Claim(f.ctx, old); !errors.Is(err, cluster.ErrStreamInUse) {
		t.Errorf("claim by a replaced session of the same node: %v", err)
	}
	want(t, f.one(t, stream("s")), cluster.Broadcasting, l)
}

func takeoverKeepsStart(t *testing.T, f *fixture) {
	key, start := stream("s"), f.clock.Now()
	l := f.claim(t, key, "a0")
	ok(t, f.Report(f.ctx, l, leaving))
	l = f.claim(t, key, "a")
	ok(t, f.Report(f.ctx, l, interrupted))
	f.clock.Advance(time.Second)
	f.claim(t, key, "b")
	if s := f.one(t, key); !same(s.Started, start) {
		t.Errorf("started %v after a takeover, want %v", s.Started, start)
	}
	f.clock.Advance(ttl)
	l = f.claim(t, key, "c") // b is dead: another broadcast
	if s := f.one(t, key); !same(s.Started, f.clock.Now()) {
		t.Errorf("started %v, want the claim's time %v", s.Started, f.clock.Now())
	}
	ok(t, f.Release(f.ctx, l))
	f.clock.Advance(time.Second)
	f.claim(t, key, "c")
	if s := f.one(t, key); !same(s.Started, f.clock.Now()) {
		t.Errorf("started %v after release and claim, want %v", s.Started, f.clock.Now())
	}
}

func epochsGrow(t *testing.T, f *fixture) {
	key := stream("s")
	handles := f.handles(t, 3)
	last := int64(0)
	for i := range 40 {
		r, id := handles[i%len(handles)], nodeName(i%5)
		f.join(t, id)
		l := f.take(t, r, f.want(t, key, id))
		if l.Epoch <= last {
			t.Fatalf("claim %d has epoch %d after %d", i, l.Epoch, last)
		}
		last = l.Epoch
		switch i % 4 { // how it ends
		case 0:
			ok(t, r.Release(f.ctx, l))
		case 1:
			f.clock.Advance(ttl)
		case 2:
			ok(t, r.Report(f.ctx, l, interrupted))
		case 3:
			resumed, err := r.Resume(f.ctx, l, f.join(t, id))
			ok(t, err)
			if resumed.Epoch <= last {
				t.Fatalf("resumption %d has epoch %d after %d", i, resumed.Epoch, last)
			}
			last = resumed.Epoch
			ok(t, r.Leave(f.ctx, id, resumed.Session))
		}
	}
	f.clock.Advance(365 * 24 * time.Hour)
	if l := f.claim(t, key, "a"); l.Epoch <= last {
		t.Errorf("epoch %d a year later, after %d", l.Epoch, last)
	}
}

// lateHolder: whose lease was taken over is told so, whatever it does, and changes nothing.
func lateHolder(t *testing.T, f *fixture) {
	other := f.open(t)
	for i, c := range []struct {
		name string
		end  func(old cluster.Lease) // so that b may claim
		same bool                    // the same session claims
	}{
		{"fenced", func(cluster.Lease) { f.clock.Advance(ttl) }, false},
		{"interrupted", func(l cluster.Lease) { ok(t, f.Report(f.ctx, l, interrupted)) }, false},
		{"released", func(l cluster.Lease) { ok(t, f.Release(f.ctx, l)) }, false},
		{"same session", func(cluster.Lease) {}, true},
	} {
		key, node := media.Key{App: "app", ID: fmt.Sprintf("%x", c.name)}, nodeName(i)
		old := f.claim(t, key, node)
		c.end(old)
		if !c.same {
			node = "b"
		}
		l := f.take(t, other, f.want(t, key, node))
		ok(t, other.Report(f.ctx, l, broadcasting))
		before := f.one(t, key)
		changed := func(change func(*cluster.Lease)) cluster.Lease {
			l := l
			change(&l)
			return l
		}
		resume := func(l cluster.Lease) error {
			_, err := f.Resume(f.ctx, l, 1<<40)
			return err
		}
		for what, err := range map[string]error{
			"report":          f.Report(f.ctx, old, interrupted),
			"release":         f.Release(f.ctx, old),
			"resume":          resume(old),
			"other node":      f.Release(f.ctx, changed(func(l *cluster.Lease) { l.Node = "c" })),
			"other session":   f.Release(f.ctx, changed(func(l *cluster.Lease) { l.Session++ })),
			"other session's": resume(changed(func(l *cluster.Lease) { l.Session++ })),
			"next epoch":      f.Report(f.ctx, changed(func(l *cluster.Lease) { l.Epoch++ }), interrupted),
			"backup":          f.Release(f.ctx, changed(func(l *cluster.Lease) { l.Backup = true })),
			"other key":       f.Release(f.ctx, changed(func(l *cluster.Lease) { l.Key = stream("never") })),
			"other key's":     f.Report(f.ctx, changed(func(l *cluster.Lease) { l.Key = stream("never") }), broadcasting),
		} {
			if !errors.Is(err, cluster.ErrLeaseLost) {
				t.Errorf("%s, %s: %v, want ErrLeaseLost", c.name, what, err)
			}
		}
		if after := f.one(t, key); !reflect.DeepEqual(after, before) {
			t.Errorf("%s: the stream was\n%+v and is\n%+v", c.name, before, after)
		}
		ok(t, other.Report(f.ctx, l, broadcasting))
	}
	if list, err := f.Lookup(f.ctx, stream("never")); err != nil || len(list) != 0 {
		t.Errorf("a report has made a stream: %+v, %v", list, err)
	}
}

// resume: a node that has joined again takes along what nobody took meanwhile.
func resume(t *testing.T, f *fixture) {
	start := f.clock.Now()
	a, taken := f.claim(t, stream("a"), "n"), f.claim(t, stream("taken"), "n")
	ok(t, f.Report(f.ctx, a, interrupted))
	f.clock.Advance(ttl)
	f.claim(t, stream("taken"), "b")
	session := f.join(t, "n")
	var leases [2]cluster.Lease
	for i := range leases { // the first answer got lost, say
		l, err := f.Resume(f.ctx, a, session)
		ok(t, err)
		leases[i] = l
		if l.Epoch <= a.Epoch || l.Session != session || l.Key != a.Key || l.Node != "n" || l != leases[0] {
			t.Errorf("resumed %+v as %+v", a, l)
		}
	}
	s := f.one(t, stream("a"))
	want(t, s, cluster.Interrupted, leases[0])
	if !slices.Equal(s.Codecs, broadcasting.Codecs) || !same(s.Started, start) {
		t.Errorf("the resumed stream is %+v", s)
	}
	if _, err := f.Resume(f.ctx, taken, session); !errors.Is(err, cluster.ErrLeaseLost) {
		t.Errorf("resumption of what was taken: %v", err)
	}
	ok(t, f.Report(f.ctx, leases[0], broadcasting))
	if _, err := f.Claim(f.ctx, f.want(t, stream("a"), "b")); !errors.Is(err, cluster.ErrStreamInUse) {
		t.Errorf("claim of what was resumed: %v", err)
	}
	if err := f.Report(f.ctx, a, interrupted); !errors.Is(err, cluster.ErrLeaseLost) {
		t.Errorf("report under the epoch before: %v", err)
	}
}

// emptied: what is held goes on with a higher epoch although the registry has lost its rows, or has those of an earlier time.
func emptied(t *testing.T, f *fixture) {
	fresh := f.want(t, stream("b"), "a")
	for _, c := range []struct {
		name  string
		key   media.Key
		ahead int64 // of the row
	}{
		{"no row", stream("none"), 0},
		{"an older row", stream("old"), 7},
	} {
		held := fresh
		held.Key, held.Epoch = c.key, cluster.NextEpoch(0, f.clock.Now())+c.ahead
		if c.ahead > 0 {
			ok(t, f.Release(f.ctx, f.claim(t, c.key, "a")))
		}
		f.clock.Advance(time.Second)
		for range 2 { // the first answer got lost, say
			l, err := f.Resume(f.ctx, held, f.in(t, "b"))
			if err != nil || l.Epoch <= held.Epoch {
				t.Fatalf("%s: resumed %+v as %+v, %v", c.name, held, l, err)
			}
			held.Node, held.Session = "a", fresh.Session
			s := f.one(t, c.key)
			want(t, s, cluster.Broadcasting, l)
			if !same(s.Started, f.clock.Now()) {
				t.Errorf("%s: started %v", c.name, s.Started)
			}
		}
	}
	held := f.claim(t, stream("b"), "a")
	f.clock.Advance(time.Second)
	// Of another registry, where nobody has heard of the stream, this would be the first claim.
	if first := cluster.NextEpoch(0, f.clock.Now()); first <= held.Epoch+1 || f.claim(t, stream("c"), "b").Epoch < first {
		t.Errorf("the first claim a second later has epoch %d, below that of before, %d", first, held.Epoch)
	}
}

func backups(t *testing.T, f *fixture) {
	key := stream("s")
	main := f.claim(t, key, "a")
	wanted := f.want(t, key, "b")
	wanted.Backup = true
	backup := f.take(t, f.Store, wanted)
	if wanted.Node, wanted.Session = "c", f.in(t, "c"); true {
		if _, err := f.Claim(f.ctx, wanted); !errors.Is(err, cluster.ErrStreamInUse) {
			t.Errorf("second backup: %v", err)
		}
	}
	ok(t, f.Report(f.ctx, backup, broadcasting))
	list, err := f.Lookup(f.ctx, key)
	ok(t, err)
	all, err := f.Streams(f.ctx)
	ok(t, err)
	if len(list) != 2 || len(all) != 2 || all[0].Backup || !all[1].Backup {
		t.Fatalf("rows %+v and %+v, want main and backup", list, all)
	}
	want(t, all[0], cluster.Broadcasting, main)
	want(t, all[1], cluster.Broadcasting, backup)
	if len(all[0].Codecs) != 0 || len(all[1].Codecs) != 2 {
		t.Errorf("the backup's report is in %+v", all)
	}
	ok(t, f.Release(f.ctx, main))
	all, err = f.Streams(f.ctx)
	ok(t, err)
	if len(all) != 1 {
		t.Fatalf("rows %+v after the main one ended", all)
	}
	want(t, all[0], cluster.Broadcasting, backup)
}

func oneClaimerWins(t *testing.T, f *fixture) {
	handles := f.handles(t, 8)
	var last cluster.Lease
	for round, end := range []func(){
		func() {}, // the first claim of all: nobody has a row
		func() { ok(t, f.Release(f.ctx, last)) },
		func() { ok(t, f.Report(f.ctx, last, interrupted)) },
		func() { f.clock.Advance(ttl) },
		func() { ok(t, f.Leave(f.ctx, last.Node, last.Session)) },
		func() { f.join(t, last.Node) },
		func() { f.clock.Advance(2 * ttl) },
	} {
		end()
		var asked []cluster.Lease
		for i := range handles {
			asked = append(asked, f.want(t, stream("s"), nodeName(100*round+i)))
		}
		var mu sync.Mutex
		var won []cluster.Lease
		f.eachHandle(t, handles, func(i int, r cluster.Registry) error {
			l, err := r.Claim(f.ctx, asked[i])
			if errors.Is(err, cluster.ErrStreamInUse) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won = append(won, l)
			}
			return err
		})
		if len(won) != 1 {
			t.Fatalf("round %d: %d claimers won: %+v", round, len(won), won)
		}
		if won[0].Epoch <= last.Epoch {
			t.Fatalf("round %d: epoch %d after %d", round, won[0].Epoch, last.Epoch)
		}
		last = won[0]
		want(t, f.one(t, stream("s")), cluster.Broadcasting, last)
		ok(t, f.Report(f.ctx, last, broadcasting)) // the winner holds it in truth
	}
}

// reportAgainstTakeover: either the holder is broadcasting again and the other is refused, or it is told that it has lost.
func reportAgainstTakeover(t *testing.T, f *fixture) {
	handles := f.handles(t, 2)
	for i := range 20 {
		key := stream(fmt.Sprint(i))
		l, other := f.claim(t, key, "a"), f.want(t, key, "b")
		ok(t, f.Report(f.ctx, l, interrupted)) // both are possible
		var report, claim error
		var taken cluster.Lease
		f.eachHandle(t, handles, func(i int, r cluster.Registry) error {
			if i == 0 {
				report = r.Report(f.ctx, l, broadcasting)
			} else {
				taken, claim = r.Claim(f.ctx, other)
			}
			return nil
		})
		switch {
		case report == nil && errors.Is(claim, cluster.ErrStreamInUse):
			want(t, f.one(t, key), cluster.Broadcasting, l)
		case claim == nil && errors.Is(report, cluster.ErrLeaseLost):
			want(t, f.one(t, key), cluster.Broadcasting, taken)
		default:
			t.Errorf("stream %d: report says %v, takeover says %v", i, report, claim)
		}
	}
}

func claimsRefused(t *testing.T, f *fixture) {
	key := stream("s")
	l := f.claim(t, key, "a")
	before := f.one(t, key)
	for name, call := range map[string]func() error{
		"no node":        func() error { _, err := f.Claim(f.ctx, cluster.Lease{Key: key, Session: 7}); return err },
		"node with dot":  func() error { _, err := f.Claim(f.ctx, cluster.Lease{Key: key, Node: "a.b", Session: 7}); return err },
		"no session":     func() error { _, err := f.Claim(f.ctx, cluster.Lease{Key: key, Node: "a"}); return err },
		"no state":       func() error { return f.Report(f.ctx, l, cluster.StreamInfo{}) },
		"finished state": func() error { return f.Report(f.ctx, l, cluster.StreamInfo{State: cluster.Finished}) },
	} {
		err := call()
		if err == nil || errors.Is(err, cluster.ErrStreamInUse) || errors.Is(err, cluster.ErrLeaseLost) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := f.one(t, key); !reflect.DeepEqual(after, before) {
		t.Errorf("the stream was %+v and is %+v", before, after)
	}
}
