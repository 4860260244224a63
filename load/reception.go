package load

import (
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"sluice/codec/frame"
	"sluice/media"
)

// Frames that wait for the first sender report, to know their latency; the oldest go.
const maxPending = 512

// A viewer sees a freeze when the next frame takes longer than this and than three frames at the
// stream's pace, so that a slow stream is not one long freeze.
const freezeAfter = 200 * time.Millisecond

// reception is one track as it arrives: put in order, put together, measured. Its owner's lock guards it.
type reception struct {
	kind    media.Kind
	codec   string
	clock   wallClock
	order   reorder
	frames  frame.Assembler
	onFrame func(f frame.Frame, intact bool) // intact: no frame is missing since the last key frame

	firstPacket, firstKey time.Time // packet: of the session
	packets, bytes        uint64
	complete, keys        uint64
	undecodable           uint64 // complete, and before a session's first key frame
	started               bool   // the session's first key frame is there
	resumed               bool   // the next frame is another session's first one
	params                frame.Params

	first, last time.Time // arrivals of complete frames
	until       time.Time // end of what is summed up: last, or later when it ended with silence
	lastRTP     uint32    // of the last complete frame
	steady      steadyStart
	interval    time.Duration // between frames at the stream's pace, smoothed
	freezes     int
	frozen      time.Duration // sum of the gaps that were freezes
	longest     time.Duration // gap

	latency Histogram
	recent  Histogram // since the last progress
	cached  uint64    // frames from before the session
	ahead   uint64    // frames that arrived before they were captured: clocks disagree
	pending []arrival

	needKey bool // the decoder can't go on without a key frame
	asked   time.Time
}

// steadyStart is where rates are counted from: servers begin with what they have cached, at once.
type steadyStart struct {
	at     time.Time
	frames uint64 // complete, up to and with the one at that time
	bytes  uint64 // likewise
}

const steadyAfter = 250 * time.Millisecond // since the first complete frame

type arrival struct {
	rtp uint32
	at  time.Time
}

func newReception(kind media.Kind, codec string, rate uint32) *reception {
	r := &reception{kind: kind, codec: codec, clock: wallClock{rate: int64(rate)}, needKey: kind == media.Video}
	r.frames = frame.Assembler{Codec: codec, Video: kind == media.Video, Out: r.frame}
	r.order.out = func(pkt *rtp.Packet, now time.Time, gap bool) {
		r.needKey = r.needKey || gap && r.kind == media.Video
		r.frames.Push(pkt, now, gap)
	}
	return r
}

// packet takes a packet as it comes, and keeps it.
func (r *reception) packet(pkt *rtp.Packet, now time.Time) {
	if r.firstPacket.IsZero() {
		r.firstPacket = now
	}
	r.packets++
	r.bytes += uint64(len(pkt.Payload))
	r.order.push(pkt, now)
}

// report takes a sender report: from now on latency is known, also of frames that were before.
func (r *reception) report(sr *rtcp.SenderReport) {
	r.clock.set(sr)
	for _, p := range r.pending {
		r.measure(p)
	}
	r.pending = nil
}

// restart makes it ready for another session, whose numbers, timestamps and clock are its own.
func (r *reception) restart() {
	r.order = reorder{out: r.order.out, lost: r.order.lost, late: r.order.late, repeated: r.order.repeated}
	r.frames.Reset()
	r.clock, r.pending = wallClock{rate: r.clock.rate}, nil
	r.firstPacket, r.asked = time.Time{}, time.Time{}
	r.started, r.resumed, r.needKey = false, true, r.kind == media.Video
}

func (r *reception) frame(f frame.Frame) {
	if r.kind == media.Video && !r.started && !f.Key {
		r.undecodable++
		return
	}
	r.started = true
	if r.complete > 0 {
		r.gap(f)
	} else {
		r.first = f.Arrived
	}
	r.complete++
	r.last, r.until, r.lastRTP = f.Arrived, f.Arrived, f.RTP
	if r.steady.at.IsZero() && f.Arrived.Sub(r.first) >= steadyAfter {
		r.steady = steadyStart{f.Arrived, r.complete, r.bytes}
	}
	if f.Key {
		r.keys++
		r.needKey = false
		if r.firstKey.IsZero() {
			r.firstKey = f.Arrived
		}
		if f.Params.Width > 0 {
			r.params = f.Params
		}
	}
	switch a := (arrival{f.RTP, f.Arrived}); {
	case r.clock.ok:
		r.measure(a)
	case len(r.pending) < maxPending:
		r.pending = append(r.pending, a)
	}
	if r.onFrame != nil {
		r.onFrame(f, !r.needKey)
	}
}

