package stream

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"sluice/media"
)

func smaller(name string) media.Track {
	t := video
	t.Rendition = name
	return t
}

// taker writes down which tracks it got, and what the stream's are.
type taker struct {
	recorder
	got    map[int]int
	stamps map[int][]uint32
}

func (k *taker) GOP(bs []*media.Burst) {
	for _, b := range bs {
		k.Burst(b)
	}
}

func (k *taker) Burst(b *media.Burst) {
	if k.got == nil {
		k.got, k.stamps = map[int]int{}, map[int][]uint32{}
	}
	k.got[b.Track]++
	k.stamps[b.Track] = append(k.stamps[b.Track], b.Timestamp)
}

func take(t *testing.T, h *Hub) (*taker, *Subscription) {
	t.Helper()
	k := &taker{}
	sub, err := h.Subscribe(t.Context(), key, SubscribeOptions{Subscriber: k})
	if err != nil {
		t.Fatal(err)
	}
	sub.Start()
	return k, sub
}

// captured is a frame of which is known when it was captured, in milliseconds.
func captured(track int, isKey bool, ts uint32, seq uint16, ms int64) *media.Burst {
	b := frame(track, isKey, ts, seq, 1)
	b.Captured = 1e15 + ms*1e6
	return b
}

// Renditions come beside a stream that goes on; who does not want them does not get them, and who makes them knows what is wanted.
func TestRenditionsBeside(t *testing.T) {
	world(t, Config{}, func(t *testing.T, h *Hub) {
		if _, err := h.Publish(t.Context(), key, PublishOptions{Beside: true, Tracks: []media.Track{smaller("480p")}}); !errors.Is(err, ErrOffline) {
			t.Errorf("beside nothing: %v", err)
		}
		p := publish(t, h, PublishOptions{Tracks: []media.Track{video, audio}})
		k, sub := take(t, h)
		p.Write(captured(0, true, 1000, 1, 0))
		wanted := map[int]bool{}
		var ended reason
		q, err := h.Publish(t.Context(), key, PublishOptions{Beside: true, Tracks: []media.Track{smaller("480p"), smaller("240p")},
			OnWanted: func(track int, w, _ bool) { wanted[track] = w }, OnEnd: ended.set})
		if err != nil {
			t.Fatal(err)
		}
		if len(k.tracks) != 4 || k.tracks[2].Rendition != "480p" || len(media.Main(k.tracks)) != 2 {
			t.Errorf("the subscriber was told of %v", k.tracks)
		}
		q.Write(captured(0, true, 700077, 900, 10))
		p.Write(captured(0, false, 1900, 2, 10))
		if fmt.Sprint(k.got, wanted) != "map[0:2] map[]" {
			t.Errorf("got %v, wanted %v", k.got, wanted)
		}
		var cached []uint32
		sub.Cached(2, func(bs []*media.Burst) {
			for _, b := range bs {
				cached = append(cached, b.Timestamp)
			}
		})
		q.Write(captured(0, false, 700077+900, 901, 20))
		q.Write(captured(1, true, 5, 1, 20))
		if fmt.Sprint(k.got, wanted, cached, k.stamps[2]) != "map[0:2 2:1] map[0:true] [1900] [2800]" {
			t.Errorf("got %v, wanted %v, cached %v, timestamps %v", k.got, wanted, cached, k.stamps[2])
		}
		sub.Want(2, false)
		q.Write(captured(0, false, 700077+1800, 902, 30))
		if k.got[2] != 1 || wanted[0] {
			t.Errorf("still got %v, wanted %v", k.got, wanted)
		}
		i, _ := h.Info(key)
		if len(i.Tracks) != 4 || !i.Tracks[2].Flowing || i.Tracks[2].Wanted || fmt.Sprint(i.Codecs()) != "[H264 opus]" {
			t.Errorf("info %+v", i)
		}
		q.Close(ErrStopped)
		q.Write(captured(0, true, 1, 1, 40))
		if i, _ := h.Info(key); !i.Flowing || ended.get() != nil {
			t.Errorf("after the end of the renditions: %+v, %v", i, ended.get())
		}
		// They come back with other numbers, and go by the same clock.
		sub.Want(2, true)
		q, err = h.Publish(t.Context(), key, PublishOptions{Beside: true, Tracks: []media.Track{smaller("480p"), smaller("240p")}, OnEnd: ended.set,
			OnWanted: func(track int, w, _ bool) { wanted[track] = w }})
		if err != nil {
			t.Fatal(err)
		}
		q.Write(captured(0, true, 400000, 12345, 50))
		if len(k.tracks) != 4 || !wanted[0] || wanted[1] || k.stamps[2][1] != 1000+50*90 {
			t.Errorf("tracks %v, wanted %v, timestamps %v", k.tracks, wanted, k.stamps[2])
		}
		p.Close(ErrStopped)
		pass(3 * time.Second)
		if !errors.Is(ended.get(), ErrStopped) {
			t.Errorf("when the stream ended, the renditions were told %v", ended.get())
		}
	})
}

