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
	if len(s.Codecs) != 0 || !same(s.Started, start) || !same(s.LeaseUntil, start.Add(ttl)) {
		t.Errorf("after the claim: %+v; want no codecs, started %v, lease until %v", s, start, start.Add(ttl))
	}

	f.clock.Advance(time.Second)
	ok(t, f.Renew(f.ctx, l, broadcasting, 2*ttl))
	s = f.one(t, key)
	want(t, s, cluster.Broadcasting, l)
	if !slices.Equal(s.Codecs, broadcasting.Codecs) || !same(s.Started, start) || !same(s.LeaseUntil, start.Add(time.Second+2*ttl)) {
		t.Errorf("after the renewal: %+v", s)
	}

	ok(t, f.Renew(f.ctx, l, interrupted, ttl))
	want(t, f.one(t, key), cluster.Interrupted, l)
	ok(t, f.Renew(f.ctx, l, cluster.StreamInfo{State: cluster.Broadcasting}, ttl))
	if s = f.one(t, key); len(s.Codecs) != 0 {
		t.Errorf("codecs %v after a renewal without any", s.Codecs)
	}

	ok(t, f.Release(f.ctx, l))
	want(t, f.one(t, key), cluster.Finished, l) // the row stays with its epoch
	if err := f.Release(f.ctx, l); !errors.Is(err, cluster.ErrLeaseLost) {
		t.Errorf("second release: %v", err)
	}
	if err := f.Renew(f.ctx, l, broadcasting, ttl); !errors.Is(err, cluster.ErrLeaseLost) {
		t.Errorf("renewal after release: %v", err)
	}
	want(t, f.one(t, key), cluster.Finished, l)
}

