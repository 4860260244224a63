package crowd

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtp/codecs"

	"sluice/codec"
	"sluice/media"
)

func TestStamp(t *testing.T) {
	for _, at := range []int64{1, 1_790_000_000_123_456_789, 1<<62 + 5} {
		for _, key := range []bool{true, false} {
			payloads := newPainter(3).frame(nil, 10_000, key, at)
			got, k, ok := readStamp(payloads[0])
			if !ok || got != at || k != key {
				t.Errorf("%d, key %v: read %d, %v, %v", at, key, got, k, ok)
			}
			if codec.StartsKeyFrame(media.H264, payloads[0]) != key {
				t.Errorf("a server takes it for a key frame: %v, want %v", !key, key)
			}
			for _, p := range payloads[1:] {
				if _, _, ok := readStamp(p); ok {
					t.Error("a stamp in a later packet")
				}
			}
		}
	}
}

func FuzzReadStamp(f *testing.F) {
	f.Add(newPainter(0).frame(nil, 3000, true, 7)[0])
	f.Add(newPainter(0).frame(nil, 3000, false, 7)[0])
	f.Fuzz(func(_ *testing.T, b []byte) { readStamp(b) })
}

func TestFrameSizes(t *testing.T) {
	p := newPainter(0)
	for _, tc := range []struct {
		size int
		key  bool
		want int // bytes
	}{{10_000, false, 10_000}, {1188, false, 1188}, {200, false, 200}, {1190, false, 1190}, {1189, false, 1188}, {10, false, 45}, {40_000, true, 40_000}} {
		total := 0
		for _, b := range p.frame(nil, tc.size, tc.key, 1) {
			total += len(b)
			if len(b) > maxPayload {
				t.Errorf("a payload of %d bytes", len(b))
			}
		}
		if d := total - tc.want; d < -8 || d > 8 {
			t.Errorf("a frame of %d bytes, key %v, has %d, want about %d", tc.size, tc.key, total, tc.want)
		}
	}
	for n := 6; n < 256; n++ {
		if len(silence(n)) != n {
			t.Fatal(n)
		}
	}
}

// TestDecoderShowsIt: FFmpeg decodes every frame without a complaint, and they have the colour.
func TestDecoderShowsIt(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("needs ffmpeg: apt-get install ffmpeg")
	}
	p := newPainter(2)
	var stream []byte
	for i := range 40 {
		d := codecs.H264Packet{}
		for _, b := range p.frame(nil, 9000, i%20 == 0, time.Now().UnixNano()) {
			unit, err := d.Unmarshal(b)
			if err != nil {
				t.Fatal(err)
			}
			stream = append(stream, unit...)
		}
	}
	path := filepath.Join(t.TempDir(), "s.h264")
	if err := os.WriteFile(path, stream, 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "ffmpeg", "-v", "warning", "-xerror", "-f", "h264", "-i", path, "-f", "framemd5", "-")
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil || said.Len() > 0 {
		t.Fatalf("ffmpeg: %v: %s", err, said.String())
	}
	sums := map[string]int{}
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "#") {
			f := strings.Split(strings.TrimSpace(line), ",")
			sums[f[len(f)-1]]++
		}
	}
	if len(sums) != 2 || fmt.Sprint(sums) == "" {
		t.Errorf("pictures and how often they came: %v; want 2 of 20", sums)
	}
	for s, n := range sums {
		if n != 20 {
			t.Errorf("picture %s came %d times, want 20", s, n)
		}
	}
}
