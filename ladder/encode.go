package ladder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"

	"sluice/internal/ffmpeg"
	"sluice/media"
)

// Why a child was ended.
var (
	errWanted = errors.New("other renditions are wanted")
	errSlow   = errors.New("frames come faster than they are encoded")
)

// payload is how many bytes of a frame go into a packet.
const payload = 1200

// arguments of FFmpeg for the rungs in which, one decoder and one chain of scalers: each rung is made of the one above it.
func (j *job) arguments(which uint32) (args []string, outputs int) {
	args = []string{"-hide_banner", "-nostdin", "-loglevel", "error", "-flags", "low_delay", "-probesize", "32", "-analyzeduration", "0",
		"-threads", "1", "-filter_complex_threads", "1", "-f", "matroska", "-i", "pipe:0"}
	var chain []string
	from := "[0:v]"
	var out []string
	left := 0
	for i := range j.rungs {
		left += int(which >> i & 1)
	}
	for i, r := range j.rungs {
		if which>>i&1 == 0 {
			continue
		}
		scale := fmt.Sprintf("%sscale=-2:%d:flags=bilinear", from, r.Height)
		label := fmt.Sprintf("[v%d]", i)
		if left--; left > 0 {
			from = fmt.Sprintf("[n%d]", i)
			chain = append(chain, scale+",split"+label+from)
		} else {
			chain = append(chain, scale+label)
		}
		out = append(out, "-map", label, "-fps_mode", "passthrough", "-enc_time_base", "1:90000", "-threads", "1", "-c:v", j.encoder)
		out = append(out, j.tuning(r)...)
		out = append(out, "-force_key_frames", "source", "-avoid_negative_ts", "disabled", "-flush_packets", "1",
			"-packetsize", fmt.Sprint(payload+12), "-strict", "experimental", "-f", "rtp", fmt.Sprintf("pipe:%d", 3+outputs))
		outputs++
	}
	return append(append(args, "-filter_complex", strings.Join(chain, ";")), out...), outputs
}

// tuning are the encoder's settings: no frame waits for another, and a key frame is at most as large as five others, so that a path that
// takes the rendition has no queue of it.
func (j *job) tuning(r Rung) []string {
	rate := []string{"-b:v", fmt.Sprint(r.Bitrate), "-maxrate", fmt.Sprint(r.Bitrate), "-bufsize", fmt.Sprint(r.Bitrate / 6), "-bf", "0", "-g", "9999"}
	switch j.encoder {
	case "libx264":
		return append(rate, "-preset", j.ladder.cfg.Preset, "-tune", "zerolatency", "-profile:v", "baseline", "-sc_threshold", "0")
	case "libvpx", "libvpx-vp9":
		return append(rate, "-deadline", "realtime", "-cpu-used", "8", "-lag-in-frames", "0", "-error-resilient", "1", "-auto-alt-ref", "0")
	}
	return rate // those in hardware are told by their names only
}

// encode runs a child for the rungs in which, until it ends or others are wanted, and says why.
func (j *job) encode(ctx context.Context, which uint32) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	args, outputs := j.arguments(which)
	cmd := exec.CommandContext(ctx, "ffmpeg", args...)
	var said ffmpeg.Tail
	cmd.Stderr, cmd.WaitDelay = &said, time.Second
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	var ours []*os.File
	for range outputs {
		our, their, err := ffmpeg.SocketPair()
		if err != nil {
			return fmt.Errorf("make a socket pair: %w", err)
		}
		defer our.Close()
		ours, cmd.ExtraFiles = append(ours, our), append(cmd.ExtraFiles, their)
	}
	j.in.begin()
	ended, err := ffmpeg.Start(cmd)
	for _, their := range cmd.ExtraFiles {
		_ = their.Close()
	}
	if err != nil {
		return ffmpeg.Need(err)
	}
	j.log.Info("renditions are made", "renditions", j.names(which), "encoder", j.encoder, "pid", cmd.Process.Pid)
	j.sub.RequestKeyFrame(j.picture)
	var work sync.WaitGroup
	var first atomic.Int64 // time of the first frame that the child gets
	work.Go(func() {
		defer stdin.Close()
		if err := j.in.write(stdin, &first, ctx.Done()); err != nil {
			cancel(err)
		}
	})
	at := 0
	for i := range j.rungs {
		if which>>i&1 == 1 {
			from := ours[at]
			work.Go(func() { j.read(i, from, &first) })
			at++
		}
	}
	work.Go(func() { j.watch(ctx, which, cancel) })
	err = <-ended
	why := context.Cause(ctx)
	cancel(nil)
	for _, our := range ours {
		_ = our.Close()
	}
	work.Wait()
	if why != nil {
		return why
	}
	return fmt.Errorf("FFmpeg ended: %w: %s", err, said.String())
}

func (j *job) names(which uint32) (names []string) {
	for i, r := range j.rungs {
		if which>>i&1 == 1 {
			names = append(names, r.Name)
		}
	}
	return names
}

// watch ends the child when other renditions are due, or when it is too slow, and asks the source for key frames.
func (j *job) watch(ctx context.Context, which uint32, end context.CancelCauseFunc) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var since time.Time // others are due
	late := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if j.isOver() {
			end(errOver)
			return
		}
		due := j.due(0)
		switch missing := due&^which != 0; {
		case !j.ladder.cfg.OnDemand || due == which || due == 0 && which == 0:
			since = time.Time{}
		case since.IsZero() && !missing:
			since = time.Now()
		case missing || time.Since(since) > linger:
			end(errWanted)
			return
		}
		j.in.mu.Lock()
		dropped, key := j.in.dropped, j.in.lastKey
		j.in.dropped = 0
		j.in.mu.Unlock()
		if j.keyWanted.Swap(false) {
			j.sub.RequestKeyFrame(j.picture)
		}
		if late += dropped; late > 2 || dropped > 0 && j.ladder.cfg.Busy() {
			end(errSlow)
			return
		}
		if time.Since(key) > keyEvery {
			j.sub.RequestKeyFrame(j.picture)
		}
	}
}

// read publishes what a rung's encoder makes: RTP packets, one with each read. The first frame is that of the time first.
func (j *job) read(rung int, from *os.File, first *atomic.Int64) {
	begun, last, passed := false, uint32(0), int64(0) // of RTP timestamps
	buf := make([]byte, 2048)
	var b *media.Burst
	flush := func() {
		if b != nil {
			j.pub.Write(b)
			b = nil
		}
	}
	defer flush()
	for {
		n, err := from.Read(buf)
		if err != nil || n == 0 {
			return
		}
		if n < 12 || buf[1] >= 192 && buf[1] <= 223 { // RTCP (RFC 5761 §4)
			continue
		}
		var p rtp.Packet
		if p.Unmarshal(buf[:n]) != nil {
			continue
		}
		if !begun {
			begun, last = true, p.Timestamp
		}
		passed, last = passed+int64(int32(p.Timestamp-last)), p.Timestamp
		m, ok := j.in.of(first.Load() + (passed*int64(time.Second/tick)+45000)/90000)
		if !ok {
			continue
		}
		if b != nil && b.Timestamp != m.timestamp {
			flush()
		}
		if b == nil {
			b = media.NewBurst(rung, m.timestamp)
			b.Captured, b.Arrived = m.captured, time.Now().UnixNano()
		}
		if !b.Append(p.SequenceNumber, p.Marker, p.Payload) {
			flush()
			continue
		}
		if p.Marker {
			flush()
		}
	}
}