func whoMayClaim(t *testing.T, f *fixture) {
	other := f.open(t)
	for _, c := range []struct {
		name   string
		before func(cluster.Lease)
		node   string
		inUse  bool
	}{
		{"nobody while it is held", func(cluster.Lease) {}, "b", true},
		{"nobody a millisecond before it runs out", func(cluster.Lease) { f.clock.Advance(ttl - time.Millisecond) }, "b", true},
		{"anyone when it has run out", func(cluster.Lease) { f.clock.Advance(ttl) }, "b", false},
		{"nobody when it was renewed in time", func(l cluster.Lease) {
			f.clock.Advance(ttl / 2)
			ok(t, f.Renew(f.ctx, l, broadcasting, ttl))
			f.clock.Advance(ttl / 2)
		}, "b", true},
		{"anyone when it is interrupted", func(l cluster.Lease) { ok(t, f.Renew(f.ctx, l, interrupted, ttl)) }, "b", false},
		{"nobody when it is broadcasting again", func(l cluster.Lease) {
			ok(t, f.Renew(f.ctx, l, interrupted, ttl))
			ok(t, f.Renew(f.ctx, l, broadcasting, ttl))
		}, "b", true},
		{"anyone when it is released", func(l cluster.Lease) { ok(t, f.Release(f.ctx, l)) }, "b", false},
		{"the same node always", func(cluster.Lease) {}, "a", false},
	} {
		key := media.Key{App: "app", ID: fmt.Sprintf("%x", c.name)}
		l := f.claim(t, key, "a")
		c.before(l)
		got, err := other.Claim(f.ctx, key, c.node, ttl)
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
}

func takeoverKeepsStart(t *testing.T, f *fixture) {
	key, start := stream("s"), f.clock.Now()
	l := f.claim(t, key, "a")
	ok(t, f.Renew(f.ctx, l, interrupted, ttl))
	f.clock.Advance(time.Second)
	f.claim(t, key, "b")
	if s := f.one(t, key); !same(s.Started, start) {
		t.Errorf("started %v after a takeover, want %v", s.Started, start)
	}
	f.clock.Advance(ttl)
	l = f.claim(t, key, "c") // b's lease has run out: another broadcast
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
	for i := range 30 {
		r := handles[i%len(handles)]
		l, err := r.Claim(f.ctx, key, nodeName(i%4), ttl)
		ok(t, err)
		if l.Epoch <= last {
			t.Fatalf("claim %d has epoch %d after %d", i, l.Epoch, last)
		}
		last = l.Epoch
		switch i % 3 { // how it ends
		case 0:
			ok(t, r.Release(f.ctx, l))
		case 1:
			f.clock.Advance(ttl)
		case 2:
			ok(t, r.Renew(f.ctx, l, interrupted, ttl))
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
	for _, c := range []struct {
		name string
		end  func(old cluster.Lease) // so that b may claim
		node string
	}{
		{"ran out", func(cluster.Lease) { f.clock.Advance(ttl) }, "b"},
		{"interrupted", func(l cluster.Lease) { ok(t, f.Renew(f.ctx, l, interrupted, ttl)) }, "b"},
		{"released", func(l cluster.Lease) { ok(t, f.Release(f.ctx, l)) }, "b"},
		{"same node", func(cluster.Lease) {}, "a"},
	} {
		key := media.Key{App: "app", ID: fmt.Sprintf("%x", c.name)}
		old := f.claim(t, key, "a")
		c.end(old)
		l, err := other.Claim(f.ctx, key, c.node, ttl)
		ok(t, err)
		ok(t, other.Renew(f.ctx, l, broadcasting, ttl))
		before := f.one(t, key)
		for what, err := range map[string]error{
			"renew":       f.Renew(f.ctx, old, interrupted, time.Hour),
			"release":     f.Release(f.ctx, old),
			"other node":  f.Release(f.ctx, cluster.Lease{Key: key, Node: "c", Epoch: l.Epoch}),
			"next epoch":  f.Renew(f.ctx, cluster.Lease{Key: key, Node: l.Node, Epoch: l.Epoch + 1}, interrupted, ttl),
			"other key":   f.Release(f.ctx, cluster.Lease{Key: stream("never"), Node: l.Node, Epoch: l.Epoch}),
			"other key's": f.Renew(f.ctx, cluster.Lease{Key: stream("never"), Node: l.Node, Epoch: l.Epoch}, broadcasting, ttl),
		} {
			if !errors.Is(err, cluster.ErrLeaseLost) {
				t.Errorf("%s, %s: %v, want ErrLeaseLost", c.name, what, err)
			}
		}
		if after := f.one(t, key); !reflect.DeepEqual(after, before) {
			t.Errorf("%s: the stream was\n%+v and is\n%+v", c.name, before, after)
		}
		ok(t, other.Renew(f.ctx, l, broadcasting, ttl))
	}
	if list, err := f.Lookup(f.ctx, stream("never")); err != nil || len(list) != 0 {
		t.Errorf("a renewal has made a stream: %+v, %v", list, err)
	}
}

func lateButAlone(t *testing.T, f *fixture) {
	key := stream("s")
	l := f.claim(t, key, "a")
	f.clock.Advance(10 * ttl) // the registry was away, say
	want(t, f.one(t, key), cluster.Finished, l)
	ok(t, f.Renew(f.ctx, l, broadcasting, ttl))
	want(t, f.one(t, key), cluster.Broadcasting, l)
	if _, err := f.Claim(f.ctx, key, "b", ttl); !errors.Is(err, cluster.ErrStreamInUse) {
		t.Errorf("claim of what is renewed: %v", err)
	}
	f.clock.Advance(10 * ttl)
	ok(t, f.Release(f.ctx, l))
	want(t, f.one(t, key), cluster.Finished, l)
}

func oneClaimerWins(t *testing.T, f *fixture) {
	handles := f.handles(t, 8)
	var last cluster.Lease
	for round, end := range []func(){
		func() {}, // the first claim of all: nobody has a row
		func() { ok(t, f.Release(f.ctx, last)) },
		func() { ok(t, f.Renew(f.ctx, last, interrupted, ttl)) },
		func() { f.clock.Advance(ttl) },
		func() { ok(t, f.Release(f.ctx, last)) },
		func() { f.clock.Advance(2 * ttl) },
	} {
		end()
		var mu sync.Mutex
		var won []cluster.Lease
		f.eachHandle(t, handles, func(i int, r cluster.Registry) error {
			l, err := r.Claim(f.ctx, stream("s"), nodeName(100*round+i), ttl)
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
		ok(t, f.Renew(f.ctx, last, broadcasting, ttl)) // the winner holds it in truth
	}
}

// renewalAgainstTakeover: either the holder renews first and the other is refused, or it is told that it has lost.
func renewalAgainstTakeover(t *testing.T, f *fixture) {
	handles := f.handles(t, 2)
	for i := range 20 {
		key := stream(fmt.Sprint(i))
		l := f.claim(t, key, "a")
		f.clock.Advance(ttl) // has run out: both are possible
		var renew, claim error
		var taken cluster.Lease
		f.eachHandle(t, handles, func(i int, r cluster.Registry) error {
			if i == 0 {
				renew = r.Renew(f.ctx, l, broadcasting, ttl)
			} else {
				taken, claim = r.Claim(f.ctx, key, "b", ttl)
			}
			return nil
		})
		switch {
		case renew == nil && errors.Is(claim, cluster.ErrStreamInUse):
			want(t, f.one(t, key), cluster.Broadcasting, l)
		case claim == nil && errors.Is(renew, cluster.ErrLeaseLost):
			want(t, f.one(t, key), cluster.Broadcasting, taken)
		default:
			t.Errorf("stream %d: renewal says %v, takeover says %v", i, renew, claim)
		}
	}
}

func claimsRefused(t *testing.T, f *fixture) {
	key := stream("s")
	l := f.claim(t, key, "a")
	before := f.one(t, key)
	for name, call := range map[string]func() error{
		"no node":        func() error { _, err := f.Claim(f.ctx, key, "", ttl); return err },
		"node with dot":  func() error { _, err := f.Claim(f.ctx, key, "a.b", ttl); return err },
		"no time":        func() error { _, err := f.Claim(f.ctx, key, "a", 0); return err },
		"negative time":  func() error { return f.Renew(f.ctx, l, broadcasting, -time.Second) },
		"no state":       func() error { return f.Renew(f.ctx, l, cluster.StreamInfo{}, ttl) },
		"finished state": func() error { return f.Renew(f.ctx, l, cluster.StreamInfo{State: cluster.Finished}, ttl) },
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
