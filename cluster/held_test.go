package cluster_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/cluster"
	"sluice/cluster/memory"
	"sluice/media"
)

// origin is a node's membership with its own way to the registry.
type origin struct {
	*cluster.Member
	reg  *memory.Registry
	log  *story
	stop func()
}

func newOrigin(t *testing.T, store *memory.Store, id string) *origin {
	o := &origin{reg: store.Open(), log: &story{}}
	o.Member = cluster.NewMember(o.reg, id, func() cluster.Node { return cluster.Node{State: cluster.Ready} }, o.log.log())
	o.stop = start(t, o.Run)
	return o
}

// acquire takes a lease and counts its losses.
func (o *origin) acquire(t *testing.T, key media.Key) (*cluster.Held, *atomic.Int32) {
	t.Helper()
	lost := new(atomic.Int32)
	h, err := o.Acquire(t.Context(), key, false, func(err error) {
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
		if s := read(t, store, key); s.State != cluster.Broadcasting || s.Epoch != h.Lease().Epoch {
			t.Errorf("after a minute: %s, epoch %d", s.State, s.Epoch)
		}
		if n := a.reg.Queries("Report"); n != 0 {
			t.Errorf("%d writes of a stream that does not change", n)
		}

		pass(500 * time.Millisecond) // between two ticks
		n := a.reg.Queries("Report")
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
		if got := a.reg.Queries("Report") - n; got != 2 {
			t.Errorf("%d writes for 2 changes", got)
		}
		pass(10 * time.Second)
		if s := read(t, store, key); s.State != cluster.Interrupted {
			t.Errorf("an interrupted stream is %s after 10 s", s.State)
		}

		for range 2 {
			h.Release(t.Context())
		}
		if s := read(t, store, key); s.State != cluster.Finished {
			t.Errorf("released stream is %s", s.State)
		}
		n = a.reg.Queries("Report")
		pass(10 * time.Second)
		if got := a.reg.Queries("Report"); got != n {
			t.Errorf("%d reports after the release", got-n)
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
		_, err := b.Acquire(t.Context(), key, false, nil)
		if took := time.Since(begin); !errors.Is(err, cluster.ErrStreamInUse) || took < 2*time.Second || took > 3*time.Second {
			t.Errorf("acquire of a held stream: %v after %v", err, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := b.Acquire(ctx, key, false, nil); !errors.Is(err, cluster.ErrStreamInUse) {
			t.Errorf("acquire with a short context: %v", err)
		}

		time.AfterFunc(time.Second, func() { ha.Report(cluster.StreamInfo{State: cluster.Interrupted}) })
		begin = time.Now()
		hb, _ := b.acquire(t, key)
		if took := time.Since(begin); took < time.Second || took > 1300*time.Millisecond {
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
		ha.Release(t.Context())
		if s := read(t, store, key); s.State != cluster.Broadcasting {
			t.Errorf("the old holder's release made it %s", s.State)
		}
	})
}

// A dead node's stream is free as soon as its session is old: a publisher who comes at once gets it in one attempt.
func TestAcquireAfterDeath(t *testing.T) {
	for _, before := range []time.Duration{0, 300 * time.Millisecond, 999 * time.Millisecond} { // the kill, since the last heartbeat
		synctest.Test(t, func(t *testing.T) {
			store := memory.NewStore(time.Now)
			a, b := newOrigin(t, store, "a"), newOrigin(t, store, "b")
			defer b.stop()
			first, _ := a.acquire(t, key)
			pass(time.Second + before)
			a.reg.Cut(true)
			killed := time.Now()
			a.stop() // its last words do not get through
			<-time.After(100*time.Millisecond - time.Since(killed))
			h, _ := b.acquire(t, key)
			if took, want := time.Since(killed), cluster.SessionTTL-before; took < want || took > want+50*time.Millisecond {
				t.Errorf("killed %v after a heartbeat: takeover took %v, want %v", before, took, want)
			}
			if h.Lease().Epoch <= first.Lease().Epoch {
				t.Errorf("epoch %d after %d", h.Lease().Epoch, first.Lease().Epoch)
			}
		})
	}
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
		pass(10 * time.Minute)
		held[1].Report(cluster.StreamInfo{State: cluster.Interrupted})
		synctest.Wait() // this write fails too
		if _, err := a.Acquire(t.Context(), key2(9), false, nil); !errors.Is(err, memory.ErrCut) {
			t.Errorf("acquire during the outage: %v", err)
		}
		a.reg.Cut(false)
		pass(1100 * time.Millisecond)
		for i, want := range []cluster.StreamState{cluster.Broadcasting, cluster.Interrupted, cluster.Broadcasting} {
			if s := read(t, store, key2(i)); s.Origin != "a" || s.State != want || s.Epoch != held[i].Lease().Epoch || lost[i].Load() != 0 {
				t.Errorf("after the outage stream %d is %+v, lost %d times", i, s, lost[i].Load())
			}
		}
		if n := a.reg.Queries("Join"); n != 1 {
			t.Errorf("joined %d times, want once: nobody fenced it", n)
		}
		a.log.check(t, "registry can't be reached", "outage=10m")
	})
}

// A node that was silent for too long, and one of whose streams somebody wanted, joins again, keeps the
// others and says so.
func TestFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		a, b := newOrigin(t, store, "a"), newOrigin(t, store, "b")
		defer a.stop()
		defer b.stop()
		var lost [5]*atomic.Int32
		var held [5]*cluster.Held
		for i := range held {
			held[i], lost[i] = a.acquire(t, key2(i))
		}
		first := held[0].Lease().Epoch // of all, as they were claimed within a millisecond
		a.reg.Cut(true)
		pass(20 * time.Second)
		hb, _ := b.acquire(t, key2(2))
		held[1].Report(cluster.StreamInfo{State: cluster.Interrupted})
		held[3].Release(t.Context()) // this does not get through yet
		pass(time.Second)
		for i := range lost {
			if lost[i].Load() != 0 {
				t.Errorf("lease %d was lost by an outage", i)
			}
		}
		a.reg.Cut(false)
		pass(1100 * time.Millisecond)
		for i, want := range []cluster.Stream{
			{Origin: "a", State: cluster.Broadcasting, Epoch: first + 1},
			{Origin: "a", State: cluster.Interrupted, Epoch: first + 1},
			{Origin: "b", State: cluster.Broadcasting, Epoch: hb.Lease().Epoch},
			{Origin: "a", State: cluster.Finished, Epoch: first},
			{Origin: "a", State: cluster.Broadcasting, Epoch: first + 1},
		} {
			s := read(t, store, key2(i))
			if s.Origin != want.Origin || s.State != want.State || s.Epoch != want.Epoch {
				t.Errorf("after the outage stream %d is %+v, want %+v", i, s, want)
			}
			if s.Origin == "a" && s.State != cluster.Finished && held[i].Lease() != (cluster.Lease{Key: s.Key, Node: "a", Session: s.Session, Epoch: s.Epoch}) {
				t.Errorf("stream %d is held as %+v and is %+v", i, held[i].Lease(), s)
			}
			if want := map[bool]int32{true: 1}[i == 2]; lost[i].Load() != want {
				t.Errorf("stream %d was lost %d times, want %d", i, lost[i].Load(), want)
			}
		}
		held[0].Report(cluster.StreamInfo{State: cluster.Interrupted}) // under its new epoch
		synctest.Wait()
		if s := read(t, store, key2(0)); s.State != cluster.Interrupted {
			t.Errorf("a resumed stream is %+v after a report", s)
		}
		story := strings.Join(a.log.lines(), "\n")
		for _, want := range []string{"fenced", "streams=4", "joined again", "stream lost", "stream=live/stream2"} {
			if !strings.Contains(story, want) {
				t.Errorf("the log does not say %q:\n%s", want, story)
			}
		}
	})
}

