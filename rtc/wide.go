package rtc

import (
	"time"

	"github.com/pion/rtcp"
)

// wide numbers what goes to one peer over all its tracks, and estimates the bandwidth of the path from the arrival times that
// the peer tells (draft-holmer-rmcat-transport-wide-cc-extensions-01). The estimate is the smaller one of two (draft-ietf-rmcat-gcc-02): one
// falls when delay grows, the other when packets are lost. It belongs to the shard's loop.
type wide struct {
	next uint16
	sent [1 << 10]sentPacket // by number

	groups  groups
	trend   trend
	acked   rate
	byDelay float64 // bit/s; 0: nothing was told yet
	byLoss  float64
	at      time.Time // of the feedback before
	heard   lossWindow
	probe   cluster
	told    int64  // when the newest packet was sent of which the peer has told, microseconds
	upTo    uint16 // and its number
}

// sentPacket is one that the peer will tell of.
type sentPacket struct {
	number uint16
	size   uint16 // bytes
	probe  uint8  // of which it is a part; 0: none
	at     int64  // microseconds; 0: nothing was sent
}

// stamp takes the next number, for a packet of size bytes.
func (w *wide) stamp(size int, now time.Time) uint16 {
	n := w.next
	w.next++
	p := sentPacket{number: n, size: uint16(size), at: now.UnixMicro()}
	if w.probe.open {
		p.probe = w.probe.number
		w.probe.sent(size, p.at)
	}
	w.sent[n%uint16(len(w.sent))] = p
	return n
}

// lag is how long ago the oldest packet was sent of which the peer has not told, behind those of which it has: up to a round trip and the time between
// two of the peer's messages, or more when the path is full.
func (w *wide) lag(now time.Time) time.Duration {
	p := &w.sent[(w.upTo+1)%uint16(len(w.sent))]
	if w.told == 0 || p.number != w.upTo+1 || p.at == 0 {
		return 0
	}
	return time.Duration(now.UnixMicro()-p.at) * time.Microsecond
}

// Limits of the estimates, in bit/s.
const (
	leastEstimate = 50e3
	firstEstimate = 300e3
	mostEstimate  = 1e9
)

// feedback takes what the peer tells, and returns the new estimate in bit/s.
func (w *wide) feedback(f *rtcp.TransportLayerCC, now time.Time) int {
	over := false
	arrived := int64(f.ReferenceTime) * 64000 // microseconds
	number, delta := f.BaseSequenceNumber, 0
	see := func(symbol uint16) {
		p := &w.sent[number%uint16(len(w.sent))]
		known := p.at != 0 && p.number == number
		number++
		if symbol != rtcp.TypeTCCPacketReceivedSmallDelta && symbol != rtcp.TypeTCCPacketReceivedLargeDelta {
			if known {
				w.heard.lost++
				if p.probe != 0 && p.probe == w.probe.number {
					w.probe.lost++
				}
			}
			return
		}
		if delta >= len(f.RecvDeltas) {
			return
		}
		arrived += f.RecvDeltas[delta].Delta
		delta++
		if !known {
			return
		}
		w.heard.got++
		if p.at >= w.told {
			w.told, w.upTo = p.at, p.number
		}
		w.acked.add(int(p.size), now)
		if p.probe != 0 && p.probe == w.probe.number {
			w.probe.came(int(p.size), arrived)
		}
		if sent, came, ok := w.groups.add(p.at, arrived); ok {
			over = w.trend.add(sent, came) || over
		}
		p.at = 0
	}
	left := int(f.PacketStatusCount)
	for _, c := range f.PacketChunks {
		switch c := c.(type) {
		case *rtcp.RunLengthChunk:
			for range min(int(c.RunLength), left) {
				see(c.PacketStatusSymbol)
			}
			left -= int(c.RunLength)
		case *rtcp.StatusVectorChunk:
			for _, s := range c.SymbolList[:min(len(c.SymbolList), max(left, 0))] {
				see(s)
			}
			left -= len(c.SymbolList)
		}
	}
	w.steer(over, now)
	if found, ok := w.probe.result(); ok && !over {
		w.byDelay, w.byLoss = max(w.byDelay, found), max(w.byLoss, found)
	}
	return int(min(w.byDelay, w.byLoss))
}

// steer moves the estimates (draft-ietf-rmcat-gcc-02 §5.5, §6).
func (w *wide) steer(over bool, now time.Time) {
	acked := w.acked.bits(now)
	if w.byDelay == 0 {
		w.byDelay, w.byLoss, w.at = max(firstEstimate, acked), max(firstEstimate, acked), now
	}
	passed := min(now.Sub(w.at), time.Second).Seconds()
	w.at = now
	limit := max(1.5*acked+10e3, firstEstimate) // what was not sent was not measured
	switch {
	case over && acked > 0:
		w.byDelay = min(w.byDelay, 0.85*acked)
	case !over && w.trend.level <= 0:
		w.byDelay = min(w.byDelay*(1+0.08*passed)+1000*passed, max(limit, w.byDelay))
	}
	if share, ok := w.heard.share(now); ok {
		switch {
		case share > 0.1:
			w.byLoss = max(w.byLoss*(1-0.5*share), 0.6*acked) // what arrives, the path takes
		case share < 0.02:
			w.byLoss = min(w.byLoss*1.05+1000, max(limit, w.byLoss))
		}
	}
	w.byDelay = min(max(w.byDelay, leastEstimate), mostEstimate)
	w.byLoss = min(max(w.byLoss, leastEstimate), mostEstimate)
}

