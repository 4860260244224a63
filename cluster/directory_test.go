package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
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
	g.Directory = cluster.NewDirectory(g.reg, "", g.log.log())
	g.stop = start(t, g.Run)
	return g
}

// calls collects what a Watch was told.
type calls struct {
	mu     sync.Mutex
	told   []string
	epochs []int64 // that were told of: tests call them 1, 2, …
}

func (c *calls) fn(s cluster.Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	backup := map[bool]string{true: "backup "}[s.Backup]
	if !slices.Contains(c.epochs, s.Epoch) {
		c.epochs = append(c.epochs, s.Epoch)
	}
	c.told = append(c.told, fmt.Sprintf("%s%s of %s, epoch %d", backup, s.State, s.Origin, 1+slices.Index(c.epochs, s.Epoch)))
}

func (c *calls) check(t *testing.T, when string, want ...string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if fmt.Sprint(c.told) != fmt.Sprint(want) {
		t.Errorf("%s: told %q, want %q", when, c.told, want)
	}
}

// refreshed is long enough for a look at a stream that is waited for.
const refreshed = 400 * time.Millisecond

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		g, a, b := newGateway(t, store), newOrigin(t, store, "a"), newOrigin(t, store, "b")
		defer g.stop()
		defer a.stop()
		defer b.stop()
		var w, late calls
		cancel := g.Watch(key, w.fn)
		pass(time.Second)
		w.check(t, "before there is a stream")
		if s, ok := g.Stream(key); ok {
			t.Errorf("the unknown stream is %+v", s)
		}

		held, _ := a.acquire(t, key)
		pass(110 * time.Millisecond)
		w.check(t, "claimed", "broadcasting of a, epoch 1")
		pass(time.Second)
		w.check(t, "a second later", "broadcasting of a, epoch 1")
		defer g.Watch(key, late.fn)()
		pass(time.Millisecond)
		late.check(t, "a late watcher", "broadcasting of a, epoch 1")

		held.Report(cluster.StreamInfo{State: cluster.Interrupted})
		pass(2100 * time.Millisecond)
		if s, ok := g.Stream(key); !ok || s.State != cluster.Interrupted {
			t.Errorf("the interrupted stream is %+v, %v", s, ok)
		}
		w.check(t, "interrupted", "broadcasting of a, epoch 1")
		held, _ = b.acquire(t, key)
		pass(110 * time.Millisecond)
		w.check(t, "taken over", "broadcasting of a, epoch 1", "broadcasting of b, epoch 2")

		cancel()
		cancel()
		held.Release(t.Context())
		a.acquire(t, key)
		pass(2100 * time.Millisecond)
		w.check(t, "cancelled", "broadcasting of a, epoch 1", "broadcasting of b, epoch 2")
		late.check(t, "the other", "broadcasting of a, epoch 1", "broadcasting of b, epoch 2", "broadcasting of a, epoch 3")
	})
}

// A backup is told of like the stream itself.
func TestWatchBackup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		g, a, b := newGateway(t, store), newOrigin(t, store, "a"), newOrigin(t, store, "b")
		defer g.stop()
		defer a.stop()
		defer b.stop()
		var w calls
		defer g.Watch(key, w.fn)()
		a.acquire(t, key)
		if _, err := b.Acquire(t.Context(), key, true, nil); err != nil {
			t.Fatal(err)
		}
		pass(refreshed)
		w.check(t, "both", "broadcasting of a, epoch 1", "backup broadcasting of b, epoch 1")
		main, backup, err := g.LookupBoth(t.Context(), key)
		if err != nil || main.Origin != "a" || main.Backup || backup.Origin != "b" || !backup.Backup {
			t.Errorf("look-up of both: %+v, %+v, %v", main, backup, err)
		}
	})
}

