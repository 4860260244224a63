package relay_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	in "sluice/ingest/relay"
	"sluice/stream"
)

// twins are two origins with the same programme, the second as backup.
type twins struct {
	reg          *registry
	first, other *node
	main, backup *camera
	path         *cable // to the first
	quiet        func() // the first publisher sends nothing any more
	hush         func() // nor does the backup
}

const twinGOP = 500 * time.Millisecond

func pairUp(t *testing.T) *twins {
	t.Helper()
	w := &twins{reg: &registry{}}
	w.first, w.other = start(t, w.reg, "o1", options{}), start(t, w.reg, "o2", options{})
	w.path = lay(t, w.first.out.Addr())
	w.main, w.backup = publishAs(t, w.first, key, 100, video, audio), publishAs(t, w.other, key.Backup(), 40000, video, audio)
	w.reg.set(w.first.source(w.path.addr(), 1))
	w.reg.setBackup(w.other.source("", 1))
	w.quiet = w.main.roll(t, 10*time.Millisecond, 50, 2, 500, true)
	w.hush = w.backup.roll(t, 10*time.Millisecond, 50, 2, 500, true)
	return w
}

// warm waits until a node holds the backup.
func warm(t testing.TB, edges ...*node) {
	t.Helper()
	for _, e := range edges {
		until(t, 3*time.Second, func() string {
			if i, ok := e.hub.Info(key.Backup()); !ok || !i.Flowing {
				return e.name + " has no backup"
			}
			return ""
		})
	}
}

// spliced fails unless the viewer saw no more than so long of nothing, at key frames, in one session.
func spliced(t testing.TB, v *viewer, from int, most time.Duration) {
	t.Helper()
	v.intact(t)
	gap := v.gap(from)
	if gap > most {
		t.Errorf("the viewer saw nothing for %v, want at most %v", gap, most)
	} else {
		t.Logf("the viewer saw nothing for %v", gap)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.over || v.tracks != nil {
		t.Errorf("the viewer was ended (%v), or got other tracks (%v)", v.ended, v.tracks)
	}
}

func TestBackupTakesOver(t *testing.T) {
	noLeaks(t)
	for _, c := range []struct {
		name string
		do   func(w *twins)
	}{
		{"the origin dies without a word", func(w *twins) { w.path.cut.Store(true) }},
		{"the origin stops", func(w *twins) { w.first.stop() }},
		{"the publisher stops", func(w *twins) { w.quiet(); w.main.pub.Close(stream.ErrStopped) }}, // its origin says so only after the hub's farewell
		{"the publisher is lost", func(w *twins) { w.quiet(); w.main.pub.Close(errors.New("network")) }},
		{"the publisher falls silent", func(w *twins) { w.quiet() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := pairUp(t)
			edge := start(t, w.reg, "e", options{})
			v := watch(t, edge)
			warm(t, edge)
			playing(t, 60, v)
			from := v.frames(0)
			c.do(w)
			playing(t, 100, v)
			spliced(t, v, from, twinGOP)
			if p := edge.in.Path(key); len(p) != 0 {
				t.Errorf("the stream comes by %v still", p)
			}
			sound := v.frames(1)
			v.reaches(t, 1, sound+20, 2*time.Second)
		})
	}
}

// A picture that stops while sound goes on is lost, too.
func TestBackupTakesOverForATrack(t *testing.T) {
	noLeaks(t)
	w := pairUp(t)
	edge := start(t, w.reg, "e", options{})
	v := watch(t, edge)
	warm(t, edge)
	playing(t, 60, v)
	from := v.frames(0)
	w.quiet()
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				w.main.frame(1, false, 1, 100)
			}
		}
	}()
	playing(t, 60, v)
	close(stop)
	<-done
	spliced(t, v, from, twinGOP+100*time.Millisecond)
}

