package relay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	in "sluice/ingest/relay"
	"sluice/media"
	wire "sluice/relay"
	"sluice/stream"
)

func TestFirstPictureComesFromTheCache(t *testing.T) {
	noLeaks(t)
	reg := &registry{}
	origin, edge := start(t, reg, "o", options{}), start(t, reg, "e", options{})
	reg.set(origin.source("", 1))
	cam := publish(t, origin, 65530, video, audio)
	cam.frame(0, true, 40, 1200)
	for range 10 {
		cam.frame(0, false, 3, 1000)
	}
	before := cam.asked.Load()
	v := watch(t, edge)
	v.reaches(t, 0, 11, 2*time.Second) // although the camera sends nothing now
	if got := v.sub.Tracks(); len(got) != 2 || got[0] != video || got[1] != audio {
		t.Errorf("tracks %v", got)
	}
	if asked := cam.asked.Load() - before; asked != 0 {
		t.Errorf("the viewer cost the publisher %d key frames", asked)
	}
	for range 20 {
		cam.frame(0, false, 2, 500)
		cam.frame(1, false, 1, 100)
	}
	v.reaches(t, 0, 31, 2*time.Second)
	v.reaches(t, 1, 20, 2*time.Second)
	v.intact(t)
	if n := reg.lookups.Load(); n != 1 {
		t.Errorf("%d look-ups", n)
	}
	if len(v.keys) != 1 || v.keys[0] != 0 {
		t.Errorf("key frames at %v", v.keys)
	}
}

func TestGOPsArriveWholeAndInOrder(t *testing.T) {
	noLeaks(t)
	reg := &registry{}
	origin, edge := start(t, reg, "o", options{}), start(t, reg, "e", options{})
	reg.set(origin.source("", 1))
	cam := publish(t, origin, 1, video, audio)
	cam.frame(0, true, 1, 1200)
	v := watch(t, edge)
	const gops, each = 100, 5
	for g := range gops { // as fast as they are taken
		for i := range each {
			cam.frame(0, i == 0, 4, 1200)
			cam.frame(1, false, 1, 100)
		}
		v.reaches(t, 0, (g-20)*each, 5*time.Second)
	}
	v.reaches(t, 0, 1+gops*each, 5*time.Second)
	v.reaches(t, 1, gops*each, 5*time.Second)
	v.intact(t)
	if len(v.keys) != gops+1 || len(v.seqs[0]) != 1+4*gops*each {
		t.Errorf("%d key frames, %d packets", len(v.keys), len(v.seqs[0]))
	}
	if s := origin.out.Stats(); s.Cuts != 0 {
		t.Errorf("%+v", s)
	}
}

func TestFiftyViewersOnePull(t *testing.T) {
	noLeaks(t)
	reg := &registry{}
	origin := start(t, reg, "o", options{})
	edge := start(t, reg, "e", options{hub: stream.Config{Idle: 200 * time.Millisecond}})
	reg.set(origin.source("", 1))
	cam := publish(t, origin, 1, video)
	stop := cam.roll(t, 5*time.Millisecond, 30, 2, 500, false)
	var wg sync.WaitGroup
	viewers := make([]*viewer, 50)
	for i := range viewers {
		wg.Go(func() { viewers[i] = watch(t, edge) })
	}
	wg.Wait()
	for _, v := range viewers {
		v.reaches(t, 0, 30, 3*time.Second)
		v.intact(t)
	}
	stop()
	if n, served := reg.lookups.Load(), origin.out.Stats().Subscriptions; n != 1 || served != 1 {
		t.Errorf("%d look-ups, %d subscriptions for 50 viewers", n, served)
	}
	if info, _ := origin.hub.Info(key); info.Relays != 1 || info.Viewers != 0 {
		t.Errorf("origin: %+v", info)
	}
	for _, v := range viewers {
		v.sub.Close()
	}
	until(t, 2*time.Second, func() string { // the edge drops it, and the origin learns that
		if info, ok := edge.hub.Info(key); ok {
			return fmt.Sprintf("the edge still has it: %+v", info)
		}
		if info, _ := origin.hub.Info(key); info.Relays != 0 {
			return "the origin still serves it"
		}
		return ""
	})
	watch(t, edge).reaches(t, 0, 1, 2*time.Second) // and it can be had again
	if n := reg.lookups.Load(); n != 2 {
		t.Errorf("%d look-ups after the second pull", n)
	}
}

