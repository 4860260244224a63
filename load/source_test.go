package load

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/media"
)

func makeFile(t *testing.T, name, args string) string {
	t.Helper()
	needsFFmpeg(t)
	file := filepath.Join(t.TempDir(), name)
	if out, err := exec.CommandContext(t.Context(), "ffmpeg", append(strings.Fields("-v error "+args), file)...).CombinedOutput(); err != nil {
		t.Fatalf("make the file: %v: %s", err, out)
	}
	return file
}

const oneSecond = "-f lavfi -i testsrc2=size=320x240:rate=25 -f lavfi -i sine -t 1 -g 25 -c:a aac -c:v libx264 -bf 0 -profile:v main"

// A second of H.264 that could be copied goes on after its end, with pictures.
func TestPublishLoop(t *testing.T) {
	file := makeFile(t, "in.mp4", oneSecond)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := newSFU(t)
	pub, stop := context.WithCancel(ctx)
	defer stop()
	over := start(pub, PublishConfig{URL: s.url("whip"), Source: file, Loop: true, Insecure: true, Log: testLog(t)})
	s.waitPublished(ctx, t, over)
	rep, err := Play(ctx, PlayConfig{URL: s.url("whep"), Insecure: true, Duration: 4 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if v := rep.Video; v == nil || v.Frames+v.Undecodable < 80 || v.Frames < 25 || v.FPS < 15 || v.FPS > 40 || v.LongestGap > Millis(time.Second) {
		t.Errorf("four seconds of a file of one second: %+v", v)
	}
	if a := rep.Audio; a == nil || a.Frames < 120 || a.LongestGap > Millis(time.Second) {
		t.Errorf("sound: %+v", a)
	}
	stop()
	if err := <-over; err != nil {
		t.Errorf("Publish: %v", err)
	}
}

func TestPublishTellsOfTheEnd(t *testing.T) {
	file := makeFile(t, "in.mp4", oneSecond)
	t.Parallel()
	s := newSFU(t)
	var last PublishStats
	if err := Publish(t.Context(), PublishConfig{URL: s.url("whip"), Source: file, Insecure: true, Progress: func(p PublishStats) { last = p }}); err != nil {
		t.Fatal(err)
	}
	if !last.Ended || !last.Video || last.Frames != 25 {
		t.Errorf("at the end: %+v, want 25 frames", last)
	}
}

func TestStillPictureIsRefused(t *testing.T) {
	for _, c := range []struct{ name, args string }{
		{"one.png", "-f lavfi -i testsrc2=size=320x240 -frames:v 1"},
		{"one.jpg", "-f lavfi -i testsrc2=size=320x240 -frames:v 1"},
		{"one.mp4", "-f lavfi -i testsrc2=size=320x240 -frames:v 1 -c:v libx264"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := filePlan(t.Context(), &PublishConfig{Source: makeFile(t, c.name, c.args)})
			if err == nil || !strings.Contains(err.Error(), "it is a still picture") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// A pipe that nobody writes to is a file that does not answer.
func TestProbeThatTakesTooLong(t *testing.T) {
	needsFFmpeg(t)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := probe(t.Context(), pipe, 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), "could not tell within 50ms") {
		t.Errorf("at the limit: %v", err)
	}
	why := errors.New("a signal came")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
	if _, _, err := probe(ctx, pipe, time.Minute); !errors.Is(err, why) || strings.Contains(err.Error(), "no media file") {
		t.Errorf("at the end of the context: %v", err)
	}
}

// FFmpeg has nothing to write in this test, so nothing but the signal tells it that we are gone.
func TestFFmpegEndsWithUs(t *testing.T) {
	needsFFmpeg(t)
	const variable = "SLUICE_LOAD_ABANDON_FFMPEG"
	if os.Getenv(variable) != "" {
		f, err := startFeed(t.Context(), &plan{
			input:  []string{"-re", "-f", "lavfi", "-i", "testsrc2,select=0"},
			output: map[media.Kind][]string{media.Video: {"-map", "0:v", "-c:v", "libx264"}},
			tracks: []media.Track{h264Track("42e01f")}})
		if err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("pid " + strconv.Itoa(f.cmd.Process.Pid) + "\n")
		os.Exit(130)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFFmpegEndsWithUs$")
	cmd.Env = append(os.Environ(), variable+"=1")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 130 {
		t.Fatalf("%v: %s", err, out)
	}
	_, after, _ := bytes.Cut(out, []byte("pid "))
	pid, err := strconv.Atoi(strings.TrimSpace(string(after)))
	if err != nil {
		t.Fatalf("%q is no pid", out)
	}
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(5 * time.Second); runs(pid); <-poll.C {
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("ffmpeg (pid %d) runs on after its parent", pid)
		}
	}
}

// runs tells whether a process is there, and no zombie that nobody collects.
func runs(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, after, _ := bytes.Cut(stat, []byte(") "))
	return err == nil && !bytes.HasPrefix(after, []byte("Z"))
}
