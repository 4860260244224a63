package rtc

import (
	"time"
)

// cluster is a short time in which more is sent to a peer than its media, and what the peer tells of it: it shows what the path takes, which
// media alone can't as long as it is less.
type cluster struct {
	number uint8   // 0: there was none
	open   bool    // what is sent belongs to it
	rate   float64 // bit/s that are to be sent, media included
	begun  time.Time
	until  time.Time

	packets, bytes      int   // sent
	firstSent, lastSent int64 // microseconds, ours
	got, lost           int
	gotBytes, first     int   // of those that came, and of the first
	firstCame, lastCame int64 // microseconds, the peer's
}

// probeFor is how long a probe lasts, and probeWait how long its last packets may be on their way.
const (
	probeFor  = 60 * time.Millisecond
	probeWait = time.Second
)

// Probe sends more than the media for a moment, up to rate bit/s, by sending packets again that the peer has. The estimate rises to what came of
// it. It does nothing for a peer that tells no arrival times, or whose path is busy already.
func (v *Sender) Probe(rate int) {
	if sh := v.home(); sh != nil {
		sh.post(task{call: func(sh *shard) { v.probe(sh, float64(rate)) }})
	}
}

func (v *Sender) probe(sh *shard, rate float64) {
	if v.gone || v.lane == nil || v.wide == nil || v.tcp != nil || len(v.waiting) > 0 || len(v.again) > 0 || v.wide.probe.pending(sh.now) {
		return
	}
	v.wide.probe = cluster{number: v.wide.probe.number%255 + 1, open: true, rate: rate, begun: sh.now, until: sh.now.Add(probeFor)}
	sh.fallBehind(v)
}

// pending reports whether a probe is under way, or its result.
func (c *cluster) pending(now time.Time) bool {
	return c.number != 0 && (c.open || c.packets > c.got+c.lost && now.Sub(c.until) < probeWait)
}

// sendProbe sends what is due of a probe; it reports whether there will be more.
func (v *Sender) sendProbe(sh *shard) bool {
	if v.wide == nil || !v.wide.probe.open {
		return false
	}
	c := &v.wide.probe
	t := &v.tracks[v.group.picture]
	due := int(c.rate/8*sh.now.Sub(c.begun).Seconds()) - c.bytes
	for seq, n := uint16(t.sent.top), 0; due > 0 && n < paceAfter; seq, n = seq-1, n+1 {
		before := c.bytes
		if v.resendOne(sh, asked{v.group.picture, seq}) {
			due -= c.bytes - before
		}
	}
	if !sh.now.Before(c.until) {
		c.open = false
	}
	return c.open
}

// sent notes a packet of a probe.
func (c *cluster) sent(size int, at int64) {
	if c.packets == 0 {
		c.firstSent = at
	}
	c.packets, c.bytes, c.lastSent = c.packets+1, c.bytes+size, at
}

// came notes that a packet of a probe came.
func (c *cluster) came(size int, at int64) {
	if c.got == 0 {
		c.first, c.firstCame = size, at
	}
	c.got, c.gotBytes, c.lastCame = c.got+1, c.gotBytes+size, max(c.lastCame, at)
}

// result is what the path takes by the probe, in bit/s, once the peer has told of all of it. It is said once.
func (c *cluster) result() (rate float64, ok bool) {
	if c.number == 0 || c.open || c.packets == 0 || c.got+c.lost < c.packets {
		return 0, false
	}
	sent, came := float64(c.lastSent-c.firstSent)/1e6, float64(c.lastCame-c.firstCame)/1e6
	few := c.got < 5 || c.lost*10 > c.packets || sent <= 0 || came <= 0
	rate = float64(c.gotBytes-c.first) * 8 / max(sent, came)
	if came > 1.1*sent { // the path was full: the queue that has filled must empty
		rate *= 0.95
	}
	c.packets = 0
	return rate, !few
}
