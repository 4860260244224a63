package ladder

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"

	"sluice/internal/ffmpeg"
	"sluice/media"
)

// Why a child was ended.
var (
	errWanted = errors.New("other renditions are wanted")
	errSlow   = errors.New("frames come faster than they are encoded")
	errStuck  = errors.New("frames go into FFmpeg, and nothing comes out")
)

const (
	// fallsWithin: a child whose queue is full twice within this time is too slow; once, it was a moment.
	fallsWithin = 10 * time.Second
	// stuckAfter is how long nothing may come of a child that gets frames. To begin takes it longer.
	stuckAfter = 3 * time.Second
	stuckFirst = 10 * time.Second
	// maxPixels is how large a picture FFmpeg may be made to allocate by a header: 8192×4320.
	maxPixels = 8192 * 4320
)

// payload is how many bytes of a frame go into a packet.
const payload = 1200

// arguments of FFmpeg for the rungs in which, one decoder and one chain of scalers: each rung is made of the one above it.
func (j *job) arguments(which uint32) (args []string, outputs int) {
	args = append([]string{"-hide_banner", "-nostdin", "-loglevel", "error"}, j.encoder.device...)
	args = append(args, "-flags", "low_delay", "-probesize", "32", "-analyzeduration", "0", "-max_pixels", fmt.Sprint(maxPixels),
		"-threads", "1", "-filter_complex_threads", "1", "-f", "matroska", "-i", "pipe:0")
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
		scale := fmt.Sprintf("%sscale=-2:%d:flags=bilinear,format=yuv420p", from, r.Height)
		label := fmt.Sprintf("[v%d]", i)
		if left--; left > 0 {
			from = fmt.Sprintf("[n%d]", i)
			here := fmt.Sprintf("[h%d]", i)
			if j.encoder.upload == "" {
				here = label
			}
			if chain = append(chain, scale+",split"+here+from); here != label {
				chain = append(chain, here+j.encoder.upload+label)
			}
		} else {
			chain = append(chain, scale+j.encoder.toDevice()+label)
		}
		out = append(out, "-map", label, "-fps_mode", "passthrough", "-enc_time_base", "1:90000", "-threads", "1")
		out = append(out, j.encoder.tuning(r, j.ladder.cfg.Preset)...)
		out = append(out, "-force_key_frames", "source", "-avoid_negative_ts", "disabled", "-flush_packets", "1", "-strict", "experimental")
		if j.encoder.codec == media.AV1 { // of which FFmpeg makes no RTP before version 8
			out = append(out, "-f", "ivf")
		} else {
			size := payload
			if e := j.encoder.codec; e == media.H264 {
				size = wholesale
			}
			out = append(out, "-packetsize", fmt.Sprint(size+12), "-f", "rtp")
		}
		out = append(out, fmt.Sprintf("pipe:%d", 3+outputs))
		outputs++
	}
	return append(append(args, "-filter_complex", strings.Join(chain, ";")), out...), outputs
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
		our, their, err := j.output()
		if err != nil {
			return fmt.Errorf("make an output: %w", err)
		}
		defer our.Close()
		ours, cmd.ExtraFiles = append(ours, our), append(cmd.ExtraFiles, their)
	}
	j.in.begin()
	j.came.Store(0)
	ended, err := ffmpeg.Start(cmd)
	for _, their := range cmd.ExtraFiles {
		_ = their.Close()
	}
	if err != nil {
		return ffmpeg.Need(err)
	}
	j.mu.Lock()
	j.pid = cmd.Process.Pid
	j.mu.Unlock()
	j.log.Info("renditions are made", "renditions", j.names(which), "encoder", j.encoder.name, "pid", cmd.Process.Pid)
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

// output is the way of a rendition out of the child.
func (j *job) output() (ours, theirs *os.File, err error) {
	if j.encoder.codec == media.AV1 {
		return os.Pipe()
	}
	return ffmpeg.SocketPair()
}

// watch ends the child when other renditions are due, or when it is too slow, and asks the source for key frames.
func (j *job) watch(ctx context.Context, which uint32, end context.CancelCauseFunc) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	began := time.Now()
	var spare, fell time.Time // since when one is made that nobody watches; when the queue was last full
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		due, may := j.due()
		now := time.Now()
		switch {
		case j.isOver():
			end(errOver)
			return
		case due&^which != 0, which&^may != 0:
			end(errWanted)
			return
		case due == which:
			spare = time.Time{}
		case spare.IsZero():
			spare = now
		case now.Sub(spare) > linger:
			end(errWanted)
			return
		}
		if j.keyWanted.Swap(false) || now.Sub(j.in.keyed()) > keyEvery {
			j.sub.RequestKeyFrame(j.picture)
		}
		if j.in.overflowed() && j.came.Load() > 0 { // to begin takes it a moment
			if now.Sub(fell) < fallsWithin {
				end(errSlow)
				return
			}
			fell = now
		}
		if j.stuck(began, now) {
			end(errStuck)
			return
		}
	}
}

