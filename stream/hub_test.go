package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/media"
)

var (
	key   = media.Key{App: "live", ID: "s"}
	video = media.Track{Kind: media.Video, Codec: media.Codec{Name: media.H264, ClockRate: 90000}}
	audio = media.Track{Kind: media.Audio, Codec: media.Codec{Name: media.Opus, ClockRate: 48000, Channels: 2}}
)

// recorder is a Subscriber that writes down what it got.
type recorder struct {
	mu       sync.Mutex
	seqs     []uint16
	stamps   []uint32
	keys     int
	cached   int
	tracks   []media.Track
	messages []string
	ended    reason
}

func (r *recorder) GOP(bs []*media.Burst) {
	r.cached = len(bs)
	for _, b := range bs {
		r.Burst(b)
	}
}

func (r *recorder) Burst(b *media.Burst) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.Track != 0 {
		return
	}
	if b.Key {
		r.keys++
	}
	for _, p := range b.Packets {
		r.seqs = append(r.seqs, p.Seq)
	}
	r.stamps = append(r.stamps, b.Timestamp)
}
func (r *recorder) Tracks(t []media.Track)  { r.tracks = t }
func (r *recorder) Message(m media.Message) { r.messages = append(r.messages, string(m.Data)) }
func (r *recorder) End(err error)           { r.ended.set(err) }

// reason is an error that one goroutine sets and another reads.
type reason struct{ p atomic.Pointer[error] }

func (r *reason) set(err error) { r.p.Store(&err) }
func (r *reason) get() error {
	if p := r.p.Load(); p != nil {
		return *p
	}
	return nil
}

// frame makes a frame of n packets.
func frame(track int, isKey bool, ts uint32, seq uint16, n int) *media.Burst {
	b := media.NewBurst(track, ts)
	b.Arrived = time.Now().UnixNano()
	for i := range n {
		p := []byte{0x41, 0x9a}
		if isKey {
			p = []byte{0x65, 0x88}
		}
		b.Append(seq+uint16(i), i == n-1, p)
	}
	return b
}

// world runs a hub under a fake clock.
func world(t *testing.T, cfg Config, f func(t *testing.T, h *Hub)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Log = slog.New(slog.DiscardHandler)
		h := NewHub(cfg)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = h.Run(ctx) })
		f(t, h)
		cancel()
		wg.Wait()
		synctest.Wait()
		if left := len(h.List()); left != 0 {
			t.Errorf("%d streams after the end", left)
		}
	})
}

