package ladder

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/at-wat/ebml-go"
	"github.com/at-wat/ebml-go/webm"
	"github.com/pion/rtp"

	"sluice/codec/frame"
	"sluice/media"
)

// queueFrames is how many frames wait for the child at most: about a second. Then frames are left out up to the next key frame.
const queueFrames = 32

// moment is when a frame was captured, and how it is known.
type moment struct {
	time      int64 // of the child's input, in ticks
	timestamp uint32
	captured  int64
	arrived   int64
}

// tick is the unit of time in the child's input, 0.1 ms: Matroska has no 1/90000 s.
const tick = 100 * time.Microsecond

// input is a stream.Subscriber that puts the picture's frames together for the child.
type input struct {
	job *job

	mu      sync.Mutex
	frames  frame.Assembler
	cut     bool // only a key frame will do
	begun   bool
	timed   bool
	last    uint32 // timestamp
	elapsed int64  // of timestamps since the first
	seq     uint16
	current *media.Burst
	moments [256]moment  // by time
	stamps  [512]stamped // the latest bursts
	next    int          // in stamps
	queue   chan queued
	full    bool // the queue was: frames are left out up to a key frame
	fell    int  // how often it was, since last asked
	lost    int  // frames that were left out
	lastKey time.Time
	lastFed time.Time // when the child last had a frame to take
}

// queued is a frame for the child.
type queued struct {
	frame.Frame
	time int64
}

func newInput(j *job) *input {
	in := &input{job: j, cut: true, queue: make(chan queued, queueFrames)}
	in.frames = frame.Assembler{Codec: j.source.Codec.Name, Video: true, Out: in.frame}
	return in
}

// GOP implements stream.Subscriber.
func (in *input) GOP(bursts []*media.Burst) {
	for _, b := range bursts {
		in.Burst(b)
	}
}

// Burst implements stream.Subscriber.
func (in *input) Burst(b *media.Burst) {
	if b.Track != in.job.picture {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	now := time.Now()
	if in.job.lent() {
		in.note(b, now)
		return
	}
	in.current = b
	open := len(b.Packets) > 0 && !b.Packets[len(b.Packets)-1].Marker // the frame goes on in another burst, and this one's memory does not last
	for i := range b.Packets {
		p := &b.Packets[i]
		gap := in.begun && p.Seq != in.seq
		if in.begun && int16(p.Seq-in.seq) < 0 {
			continue // late: its frame was given up
		}
		in.begun, in.seq = true, p.Seq+1
		in.cut = in.cut || gap
		payload := p.Payload
		if open {
			payload = bytes.Clone(payload)
		}
		in.frames.Push(&rtp.Packet{Header: rtp.Header{SequenceNumber: p.Seq, Timestamp: b.Timestamp, Marker: p.Marker}, Payload: payload}, now, gap)
	}
	in.current = nil
}

// stamped is which timestamp a time of capture has on this node.
type stamped struct {
	captured  int64
	timestamp uint32
}

// note remembers a burst of which another node makes renditions, with the lock held.
func (in *input) note(b *media.Burst, now time.Time) {
	in.lastFed = now
	if b.Key {
		in.lastKey = now
	}
	in.stamps[in.next%len(in.stamps)] = stamped{b.Captured, b.Timestamp}
	in.next++
}

// stamp is the timestamp that a frame has here that comes from another node.
func (in *input) stamp(b *media.Burst) uint32 {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i := in.next - 1; i >= max(0, in.next-len(in.stamps)); i-- { // it is among the newest
		if s := in.stamps[i%len(in.stamps)]; s.captured == b.Captured {
			return s.timestamp
		}
	}
	return b.Timestamp
}

// frame takes a frame that is whole, with the lock held.
func (in *input) frame(f frame.Frame) {
	if f.Key {
		in.lastKey = f.Arrived
	}
	if in.cut && (!f.Key || f.Params.Height == 0) {
		if in.full {
			in.lost++
		}
		return
	}
	in.cut, in.full = false, false
	if !in.timed {
		in.timed, in.last = true, f.RTP
	}
	in.elapsed += int64(int32(f.RTP - in.last))
	in.last = f.RTP
	at := in.elapsed * int64(time.Second/tick) / int64(in.job.source.Codec.ClockRate)
	if at < 0 {
		return
	}
	m := moment{time: at, timestamp: f.RTP, arrived: f.Arrived.UnixNano()}
	if b := in.current; b != nil {
		m.captured = b.Captured
	}
	in.moments[at%int64(len(in.moments))] = m
	f.Data = bytes.Clone(f.Data)
	in.lastFed = time.Now()
	select {
	case in.queue <- queued{f, at}:
	default:
		in.cut, in.full = true, true
		in.fell++
		in.lost++
	}
}

// of is the moment of a time in the child's output, which may be rounded.
func (in *input) of(at int64) (moment, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, near := range []int64{at, at - 1, at + 1} {
		if m := in.moments[(near+int64(len(in.moments)))%int64(len(in.moments))]; m.time == near && m.arrived != 0 {
			return m, true
		}
	}
	return moment{}, false
}

// Tracks implements stream.Subscriber; the publisher of the renditions is told, too.
func (in *input) Tracks([]media.Track) {}

// Message implements stream.Subscriber.
func (in *input) Message(media.Message) {}

// End implements stream.Subscriber.
func (in *input) End(error) { in.job.end(errOver) }

// keyed is when the source's last key frame came, fed when the child last had a frame to take.
func (in *input) keyed() time.Time { in.mu.Lock(); defer in.mu.Unlock(); return in.lastKey }
func (in *input) fed() time.Time   { in.mu.Lock(); defer in.mu.Unlock(); return in.lastFed }

// overflowed reports whether the queue was full since last asked.
func (in *input) overflowed() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	full := in.fell > 0
	in.fell = 0
	return full
}

