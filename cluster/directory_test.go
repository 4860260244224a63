package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/cluster"
	"sluice/cluster/memory"
	"sluice/media"
)

// gateway is a directory with its own way to the registry.
type gateway struct {
	*cluster.Directory
	reg  *memory.Registry
	log  *story
	stop func()
}

func newGateway(t *testing.T, store *memory.Store) *gateway {
	g := &gateway{reg: store.Open(), log: &story{}}
	g.Directory = cluster.NewDirectory(g.reg, g.log.log())
	g.stop = start(t, g.Run)
	return g
}

// calls collects what a Watch was told.
type calls struct {
	mu   sync.Mutex
	told []string
}

func (c *calls) fn(s cluster.Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = append(c.told, fmt.Sprintf("%s of %s, epoch %d", s.State, s.Origin, s.Epoch))
}

func (c *calls) check(t *testing.T, when string, want ...string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if fmt.Sprint(c.told) != fmt.Sprint(want) {
		t.Errorf("%s: told %q, want %q", when, c.told, want)
	}
}

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// refreshed is long enough for one more refresh.
const refreshed = cluster.RefreshEvery + 10*time.Millisecond

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		g, reg := newGateway(t, store), store.Open()
		defer g.stop()
		var w, late calls
		cancel := g.Watch(key, w.fn)
		pass(time.Second)
		w.check(t, "before there is a stream")
		if s, ok := g.Stream(key); ok {
			t.Errorf("the unknown stream is %+v", s)
		}

		l := must[cluster.Lease](t)(reg.Claim(t.Context(), key, "a", time.Hour))
		pass(refreshed)
		w.check(t, "claimed", "broadcasting of a, epoch 1")
		pass(time.Second)
		w.check(t, "a second later", "broadcasting of a, epoch 1")
		defer g.Watch(key, late.fn)()
		pass(refreshed)
		late.check(t, "a late watcher", "broadcasting of a, epoch 1")

		if err := reg.Renew(t.Context(), l, cluster.StreamInfo{State: cluster.Interrupted}, time.Hour); err != nil {
			t.Fatal(err)
		}
		pass(refreshed)
		if s, ok := g.Stream(key); !ok || s.State != cluster.Interrupted {
			t.Errorf("the interrupted stream is %+v, %v", s, ok)
		}
		w.check(t, "interrupted", "broadcasting of a, epoch 1")
		must[cluster.Lease](t)(reg.Claim(t.Context(), key, "b", time.Hour))
		pass(refreshed)
		w.check(t, "taken over", "broadcasting of a, epoch 1", "broadcasting of b, epoch 2")

		cancel()
		cancel()
		must[cluster.Lease](t)(reg.Claim(t.Context(), key, "b", time.Hour))
		pass(refreshed)
		w.check(t, "cancelled", "broadcasting of a, epoch 1", "broadcasting of b, epoch 2")
		late.check(t, "the other", "broadcasting of a, epoch 1", "broadcasting of b, epoch 2", "broadcasting of b, epoch 3")
	})
}

// A thousand viewers that wait for a hundred streams cost one query per refresh.
func TestWaitingCostsOneQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		g, reg := newGateway(t, store), store.Open()
		defer g.stop()
		pass(10 * time.Second)
		if n := g.reg.Queries("Lookup"); n != 0 {
			t.Errorf("%d stream queries while nobody waits", n)
		}
		var w [1000]calls
		var cancels []func()
		for i := range w {
			cancels = append(cancels, g.Watch(key2(i%100), w[i].fn))
		}
		before := [2]int{g.reg.Queries("Lookup"), g.reg.Queries("Nodes")}
		pass(9 * time.Second)
		for i, method := range []string{"Lookup", "Nodes"} {
			if n := g.reg.Queries(method) - before[i]; n < 29 || n > 31 {
				t.Errorf("%d calls of %s in 9 s, want 30", n, method)
			}
		}
		for i := range 100 {
			must[cluster.Lease](t)(reg.Claim(t.Context(), key2(i), "a", time.Hour))
		}
		pass(refreshed)
		for i := range w {
			w[i].check(t, fmt.Sprint("viewer ", i), "broadcasting of a, epoch 1")
		}
		for _, cancel := range cancels {
			cancel()
		}
		n := g.reg.Queries("Lookup")
		pass(10 * time.Second)
		if got := g.reg.Queries("Lookup"); got != n {
			t.Errorf("%d stream queries after all have gone", got-n)
		}
		if s, ok := g.Stream(key2(1)); ok {
			t.Errorf("a stream that nobody watches is still known: %+v", s)
		}
	})
}

