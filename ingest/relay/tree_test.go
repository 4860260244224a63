package relay_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	in "sluice/ingest/relay"
	"sluice/media"
	wire "sluice/relay"
	"sluice/stream"
)

// plant starts an origin that publishes, and edges that come one after the other, each with a viewer.
func plant(t testing.TB, reg *registry, edges, fanout int) (origin *node, all []*node, viewers []*viewer) {
	t.Helper()
	origin = start(t, reg, "o", options{fanout: fanout})
	reg.set(origin.source("", 1))
	cam := publish(t, origin, 100, video, audio)
	cam.roll(t, 10*time.Millisecond, 50, 2, 500, true)
	for i := range edges {
		e := start(t, reg, fmt.Sprint("e", i+1), options{fanout: fanout, hub: stream.Config{Idle: 300 * time.Millisecond}})
		all = append(all, e)
		viewers = append(viewers, watch(t, e))
	}
	return origin, all, viewers
}

// parent is from whom a node takes the stream; "" nobody.
func (n *node) parent() string {
	if p := n.in.Path(key); len(p) > 0 {
		return p[len(p)-1]
	}
	return ""
}

// playing waits for more frames everywhere.
func playing(t testing.TB, more int, viewers ...*viewer) {
	t.Helper()
	var have []int
	for _, v := range viewers {
		have = append(have, v.frames(0))
	}
	for i, v := range viewers {
		n := have[i]
		until(t, 6*time.Second, func() string {
			if got := v.frames(0); got < n+more {
				return fmt.Sprintf("viewer %d has %d frames of %d", i+1, got-n, more)
			}
			return ""
		})
	}
}

// gap is the longest time without a picture after the frame with that index.
func (v *viewer) gap(from int) (longest time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := max(from, 1); i < len(v.arrived); i++ {
		longest = max(longest, v.arrived[i].Sub(v.arrived[i-1]))
	}
	return longest
}

// rooted fails unless every node's path leads to the origin by nodes that exist, and nobody has too many children.
func rooted(t testing.TB, origin *node, fanout int, edges ...*node) {
	t.Helper()
	until(t, 4*time.Second, func() string {
		children := map[string]int{}
		for _, e := range edges {
			path := e.in.Path(key)
			if len(path) == 0 || path[0] != origin.name || slices.Contains(path, e.name) {
				return fmt.Sprintf("%s takes the stream by %v", e.name, path)
			}
			up := e.parent()
			for _, p := range edges {
				if p.name == up && !slices.Equal(path, append(slices.Clone(p.in.Path(key)), p.name)) {
					return fmt.Sprintf("%s takes the stream by %v, but its parent by %v", e.name, path, p.in.Path(key))
				}
			}
			children[up]++
		}
		for _, n := range append([]*node{origin}, edges...) {
			info, _ := n.hub.Info(key)
			if children[n.name] > fanout || info.Relays > fanout {
				return fmt.Sprintf("%s has %d children, and serves %d", n.name, children[n.name], info.Relays)
			}
		}
		return ""
	})
}

func TestTree(t *testing.T) {
	noLeaks(t)
	reg := &registry{}
	origin, edges, viewers := plant(t, reg, 6, 2)
	playing(t, 50, viewers...)
	rooted(t, origin, 2, edges...)
	for i, e := range edges {
		if depth := len(e.in.Path(key)); depth > 2 {
			t.Errorf("%s takes the stream by %v", e.name, e.in.Path(key))
		}
		viewers[i].intact(t)
	}
	if below := origin.out.Below(key); below.Nodes != 6 {
		until(t, 2*time.Second, func() string {
			if below = origin.out.Below(key); below.Nodes != 6 {
				return fmt.Sprintf("the origin knows of %+v", below)
			}
			return ""
		})
	}
	if n := reg.lookups.Load(); n != 6 {
		t.Errorf("%d look-ups for 6 edges", n)
	}
}