// gap looks at the time since the last complete frame.
func (r *reception) gap(f frame.Frame) {
	r.pause(f.Arrived.Sub(r.last))
	if r.resumed { // another numbering
		r.resumed = false
		return
	}
	step := int64(int32(f.RTP - r.lastRTP))
	pace := time.Duration(step * int64(time.Second) / r.clock.rate)
	if pace <= 0 || pace > 10*time.Second {
		return // another numbering
	}
	if r.interval == 0 {
		r.interval = pace
	}
	r.interval += (pace - r.interval) / 16
}

func (r *reception) pause(gap time.Duration) (freeze bool) {
	r.longest = max(r.longest, gap)
	if freeze = gap > max(freezeAfter, 3*r.interval); freeze {
		r.freezes++
		r.frozen += gap
	}
	return freeze
}

// The longest that a server's cache may reach back; a frame that seems to be older has a publisher whose clock is behind.
const maxCached = 15 * time.Second

// measure: latency is from the capture, by the clock of the publisher, to the arrival of the frame's last
// packet, by ours. So the two clocks must agree, as on one machine or by NTP, and the server must pass
// on the publisher's sender reports, as ours does. Frames from before the session, that the server
// keeps for a fast start, say nothing about latency.
func (r *reception) measure(a arrival) {
	captured := r.clock.at(a.rtp)
	if before := r.firstPacket.UnixNano() - captured; before > 0 && before < int64(maxCached) {
		r.cached++
		return
	}
	d := time.Duration(a.at.UnixNano() - captured)
	if d < 0 {
		r.ahead++
	}
	r.latency.Add(d)
	r.recent.Add(d)
}

// wantsKey tells whether to ask for a key frame now, as a decoder would: at once after a loss, and
// half a second after the first packet when none came by itself; not more than twice a second.
func (r *reception) wantsKey(now time.Time) bool {
	const often = 500 * time.Millisecond
	if !r.needKey || r.packets == 0 || now.Sub(r.asked) < often || !r.started && now.Sub(r.firstPacket) < often {
		return false
	}
	r.asked = now
	return true
}

// finish delivers what is still held. live tells that the stream went on until
// now, so that silence at the end is a freeze, too.
func (r *reception) finish(now time.Time, live bool) {
	r.order.flush(now)
	if live && r.complete > 0 && r.pause(now.Sub(r.last)) {
		r.until = now
	}
}

func (r *reception) stats() *TrackStats {
	s := &TrackStats{Codec: r.codec, Width: r.params.Width, Height: r.params.Height,
		Frames: r.complete, Undecodable: r.undecodable, Damaged: r.frames.Damaged,
		Packets: r.packets, Bytes: r.bytes, Lost: r.order.lost, Late: r.order.late, Repeated: r.order.repeated,
		Freezes: r.freezes, Frozen: Millis(r.frozen), LongestGap: Millis(r.longest)}
	if r.kind == media.Video {
		s.KeyFrames = r.keys
	}
	from := r.steady
	if from.at.IsZero() || !r.until.After(from.at) { // too short a time to tell
		from = steadyStart{at: r.first, frames: 1}
	}
	if d := r.until.Sub(from.at).Seconds(); d > 0 && r.complete > 0 {
		s.FPS = float64(r.complete-from.frames) / d
		s.Bitrate = float64(r.bytes-from.bytes) * 8 / d
	}
	h := &r.latency
	s.Latency = Latency{Frames: h.Count(), Min: Millis(h.min), P50: Millis(h.Quantile(0.50)), P95: Millis(h.Quantile(0.95)),
		P99: Millis(h.Quantile(0.99)), Max: Millis(h.max), Cached: r.cached, Ahead: r.ahead}
	return s
}