// begin drops what waits, so that a new child begins at a key frame, which is asked for.
func (in *input) begin() {
	in.mu.Lock()
	in.cut, in.full, in.fell, in.lastFed = true, false, 0, time.Time{}
	for len(in.queue) > 0 {
		<-in.queue
	}
	in.mu.Unlock()
}

type header struct {
	Header  webm.EBMLHeader    `ebml:"EBML"`
	Segment webm.SegmentStream `ebml:"Segment,size=unknown"`
}

// write gives the child frames until it ends; each is a Matroska cluster of its own (RFC 9559), which is over when the next begins, and is
// decoded before that because its length is known.
func (in *input) write(w io.Writer, first *atomic.Int64, done <-chan struct{}) error {
	begun := false
	var buf []byte
	for {
		var q queued
		select {
		case <-done:
			return nil
		case q = <-in.queue:
		}
		if !begun {
			if !q.Key || q.Params.Height == 0 {
				continue
			}
			begun = true
			first.Store(q.time)
			entry, err := frame.MatroskaTrack(1, media.Video, in.job.source.Codec.Name, 0, in.job.source.Codec.ClockRate, q.Params)
			if err != nil {
				return err
			}
			h := header{Header: *webm.DefaultEBMLHeader}
			h.Header.DocType = "matroska"
			h.Segment.Info = webm.Info{TimecodeScale: uint64(tick), MuxingApp: "sluice", WritingApp: "sluice"}
			h.Segment.Tracks.TrackEntry = []webm.TrackEntry{entry}
			if err := marshal(w, &h); err != nil {
				return err
			}
		}
		buf = appendCluster(buf[:0], q)
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
}

// appendCluster writes a frame as a cluster of its own (RFC 9559 §5.1.3): its Timestamp and a SimpleBlock of track 1.
func appendCluster(b []byte, q queued) []byte {
	flags := byte(0)
	if q.Key {
		flags = 0x80
	}
	const timestamp, block = 2 + 8, 1 + 8 + 4 // bytes: with ID and length, and without the frame
	b = appendSize(append(b, 0x1f, 0x43, 0xb6, 0x75), timestamp+block+len(q.Data))
	b = binary.BigEndian.AppendUint64(append(b, 0xe7, 0x88), uint64(q.time))
	b = appendSize(append(b, 0xa3), 4+len(q.Data))
	return append(append(b, 0x81, 0, 0, flags), q.Data...) // track, time within the cluster
}

// appendSize writes a length in eight bytes (RFC 8794 §6).
func appendSize(b []byte, n int) []byte { return binary.BigEndian.AppendUint64(b, 1<<56|uint64(n)) }

func marshal(w io.Writer, v any) error {
	var b bytes.Buffer
	if err := ebml.Marshal(v, &b); err != nil {
		return fmt.Errorf("make the input of FFmpeg: %w", err)
	}
	_, err := w.Write(b.Bytes())
	return err
}
