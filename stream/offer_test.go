package stream

import (
	"testing"

	"sluice/media"
)

// Who watches is told what a rendition takes at the moment, and that it can't be had when nobody publishes it any more.
func TestOffer(t *testing.T) {
	world(t, Config{}, func(t *testing.T, h *Hub) {
		p := publish(t, h, PublishOptions{})
		p.Write(captured(0, true, 1000, 7, 0))
		k, _ := take(t, h)
		rendition := smaller("480p")
		rendition.Bitrate = 800
		beside := PublishOptions{Beside: true, Exact: true, Tracks: []media.Track{rendition}}
		q, err := h.Publish(t.Context(), key, beside)
		if err != nil {
			t.Fatal(err)
		}
		told := func(step string, want int) {
			t.Helper()
			i, _ := h.Info(key)
			if at := len(i.Tracks) - 1; i.Tracks[at].Track.Bitrate != want || len(k.tracks) != len(i.Tracks) || k.tracks[at].Bitrate != want {
				t.Errorf("%s: %+v, told %+v", step, i.Tracks[at], k.tracks)
			}
		}
		told("published", 800)
		q.Offer(0, 0, 0)
		told("given up", 0)
		q.Offer(0, 800, 0)
		told("made again", 800)
		before := k.tracks
		q.Close(ErrStopped)
		told("over", 0)
		if before[len(before)-1].Bitrate != 800 {
			t.Error("what subscribers were told before has changed")
		}
		q.Offer(0, 800, 0)
		told("over for good", 0)
		if q, err = h.Publish(t.Context(), key, beside); err != nil {
			t.Fatal(err)
		}
		told("there again", 800)
	})
}
