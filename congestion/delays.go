package congestion

import (
	"slices"
	"time"
)

// delays finds out whether a queue grows on the path (draft-ietf-rmcat-gcc-02 §5). Packets are taken together by the time at which they were sent, and of each
// such group the least delay counts: the first packet of a key frame, or the last of some that a busy machine has read late, stands for how long
// the path's queue was, whatever happened to the others.
type delays struct {
	groups    [16]group // the newest at n
	n         int
	begun     bool
	base      [2]int64 // least delay of two spans of time, the older one first
	baseSince int64
	threshold float64
	slope     float64 // how much the delay grows, of the time
	growing   int     // groups in a row of which that can be said
}

// group are the packets that were sent within groupSpan.
type group struct {
	slot  int64 // number of the span
	least int64 // delay, microseconds; the two clocks differ by anything
	came  int64 // when the last came, microseconds
	bytes int   // that came
	lost  int   // bytes
}

const (
	groupSpan = 50_000     // microseconds
	baseSpan  = 10_000_000 // of a least delay
	window    = 10         // groups for the slope
	tookFor   = 6          // groups for what the path takes now: 0.3 s
	tookLong  = 14         // and for what it takes in any case: when the peer reads late, much comes at once
	// leastSlope and mostSlope are the limits of what counts as growing.
	leastSlope, mostSlope = 0.05, 0.5
	// standing is the least queue that counts, microseconds: all that has come lately has waited so long.
	standing = 15_000
	// crowded is the queue at which losses show that it is full, and lossy how much of what was sent they are.
	crowded, lossy = 60_000, 0.05
)

// add takes a packet. It reports whether it ended a group.
func (d *delays) add(sent, came int64, size int) (ended bool) {
	delay, slot := came-sent, sent/groupSpan
	if !d.begun {
		d.begun, d.threshold = true, leastSlope
		d.base, d.baseSince = [2]int64{delay, delay}, sent
		*d.last(0) = group{slot: slot, least: delay, came: came}
	}
	if sent-d.baseSince > baseSpan {
		d.base[0], d.base[1], d.baseSince = d.base[1], delay, sent
	}
	d.base[1] = min(d.base[1], delay)
	g := d.last(0)
	if slot > g.slot {
		d.trend()
		ended = true
		d.n++
		g = d.last(0)
		*g = group{slot: slot, least: delay, came: d.last(1).came}
	}
	g.least, g.came, g.bytes = min(g.least, delay), max(g.came, came), g.bytes+size
	return ended
}

// lose takes a packet that did not come.
func (d *delays) lose(size int) { d.last(0).lost += size }

// last is the newest group, or one before it.
func (d *delays) last(back int) *group { return &d.groups[(d.n-back+len(d.groups))%len(d.groups)] }

// before is the median of the groups' delays in the quarter of a second before a time, microseconds.
func (d *delays) before(at int64) int64 {
	var least [len(d.groups)]int64
	n := 0
	for i := range min(len(least), d.n+1) {
		if ago := at/groupSpan - d.last(i).slot; ago > 0 && ago <= 5 {
			least[n] = d.last(i).least
			n++
		}
	}
	base := min(d.base[0], d.base[1])
	if n == 0 {
		return base
	}
	slices.Sort(least[:n])
	return min(least[n/2], base+standing)
}

// queue is how long what came lately has waited at least, microseconds.
func (d *delays) queue() int64 {
	least := d.last(0).least
	for i := range min(3, d.n) {
		least = min(least, d.last(i).least)
	}
	return least - min(d.base[0], d.base[1])
}

// trend is called when a group has ended. The slope is that of the line through the last groups by least squares, the threshold adapts itself to what is
// usual on the path (§5.4).
func (d *delays) trend() {
	count := min(window, d.n+1)
	first := d.last(count - 1)
	var at, delay float64 // milliseconds
	for i := range count {
		at += float64(d.last(i).slot-first.slot) * groupSpan / 1000
		delay += float64(d.last(i).least-first.least) / 1000
	}
	at, delay = at/float64(count), delay/float64(count)
	var up, down float64
	for i := range count {
		x := float64(d.last(i).slot-first.slot)*groupSpan/1000 - at
		up += x * (float64(d.last(i).least-first.least)/1000 - delay)
		down += x * x
	}
	d.slope = 0
	if count >= 4 && down > 0 {
		d.slope = up / down
	}
	size := max(d.slope, -d.slope)
	if size < d.threshold+0.1 && d.queue() < crowded { // else it is no noise
		gain := 0.01 // for a group: it falls within seconds
		if size > d.threshold {
			gain = 0.05
		}
		d.threshold = min(max(d.threshold+gain*(size-d.threshold), leastSlope), mostSlope)
	}
	if d.slope > d.threshold && d.last(0).least >= d.last(1).least && d.queue() > standing {
		d.growing++
	} else {
		d.growing = 0
	}
}

// over reports whether the path gets more than it takes: a queue grows, or is full.
func (d *delays) over() bool {
	if d.growing >= 2 {
		return true
	}
	came, lost := 0, 0
	for i := range min(tookFor, d.n) {
		came, lost = came+d.last(i).bytes, lost+d.last(i).lost
	}
	return d.queue() > crowded && float64(lost) > lossy*float64(came+lost)
}

// level is 1 while delays grow, -1 while they fall, else 0.
func (d *delays) level() int {
	switch {
	case d.slope > d.threshold:
		return 1
	case d.slope < -d.threshold:
		return -1
	}
	return 0
}

// took is what came within the last groups, so many, in bit/s by the peer's clock. When a queue grows, it is what the path takes.
func (d *delays) took(groups int) float64 {
	count := min(groups, d.n-1)
	if count < 1 {
		return 0
	}
	bytes, n := 0, 0
	for ; n < count && d.last(n+1).slot-d.last(n+2).slot <= 2; n++ { // before that nothing was sent: it says nothing of the path
		bytes += d.last(n + 1).bytes // the newest is not complete
	}
	span := time.Duration(d.last(1).came-d.last(n+1).came) * time.Microsecond
	if span <= 0 {
		return 0
	}
	return float64(bytes*8) / span.Seconds()
}
