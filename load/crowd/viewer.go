package crowd

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/rtcp"
)

// seen is what viewers have seen. It can be added up.
type seen struct {
	packets, bytes   uint64
	lost             uint64 // never came, not even again
	repaired         uint64 // came again after they were asked for
	repeated         uint64 // came twice, or too late
	frames           uint64 // complete
	damaged          uint64 // with packets that are lost
	freezes          uint64
	keyFrameRequests uint64
	frozen           time.Duration
}

func (s *seen) add(o seen) {
	s.packets += o.packets
	s.bytes += o.bytes
	s.lost += o.lost
	s.repaired += o.repaired
	s.repeated += o.repeated
	s.frames += o.frames
	s.damaged += o.damaged
	s.freezes += o.freezes
	s.keyFrameRequests += o.keyFrameRequests
	s.frozen += o.frozen
}

func (s *seen) sub(o seen) seen {
	return seen{s.packets - o.packets, s.bytes - o.bytes, s.lost - o.lost, s.repaired - o.repaired, s.repeated - o.repeated,
		s.frames - o.frames, s.damaged - o.damaged, s.freezes - o.freezes, s.keyFrameRequests - o.keyFrameRequests, s.frozen - o.frozen}
}

// share is the part of the packets that is lost, 0 to 1.
func (s *seen) share() float64 {
	if s.lost == 0 {
		return 0
	}
	return float64(s.lost) / float64(s.lost+s.packets)
}

// viewer is a session that watches. After its begin it belongs to its loop.
type viewer struct {
	session *session
	stream  int
	tracks  []*track // by payload type, see find
	began   time.Time
	joined  time.Duration // until media could flow

	seen, base seen          // base: at the beginning of the measured time
	first      int64         // packet; Unix nanoseconds
	picture    time.Duration // until the first key frame was complete; 0: none came
	shown      int64         // when the last frame that can be shown was complete
	from       int64         // beginning of the measured time
	longest    time.Duration // between such frames, in the measured time
	pace       pace
	asked      int64 // for a key frame
	ssrc       uint32
	reports    int
	stale      int // frames of an earlier moment than one that was shown
	newest     int64
	worst      span // the longest, in the measured time
	jumps      int  // numbers or timestamps that did not go on, in the measured time
	again      int  // sessions after the first, in the measured time

	before  *viewer       // whose place it will take with its first picture
	took    chan struct{} // closed when it has
	retired bool          // another one has its place
	follows bool          // it comes back when its session is lost

	latest  int64 // packet; Unix nanoseconds
	stall   time.Duration
	stalled func(*viewer) // no packet came for stall; nil: nobody cares. It must not block
	asking  bool          // stalled was called, and its question has no answer yet
	wide    *wide         // nil: the server does not ask for arrival times
}

// span is a time between two pictures, in Unix nanoseconds.
type span struct{ from, to int64 }

// pace is the mean of the last frames' intervals, of which a freeze is told.
type pace struct {
	last [30]int32 // µs
	n    int
	sum  int64 // µs
}

func (p *pace) add(d time.Duration) {
	us := int32(min(d, time.Minute) / time.Microsecond)
	i := p.n % len(p.last)
	p.sum += int64(us) - int64(p.last[i])
	p.last[i] = us
	p.n++
}

// freeze is the definition of freezeCount (W3C webrtc-stats): an interval of at least three times the mean, and of
// 150 ms more than the mean.
func (p *pace) freeze(d time.Duration) bool {
	if p.n < 5 {
		return false
	}
	mean := time.Duration(p.sum/int64(min(p.n, len(p.last)))) * time.Microsecond
	return d >= max(3*mean, mean+150*time.Millisecond)
}

func newViewer(s *session, began time.Time) *viewer {
	v := &viewer{session: s, began: began, ssrc: rand.Uint32() | 1}
	if s.answer.wide {
		v.wide = &wide{recorder: twcc.NewRecorder(v.ssrc)}
	}
	for pt, f := range s.answer.formats {
		if f.repairs == 0 {
			v.tracks = append(v.tracks, &track{viewer: v, format: f, pt: pt})
		}
	}
	return v
}

// rtp implements medium.
func (v *viewer) rtp(b []byte, at int64) {
	if v.first == 0 {
		v.first = at
	}
	v.latest = at
	v.seen.bytes += uint64(len(b))
	if v.wide != nil {
		v.wide.note(binary.BigEndian.Uint32(b[8:]), b, at)
	}
	pt := b[1] & 0x7f
	for _, t := range v.tracks { // two or three
		if t.pt == pt {
			t.packet(b, at)
			return
		}
	}
	if f, ok := v.session.answer.formats[pt]; ok && f.repairs != 0 {
		for _, t := range v.tracks {
			if t.pt == f.repairs {
				t.repair(b, at)
			}
		}
	}
}

// frame has a complete frame of video; good tells that a decoder can show it.
func (v *viewer) frame(f frameState, good bool) {
	if v.retired {
		return
	}
	v.seen.frames++
	figures := &v.session.loop.figures
	switch {
	case v.picture == 0 && !f.key:
		return // nothing can be shown yet
	case v.picture == 0 && v.before != nil:
		v.picture = time.Duration(f.at - v.began.UnixNano())
		v.succeed()
	case v.picture == 0:
		v.picture = time.Duration(max(f.at, v.session.heard) - v.began.UnixNano()) // what came before the keys can't be shown
		figures.pictures = append(figures.pictures, v.picture)
	}
	if !good {
		return
	}
	if f.stamp != 0 {
		if f.stamp < v.newest {
			v.stale++
		}
		v.newest = max(v.newest, f.stamp)
	}
	if v.shown != 0 {
		v.gap(f.at)
	}
	v.shown = f.at
	// What the server had kept for a fast start says nothing about latency. Before that it is a clock that is behind.
	if before := v.first - f.stamp; f.stamp != 0 && (before <= 0 || before > int64(maxCached)) {
		d := time.Duration(f.at - f.stamp)
		figures.latency.Add(d)
		figures.recent.Add(d)
	}
}

