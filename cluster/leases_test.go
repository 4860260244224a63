package cluster_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/cluster"
	"sluice/cluster/memory"
	"sluice/media"
)

// origin is a node with its leases and its own way to the registry.
type origin struct {
	*cluster.Leases
	reg  *memory.Registry
	log  *story
	stop func()
}

func newOrigin(t *testing.T, store *memory.Store, id string) *origin {
	o := &origin{reg: store.Open(), log: &story{}}
	o.Leases = cluster.NewLeases(o.reg, id, 0, o.log.log())
	o.stop = start(t, o.Run)
	return o
}

// acquire takes a lease and counts its losses.
func (o *origin) acquire(t *testing.T, key media.Key) (*cluster.Held, *atomic.Int32) {
	t.Helper()
	lost := new(atomic.Int32)
	h, err := o.Acquire(t.Context(), key, func(err error) {
		if !errors.Is(err, cluster.ErrLeaseLost) {
			t.Errorf("lost with %v", err)
		}
		lost.Add(1)
	})
	if err != nil {
		t.Fatalf("acquire %s: %v", key, err)
	}
	return h, lost
}

// read looks a stream up as anyone would.
func read(t *testing.T, store *memory.Store, key media.Key) cluster.Stream {
	t.Helper()
	list, err := store.Open().Lookup(t.Context(), key)
	if err != nil || len(list) != 1 {
		t.Fatalf("lookup of %s: %+v, %v", key, list, err)
	}
	return list[0]
}

func TestLeaseIsKeptReportedAndReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		a := newOrigin(t, store, "a")
		defer a.stop()
		h, lost := a.acquire(t, key)
		if s := read(t, store, key); s.Origin != "a" || s.Epoch != h.Lease().Epoch {
			t.Errorf("stream is %+v", s)
		}
		pass(time.Minute)
		if s := read(t, store, key); s.State != cluster.Broadcasting || s.Epoch != 1 {
			t.Errorf("after a minute: %s, epoch %d", s.State, s.Epoch)
		}
		if n := a.reg.Queries("Renew"); n < 58 || n > 62 {
			t.Errorf("%d renewals in a minute, want 60", n)
		}

		pass(500 * time.Millisecond) // between two ticks
		n := a.reg.Queries("Renew")
		h.Report(cluster.StreamInfo{State: cluster.Broadcasting, Codecs: []string{media.H264}})
		synctest.Wait()
		if s := read(t, store, key); !slices.Equal(s.Codecs, []string{media.H264}) {
			t.Errorf("codecs %v are not written at once", s.Codecs)
		}
		h.Report(cluster.StreamInfo{State: cluster.Interrupted, Codecs: []string{media.H264}})
		h.Report(cluster.StreamInfo{State: cluster.Interrupted, Codecs: []string{media.H264}}) // no news
		synctest.Wait()
		if s := read(t, store, key); s.State != cluster.Interrupted {
			t.Errorf("state %s is not written at once", s.State)
		}
		if got := a.reg.Queries("Renew") - n; got != 2 {
			t.Errorf("%d writes for 2 changes", got)
		}
		pass(10 * time.Second)
		if s := read(t, store, key); s.State != cluster.Interrupted {
			t.Errorf("an interrupted stream is %s after 10 s", s.State)
		}

		for range 2 {
			if err := h.Release(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if s := read(t, store, key); s.State != cluster.Finished {
			t.Errorf("released stream is %s", s.State)
		}
		n = a.reg.Queries("Renew")
		pass(10 * time.Second)
		if got := a.reg.Queries("Renew"); got != n {
			t.Errorf("%d renewals after the release", got-n)
		}
		if lost.Load() != 0 {
			t.Error("lost was called")
		}
		a.log.check(t)
	})
}

func TestAcquireWaitsForASilentHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		a, b := newOrigin(t, store, "a"), newOrigin(t, store, "b")
		defer a.stop()
		defer b.stop()
		ha, lost := a.acquire(t, key)

		begin := time.Now() // a lively holder: refused, after the wait
		_, err := b.Acquire(t.Context(), key, nil)
		if took := time.Since(begin); !errors.Is(err, cluster.ErrStreamInUse) || took < 2*time.Second || took > 3*time.Second {
			t.Errorf("acquire of a held stream: %v after %v", err, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := b.Acquire(ctx, key, nil); !errors.Is(err, cluster.ErrStreamInUse) {
			t.Errorf("acquire with a short context: %v", err)
		}

		time.AfterFunc(time.Second, func() { ha.Report(cluster.StreamInfo{State: cluster.Interrupted}) })
		begin = time.Now()
		hb, _ := b.acquire(t, key)
		if took := time.Since(begin); took < time.Second || took > 1200*time.Millisecond {
			t.Errorf("takeover of a holder that fell silent after 1 s took %v", took)
		}
		if lost.Load() != 0 {
			t.Error("the old holder knows before it could")
		}
		pass(time.Second + 10*time.Millisecond)
		if lost.Load() != 1 {
			t.Errorf("lost was called %d times, want 1", lost.Load())
		}
		pass(10 * time.Second)
		if s := read(t, store, key); lost.Load() != 1 || s.Origin != "b" || s.Epoch != hb.Lease().Epoch {
			t.Errorf("lost %d times; stream %+v", lost.Load(), s)
		}
		if err := ha.Release(t.Context()); err != nil {
			t.Errorf("release of a lost lease: %v", err)
		}
		if s := read(t, store, key); s.State != cluster.Broadcasting {
			t.Errorf("the old holder's release made it %s", s.State)
		}
	})
}

