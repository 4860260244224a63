package simulate

import (
	"slices"
	"time"

	"sluice/cluster"
)

// feed is a stream at a node: its root at the origin, or what an edge takes from a parent.
type feed struct {
	s        *stream
	n        *node
	parent   *feed
	children []*feed
	below    int   // feeds under it
	regions  []int // how many of those in each region
	viewers  int
	waiting  []int // viewers who have no picture yet
	flowing  bool
	ended    bool
	epoch    int64         // of the stream, as it was taken
	avoid    []string      // nodes that were lost or refused
	busy     bool          // a question is on its way
	shun     int64         // the epoch whose origin was lost
	looking  time.Duration // since when it is looked for in the registry; 0: it isn't
	due      time.Duration

	lost  time.Duration // since when nothing comes, of a stream that flowed
	death int           // by which
}

// retryAsk is the pause before a node is asked again after all have refused.
const retryAsk = 300 * time.Millisecond

func (f *feed) alive() bool { return f.n.up && !f.ended }

// seek asks the registry where the stream is, and then that node.
func (f *feed) seek() {
	f.busy = true
	f.n.look.up(func() {
		if !f.alive() {
			return
		}
		f.busy = false
		if !f.ready() {
			f.n.look.lookFor(f)
			return
		}
		f.ask(f.n.w.byID[f.s.row.Origin])
	})
}

// ready reports that the registry names an origin that is worth asking.
func (f *feed) ready() bool { return f.n.look.live(f.s.row) && f.s.row.Epoch > f.shun }

// ask subscribes: a round trip for the connection, one for the question.
func (f *feed) ask(of *node) {
	w := f.n.w
	f.busy = true
	if !of.up {
		took := w.cfg.Times.Hop
		if of.id == f.s.row.Origin {
			took = w.cfg.Times.Attach
		}
		w.after(took, func() { f.refused(of) })
		return
	}
	w.after(2*w.trip(f.n.region, of.region), func() {
		if !f.alive() {
			return
		}
		if !of.up {
			f.refused(of)
			return
		}
		p := of.of[f.s.index]
		if p == nil {
			f.refused(of)
			return
		}
		w.out.Asked++
		switch v := f.admit(p); {
		case v.Accept:
			f.link(p)
		case v.To != "":
			w.out.Redirected++
			f.ask(w.byID[v.To])
		default:
			f.refused(of)
		}
	})
}

// admit is the real rule, with what the parent knows of its children.
func (f *feed) admit(p *feed) cluster.Verdict {
	self := cluster.Parent{ID: p.n.id, Region: p.n.name, Fanout: p.n.w.cfg.Fanout, Root: p == p.s.root, Busy: p.n.refuses()}
	children := make([]cluster.Child, 0, len(p.children))
	for _, c := range p.children {
		child := cluster.Child{ID: c.n.id, Region: c.n.name, Below: c.below, Busy: c.n.refuses()}
		for r, count := range c.regions {
			if count > 0 {
				child.Regions = append(child.Regions, regionName(r))
			}
		}
		children = append(children, child)
	}
	return cluster.Admit(self, children, cluster.Asker{ID: f.n.id, Region: f.n.name, Avoid: f.avoid})
}

// refused goes back to the origin, without that node.
func (f *feed) refused(by *node) {
	if !f.alive() {
		return
	}
	w := f.n.w
	f.busy = false
	if by.id == f.s.row.Origin && !by.up {
		f.shun = f.s.row.Epoch
	} else if by.id == f.s.row.Origin { // there is nobody else to ask: its children may be free later
		f.avoid = nil
		w.after(retryAsk, f.again)
		return
	}
	f.avoid = append(f.avoid, by.id)
	f.again()
}

func (f *feed) again() {
	if f.alive() && !f.busy && f.parent == nil {
		f.seek()
	}
}

// link makes it a child, unless it is above the parent: then it leaves at once.
func (f *feed) link(p *feed) {
	w := f.n.w
	for up := p; up != nil; up = up.parent {
		if up == f {
			w.out.LoopsAvoided++
			f.refused(p.n)
			return
		}
	}
	f.n.work()
	p.n.work()
	f.parent, f.busy, f.epoch, f.avoid, f.looking = p, false, f.s.row.Epoch, nil, 0
	p.children = append(p.children, f)
	p.n.children++
	f.n.parents++
	f.add(p, 1)
	if p.flowing {
		w.after(w.trip(f.n.region, p.n.region)/2, func() {
			if f.parent == p && p.flowing {
				f.flow()
			}
		})
	}
}

// add counts it and what is below it at all above it.
func (f *feed) add(p *feed, sign int) {
	for up := p; up != nil; up = up.parent {
		if up.regions == nil {
			up.regions = make([]int, len(up.n.w.cfg.Regions))
		}
		up.below += sign * (f.below + 1)
		up.regions[f.n.region] += sign
		for r, count := range f.regions {
			up.regions[r] += sign * count
		}
	}
}

func (f *feed) unlink() {
	p := f.parent
	if p == nil {
		return
	}
	f.n.work()
	p.n.work()
	p.children = slices.DeleteFunc(p.children, func(c *feed) bool { return c == f })
	p.n.children--
	f.n.parents--
	f.add(p, -1)
	f.parent = nil
	p.maybeIdle()
}

// orphan is for who finds that its parent is gone: back to the origin. Its own children stay.
func (f *feed) orphan() {
	if !f.alive() {
		return
	}
	lost := f.parent
	f.avoid = append(f.avoid[:0], lost.n.id)
	f.unlink()
	if lost.parent == nil { // the origin: until the stream is elsewhere there is nobody to ask
		f.shun = f.epoch
		f.n.look.lookFor(f)
		return
	}
	f.seek()
}

// flow is the first packet after nothing: viewers see a picture, children get theirs.
func (f *feed) flow() {
	if !f.alive() || f.flowing {
		return
	}
	w := f.n.w
	f.flowing = true
	if f.death >= 0 {
		w.out.Deaths[f.death].held(w.now-f.lost, f.viewers-len(f.waiting))
		f.death = -1
	}
	for _, v := range f.waiting {
		w.crowd.picture(v, f)
	}
	f.waiting = f.waiting[:0]
	for _, c := range f.children {
		w.after(w.trip(f.n.region, c.n.region)/2, func() {
			if c.parent == f && f.flowing {
				c.flow()
			}
		})
	}
}

// starve is the last packet: nothing comes to it, nor to those below.
func (f *feed) starve(death int) {
	if !f.flowing {
		return
	}
	f.flowing = false
	if f.n.up { // else its viewers look elsewhere
		f.lost, f.death = f.n.w.now, death
	}
	for _, c := range f.children {
		c.starve(death)
	}
}

// maybeIdle ends a feed for which there has been no use for a while.
func (f *feed) maybeIdle() {
	if f.viewers > 0 || len(f.children) > 0 || f == f.s.root {
		return
	}
	w := f.n.w
	w.after(w.cfg.Times.EdgeIdle, func() {
		if f.ended || f.viewers > 0 || len(f.children) > 0 {
			return
		}
		f.ended = true
		f.unlink()
		delete(f.n.of, f.s.index)
		f.n.feeds = slices.DeleteFunc(f.n.feeds, func(o *feed) bool { return o == f })
	})
}

// depth is the number of nodes that a packet has passed before.
func (f *feed) depth() (d int, loop bool) {
	for up := f.parent; up != nil; up = up.parent {
		if d++; d > len(f.n.w.edges) {
			return d, true
		}
	}
	return d, false
}