// maxCached is the longest that a server's cache may reach back.
const maxCached = 15 * time.Second

// gap counts the time since the last frame.
func (v *viewer) gap(at int64) {
	d := time.Duration(at - v.shown)
	if v.from < at {
		if from := max(v.shown, v.from); time.Duration(at-from) > v.longest {
			v.longest, v.worst = time.Duration(at-from), span{from, at}
		}
	}
	if v.pace.freeze(d) {
		v.seen.freezes++
		v.seen.frozen += d
	}
	v.pace.add(d)
}

// rtcp implements medium.
func (v *viewer) rtcp(packets []rtcp.Packet, at int64) {
	for _, p := range packets {
		sr, ok := p.(*rtcp.SenderReport)
		if !ok {
			continue
		}
		for _, t := range v.tracks {
			if t.started && t.ssrc == sr.SSRC {
				t.clockRTP, t.clockWall = sr.RTPTime, fromNTP(sr.NTPTime)
				t.report, t.reported = uint32(sr.NTPTime>>16), at
			}
		}
	}
}

// fromNTP is a time in Unix nanoseconds; NTP counts from 1900 (RFC 5905 §6).
func fromNTP(ntp uint64) int64 {
	return (int64(ntp>>32)-ntpEpoch)*1e9 + int64((ntp&0xffffffff)*1e9>>32)
}

func toNTP(unixNano int64) uint64 {
	s, ns := unixNano/1e9, unixNano%1e9
	return uint64(s+ntpEpoch)<<32 | uint64(ns)<<32/1e9
}

const ntpEpoch = 2208988800

// How long to wait for a key frame that comes by itself, and between two requests.
const (
	keyPatience = 700 * time.Millisecond
	keyEvery    = 500 * time.Millisecond
)

// hurry implements medium: it asks for what is missing.
func (v *viewer) hurry(now time.Time) bool {
	more, at := v.picture == 0 || v.wide != nil, now.UnixNano()
	if v.wide != nil {
		v.wide.tell(v.session, now)
	}
	for _, t := range v.tracks {
		t.overdue(at)
		v.nack(t, at)
		more = more || len(t.holes) > 0 || t.broken
		if t.format.video {
			v.askKey(t, now)
		}
	}
	return more
}

func (v *viewer) nack(t *track, now int64) {
	var lost []uint16
	for i := range t.holes {
		h := &t.holes[i]
		if now-h.since >= int64(nackAfter) && now-h.asked >= int64(nackEvery) {
			h.asked = now
			lost = append(lost, uint16(h.ext))
		}
	}
	if len(lost) > 0 && t.format.video {
		v.session.sendRTCP(&rtcp.TransportLayerNack{SenderSSRC: v.ssrc, MediaSSRC: t.ssrc, Nacks: rtcp.NackPairsFromSequenceNumbers(lost)})
	}
}

func (v *viewer) askKey(t *track, now time.Time) {
	at := now.UnixNano()
	late := v.picture == 0 && t.started && at-v.first > int64(keyPatience)
	if !late && !t.broken || at-v.asked < int64(keyEvery) {
		return
	}
	v.asked = at
	v.seen.keyFrameRequests++
	v.session.sendRTCP(&rtcp.PictureLossIndication{SenderSSRC: v.ssrc, MediaSSRC: t.ssrc})
}

// beat implements medium: every other time it sends a receiver report (RFC 3550 §6.4.2).
func (v *viewer) beat(now time.Time) {
	if v.stalled != nil && v.first != 0 && !v.asking && now.UnixNano()-v.latest >= int64(v.stall) {
		v.asking = true
		v.stalled(v)
	}
	if v.reports++; v.reports%2 == 0 {
		return
	}
	rr := &rtcp.ReceiverReport{SSRC: v.ssrc}
	for _, t := range v.tracks {
		if t.started {
			rr.Reports = append(rr.Reports, t.reception(now.UnixNano()))
		}
	}
	if len(rr.Reports) > 0 {
		v.session.sendRTCP(rr)
	}
}

func (t *track) reception(now int64) rtcp.ReceptionReport {
	expected := t.top - t.base + 1
	r := rtcp.ReceptionReport{SSRC: t.ssrc, LastSequenceNumber: t.top, Jitter: t.jitter >> 4, LastSenderReport: t.report}
	if lost := int32(expected - t.received); lost > 0 {
		r.TotalLost = min(uint32(lost), 1<<23-1)
	}
	if d := expected - t.before; d > 0 {
		if lost := int32(d) - int32(t.received-t.extra); lost > 0 {
			r.FractionLost = uint8(min(255, uint32(lost)<<8/d))
		}
	}
	t.before, t.extra = expected, t.received
	if t.report != 0 {
		r.Delay = uint32((now - t.reported) * 65536 / 1e9)
	}
	return r
}

// measure begins the measured time.
func (v *viewer) measure(now int64) {
	v.base, v.from, v.longest, v.worst = v.seen, now, 0, span{}
	v.stale, v.jumps, v.again = 0, 0, 0
}

// finish ends it: silence at the end counts, too.
func (v *viewer) finish(now int64) {
	if v.shown != 0 && (!v.session.gone || v.follows) {
		v.longest = max(v.longest, time.Duration(now-max(v.shown, v.from)))
	}
}
