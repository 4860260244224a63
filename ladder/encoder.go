package ladder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/internal/ffmpeg"
	"sluice/media"
)

// encoder is one of FFmpeg's, and how it is told that no frame may wait for another.
type encoder struct {
	name, codec string
	hardware    bool
	device      []string // options before the input
	upload      string   // filter that brings pictures to the device
	options     func(preset string) []string
}

func plain(options ...string) func(string) []string { return func(string) []string { return options } }

// encoders are all that are known, those that are taken unasked in the order in which they are tried.
func encoders() []encoder {
	x264 := func(preset string) []string {
		return []string{"-preset", preset, "-tune", "zerolatency", "-profile:v", "baseline", "-sc_threshold", "0", "-forced-idr", "1"}
	}
	vpx := plain("-deadline", "realtime", "-cpu-used", "8", "-lag-in-frames", "0", "-error-resilient", "1", "-auto-alt-ref", "0")
	nvenc := plain("-preset", "p2", "-tune", "ull", "-zerolatency", "1", "-forced-idr", "1", "-delay", "0")
	vaapi := []string{"-vaapi_device", "/dev/dri/renderD128"}
	return []encoder{
		{name: "libx264", codec: media.H264, options: x264},
		{name: "libopenh264", codec: media.H264, options: plain("-profile:v", "constrained_baseline", "-allow_skip_frames", "1", "-rc_mode", "bitrate")},
		{name: "libvpx", codec: media.VP8, options: vpx},
		{name: "libvpx-vp9", codec: media.VP9, options: vpx},
		{name: "libsvtav1", codec: media.AV1, options: plain("-preset", "12", "-svtav1-params", "pred-struct=1:rc=2:lp=1")},
		{name: "libaom-av1", codec: media.AV1, options: plain("-usage", "realtime", "-cpu-used", "8", "-lag-in-frames", "0")},
		{name: "h264_nvenc", codec: media.H264, hardware: true, options: plain(append(nvenc(""), "-profile:v", "baseline")...)},
		{name: "h264_qsv", codec: media.H264, hardware: true, upload: "format=nv12", options: plain("-preset", "veryfast", "-async_depth", "1", "-low_power", "1", "-forced_idr", "1", "-profile:v", "baseline")},
		{name: "h264_vaapi", codec: media.H264, hardware: true, device: vaapi, upload: "format=nv12,hwupload", options: plain("-async_depth", "1", "-profile:v", "constrained_baseline")},
		{name: "vp8_vaapi", codec: media.VP8, hardware: true, device: vaapi, upload: "format=nv12,hwupload", options: plain("-async_depth", "1")},
		{name: "vp9_vaapi", codec: media.VP9, hardware: true, device: vaapi, upload: "format=nv12,hwupload", options: plain("-async_depth", "1")},
		{name: "vp9_qsv", codec: media.VP9, hardware: true, upload: "format=nv12", options: plain("-async_depth", "1", "-low_power", "1")},
		{name: "av1_nvenc", codec: media.AV1, hardware: true, options: nvenc},
	}
}

// tuning is what an encoder is told for a rung. A key frame is at most as large as five others, so that a path that takes the rendition has no
// queue of it.
func (e encoder) tuning(r Rung, preset string) []string {
	args := []string{"-c:v", e.name, "-b:v", fmt.Sprint(r.Bitrate)}
	if e.name != "libsvtav1" { // which takes no buffer's size with its constant bit rate
		args = append(args, "-maxrate", fmt.Sprint(r.Bitrate), "-bufsize", fmt.Sprint(r.Bitrate/6), "-bf", "0")
	}
	return append(append(args, "-g", "9999"), e.options(preset)...)
}

// CheckEncoder refuses a name of which nothing is known here.
func CheckEncoder(name string) error {
	var names []string
	for _, e := range encoders() {
		names = append(names, e.name)
	}
	if !slices.Contains(names, name) {
		return fmt.Errorf("encoder %q is none of %s", name, strings.Join(names, ", "))
	}
	return nil
}

