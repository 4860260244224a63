package rtc

import "time"

// Path is what is known of the way to a viewer at a moment.
type Path struct {
	At        time.Time
	Rendition int           // the stream's track of which the viewer gets the picture
	Estimate  int           // bit/s, see SenderStats; 0: nothing is known
	Late      bool          // the peer tells of nothing for longer than usual: the path is full
	Queue     time.Duration // what came lately has waited so long on the path
	Waiting   time.Duration // the oldest packet that the path has not been given yet waits so long
	RoundTrip time.Duration
	Probing   bool // the result of a probe is not there yet
}

// Survey calls OnPath for the viewers who have joined and have told of nothing just now, or for whom something waits. For the others it was called when they told.
func (g *Group) Survey() {
	for i, l := range g.lanes {
		if l.joined.Load() > 0 {
			g.endpoint.shards[i].post(task{call: l.survey})
		}
	}
}

// tellsEvery is how often peers tell of what came, as a rule.
const tellsEvery = 100 * time.Millisecond

func (l *lane) survey(sh *shard) {
	for _, v := range l.viewers {
		if v.path == nil || len(v.waiting) > 0 || sh.now.Sub(v.learned) > tellsEvery {
			v.tellPath(sh.now)
		}
	}
}

func (v *Sender) tellPath(now time.Time) {
	if v.onPath != nil {
		v.onPath(v.look(now))
	}
}

func (v *Sender) look(now time.Time) Path {
	p := Path{At: now, Rendition: v.Rendition()}
	v.mu.Lock()
	p.Estimate, p.RoundTrip = v.stats.Estimate, v.stats.RoundTrip
	v.mu.Unlock()
	if c := v.path; c != nil {
		p.Estimate, p.Late, p.Queue, p.Probing = c.Estimate(), c.Late(now), c.Queue(), c.Probing(now)
	}
	if len(v.waiting) > 0 {
		p.Waiting = now.Sub(v.waiting[0].at)
	}
	return p
}
