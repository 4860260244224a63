package cluster

import (
	"fmt"
	"math"
	"testing"
	"time"

	"sluice/media"
)

func refusedView(at time.Time, serving ...Serving) View {
	return View{At: at, Nodes: []Node{{ID: "a", Role: Edge, State: Ready, LastHeartbeat: at, Serving: serving}}}
}

func TestRefused(t *testing.T) {
	now := time.Unix(1000, 0)
	key := media.Key{App: "live", ID: "s"}
	for _, c := range []struct {
		name     string
		stream   media.Key
		serving  []Serving
		more     int  // sessions that the node takes
		again    bool // a view comes before the refusal
		late     bool // and it has the sessions
		sessions int
		sites    int
	}{
		{name: "nothing is left", stream: key},
		{name: "nor of a session without a stream"},
		{name: "others of the stream stay", stream: key, more: 2, sessions: 2, sites: 1},
		{name: "and so does what the row has", stream: key, serving: []Serving{{Stream: key, Viewers: 5}}, sessions: 5, sites: 1},
		{name: "a view later", stream: key, more: 1, again: true, sessions: 1, sites: 1},
		{name: "after a row that should have had it", stream: key, again: true, late: true, sites: 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := NewPlacer(Edge, "", 1, func() time.Time { return now })
			v := refusedView(now, c.serving...)
			p.Show(v)
			for range 1 + c.more {
				p.Place(c.stream, nil)
			}
			if c.again {
				at := now
				if c.late {
					at = at.Add(shownAfter)
				}
				p.Show(refusedView(at, c.serving...))
			}
			p.Refused(c.stream, "a")
			p.Refused(media.Key{App: "live", ID: "other"}, "a") // unknown, like the next
			p.Refused(c.stream, "b")
			sites := 0
			for _, s := range p.sites {
				if s.round == p.round {
					sites++
				}
			}
			if got := p.spots["a"].sessions; got != c.sessions || sites != c.sites {
				t.Errorf("%d sessions of %d streams, want %d of %d", got, sites, c.sessions, c.sites)
			}
			if load := p.near.load; math.Abs(load-p.spots["a"].load) > 1e-9 || (c.more == 0 && load > 1e-9) {
				t.Errorf("load %f, of the node %f", load, p.spots["a"].load)
			}
		})
	}
}

// TestPlacerIsBounded: while the registry is away no view comes, and made-up streams don't pile up.
func TestPlacerIsBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	p := NewPlacer(Edge, "", 1, func() time.Time { return now })
	key := media.Key{App: "live", ID: "s"}
	p.Show(refusedView(now, Serving{Stream: key, Viewers: 5}))
	for i := range 3 * maxRecent {
		p.Place(media.Key{App: "live", ID: fmt.Sprint("x", i)}, nil)
	}
	if len(p.sites) > maxRecent+1 || len(p.recent) > maxRecent || p.sites[key] == nil {
		t.Errorf("%d streams and %d sessions are remembered", len(p.sites), len(p.recent))
	}
}
