package load

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/at-wat/ebml-go/webm"

	"sluice/codec/frame"
	"sluice/media"
)

// A file begins when all tracks are there and know their clock, or after this.
const (
	recordWait  = 5 * time.Second
	recordQueue = 1024 // frames until then; when it is full the file begins at once
)

// recorder writes what a viewer receives into a file. The viewer's lock guards it.
type recorder struct {
	f      *os.File
	path   string
	want   int // how many tracks the server has promised
	tracks []*recordTrack

	queue []queuedFrame
	since time.Time // first frame
	file  *matroskaFile
	err   error // the first one; nothing is written after it
}

type recordTrack struct {
	kind     media.Kind
	codec    string
	channels uint16
	clock    *wallClock // the reception's
	number   int        // in the file, from 0; -1 when it is not in the file

	first   *frame.Frame // with which the track begins
	base    time.Duration
	lastRTP uint32
	last    time.Time // arrival
	resumed bool      // the next frame is another session's first one
	elapsed int64     // of RTP timestamps since first, without wrapping
}

type queuedFrame struct {
	track   *recordTrack
	frame   frame.Frame
	resumed bool // the first one of another session
}

// newRecorder makes the file at once: a wrong path shows before the session begins.
func newRecorder(path string) (*recorder, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("make the file to write to: %w", err)
	}
	return &recorder{f: f, path: path}, nil
}

func (r *recorder) add(kind media.Kind, codec string, channels uint16, clock *wallClock) *recordTrack {
	t := &recordTrack{kind: kind, codec: codec, channels: channels, clock: clock, number: -1}
	r.tracks = append(r.tracks, t)
	return t
}

// write takes a frame; its track's frames come in order.
func (r *recorder) write(t *recordTrack, f frame.Frame) {
	if r.err != nil {
		return
	}
	resumed := t.resumed
	t.resumed = false
	if r.file != nil {
		r.err = r.writeOut(t, f, resumed)
		return
	}
	if len(r.queue) == 0 {
		r.since = f.Arrived
	}
	if t.first == nil {
		if !f.Key || t.kind == media.Video && f.Params.Width == 0 {
			return
		}
		t.first = &f
	}
	r.queue = append(r.queue, queuedFrame{t, f, resumed})
	if r.ready() || f.Arrived.Sub(r.since) > recordWait || len(r.queue) >= recordQueue {
		r.err = r.begin()
	}
}

func (r *recorder) ready() bool {
	n := 0
	for _, t := range r.tracks {
		if t.first != nil && t.clock.ok {
			n++
		}
	}
	return n >= r.want
}

// begin writes the header and what is queued. The file's time 0 is the first picture; without
// pictures, the first sound.
func (r *recorder) begin() error {
	entries := []webm.TrackEntry{}
	synced := true
	var zero *recordTrack
	for _, kind := range []media.Kind{media.Video, media.Audio} {
		for _, t := range r.tracks {
			if t.kind != kind || t.first == nil {
				continue
			}
			e, err := frame.MatroskaTrack(len(entries)+1, kind, t.codec, t.channels, uint32(t.clock.rate), t.first.Params)
			if err != nil {
				return err
			}
			t.number = len(entries)
			entries = append(entries, e)
			synced = synced && t.clock.ok
			if zero == nil {
				zero = t
			}
		}
	}
	start := func(t *recordTrack) int64 { // by the publisher's clock, that lips and sound share; else by ours
		if synced {
			return t.clock.at(t.first.RTP)
		}
		return t.first.Arrived.UnixNano()
	}
	for _, t := range r.tracks {
		if t.number >= 0 {
			t.base, t.lastRTP = time.Duration(start(t)-start(zero)), t.first.RTP
		}
	}
	var err error
	if r.file, err = newMatroskaFile(r.f, entries); err != nil {
		return err
	}
	for _, q := range r.queue {
		if err := r.writeOut(q.track, q.frame, q.resumed); err != nil {
			return err
		}
	}
	r.queue = nil
	return nil
}

func (r *recorder) writeOut(t *recordTrack, f frame.Frame, resumed bool) error {
	if t.number < 0 {
		return nil // came after the header was written
	}
	step := int64(int32(f.RTP - t.lastRTP))
	if resumed { // its timestamps say nothing about the time since
		step = int64(f.Arrived.Sub(t.last).Seconds() * float64(t.clock.rate))
	}
	t.elapsed += step
	t.lastRTP, t.last = f.RTP, f.Arrived
	at := t.base + time.Duration(t.elapsed*1_000_000/t.clock.rate)*time.Microsecond
	if at < 0 {
		return nil // sound from before the first picture
	}
	return r.file.write(t.number, at, f.Key, t.kind == media.Video, f.Data)
}

// restart: the tracks go on in another session. What is queued has the times of this one.
func (r *recorder) restart() {
	if r.err == nil && r.file == nil && len(r.queue) > 0 {
		r.err = r.begin()
	}
	for _, t := range r.tracks {
		t.resumed = true
	}
}

// finish completes the file. A file without a frame is removed, which is an error.
func (r *recorder) finish() error {
	if r.err == nil && r.file == nil && len(r.queue) > 0 {
		r.err = r.begin()
	}
	if r.err == nil && r.file == nil {
		r.err = errors.New("no complete frame came, so there is nothing to write")
	}
	if r.err == nil {
		r.err = r.file.flush()
	}
	if err := r.f.Close(); r.err == nil {
		r.err = err
	}
	if r.file == nil {
		os.Remove(r.path)
	}
	if r.err != nil {
		return fmt.Errorf("write %s: %w", r.path, r.err)
	}
	return nil
}