func publish(t *testing.T, h *Hub, o PublishOptions) *Publisher {
	t.Helper()
	if o.Tracks == nil {
		o.Tracks = []media.Track{video}
	}
	p, err := h.Publish(t.Context(), key, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func subscribe(t *testing.T, h *Hub) (*recorder, *Subscription) {
	t.Helper()
	r := &recorder{}
	sub, err := h.Subscribe(t.Context(), key, SubscribeOptions{Subscriber: r})
	if err != nil {
		t.Fatal(err)
	}
	sub.Start()
	return r, sub
}

func TestNewViewerGetsTheGOP(t *testing.T) {
	world(t, Config{}, func(t *testing.T, h *Hub) {
		asked := 0
		p := publish(t, h, PublishOptions{OnKeyFrameRequest: func(int) { asked++ }})
		early, _ := subscribe(t, h)
		if asked != 1 {
			t.Errorf("a viewer of an empty stream caused %d key-frame requests, want 1", asked)
		}
		p.Write(frame(0, false, 100, 10, 2)) // before any key frame
		p.Write(frame(0, true, 200, 12, 3))
		p.Write(frame(0, true, 200, 15, 1)) // second part of the same key frame
		p.Write(frame(0, false, 300, 16, 2))
		late, sub := subscribe(t, h)
		p.Write(frame(0, false, 400, 18, 1))
		if got := fmt.Sprint(late.seqs); got != "[12 13 14 15 16 17 18]" || late.cached != 3 || late.keys != 1 {
			t.Errorf("late viewer: packets %s, %d cached bursts, %d keys", got, late.cached, late.keys)
		}
		if len(early.seqs) != 9 {
			t.Errorf("early viewer got %v", early.seqs)
		}
		if asked != 1 {
			t.Errorf("the late viewer cost the publisher a key frame")
		}
		sub.Close()
		p.Write(frame(0, false, 500, 19, 1))
		if len(late.seqs) != 7 {
			t.Error("a closed subscription still gets media")
		}
	})
}

func TestPublisherThatReconnectsIsSpliced(t *testing.T) {
	world(t, Config{}, func(t *testing.T, h *Hub) {
		p := publish(t, h, PublishOptions{Tracks: []media.Track{video, audio}})
		r, _ := subscribe(t, h)
		p.Write(frame(0, true, 1000, 65534, 4)) // to 1
		p.Close(errors.New("network"))
		pass(2 * time.Second)
		if r.ended.get() != nil {
			t.Fatalf("the viewer was ended within the grace: %v", r.ended.get())
		}
		asked := 0
		// Tracks in another order, unrelated numbers.
		q := publish(t, h, PublishOptions{Tracks: []media.Track{audio, video}, OnKeyFrameRequest: func(track int) { asked++; asked += 10 * (track - 1) }})
		q.Write(frame(1, false, 777, 500, 1)) // no key frame yet: not sent
		q.Write(frame(1, true, 3777, 501, 2))
		q.Write(frame(1, false, 700, 499, 1)) // late, from before the joint
		q.Write(frame(1, false, 6777, 503, 1))
		if got := fmt.Sprint(r.seqs); got != "[65534 65535 0 1 2 3 4]" {
			t.Errorf("sequence numbers %s are not continuous", got)
		}
		if want := []uint32{1000, 1000 + 180000, 1000 + 183000}; fmt.Sprint(r.stamps) != fmt.Sprint(want) {
			t.Errorf("timestamps %v, want %v", r.stamps, want)
		}
		if asked != 1 {
			t.Errorf("key-frame requests: %d (11 or more: of the wrong track)", asked)
		}
		if r.tracks != nil {
			t.Error("the same codecs in another order were reported as new tracks")
		}
	})
}

func TestInfo(t *testing.T) {
	world(t, Config{}, func(t *testing.T, h *Hub) {
		p := publish(t, h, PublishOptions{})
		sps := []byte{0x67, 0x64, 0x00, 0x0d, 0xac, 0xd9, 0x41, 0x50, 0x87, 0x88, 0x88, 0xc0, 0x44, 0x00, 0x00, 0x03, 0x00, 0x04, 0x00, 0x00, 0x03, 0x00, 0xf0, 0x3c, 0x50, 0xa6, 0x58}
		for i := range 50 { // 27 bytes every 20 ms: 10,800 bit/s
			b := media.NewBurst(0, uint32(i))
			b.Append(uint16(i), true, sps)
			p.Write(b)
			pass(20 * time.Millisecond)
		}
		pass(2*rateEvery + sweep)
		synctest.Wait()
		i, ok := h.Info(key)
		if !ok || len(i.Tracks) != 1 || i.Tracks[0].Width != 322 || i.Tracks[0].Height != 242 || i.Bytes != 50*27 || fmt.Sprint(i.Codecs()) != "[H264]" {
			t.Errorf("%+v", i)
		}
		if i.Flowing || i.Tracks[0].Bitrate != 0 {
			t.Errorf("a silent stream flows (%v) with %d bit/s", i.Flowing, i.Tracks[0].Bitrate)
		}
		for j := range 110 {
			b := media.NewBurst(0, uint32(50+j))
			b.Append(uint16(50+j), true, sps)
			p.Write(b)
			pass(20 * time.Millisecond)
		}
		synctest.Wait()
		if i, _ := h.Info(key); !i.Flowing || i.Tracks[0].Bitrate < 10_000 || i.Tracks[0].Bitrate > 11_600 {
			t.Errorf("flows %v with %d bit/s, want about 10,800", i.Flowing, i.Tracks[0].Bitrate)
		}
	})
}

func TestDiscontinuityKeepsTheClock(t *testing.T) {
	world(t, Config{}, func(t *testing.T, h *Hub) {
		p := publish(t, h, PublishOptions{})
		r, _ := subscribe(t, h)
		p.Write(frame(0, true, 1000, 10, 1))
		pass(time.Second)
		p.Discontinuity(0)
		p.Write(frame(0, false, 40000, 40, 1)) // can't be decoded without what was left out
		p.Write(frame(0, true, 43000, 41, 1))
		if got := fmt.Sprint(r.seqs, r.stamps); got != "[10 11] [1000 43000]" {
			t.Errorf("numbers and timestamps %s", got)
		}
	})
}

func TestTakeover(t *testing.T) {
	for _, c := range []struct {
		name       string
		first, new PublishOptions
		silentFor  time.Duration
		want       error
		within     time.Duration
	}{
		{"a live publisher is kept", PublishOptions{}, PublishOptions{}, 0, ErrInUse, 3 * time.Second},
		{"the same session takes over at once", PublishOptions{Session: "a"}, PublishOptions{Session: "a"}, 0, nil, 0},
		{"another session does not", PublishOptions{Session: "a"}, PublishOptions{Session: "b"}, 0, ErrInUse, 3 * time.Second},
		{"a silent publisher is replaced", PublishOptions{}, PublishOptions{}, time.Second, nil, 0},
		{"one that falls silent is waited for", PublishOptions{}, PublishOptions{}, 500 * time.Millisecond, nil, 700 * time.Millisecond},
		{"a relayed one is replaced", PublishOptions{Relayed: true}, PublishOptions{}, 0, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			world(t, Config{}, func(t *testing.T, h *Hub) {
				var end reason
				c.first.OnEnd = end.set
				p := publish(t, h, c.first)
				stop := make(chan struct{})
				var wg sync.WaitGroup
				p.Write(frame(0, true, 1, 1, 1))
				if c.silentFor == 0 {
					wg.Go(func() {
						for i := uint16(2); ; i++ {
							select {
							case <-stop:
								return
							case <-time.After(20 * time.Millisecond):
								p.Write(frame(0, false, uint32(i), i, 1))
							}
						}
					})
				}
				pass(c.silentFor)
				c.new.Tracks = []media.Track{video}
				begin := time.Now()
				_, err := h.Publish(t.Context(), key, c.new)
				if !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				if took := time.Since(begin); took > c.within {
					t.Errorf("took %v", took)
				}
				close(stop)
				wg.Wait()
				synctest.Wait()
				if c.want == nil && !errors.Is(end.get(), ErrReplaced) {
					t.Errorf("the first publisher was told %v", end.get())
				}
			})
		})
	}
}

func TestGraceAndFarewell(t *testing.T) {
	for _, c := range []struct {
		reason error
		want   error
		after  time.Duration
	}{
		{ErrStopped, ErrStopped, 2 * time.Second},
		{errors.New("ice failed"), ErrLost, 10 * time.Second},
	} {
		t.Run(c.reason.Error(), func(t *testing.T) {
			world(t, Config{}, func(t *testing.T, h *Hub) {
				p := publish(t, h, PublishOptions{})
				r, _ := subscribe(t, h)
				p.Close(c.reason)
				p.Close(c.reason)
				pass(c.after - 200*time.Millisecond)
				synctest.Wait()
				if r.ended.get() != nil {
					t.Fatalf("ended too early: %v", r.ended.get())
				}
				pass(400 * time.Millisecond)
				synctest.Wait()
				if !errors.Is(r.ended.get(), c.want) {
					t.Errorf("ended with %v, want %v", r.ended.get(), c.want)
				}
				if _, err := h.Subscribe(t.Context(), key, SubscribeOptions{Subscriber: r}); !errors.Is(err, ErrOffline) {
					t.Errorf("subscribe after the end: %v", err)
				}
			})
		})
	}
}

func TestKeyFrameRequestsAreMerged(t *testing.T) {
	world(t, Config{}, func(t *testing.T, h *Hub) {
		var at []time.Duration // written with the stream locked
		begin := time.Now()
		p := publish(t, h, PublishOptions{OnKeyFrameRequest: func(int) { at = append(at, time.Since(begin).Round(100*time.Millisecond)) }})
		p.Write(frame(0, true, 1, 1, 1))
		var subs []*Subscription
		for range 100 {
			_, s := subscribe(t, h)
			subs = append(subs, s)
		}
		for i := range 20 { // every 50 ms all of them ask
			for _, s := range subs {
				s.RequestKeyFrame(0)
				s.RequestKeyFrame(7)
			}
			pass(50 * time.Millisecond)
			p.Write(frame(0, false, uint32(i+2), uint16(i+2), 1))
		}
		synctest.Wait()
		if len(at) < 2 || len(at) > 3 || at[0] != 0 {
			t.Errorf("2,000 requests in a second reached the publisher as %v, want one each 500 ms", at)
		}
	})
}

func TestKeyFrameIsRequestedWhenTheGOPGrowsOld(t *testing.T) {
	world(t, Config{}, func(t *testing.T, h *Hub) {
		asked := 0
		p := publish(t, h, PublishOptions{OnKeyFrameRequest: func(int) { asked++ }})
		p.Write(frame(0, true, 1, 1, 1))
		for i := range 41 {
			pass(100 * time.Millisecond)
			p.Write(frame(0, false, uint32(i+2), uint16(i+2), 1))
		}
		synctest.Wait()
		if asked != 1 {
			t.Errorf("%d requests after 4.1 s without a key frame, want 1", asked)
		}
	})
}

func TestPullOnceAndDropWhenIdle(t *testing.T) {
	var h *Hub
	pulls := 0
	var upstream *Publisher
	var ended reason
	cfg := Config{Pull: func(ctx context.Context, k media.Key) error {
		pulls++
		pass(50 * time.Millisecond)
		var err error
		upstream, err = h.Publish(ctx, k, PublishOptions{Tracks: []media.Track{video}, Relayed: true, OnEnd: ended.set})
		return err
	}}
	world(t, cfg, func(t *testing.T, hub *Hub) {
		h = hub
		var wg sync.WaitGroup
		subs := make([]*Subscription, 50)
		for i := range subs {
			wg.Go(func() { _, subs[i] = subscribe(t, h) })
		}
		wg.Wait()
		if pulls != 1 {
			t.Fatalf("%d pulls for 50 viewers", pulls)
		}
		for _, s := range subs {
			s.Close()
		}
		pass(4900 * time.Millisecond)
		synctest.Wait()
		if ended.get() != nil {
			t.Fatalf("dropped too early: %v", ended.get())
		}
		pass(300 * time.Millisecond)
		synctest.Wait()
		if !errors.Is(ended.get(), ErrIdle) {
			t.Fatalf("idle stream was ended with %v", ended.get())
		}
		_, _ = subscribe(t, h)
		if pulls != 2 {
			t.Errorf("%d pulls", pulls)
		}
		upstream.Write(frame(0, true, 1, 1, 1))
	})
}

func TestMessagesGoEverywhereButBack(t *testing.T) {
	world(t, Config{}, func(t *testing.T, h *Hub) {
		var up []string
		p := publish(t, h, PublishOptions{OnMessage: func(m media.Message) { up = append(up, string(m.Data)) }})
		a, subA := subscribe(t, h)
		b, _ := subscribe(t, h)
		p.Message(media.Message{Data: []byte("hello")})
		subA.Send(media.Message{Data: []byte("from a")})
		if fmt.Sprint(a.messages, b.messages, up) != "[hello] [hello from a] [from a]" {
			t.Errorf("a %v, b %v, publisher %v", a.messages, b.messages, up)
		}
	})
}

func TestOtherCodecIsAnnounced(t *testing.T) {
	world(t, Config{}, func(t *testing.T, h *Hub) {
		p := publish(t, h, PublishOptions{})
		r, _ := subscribe(t, h)
		p.Close(ErrLost)
		if _, err := h.Subscribe(t.Context(), key, SubscribeOptions{Subscriber: r}); !errors.Is(err, ErrOffline) {
			t.Errorf("a new viewer of a stream without a publisher: %v", err)
		}
		vp8 := media.Track{Kind: media.Video, Codec: media.Codec{Name: media.VP8, ClockRate: 90000}}
		publish(t, h, PublishOptions{Tracks: []media.Track{vp8}})
		if len(r.tracks) != 1 || r.tracks[0] != vp8 {
			t.Errorf("tracks %v", r.tracks)
		}
	})
}

// fakeRight is a Holding that remembers.
type fakeRight struct {
	flowing  []bool
	released int
	lost     func()
}

func (f *fakeRight) Report(flowing bool, _ []string) {
	if n := len(f.flowing); n == 0 || f.flowing[n-1] != flowing {
		f.flowing = append(f.flowing, flowing)
	}
}
func (f *fakeRight) Release() { f.released++ }

func TestRightToPublish(t *testing.T) {
	var rights []*fakeRight
	refuse := false
	cfg := Config{Own: func(_ context.Context, _ media.Key, lost func()) (Holding, error) {
		if refuse {
			return nil, ErrInUse
		}
		f := &fakeRight{lost: lost}
		rights = append(rights, f)
		return f, nil
	}}
	world(t, cfg, func(t *testing.T, h *Hub) {
		p := publish(t, h, PublishOptions{})
		p.Write(frame(0, true, 1, 1, 1))
		pass(1500 * time.Millisecond) // silent
		q := publish(t, h, PublishOptions{})
		q.Write(frame(0, true, 1, 1, 1))
		if len(rights) != 1 {
			t.Fatalf("taking over on the same node took %d rights", len(rights))
		}
		q.Close(ErrStopped)
		pass(3 * time.Second)
		synctest.Wait()
		if got := fmt.Sprint(rights[0].flowing); got != "[false true false true false]" {
			t.Errorf("reports %s", got)
		}
		if rights[0].released != 1 {
			t.Errorf("released %d times", rights[0].released)
		}

		var ended reason
		publish(t, h, PublishOptions{OnEnd: ended.set})
		relay := &recorder{}
		if _, err := h.Subscribe(t.Context(), key, SubscribeOptions{Subscriber: relay, Relay: true}); err != nil {
			t.Fatal(err)
		}
		viewer, _ := subscribe(t, h)
		rights[1].lost()
		pass(200 * time.Millisecond)
		synctest.Wait()
		if !errors.Is(ended.get(), ErrLeaseLost) || !errors.Is(relay.ended.get(), ErrLeaseLost) {
			t.Errorf("after the lease was lost: publisher %v, relay %v", ended.get(), relay.ended.get())
		}
		if viewer.ended.get() != nil {
			t.Errorf("a viewer was ended: %v", viewer.ended.get())
		}
		if rights[1].released != 0 {
			t.Error("a lost right was released")
		}
		refuse = true
		if _, err := h.Publish(t.Context(), key, PublishOptions{Tracks: []media.Track{video}}); !errors.Is(err, ErrInUse) {
			t.Errorf("publish without the right: %v", err)
		}
	})
}

func TestPacketsSentAgainDoNotBeginAGOP(t *testing.T) {
	world(t, Config{}, func(t *testing.T, h *Hub) {
		p := publish(t, h, PublishOptions{})
		p.Write(frame(0, true, 3000, 3, 1))
		p.Write(frame(0, false, 3000, 5, 2)) // the second packet of the key frame is lost
		p.Write(frame(0, false, 6000, 7, 1))
		p.Write(frame(0, true, 3000, 4, 1)) // it comes late, and looks like the start of one
		r, _ := subscribe(t, h)
		if got := fmt.Sprint(r.seqs); got != "[3 5 6 7 4]" || r.keys != 1 {
			t.Errorf("a new viewer gets %s with %d key frames", got, r.keys)
		}
	})
}

func TestLargeGOPIsDropped(t *testing.T) {
	g := gop{}
	first := frame(0, true, 1, 1, 1)
	first.Key = true
	g.add(first)
	first.Release()
	for i := range gopBursts + 10 {
		b := frame(0, false, uint32(i+2), 1, 1)
		g.add(b)
		b.Release()
	}
	if len(g.bursts) != 0 || g.size != 0 {
		t.Errorf("%d bursts, %d bytes are kept of a GOP without end", len(g.bursts), g.size)
	}
}

func BenchmarkWrite(b *testing.B) {
	h := NewHub(Config{Log: slog.New(slog.DiscardHandler)})
	p, err := h.Publish(b.Context(), key, PublishOptions{Tracks: []media.Track{video}})
	if err != nil {
		b.Fatal(err)
	}
	sub, err := h.Subscribe(b.Context(), key, SubscribeOptions{Subscriber: nothing{}})
	if err != nil {
		b.Fatal(err)
	}
	sub.Start()
	payload := make([]byte, 1200)
	b.ReportAllocs()
	var seq uint16
	for b.Loop() {
		f := media.NewBurst(0, uint32(seq))
		for i := range 9 {
			payload[0] = 0x41
			if seq%60 == 0 {
				payload[0] = 0x65
			}
			f.Append(seq, i == 8, payload)
		}
		seq++
		p.Write(f)
	}
}

type nothing struct{}

func (nothing) GOP([]*media.Burst)    {}
func (nothing) Burst(*media.Burst)    {}
func (nothing) Tracks([]media.Track)  {}
func (nothing) Message(media.Message) {}
func (nothing) End(error)             {}

// pass lets time go by on the fake clock of world.
func pass(d time.Duration) { <-time.After(d) }
