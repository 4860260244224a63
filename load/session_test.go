package load

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

func needsFFmpeg(t *testing.T) {
	t.Helper()
	for _, p := range []string{"ffmpeg", "ffprobe"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip("needs ffmpeg: apt-get install ffmpeg")
		}
	}
}

type probed struct {
	Streams []struct {
		Type   string `json:"codec_type"`
		Codec  string `json:"codec_name"`
		Width  int    `json:"width"`
		Height int    `json:"height"`
		Frames string `json:"nb_read_frames"`
		Rate   string `json:"sample_rate"`
	}
	Format struct {
		Name     string `json:"format_name"`
		Duration string `json:"duration"`
	}
}

// ffprobe decodes the whole file: errors on the way show.
func ffprobe(t *testing.T, path string) probed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "ffprobe", "-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json", path)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil || said.Len() > 0 {
		t.Fatalf("ffprobe %s: %v: %s", path, err, said.String())
	}
	var p probed
	if err := json.Unmarshal(out, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

func number(t *testing.T, s string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatalf("ffprobe's %q is no number", s)
	}
	return v
}

// testLog shows the story when a test fails.
func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func start(ctx context.Context, cfg PublishConfig) <-chan error {
	over := make(chan error, 1)
	go func() { over <- Publish(ctx, cfg) }()
	return over
}

func TestTestPatternArrivesInAFile(t *testing.T) {
	needsFFmpeg(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := newSFU(t)
	s.token = "secret"
	pub, stop := context.WithCancel(ctx)
	defer stop()
	figures := make(chan PublishStats, 100)
	over := start(pub, PublishConfig{URL: s.url("whip"), Source: TestPattern, Token: "secret", Insecure: true, Log: testLog(t),
		Width: 640, Height: 360, FPS: 30, Bitrate: 1_000_000, Progress: func(p PublishStats) { figures <- p }})
	s.waitPublished(ctx, t, over)

	out := filepath.Join(t.TempDir(), "out.mkv")
	seen := 0
	rep, err := Play(ctx, PlayConfig{URL: s.url("whep"), Token: "secret", Insecure: true, Duration: 4 * time.Second, Out: out, Log: testLog(t),
		Progress: func(p PlayStats) { seen++ }})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("report:\n%s", rep)
	if v := rep.Video; v == nil || v.Codec != "H264" || v.Width != 640 || v.Height != 360 || v.Lost != 0 || v.Damaged != 0 {
		t.Errorf("video: %+v", v)
	} else {
		// The encoder runs beside other tests, so arrivals are as the machine lets them; the file's own time is exact.
		if v.FPS < 15 || v.FPS > 40 {
			t.Errorf("%.2f frames a second, want about 30", v.FPS)
		}
		// Ahead: a few at the start, when the machine is so busy that all of the first frames were late.
		if l := v.Latency; l.Frames < 60 || l.Ahead > 10 || l.P50 <= 0 || l.P50 > Millis(2*time.Second) {
			t.Errorf("latency: %+v", l)
		}
		if v.KeyFrames < 2 || v.KeyFrames > 6 {
			t.Errorf("%d key frames in 4 s, want about one a second", v.KeyFrames)
		}
	}
	if a := rep.Audio; a == nil || a.Codec != "opus" || a.FPS < 25 || a.FPS > 65 || a.Lost != 0 {
		t.Errorf("audio: %+v", a)
	}
	if rep.FirstPacket <= 0 || rep.FirstFrame < rep.FirstPacket || rep.FirstFrame > Millis(10*time.Second) {
		t.Errorf("first packet after %s, first frame after %s", rep.FirstPacket, rep.FirstFrame)
	}
	if seen < 2 {
		t.Errorf("progress was told %d times in 4 s", seen)
	}
	checkFile(t, out, rep)

	stop()
	if err := <-over; err != nil {
		t.Errorf("Publish: %v", err)
	}
	var last PublishStats
	for len(figures) > 0 {
		last = <-figures
	}
	if !last.Connected || last.Sessions != 1 || last.FPS < 5 || last.RTT <= 0 || last.Bitrate < 100_000 {
		t.Errorf("publisher's figures: %+v", last)
	}
	if s.deleted != 2 {
		t.Errorf("%d sessions were deleted, want the viewer's and the publisher's", s.deleted)
	}
}

func checkFile(t *testing.T, path string, rep PlayReport) {
	t.Helper()
	p := ffprobe(t, path)
	if len(p.Streams) != 2 || p.Streams[0].Codec != "h264" || p.Streams[1].Codec != "opus" {
		t.Fatalf("the file has %+v", p.Streams)
	}
	if v := p.Streams[0]; v.Width != 640 || v.Height != 360 {
		t.Errorf("the file's picture is %dx%d", v.Width, v.Height)
	}
	// It begins with the first key frame, up to a second after the first packet.
	d := number(t, p.Format.Duration)
	if d < 1.5 || d > 4.5 {
		t.Errorf("the file's length is %.2f s, want about 3 to 4", d)
	}
	if n := number(t, p.Streams[0].Frames); n/d < 28 || n/d > 32 || n > float64(rep.Video.Frames) {
		t.Errorf("the file has %.0f frames in %.2f s; %d were complete", n, d, rep.Video.Frames)
	}
	if n := number(t, p.Streams[1].Frames); n/d < 45 || n/d > 55 {
		t.Errorf("the file has %.0f packets of sound in %.2f s", n, d)
	}
}

func TestPublishAgain(t *testing.T) {
	needsFFmpeg(t)
	t.Parallel()
	for _, c := range []struct {
		name string
		fail func(*sfu, *testing.T)
	}{
		{"after the server ended the session", func(s *sfu, _ *testing.T) { s.dropPublisher() }},
		{"after the server fell silent", func(s *sfu, t *testing.T) { s.blackout(t) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			s := newSFU(t)
			pub, stop := context.WithCancel(ctx)
			defer stop()
			over := start(pub, PublishConfig{URL: s.url("whip"), Source: TestPattern, Insecure: true, Log: testLog(t), Width: 320, Height: 180, Bitrate: 200_000})
			s.waitPublished(ctx, t, over)
			c.fail(s, t)
			s.waitPublished(ctx, t, over)
			rep, err := Play(ctx, PlayConfig{URL: s.url("whep"), Insecure: true, Duration: 2 * time.Second})
			if err != nil || rep.Video == nil || rep.Video.FPS < 5 {
				t.Errorf("after the second publishing: %v, %+v", err, rep.Video)
			}
			stop()
			if err := <-over; err != nil {
				t.Errorf("Publish: %v", err)
			}
		})
	}
}

// A server that was killed sends nothing, not even an end. One that tells that it no longer has the session is left at once. What others
// answer to the question says nothing: then ICE finds out after 5 s.
func TestASilentServerIsAsked(t *testing.T) {
	needsFFmpeg(t)
	t.Parallel()
	const between = 4 * time.Second // 1 s and 5 s
	for _, c := range []struct {
		name  string
		tells bool
	}{{"it tells", true}, {"it does not know the question", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			s := newSFU(t)
			s.tells = c.tells
			pub, stop := context.WithCancel(ctx)
			over := start(pub, PublishConfig{URL: s.url("whip"), Source: TestPattern, Insecure: true, Log: testLog(t), Width: 320, Height: 180, Bitrate: 200_000})
			defer func() { stop(); <-over }()
			s.waitPublished(ctx, t, over)
			silent := false
			rep, err := Play(ctx, PlayConfig{URL: s.url("whep"), Insecure: true, Duration: 8 * time.Second, Wait: 20 * time.Second, Log: testLog(t),
				Progress: func(p PlayStats) {
					if !silent && p.Frames > 20 {
						silent = true
						s.blackout(t)
					}
				}})
			if err != nil || rep.Reconnections != 1 {
				t.Fatalf("%v, %d reconnections", err, rep.Reconnections)
			}
			s.waitPublished(ctx, t, over)
			if gap := time.Duration(rep.Video.LongestGap); gap < between != c.tells {
				t.Errorf("publisher and viewer were back after %s", gap)
			}
		})
	}
}

