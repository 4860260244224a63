package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/image/font/gofont/gomono"

	"sluice/internal/ffmpeg"
	"sluice/media"
)

// TestPattern is the source that needs no file: a moving picture with the wall clock in it and a
// beep each second.
const TestPattern = "test-pattern"

// Key frames can't be asked of a running FFmpeg, so they come by themselves: often where
// we make the picture, as often as browsers' players like it where we encode a file.
const (
	patternKeyFrames = time.Second
	fileKeyFrames    = 2 * time.Second
)

// Looking at a file is a matter of milliseconds, unless its disk or what it is a pipe of does not answer.
const probeTimeout = 10 * time.Second

// Frames keep their own time on the way through FFmpeg, instead of being fitted to a fixed rate.
func keepTime() []string { return []string{"-fps_mode", "passthrough", "-enc_time_base", "1:90000"} }

func planSource(ctx context.Context, cfg *PublishConfig) (*plan, error) {
	if cfg.Source == TestPattern {
		return patternPlan(cfg, time.Now()), nil
	}
	return filePlan(ctx, cfg)
}

// patternPlan: timestamps count from a whole second of the wall clock, shortly before now. So the clock in the
// picture, the beep and what the sender reports say are the same, and right: FFmpeg makes a frame when its time has
// come (-re), or a little later, so that the least that a frame was late (RTCTIME - T) tells when it began. The first ones,
// which wait for the encoder to be set up, are left out.
func patternPlan(cfg *PublishConfig, now time.Time) *plan {
	start := now.Truncate(time.Second)
	least := "st(0,if(N,min(ld(0),RTCTIME-T*1000000),RTCTIME-T*1000000))"
	at := fmt.Sprintf("(T+(ld(0)-%d)/1000000)/TB", start.UnixMicro())
	const settle = 0.3 // seconds
	frames, samples := int(settle*float64(cfg.FPS)+1), int(settle*48000)
	stamp := func(settled int) string { // time never goes back in what is shown
		return fmt.Sprintf("setpts='%s;if(gt(N,%d),max(PREV_OUTPTS+1,%s),%s)'", least, settled, at, at)
	}
	midnight := time.Date(start.Year(), start.Month(), start.Day(), 0, 0, 0, 0, start.Location())
	clock := fmt.Sprintf(`%%{pts\:hms\:%d\:24HH}`, int(start.Sub(midnight).Seconds()))
	size := max(12, cfg.Height/8)
	video := []string{stamp(frames), fmt.Sprintf("trim=start_frame=%d", frames),
		fmt.Sprintf("drawtext=fontfile=%s:fontsize=%d:x=(w-tw)/2:y=(h-th)/2:fontcolor=white:box=1:boxcolor=black@0.75:boxborderw=%d:text='%s'", attachment(2), size, size/4, clock),
		"format=yuv420p"}
	// 1 kHz for the first tenth of each second.
	beep := "a" + stamp(samples) + fmt.Sprintf(",atrim=start_sample=%d", samples) + `,aeval='0.25*sin(2*PI*1000*t)*lt(mod(t\,1)\,0.1)':c=same`
	lavfi := []string{"-re", "-probesize", "32", "-analyzeduration", "0", "-f", "lavfi", "-i"}
	return &plan{
		name: fmt.Sprintf("test pattern %dx%d at %d frames a second", cfg.Width, cfg.Height, cfg.FPS),
		input: slices.Concat(
			lavfi, []string{fmt.Sprintf("testsrc2=size=%dx%d:rate=%d", cfg.Width, cfg.Height, cfg.FPS)},
			lavfi, []string{"anullsrc=r=48000:cl=stereo:n=480"}),
		output: map[media.Kind][]string{
			media.Video: slices.Concat([]string{"-map", "0:v", "-vf", strings.Join(video, ",")}, encodeH264(cfg, "ultrafast", patternKeyFrames)),
			media.Audio: slices.Concat([]string{"-map", "1:a", "-af", beep}, encodeOpus()),
		},
		tracks: []media.Track{h264Track("42e01f"), opusTrack()},
		attach: gomono.TTF,
		start:  start, live: true,
	}
}

func filePlan(ctx context.Context, cfg *PublishConfig) (*plan, error) {
	path, err := filepath.Abs(cfg.Source)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", cfg.Source, err)
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open %q: %w: give a media file, or %s", cfg.Source, errors.Unwrap(err), TestPattern)
	}
	video, audio, err := probe(ctx, path, probeTimeout)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", cfg.Source, err)
	}
	p := &plan{input: []string{"-re"}, output: map[media.Kind][]string{}, name: filepath.Base(path), start: time.Now()}
	if cfg.Loop {
		p.input = append(p.input, "-stream_loop", "-1")
	}
	p.input = append(p.input, "-i", "file:"+path)
	if video != nil {
		args := []string{"-map", "0:V:0"}
		profile := video.copyProfile()
		if cfg.Loop {
			profile = "" // copied frames come with the file's own times again, so nothing would be sent after the first pass
		}
		if profile != "" {
			args = append(args, "-c:v", "copy", "-bsf:v", "h264_mp4toannexb")
		} else {
			profile = "42e01f"
			args = append(args, "-vf", "scale=trunc(iw/2)*2:trunc(ih/2)*2,format=yuv420p")
			args = append(args, encodeH264(cfg, "veryfast", fileKeyFrames)...)
		}
		p.output[media.Video] = args
		p.tracks = append(p.tracks, h264Track(profile))
	}
	if audio != nil {
		p.output[media.Audio] = slices.Concat([]string{"-map", "0:a:0"}, encodeOpus())
		p.tracks = append(p.tracks, opusTrack())
	}
	if video != nil && audio == nil && video.still {
		return nil, fmt.Errorf("open %q: it is a still picture: give a file with moving pictures or sound", cfg.Source)
	}
	if len(p.tracks) == 0 {
		return nil, fmt.Errorf("open %q: there is neither video nor sound in it", cfg.Source)
	}
	return p, nil
}

