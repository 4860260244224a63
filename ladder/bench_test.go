package ladder

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"

	"sluice/internal/ffmpeg"
	"sluice/internal/usage"
	"sluice/media"
	"sluice/stream"
)

// The ladder that is measured, of a source of 720p30 with 2.5 Mbit/s.
var measured = []Rung{{"720p", 720, 1_500_000}, {"480p", 480, 800_000}, {"240p", 240, 400_000}}

// film encodes a moving picture with noise, as a camera has, into a file, which stays for the next time.
func film(b *testing.B, height, seconds int, bitrate string) string {
	b.Helper()
	name := filepath.Join(os.TempDir(), fmt.Sprintf("sluice-bench-%dp-%s-%ds.mkv", height, bitrate, seconds))
	if _, err := os.Stat(name); err == nil {
		return name
	}
	run(b, "-f", "lavfi", "-i", fmt.Sprintf("testsrc2=size=%dx%d:rate=30,noise=alls=8:allf=t", height*16/9, height), "-t", fmt.Sprint(seconds),
		"-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "superfast", "-tune", "zerolatency", "-profile:v", "baseline",
		"-b:v", bitrate, "-maxrate", bitrate, "-bufsize", bitrate, "-g", "60", "-f", "matroska", name)
	return name
}

func run(b *testing.B, args ...string) {
	b.Helper()
	if out, err := exec.CommandContext(b.Context(), "ffmpeg", append([]string{"-v", "error", "-nostdin", "-y"}, args...)...).CombinedOutput(); err != nil {
		b.Fatalf("ffmpeg: %v: %s", err, out)
	}
}

// packets are those of a film, as bursts of one frame.
func packets(b *testing.B, name string) (frames []*media.Burst) {
	b.Helper()
	ours, theirs, err := ffmpeg.SocketPair()
	if err != nil {
		b.Fatal(err)
	}
	defer ours.Close()
	cmd := exec.CommandContext(b.Context(), "ffmpeg", "-v", "error", "-nostdin", "-i", name, "-c", "copy", "-bsf:v", "h264_mp4toannexb", "-packetsize", "1212", "-f", "rtp", "pipe:3")
	cmd.ExtraFiles = []*os.File{theirs}
	ended, err := ffmpeg.Start(cmd)
	_ = theirs.Close()
	if err != nil {
		b.Fatal(err)
	}
	var now *media.Burst
	for buf := make([]byte, 2000); ; {
		n, err := ours.Read(buf)
		if err != nil || n == 0 {
			break
		}
		var p rtp.Packet
		if buf[1] >= 192 && buf[1] <= 223 || p.Unmarshal(buf[:n]) != nil {
			continue
		}
		if now == nil {
			now = media.NewBurst(0, p.Timestamp)
			frames = append(frames, now)
		}
		if now.Append(p.SequenceNumber, p.Marker, p.Payload); p.Marker {
			now = nil
		}
	}
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	return frames
}

// play publishes frames at 30 a second, again and again, until ctx ends.
func play(ctx context.Context, b *testing.B, hub *stream.Hub, frames []*media.Burst) {
	track := media.Track{Kind: media.Video, Codec: media.Codec{Name: media.H264, ClockRate: 90000, Fmtp: "packetization-mode=1;profile-level-id=42e01f"}}
	pub, err := hub.Publish(ctx, key, stream.PublishOptions{Tracks: []media.Track{track}})
	if err != nil {
		b.Error(err)
		return
	}
	defer pub.Close(stream.ErrStopped)
	tick := time.NewTicker(time.Second / 30)
	defer tick.Stop()
	seq := uint16(0)
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		f := frames[n%len(frames)]
		c := media.NewBurst(0, uint32(n)*3000)
		c.Arrived = time.Now().UnixNano()
		c.Captured = c.Arrived
		for _, p := range f.Packets {
			c.Append(seq, p.Marker, p.Payload)
			seq++
		}
		pub.Write(c)
	}
}

// seconds are those of processors that a process has used.
func seconds(b *testing.B, pid int) float64 {
	b.Helper()
	u, err := usage.Of(pid)
	if err != nil {
		b.Fatal(err)
	}
	return u.CPU
}

