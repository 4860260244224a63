package ladder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"

	"sluice/internal/ffmpeg"
	"sluice/media"
	"sluice/stream"
)

// camera publishes a moving picture of a size, as an encoder makes it, until the test ends.
func camera(t *testing.T, hub *stream.Hub, key media.Key, codec string, height, bitrate int, keys time.Duration) *stream.Publisher {
	t.Helper()
	encoder := map[string][]string{
		media.H264: {"libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-profile:v", "baseline"},
		media.VP8:  {"libvpx", "-deadline", "realtime", "-cpu-used", "8", "-lag-in-frames", "0"},
		media.VP9:  {"libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-lag-in-frames", "0"},
		media.AV1:  {"libaom-av1", "-usage", "realtime", "-cpu-used", "8", "-lag-in-frames", "0"},
	}[codec]
	args := []string{"-v", "error", "-nostdin", "-re", "-f", "lavfi", "-i", fmt.Sprintf("testsrc2=size=%dx%d:rate=30", height*16/9/2*2, height),
		"-pix_fmt", "yuv420p", "-c:v"}
	args = append(append(args, encoder...), "-b:v", fmt.Sprint(bitrate), "-maxrate", fmt.Sprint(bitrate), "-bufsize", fmt.Sprint(bitrate/2),
		"-g", fmt.Sprint(int(30*keys.Seconds())))
	outlet := ffmpeg.SocketPair
	if codec == media.AV1 {
		outlet = os.Pipe
		args = append(args, "-f", "ivf", "pipe:3")
	} else {
		args = append(args, "-packetsize", "1212", "-strict", "experimental", "-f", "rtp", "pipe:3")
	}
	ours, theirs, err := outlet()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "ffmpeg", args...)
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	ended, err := ffmpeg.Start(cmd)
	_ = theirs.Close()
	if err != nil {
		t.Skipf("ffmpeg: %v", err)
	}
	track := media.Track{Kind: media.Video, Codec: media.Codec{Name: codec, ClockRate: 90000, Fmtp: "packetization-mode=1;profile-level-id=42e01f"}}
	pub, err := hub.Publish(ctx, key, stream.PublishOptions{Tracks: []media.Track{track}})
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	var seq uint16
	var b *media.Burst
	packet := func(timestamp uint32, marker bool, payload []byte) {
		if b == nil {
			b = media.NewBurst(0, timestamp)
			b.Captured = time.Now().UnixNano()
		}
		b.Append(seq, marker, payload)
		seq++
		if marker {
			b.Arrived = time.Now().UnixNano()
			pub.Write(b)
			b = nil
		}
	}
	work.Go(func() {
		if codec == media.AV1 {
			var payloader codecs.AV1Payloader
			_ = ivf(ours, func(at int64, data []byte) {
				payloads := payloader.Payload(1200, data)
				for i, p := range payloads {
					packet(uint32(at), i == len(payloads)-1, p)
				}
			})
			return
		}
		buf := make([]byte, 2000)
		for {
			n, err := ours.Read(buf)
			if err != nil || n == 0 {
				return
			}
			var p rtp.Packet
			if buf[1] >= 192 && buf[1] <= 223 || p.Unmarshal(buf[:n]) != nil {
				continue
			}
			packet(p.Timestamp, p.Marker, p.Payload)
		}
	})
	t.Cleanup(func() { cancel(); <-ended; _ = ours.Close(); work.Wait(); pub.Close(stream.ErrStopped) })
	return pub
}

// audience takes all tracks of a stream and writes down when frames came.
type audience struct {
	mu     sync.Mutex
	came   map[int]map[uint32]time.Time // by track and timestamp
	keys   map[int][]uint32
	order  map[int][]uint32
	seqs   map[int][]uint16
	lowest map[int]int // bitrate that was told
	ended  error
}

