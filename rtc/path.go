package rtc

import "time"

// Path is what is known of the way to a viewer at a moment.
type Path struct {
	At        time.Time
	Rendition int // the stream's track of which the viewer gets the picture
	Estimate  int // bit/s, see SenderStats; 0: nothing is known
	// Lag is the time since the newest packet was sent of which the peer has told, if more was sent after it: it grows when the path is full. 0: the
	// peer tells no arrival times.
	Lag       time.Duration
	Waiting   time.Duration // the oldest packet that the path has not been given yet waits so long
	RoundTrip time.Duration
	Probing   bool // the result of a probe is not there yet
}

// Survey calls OnPath for each viewer who has joined.
func (g *Group) Survey() {
	for i, l := range g.lanes {
		if l.joined.Load() > 0 {
			g.endpoint.shards[i].post(task{call: l.survey})
		}
	}
}

func (l *lane) survey(sh *shard) {
	for _, v := range l.viewers {
		if v.onPath != nil {
			v.onPath(v.path(sh.now))
		}
	}
}

func (v *Sender) path(now time.Time) Path {
	p := Path{At: now, Rendition: v.Rendition()}
	v.mu.Lock()
	p.Estimate, p.RoundTrip = v.stats.Estimate, v.stats.RoundTrip
	v.mu.Unlock()
	if v.wide != nil {
		p.Lag, p.Probing = v.wide.lag(now), v.wide.probe.pending(now)
	}
	if len(v.waiting) > 0 {
		p.Waiting = now.Sub(v.waiting[0].at)
	}
	return p
}
