package webrtc

import (
	"testing"
	"time"
)

// Nobody waits for ever for a rendition that does not come.
func TestPatience(t *testing.T) {
	all := []rung{{track: 2}, {track: 1}, {track: 0}}
	for _, c := range []struct {
		name        string
		gets, going int
		rungs       []rung
		ask         int
		take        bool
	}{
		{"nothing is to come", 0, -1, all, -1, false},
		{"it came", 1, 1, all, -1, false},
		{"its key frame does not come", 0, 1, all, 1, false},
		{"it is gone", 0, 1, []rung{{track: 2}, {track: 0}}, 0, true},
		{"both are gone", 0, 1, []rung{{track: 2}}, 2, true},
		{"all are gone", 0, 1, nil, -1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p patience
			now := time.Unix(1, 0)
			for at := time.Duration(0); at < overdue; at += time.Second {
				if ask, _ := p.step(now.Add(at), c.gets, c.going, c.rungs); ask != -1 {
					t.Fatalf("after %v already %d", at, ask)
				}
			}
			if ask, take := p.step(now.Add(overdue), c.gets, c.going, c.rungs); ask != c.ask || take != c.take {
				t.Errorf("%d %v, want %d %v", ask, take, c.ask, c.take)
			}
			if ask, _ := p.step(now.Add(overdue+time.Second), c.gets, c.going, c.rungs); ask != -1 && len(c.rungs) > 0 {
				t.Errorf("again at once: %d", ask)
			}
		})
	}
}
