package simulate

import (
	"fmt"
	"slices"
	"time"

	"sluice/cluster"
	"sluice/media"
)

func streamKey(i int) media.Key { return media.Key{App: "live", ID: fmt.Sprintf("stream%05d", i)} }

// node is a process: what it carries, what it says of that, and what it knows of others.
type node struct {
	w      *world
	id     string
	role   cluster.Role
	region int
	name   string // of the region
	up     bool
	born   time.Duration
	leaves bool         // draining
	row    cluster.Node // in the registry, as last written

	feeds    []*feed // in the order in which they began
	of       map[int]*feed
	viewers  int
	children int // relay subscriptions of others
	parents  int // and its own

	// The meter: seconds of a core.
	done     float64
	since    time.Duration
	past     []float64     // done at the last measurements
	joinedBy time.Duration // when the joins are over that have begun
	cpu      float64
	full     bool

	look lookout
}

func (w *world) newNode(role cluster.Role, region int) *node {
	list := &w.edges
	if role == cluster.Origin {
		list = &w.origins
	}
	n := &node{w: w, id: fmt.Sprintf("%s-%05d", role, len(*list)+1), role: role, region: region, name: regionName(region), of: map[int]*feed{}}
	n.look.n = n
	*list = append(*list, n)
	w.byID[n.id] = n
	return n
}

func regionName(i int) string { return fmt.Sprintf("region-%d", i+1) }

// start lets it join then.
func (n *node) start(at time.Duration) {
	w := n.w
	w.at(at, func() {
		if w.gone[n.region] {
			return
		}
		n.up, n.born, n.since = true, w.now, w.now
		n.row = cluster.Node{ID: n.id, Role: n.role, Region: n.name, Started: w.clock()}
		n.row.Session = int64(w.rng.Uint64N(1<<62)) + 1
		w.reg.count(opWrite)
		w.every(w.cfg.Times.Measure, n.measure)
		w.every(cluster.HeartbeatEvery, n.beat)
		n.look.start()
	})
}

// rate is what it does now, in cores.
func (n *node) rate() float64 {
	c := &n.w.cfg.Costs
	return c.Idle*c.Cores + c.Rate*(float64(n.viewers)*c.Packet+float64(n.children+n.parents)*c.Relay)
}

// work brings the meter up to now; what changes the rate comes after.
func (n *node) work() {
	n.done += n.rate() * (n.w.now - n.since).Seconds()
	n.since = n.w.now
}

// load is the share of its cores that it needs for what it has. Over 1: more than there are.
func (n *node) load() float64 { return n.rate() / n.w.cfg.Costs.Cores }

// measure is the node's look at its load: the mean over the last seconds.
func (n *node) measure() bool {
	if !n.up {
		return false
	}
	n.work()
	t := &n.w.cfg.Times
	if n.past = append(n.past, n.done); len(n.past) > int(cluster.LoadOver/t.Measure)+1 {
		n.past = slices.Delete(n.past, 0, 1)
	}
	if span := float64(len(n.past)-1) * t.Measure.Seconds(); span > 0 {
		n.cpu = min(1, (n.done-n.past[0])/(span*n.w.cfg.Costs.Cores))
	}
	if n.cpu >= 1 {
		n.w.out.Overloaded += t.Measure.Seconds()
	}
	n.full = n.cpu > cluster.NearLimit || n.full && n.cpu > t.Release*cluster.NearLimit
	return true
}

// beat is the heartbeat.
func (n *node) beat() bool {
	if !n.up {
		return false
	}
	row := &n.row
	row.State, row.Full = cluster.Ready, ""
	if n.leaves {
		row.State = cluster.Draining
	}
	if n.full {
		row.Full = "the processors are busy"
	}
	row.CPU, row.Load, row.Memory = n.cpu, n.cpu, 0.3
	row.Egress = float64(n.viewers+n.children) * n.w.cfg.Costs.Bits
	row.Serving = make([]cluster.Serving, 0, len(n.feeds))
	for _, f := range n.feeds {
		if f.flowing {
			row.Serving = append(row.Serving, cluster.Serving{Stream: f.s.key, Viewers: f.viewers})
		}
	}
	row.LastHeartbeat = n.w.clock()
	n.w.reg.count(opHeartbeat)
	return true
}

// refuses reports that it takes nobody new, as its admission would.
func (n *node) refuses() bool { return n.full || n.leaves }

// join is when the handshake of one more viewer is done: they wait for each other.
func (n *node) join() time.Duration {
	c := &n.w.cfg.Costs
	n.done += c.Join
	free := max(0.1*c.Cores, c.Cores-n.rate())
	n.joinedBy = max(n.joinedBy, n.w.now) + time.Duration(c.Join/free*float64(time.Second))
	return n.joinedBy
}

// want returns the node's feed of a stream; a new one begins with a look-up.
func (n *node) want(s *stream) *feed {
	f := n.of[s.index]
	if f == nil {
		f = n.newFeed(s)
		f.seek()
	}
	return f
}

func (n *node) newFeed(s *stream) *feed {
	f := &feed{s: s, n: n, death: -1}
	n.of[s.index] = f
	n.feeds = append(n.feeds, f)
	return f
}

// watch adds viewers to a feed, or takes some away.
func (f *feed) watch(viewers int) {
	f.n.work()
	f.n.viewers += viewers
	f.viewers += viewers
	f.maybeIdle()
}

// die ends a node without a word.
func (n *node) die(death int) {
	n.work()
	n.up = false
	for _, f := range n.feeds {
		f.starve(death)
	}
	w := n.w
	for _, list := range w.gateways {
		for _, g := range list { // one probe that is due, and two that get no answer
			w.after(w.spread(w.cfg.Times.Probe)+2*w.cfg.Times.Probing, func() { g.lost(n) })
		}
	}
	for _, f := range n.feeds {
		children := slices.Clone(f.children)
		parent := f.parent
		w.after(w.cfg.Times.Silent, func() {
			for _, c := range children {
				if c.parent == f {
					c.orphan()
				}
			}
		})
		w.after(w.cfg.Times.Idle, func() {
			if parent != nil && f.parent == parent {
				f.unlink()
			}
		})
		if f == f.s.root {
			w.after(w.cfg.Times.Publish+w.spread(w.cfg.Times.Again), func() { w.publish(f.s, nil) })
		}
	}
}
