package clustertest

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
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

	f.clock.Advance(ttl - time.Millisecond)
	want(t, f.one(t, stream("a")), cluster.Broadcasting, a)
	f.clock.Advance(time.Millisecond)
	want(t, f.one(t, stream("a")), cluster.Finished, a)
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
	b := f.claim(t, stream("b"), "n1")
	f.claim(t, stream("B"), "n1")
	ok(t, f.Release(f.ctx, released))
	ok(t, f.Renew(f.ctx, silent, interrupted, ttl))
	check("now", "live-2/b broadcasting n3", "live/B broadcasting n1", "live/b broadcasting n1", "live/silent interrupted n2")
	f.clock.Advance(ttl / 2)
	ok(t, f.Renew(f.ctx, b, broadcasting, ttl))
	f.clock.Advance(ttl / 2)
	check("when most ran out", "live/b broadcasting n1")
	if s := f.one(t, stream("silent")); s.State != cluster.Finished {
		t.Errorf("an interrupted stream that ran out is %s", s.State)
	}
}

func thousandStreams(t *testing.T, f *fixture) {
	const n = 1000
	keys := make([]media.Key, n)
	for i := range keys {
		keys[i] = stream(fmt.Sprintf("s-%04d", i))
		l := f.claim(t, keys[i], nodeName(i%7))
		ok(t, f.Renew(f.ctx, l, broadcasting, ttl))
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
		ok(t, f.Renew(f.ctx, f.claim(t, key, nodeName(i)), broadcasting, ttl))
	}
	for i, key := range good { // each is a stream of its own
		if s := f.one(t, key); s.Origin != nodeName(i) || s.Epoch != 1 {
			t.Errorf("%s is of %s, epoch %d; want %s, 1", key, s.Origin, s.Epoch, nodeName(i))
		}
	}
	for _, key := range []media.Key{
		{}, {App: "live"}, {ID: "a"}, {App: "live", ID: "a/b"}, {App: "live/a", ID: "b"}, {App: "live", ID: ".a"}, {App: "live", ID: "a b"},
		{App: "live", ID: "a' OR '1'='1"}, {App: "live", ID: "%"}, {App: "live", ID: "a\x00"}, {App: "live", ID: "ä"}, {App: "live", ID: "\xff"},
		{App: "live", ID: "$where"}, {App: "live", ID: long + "x"},
	} {
		if _, err := f.Claim(f.ctx, key, "a", ttl); !errors.Is(err, media.ErrBadKey) {
			t.Errorf("claim of %q: %v, want ErrBadKey", key, err)
		}
		if list, err := f.Lookup(f.ctx, key); err != nil || len(list) != 0 {
			t.Errorf("lookup of %q: %+v, %v; want nothing", key, list, err)
		}
		l := cluster.Lease{Key: key, Node: "a", Epoch: 1}
		if err := f.Renew(f.ctx, l, broadcasting, ttl); !errors.Is(err, cluster.ErrLeaseLost) {
			t.Errorf("renewal of %q: %v", key, err)
		}
	}
	if list, err := f.Streams(f.ctx); err != nil || len(list) != len(good) {
		t.Errorf("%d streams, %v; want %d", len(list), err, len(good))
	}
}

// model is the simplest thing that does what the interface's comments say.
type model map[media.Key]*cluster.Stream

func (m model) live(s *cluster.Stream, now time.Time) bool {
	return s != nil && s.State != cluster.Finished && s.LeaseUntil.After(now)
}

func (m model) claim(key media.Key, node string, now time.Time) (epoch int64, err error) {
	s := m[key]
	if m.live(s, now) && s.State == cluster.Broadcasting && s.Origin != node {
		return 0, cluster.ErrStreamInUse
	}
	if s != nil {
		epoch = s.Epoch
	}
	m[key] = &cluster.Stream{Key: key, State: cluster.Broadcasting, Origin: node, Epoch: epoch + 1, LeaseUntil: now.Add(ttl)}
	return epoch + 1, nil
}

func (m model) change(l cluster.Lease, state cluster.StreamState, now time.Time) error {
	s := m[l.Key]
	if s == nil || s.State == cluster.Finished || s.Epoch != l.Epoch || s.Origin != l.Node {
		return cluster.ErrLeaseLost
	}
	s.State, s.LeaseUntil = state, now.Add(ttl)
	return nil
}

// randomHistories plays random calls on the registry and on the model, which must agree.
func randomHistories(t *testing.T, f *fixture) {
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 0))
	handles := f.handles(t, 3)
	m, leases := model{}, []cluster.Lease{}
	for step := range 500 {
		r := handles[rnd.IntN(len(handles))]
		var what string
		var got, want error
		if op := rnd.IntN(10); op < 3 || len(leases) == 0 {
			key, node := stream(fmt.Sprint(rnd.IntN(3))), nodeName(rnd.IntN(3))
			what = fmt.Sprintf("claim of %s by %s", key, node)
			var l cluster.Lease
			var epoch int64
			l, got = r.Claim(f.ctx, key, node, ttl)
			if epoch, want = m.claim(key, node, f.clock.Now()); want == nil {
				leases = append(leases, cluster.Lease{Key: key, Node: node, Epoch: epoch})
				if l != leases[len(leases)-1] {
					t.Fatalf("seed %d, step %d: %s has %+v, want epoch %d", seed, step, what, l, epoch)
				}
			}
		} else if l := leases[max(0, len(leases)-1-rnd.IntN(5))]; op < 7 { // an old one at times
			info := []cluster.StreamInfo{broadcasting, broadcasting, interrupted}[rnd.IntN(3)]
			what = fmt.Sprintf("renewal of %+v as %s", l, info.State)
			got, want = r.Renew(f.ctx, l, info, ttl), m.change(l, info.State, f.clock.Now())
		} else if op < 8 {
			what = fmt.Sprintf("release of %+v", l)
			got, want = r.Release(f.ctx, l), m.change(l, cluster.Finished, f.clock.Now())
		} else {
			f.clock.Advance(time.Duration(rnd.IntN(4)) * ttl / 3)
		}
		if (got == nil) != (want == nil) || !errors.Is(got, want) {
			t.Fatalf("seed %d, step %d: %s says %v, want %v", seed, step, what, got, want)
		}
		f.agree(t, m, fmt.Sprintf("seed %d, step %d, after %s", seed, step, what))
	}
}

// agree compares all streams with the model.
func (f *fixture) agree(t *testing.T, m model, when string) {
	t.Helper()
	var want []string
	for key, s := range m {
		if m.live(s, f.clock.Now()) {
			want = append(want, fmt.Sprintf("%s %s %s %d", key, s.State, s.Origin, s.Epoch))
		}
	}
	slices.Sort(want)
	list, err := f.Streams(f.ctx)
	ok(t, err)
	var got []string
	for _, s := range list {
		got = append(got, fmt.Sprintf("%s %s %s %d", s.Key, s.State, s.Origin, s.Epoch))
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%s: streams\n%s, want\n%s", when, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
