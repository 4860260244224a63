// Package congestion estimates what a path takes from the arrival times that the peer at its end tells, in the manner of
// draft-ietf-rmcat-gcc-02. It has no clock and does no I/O.
//
// Imports: nothing of ours.
package congestion

import (
	"time"
)

// Control numbers what goes to one peer over all its tracks (draft-holmer-rmcat-transport-wide-cc-extensions-01), and estimates what the path takes.
// The estimate is the smaller one of two: one falls when delay grows, the other when packets are lost. It belongs to one goroutine, and
// allocates nothing.
type Control struct {
	next uint16
	last int64  // when the newest was sent, microseconds
	told int64  // when the newest packet was sent of which the peer has told, microseconds; 0: none
	upTo uint16 // and its number

	queued  float64 // bytes that wait for the path, by the estimate
	byDelay float64 // bit/s; 0: nothing was told yet
	byLoss  float64
	full    time.Time // when the path was full last
	least   float64   // bit/s that it was taken to carry then
	probe   probe
	at      time.Time // of the feedback before
	usual   usual
	loss    lossWindow
	clock   clock
	delays  delays

	sent [1 << 10]sentPacket // by number; what each packet needs stands together before it, for the processor's cache
}

// sentPacket is one that the peer will tell of.
type sentPacket struct {
	number uint16
	size   uint16 // bytes
	wait   uint16 // milliseconds behind those that were sent before it, by the estimate
	probe  uint8  // of which it is a part; 0: none
	at     int64  // microseconds; 0: nothing was sent, or the peer has told
}

// Limits of the estimates, in bit/s.
const (
	leastEstimate = 50e3
	firstEstimate = 300e3
	mostEstimate  = 1e9
)

// Send takes the next number, for a packet of size bytes.
func (c *Control) Send(size int, now time.Time) uint16 {
	n := c.next
	c.next++
	p := sentPacket{number: n, size: uint16(size), at: now.UnixMicro()}
	if e := float64(c.Estimate()); e > 0 {
		c.queued = max(0, c.queued-e/8e6*float64(p.at-c.last)) + float64(size)
		p.wait = uint16(min(c.queued*8000/e, mostWait))
	}
	c.last = p.at
	if c.probe.open {
		p.probe = c.probe.number
		c.probe.send(size, p.at)
	}
	c.sent[n%uint16(len(c.sent))] = p
	return n
}

// Estimate is what the path takes, in bit/s; 0: the peer has told nothing.
func (c *Control) Estimate() int { return int(min(c.byDelay, c.byLoss)) }

// lag is how long ago the oldest packet was sent of which the peer has not told, behind those of which it has: up to a round trip and the time between
// two of the peer's messages, or more when the path is full.
func (c *Control) lag(now time.Time) time.Duration {
	p := &c.sent[(c.upTo+1)%uint16(len(c.sent))]
	if c.told == 0 || p.number != c.upTo+1 || p.at == 0 {
		return 0
	}
	return time.Duration(now.UnixMicro()-p.at) * time.Microsecond
}

// Late reports whether the peer tells of nothing for longer than usual: what was sent stands in a queue, or is lost.
func (c *Control) Late(now time.Time) bool {
	own := time.Duration(c.sent[(c.upTo+1)%uint16(len(c.sent))].wait) * time.Millisecond
	return c.lag(now) > own+c.usual.most()
}

// mostWait is how many milliseconds a packet is expected to wait behind others of ours at most.
const mostWait = 200

// Queue is how long what came lately has waited on the path at least.
func (c *Control) Queue() time.Duration { return time.Duration(c.delays.queue()) * time.Microsecond }

// Full says that the path is full. It is taken to carry so much until something else is known.
func (c *Control) Full(rate float64, now time.Time) {
	c.byDelay, c.byLoss = min(c.byDelay, rate), min(c.byLoss, rate)
	c.full, c.least = now, rate
}

// Pace is how fast packets may be given to the path at once, bit/s. More would overflow its queue, which may hold little.
func (c *Control) Pace(now time.Time) float64 {
	switch e := float64(c.Estimate()); {
	case e == 0:
		return paceFirst
	case now.Sub(c.full) < drainFor: // its queue has no room
		return 0
	case now.Sub(c.full) < time.Second, now.Sub(c.full) < crowdedFor && c.delays.queue() > crowded: // what came lately came before that
		return paceFull * c.least
	default:
		return max(pace*max(e, c.delays.took(tookFor)), paceLeast)
	}
}

// What is given to a path at once: as a multiple of the estimate, of what it is taken to carry when it is full, and, before anything is known and at least, in bit/s.
const pace, paceFull, paceFirst, paceLeast = 2.5, 1.2, 4e6, 1e6

// drainFor is how long a path that is full gets no picture at all: what would be sent would wait behind the rest anyway, if it was not lost. crowdedFor is how long it has no room for
// more than must be sent.
const drainFor, crowdedFor = 100 * time.Millisecond, 5 * time.Second

// Crowded reports whether the path has no room for more than must be sent: there is a queue, or was a moment ago, or the path takes little.
func (c *Control) Crowded(now time.Time) bool {
	return c.delays.queue() > crowded || now.Sub(c.full) < crowdedFor || c.byDelay > 0 && c.Estimate() < littleRoom
}

