package load

import (
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"

	"sluice/codec/frame"
	"sluice/media"
)

// encoded lets FFmpeg encode a second of a codec and send it as RTP, as it does for Publish.
func encoded(t *testing.T, kind media.Kind, args string) []*rtp.Packet {
	t.Helper()
	source := "testsrc2=size=322x182:rate=25"
	if kind == media.Audio {
		source = "sine=sample_rate=48000"
	}
	p := &plan{start: time.Now(), tracks: []media.Track{{Kind: kind}},
		input:  []string{"-f", "lavfi", "-i", source, "-t", "1"},
		output: map[media.Kind][]string{kind: append([]string{"-strict", "experimental"}, strings.Fields(args)...)}}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	f, err := startFeed(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	var pkts []*rtp.Packet
	buf := make([]byte, 2000)
	for {
		n, err := f.tracks[0].Read(buf)
		if err != nil {
			break
		}
		if buf[1] >= 192 && buf[1] <= 223 {
			continue
		}
		pkt := &rtp.Packet{}
		if err := pkt.Unmarshal(append([]byte(nil), buf[:n]...)); err != nil {
			t.Fatal(err)
		}
		pkts = append(pkts, pkt)
	}
	if err := f.wait(ctx); err != nil {
		t.Fatal(err)
	}
	return pkts
}

// encodedAV1 packetises here: this FFmpeg has no RTP for AV1.
func encodedAV1(t *testing.T) (pkts []*rtp.Packet) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "av1.ivf")
	args := strings.Fields("-v error -f lavfi -i testsrc2=size=322x182:rate=25 -t 1 -pix_fmt yuv420p -c:v libaom-av1 -usage realtime -cpu-used 8 -g 10 -lag-in-frames 0")
	if out, err := exec.CommandContext(t.Context(), "ffmpeg", append(args, file)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var p codecs.AV1Payloader
	seq := uint16(65530)
	for i, b := 0, b[32:]; len(b) > 12; i++ {
		n := binary.LittleEndian.Uint32(b)
		payloads := p.Payload(1200, b[12:12+n])
		for j, payload := range payloads {
			pkts = append(pkts, &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: seq, Timestamp: uint32(i) * 3600, Marker: j == len(payloads)-1}, Payload: payload})
			seq++
		}
		b = b[12+n:]
	}
	return pkts
}

// receive plays packets into a reception that is recorded, 40 ms apart for each timestamp, without those for which drop says so.
func receive(t *testing.T, r *recorder, kind media.Kind, codec string, rate uint32, channels uint16, pkts []*rtp.Packet, drop func(i int) bool) *reception {
	t.Helper()
	rec := newReception(kind, codec, rate)
	track := r.add(kind, codec, channels, &rec.clock)
	rec.onFrame = func(f frame.Frame, intact bool) {
		if intact {
			r.write(track, f)
		}
	}
	base := time.Unix(1_800_000_000, 0)
	rec.report(&rtcp.SenderReport{NTPTime: toNTP(base.UnixNano()), RTPTime: pkts[0].Timestamp})
	for i, p := range pkts {
		at := base.Add(time.Duration(int64(int32(p.Timestamp-pkts[0].Timestamp)) * int64(time.Second) / int64(rate)))
		if drop == nil || !drop(i) {
			rec.packet(p, at)
		}
	}
	rec.order.flush(time.Time{})
	return rec
}