// A dead node's stream is free as soon as its lease has run out; 3 s after its last renewal.
func TestAcquireAfterDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		a, b := newOrigin(t, store, "a"), newOrigin(t, store, "b")
		defer b.stop()
		a.acquire(t, key)
		a.reg.Cut(true)
		a.stop() // its release does not get through
		pass(time.Second)
		begin := time.Now()
		b.acquire(t, key)
		if took := time.Since(begin); took < 1900*time.Millisecond || took > 2200*time.Millisecond {
			t.Errorf("takeover took %v, want what was left of the lease: 2s", took)
		}
	})
}

func TestOutageStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		a, b := newOrigin(t, store, "a"), newOrigin(t, store, "b")
		defer a.stop()
		defer b.stop()
		var lost [3]*atomic.Int32
		var held [3]*cluster.Held
		for i := range held {
			held[i], lost[i] = a.acquire(t, key2(i))
		}
		a.reg.Cut(true)
		pass(20 * time.Second)
		held[1].Report(cluster.StreamInfo{State: cluster.Interrupted})
		synctest.Wait()       // this write fails too
		b.acquire(t, key2(2)) // taken over meanwhile
		if _, err := a.Acquire(t.Context(), key2(9), nil); !errors.Is(err, memory.ErrCut) {
			t.Errorf("acquire during the outage: %v", err)
		}
		for i := range lost {
			if lost[i].Load() != 0 {
				t.Errorf("lease %d was lost by an outage", i)
			}
		}
		a.reg.Cut(false)
		pass(1100 * time.Millisecond)
		for i, want := range []cluster.Stream{
			{Origin: "a", State: cluster.Broadcasting, Epoch: 1},
			{Origin: "a", State: cluster.Interrupted, Epoch: 1},
			{Origin: "b", State: cluster.Broadcasting, Epoch: 2},
		} {
			if s := read(t, store, key2(i)); s.Origin != want.Origin || s.State != want.State || s.Epoch != want.Epoch {
				t.Errorf("after the outage stream %d is %+v, want %+v", i, s, want)
			}
		}
		if lost[0].Load() != 0 || lost[1].Load() != 0 || lost[2].Load() != 1 {
			t.Errorf("lost was called %d, %d, %d times; want 0, 0, 1", lost[0].Load(), lost[1].Load(), lost[2].Load())
		}
		a.log.check(t, "registry can't be reached", "outage=20s")
	})
}

func TestSecondAcquireOnTheSameNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		a := newOrigin(t, store, "a")
		defer a.stop()
		first, lost := a.acquire(t, key)
		second, lost2 := a.acquire(t, key)
		if lost.Load() != 1 || second.Lease().Epoch <= first.Lease().Epoch {
			t.Errorf("first lost %d times; epochs %d, %d", lost.Load(), first.Lease().Epoch, second.Lease().Epoch)
		}
		first.Report(cluster.StreamInfo{State: cluster.Interrupted})
		if err := first.Release(t.Context()); err != nil {
			t.Error(err)
		}
		pass(10 * time.Second)
		if s := read(t, store, key); s.State != cluster.Broadcasting || s.Epoch != second.Lease().Epoch {
			t.Errorf("stream is %+v", s)
		}
		if lost.Load() != 1 || lost2.Load() != 0 {
			t.Errorf("lost was called %d and %d times, want 1 and 0", lost.Load(), lost2.Load())
		}
	})
}

func TestStopReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		a := newOrigin(t, store, "a")
		for i := range 20 {
			a.acquire(t, key2(i))
		}
		a.stop()
		if list, err := store.Open().Streams(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("streams after the stop: %+v, %v", list, err)
		}
		if _, err := a.Acquire(t.Context(), key, nil); !errors.Is(err, cluster.ErrStopped) {
			t.Errorf("acquire after the stop: %v", err)
		}
		if s := read(t, store, key); s.State != cluster.Finished {
			t.Errorf("the refused stream is %s", s.State)
		}
	})
}

// slow is a registry whose renewals take a while.
type slow struct {
	*memory.Registry
	takes time.Duration
}

func (s slow) Renew(ctx context.Context, l cluster.Lease, info cluster.StreamInfo, ttl time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(s.takes):
		return s.Registry.Renew(ctx, l, info, ttl)
	}
}

// Renewals that are too slow to do all within one round are done in turn: none runs out.
func TestSlowRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		l := cluster.NewLeases(slow{store.Open(), 90 * time.Millisecond}, "a", 0, (&story{}).log())
		defer start(t, l.Run)()
		for i := range 150 { // 11 x 8 fit in a second
			if _, err := l.Acquire(t.Context(), key2(i), func(err error) { t.Errorf("lost: %v", err) }); err != nil {
				t.Fatal(err)
			}
		}
		for second := range 20 {
			pass(time.Second)
			if list, err := store.Open().Streams(t.Context()); err != nil || len(list) != 150 {
				t.Fatalf("second %d: %d streams live, want 150; %v", second, len(list), err)
			}
		}
	})
}