// groups joins packets that were sent within a few milliseconds, whose distances say nothing (draft-ietf-rmcat-gcc-02 §5.2).
type groups struct {
	begun              bool
	first, sent, came  int64 // of the group that is open, microseconds
	lastSent, lastCame int64 // of the one before
	whole              bool  // there is one before
}

const groupSpan = 5000 // microseconds

// add takes a packet. When it begins a group, ok says that there are the differences of the two before it: how much later the second was sent, and came.
func (g *groups) add(sent, came int64) (sentDelta, cameDelta int64, ok bool) {
	if g.begun && sent-g.first <= groupSpan {
		g.sent, g.came = max(g.sent, sent), max(g.came, came)
		return 0, 0, false
	}
	if g.begun {
		if g.whole {
			sentDelta, cameDelta, ok = g.sent-g.lastSent, g.came-g.lastCame, g.sent > g.lastSent
		}
		g.lastSent, g.lastCame, g.whole = g.sent, g.came, true
	}
	g.begun, g.first, g.sent, g.came = true, sent, sent, came
	return sentDelta, cameDelta, ok
}

// trend is the slope of the delay over the last groups: above 0 a queue is filling.
type trend struct {
	points    [20]struct{ at, delay float64 } // milliseconds
	n         int
	at, delay float64 // sums
	smooth    float64
	threshold float64
	overFor   float64 // milliseconds
	level     float64 // slope, scaled
}

// add takes the differences of two groups in microseconds, and reports whether the path is overused (draft-ietf-rmcat-gcc-02 §5.3, §5.4).
func (t *trend) add(sentDelta, cameDelta int64) bool {
	if t.threshold == 0 {
		t.threshold = 12.5
	}
	span := float64(sentDelta) / 1000
	t.at += span
	t.delay += float64(cameDelta-sentDelta) / 1000
	t.smooth += (t.delay - t.smooth) / 10
	t.points[t.n%len(t.points)] = struct{ at, delay float64 }{t.at, t.smooth}
	t.n++
	if t.n < len(t.points) {
		return false
	}
	before := t.level
	t.level = t.slope() * min(float64(t.n), 60) * 4
	size := max(t.level, -t.level)
	if size-t.threshold < 15 { // a spike does not move the threshold
		gain := 0.0087
		if size < t.threshold {
			gain = 0.039
		}
		t.threshold = min(max(t.threshold+gain*(size-t.threshold)*min(span, 100), 6), 600)
	}
	if t.level <= t.threshold || t.level < before {
		if t.level <= t.threshold {
			t.overFor = 0
		}
		return false
	}
	t.overFor += span
	return t.overFor > 10
}

// slope is that of the line through the points, by least squares.
func (t *trend) slope() float64 {
	var at, delay float64
	for _, p := range t.points {
		at += p.at
		delay += p.delay
	}
	at, delay = at/float64(len(t.points)), delay/float64(len(t.points))
	var up, down float64
	for _, p := range t.points {
		up += (p.at - at) * (p.delay - delay)
		down += (p.at - at) * (p.at - at)
	}
	if down == 0 {
		return 0
	}
	return up / down
}

// rate is how fast bytes come, over the last half second.
type rate struct {
	slots [10]int // bytes in 50 ms
	slot  int64   // number of the newest
	since int64   // of the first ever
}

const slotSpan = 50 * time.Millisecond

func (r *rate) move(now time.Time) {
	slot := now.UnixNano() / int64(slotSpan)
	if r.since == 0 {
		r.since, r.slot = slot, slot
	}
	for i := r.slot + 1; i <= min(slot, r.slot+int64(len(r.slots))); i++ {
		r.slots[i%int64(len(r.slots))] = 0
	}
	r.slot = max(r.slot, slot)
}

func (r *rate) add(bytes int, now time.Time) {
	r.move(now)
	r.slots[r.slot%int64(len(r.slots))] += bytes
}

func (r *rate) bits(now time.Time) float64 {
	r.move(now)
	sum := 0
	for _, n := range r.slots {
		sum += n
	}
	span := time.Duration(min(r.slot-r.since+1, int64(len(r.slots)))) * slotSpan
	return float64(sum*8) / span.Seconds()
}

// lossWindow counts what was lost, for a second at a time.
type lossWindow struct {
	got, lost int
	since     time.Time
}

// share is the share that was lost; ok when a second is over.
func (l *lossWindow) share(now time.Time) (share float64, ok bool) {
	if l.since.IsZero() {
		l.since = now
	}
	if now.Sub(l.since) < time.Second || l.got+l.lost == 0 {
		return 0, false
	}
	share = float64(l.lost) / float64(l.got+l.lost)
	*l = lossWindow{since: now}
	return share, true
}