// One publisher may send several renditions; the picture itself is not wanted when all take smaller ones.
func TestRenditionsOfOnePublisher(t *testing.T) {
	world(t, Config{}, func(t *testing.T, h *Hub) {
		wanted := map[int]bool{}
		var asked []int
		p := publish(t, h, PublishOptions{Tracks: []media.Track{video, audio, smaller("m")}, OnWanted: func(track int, w, _ bool) { wanted[track] = w },
			OnKeyFrameRequest: func(track int) { asked = append(asked, track) }})
		if fmt.Sprint(wanted) != "map[]" {
			t.Errorf("before anybody watches: %v", wanted)
		}
		p.Write(captured(2, true, 5000, 7, 0)) // the small one comes first
		p.Write(captured(0, true, 99, 7, 100))
		k, sub := take(t, h)
		sub.Cached(2, func(bs []*media.Burst) {})
		sub.Want(0, false)
		sub.RequestKeyFrame(2)
		if fmt.Sprint(wanted, asked) != "map[0:false 2:true] [2]" {
			t.Errorf("wanted %v, asked for key frames of %v", wanted, asked)
		}
		if k.stamps[0][0] != 5000+100*90 {
			t.Errorf("the picture's clock says %d", k.stamps[0][0])
		}
		// Another codec for the picture: all begins anew.
		other := video
		other.Codec.Name = media.VP8
		publish(t, h, PublishOptions{Tracks: []media.Track{other}, Relayed: true})
		_ = k
		sub.Close()
		if fmt.Sprint(wanted) != "map[0:false 2:true]" {
			t.Errorf("after its end the publisher was told %v", wanted)
		}
	})
}

// There are no more renditions than a stream can have, and each has a name.
func TestRenditionsRefused(t *testing.T) {
	world(t, Config{}, func(t *testing.T, h *Hub) {
		publish(t, h, PublishOptions{})
		many := make([]media.Track, media.MaxTracks)
		for i := range many {
			many[i] = smaller(fmt.Sprint(i))
		}
		for name, tracks := range map[string][]media.Track{"too many": many, "no name": {video}} {
			if _, err := h.Publish(t.Context(), key, PublishOptions{Beside: true, Tracks: tracks}); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
	})
}

// sps begins a picture of 640x360.
func sps() []byte {
	return []byte{0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03, 0x00, 0x32, 0x0f, 0x16, 0x2e, 0x48}
}

// Renditions of which their publisher said nothing get the figures that were measured, and keep them when nobody takes them and nothing comes any more. What was
// cached then is not shown to who wants them again.
func TestRenditionsAreMeasured(t *testing.T) {
	world(t, Config{}, func(t *testing.T, h *Hub) {
		p := publish(t, h, PublishOptions{Tracks: []media.Track{video, smaller("h")}})
		k, sub := take(t, h)
		sub.Want(1, true)
		write := func(track int, i uint32, parts ...[]byte) {
			b := media.NewBurst(track, i*9000)
			for n, p := range parts {
				b.Append(uint16(i)*2+uint16(n), n == len(parts)-1, p)
			}
			b.Arrived = time.Now().UnixNano()
			p.Write(b)
		}
		for i := range uint32(50) { // a tenth of a second each
			if i%20 == 0 {
				write(1, i, sps(), append([]byte{0x65}, make([]byte, 1000)...))
			} else {
				write(1, i, append([]byte{0x41}, make([]byte, 1000)...))
			}
			write(0, i, append([]byte{0x65}, make([]byte, 100)...))
			pass(100 * time.Millisecond)
		}
		told := k.tracks[1]
		if told.Height == 0 || told.Bitrate < 50_000 || told.Bitrate > 110_000 || k.tracks[0] != video {
			t.Errorf("the tracks are %+v", k.tracks)
		}
		sub.Want(1, false)
		for i := range uint32(50) {
			write(0, 50+i, append([]byte{0x65}, make([]byte, 100)...))
			pass(100 * time.Millisecond)
		}
		info, _ := h.Info(key)
		if got := info.Tracks[1]; got.Bitrate < 50_000 || got.Flowing || got.Track != told {
			t.Errorf("what nobody takes is %+v", got)
		}
		sub.Cached(1, func(bs []*media.Burst) {
			if len(bs) > 0 {
				t.Errorf("%d bursts of long ago are cached", len(bs))
			}
		})
	})
}

// A node below knows of renditions what its parent says, also when that changes.
func TestRenditionsGetFigures(t *testing.T) {
	world(t, Config{}, func(t *testing.T, h *Hub) {
		p := publish(t, h, PublishOptions{Tracks: []media.Track{video, smaller("h")}, Relayed: true})
		k, _ := take(t, h)
		t1, t2 := smaller("h"), smaller("q")
		t1.Bitrate, t1.Height, t2.Height = 600_000, 360, 180
		p.Add([]media.Track{t2})
		p.Offer(1, t1.Bitrate, t1.Height)
		if len(k.tracks) != 3 || k.tracks[1] != t1 || k.tracks[2] != t2 {
			t.Errorf("tracks %+v", k.tracks)
		}
		t2.Bitrate = 150_000
		p.Offer(2, t2.Bitrate, t2.Height)
		if len(k.tracks) != 3 || k.tracks[2] != t2 {
			t.Errorf("tracks %+v", k.tracks)
		}
	})
}
