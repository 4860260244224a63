package crowd

import (
	"context"
	"fmt"
	"math"
	"time"
)

// Capacity says how to find out how many viewers a server carries.
type Capacity struct {
	From  int           // viewers of the first step
	Hold  time.Duration // the measured time of a step
	Limit time.Duration // of the whole search
}

// DefaultCapacityThresholds are what a server must keep to count as carrying its viewers.
func DefaultCapacityThresholds() []Threshold {
	all, err := ParseThresholds("loss>0.5%,latency_p95>200ms,up<99%")
	if err != nil {
		panic(err) // a constant; every test fails
	}
	return all
}

// Step is a number of viewers that was tried.
type Step struct {
	At      float64 `json:"at"` // seconds since the begin
	Viewers int     `json:"viewers"`
	Passed  bool    `json:"passed"`
	Why     string  `json:"why,omitempty"` // it did not
	Figures Figures `json:"figures"`
}

// Found is the result of the search.
type Found struct {
	Viewers int    `json:"viewers"` // the most that passed; 0: not even the first step did
	Reason  string `json:"reason"`  // why not more
	// LoadIsTheLimit: this tool, or this machine, was too busy to tell. The server may carry more.
	LoadIsTheLimit bool   `json:"loadIsTheLimit"`
	Steps          []Step `json:"steps"`
}

const (
	growBy     = 1.5
	calm       = 1500 * time.Millisecond // after viewers have come or gone
	busyLimit  = 90.0                    // percent of the processors that this tool may use
	exactShare = 0.03                    // the search ends when the best and the first that broke are so close
)

// next is the number of viewers to try; 0: the search is over. good is the most that passed, bad the fewest that did not,
// 0: none did.
func (k *Capacity) next(good, bad, most int) int {
	switch {
	case good == 0 && bad == 0:
		return min(k.From, most)
	case bad == 0 && good >= most:
		return 0
	case bad == 0:
		return min(most, max(good+1, int(math.Ceil(float64(good)*growBy))))
	case bad-good <= max(1, int(exactShare*float64(good))):
		return 0
	case good == 0 && bad > 8: // far too many to begin with
		return bad / 4
	}
	return good + (bad-good)/2
}

// findCapacity raises the viewers until something breaks, then looks for the place between.
func (c *crowd) findCapacity(ctx context.Context, r *Report, before look) *outcome {
	k, most := c.cfg.Capacity, c.cfg.Streams*c.cfg.Viewers
	found := &Found{}
	r.Capacity = found
	deadline := c.start.Add(k.Limit)
	good, bad := 0, 0
	var last, best *outcome
	for {
		n := k.next(good, bad, most)
		if n == 0 {
			break
		}
		if time.Now().After(deadline) {
			found.Reason = fmt.Sprintf("the time of %s was over; %d were still to be tried", k.Limit, n)
			break
		}
		s, o := c.try(ctx, n, before)
		if ctx.Err() != nil && !s.Passed { // not its fault
			found.Reason = "it was stopped"
			break
		}
		found.Steps = append(found.Steps, s)
		if c.cfg.Step != nil {
			c.cfg.Step(s)
		}
		last = o
		if s.Passed {
			good, best = n, o
		} else {
			bad, found.Reason, found.LoadIsTheLimit = n, fmt.Sprintf("with %d viewers %s", n, s.Why), c.overloaded(s.Figures) != ""
		}
	}
	found.Viewers = good
	if found.Reason == "" {
		found.Reason = fmt.Sprintf("no threshold was broken; more than %d were not asked for (--viewers)", most)
	}
	if best != nil {
		return best
	}
	return last
}

// try holds a number of viewers for a while.
func (c *crowd) try(ctx context.Context, n int, before look) (Step, *outcome) {
	c.say(fmt.Sprintf("%d viewers", n))
	c.mu.Lock()
	c.failed, c.joins = 0, nil
	c.mu.Unlock()
	for _, l := range c.loops {
		l.do(func() { l.figures.pictures = nil })
	}
	c.forgetLost(ctx)
	c.leave(ctx, n)
	c.grow(ctx, n)
	pause(ctx, calm)
	w := c.begin(before)
	w.asked = n
	pause(ctx, c.cfg.Capacity.Hold)
	o := c.measured(w)
	f := c.figures(o)
	s := Step{At: time.Since(c.start).Seconds(), Viewers: n, Figures: f, Passed: true}
	if b := broken(c.cfg.Thresholds, f); len(b) > 0 {
		s.Passed, s.Why = false, b[0].String()
		if busy := c.overloaded(f); busy != "" {
			s.Why += "; but " + busy
		}
	}
	if s.Passed && float64(o.up) < 0.9*float64(n) { // whatever the thresholds say
		s.Passed, s.Why = false, fmt.Sprintf("only %d of them were up", o.up)
	}
	s.Passed = s.Passed && ctx.Err() == nil
	return s, o
}

// forgetLost lets those go whose sessions have ended, so that others come in their place.
func (c *crowd) forgetLost(ctx context.Context) {
	c.mu.Lock()
	kept := c.viewers[:0]
	var lost []*viewer
	for _, v := range c.viewers {
		select {
		case <-v.session.over:
			lost = append(lost, v)
		default:
			kept = append(kept, v)
		}
	}
	c.viewers = kept
	c.mu.Unlock()
	for _, v := range lost {
		v.session.close(ctx)
	}
}

// overloaded says when this tool may be what was measured, "" when it isn't.
func (c *crowd) overloaded(f Figures) string {
	switch {
	case f["load_busy"] >= busyLimit:
		return fmt.Sprintf("this tool itself was busy to %.0f %% of the processors that it may use: run it on another machine, or on more", f["load_busy"])
	case f["machine_busy"] >= 97 && f["load_cores"] > 0.2:
		s := fmt.Sprintf("this machine was busy to %.0f %%, of which this tool took %.1f cores", f["machine_busy"], f["load_cores"])
		if v, ok := f["server_cores"]; ok {
			s += fmt.Sprintf(" and the server %.1f", v)
		}
		return s + ": run the server on another machine to see what it carries alone"
	}
	return ""
}