func (a *audience) GOP([]*media.Burst) {}
func (a *audience) Burst(b *media.Burst) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range b.Packets {
		a.seqs[b.Track] = append(a.seqs[b.Track], p.Seq)
	}
	if a.came[b.Track] == nil {
		a.came[b.Track] = map[uint32]time.Time{}
	}
	if b.Packets[len(b.Packets)-1].Marker {
		a.came[b.Track][b.Timestamp] = time.Now()
		a.order[b.Track] = append(a.order[b.Track], b.Timestamp)
	}
	if b.Key {
		a.keys[b.Track] = append(a.keys[b.Track], b.Timestamp)
	}
}
func (a *audience) Tracks(tracks []media.Track) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, t := range tracks {
		if least, ok := a.lowest[i]; !ok || t.Bitrate < least {
			a.lowest[i] = t.Bitrate
		}
	}
}
func (a *audience) Message(media.Message) {}
func (a *audience) End(err error)         { a.ended = err }

// least is the lowest bitrate that was told of a track.
func (a *audience) least(track int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lowest[track]
}

func (a *audience) count(track int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.order[track])
}

// late is how much later frames of a track came than those of the source, at a quantile.
func (a *audience) late(track int, q float64) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []time.Duration
	for ts, at := range a.came[track] {
		if source, ok := a.came[0][ts]; ok {
			all = append(all, at.Sub(source))
		}
	}
	if len(all) == 0 {
		return -1
	}
	slices.Sort(all)
	return all[int(q*float64(len(all)-1))]
}

func watch(t testing.TB, hub *stream.Hub, key media.Key) (*audience, *stream.Subscription) {
	t.Helper()
	a := &audience{came: map[int]map[uint32]time.Time{}, keys: map[int][]uint32{}, order: map[int][]uint32{}, seqs: map[int][]uint16{}, lowest: map[int]int{}}
	sub, err := hub.Subscribe(t.Context(), key, stream.SubscribeOptions{Subscriber: a})
	if err != nil {
		t.Fatal(err)
	}
	sub.Start()
	return a, sub
}