// fickle is a registry that does what it is told and then loses the answer, while lose is set.
type fickle struct {
	*memory.Registry
	lose atomic.Bool
}

var errLost = errors.New("the answer got lost")

func (f *fickle) answer(err error) error {
	if err == nil && f.lose.Load() {
		return errLost
	}
	return err
}

func (f *fickle) Join(ctx context.Context, n cluster.Node) error {
	return f.answer(f.Registry.Join(ctx, n))
}

func (f *fickle) Claim(ctx context.Context, l cluster.Lease) (cluster.Lease, error) {
	l, err := f.Registry.Claim(ctx, l)
	return l, f.answer(err)
}

func (f *fickle) Resume(ctx context.Context, l cluster.Lease, session int64) (cluster.Lease, error) {
	l, err := f.Registry.Resume(ctx, l, session)
	return l, f.answer(err)
}

func (f *fickle) Release(ctx context.Context, l cluster.Lease) error {
	return f.answer(f.Registry.Release(ctx, l))
}

// Answers that get lost leave no stream without a holder, no holder without his stream, and no node that
// takes itself for another.
func TestLostAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, log := memory.NewStore(time.Now), &story{}
		reg := &fickle{Registry: store.Open()}
		reg.lose.Store(true)
		m := cluster.NewMember(reg, "a", func() cluster.Node { return cluster.Node{} }, log.log())
		stop := start(t, m.Run)
		defer stop()
		if _, err := m.Acquire(t.Context(), key2(0), false, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("acquire by a node that does not know that it has joined: %v", err)
		}
		reg.lose.Store(false)
		kept, err := m.Acquire(t.Context(), key2(0), false, func(err error) { t.Errorf("lost: %v", err) })
		if err != nil {
			t.Fatal(err)
		}
		released, err := m.Acquire(t.Context(), key2(1), false, nil)
		if err != nil {
			t.Fatal(err)
		}
		reg.lose.Store(true)
		if _, err := m.Acquire(t.Context(), key2(2), false, nil); !errors.Is(err, errLost) {
			t.Errorf("acquire whose answer got lost: %v", err)
		}
		b := newOrigin(t, store, "b")
		defer b.stop()
		reg.Cut(true) // until it is fenced
		b.acquire(t, key2(3))
		pass(3 * time.Second)
		if _, err := store.Open().Claim(t.Context(), cluster.Lease{Key: key2(2), Node: "b", Session: 1}); err != nil {
			t.Errorf("claim from the silent node: %v", err)
		}
		reg.Cut(false)
		pass(5 * time.Second) // joins and resumes, and never hears that it has
		released.Release(t.Context())
		reg.lose.Store(false)
		pass(3 * time.Second)
		s := read(t, store, key2(0))
		if want := kept.Lease(); s.State != cluster.Broadcasting || s.Session != want.Session || s.Epoch != want.Epoch {
			t.Errorf("the stream that is held as %+v is %+v", want, s)
		}
		if nodes, err := reg.Nodes(t.Context()); err != nil || len(nodes) != 2 || nodes[0].Session != s.Session {
			t.Errorf("the node's row is %+v, its streams have session %d; %v", nodes, s.Session, err)
		}
		if s := read(t, store, key2(1)); s.State != cluster.Finished {
			t.Errorf("the released stream is %+v", s)
		}
		if s := read(t, store, key2(2)); s.Origin != "b" {
			t.Errorf("the stream whose claim was not heard of is %+v", s)
		}
	})
}