// A stream whose holder is dead is not broadcasting, whatever its row says.
func TestDeadHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		g, a, b := newGateway(t, store), newOrigin(t, store, "a"), newOrigin(t, store, "b")
		defer g.stop()
		defer b.stop()
		a.acquire(t, key)
		var w calls
		defer g.Watch(key, w.fn)()
		pass(refreshed)
		a.reg.Cut(true)
		a.stop()
		is := func(when string, want cluster.StreamState) {
			t.Helper()
			s, err := g.Lookup(t.Context(), key)
			if watched, _ := g.Stream(key); err != nil || s.State != want || watched.State != want {
				t.Errorf("%s: the stream is %+v, %v; want %s", when, s, err, want)
			}
		}
		is("just killed", cluster.Broadcasting)
		pass(cluster.DeadAfter + cluster.RefreshEvery)
		is("when the heartbeat is old", cluster.Finished)
		b.acquire(t, key)
		pass(refreshed)
		is("taken over", cluster.Broadcasting)
		w.check(t, "at the end", "broadcasting of a, epoch 1", "broadcasting of b, epoch 2")
	})
}

// What is watched is looked at as often as is needed, and all in one query.
func TestWatchingCosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		g, a := newGateway(t, store), newOrigin(t, store, "a")
		defer g.stop()
		defer a.stop()
		asked := func(when string, during time.Duration, lookups, nodes int) {
			t.Helper()
			l, n := g.reg.Queries("Lookup"), g.reg.Queries("Nodes")
			pass(during)
			if got := g.reg.Queries("Lookup") - l; got < lookups-1 || got > lookups+1 {
				t.Errorf("%s: %d look-ups in %v, want %d", when, got, during, lookups)
			}
			if got := g.reg.Queries("Nodes") - n; got < nodes-1 || got > nodes+2 { // new sessions are looked for
				t.Errorf("%s: %d times all nodes in %v, want %d", when, got, during, nodes)
			}
		}
		asked("nobody waits", 10*time.Second, 0, 20)
		var w [1000]calls
		var cancels []func()
		for i := range w { // a thousand viewers wait for a hundred streams
			cancels = append(cancels, g.Watch(key2(i%100), w[i].fn))
		}
		asked("just wanted", 5*time.Second, 50, 10)
		asked("wanted for a while", 25*time.Second, 83, 50)
		asked("wanted for long", 10*time.Second, 10, 20)
		for i := range 1000 { // and ask again and again
			if s, err := g.Lookup(t.Context(), key2(i%100)); err != nil || s.State != cluster.Finished || s.Key != key2(i%100) {
				t.Fatalf("look-up of a stream that is offline: %+v, %v", s, err)
			}
		}
		asked("with viewers who ask", 10*time.Second, 10, 20)
		for i := range 100 {
			a.acquire(t, key2(i))
		}
		pass(1100 * time.Millisecond)
		for i := range w {
			w[i].check(t, fmt.Sprint("viewer ", i), "broadcasting of a, epoch 1")
		}
		asked("all is well", 20*time.Second, 10, 40)
		g.Suspect(key2(7), false)
		g.Suspect(key2(7), false)
		asked("one is lost", 5*time.Second, 50, 10)
		asked("and is not believed to be there", 25*time.Second, 91, 50) // beside the others, every 2 s
		asked("all is well again", 20*time.Second, 10, 40)
		for _, cancel := range cancels {
			cancel()
		}
		asked("all have gone", 10*time.Second, 0, 20)
		if s, ok := g.Stream(key2(1)); ok {
			t.Errorf("a stream that nobody watches is still known: %+v", s)
		}
	})
}

// A lost stream is found within a moment of its takeover.
func TestSuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		a, b := newOrigin(t, store, "a"), newOrigin(t, store, "b")
		defer b.stop()
		reg := store.Open()
		edge := cluster.NewDirectory(reg, "edge", (&story{}).log())
		defer start(t, edge.Run)()
		a.acquire(t, key)
		told := make(chan cluster.Stream, 10)
		defer edge.Watch(key, func(s cluster.Stream) { told <- s })()
		if s := <-told; s.Origin != "a" {
			t.Fatalf("told of %+v", s)
		}
		a.reg.Cut(true)
		a.stop()
		edge.Suspect(key, false)
		b.acquire(t, key)
		begin := time.Now()
		if s := <-told; s.Origin != "b" || time.Since(begin) > 110*time.Millisecond {
			t.Errorf("told of %+v after %v", s, time.Since(begin))
		}
	})
}

