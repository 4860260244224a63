package simulate

import (
	"time"

	"sluice/cluster"
	"sluice/media"
)

// gateway is a front door: real placement by a view that is read now and then, without the nodes that its probes miss.
type gateway struct {
	w       *world
	region  int
	up      bool
	edges   *cluster.Placer
	origins *cluster.Placer
	view    cluster.View
	down    map[string]bool
	shown   time.Duration // when the placers were told; the view or the probes say more when dirty
	dirty   bool
}

// tellWithin is how old a probe's news may get: the gateway gives no more than a part of its time to making its index.
const tellWithin = 25 * time.Millisecond

func (w *world) newGateway(region int) *gateway {
	g := &gateway{w: w, region: region, up: true, down: map[string]bool{},
		edges:   cluster.NewPlacer(cluster.Edge, regionName(region), w.rng.Uint64(), w.clock),
		origins: cluster.NewPlacer(cluster.Origin, regionName(region), w.rng.Uint64(), w.clock)}
	w.after(w.spread(cluster.RefreshEvery), func() {
		w.every(cluster.RefreshEvery, func() bool {
			if !g.up {
				return false
			}
			v := w.reg.nodes()
			w.after(w.reg.took(region), func() { g.view = v; g.show() })
			return true
		})
	})
	return g
}

// show tells the placers.
func (g *gateway) show() {
	v := g.view
	if len(g.down) > 0 {
		v.Nodes = make([]cluster.Node, 0, len(g.view.Nodes))
		for _, n := range g.view.Nodes {
			if !g.down[n.ID] {
				v.Nodes = append(v.Nodes, n)
			}
		}
	}
	g.edges.Show(v)
	g.origins.Show(v)
	g.shown, g.dirty = g.w.now, false
}

// lost is what a probe or a dial finds.
func (g *gateway) lost(n *node) {
	if !g.down[n.id] {
		g.down[n.id], g.dirty = true, true
	}
}

// place chooses a node for a session.
func (g *gateway) place(role cluster.Role, key media.Key, avoid map[string]bool) *node {
	if g.dirty && g.w.now-g.shown >= tellWithin {
		g.show()
	}
	p := g.edges
	if role == cluster.Origin {
		p = g.origins
	}
	n, ok := p.Place(key, avoid)
	if !ok {
		return nil
	}
	return g.w.byID[n.ID]
}

// gateway is the one that a client of a region comes to: one of its own region, as long as that is there. Its name leads
// elsewhere then.
func (w *world) gateway(region int) *gateway {
	for i := range w.gateways {
		list := w.gateways[(region+i)%len(w.gateways)]
		if g := list[w.rng.IntN(len(list))]; g.up {
			return g
		}
	}
	return nil
}