// Viewers stay with the backup when the other publisher is back, and go to that when the backup ends.
func TestStaysWithTheBackup(t *testing.T) {
	noLeaks(t)
	w := pairUp(t)
	edge := start(t, w.reg, "e", options{})
	v := watch(t, edge)
	warm(t, edge)
	playing(t, 60, v)
	from := v.frames(0)
	w.quiet()
	playing(t, 60, v)
	onBackup := func() bool { return len(edge.in.Path(key)) == 0 }
	if !onBackup() {
		t.Fatal("the backup did not take over")
	}
	stop := w.main.roll(t, 10*time.Millisecond, 50, 2, 500, true)
	playing(t, 150, v)
	if !onBackup() {
		t.Error("viewers were moved although nothing was wrong")
	}
	w.hush()
	playing(t, 60, v)
	if onBackup() {
		t.Error("nobody sends, and the edge holds to it")
	}
	spliced(t, v, from, twinGOP)
	stop()
}

// Only the backup is left: who comes now gets it; and when the other publisher is back, on another origin, viewers stay.
func TestBackupAlone(t *testing.T) {
	noLeaks(t)
	w := pairUp(t)
	w.quiet()
	w.first.stop()
	w.reg.set(in.Source{})
	edge := start(t, w.reg, "e", options{})
	v := watch(t, edge)
	atOrigin := watch(t, w.other) // whose hub has it under its own name
	playing(t, 50, v, atOrigin)
	from := v.frames(0)
	third := start(t, w.reg, "o3", options{})
	publish(t, third, 7, video, audio).roll(t, 10*time.Millisecond, 50, 2, 500, true)
	w.reg.set(third.source("", 2))
	until(t, 3*time.Second, func() string {
		if i, _ := third.hub.Info(key); i.Relays == 0 {
			return "the edge has not taken the other publisher's stream beside the backup's"
		}
		return ""
	})
	playing(t, 50, v)
	if p := edge.in.Path(key); len(p) != 0 {
		t.Errorf("viewers were moved to %v", p)
	}
	w.hush()
	w.backup.pub.Close(stream.ErrStopped)
	playing(t, 50, v)
	if p := edge.in.Path(key); !slices.Equal(p, []string{"o3"}) {
		t.Errorf("the stream comes by %v", p)
	}
	spliced(t, v, from, twinGOP)
}

// Nobody sends any more: viewers are told.
func TestBothEnd(t *testing.T) {
	noLeaks(t)
	w := pairUp(t)
	quick := stream.Config{Grace: time.Second, Farewell: 200 * time.Millisecond}
	edge := start(t, w.reg, "e", options{hub: quick, grace: time.Second})
	v := watch(t, edge)
	warm(t, edge)
	for _, c := range []struct {
		cam  *camera
		stop func()
		gone func()
	}{
		{w.main, w.quiet, func() { w.reg.set(in.Source{}) }},
		{w.backup, w.hush, func() { w.reg.setBackup(in.Source{}) }},
	} {
		playing(t, 30, v)
		c.stop()
		c.cam.pub.Close(stream.ErrStopped)
		c.gone()
	}
	until(t, 6*time.Second, func() string {
		v.mu.Lock()
		defer v.mu.Unlock()
		if !v.over {
			return "the viewer was not told"
		}
		return ""
	})
}

// Every edge of a tree changes over by itself.
func TestBackupInATree(t *testing.T) {
	noLeaks(t)
	w := pairUp(t)
	var edges []*node
	var viewers []*viewer
	for i := range 3 {
		e := start(t, w.reg, fmt.Sprint("e", i+1), options{fanout: 1})
		edges = append(edges, e)
		viewers = append(viewers, watch(t, e))
	}
	warm(t, edges...)
	playing(t, 60, viewers...)
	var from []int
	for _, v := range viewers {
		from = append(from, v.frames(0))
	}
	w.path.cut.Store(true)
	playing(t, 150, viewers...)
	for i, v := range viewers {
		spliced(t, v, from[i], twinGOP+100*time.Millisecond)
	}
}