func TestDataBothWays(t *testing.T) {
	noLeaks(t)
	reg := &registry{}
	origin, near, far := start(t, reg, "o", options{}), start(t, reg, "e1", options{}), start(t, reg, "e2", options{})
	reg.set(origin.source("", 1))
	cam := publish(t, origin, 1, video)
	cam.frame(0, true, 1, 100)
	a, b := watch(t, near), watch(t, far)
	a.reaches(t, 0, 1, 2*time.Second)
	b.reaches(t, 0, 1, 2*time.Second)
	large := bytes.Repeat([]byte{0, 1, 2, 0xff}, wire.MaxMessage/4)
	down := []media.Message{{Data: []byte("hällo")}, {Binary: true, Data: large}, {Binary: true, Data: []byte{}}}
	for _, m := range down {
		cam.pub.Message(m)
	}
	same := func(v *viewer, want []media.Message) func() string {
		return func() string {
			v.mu.Lock()
			defer v.mu.Unlock()
			if !slices.EqualFunc(v.messages, want, func(a, b media.Message) bool { return a.Binary == b.Binary && bytes.Equal(a.Data, b.Data) }) {
				return fmt.Sprintf("%d messages of %d", len(v.messages), len(want))
			}
			return ""
		}
	}
	until(t, 3*time.Second, same(a, down))
	until(t, 3*time.Second, same(b, down))
	up := media.Message{Data: []byte("from a viewer")}
	a.sub.Send(up)
	until(t, 3*time.Second, same(b, append(down, up))) // the other edge's viewers have it too
	if got := <-cam.got; string(got.Data) != string(up.Data) || got.Binary {
		t.Errorf("the publisher got %+v", got)
	}
	until(t, time.Second, same(a, down)) // and it does not come back
}

func TestKeyFrameRequestsGoUpMerged(t *testing.T) {
	noLeaks(t)
	reg := &registry{}
	origin, near, far := start(t, reg, "o", options{}), start(t, reg, "e1", options{}), start(t, reg, "e2", options{})
	reg.set(origin.source("", 1))
	cam := publish(t, origin, 1, video)
	cam.frame(0, true, 1, 100)
	a, b := watch(t, near), watch(t, far)
	a.reaches(t, 0, 1, 2*time.Second)
	b.reaches(t, 0, 1, 2*time.Second)
	if n := cam.asked.Load(); n != 0 {
		t.Fatalf("%d requests although the cache had a key frame", n)
	}
	for range 100 {
		a.sub.RequestKeyFrame(0)
		b.sub.RequestKeyFrame(0)
	}
	until(t, 3*time.Second, func() string {
		if cam.asked.Load() == 0 {
			return "no request came"
		}
		return ""
	})
	if n := cam.asked.Load(); n > 2 {
		t.Errorf("200 requests on two edges reached the publisher as %d", n)
	}
}