// littleRoom is the estimate below which sound twice is a good part of what a path takes.
const littleRoom = 700e3

// Again is how often a packet that is asked for is sent again: where much is lost, what is sent again is, too, and a picture that waits for the third
// time stands still.
func (c *Control) Again(now time.Time) int {
	switch share := c.loss.now(); {
	case share < 0.01 || c.Crowded(now):
		return 1
	case share < 0.03:
		return 2
	}
	return 3
}

// Feedback takes a message of the peer: what is behind the SSRCs of a transport-wide feedback. What is cut short counts as far as it goes.
func (c *Control) Feedback(b []byte, now time.Time) {
	c.clock.begin(b)
	if c.delays.queue() < crowded {
		c.usual.add(c.lag(now))
	}
	over := false
	each(b, func(number uint16, came bool, delta int64) {
		p := &c.sent[number%uint16(len(c.sent))]
		known := p.at != 0 && p.number == number
		if !came {
			if known {
				c.loss.lost++
				c.delays.lose(int(p.size))
				c.probe.lose(p)
			}
			return
		}
		arrived := c.clock.add(delta)
		if !known {
			return
		}
		c.loss.got++
		if p.at >= c.told {
			c.told, c.upTo = p.at, p.number
		}
		c.probe.take(p, arrived)
		if c.delays.add(p.at, arrived, int(p.size)) {
			over = c.delays.over()
		}
		p.at = 0
	})
	c.steer(over, now)
	if found, ok := c.probe.result(c.delays.before(c.probe.firstSent)); ok {
		c.byDelay, c.byLoss = max(c.byDelay, found), max(c.byLoss, found)
	}
}

// steer moves the estimates (draft-ietf-rmcat-gcc-02 §5.5, §6).
func (c *Control) steer(over bool, now time.Time) {
	took := c.delays.took(tookFor)
	if c.byDelay == 0 {
		c.byDelay, c.byLoss, c.at = firstEstimate, firstEstimate, now
	}
	passed := min(now.Sub(c.at), time.Second).Seconds()
	c.at = now
	long := c.delays.took(tookLong)
	limit := max(1.5*long+10e3, firstEstimate) // what was not sent was not measured
	grow := func(e *float64, perSecond float64) {
		*e = max(*e, min(*e*(1+perSecond*passed)+1000*passed, limit), long) // what came without a queue, the path takes
	}
	switch {
	case over && took > 0: // the queue grows, so what comes out of it is what the path takes
		c.byDelay = min(c.byDelay, drain*took)
	case c.delays.level() == 0 && c.delays.queue() < crowded:
		grow(&c.byDelay, 0.08)
	}
	share, ok := c.loss.share(now)
	switch {
	case ok && share > 0.1:
		c.byLoss = max(c.byLoss*(1-0.5*share), 0.8*took) // what arrives, the path takes
	case c.loss.last < 0.02 && c.delays.queue() < crowded:
		grow(&c.byLoss, 0.05)
	}
	least := max(leastEstimate, leastFull*c.least) // what little is sent to a path that is full measures it badly
	c.byDelay = min(max(c.byDelay, least), mostEstimate)
	c.byLoss = min(max(c.byLoss, least), mostEstimate)
}

// leastFull is the least part of what a path was taken to carry when it was full that it is taken to carry afterwards.
const leastFull = 0.75

// drain is the part of what a path takes that is used until its queue is empty.
const drain = 0.9

// lossWindow counts what was lost, for a second at a time; when it is very much, for less.
type lossWindow struct {
	got, lost int
	since     time.Time
	last      float64 // share
}

// share is the share that was lost; ok when a window is over.
func (l *lossWindow) share(now time.Time) (share float64, ok bool) {
	if l.since.IsZero() {
		l.since = now
	}
	all, passed := l.got+l.lost, now.Sub(l.since)
	if much := l.lost*4 > all && all > 30 && passed > 250*time.Millisecond; passed < time.Second && !much || all == 0 {
		return 0, false
	}
	share = float64(l.lost) / float64(all)
	*l = lossWindow{since: now, last: share}
	return share, true
}

// now is the share of the last window, or of this one if that is more already.
func (l *lossWindow) now() float64 {
	if l.lost < leastLost {
		return l.last
	}
	return max(l.last, float64(l.lost)/float64(l.got+l.lost))
}

// leastLost is how many lost packets say something.
const leastLost = 3

// usual is how long it takes until the peer tells of a packet, as TCP reckons when to send again (RFC 6298 §2).
type usual struct {
	mean, deviation time.Duration
}

const leastLate, mostLate = 100 * time.Millisecond, 500 * time.Millisecond

func (u *usual) add(lag time.Duration) {
	if lag == 0 {
		return
	}
	if u.mean == 0 { // the first is no more than a hint
		u.mean, u.deviation = lag, lag/2
		return
	}
	lag = min(lag, u.most()) // a full path is not usual
	off := lag - u.mean
	u.mean += off / 16
	u.deviation += (max(off, -off) - u.deviation) / 16
}

func (u *usual) most() time.Duration {
	if u.mean == 0 {
		return mostLate
	}
	return u.mean + min(max(4*u.deviation, leastLate), mostLate)
}