const (
	settling = 4 * time.Second // until all run as they go on
	// The machine may be busy with other things now and then: of so many windows the median counts.
	windows = 8
	window  = 4 * time.Second
)

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// BenchmarkLadder is what the ladder costs over the same FFmpeg with a file as its input and nobody at its outputs, which runs beside it at the same time,
// and how much later renditions come than their source:
//
//	go test -run '^$' -bench Ladder -benchtime 1x ./ladder
func BenchmarkLadder(b *testing.B) {
	name := film(b, 720, 40, "2500k")
	frames := packets(b, name)
	serve := func(do func(hub *stream.Hub, l *Ladder), rules ...Rule) {
		log := slog.New(slog.NewTextHandler(b.Output(), nil))
		hub := stream.NewHub(stream.Config{Log: log})
		l, err := New(Config{Hub: hub, Rules: rules, Log: log})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { _ = hub.Run(ctx) })
		running.Go(func() { _ = l.Run(ctx) })
		running.Go(func() { play(ctx, b, hub, frames) })
		defer func() { cancel(); running.Wait() }()
		until(b, slowly, func() error {
			if i, _ := hub.Info(key); !i.Flowing || len(i.Tracks) < 1+len(rules)*len(measured) {
				return fmt.Errorf("tracks %v", i.Tracks)
			}
			return nil
		})
		do(hub, l)
	}
	var without float64 // of this process, a second
	own := func() float64 { return usage.Own().CPU }
	serve(func(hub *stream.Hub, _ *Ladder) {
		watch(b, hub, key)
		<-time.After(settling)
		before := own()
		<-time.After(windows * window)
		without = (own() - before) / (windows * window).Seconds()
	})
	serve(func(hub *stream.Hub, l *Ladder) {
		a, sub := watch(b, hub, key)
		for i := range measured {
			sub.Want(1+i, true)
		}
		child := pid(b, l)
		bare := bareJob(b, measured, media.H264, "superfast").bare(b, name, true)
		<-time.After(settling)
		a.forget()
		var over, ours, theirs, beside []float64
		for range windows {
			o, c, r := own(), seconds(b, child), seconds(b, bare.Process.Pid)
			<-time.After(window)
			o, c, r = (own()-o)/window.Seconds()-without, (seconds(b, child)-c)/window.Seconds(), (seconds(b, bare.Process.Pid)-r)/window.Seconds()
			over, ours, theirs, beside = append(over, 100*((c+o)/r-1)), append(ours, c), append(theirs, r), append(beside, o)
		}
		_ = bare.Process.Kill()
		_ = bare.Wait()
		b.ReportMetric(median(theirs), "bare-cores")
		b.ReportMetric(median(ours), "child-cores")
		b.ReportMetric(median(beside), "node-cores")
		b.ReportMetric(median(over), "over-%")
		for i, rung := range measured {
			b.ReportMetric(a.late(1+i, 0.5).Seconds()*1000, rung.Name+"-p50-ms")
			b.ReportMetric(a.late(1+i, 0.99).Seconds()*1000, rung.Name+"-p99-ms")
		}
	}, Rule{"*", measured})
}

// forget begins to count anew.
func (a *audience) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.came, a.order = map[int]map[uint32]time.Time{}, map[int][]uint32{}
}

// bareJob knows the arguments for rungs.
func bareJob(b *testing.B, rungs []Rung, codec, preset string) *job {
	b.Helper()
	l, err := New(Config{Preset: preset, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	e, err := l.bench.pick(b.Context(), codec, nil)
	if err != nil {
		b.Skip(err)
	}
	return &job{ladder: l, rungs: rungs, encoder: e}
}

// bare starts FFmpeg as the ladder does, but that it reads a file, in its own time or as fast as it can, and nobody takes what it makes.
func (j *job) bare(b *testing.B, name string, paced bool) *exec.Cmd {
	b.Helper()
	args, outputs := j.arguments(1<<len(j.rungs) - 1)
	if paced {
		args = slices.Insert(args, slices.Index(args, "-f"), "-re")
	}
	cmd := exec.CommandContext(b.Context(), "ffmpeg", args...)
	in, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	cmd.Stdin = in
	for range outputs {
		null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			b.Fatal(err)
		}
		defer null.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, null)
	}
	if err := cmd.Start(); err != nil {
		b.Skip(err)
	}
	return cmd
}

// BenchmarkRung is what one rendition costs, and the ladder of three, with the decoder: processors for a stream, and streams for a processor.
func BenchmarkRung(b *testing.B) {
	const length = 10
	full, hd := film(b, 1080, length, "4500k"), film(b, 720, length, "2500k")
	bench := func(title, source string, rungs []Rung, codec, preset string) {
		b.Run(title, func(b *testing.B) {
			cmd := bareJob(b, rungs, codec, preset).bare(b, source, false)
			if err := cmd.Wait(); err != nil {
				b.Fatal(err)
			}
			cores := (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds() / length
			b.ReportMetric(cores, "cores")
			b.ReportMetric(1/cores, "streams/core")
		})
	}
	for _, preset := range []string{"ultrafast", "superfast", "veryfast"} {
		bench("1080p/"+preset, full, []Rung{{"1080p", 1080, 2_500_000}}, media.H264, preset)
		for _, r := range measured {
			bench(r.Name+"/"+preset, hd, []Rung{r}, media.H264, preset)
		}
		bench("720p+480p+240p/"+preset, hd, measured, media.H264, preset)
	}
	for _, codec := range []string{media.VP8, media.VP9, media.AV1} {
		bench("480p/"+codec, hd, measured[1:2], codec, "")
	}
}