// A claim whose answer got lost is undone, unless somebody claims it on this node in time.
func TestLostClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		reg := &fickle{Registry: store.Open()}
		m := cluster.NewMember(reg, "a", func() cluster.Node { return cluster.Node{} }, (&story{}).log())
		stop := start(t, m.Run)
		defer stop()
		pass(time.Millisecond)
		for i := range 2 {
			reg.lose.Store(true)
			if _, err := m.Acquire(t.Context(), key2(i), false, nil); !errors.Is(err, errLost) {
				t.Errorf("acquire whose answer got lost: %v", err)
			}
			reg.lose.Store(false)
			if i == 1 {
				if _, err := m.Acquire(t.Context(), key2(i), false, func(err error) { t.Errorf("lost: %v", err) }); err != nil {
					t.Error(err)
				}
			}
			pass(2 * time.Second)
			if s, want := read(t, store, key2(i)), []cluster.StreamState{cluster.Finished, cluster.Broadcasting}[i]; s.State != want {
				t.Errorf("stream %d is %+v, want %s", i, s, want)
			}
		}
	})
}

// Two processes with one id: the first ends, and says why.
func TestReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		first := cluster.NewMember(store.Open(), "a", func() cluster.Node { return cluster.Node{} }, (&story{}).log())
		ended := make(chan error, 1)
		go func() { ended <- first.Run(t.Context()) }()
		var lost atomic.Int32
		if _, err := first.Acquire(t.Context(), key, false, func(error) { lost.Add(1) }); err != nil {
			t.Fatal(err)
		}
		second := cluster.NewMember(store.Open(), "a", func() cluster.Node { return cluster.Node{PID: 4711, Host: "there"} }, (&story{}).log())
		defer start(t, second.Run)()
		pass(1100 * time.Millisecond)
		select {
		case err := <-ended:
			for _, want := range []string{"process 4711 on there", "give each process its own --id"} {
				if !errors.Is(err, cluster.ErrReplaced) || !strings.Contains(err.Error(), want) {
					t.Errorf("ended with %v, want %q", err, want)
				}
			}
		default:
			t.Fatal("the first process goes on")
		}
		if lost.Load() != 1 {
			t.Errorf("its stream was lost %d times", lost.Load())
		}
		if _, err := second.Acquire(t.Context(), key, false, nil); err != nil {
			t.Error(err)
		}
		if nodes, err := store.Open().Nodes(t.Context()); err != nil || len(nodes) != 1 || nodes[0].PID != 4711 {
			t.Errorf("nodes %+v, %v; want the second", nodes, err)
		}
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
		first.Release(t.Context())
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
		if _, err := a.Acquire(t.Context(), key, false, nil); !errors.Is(err, cluster.ErrStopped) {
			t.Errorf("acquire after the stop: %v", err)
		}
	})
}