// A parent dies without a word, and the registry knows nothing of it.
func TestParentDies(t *testing.T) {
	noLeaks(t)
	reg := &registry{}
	origin, edges, viewers := plant(t, reg, 1, 1)
	path := edges[0].behind(t)
	child := start(t, reg, "child", options{fanout: 1})
	viewers[0].sub.Close() // the origin learns where the edge is reached when that comes anew
	until(t, 8*time.Second, func() string {
		if _, ok := edges[0].hub.Info(key); ok {
			return "the edge still has the stream"
		}
		return ""
	})
	viewers[0] = watch(t, edges[0])
	v := watch(t, child)
	grand := start(t, reg, "grandchild", options{fanout: 1})
	w := watch(t, grand)
	playing(t, 50, viewers[0], v, w)
	if p := grand.in.Path(key); !slices.Equal(p, []string{"o", "e1", "child"}) {
		t.Fatalf("the grandchild takes the stream by %v", p)
	}
	from := v.frames(0)
	path.cut.Store(true)
	before := reg.lookups.Load()
	edges[0].stop() // its place at the origin becomes free, as when a process dies and its timeout is over
	playing(t, 60, v, w)
	rooted(t, origin, 1, child, grand)
	if a, b := v.gap(from), w.gap(0); a > time.Second || b > time.Second {
		t.Errorf("the child saw nothing for %v, the grandchild for %v", a, b)
	} else {
		t.Logf("the child saw nothing for %v, the grandchild for %v; %d look-ups", a, b, reg.lookups.Load()-before)
	}
	v.intact(t)
	w.intact(t)
	if v.over || w.over {
		t.Error("a viewer was ended")
	}
	if p := grand.parent(); p != "child" {
		t.Errorf("the grandchild left for %q although its parent lived", p)
	}
}

func TestParentIsDrained(t *testing.T) {
	noLeaks(t)
	reg := &registry{}
	origin, edges, viewers := plant(t, reg, 6, 2)
	playing(t, 50, viewers...)
	rooted(t, origin, 2, edges...)
	var from []int
	for _, v := range viewers {
		from = append(from, v.frames(0))
	}
	edges[0].out.Drain()
	until(t, 4*time.Second, func() string {
		if n := edges[0].out.Movable(); n != 0 {
			return fmt.Sprintf("%d children are still there", n)
		}
		return ""
	})
	playing(t, 50, viewers...)
	rooted(t, origin, 2, edges...)
	undisturbed := viewers[0].gap(from[0]) // the machine does other things too
	for i, v := range viewers {
		v.intact(t)
		if gap := v.gap(from[i]); gap > undisturbed+100*time.Millisecond { // a frame comes every 10 ms
			t.Errorf("viewer %d saw nothing for %v, and that of the drained node itself for %v", i+1, gap, undisturbed)
		}
	}
	late := start(t, reg, "late", options{fanout: 2})
	watch(t, late).reaches(t, 0, 10, 3*time.Second)
	if slices.Contains(late.in.Path(key), "e1") {
		t.Errorf("a node came to one that drains: %v", late.in.Path(key))
	}
}

// The registry says for a moment that a node's own child has the stream.
func TestNoLoops(t *testing.T) {
	noLeaks(t)
	reg := &registry{}
	var wrong atomic.Pointer[in.Source]
	first := start(t, reg, "o1", options{})
	second := start(t, reg, "o2", options{})
	a := start(t, reg, "a", options{lookup: func(ctx context.Context, k media.Key) (in.Source, error) {
		if s := wrong.Load(); s != nil {
			return *s, nil
		}
		return reg.lookup(ctx, k)
	}})
	reg.set(first.source("", 1))
	publish(t, first, 100, video).roll(t, 10*time.Millisecond, 20, 2, 500, false)
	v := watch(t, a)
	b := start(t, reg, "b", options{})
	reg.set(a.source("", 1))
	w := watch(t, b)
	playing(t, 20, v, w)
	if p := b.in.Path(key); !slices.Equal(p, []string{"o1", "a"}) {
		t.Fatalf("b takes the stream by %v", p)
	}
	child := b.source("", 2)
	wrong.Store(&child)
	asked := b.out.Stats().Subscriptions
	first.stop()
	until(t, 4*time.Second, func() string {
		if b.out.Stats().Subscriptions == asked {
			return "a has not asked its child"
		}
		if p := a.in.Path(key); slices.Contains(p, "b") {
			t.Fatalf("a takes the stream by %v", p)
		}
		return ""
	})
	publish(t, second, 9000, video).roll(t, 10*time.Millisecond, 20, 2, 500, false)
	wrong.Store(nil)
	reg.set(second.source("", 3))
	playing(t, 30, v, w)
	until(t, 4*time.Second, func() string {
		if p := b.in.Path(key); !slices.Equal(p, []string{"o2", "a"}) && !slices.Equal(p, []string{"o2"}) {
			return fmt.Sprintf("b takes the stream by %v", p)
		}
		return ""
	})
	v.intact(t)
	w.intact(t)
}