func until(t testing.TB, within time.Duration, why func() error) {
	t.Helper()
	for deadline := time.Now().Add(within); ; <-time.After(20 * time.Millisecond) {
		err := why()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// start runs a hub and a ladder with these rules for all streams, unless cfg has some.
func start(t *testing.T, cfg Config, rungs ...Rung) (*stream.Hub, *Ladder) {
	t.Helper()
	hub := stream.NewHub(stream.Config{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	cfg.Hub, cfg.Log = hub, slog.New(slog.NewTextHandler(t.Output(), nil))
	if len(rungs) > 0 {
		cfg.Rules = append(cfg.Rules, Rule{"*", rungs})
	}
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l.governor.settle, l.governor.short = time.Second, time.Second
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = hub.Run(ctx) })
	running.Go(func() { _ = l.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return hub, l
}

var (
	large = Rung{"1080p", 1080, 5_000_000}
	mid   = Rung{"180p", 180, 150_000}
	small = Rung{"90p", 90, 60_000}
	key   = media.Key{App: "live", ID: "camera"}
)

// slowly is how long things may take on a machine that is busy with other tests.
const slowly = 60 * time.Second

// flows waits until a track has so many more frames.
func (a *audience) flows(t *testing.T, track, more int) {
	t.Helper()
	want := a.count(track) + more
	until(t, slowly, func() error {
		if n := a.count(track); n < want {
			return fmt.Errorf("track %d has %d frames of %d", track, n, want)
		}
		return nil
	})
}

// intact fails unless a track's packets follow each other, and each of its frames is one of the source, in order, key frames of key frames.
func (a *audience) intact(t *testing.T, track int) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, seq := range a.seqs[track] {
		if i > 0 && seq != a.seqs[track][i-1]+1 {
			t.Errorf("track %d: packet %d follows %d", track, seq, a.seqs[track][i-1])
		}
	}
	for i, ts := range a.order[track] {
		if i > 0 && int32(ts-a.order[track][i-1]) <= 0 {
			t.Errorf("frame %d of track %d goes back in time", i, track)
		}
		if _, ok := a.came[0][ts]; !ok && i > 0 {
			t.Errorf("frame %d of track %d is none of the source", i, track)
		}
	}
	for _, ts := range a.keys[track] {
		if !slices.Contains(a.keys[0], ts) {
			t.Errorf("a key frame of track %d is none of the source: %d of %v", track, ts, a.keys[0])
		}
	}
}

// Renditions are made of what is published: aligned with it, none larger than it.
func TestRenditions(t *testing.T) {
	for _, codec := range []string{media.H264, media.VP8, media.VP9, media.AV1} {
		t.Run(codec, func(t *testing.T) {
			t.Parallel()
			hub, l := start(t, Config{}, large, small, mid)
			camera(t, hub, key, codec, 360, 500_000, time.Second)
			a, sub := watch(t, hub, key)
			sub.Want(1, true)
			sub.Want(2, true)
			a.flows(t, 1, 70)
			a.flows(t, 2, 1)
			info, _ := hub.Info(key)
			if len(info.Tracks) != 3 || info.Tracks[1].Rendition != "180p" || info.Tracks[1].Height != 180 || info.Tracks[2].Height != 90 {
				t.Errorf("tracks %+v", info.Tracks)
			}
			for track := 1; track <= 2; track++ {
				t.Logf("%s: late by %v, at most %v; %d kbit/s", info.Tracks[track].Rendition, a.late(track, 0.5), a.late(track, 1), info.Tracks[track].Bitrate/1000)
				if p50 := a.late(track, 0.5); p50 < 0 || p50 > time.Second { // on a machine with time to spare it is some milliseconds: see BenchmarkLadder
					t.Errorf("rendition %d comes %v after the source", track, p50)
				}
				a.intact(t, track)
			}
			if s := l.Status(); len(s) != 1 || len(s[0].Renditions) != 2 || s[0].Renditions[0].State != Made || s[0].Reason != "" || s[0].PID == 0 {
				t.Errorf("status %+v", s)
			}
		})
	}
}

// pid is the child of the only stream; it waits for one that is none of those before.
func pid(t testing.TB, l *Ladder, before ...int) (now int) {
	t.Helper()
	until(t, slowly, func() error {
		if s := l.Status(); len(s) > 0 {
			now = s[0].PID
		}
		if now == 0 || slices.Contains(before, now) {
			return fmt.Errorf("no child but %v: %+v", before, l.Status())
		}
		return nil
	})
	return now
}

// Viewers of a rendition whose encoder is killed go on with its next key frame. One that is killed again and again is tried less and less often,
// and nobody counts on its renditions meanwhile.
func TestEncoderDies(t *testing.T) {
	t.Parallel()
	hub, l := start(t, Config{}, mid)
	camera(t, hub, key, media.H264, 360, 500_000, time.Second)
	a, sub := watch(t, hub, key)
	sub.Want(1, true)
	a.flows(t, 1, 30)
	var pids []int
	for range 4 { // the third pause is one that viewers are told of
		p := pid(t, l, pids...)
		pids = append(pids, p)
		if err := syscall.Kill(p, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	until(t, slowly, func() error {
		if a.least(1) != 0 {
			return errors.New("nobody was told that the rendition can't be had")
		}
		return nil
	})
	pid(t, l, pids...)
	a.flows(t, 1, 20)
	a.intact(t, 0)
	a.intact(t, 1)
	if s := l.Status()[0]; s.Restarts != 4 || s.Renditions[0].State != Made || s.Reason != "" {
		t.Errorf("status %+v", s)
	}
	if i, _ := hub.Info(key); i.Tracks[1].Track.Bitrate != mid.Bitrate {
		t.Errorf("the rendition is there again, and %+v is told", i.Tracks[1])
	}
}

// What FFmpeg can't decode costs the renditions, and nothing else.
func TestMalformed(t *testing.T) {
	t.Parallel()
	hub, l := start(t, Config{}, small)
	track := media.Track{Kind: media.Video, Codec: media.Codec{Name: media.VP8, ClockRate: 90000}}
	pub, err := hub.Publish(t.Context(), key, stream.PublishOptions{Tracks: []media.Track{track}})
	if err != nil {
		t.Fatal(err)
	}
	defer pub.Close(stream.ErrStopped)
	a, sub := watch(t, hub, key)
	sub.Want(1, true)
	wrote, broken := 0, false
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(slowly); !broken; wrote++ {
		<-tick.C
		b := media.NewBurst(0, uint32(wrote)*1800)
		b.Arrived = time.Now().UnixNano()
		b.Captured = b.Arrived
		// A key frame of 320x240 by its header (RFC 6386 §9.1), which promises more than there is.
		b.Append(uint16(wrote), true, append([]byte{0x10, 0xf0, 0xff, 0xff, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xf0, 0x00}, bytes.Repeat([]byte{0xff, byte(wrote)}, 300)...))
		pub.Write(b)
		s := l.Status()
		broken = len(s) > 0 && s[0].Restarts > 0
		if time.Now().After(end) {
			t.Fatalf("FFmpeg is taken for well: %+v", s)
		}
	}
	if n := a.count(0); n < wrote-60 { // those before the watcher
		t.Errorf("of %d frames of the source %d came", wrote, n)
	}
	a.intact(t, 0)
}

// On a node that is short of processors the largest rendition goes, and comes back when there is room for a while.
func TestShortOfProcessors(t *testing.T) {
	t.Parallel()
	var load atomic.Value
	load.Store(0.1)
	hub, l := start(t, Config{Load: func() float64 { return load.Load().(float64) }}, mid, small)
	camera(t, hub, key, media.H264, 360, 500_000, time.Second)
	a, sub := watch(t, hub, key)
	sub.Want(1, true)
	sub.Want(2, true)
	a.flows(t, 1, 5)
	load.Store(0.95)
	until(t, slowly, func() error {
		s := l.Status()[0]
		i, _ := hub.Info(key)
		if s.Renditions[0].State != Given || s.Renditions[1].State != Made || s.Reason != "95 % of the node's processors are busy" || i.Tracks[1].Track.Bitrate != 0 {
			return fmt.Errorf("status %+v, tracks %+v", s, i.Tracks)
		}
		return nil
	})
	a.flows(t, 2, 10)
	load.Store(0.3)
	until(t, slowly, func() error {
		if s := l.Status()[0]; s.Renditions[0].State != Made || s.Reason != "" {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
	a.flows(t, 1, 5)
	if i, _ := hub.Info(key); i.Tracks[1].Track.Bitrate != mid.Bitrate {
		t.Errorf("the rendition is there again, and %+v is told", i.Tracks[1])
	}
	a.intact(t, 1)
	a.intact(t, 2)
}

// Only what somebody watches is made; and rules may change at any time.
func TestOnDemandAndRules(t *testing.T) {
	t.Parallel()
	hub, l := start(t, Config{OnDemand: true, Rules: []Rule{{"live/cam*", []Rung{mid}}}}, large, small)
	camera(t, hub, key, media.H264, 360, 500_000, time.Second)
	a, sub := watch(t, hub, key)
	until(t, slowly, func() error {
		if s := l.Status(); len(s) != 1 || len(s[0].Renditions) != 1 || s[0].Renditions[0].Name != mid.Name || s[0].Renditions[0].State != Unasked || s[0].PID != 0 {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
	sub.Want(1, true)
	a.flows(t, 1, 10)
	if err := l.Set(Rule{key.String(), []Rung{small}}); err != nil {
		t.Fatal(err)
	}
	until(t, slowly, func() error {
		i, _ := hub.Info(key)
		if s := l.Status(); len(s) != 1 || s[0].Renditions[0].Name != small.Name || len(i.Tracks) != 3 || i.Tracks[1].Track.Bitrate != 0 {
			return fmt.Errorf("status %+v, tracks %+v", s, i.Tracks)
		}
		return nil
	})
	sub.Want(2, true)
	a.flows(t, 2, 10)
	if err := l.Set(Rule{key.String(), nil}); err != nil {
		t.Fatal(err)
	}
	until(t, slowly, func() error {
		if s := l.Status(); len(s) > 0 {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
	a.intact(t, 2)
	if err := l.Set(Rule{"live", nil}); !errors.Is(err, media.ErrBadKey) {
		t.Errorf("a rule for nobody: %v", err)
	}
}

func TestNarrowest(t *testing.T) {
	l, err := New(Config{Rules: []Rule{{"*", []Rung{large}}, {"live/*", []Rung{mid}}, {"live/cam*", nil}, {"live/cam1", []Rung{small, large}}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]Rung{"other/cam1": {large}, "live/stage": {mid}, "live/cam2": nil, "live/cam1": {large, small}} {
		key, _ := media.ParseKey(name)
		if got := l.rungs(key); !slices.Equal(got, want) || !slices.Equal(l.rungs(key.Backup()), want) {
			t.Errorf("%s gets %v", name, got)
		}
	}
}

// Of the encoders that are asked for the first that works here is taken; else one in software.
func TestEncoders(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, codec string
		preferred   []string
		without     map[string]bool
		want        []string
	}{
		{"as it comes", media.H264, nil, nil, []string{"libx264"}},
		{"the first that works", media.H264, []string{"h264_nvenc", "h264_vaapi"}, nil, []string{"h264_nvenc", "h264_vaapi", "libx264"}},
		{"not for this stream", media.H264, nil, map[string]bool{"libx264": true}, []string{"libopenh264", ""}},
		{"key frames where they are told", media.AV1, nil, nil, []string{"libsvtav1", "libaom-av1"}},
		{"a codec of which none is known", media.H265, nil, nil, []string{""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := bench{preferred: c.preferred, log: slog.New(slog.NewTextHandler(t.Output(), nil))}
			e, err := b.pick(t.Context(), c.codec, c.without)
			if !slices.Contains(c.want, e.name) || (e.name == "") != errors.Is(err, ErrNoEncoder) {
				t.Errorf("%q, %v", e.name, err)
			}
		})
	}
	if _, err := New(Config{Encoders: []string{"h264_magic"}}); err == nil {
		t.Error("an encoder that nobody knows is taken")
	}
}

func TestGovernor(t *testing.T) {
	g := governor{most: 0.8, settle: takesEffect, short: shortRoom}
	at := time.Unix(1000, 0)
	for i, s := range []struct {
		after   time.Duration
		load    float64
		given   int
		want    int
		because string
	}{
		{0, 0.5, 0, 0, "all is well"},
		{time.Minute, 0.5, 0, 0, "nothing was given up"},
		{time.Second, 0.9, 0, -1, "too much"},
		{time.Second, 0.9, 1, 0, "what was done shows later"},
		{takesEffect, 0.9, 1, -1, "it was not enough"},
		{takesEffect, 0.7, 2, 0, "enough, and no room for more"},
		{time.Hour, 0.7, 2, 0, "still none"},
		{time.Second, 0.5, 2, 0, "room, for a moment"},
		{shortRoom, 0.5, 2, 1, "room for a while"},
		{takesEffect, 0.5, 1, 0, "the next one later"},
		{time.Second, 0.9, 1, -1, "that was one too many"},
		{takesEffect, 0.5, 2, 0, "room"},
		{shortRoom, 0.5, 2, 0, "it was too much the last time"},
		{shortRoom, 0.5, 2, 1, "twice as long"},
	} {
		at = at.Add(s.after)
		if got := g.step(at, s.load, true, s.given > 0); got != s.want {
			t.Errorf("step %d, %s: %d", i, s.because, got)
		}
	}
}

func TestNameOfRenditions(t *testing.T) {
	all := []Rung{large, mid, small}
	if got, err := parse(name(all)); err != nil || !slices.Equal(got, all) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "480", "480x", "x1", "481x500000", "480x1", "480x500000-", "9999998x500000", strings.Repeat("480x500000-", maxRungs) + "480x500000"} {
		if got, err := parse(bad); err == nil {
			t.Errorf("%q is %v", bad, got)
		}
	}
}
