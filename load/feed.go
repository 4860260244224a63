package load

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"sluice/internal/ffmpeg"
	"sluice/media"
)

// rtpPacket is the most that FFmpeg puts into one packet: 1,200 bytes of payload and the header.
const rtpPacket = 1200 + 12

// feed is a running FFmpeg. Each track comes out of its own RTP muxer, over a socket pair of its own
// that keeps packets apart (SOCK_SEQPACKET). Of all that FFmpeg can write to a pipe this has the least delay and
// needs the least code: a muxer of several tracks, such as MPEG-TS or Matroska, holds
// video back until sound has caught up, and an MPEG-TS reader knows that a frame is over when the next one
// begins; here a packet is on its way as soon as its frame is encoded, with its marker bit, and a
// sender report tells which moment its timestamp stands for. Nothing gets lost as over UDP: FFmpeg waits.
type feed struct {
	cmd    *exec.Cmd
	ended  <-chan error
	stderr ffmpeg.Tail
	tracks []*os.File // in the plan's order
}

// plan is what FFmpeg is to do.
type plan struct {
	input  []string                // arguments that make the input
	output map[media.Kind][]string // arguments that make a track of it
	tracks []media.Track           // video first
	attach []byte                  // a file that FFmpeg finds as attachment(len(tracks))
	name   string                  // what is published, for the log
	start  time.Time               // the wall clock of the timestamp 0
	live   bool                    // timestamps are the wall clock of capture, not only steady
}

// startFeed starts FFmpeg; it is killed when ctx ends. The caller reads all tracks to their end, then calls wait.
func startFeed(ctx context.Context, p *plan) (_ *feed, err error) {
	f := &feed{}
	var theirs []*os.File
	defer func() {
		for _, t := range theirs {
			t.Close()
		}
		if err != nil {
			f.release()
		}
	}()
	args := append([]string{"-hide_banner", "-nostdin", "-loglevel", "error"}, p.input...)
	for i, t := range p.tracks {
		ours, their, err := ffmpeg.SocketPair()
		if err != nil {
			return nil, fmt.Errorf("make a socket pair: %w", err)
		}
		f.tracks, theirs = append(f.tracks, ours), append(theirs, their)
		args = append(args, p.output[t.Kind]...)
		args = append(args,
			"-start_time_realtime", fmt.Sprint(p.start.UnixMicro()), // of the sender reports
			"-avoid_negative_ts", "disabled", // would shift each track by itself
			"-packetsize", fmt.Sprint(rtpPacket), "-f", "rtp", fmt.Sprintf("pipe:%d", 3+i))
	}
	if p.attach != nil {
		a, err := unlinked(p.attach)
		if err != nil {
			return nil, fmt.Errorf("make a working file: %w", err)
		}
		theirs = append(theirs, a)
	}
	f.cmd = exec.CommandContext(ctx, "ffmpeg", args...)
	f.cmd.Stderr = &f.stderr
	f.cmd.ExtraFiles = theirs
	f.cmd.WaitDelay = time.Second
	if f.ended, err = ffmpeg.Start(f.cmd); err != nil {
		return nil, ffmpeg.Need(err)
	}
	return f, nil
}

// wait waits for FFmpeg's end and gives back what it held. It returns nil when the input is over.
func (f *feed) wait(ctx context.Context) error {
	err := <-f.ended
	f.release()
	if err == nil || ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("run ffmpeg: %w: %s", err, orDefault(f.stderr.String(), "it said nothing"))
}

func (f *feed) release() {
	for _, t := range f.tracks {
		t.Close()
	}
}

// attachment is the path of a plan's attachment, within FFmpeg, after that many tracks.
func attachment(tracks int) string { return fmt.Sprintf("/proc/self/fd/%d", 3+tracks) }

// unlinked is a file without a name: nothing is left of it, however we end.
func unlinked(content []byte) (*os.File, error) {
	f, err := os.CreateTemp("", "sluice-*")
	if err != nil {
		return nil, err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, os.Remove(f.Name())); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