// When an origin dies that has a stream and its backup, both are found as soon as they are elsewhere, whichever comes first.
func TestSuspectBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		a, b := newOrigin(t, store, "a"), newOrigin(t, store, "b")
		defer b.stop()
		edge := cluster.NewDirectory(store.Open(), "edge", (&story{}).log())
		defer start(t, edge.Run)()
		a.acquire(t, key)
		if _, err := a.Acquire(t.Context(), key, true, nil); err != nil {
			t.Fatal(err)
		}
		told := make(chan cluster.Stream, 10)
		defer edge.Watch(key, func(s cluster.Stream) { told <- s })()
		<-told
		<-told
		a.reg.Cut(true)
		a.stop()
		edge.Suspect(key, true)
		edge.Suspect(key, false)
		for _, backup := range []bool{false, true} {
			if _, err := b.Acquire(t.Context(), key, backup, nil); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if s := <-told; s.Origin != "b" || s.Backup != backup || time.Since(begin) > cluster.PollEvery(5*time.Second)+10*time.Millisecond {
				t.Errorf("told of %+v after %v", s, time.Since(begin))
			}
			pass(5 * time.Second)
		}
	})
}

// A node reads of the others what it needs: never all of all rows, and edges seldom.
func TestNodesView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		reg, d := store.Open(), (*cluster.Directory)(nil)
		join := func(id string, role cluster.Role) {
			n := cluster.Node{ID: id, Session: 1, Role: role, Serving: []cluster.Serving{{Stream: key, Viewers: 20}}}
			if err := reg.Join(t.Context(), n); err != nil {
				t.Fatal(err)
			}
		}
		join("origin-1", cluster.Origin)
		join("edge-1", cluster.Edge)
		join("edge-2", cluster.Edge)
		own := store.Open()
		d = cluster.NewDirectory(own, "edge-1", (&story{}).log())
		defer start(t, d.Run)()
		knows := func(when string, want ...string) {
			t.Helper()
			var got []string
			for _, n := range d.Nodes() {
				got = append(got, n.ID)
				if n.Serving != nil {
					t.Errorf("%s: it knows what %s serves", when, n.ID)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: it knows %v, want %v", when, got, want)
			}
		}
		pass(time.Second)
		knows("at first", "edge-1", "edge-2", "origin-1")
		join("edge-3", cluster.Edge)
		join("origin-2", cluster.Origin)
		if err := errors.Join(reg.Leave(t.Context(), "edge-2", 1), reg.Leave(t.Context(), "origin-1", 1),
			reg.Order(t.Context(), "edge-1", cluster.Order{Drain: true})); err != nil {
			t.Fatal(err)
		}
		pass(3 * time.Second)
		knows("3 s later", "edge-1", "edge-2", "origin-2")
		if n, _ := d.View().Node("edge-1"); !n.Order.Drain {
			t.Error("it doesn't know of its own order")
		}
		if err := d.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		knows("when it misses one", "edge-1", "edge-3", "origin-2")
		join("edge-4", cluster.Edge)
		pass(cluster.PeersRefreshEvery + cluster.NodeRefreshEvery)
		knows("a minute later", "edge-1", "edge-3", "edge-4", "origin-2")
		if n := own.Queries("Nodes"); n != 0 {
			t.Errorf("it read all rows %d times", n)
		}

		join("edge-3", cluster.Edge) // the others are dead by now
		join("edge-4", cluster.Edge)
		ask := func(when string, queries int, want int) {
			t.Helper()
			before := own.Queries("Viewers")
			var wg sync.WaitGroup
			for i := range 100 {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					of, want := key, want
					if i%2 == 1 {
						of, want = key2(i), 0
					}
					if n, _ := d.Viewers(ctx, of); n != want {
						t.Errorf("%s: %d viewers, want %d", when, n, want)
					}
				})
			}
			wg.Wait()
			if n := own.Queries("Viewers") - before; n > queries {
				t.Errorf("%s: 100 questions for viewers made %d queries, want %d", when, n, queries)
			}
		}
		ask("at first", 2, 40)
		ask("asked again", 0, 40)
		pass(cluster.CountEvery)
		ask("later", 1, 0) // all are dead
		pass(cluster.CountEvery)
		join("edge-3", cluster.Edge)
		ask("one is back", 1, 20)
		own.Cut(true)
		pass(cluster.CountEvery)
		ask("the registry is away", 1, 20)
		ask("still", 0, 20)
	})
}