func TestKeysArePinned(t *testing.T) {
	noLeaks(t)
	stranger, err := wire.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		key     string // the registry's for the origin; "": the right one
		known   func(context.Context, string) bool
		succeed bool
	}{
		{"both known", "", nil, true},
		{"the origin is another than the registry says", stranger.Key(), nil, false},
		{"the registry has no key for the origin", "-", nil, false},
		{"the edge is unknown to the origin", "", func(context.Context, string) bool { return false }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			reg := &registry{}
			origin, edge := start(t, reg, "o", options{known: c.known}), start(t, reg, "e", options{})
			src := origin.source("", 1)
			switch c.key {
			case "":
			case "-":
				src.Key = ""
			default:
				src.Key = c.key
			}
			reg.set(src)
			publish(t, origin, 1, video).frame(0, true, 1, 100)
			v := &viewer{}
			_, err := edge.hub.Subscribe(t.Context(), key, stream.SubscribeOptions{Subscriber: v})
			if c.succeed != (err == nil) {
				t.Errorf("subscribe: %v", err)
			}
			if err != nil && !errors.Is(err, in.ErrUnreachable) {
				t.Errorf("%v does not wrap ErrUnreachable", err)
			}
			if served := origin.out.Stats().Subscriptions; c.succeed != (served == 1) {
				t.Errorf("%d subscriptions were served", served)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	noLeaks(t)
	reg := &registry{}
	origin, edge := start(t, reg, "o", options{max: 1}), start(t, reg, "e", options{})
	subscribe := func(k media.Key) error {
		_, err := edge.hub.Subscribe(t.Context(), k, stream.SubscribeOptions{Subscriber: &viewer{}})
		return err
	}
	if err := subscribe(key); !errors.Is(err, stream.ErrOffline) || reg.lookups.Load() != 1 {
		t.Errorf("a stream that nobody publishes: %v after %d look-ups", err, reg.lookups.Load())
	}
	reg.set(origin.source("", 1)) // wrongly: the origin has nothing
	if err := subscribe(key); !errors.Is(err, stream.ErrOffline) {
		t.Errorf("a stream that the origin does not have: %v", err)
	}
	if len(origin.hub.List()) != 0 {
		t.Error("the question made the origin pull")
	}
	publish(t, origin, 1, video)
	if err := subscribe(key); err != nil {
		t.Error(err)
	}
	other := media.Key{App: "live", ID: "other"}
	if _, err := origin.hub.Publish(t.Context(), other, stream.PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := subscribe(other); !errors.Is(err, in.ErrUnreachable) { // why is for the log
		t.Errorf("more than the origin takes: %v", err)
	}
	reg.set(edge.source("", 2)) // this node itself
	if err := subscribe(media.Key{App: "live", ID: "third"}); !errors.Is(err, stream.ErrOffline) {
		t.Errorf("a stream that this node should have itself: %v", err)
	}
}

func TestSlowPathLosesWholeGOPs(t *testing.T) {
	noLeaks(t)
	reg := &registry{}
	origin, edge := start(t, reg, "o", options{}), start(t, reg, "e", options{})
	path := lay(t, origin.out.Addr())
	reg.set(origin.source(path.addr(), 1))
	cam := publish(t, origin, 1, video, audio)
	stop := cam.roll(t, 10*time.Millisecond, 30, 5, 1200, true) // 600 kB/s
	v := watch(t, edge)
	v.reaches(t, 0, 60, 3*time.Second)
	path.rate.Store(150_000) // a quarter of it
	until(t, 10*time.Second, func() string {
		if s := origin.out.Stats(); s.Cuts < 3 {
			return fmt.Sprintf("not cut three times: %+v", s)
		}
		return ""
	})
	sound := v.frames(1)
	v.reaches(t, 1, sound+50, 5*time.Second) // sound goes on
	path.rate.Store(0)
	n := v.frames(0)
	v.reaches(t, 0, n+100, 8*time.Second) // and the picture comes back
	stop()
	v.intact(t) // no gap: what was cut is not loss
	v.mu.Lock()
	defer v.mu.Unlock()
	if !slices.ContainsFunc(v.keys, func(i int) bool { return i > n }) {
		t.Error("no key frame after the path was free")
	}
}

// TestPlannedMoveIsNoWarning: an edge whose origin says that it goes does not warn.
func TestPlannedMoveIsNoWarning(t *testing.T) {
	noLeaks(t)
	reg, log := &registry{}, &lockedBuffer{}
	first, second := start(t, reg, "o1", options{}), start(t, reg, "o2", options{})
	edge := start(t, reg, "e", options{log: slog.New(slog.NewTextHandler(log, nil))})
	reg.set(first.source("", 1))
	cam := publish(t, first, 100, video)
	stop := cam.roll(t, 10*time.Millisecond, 20, 2, 500, false)
	v := watch(t, edge)
	v.reaches(t, 0, 50, 3*time.Second)
	stop()
	first.stop()
	publish(t, second, 40000, video).roll(t, 10*time.Millisecond, 20, 2, 500, false)
	reg.set(second.source("", 2))
	v.reaches(t, 0, v.frames(0)+50, 6*time.Second)
	if text := log.String(); strings.Contains(text, "level=WARN") || !strings.Contains(text, "upstream lost") {
		t.Errorf("the log says\n%s", text)
	}
}

func TestOriginDiesAndTheStreamComesBackElsewhere(t *testing.T) {
	noLeaks(t)
	reg := &registry{}
	first, second := start(t, reg, "o1", options{}), start(t, reg, "o2", options{})
	edge := start(t, reg, "e", options{})
	path := lay(t, first.out.Addr())
	reg.set(first.source(path.addr(), 1))
	cam := publish(t, first, 100, video, audio)
	stop := cam.roll(t, 10*time.Millisecond, 20, 2, 500, true)
	v := watch(t, edge)
	v.reaches(t, 0, 50, 3*time.Second)

	path.cut.Store(true) // no goodbye, and the registry does not know yet
	died := time.Now()
	stop()
	until(t, 10*time.Second, func() string {
		if info, ok := edge.hub.Info(key); !ok || info.Relayed {
			return fmt.Sprintf("the edge has not noticed: %+v", info)
		}
		return ""
	})
	if took := time.Since(died); took > 3*time.Second { // 2 s, and a machine that does other things too
		t.Errorf("noticed after %v", took)
	}
	n := v.frames(0)
	publish(t, second, 40000, video, audio).roll(t, 10*time.Millisecond, 20, 2, 500, true)
	moved := time.Now()
	reg.set(second.source("", 2)) // while the first is being asked once more, which would take 1.5 s
	v.reaches(t, 0, n+100, 6*time.Second)
	v.reaches(t, 1, n+100, 6*time.Second)
	v.intact(t)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.over {
		t.Errorf("the viewer was ended: %v", v.ended)
	}
	if !slices.Contains(v.keys, n) {
		t.Errorf("the splice at burst %d is not at a key frame (%v)", n, v.keys)
	}
	if took := v.arrived[n].Sub(moved); took > 700*time.Millisecond {
		t.Errorf("the picture came %v after the registry had told", took)
	}
	gap := time.Duration(v.stamps[0][n]-v.stamps[0][n-1]) * time.Second / 90000
	if away := v.arrived[n].Sub(v.arrived[n-1]); (gap - away).Abs() > 700*time.Millisecond {
		t.Errorf("timestamps jump by %v over %v without picture", gap, away)
	}
}

func TestSameOriginAfterACut(t *testing.T) {
	noLeaks(t)
	reg := &registry{}
	origin, edge := start(t, reg, "o", options{}), start(t, reg, "e", options{})
	path := lay(t, origin.out.Addr())
	reg.set(origin.source(path.addr(), 1))
	cam := publish(t, origin, 1, video)
	cam.roll(t, 10*time.Millisecond, 100_000, 2, 500, false) // one GOP, but for what is asked for
	v := watch(t, edge)
	v.reaches(t, 0, 100, 3*time.Second)
	path.cut.Store(true)
	until(t, 10*time.Second, func() string {
		if info, _ := edge.hub.Info(key); info.Relayed {
			return "the edge has not noticed"
		}
		return ""
	})
	n := v.frames(0)
	path.cut.Store(false)
	v.reaches(t, 0, n+100, 6*time.Second)
	v.intact(t)
	v.mu.Lock()
	defer v.mu.Unlock()
	// The cached GOP began before the cut. Shown again, it would put the viewer seconds behind.
	took := v.arrived[len(v.arrived)-1].Sub(v.arrived[n])
	if due := int(took / (10 * time.Millisecond)); len(v.arrived)-n > due+30 {
		t.Errorf("%d frames came in %v: the old GOP was shown again", len(v.arrived)-n, took)
	}
}

func TestStreamMovesToAnotherOrigin(t *testing.T) {
	noLeaks(t)
	for _, c := range []struct {
		name string
		hint bool // the first origin knows that it lost the stream
	}{{"and the first one says so", true}, {"and the first one does not know", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reg := &registry{}
			var lost func()
			first := start(t, reg, "o1", options{hub: stream.Config{Own: func(_ context.Context, _ media.Key, f func()) (stream.Holding, error) {
				lost = f
				return held{}, nil
			}}})
			second, edge := start(t, reg, "o2", options{}), start(t, reg, "e", options{})
			reg.set(first.source("", 1))
			stop := publish(t, first, 100, video).roll(t, 10*time.Millisecond, 20, 2, 500, false)
			v := watch(t, edge)
			v.reaches(t, 0, 30, 3*time.Second)
			stop()
			publish(t, second, 40000, video).roll(t, 10*time.Millisecond, 20, 2, 500, false)
			reg.set(second.source("", 2))
			if c.hint {
				lost()
			}
			n := v.frames(0)
			v.reaches(t, 0, n+50, 8*time.Second)
			v.intact(t)
			if v.over {
				t.Errorf("the viewer was ended: %v", v.ended)
			}
		})
	}
}

type held struct{}

func (held) Report(bool, []string) {}
func (held) Release()              {}

func TestHowStreamsEnd(t *testing.T) {
	noLeaks(t)
	for _, c := range []struct {
		name string
		do   func(origin *node, cam *camera, reg *registry)
		want error
	}{
		{"the publisher stops", func(_ *node, cam *camera, _ *registry) { cam.pub.Close(stream.ErrStopped) }, stream.ErrStopped},
		{"the publisher is lost", func(_ *node, cam *camera, _ *registry) { cam.pub.Close(errors.New("network")) }, stream.ErrStopped},
		{"the origin stops and nobody takes over", func(o *node, _ *camera, reg *registry) { o.stop() }, stream.ErrLost},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reg := &registry{}
			quick := stream.Config{Grace: 700 * time.Millisecond, Farewell: 200 * time.Millisecond}
			origin, edge := start(t, reg, "o", options{hub: quick}), start(t, reg, "e", options{hub: quick, grace: 500 * time.Millisecond})
			reg.set(origin.source("", 1))
			cam := publish(t, origin, 1, video)
			cam.frame(0, true, 1, 100)
			v := watch(t, edge)
			v.reaches(t, 0, 1, 2*time.Second)
			c.do(origin, cam, reg)
			until(t, 4*time.Second, func() string {
				v.mu.Lock()
				defer v.mu.Unlock()
				if !v.over {
					return "the viewer was not told"
				}
				if !errors.Is(v.ended, c.want) {
					return fmt.Sprintf("ended with %v, want %v", v.ended, c.want)
				}
				return ""
			})
		})
	}
}

