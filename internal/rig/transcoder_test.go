package rig

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/internal/config"
	"sluice/load"
	"sluice/media"
	"sluice/stream"
)

// taker notes the frames of all tracks of a stream.
type taker struct {
	mu     sync.Mutex
	tracks []media.Track
	stamps map[int][]uint32
}

func (k *taker) GOP(cached []*media.Burst) {
	for _, b := range cached {
		k.Burst(b)
	}
}
func (k *taker) Burst(b *media.Burst) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.stamps[b.Track]; len(s) == 0 || s[len(s)-1] != b.Timestamp {
		k.stamps[b.Track] = append(s, b.Timestamp)
	}
}
func (k *taker) Tracks(t []media.Track) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tracks = t
}
func (k *taker) Message(media.Message) {}
func (k *taker) End(error)             {}

func (k *taker) count(track int) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.stamps[track])
}

// Renditions are made by a transcoder, and when that dies by another one; what viewers of an edge get of them has the source's timestamps, and the source
// itself misses nothing.
func TestTranscoders(t *testing.T) {
	c := Start(t, Options{Edges: 1, Configure: func(n *config.Node) {
		n.Ladder.Rungs, n.Ladder.By = []string{"180p:150k"}, "transcoders"
	}})
	names := []string{"transcoder-1", "transcoder-2", "transcoder-3"}
	for _, id := range names {
		c.Run(cluster.Transcoder, id)
	}
	key := media.Key{App: "live", ID: "camera"}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	work.Go(func() {
		if err := load.Publish(ctx, load.PublishConfig{URL: c.PublishURL(key), Insecure: true, Source: load.TestPattern, Width: 640, Height: 360, Bitrate: 500_000}); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	edge := c.Node("edge-1").Hub()
	k := &taker{stamps: map[int][]uint32{}}
	var sub *stream.Subscription
	const slowly = 60 * time.Second
	c.Poll(slowly, func() (err error) {
		sub, err = edge.Subscribe(t.Context(), key, stream.SubscribeOptions{Subscriber: k})
		return err
	})
	sub.Start()
	rung := 0
	c.Poll(slowly, func() error {
		i, _ := edge.Info(key)
		rung = slices.IndexFunc(i.Tracks, func(t stream.TrackInfo) bool { return t.Rendition == "180p" && t.Track.Bitrate > 0 })
		if rung < 0 {
			return fmt.Errorf("the edge knows of %+v", i.Tracks)
		}
		return nil
	})
	picture := 0
	if i, _ := edge.Info(key); i.Tracks[0].Kind != media.Video {
		picture = 1
	}
	sub.Want(rung, true)
	more := func(track, n int) {
		t.Helper()
		want := k.count(track) + n
		c.Poll(slowly, func() error {
			if have := k.count(track); have < want {
				return fmt.Errorf("track %d has %d frames of %d", track, have, want)
			}
			return nil
		})
	}
	more(rung, 20)
	makes := func() (by []string) {
		for _, id := range names {
			if slices.ContainsFunc(c.Node(id).Hub().List(), func(i stream.Info) bool { _, what := i.Key.Source(); return what != "" && i.Relays > 0 }) {
				by = append(by, id)
			}
		}
		return by
	}
	by := makes()
	if len(by) != 1 {
		t.Fatalf("renditions are made by %v", by)
	}
	if i, _ := c.Node("origin-1").Hub().Info(key); i.Viewers != 0 {
		t.Errorf("renditions count as %d viewers", i.Viewers)
	}
	c.Kill(by[0])
	names = slices.DeleteFunc(names, func(id string) bool { return id == by[0] })
	more(picture, 20)
	more(rung, 20)
	if now := makes(); len(now) != 1 || now[0] == by[0] {
		t.Errorf("after %v has died, renditions are made by %v", by, now)
	}
	// One that is drained is left as soon as another has what is watched.
	began, last := time.Now(), makes()
	c.Drain(last[0], slowly)
	names = slices.DeleteFunc(names, func(id string) bool { return id == last[0] })
	if took := time.Since(began); took > slowly/2 {
		t.Errorf("a transcoder is drained in %v", took)
	}
	more(rung, 20)
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, at := range k.stamps[rung] {
		if _, ok := slices.BinarySearchFunc(k.stamps[picture], at, func(a, b uint32) int { return cmp.Compare(int32(a-b), 0) }); !ok && i > 0 {
			t.Errorf("frame %d of the rendition, at %d, is none of the source", i, at)
		}
	}
	for i, at := range k.stamps[picture] {
		if i > 0 && at-k.stamps[picture][i-1] > 90000 {
			t.Errorf("the source stops for %d ms at frame %d", (at-k.stamps[picture][i-1])/90, i)
		}
	}
}