// A thousand streams cost as much as one.
func TestThousandStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		a := newOrigin(t, store, "a")
		defer a.stop()
		for i := range 1000 {
			a.acquire(t, key2(i))
		}
		before := a.reg.Queries("Heartbeat")
		pass(time.Minute)
		if n := a.reg.Queries("Heartbeat") - before; n != 60 {
			t.Errorf("%d heartbeats in a minute", n)
		}
		for _, method := range []string{"Report", "Resume", "Lookup", "Nodes", "Release"} {
			if n := a.reg.Queries(method); n != 0 {
				t.Errorf("%d calls of %s", n, method)
			}
		}
	})
}

// A registry that was emptied takes no stream from anybody: whoever holds one writes it again, and says what it is.
func TestEmptiedRegistry(t *testing.T) {
	for name, whole := range map[string]bool{"nodes and streams": true, "streams alone": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.NewStore(time.Now)
				a := newOrigin(t, store, "a")
				defer a.stop()
				h, lost := a.acquire(t, key)
				info := cluster.StreamInfo{State: cluster.Broadcasting, Codecs: []string{"H264"}}
				h.Report(info)
				pass(time.Second)
				before := read(t, store, key)
				store.Empty(whole)
				if !whole {
					info.Codecs = []string{"H264", "opus"} // without news, nobody would notice
					h.Report(info)
				}
				pass(2 * time.Second)
				s := read(t, store, key)
				if lost.Load() != 0 || s.Origin != "a" || s.State != cluster.Broadcasting || s.Epoch <= before.Epoch || !slices.Equal(s.Codecs, info.Codecs) {
					t.Errorf("the stream was %+v and is %+v, lost %d times", before, s, lost.Load())
				}
			})
		})
	}
}