func TestRegions(t *testing.T) {
	noLeaks(t)
	reg := &registry{}
	origin := start(t, reg, "o", options{fanout: 2, region: "here"})
	reg.set(origin.source("", 1))
	publish(t, origin, 100, video).roll(t, 10*time.Millisecond, 20, 2, 500, false)
	var viewers []*viewer
	for _, c := range []struct {
		name, region, parent string
	}{
		{"there1", "there", "o"},
		{"there2", "there", "there1"}, // although the origin has room
		{"here1", "here", "o"},
		{"there3", "there", "there1"},
		{"here2", "here", "here1"},
		{"far1", "far", "here1"}, // nobody of that region: the least below
		{"far2", "far", "far1"},  // by here1, which knows
	} {
		e := start(t, reg, c.name, options{fanout: 2, region: c.region})
		viewers = append(viewers, watch(t, e))
		until(t, time.Second, func() string {
			if p := e.parent(); p != c.parent {
				return fmt.Sprintf("%s takes the stream from %q, want %q", c.name, p, c.parent)
			}
			return ""
		})
		below := origin.out.Below(key)
		until(t, 2*time.Second, func() string {
			if below = origin.out.Below(key); int(below.Nodes) != len(viewers) {
				return fmt.Sprintf("after %s the origin knows of %+v", c.name, below)
			}
			return ""
		})
	}
	playing(t, 20, viewers...)
	if b := origin.out.Below(key); !slices.Equal(b.Regions, []string{"far", "here", "there"}) {
		t.Errorf("below the origin: %+v", b)
	}
}

// A node that sends whoever asks on for ever.
func TestRedirectsEnd(t *testing.T) {
	noLeaks(t)
	for _, c := range []struct {
		name string
		next func(n int64) string
	}{
		{"always to another", func(n int64) string { return fmt.Sprint("x", n) }},
		{"to itself", func(int64) string { return "liar" }},
		{"to the one that asks", func(int64) string { return "e" }},
		{"in a circle", func(n int64) string { return fmt.Sprint("x", n%3) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reg := &registry{}
			edge := start(t, reg, "e", options{})
			var asked atomic.Int64
			liar(t, reg, func(_ *quic.Conn, ctl *quic.Stream) {
				src, _ := reg.lookup(t.Context(), key)
				b := wire.AppendFrame(nil, wire.Hello{Version: wire.Version, Node: "liar"})
				_, _ = ctl.Write(wire.AppendFrame(b, wire.Redirect{Addr: src.Addr, Key: src.Key, Node: c.next(asked.Add(1))}))
			})
			_, err := edge.hub.Subscribe(t.Context(), key, stream.SubscribeOptions{Subscriber: &viewer{}})
			if err == nil || !strings.Contains(err.Error(), in.ErrUnreachable.Error()) {
				t.Errorf("subscribe: %v", err)
			}
			if n := asked.Load(); n < 1 || n > 3*16 {
				t.Errorf("%d nodes were asked", n)
			}
		})
	}
}

// A stream that comes by the asker itself is not taken.
func TestPathsWithOneselfAreLeft(t *testing.T) {
	noLeaks(t)
	reg := &registry{}
	edge := start(t, reg, "e", options{grace: time.Second, hub: stream.Config{Grace: time.Second}})
	liar(t, reg, func(_ *quic.Conn, ctl *quic.Stream) {
		b := wire.AppendFrame(nil, wire.Hello{Version: wire.Version, Node: "liar"})
		b = wire.AppendFrame(b, wire.Path{Nodes: []string{"o", "e", "liar"}})
		_, _ = ctl.Write(wire.AppendFrame(b, wire.Tracks{Generation: 1, Tracks: []media.Track{video}}))
	})
	if _, err := edge.hub.Subscribe(t.Context(), key, stream.SubscribeOptions{Subscriber: &viewer{}}); err == nil {
		t.Error("the stream was taken")
	}
}

// BenchmarkHops measures what each node on the way adds: frames of 9 packets of 1,200 bytes.
func BenchmarkHops(b *testing.B) {
	for _, hops := range []int{1, 2, 3, 4} {
		b.Run(fmt.Sprint(hops), func(b *testing.B) {
			reg := &registry{}
			origin := start(b, reg, "o", options{fanout: 1})
			reg.set(origin.source("", 1))
			cam := publish(b, origin, 1, video)
			cam.frame(0, true, 60, 1200)
			var last *node
			for i := range hops {
				last = start(b, reg, fmt.Sprint("e", i), options{fanout: 1})
				watch(b, last)
			}
			if got := len(last.in.Path(key)); got != hops {
				b.Fatalf("%d hops", got)
			}
			c := &clock{each: make(chan struct{}, 1000)}
			sub, err := last.hub.Subscribe(b.Context(), key, stream.SubscribeOptions{Subscriber: c})
			if err != nil {
				b.Fatal(err)
			}
			sub.Start()
			measure(b, cam, c)
		})
	}
}