// Not parallel: no other test runs while this one counts.
func TestNothingIsLeftBehind(t *testing.T) {
	needsFFmpeg(t)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	before := runtime.NumGoroutine()
	t.Run("session", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s := newSFU(t)
		pub, stop := context.WithCancel(ctx)
		defer stop()
		over := start(pub, PublishConfig{URL: s.url("whip"), Source: TestPattern, Insecure: true, Width: 320, Height: 180})
		s.waitPublished(ctx, t, over)
		if _, err := Play(ctx, PlayConfig{URL: s.url("whep"), Insecure: true, Duration: 200 * time.Millisecond}); err != nil {
			t.Error(err)
		}
		stop()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; <-poll.C {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("files were left: %v, %v", left, err)
	}
}

func TestPublishFileUntilItsEnd(t *testing.T) {
	needsFFmpeg(t)
	t.Parallel()
	for _, c := range []struct{ name, codec string }{
		{"copied", "libx264 -bf 0 -profile:v main"},
		{"encoded for its reordered frames", "libx264 -bf 2"},
		{"encoded for its codec", "mpeg4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			file := filepath.Join(t.TempDir(), "in put.mp4")
			args := strings.Fields("-v error -f lavfi -i testsrc2=size=320x240:rate=25 -f lavfi -i sine -t 3 -g 25 -c:a aac -c:v " + c.codec)
			if out, err := exec.CommandContext(ctx, "ffmpeg", append(args, file)...).CombinedOutput(); err != nil {
				t.Fatalf("make the file: %v: %s", err, out)
			}
			s := newSFU(t)
			over := start(ctx, PublishConfig{URL: s.url("whip"), Source: file, Insecure: true, Log: testLog(t)})
			s.waitPublished(ctx, t, over)
			out := filepath.Join(t.TempDir(), "out.mkv")
			watch, stop := context.WithCancel(ctx)
			defer stop()
			done := make(chan struct{})
			var rep PlayReport
			var err error
			go func() {
				defer close(done)
				rep, err = Play(watch, PlayConfig{URL: s.url("whep"), Insecure: true, Out: out, Log: testLog(t)})
			}()
			if err := <-over; err != nil {
				t.Fatalf("Publish: %v", err)
			}
			stop()
			<-done
			if err != nil {
				t.Fatal(err)
			}
			v := rep.Video
			if v == nil || v.Width != 320 || v.Height != 240 || v.Lost != 0 || v.FPS < 10 || v.FPS > 60 || v.Latency.Ahead > v.Frames/4 {
				t.Fatalf("video: %+v", v)
			}
			if p := ffprobe(t, out); len(p.Streams) != 2 {
				t.Errorf("the file has %+v", p.Streams)
			}
		})
	}
}