func encodeH264(cfg *PublishConfig, preset string, keyFrames time.Duration) []string {
	return append(keepTime(),
		"-c:v", "libx264", "-preset", preset, "-tune", "zerolatency", "-profile:v", "baseline", "-bf", "0",
		"-force_key_frames", fmt.Sprintf("expr:gte(t,n_forced*%g)", keyFrames.Seconds()), "-sc_threshold", "0", "-g", "9999",
		// Half a second of buffer: a key frame may be several times an ordinary one, not more.
		"-b:v", fmt.Sprint(cfg.Bitrate), "-maxrate", fmt.Sprint(cfg.Bitrate), "-bufsize", fmt.Sprint(cfg.Bitrate/2))
}

func encodeOpus() []string {
	return []string{"-c:a", "libopus", "-ar", "48000", "-ac", "2", "-b:a", "96k", "-application", "lowdelay", "-frame_duration", "20"}
}

func h264Track(profile string) media.Track {
	return media.Track{Kind: media.Video, Codec: media.Codec{Name: media.H264, ClockRate: 90000,
		Fmtp: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=" + profile}}
}

func opusTrack() media.Track {
	return media.Track{Kind: media.Audio, Codec: media.Codec{Name: media.Opus, ClockRate: 48000, Channels: 2, Fmtp: "minptime=10;useinbandfec=1"}}
}

// probedStream is what ffprobe tells about a stream of a file.
type probedStream struct {
	Type     string `json:"codec_type"`
	Codec    string `json:"codec_name"`
	Profile  string `json:"profile"`
	Level    int    `json:"level"`
	BFrames  int    `json:"has_b_frames"`
	PixFmt   string `json:"pix_fmt"`
	Field    string `json:"field_order"`
	Frames   string `json:"nb_frames"` // where the file tells
	Attached struct {
		Picture int `json:"attached_pic"`
	} `json:"disposition"`

	still bool // one picture, as far as the file tells
}

// copyProfile is the profile-level-id (RFC 6184 §8.1) of a stream that every browser plays as it is, else
// "": WebRTC has no reordered frames, and browsers decode 8 bit 4:2:0.
func (s *probedStream) copyProfile() string {
	if s.Codec != "h264" || s.BFrames != 0 || (s.PixFmt != "yuv420p" && s.PixFmt != "yuvj420p") {
		return ""
	}
	if s.Field != "" && s.Field != "unknown" && s.Field != "progressive" {
		return ""
	}
	idc := map[string]string{"Constrained Baseline": "42e0", "Main": "4d00", "High": "6400"}[s.Profile]
	if idc == "" {
		return ""
	}
	level := s.Level
	if level <= 0 || level > 0xff {
		level = 0x1f
	}
	return fmt.Sprintf("%s%02x", idc, level)
}

// probe finds the first video, that is no cover picture, and the first sound.
func probe(ctx context.Context, path string, limit time.Duration) (video, audio *probedStream, err error) {
	run, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(run, "ffprobe", "-v", "error", "-show_streams", "-show_format", "-of", "json", "file:"+path)
	var said ffmpeg.Tail
	cmd.Stderr = &said
	cmd.WaitDelay = time.Second
	out, err := ffmpeg.Output(cmd)
	if err != nil && ctx.Err() != nil {
		return nil, nil, fmt.Errorf("stopped while ffprobe looked at it: %w", context.Cause(ctx))
	}
	if err != nil && run.Err() != nil {
		return nil, nil, fmt.Errorf("ffprobe could not tell within %s what is in it: give a file that is complete, on a disk that answers", limit)
	}
	if errors.Is(err, exec.ErrNotFound) {
		return nil, nil, ffmpeg.ErrMissing
	}
	if err != nil {
		return nil, nil, fmt.Errorf("no media file that ffmpeg knows: %s", orDefault(said.String(), err.Error()))
	}
	var found struct {
		Streams []*probedStream
		Format  struct {
			Name string `json:"format_name"`
		}
	}
	if err := json.Unmarshal(out, &found); err != nil {
		return nil, nil, fmt.Errorf("read what ffprobe says: %w", err)
	}
	for _, s := range found.Streams {
		switch {
		case s.Type == "video" && s.Attached.Picture == 0 && video == nil:
			video = s
			// FFmpeg reads pictures of their own with image2 or, such as PNG, png_pipe.
			s.still = s.Frames == "1" || found.Format.Name == "image2" || strings.HasSuffix(found.Format.Name, "_pipe")
		case s.Type == "audio" && audio == nil:
			audio = s
		}
	}
	return video, audio, nil
}