func TestOtherTracksAreAnnounced(t *testing.T) {
	noLeaks(t)
	reg := &registry{}
	origin, edge := start(t, reg, "o", options{}), start(t, reg, "e", options{})
	reg.set(origin.source("", 1))
	cam := publish(t, origin, 1, video)
	cam.frame(0, true, 1, 100)
	v := watch(t, edge)
	v.reaches(t, 0, 1, 2*time.Second)
	cam.pub.Close(errors.New("network"))
	h265 := media.Track{Kind: media.Video, Codec: media.Codec{Name: media.H265, ClockRate: 90000}}
	cam = publish(t, origin, 500, h265, audio)
	until(t, 3*time.Second, func() string {
		v.mu.Lock()
		defer v.mu.Unlock()
		if len(v.tracks) != 2 || v.tracks[0] != h265 {
			return fmt.Sprintf("tracks are %v", v.tracks)
		}
		v.stamps, v.seqs = [2][]uint32{}, [2][]uint16{} // another stream from here on
		return ""
	})
	b := media.NewBurst(0, 9)
	b.Append(1, true, []byte{19 << 1, 1, 0}) // IDR_W_RADL
	cam.pub.Write(b)
	cam.frame(1, false, 1, 100)
	v.reaches(t, 0, 1, 2*time.Second)
	v.reaches(t, 1, 1, 2*time.Second)
}