// feed is a registry that tells of changes.
type feed struct {
	*memory.Registry
	tell  chan cluster.Change
	opens atomic.Int32
	err   error
}

func (f *feed) Changes(ctx context.Context, fn func(cluster.Change)) error {
	if f.opens.Add(1); f.err != nil {
		return f.err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case c, ok := <-f.tell:
			if !ok {
				return errors.New("the feed broke")
			}
			fn(c)
		}
	}
}

func TestNotifier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		a, b := newOrigin(t, store, "a"), newOrigin(t, store, "b")
		defer a.stop()
		defer b.stop()
		held, _ := a.acquire(t, key)
		reg := &feed{Registry: store.Open(), tell: make(chan cluster.Change)}
		d := cluster.NewDirectory(reg, "edge", (&story{}).log())
		defer start(t, d.Run)()
		var w calls
		defer d.Watch(key, w.fn)()
		pass(3100 * time.Millisecond) // all is well: looked at every 2 s
		held.Release(t.Context())
		b.acquire(t, key)
		before := reg.Queries("Lookup")
		reg.tell <- cluster.Change{Stream: key2(5)} // nobody's business
		synctest.Wait()
		if n := reg.Queries("Lookup"); n != before {
			t.Errorf("%d look-ups because another stream has changed", n-before)
		}
		reg.tell <- cluster.Change{Stream: key}
		synctest.Wait()
		w.check(t, "told", "broadcasting of a, epoch 1", "broadcasting of b, epoch 2")
		nodes := reg.Queries("Peers")
		reg.tell <- cluster.Change{Node: "b"}
		pass(refreshed)
		if reg.Queries("Peers") == nodes {
			t.Error("a change of a stream's origin is not looked at")
		}
		close(reg.tell)
		pass(3500 * time.Millisecond)
		if n := reg.opens.Load(); n < 3 || n > 5 {
			t.Errorf("a feed that breaks was opened %d times in 3.5 s", n)
		}

		none := &feed{Registry: store.Open(), err: fmt.Errorf("this server: %w", errors.ErrUnsupported)}
		defer start(t, cluster.NewDirectory(none, "", (&story{}).log()).Run)()
		pass(10 * time.Second)
		if n := none.opens.Load(); n != 1 {
			t.Errorf("a server that has no feed was asked %d times", n)
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
		a := newOrigin(t, store, "a")
		defer a.stop()
		reg := gated{store.Open(), make(chan struct{})}
		d := cluster.NewDirectory(reg, "", (&story{}).log())
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
		a.acquire(t, key)
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
		var first *cluster.Member
		for i := range nodes {
			nodes[i] = store.Open()
			m := cluster.NewMember(nodes[i], fmt.Sprintf("edge-%d", i), func() cluster.Node {
				return cluster.Node{Role: cluster.Edge, State: cluster.Ready}
			}, (&story{}).log())
			stops[i] = start(t, m.Run)
			if i == 0 {
				first = m
			}
			defer stops[i]()
		}
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
		pass(cluster.RefreshEvery)
		alive("at the start", 3)
		if _, err := first.Acquire(t.Context(), key, false, nil); err != nil {
			t.Fatal(err)
		}
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
		w.check(t, "at the end", "broadcasting of edge-0, epoch 1")
		g.log.check(t, "registry can't be reached", "registry is back")
	})
}
