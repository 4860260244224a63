package stream

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"sluice/media"
)

// TestGap: what goes on from another source says for how long there was no picture, once; what is new says nothing.
func TestGap(t *testing.T) {
	var gaps []string
	world(t, Config{OnGap: func(gap time.Duration, relayed bool) { gaps = append(gaps, fmt.Sprint(gap, " ", relayed)) }}, func(t *testing.T, h *Hub) {
		both := []media.Track{video, audio}
		p := publish(t, h, PublishOptions{Tracks: both})
		p.Write(frame(0, true, 1000, 1, 2))
		pass(time.Second)
		p.Write(frame(1, false, 1000, 1, 1)) // the sound goes on for longer
		pass(500 * time.Millisecond)
		p.Close(errors.New("network"))
		pass(time.Second)
		q := publish(t, h, PublishOptions{Tracks: both, Relayed: true})
		q.Write(frame(1, false, 1000, 1, 1)) // sound is no picture
		pass(100 * time.Millisecond)
		q.Write(frame(0, false, 2000, 1, 1)) // neither is what can't be decoded
		pass(100 * time.Millisecond)
		q.Write(frame(0, true, 3000, 2, 1))
		q.Write(frame(0, false, 4000, 3, 1))
		r := publish(t, h, PublishOptions{Tracks: both}) // at once, in its place
		pass(300 * time.Millisecond)
		r.Write(frame(0, true, 3000, 2, 1))
		if want := "[2.7s true 300ms false]"; fmt.Sprint(gaps) != want {
			t.Errorf("gaps %v, want %s", gaps, want)
		}
	})
}
