package ladder

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"

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
	}[codec]
	args := []string{"-v", "error", "-nostdin", "-re", "-f", "lavfi", "-i", fmt.Sprintf("testsrc2=size=%dx%d:rate=30", height*16/9/2*2, height),
		"-pix_fmt", "yuv420p", "-c:v"}
	args = append(append(args, encoder...), "-b:v", fmt.Sprint(bitrate), "-maxrate", fmt.Sprint(bitrate), "-bufsize", fmt.Sprint(bitrate/2),
		"-g", fmt.Sprint(int(30*keys.Seconds())), "-packetsize", "1212", "-strict", "experimental", "-f", "rtp", "pipe:3")
	ours, theirs, err := ffmpeg.SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
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
	work.Go(func() {
		buf := make([]byte, 2000)
		var b *media.Burst
		for {
			n, err := ours.Read(buf)
			if err != nil || n == 0 {
				return
			}
			var p rtp.Packet
			if buf[1] >= 192 && buf[1] <= 223 || p.Unmarshal(buf[:n]) != nil {
				continue
			}
			if b == nil {
				b = media.NewBurst(0, p.Timestamp)
				b.Arrived = time.Now().UnixNano()
				b.Captured = b.Arrived
			}
			b.Append(p.SequenceNumber, p.Marker, p.Payload)
			if p.Marker {
				b.Arrived = time.Now().UnixNano()
				pub.Write(b)
				b = nil
			}
		}
	})
	t.Cleanup(func() { cancel(); <-ended; _ = ours.Close(); work.Wait(); pub.Close(stream.ErrStopped) })
	return pub
}

// audience takes all tracks of a stream and writes down when frames came.
type audience struct {
	mu     sync.Mutex
	tracks []media.Track
	came   map[int]map[uint32]time.Time // by track and timestamp
	keys   map[int][]uint32
	order  map[int][]uint32
	ended  error
}

func (a *audience) GOP([]*media.Burst) {}
func (a *audience) Burst(b *media.Burst) {
	a.mu.Lock()
	defer a.mu.Unlock()
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
func (a *audience) Tracks(t []media.Track) { a.tracks = t }
func (a *audience) Message(media.Message)  {}
func (a *audience) End(err error)          { a.ended = err }

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

func watch(t *testing.T, hub *stream.Hub, key media.Key) (*audience, *stream.Subscription) {
	t.Helper()
	a := &audience{came: map[int]map[uint32]time.Time{}, keys: map[int][]uint32{}, order: map[int][]uint32{}}
	sub, err := hub.Subscribe(t.Context(), key, stream.SubscribeOptions{Subscriber: a})
	if err != nil {
		t.Fatal(err)
	}
	sub.Start()
	return a, sub
}

func until(t *testing.T, within time.Duration, why func() error) {
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

func start(t *testing.T, cfg Config) *stream.Hub {
	t.Helper()
	hub := stream.NewHub(stream.Config{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	cfg.Hub, cfg.Log = hub, slog.New(slog.NewTextHandler(t.Output(), nil))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = hub.Run(ctx) })
	running.Go(func() { _ = New(cfg).Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return hub
}

var rungs = []Rung{{"360p", 360, 500_000}, {"180p", 180, 150_000}, {"1080p", 1080, 5_000_000}}

// Renditions are made of what is published: aligned with it, soon after it, none larger than it.
func TestRenditions(t *testing.T) {
	for _, codec := range []string{media.H264, media.VP8, media.VP9} {
		t.Run(codec, func(t *testing.T) {
			hub := start(t, Config{Rungs: rungs})
			key := media.Key{App: "live", ID: "camera"}
			camera(t, hub, key, codec, 540, 1_000_000, time.Second)
			a, sub := watch(t, hub, key)
			sub.Want(1, true)
			sub.Want(2, true)
			until(t, 20*time.Second, func() error {
				if one, two := a.count(1), a.count(2); one < 100 || two < 100 {
					return fmt.Errorf("%d and %d frames of the renditions", one, two)
				}
				return nil
			})
			info, _ := hub.Info(key)
			if len(info.Tracks) != 3 || info.Tracks[1].Rendition != "360p" || info.Tracks[1].Track.Height != 360 || codec == media.H264 && info.Tracks[2].Height != 180 {
				t.Errorf("tracks %+v", info.Tracks)
			}
			for track := 1; track <= 2; track++ {
				t.Logf("%s: late by %v, at most %v; %d kbit/s", info.Tracks[track].Rendition, a.late(track, 0.5), a.late(track, 1), info.Tracks[track].Bitrate/1000)
				if p50, p99 := a.late(track, 0.5), a.late(track, 0.99); p50 < 0 || p50 > 40*time.Millisecond || p99 > 150*time.Millisecond {
					t.Errorf("rendition %d comes %v after the source, at most %v", track, p50, p99)
				}
				a.mu.Lock()
				for _, ts := range a.keys[track] {
					if !slices.Contains(a.keys[0], ts) {
						t.Errorf("a key frame of rendition %d is none of the source: %d of %v", track, ts, a.keys[0])
					}
				}
				for i, ts := range a.order[track] {
					if i > 0 && int32(ts-a.order[track][i-1]) <= 0 {
						t.Errorf("frame %d of rendition %d goes back in time", i, track)
					}
					if _, ok := a.came[0][ts]; !ok {
						t.Errorf("frame %d of rendition %d is none of the source", ts, track)
					}
				}
				a.mu.Unlock()
			}
		})
	}
}
