package webrtc

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// What nobody takes is paused after a while, once something of it came; what is wanted again, at once.
func TestLayers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLayers([]string{"f", "h", "q"})
		defer l.close()
		s := &Session{layers: l}
		expect := func(want ...string) {
			t.Helper()
			synctest.Wait()
			if got, changed := s.Paused(); !slices.Equal(got, want) || changed == nil {
				t.Fatalf("paused are %v, want %v", got, want)
			}
		}
		wait := func(d time.Duration) { <-time.After(d) }
		expect()
		l.came(0)
		l.came(2)
		wait(pauseAfter + time.Second)
		expect("q") // of h nothing came yet
		l.came(1)
		wait(pauseAfter / 2)
		l.want(1, true, false) // in time
		wait(pauseAfter)
		expect("q")
		_, changed := s.Paused()
		l.want(0, false, false)
		wait(pauseAfter / 2)
		l.want(0, true, false)
		l.want(0, false, false) // waits anew
		wait(pauseAfter/2 + time.Second)
		expect("q")
		wait(pauseAfter / 2)
		<-changed
		expect("f", "q")
		_, changed = s.Paused()
		l.want(2, true, true)
		<-changed
		expect("f")
		l.want(2, false, false)
	})
}

// A publisher of one picture is told nothing.
func TestOneLayer(t *testing.T) {
	s := &Session{layers: newLayers(nil)}
	s.layers.came(0)
	s.layers.want(0, false, false)
	if rids, changed := s.Paused(); rids != nil || changed != nil {
		t.Errorf("%v, %v", rids, changed)
	}
}
