package rig

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"sluice/internal/impair"
	"sluice/media"
	"sluice/stream"
)

// rendition of the stream of a test.
type rendition struct {
	name    string
	packets int // of a frame; a key frame has three times as many
	size    int // of a packet
}

func (r rendition) rate() int { return r.packets * r.size * 8 * 31 } // with a key frame in each 60

// renditions are a ladder of 2.5, 1.5, 0.8 and 0.4 Mbit/s.
func renditions() []rendition {
	return []rendition{{"", 9, 1120}, {"720p", 6, 1008}, {"480p", 3, 1075}, {"240p", 2, 806}}
}

// ladderOf publishes a stream in several renditions, straight into a node's hub, until the test ends.
func (c *Cluster) ladderOf(hub *stream.Hub, key media.Key) {
	c.t.Helper()
	h264 := media.Codec{Name: media.H264, ClockRate: 90000, Fmtp: h264Line}
	var tracks []media.Track
	for _, r := range renditions() {
		tracks = append(tracks, media.Track{Kind: media.Video, Codec: h264, Rendition: r.name, Bitrate: r.rate()})
	}
	p, err := hub.Publish(c.t.Context(), key, stream.PublishOptions{Tracks: tracks, Session: "test"})
	if err != nil {
		c.t.Fatal(err)
	}
	var work sync.WaitGroup
	done := make(chan struct{})
	c.t.Cleanup(func() { close(done); work.Wait(); p.Close(stream.ErrStopped) })
	work.Go(func() {
		tick := time.NewTicker(time.Second / 30)
		defer tick.Stop()
		var seqs [8]uint16
		payload := make([]byte, 1200)
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case now := <-tick.C:
				for i, r := range renditions() {
					b := media.NewBurst(i, uint32(n)*3000)
					b.Arrived, b.Captured = now.UnixNano(), now.UnixNano()
					of := r.packets
					payload[0], payload[1] = 0x41, 0x9a
					if n%60 == 0 {
						payload[0], payload[1] = 0x65, 0x88
						of *= 3
					}
					for j := range of {
						if j > 0 {
							payload[0] = 0x41
						}
						stamp(payload, n, j, of)
						b.Append(seqs[i], j == of-1, payload[:r.size])
						seqs[i]++
					}
					p.Write(b)
				}
			}
		}
	})
}

// TestAdaptive: a viewer's path changes, and his rendition with it.
func TestAdaptive(t *testing.T) {
	c := Start(t, Options{Edges: 1})
	key := media.Key{App: "live", ID: "adaptive"}
	c.ladderOf(c.Node("origin-1").Hub(), key)
	wide, narrow := impair.Path{Delay: 10 * time.Millisecond, Rate: 5_000_000, Queue: 150_000}, impair.Path{Delay: 10 * time.Millisecond, Rate: 600_000, Queue: 150_000}
	var v *Viewer
	c.Poll(10*time.Second, func() (err error) { // the registry is told in a moment
		v, err = c.Watch(key, Behind(impair.Config{Down: wide}), Tells())
		return err
	})
	defer v.Vanish()
	calm, err := c.Watch(key, Behind(impair.Config{}), Tells())
	if err != nil {
		t.Fatal(err)
	}
	defer calm.Vanish()
	// until waits for a second of pictures of so many packets, which must have begun in time.
	until := func(what string, r rendition, within time.Duration) {
		t.Helper()
		begin := time.Now()
		c.Poll(within+2*time.Second, func() error {
			n := 0
			for _, p := range v.screen.shown(begin) {
				if n++; p.of != r.packets && p.of != 3*r.packets {
					n = 0
				}
				if n == 30 {
					after := p.at.Sub(begin) - time.Second
					t.Logf("%s after %v; %+v", what, after.Round(time.Millisecond), v.Path().Stats(impair.Down))
					if after > within {
						t.Errorf("%s came after %v, want %v", what, after, within)
					}
					return nil
				}
			}
			return fmt.Errorf("%s: %d pictures in a row", what, n)
		})
	}
	change := func(p impair.Path) time.Time {
		t.Helper()
		if err := v.Path().Set(impair.Down, p); err != nil {
			t.Fatal(err)
		}
		return time.Now()
	}
	until("the best rendition", renditions()[0], 8*time.Second)
	narrowed := change(narrow)
	until("the smallest rendition", renditions()[3], 3*time.Second)
	<-time.After(4 * time.Second)
	if total, longest := v.screen.frozen(narrowed, calm.screen); total > slower*time.Second {
		t.Errorf("frozen for %v when the path became narrow, at most %v at once", total, longest)
	}
	widened := change(wide)
	until("the best rendition again", renditions()[0], 10*time.Second)
	if total, _ := v.screen.frozen(widened, calm.screen); total > 0 {
		t.Errorf("frozen for %v when the path became wide again", total)
	}
	if err := v.alive(); err != nil {
		t.Error(err)
	}
}