func TestEveryCodecArrivesInAFile(t *testing.T) {
	needsFFmpeg(t)
	t.Parallel()
	x264 := "-pix_fmt yuv420p -c:v libx264 -preset ultrafast -tune zerolatency -g 10"
	sound := sync.OnceValue(func() []*rtp.Packet { return encoded(t, media.Audio, "-c:a libopus -ar 48000 -ac 2") })
	for _, c := range []struct {
		codec, args string
		name        string // as ffprobe says
		format      string // in the file's first bytes
	}{
		{media.H264, x264, "h264", "matroska"},
		{media.H265, "-pix_fmt yuv420p -c:v libx265 -preset ultrafast -tune zerolatency -g 10 -x265-params log-level=none", "hevc", "matroska"},
		{media.VP8, "-pix_fmt yuv420p -c:v libvpx -deadline realtime -cpu-used 8 -g 10 -lag-in-frames 0 -auto-alt-ref 0", "vp8", "webm"},
		{media.VP9, "-pix_fmt yuv420p -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 10 -lag-in-frames 0", "vp9", "webm"},
		{media.AV1, "", "av1", "webm"},
	} {
		t.Run(c.codec, func(t *testing.T) {
			var pkts []*rtp.Packet
			if c.codec == media.AV1 {
				pkts = encodedAV1(t)
			} else {
				pkts = encoded(t, media.Video, c.args)
			}
			for _, loss := range []bool{false, true} {
				path := filepath.Join(t.TempDir(), "out.mkv")
				r, err := newRecorder(path)
				if err != nil {
					t.Fatal(err)
				}
				r.want = 2
				receive(t, r, media.Audio, media.Opus, 48000, 2, sound(), nil)
				second := 0 // the first packet of the second frame
				for pkts[second].Timestamp == pkts[0].Timestamp {
					second++
				}
				rec := receive(t, r, media.Video, c.codec, 90000, 0, pkts, func(i int) bool { return loss && i == second })
				if err := r.finish(); err != nil {
					t.Fatal(err)
				}
				if rec.params.Width != 322 || rec.params.Height != 182 || rec.keys != 3 {
					t.Errorf("%dx%d, %d key frames", rec.params.Width, rec.params.Height, rec.keys)
				}
				// With a loss in the second frame, all up to the next key frame, the eleventh, is left out.
				want := map[bool]string{false: "25", true: "16"}[loss]
				p := ffprobe(t, path)
				if len(p.Streams) != 2 || p.Streams[0].Codec != c.name || p.Streams[0].Width != 322 || p.Streams[0].Height != 182 || p.Streams[1].Codec != "opus" {
					t.Fatalf("the file has %+v", p.Streams)
				}
				if p.Streams[0].Frames != want {
					t.Errorf("loss %v: the file has %s frames, want %s", loss, p.Streams[0].Frames, want)
				}
				if d := number(t, p.Format.Duration); d < 0.95 || d > 1.05 {
					t.Errorf("the file's length is %.2f s", d)
				}
				if b, _ := os.ReadFile(path); !strings.Contains(string(b[:64]), c.format) {
					t.Errorf("the file does not call itself %s: %q", c.format, b[:64])
				}
			}
		})
	}
}

func TestSoundAloneArrivesInAFile(t *testing.T) {
	needsFFmpeg(t)
	for _, c := range []struct {
		codec, args, name string
		rate              uint32
		channels          uint16
	}{
		{media.Opus, "-c:a libopus -ac 2", "opus", 48000, 2},
		{media.PCMU, "-c:a pcm_mulaw -ar 8000 -ac 1", "pcm_mulaw", 8000, 1},
		{media.PCMA, "-c:a pcm_alaw -ar 8000 -ac 1", "pcm_alaw", 8000, 1},
	} {
		t.Run(c.codec, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "out.mkv")
			r, err := newRecorder(path)
			if err != nil {
				t.Fatal(err)
			}
			r.want = 1
			receive(t, r, media.Audio, c.codec, c.rate, c.channels, encoded(t, media.Audio, c.args), nil)
			if err := r.finish(); err != nil {
				t.Fatal(err)
			}
			p := ffprobe(t, path)
			if len(p.Streams) != 1 || p.Streams[0].Codec != c.name || number(t, p.Streams[0].Rate) != float64(c.rate) {
				t.Errorf("the file has %+v", p.Streams)
			}
			if d := number(t, p.Format.Duration); d < 0.9 || d > 1.05 {
				t.Errorf("the file's length is %.2f s", d)
			}
		})
	}
}