// stuck reports whether the child makes nothing of what it gets.
func (j *job) stuck(began, now time.Time) bool {
	fed := j.in.fed()
	if now.Sub(fed) > time.Second {
		return false // it gets nothing
	}
	if came := j.came.Load(); came > 0 {
		return fed.Sub(time.Unix(0, came)) > stuckAfter
	}
	return now.Sub(began) > stuckFirst
}

// read publishes what a rung's encoder makes. The first frame is that of the time first.
func (j *job) read(rung int, from *os.File, first *atomic.Int64) {
	j.pub.Discontinuity(rung) // another child numbers its packets anew
	if j.encoder.codec == media.AV1 {
		j.readIVF(rung, from, first)
		return
	}
	begun, last, passed := false, uint32(0), int64(0) // of RTP timestamps
	buf := make([]byte, wholesale+100)
	var seq uint16
	var b *media.Burst
	flush := func() {
		if b != nil {
			j.pub.Write(b)
			b = nil
		}
	}
	defer flush()
	for { // a packet with each read
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
		m, ok := j.in.of(first.Load() + ticks(passed))
		if !ok {
			continue
		}
		if b != nil && b.Timestamp != m.timestamp {
			flush()
		}
		if b == nil {
			b = j.burst(rung, m)
		}
		parts(j.encoder.codec, p.Payload, func(part []byte, last bool) {
			if !b.Append(seq, p.Marker && last, part) { // it is full
				flush()
				b = j.burst(rung, m)
				b.Append(seq, p.Marker && last, part)
			}
			seq++
		})
		if p.Marker {
			flush()
		}
	}
}

// ticks of the child's input are in a time of its output, 1/90000 s.
func ticks(passed int64) int64 { return (passed*int64(time.Second/tick) + 45000) / 90000 }

// burst begins one of a rung.
func (j *job) burst(rung int, m moment) *media.Burst {
	b := media.NewBurst(rung, m.timestamp)
	b.Captured, b.Arrived = m.captured, time.Now().UnixNano()
	j.came.Store(b.Arrived)
	return b
}

// maxFrame bounds a frame of an encoder.
const maxFrame = 8 << 20

// readIVF is read for encoders whose RTP FFmpeg does not make.
func (j *job) readIVF(rung int, from io.Reader, first *atomic.Int64) {
	payloader, seq, start, begun := codecs.AV1Payloader{}, uint16(0), int64(0), false
	_ = ivf(from, func(at int64, frame []byte) { // its end is the child's
		if !begun {
			begun, start = true, at
		}
		m, ok := j.in.of(first.Load() + ticks(at-start))
		if !ok {
			return
		}
		payloads := payloader.Payload(payload, frame)
		b := j.burst(rung, m)
		for i, p := range payloads {
			if last := i == len(payloads)-1; !b.Append(seq, last, p) {
				j.pub.Write(b)
				b = j.burst(rung, m)
				b.Append(seq, last, p)
			}
			seq++
		}
		j.pub.Write(b)
	})
}

// ivf reads frames with their times, 1/90000 s: a header of 32 bytes comes before them, 12 bytes of length and time before each.
func ivf(from io.Reader, frame func(at int64, data []byte)) error {
	in := bufio.NewReaderSize(from, 64<<10)
	var head [32]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return err
	}
	per, unit := int64(binary.LittleEndian.Uint32(head[16:])), int64(binary.LittleEndian.Uint32(head[20:])) // a time is unit/per seconds
	if unit == 0 || per == 0 {
		return errors.New("an IVF header without a unit of time")
	}
	for {
		if _, err := io.ReadFull(in, head[:12]); err != nil {
			return err
		}
		size, at := binary.LittleEndian.Uint32(head[:]), int64(binary.LittleEndian.Uint64(head[4:]))
		if size > maxFrame {
			return fmt.Errorf("an IVF frame of %d bytes", size)
		}
		data := make([]byte, size)
		if _, err := io.ReadFull(in, data); err != nil {
			return err
		}
		frame(at*90000*unit/per, data)
	}
}
