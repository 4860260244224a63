package simulate

import (
	"slices"
	"time"

	"sluice/cluster"
)

// kill plays a Death.
func (w *world) kill(index int, d Death) {
	var dying []*node
	what := ""
	switch {
	case d.Region > 0:
		r := d.Region - 1
		w.gone[r] = true
		for _, g := range w.gateways[r] {
			g.up = false
		}
		for _, n := range slices.Concat(w.edges, w.origins) {
			if n.up && n.region == r {
				dying = append(dying, n)
			}
		}
		what = "region " + regionName(r)
	case d.Origin:
		what = "origin"
		dying = w.draw(w.origins, 1)
	default:
		what = "edge"
		dying = w.draw(w.edges, d.Edges)
	}
	report := &w.out.Deaths[index]
	report.At, report.What, report.Nodes = seconds(w.now), what, len(dying)
	for _, n := range dying { // all are gone before the first is missed
		n.up = false
	}
	for _, n := range dying {
		n.die(index)
	}
	report.Viewers = w.crowd.lost(index)
}

// draw chooses so many that live.
func (w *world) draw(from []*node, count int) (drawn []*node) {
	for tries := 0; len(drawn) < count && tries < 100*count; tries++ {
		if n := from[w.rng.IntN(len(from))]; n.up && !slices.Contains(drawn, n) {
			drawn = append(drawn, n)
		}
	}
	return drawn
}

// publish is a publisher who connects: through a gateway to an origin, which claims the stream.
func (w *world) publish(s *stream, avoid map[string]bool) {
	again := func() { w.after(w.cfg.Times.Again, func() { w.publish(s, nil) }) }
	g := w.gateway(s.region)
	if g == nil {
		again()
		return
	}
	n := g.place(cluster.Origin, s.key, avoid)
	switch {
	case n == nil:
		again()
	case !n.up:
		w.after(w.cfg.Times.Dial, func() {
			g.lost(n)
			w.publish(s, map[string]bool{n.id: true})
		})
	case n.refuses():
		again()
	default:
		way := w.cfg.Times.Client + w.trip(s.region, n.region)
		w.after(w.trip(g.region, n.region)+3*way, func() { w.claim(s, n) })
	}
}

// claim is the origin's: it waits for a holder who may be dead.
func (w *world) claim(s *stream, n *node) {
	if !n.up {
		w.after(w.cfg.Times.Publish, func() { w.publish(s, nil) })
		return
	}
	if until, ok := w.reg.claim(s, n); !ok {
		w.after(until.Sub(w.clock()), func() { w.claim(s, n) })
		return
	}
	w.after(w.reg.took(n.region), func() {
		if !n.up {
			w.publish(s, nil)
			return
		}
		if f := n.of[s.index]; f != nil { // it relayed the stream until now
			f.unlink()
			s.root = f
		} else {
			s.root = n.newFeed(s)
		}
		n.work()
		n.parents++ // the publisher costs as much as a parent
		s.root.flow()
	})
}

// control is the autoscaler, as `sluice up --autoscale` acts on the signals of edges.
type control struct {
	w       *world
	scaler  *cluster.Scaler
	booting []int // by region
	last    []int // desired
}

// drainWithin is the time over which the clients of a node that leaves are told to move.
const drainWithin = 10 * time.Second

func (c *control) init(w *world) {
	*c = control{w: w, scaler: cluster.NewScaler(w.cfg.Scale), booting: make([]int, len(w.cfg.Regions)), last: make([]int, len(w.cfg.Regions))}
	w.at(w.cfg.Settle, func() {
		w.every(time.Second, func() bool { c.act(); return true })
	})
}

func (c *control) act() {
	w := c.w
	g := w.gateway(0)
	if g == nil {
		return
	}
	for _, s := range c.scaler.Observe(g.view) {
		region := w.regionOf(s.Region)
		if s.Role != cluster.Edge || w.gone[region] {
			continue
		}
		if s.Desired != c.last[region] && s.Desired != s.Nodes {
			w.out.Scaling = append(w.out.Scaling, Decision{seconds(w.now), s.Region, s.Nodes, s.Desired, s.Reason})
		}
		c.last[region] = s.Desired
		for n := s.Nodes + c.booting[region]; n < s.Desired && w.living() < w.cfg.MaxEdges; n++ {
			c.boot(region)
		}
		if s.Desired < s.Nodes {
			c.drain(region)
		}
	}
}

func (c *control) boot(region int) {
	w := c.w
	c.booting[region]++
	w.out.Booted++
	w.newNode(cluster.Edge, region).start(w.now + w.cfg.Times.Boot)
	// It is in the view, and so in the signal, a moment later.
	w.after(w.cfg.Times.Boot+2*cluster.RefreshEvery, func() { c.booting[region]-- })
}

// living counts the edges that are up or on their way.
func (w *world) living() (count int) {
	for _, n := range w.edges {
		if n.up || n.row.ID == "" && n.done == 0 {
			count++
		}
	}
	return count
}

// drain lets the least loaded edge of a region go.
func (c *control) drain(region int) {
	var least *node
	for _, n := range c.w.edges {
		if n.up && n.region == region && !n.leaves && (least == nil || n.load() < least.load()) {
			least = n
		}
	}
	if least == nil {
		return
	}
	w := c.w
	least.leaves = true
	w.out.Drained++
	w.reg.count(opWrite)
	w.crowd.move(least, drainWithin)
	w.after(2*drainWithin, func() {
		w.reg.count(opWrite)
		least.work()
		least.up = false
		for _, f := range least.feeds {
			for _, child := range slices.Clone(f.children) {
				child.orphan()
			}
			f.unlink()
			f.ended = true
		}
		least.row = cluster.Node{}
	})
}