// ErrNoEncoder: there is none on this machine for the stream's codec.
var ErrNoEncoder = errors.New("no encoder works for the stream's codec")

const (
	trialWithin = 10 * time.Second
	// A machine that had no encoder is asked again after a while: somebody may have installed one.
	trialAgain = time.Minute
)

// bench tries which encoders work on this machine.
type bench struct {
	preferred []string
	log       *slog.Logger

	mu    sync.Mutex
	known map[string]trial // by encoder
}

type trial struct {
	at  time.Time
	err error
}

// pick returns the first encoder of a codec that works, but for those that are not wanted: of those that the operator prefers, then of all in software.
func (b *bench) pick(ctx context.Context, codec string, without map[string]bool) (encoder, error) {
	var candidates []encoder
	all := encoders()
	for _, name := range b.preferred {
		candidates = append(candidates, all[slices.IndexFunc(all, func(e encoder) bool { return e.name == name })])
	}
	for _, e := range all {
		if !e.hardware && !slices.Contains(b.preferred, e.name) {
			candidates = append(candidates, e)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	why := ErrNoEncoder
	for _, e := range candidates {
		if !(media.Codec{Name: e.codec}).Is(codec) || without[e.name] {
			continue
		}
		err := b.tryLocked(ctx, e)
		if err == nil {
			return e, nil
		}
		why = fmt.Errorf("%w: %s: %w", ErrNoEncoder, e.name, err)
	}
	return encoder{}, why
}

// tryLocked encodes some frames, or knows what came of it.
func (b *bench) tryLocked(ctx context.Context, e encoder) error {
	if t, ok := b.known[e.name]; ok && (t.err == nil || time.Since(t.at) < trialAgain) {
		return t.err
	}
	ctx, cancel := context.WithTimeout(ctx, trialWithin)
	defer cancel()
	err := e.try(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if b.known == nil {
		b.known = map[string]trial{}
	}
	b.known[e.name] = trial{time.Now(), err}
	if err != nil {
		b.log.Warn("an encoder can't be used here: the next one is tried", "encoder", e.name, "reason", err)
	}
	return err
}

func (e encoder) try(ctx context.Context) error {
	list, err := ffmpeg.Output(exec.CommandContext(ctx, "ffmpeg", "-hide_banner", "-encoders"))
	if err != nil {
		return ffmpeg.Need(err)
	}
	if !slices.ContainsFunc(strings.Split(string(list), "\n"), func(line string) bool {
		f := strings.Fields(line) // flags, name, description
		return len(f) > 1 && f[1] == e.name
	}) {
		return errors.New("this FFmpeg was built without it")
	}
	args := append([]string{"-hide_banner", "-nostdin", "-loglevel", "error"}, e.device...)
	args = append(args, "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=30", "-frames:v", "4", "-vf", "format=yuv420p"+e.toDevice(), "-threads", "1")
	args = append(append(args, e.tuning(Rung{"240p", 240, 400_000}, "ultrafast")...), "-force_key_frames", "expr:eq(n,2)", "-strict", "experimental", "-f", "framecrc", "-")
	cmd := exec.CommandContext(ctx, "ffmpeg", args...)
	var said ffmpeg.Tail
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &said, time.Second
	ended, err := ffmpeg.Start(cmd)
	if err != nil {
		return ffmpeg.Need(err)
	}
	if err := <-ended; err != nil {
		return fmt.Errorf("trial frames failed: %w: %s", err, said.String())
	}
	var keys []bool
	for line := range strings.Lines(out.String()) { // of a frame that is no key frame the flags are told
		if !strings.HasPrefix(line, "#") {
			keys = append(keys, !strings.Contains(line, "F=0x"))
		}
	}
	if !slices.Equal(keys, []bool{true, false, true, false}) {
		return fmt.Errorf("it makes no key frames where it is told to: %v", keys)
	}
	return nil
}

// toDevice is the end of a filter chain.
func (e encoder) toDevice() string {
	if e.upload == "" {
		return ""
	}
	return "," + e.upload
}
