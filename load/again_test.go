package load

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtp"

	"sluice/media"
)

func TestPlayWaitsForTheStream(t *testing.T) {
	needsFFmpeg(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := newSFU(t)
	pub, stop := context.WithCancel(ctx)
	var over <-chan error
	waiting := 0
	rep, err := Play(ctx, PlayConfig{URL: s.url("whep"), Insecure: true, Duration: time.Second, Wait: 30 * time.Second, Log: testLog(t),
		Waiting: func() {
			waiting++
			over = start(pub, PublishConfig{URL: s.url("whip"), Source: TestPattern, Insecure: true, Width: 320, Height: 180, Log: testLog(t)})
		}})
	stop()
	if over != nil {
		<-over
	}
	if err != nil || waiting != 1 || rep.Waited < Millis(minAsk) || rep.FirstPacket <= 0 || rep.FirstPacket > rep.Waited+Millis(5*time.Second) {
		t.Errorf("%v, said %d times that it waits, %+v", err, waiting, rep)
	}
}

// No longer than asked for: then it is the server's refusal.
func TestPlayWaitsInVain(t *testing.T) {
	t.Parallel()
	s := newSFU(t)
	began := time.Now()
	_, err := Play(t.Context(), PlayConfig{URL: s.url("whep"), Insecure: true, Wait: 700 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "stream_offline") || time.Since(began) < 700*time.Millisecond {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
}

func TestPlayComesBack(t *testing.T) {
	needsFFmpeg(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := newSFU(t)
	pub, stop := context.WithCancel(ctx)
	over := start(pub, PublishConfig{URL: s.url("whip"), Source: TestPattern, Insecure: true, Log: testLog(t), Width: 320, Height: 180, Bitrate: 300_000})
	defer func() { stop(); <-over }()
	s.waitPublished(ctx, t, over)
	out := filepath.Join(t.TempDir(), "out.mkv")
	var before uint64 // frames until the loss
	rep, err := Play(ctx, PlayConfig{URL: s.url("whep"), Insecure: true, Duration: 8 * time.Second, Wait: 10 * time.Second, Out: out, Log: testLog(t),
		Progress: func(p PlayStats) {
			if before == 0 && p.Frames > 20 {
				before = p.Frames
				s.dropViewers()
			}
		}})
	if err != nil {
		t.Fatal(err)
	}
	if rep.Reconnections != 1 || before == 0 || rep.Video.Frames < before+30 || rep.Video.Latency.P50 > Millis(2*time.Second) {
		t.Errorf("%d frames before the loss: %d reconnections, %+v", before, rep.Reconnections, rep.Video)
	}
	if rep.Duration < Millis(7900*time.Millisecond) || rep.Duration > Millis(10*time.Second) {
		t.Errorf("watched for %s instead of 8 s", rep.Duration)
	}
	p := ffprobe(t, out)
	if d := number(t, p.Format.Duration); len(p.Streams) != 2 || d < 6 || d > 9 {
		t.Errorf("the file is %.2f s long, with %+v", d, p.Streams)
	}
	if text := rep.String(); !strings.Contains(text, "reconnections") {
		t.Errorf("the report does not tell of it:\n%s", text)
	}
}

func TestRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{"": 0, "2": 2 * time.Second, "-1": 0, "soon": 0, "999999999999": 0} {
		h := http.Header{}
		h.Set("Retry-After", value)
		err := refused(&http.Response{StatusCode: http.StatusConflict, Header: h}, nil)
		if r := err.(*Refused); r.RetryAfter != want {
			t.Errorf("%q: %s, want %s", value, r.RetryAfter, want)
		}
	}
}

// Pictures before a key frame, at the start or after coming back, can't be seen.
func TestFramesBeforeAKeyFrameAreCountedApart(t *testing.T) {
	r := newReception(media.Video, media.VP8, 90000)
	other := []byte{0x10, 0x31, 2, 0, 1, 16, 16, 0, 20, 0, 24, 96, 0}
	key := []byte{0x10, 0x90, 0x0f, 0x00, 0x9d, 0x01, 0x2a, 0x42, 0x01, 0xb6, 0x00, 0x00}
	now, seq := time.Unix(1_800_000_000, 0), uint16(0)
	push := func(payloads ...[]byte) {
		for _, b := range payloads {
			seq, now = seq+1, now.Add(33*time.Millisecond)
			r.packet(&rtp.Packet{Header: rtp.Header{SequenceNumber: seq, Timestamp: uint32(seq) * 3000, Marker: true}, Payload: b}, now)
		}
	}
	for _, step := range []struct {
		name                        string
		in                          [][]byte
		complete, keys, undecodable uint64
		restart                     bool
	}{
		{"none yet", [][]byte{other, other}, 0, 0, 2, false},
		{"from the key frame on", [][]byte{key, other}, 2, 1, 2, false},
		{"in another session", [][]byte{other}, 2, 1, 3, true},
		{"its key frame", [][]byte{key, other}, 4, 2, 3, false},
	} {
		if step.restart {
			r.restart()
			seq = 40000
		}
		push(step.in...)
		if s := r.stats(); s.Frames != step.complete || s.KeyFrames != step.keys || s.Undecodable != step.undecodable || s.Lost != 0 {
			t.Errorf("%s: %+v", step.name, s)
		}
	}
}

func TestSoundAloneHasNoPictures(t *testing.T) {
	r := newReception(media.Audio, media.Opus, 48000)
	now := time.Now()
	for i := range 100 {
		r.packet(&rtp.Packet{Header: rtp.Header{SequenceNumber: uint16(i), Timestamp: uint32(i) * 960}, Payload: []byte{0xfc, 1, 2}}, now.Add(time.Duration(i)*20*time.Millisecond))
	}
	v := &viewer{began: now, first: now, answered: now, ended: now.Add(2 * time.Second), tracks: []*reception{r}}
	if s := v.progress(); s.Video || s.FPS != 0 || s.Frames != 0 || s.Bitrate == 0 {
		t.Errorf("progress: %+v", s)
	}
	rep, err := v.finish()
	if err != nil || rep.FirstFrame != 0 || rep.Audio.Frames != 100 {
		t.Errorf("%v, %+v", err, rep)
	}
	if text := rep.String(); strings.Contains(text, "frames/s") || strings.Contains(text, "first picture") || strings.Contains(text, "first frame") {
		t.Errorf("the report tells of pictures:\n%s", text)
	}
}
