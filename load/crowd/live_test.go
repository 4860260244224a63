package crowd

import (
	"fmt"
	"testing"
	"time"
)

// TestLiveComesBack: when a server ends, its publishers and viewers go where the doors lead now, and what each viewer missed is told.
func TestLiveComesBack(t *testing.T) {
	t.Parallel()
	first, second := newServer(t), newServer(t)
	cfg := first.config()
	cfg.Streams = 2
	cfg.Return = &Return{Notice: time.Second, Stall: time.Second, Soon: 50 * time.Millisecond, Pause: 100 * time.Millisecond}
	l, err := Open(bounded(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if n := second.out.Viewers(); n != 0 {
			t.Errorf("%d viewers are left on the server", n)
		}
	}()
	if err := l.Join(2); err != nil {
		t.Fatal(err)
	}
	await := func(why string, ok func(Watched) bool) []Watched {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; <-time.After(20 * time.Millisecond) {
			all, good := l.Watched(), 0
			for _, v := range all {
				if ok(v) {
					good++
				}
			}
			if good == 4 && len(all) == 4 {
				return all
			}
			if time.Now().After(deadline) {
				t.Fatalf("not all viewers have %s: %+v", why, all)
			}
		}
	}
	await("20 frames", func(w Watched) bool { return w.Up && w.Frames > 20 })
	l.Mark()
	other := second.config()
	l.Doors(other.Publish, other.Play)
	first.stop()
	streams := map[int]int{}
	for i, w := range await("come back", func(w Watched) bool { return w.Up && w.Again >= 1 && w.Frames > 40 }) {
		streams[w.Stream]++
		if w.Gap < 20*time.Millisecond || w.Gap > 15*time.Second || w.To.Sub(w.From) != w.Gap || w.Stale != 0 || w.Node != "n" || w.Picture <= 0 {
			t.Errorf("viewer %d: %+v", i, w)
		}
	}
	if fmt.Sprint(streams) != "map[0:2 1:2]" {
		t.Errorf("viewers of streams: %v", streams)
	}
	for i, lives := range l.Published() {
		if len(lives) != 2 || lives[1].Tries < 1 || lives[1].Back.Before(lives[1].Lost) || lives[1].Key.Before(lives[1].Back) {
			t.Errorf("publisher %d: %+v", i, lives)
		}
	}
	l.Mark()
	if all := await("10 frames more", func(w Watched) bool { return w.Frames > 10 }); all[0].Again != 0 || all[0].Gap > 5*time.Second {
		t.Errorf("after a mark: %+v", all[0])
	}
}