// gated is a registry whose look-ups wait for a token each.
type gated struct {
	*memory.Registry
	pass chan struct{}
}

func (g gated) Lookup(ctx context.Context, keys ...media.Key) ([]cluster.Stream, error) {
	select {
	case <-g.pass:
		return g.Registry.Lookup(ctx, keys...)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestLookupsShareQueries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		reg := gated{store.Open(), make(chan struct{})}
		d := cluster.NewDirectory(reg, (&story{}).log())
		defer start(t, d.Run)()
		var wg sync.WaitGroup
		look := func(key media.Key, want cluster.StreamState) {
			wg.Go(func() {
				if s, err := d.Lookup(t.Context(), key); err != nil || s.Key != key || s.State != want {
					t.Errorf("lookup of %s: %+v, %v; want %s", key, s, err, want)
				}
			})
		}
		look(key, cluster.Broadcasting) // this one's query is under way …
		synctest.Wait()
		for i := range 1000 { // … when these come
			look(key, cluster.Broadcasting)
			look(key2(i%50), cluster.Finished)
		}
		synctest.Wait()
		must[cluster.Lease](t)(store.Open().Claim(t.Context(), key, "a", time.Hour))
		reg.pass <- struct{}{}
		reg.pass <- struct{}{}
		wg.Wait()
		if n := reg.Queries("Lookup"); n != 2 {
			t.Errorf("%d queries for 2001 look-ups, want 2", n)
		}

		// A query that hangs is given up, and the next one works.
		if _, err := d.Lookup(t.Context(), key); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("lookup while the registry hangs: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		begin := time.Now()
		if _, err := d.Lookup(ctx, key); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 200*time.Millisecond {
			t.Errorf("lookup with a short context: %v after %v", err, time.Since(begin))
		}
		close(reg.pass)
		look(key, cluster.Broadcasting)
		wg.Wait()
	})
}

func TestLookupAfterStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(t, memory.NewStore(time.Now))
		g.stop()
		if _, err := g.Lookup(t.Context(), key); !errors.Is(err, cluster.ErrStopped) {
			t.Errorf("lookup after the stop: %v", err)
		}
	})
}

// While the registry is away the last view stays, and when it is back nobody is taken for dead who
// has not had the time to write; who died meanwhile is, soon after.
func TestOutageKillsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		g := newGateway(t, store)
		defer g.stop()
		var nodes [3]*memory.Registry
		var stops [3]func()
		for i := range nodes {
			nodes[i] = store.Open()
			stops[i] = start(t, cluster.NewPresence(nodes[i], 0, func() cluster.Node {
				return cluster.Node{ID: fmt.Sprintf("edge-%d", i), Role: cluster.Edge, State: cluster.Ready}
			}, (&story{}).log()).Run)
			defer stops[i]()
		}
		must[cluster.Lease](t)(store.Open().Claim(t.Context(), key, "a", time.Hour))
		var w calls
		defer g.Watch(key, w.fn)()
		alive := func(when string, want int) {
			t.Helper()
			v := g.View()
			if got := len(v.Alive()); got != want {
				t.Errorf("%s: %d nodes live at %v, want %d: %+v", when, got, v.At, want, v.Nodes)
			}
		}
		if v := g.View(); len(v.Alive()) != 0 {
			t.Errorf("alive before the first refresh: %+v", v)
		}
		pass(refreshed)
		alive("at the start", 3)
		nodes[2].Cut(true) // this node dies while all is well
		stops[2]()
		pass(4 * time.Second)
		alive("4 s after a death", 3)
		pass(2 * time.Second)
		alive("6 s after a death", 2)

		cut := func(off bool) {
			g.reg.Cut(off)
			for _, n := range nodes {
				n.Cut(off)
			}
		}
		cut(true)
		pass(10 * time.Second)
		stops[1]() // this one dies during the outage
		pass(50 * time.Second)
		alive("a minute without registry", 2)
		if s, ok := g.Stream(key); !ok || s.State != cluster.Broadcasting {
			t.Errorf("the stream in the last view is %+v, %v", s, ok)
		}
		if _, err := g.Lookup(t.Context(), key); !errors.Is(err, memory.ErrCut) {
			t.Errorf("lookup without registry: %v", err)
		}
		cut(false)
		for range 20 { // heartbeats come in now
			alive("just back", 2)
			pass(100 * time.Millisecond)
		}
		pass(time.Second)
		alive("3 s later", 1)
		w.check(t, "at the end", "broadcasting of a, epoch 1")
		g.log.check(t, "registry can't be reached", "registry is back")
	})
}
