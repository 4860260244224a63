package webrtc

import (
	"slices"
	"time"

	"sluice/rtc"
)

// rung is a rendition of a stream's picture that a viewer may get.
type rung struct {
	track  int
	rate   int // bit/s
	height int // pixels; 0: not known
}

// The rules by which a viewer's rendition is chosen; docs/adaptive-bitrate.md explains them.
const (
	// headroom is what the path must take more than a rung needs before the viewer goes up to it, and upProbe what a probe tries.
	headroom = 1.1
	upProbe  = 1.25
	// tooLong is how long packets may wait before the path counts as full, and settle how long it is left alone after that.
	tooLong = 200 * time.Millisecond
	settle  = time.Second
	// emptied is how long packets may wait on the path for it to be probed: else it has no room.
	emptied = 50 * time.Millisecond
	// sure is how long the estimate must be too low for a rung before the viewer goes down: a key frame alone can make it so. trial is how long it
	// is not believed after he has come or went up, as it does not know yet what is sent now. A path that is full is believed at once.
	sure  = 600 * time.Millisecond
	trial = 2 * time.Second
	// calm is how long nobody goes up after he had to go down; it doubles each time that this was tooSoon after he went up, up to mostCalm.
	calm     = 3 * time.Second
	mostCalm = 48 * time.Second
	tooSoon  = 10 * time.Second
	// probeEvery is the time between probes; it doubles with each that shows no room, up to probeSeldom. After one that has shown some, the
	// next comes probeSoon. A probe is at most probeMost times what
	// is known of the path, so that it does no harm if there is no more.
	probeSoon   = 100 * time.Millisecond
	probeEvery  = 500 * time.Millisecond
	probeSeldom = 2 * time.Second
	probeMost   = 2.5
)

// choice is the state of one viewer. It belongs to the loop that sends to him.
type choice struct {
	begun    bool
	wentUp   time.Time // when he went up last
	trial    time.Time // until then the estimate is not believed that he gets too much
	noUp     time.Time // not before
	calm     time.Duration
	probed   time.Time // when the path was probed last
	pause    time.Duration
	hoped    float64   // what the last probe should have shown, bit/s; 0: it is forgotten
	alarm    bool      // his path was full, and it is not known yet whether that was so
	low      time.Time // since when the estimate is below what he gets
	lastDown time.Time
}

// move is what is to be done for a viewer: nothing by default.
type move struct {
	take     int  // a track; -1: none
	down     bool // because the path takes no more
	full     bool // and has a queue already
	rate     int  // of the track, bit/s
	probe    int  // bit/s; 0: none
	estimate int  // of the path when it was decided, bit/s
}

// step decides. The rungs are ordered by rate, the smallest first. A pinned track is taken whatever the path says; -1: none is.
func (c *choice) step(p rtc.Path, rungs []rung, pinned int) move {
	stay := move{take: -1}
	if len(rungs) == 0 {
		return stay
	}
	at := slices.IndexFunc(rungs, func(r rung) bool { return r.track == p.Rendition })
	if pinned >= 0 {
		if i := slices.IndexFunc(rungs, func(r rung) bool { return r.track == pinned }); i >= 0 && i != at {
			stay.take = pinned
		}
		return stay
	}
	if at < 0 { // what he got is gone
		return move{take: rungs[fits(rungs, p.Estimate)].track}
	}
	if p.Estimate == 0 && !p.Late && p.Waiting == 0 {
		return stay // the peer has told nothing
	}
	if !c.begun {
		c.begun, c.calm, c.pause, c.trial = true, calm, probeEvery, p.At.Add(trial)
	}
	full := p.Late || p.Waiting > tooLong
	if c.alarm && p.At.Sub(c.lastDown) > settle && !full {
		c.alarm, c.noUp = false, p.At // perhaps the peer had only stood still for a moment: a probe will show
	}
	if full && at > 0 {
		return c.down(p, rungs, at, 0, true) // how much it takes is not known before its queue is empty
	}
	best := fits(rungs, p.Estimate)
	if at > 0 && (p.Queue > tooLong && best < at || p.Queue > 2*tooLong) {
		return c.down(p, rungs, at, min(best, at-1), true) // what comes out of the queue is known
	}
	switch {
	case float64(p.Estimate) >= 0.95*float64(rungs[at].rate) || best == at || p.At.Before(c.trial):
		c.low = time.Time{}
	case c.low.IsZero():
		c.low = p.At
	case p.At.Sub(c.low) > sure:
		return c.down(p, rungs, at, best, false)
	}
	return c.up(p, rungs, at)
}

// fits is the highest rung that a path takes; the lowest if none does.
func fits(rungs []rung, estimate int) int {
	for i := len(rungs) - 1; i > 0; i-- {
		if float64(rungs[i].rate)*headroom <= float64(estimate) {
			return i
		}
	}
	return 0
}

func (c *choice) down(p rtc.Path, rungs []rung, at, to int, full bool) move {
	if p.At.Sub(c.lastDown) < 2*tooLong { // what was sent before has not come yet
		return move{take: -1}
	}
	wrong := !c.wentUp.IsZero() && p.At.Sub(c.wentUp) < tooSoon
	if wrong {
		c.calm = min(2*c.calm, mostCalm)
	} else {
		c.calm = calm
	}
	c.lastDown, c.noUp = p.At, p.At.Add(c.calm)
	c.alarm = full && !wrong
	c.pause, c.hoped = probeEvery, 0
	return move{take: rungs[to].track, down: true, full: full, rate: rungs[to].rate}
}

// up goes to a higher rung if the path has shown that it takes it, else it asks the path.
func (c *choice) up(p rtc.Path, rungs []rung, at int) move {
	if at == len(rungs)-1 || p.At.Before(c.noUp) {
		return move{take: -1}
	}
	if to := fits(rungs, p.Estimate); to > at {
		c.wentUp, c.trial = p.At, p.At.Add(trial)
		m := move{take: rungs[to].track}
		if to < len(rungs)-1 {
			m.probe = c.ask(p, rungs[to+1])
		}
		return m
	}
	return move{take: -1, probe: c.ask(p, rungs[at+1])}
}

// ask says with how much to probe the path for a rung, 0 if it is not the time.
func (c *choice) ask(p rtc.Path, r rung) int {
	if p.Probing {
		return 0
	}
	switch { // what came of the last one
	case c.hoped > 0 && float64(p.Estimate) < c.hoped:
		c.pause = min(max(2*c.pause, probeEvery), probeSeldom)
	case c.hoped > 0:
		c.pause = probeSoon
	}
	c.hoped = 0
	if p.Queue > emptied || p.At.Sub(c.probed) < c.pause {
		return 0
	}
	c.probed = p.At
	want := min(upProbe*float64(r.rate), probeMost*float64(p.Estimate))
	c.hoped = want / upProbe * headroom
	return int(want)
}
