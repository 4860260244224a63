package simulate

import (
	"math"
	"time"

	"sluice/cluster"
)

// askNodes is how many nodes a gateway asks for one client.
const askNodes = 4

// state of a viewer.
const (
	joining = iota // has no session
	waiting        // has one, and no picture yet
	watching
	left
)

// crowd is the viewers.
type crowd struct {
	w       *world
	viewers []viewer
	there   int // not left
	came    int
}

type viewer struct {
	s      *stream
	n      *node
	since  time.Duration // when he came, or lost his picture
	death  int32         // by which he lost it; -1: he didn't
	tries  int32
	region uint8
	state  uint8
	denied bool // was refused at least once
}

func (c *crowd) init(w *world) { *c = crowd{w: w, viewers: make([]viewer, 0, w.cfg.Viewers)} }

// arrive begins the coming and going.
func (c *crowd) arrive() {
	w, flash := c.w, c.w.cfg.Flash
	c.stream(w.now, w.cfg.Arrive, w.cfg.Viewers-flash.Viewers, func() *stream { return w.streams[w.pick.draw(w.rng)] })
	if flash.Viewers > 0 {
		w.at(flash.At, func() { c.stream(w.now, flash.During, flash.Viewers, func() *stream { return w.streams[flash.Rank] }) })
	}
	const tick = 100 * time.Millisecond
	w.every(tick, func() bool {
		for range c.poisson(float64(c.there) * tick.Seconds() / w.cfg.Watch.Seconds()) {
			c.leave(w.rng.IntN(len(c.viewers)))
		}
		return true
	})
}

// stream lets so many come within a time, one after the other.
func (c *crowd) stream(from, during time.Duration, viewers int, of func() *stream) {
	mean := float64(during) / float64(viewers)
	var next func()
	next = func() {
		if viewers--; viewers < 0 {
			return
		}
		c.come(of())
		c.w.after(time.Duration(c.w.rng.ExpFloat64()*mean), next)
	}
	next()
}

func (c *crowd) poisson(mean float64) (n int) {
	if mean > 30 {
		return int(math.Round(mean + math.Sqrt(mean)*c.w.rng.NormFloat64()))
	}
	for limit, p := math.Exp(-mean), c.w.rng.Float64(); p > limit; n++ {
		p *= c.w.rng.Float64()
	}
	return n
}

// come is a new viewer. He is at the gateway when TCP, TLS and the request have made their ways.
func (c *crowd) come(s *stream) {
	c.viewers = append(c.viewers, viewer{s: s, since: c.w.now, death: -1, region: uint8(c.w.region())})
	c.there++
	c.came++
	v := len(c.viewers) - 1
	c.w.after(3*c.w.cfg.Times.Client, func() { c.ask(v) })
}

// ask is a viewer's request at a gateway.
func (c *crowd) ask(v int) {
	if c.viewers[v].state == left {
		return
	}
	g := c.w.gateway(int(c.viewers[v].region))
	if g == nil {
		c.retry(v)
		return
	}
	c.try(v, g, nil)
}

// try asks one node after the other.
func (c *crowd) try(v int, g *gateway, avoid map[string]bool) {
	w, him := c.w, &c.viewers[v]
	for len(avoid) < askNodes {
		n := g.place(cluster.Edge, him.s.key, avoid)
		if n == nil {
			break
		}
		if n.up && !n.refuses() {
			c.session(v, g, n)
			return
		}
		if avoid == nil {
			avoid = map[string]bool{}
		}
		avoid[n.id] = true
		w.out.Passed++
		if !n.up {
			w.after(w.cfg.Times.Dial, func() {
				g.lost(n)
				c.try(v, g, avoid)
			})
			return
		}
	}
	w.out.refuse(w.now, v, c)
	c.retry(v)
}

// session begins one: three round trips of ICE and DTLS, and the node's work.
func (c *crowd) session(v int, g *gateway, n *node) {
	w, him := c.w, &c.viewers[v]
	n.want(him.s)
	way := w.cfg.Times.Client + w.trip(int(him.region), n.region)
	w.at(n.join()+w.trip(g.region, n.region)+3*way, func() {
		him := &c.viewers[v]
		switch {
		case him.state == left:
			return
		case !n.up || n.leaves:
			c.retry(v)
			return
		}
		f := n.want(him.s)
		if him.state == watching { // he moves, and has the old one until now
			him.since = w.now
		}
		c.quit(v)
		him.n, him.tries = n, 0
		f.watch(1)
		if f.flowing {
			c.picture(v, f)
			return
		}
		him.state = waiting
		f.waiting = append(f.waiting, v)
	})
}

// quit ends a viewer's session at the node that he has.
func (c *crowd) quit(v int) {
	him := &c.viewers[v]
	if him.n == nil {
		return
	}
	if f := him.n.of[him.s.index]; him.n.up && f != nil {
		if him.state == waiting {
			f.forget(v)
		}
		f.watch(-1)
	}
	him.n = nil
}

func (f *feed) forget(v int) {
	for i, other := range f.waiting {
		if other == v {
			f.waiting[i] = f.waiting[len(f.waiting)-1]
			f.waiting = f.waiting[:len(f.waiting)-1]
			return
		}
	}
}

// picture is the first of a session.
func (c *crowd) picture(v int, f *feed) {
	him := &c.viewers[v]
	if him.state == left || him.n != f.n {
		return
	}
	if him.state == watching { // he moved, and saw nothing of it
		return
	}
	him.state = watching
	took := c.w.now - him.since
	if him.death < 0 {
		c.w.out.joins = append(c.w.out.joins, took)
		return
	}
	c.w.out.Deaths[him.death].moved(took)
	him.death = -1
}

// retry waits as our player does: half a second, doubled up to five, a quarter more or less.
func (c *crowd) retry(v int) {
	him := &c.viewers[v]
	wait := min(c.w.cfg.Times.BackOff[1], c.w.cfg.Times.BackOff[0]<<min(him.tries, 10))
	him.tries++
	c.w.after(time.Duration(float64(wait)*(0.75+c.w.rng.Float64()/2))+3*c.w.cfg.Times.Client, func() { c.ask(v) })
}

// lost is for all viewers of nodes that died: each finds out for himself.
func (c *crowd) lost(death int) (viewers int) {
	for v := range c.viewers {
		him := &c.viewers[v]
		if him.n == nil || him.n.up {
			continue
		}
		if him.state == watching || him.death >= 0 {
			him.death = int32(death)
		}
		if him.state == watching {
			him.since = c.w.now
		}
		viewers++
		him.state, him.n = joining, nil
		heal := float64(c.w.cfg.Times.Heal) * (0.8 + 0.4*c.w.rng.Float64())
		c.w.after(time.Duration(heal), func() { c.retry(v) })
	}
	return viewers
}

// move tells all viewers of a node to go elsewhere, within a time. Each keeps his picture until he has the next.
func (c *crowd) move(n *node, within time.Duration) {
	for v := range c.viewers {
		if c.viewers[v].n == n {
			c.w.after(c.w.spread(within), func() { c.ask(v) })
		}
	}
}

// leave is the end of a viewer's evening, if he watches.
func (c *crowd) leave(v int) {
	him := &c.viewers[v]
	if him.state != watching {
		return
	}
	c.quit(v)
	him.state = left
	c.there--
	if c.w.cfg.Replace {
		c.come(c.w.streams[c.w.pick.draw(c.w.rng)])
	}
}