func TestPublishRefusals(t *testing.T) {
	needsFFmpeg(t)
	s := newSFU(t)
	s.token = "secret"
	for _, c := range []struct {
		name string
		cfg  PublishConfig
		want string
	}{
		{"no token", PublishConfig{URL: s.url("whip"), Source: TestPattern, Insecure: true}, "unauthorized: this stream needs a token (HTTP 401): give a token that allows this with --token"},
		{"certificate", PublishConfig{URL: s.url("whip"), Source: TestPattern}, "--insecure"},
		{"no such file", PublishConfig{URL: s.url("whip"), Source: "/nowhere.mp4", Insecure: true}, `open "/nowhere.mp4": no such file or directory`},
		{"no media file", PublishConfig{URL: s.url("whip"), Source: "publish.go", Insecure: true}, "no media file that ffmpeg knows"},
		{"nothing", PublishConfig{URL: s.url("whip")}, "nothing to publish"},
		{"odd picture", PublishConfig{URL: s.url("whip"), Source: TestPattern, Width: 641}, "can't be encoded"},
		{"wrong scheme", PublishConfig{URL: "live/stream1", Source: TestPattern}, "http://"},
		{"no server", PublishConfig{URL: "http://127.0.0.1:1/live/whip/s", Source: TestPattern}, "is the server running?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Publish(t.Context(), c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %q", err, c.want)
			}
		})
	}
}

func TestPlayOfAnOfflineStream(t *testing.T) {
	s := newSFU(t)
	out := filepath.Join(t.TempDir(), "out.mkv")
	_, err := Play(t.Context(), PlayConfig{URL: s.url("whep"), Insecure: true, Out: out})
	var r *Refused
	if !errors.As(err, &r) || r.Code != "stream_offline" || r.Status != 404 {
		t.Fatalf("error %v, want a refusal with stream_offline", err)
	}
	if want := "stream_offline: nobody publishes live/s (HTTP 404): publish it first"; !strings.Contains(err.Error(), want) {
		t.Errorf("error %q does not say %q", err, want)
	}
	if m, _ := filepath.Glob(out); m != nil {
		t.Error("an empty file was left")
	}
	if _, err := Play(t.Context(), PlayConfig{URL: s.url("whep"), Out: "/nowhere/out.mkv"}); err == nil || !strings.Contains(err.Error(), "/nowhere/out.mkv") {
		t.Errorf("a file that can't be made: %v", err)
	}
}

func TestPlayTellsThatTheServerEndedTheSession(t *testing.T) {
	needsFFmpeg(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := newSFU(t)
	pub, stop := context.WithCancel(ctx)
	over := start(pub, PublishConfig{URL: s.url("whip"), Source: TestPattern, Insecure: true, Log: testLog(t), Width: 320, Height: 180})
	defer func() { stop(); <-over }()
	s.waitPublished(ctx, t, over)
	rep, err := Play(ctx, PlayConfig{URL: s.url("whep"), Insecure: true, Progress: func(p PlayStats) {
		if p.Frames > 0 {
			s.dropViewers()
		}
	}})
	if !errors.Is(err, ErrEnded) {
		t.Errorf("error %v, want ErrEnded", err)
	}
	if rep.Video == nil || rep.Video.Frames == 0 || rep.Duration <= 0 {
		t.Errorf("the report does not tell of the time before: %+v", rep)
	}
}
