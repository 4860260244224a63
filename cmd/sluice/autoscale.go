package main

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"sluice/cluster"
	"sluice/internal/config"
)

// scaleEvery is how often the flock is looked at: heartbeats are a second apart.
const scaleEvery = time.Second

// scales reports whether edges come and go.
func (u *up) scales() bool { return u.cmd.Autoscale != "" }

// edgeRange is how many edges there may be.
func (u *up) edgeRange() (least, most int) {
	least, most, err := config.Range(u.cmd.Autoscale, u.cmd.Edges)
	if err != nil || !u.scales() { // the flag was checked
		return u.cmd.Edges, u.cmd.Edges
	}
	return least, most
}

// cores is what counts as a node's own of the machine that all share. More processes bring no more processors: a node's load is
// what it does itself of its share, so that a group whose nodes all work hard is a machine that works hard, and none is charged with
// what another does.
func (u *up) cores(role cluster.Role) float64 {
	if role == cluster.Origin {
		return float64(runtime.NumCPU()) / float64(max(1, u.cmd.Origins))
	}
	if u.cmd.EdgeCores > 0 {
		return u.cmd.EdgeCores
	}
	_, most := u.edgeRange()
	return float64(runtime.NumCPU()) / float64(max(1, most))
}

// flock is the edges of a cluster on this machine.
type flock struct {
	u     *up
	make  func(i int) *child
	group sync.WaitGroup

	mu    sync.Mutex
	last  int                      // number of the last one
	live  []*child                 // whose process is there, or will be
	going map[*child]cluster.Order // of live, those that must go, and how
}

// begin makes the first edges; run runs them.
func (f *flock) begin() []*child {
	least, _ := f.u.edgeRange()
	for range least {
		f.last++
		f.live = append(f.live, f.make(f.last))
	}
	return slices.Clone(f.live)
}

// run keeps the edges running until ctx ends, and has as many as the load needs.
func (f *flock) run(ctx context.Context) error {
	for _, c := range f.list() {
		f.start(ctx, c)
	}
	if f.u.scales() {
		f.follow(ctx)
	}
	<-ctx.Done()
	f.group.Wait()
	return nil
}

func (f *flock) list() []*child {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.live)
}

func (f *flock) start(ctx context.Context, c *child) {
	f.group.Go(func() {
		_ = c.Run(ctx) // it tells of its deaths itself
		f.forget(c)
	})
}

func (f *flock) forget(c *child) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.live = slices.DeleteFunc(f.live, func(x *child) bool { return x == c })
	delete(f.going, c)
}

// staying are the edges that need not go.
func (f *flock) staying() []*child {
	return slices.DeleteFunc(f.list(), (*child).leaving)
}

// follow acts on the signal until ctx ends.
func (f *flock) follow(ctx context.Context) {
	least, most := f.u.edgeRange()
	scaler := cluster.NewScaler(cluster.ScaleConfig{Target: f.u.cmd.Scale.CPU, Window: f.u.cmd.Scale.Window, Min: least, Max: most})
	tick := time.NewTicker(scaleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		nodes, err := f.u.reg.Nodes(ctx)
		if err != nil || !f.u.isReady.Load() {
			continue // what is not known changes nothing
		}
		f.remind(ctx, nodes)
		for _, s := range scaler.Observe(cluster.View{Nodes: nodes, At: f.u.reg.Now()}) {
			if s.Role == cluster.Edge {
				f.act(ctx, s, nodes)
			}
		}
	}
}

// remind repeats an order that is not in the row any more: a node that joins again starts with none.
func (f *flock) remind(ctx context.Context, nodes []cluster.Node) {
	f.mu.Lock()
	going := maps.Clone(f.going)
	f.mu.Unlock()
	for c, order := range going {
		if slices.ContainsFunc(nodes, func(n cluster.Node) bool { return n.ID == c.name && !n.Order.Drain }) {
			if err := f.u.reg.Order(ctx, c.name, order); err != nil {
				f.u.say("autoscale: could not order %s to drain again: %v", c.name, err) // the next look tries again
			}
		}
	}
}

// act brings the flock nearer to what the signal says: new edges at once, one less when all that should be there are, and no other goes.
func (f *flock) act(ctx context.Context, s cluster.Signal, nodes []cluster.Node) {
	edges := f.staying()
	switch {
	case s.Desired > len(edges):
		f.u.say("autoscale: %d edges, %d wanted: %s", len(edges), s.Desired, s.Reason)
		for range s.Desired - len(edges) {
			f.mu.Lock()
			f.last++
			c := f.make(f.last)
			f.live = append(f.live, c)
			f.mu.Unlock()
			f.u.say("autoscale: starts %s", c.name)
			f.start(ctx, c)
		}
	case s.Desired < s.Nodes && len(edges) == s.Nodes && s.Draining == 0 && len(f.list()) == len(edges):
		c, viewers := quietest(edges, nodes)
		if c == nil {
			return // no row is there: the next look knows more
		}
		f.u.say("autoscale: %d edges, %d wanted: %s", len(edges), s.Desired, s.Reason)
		order := cluster.Order{Drain: true, Deadline: f.u.reg.Now().Add(f.u.p.config.Node.DrainDeadline)}
		if err := f.u.reg.Order(ctx, c.name, order); err != nil {
			f.u.say("autoscale: could not order %s to drain: %v", c.name, err) // the next look tries again
			return
		}
		c.dismiss()
		f.mu.Lock()
		f.going[c] = order
		f.mu.Unlock()
		f.u.say("autoscale: drains %s, whose %d viewers move to the others", c.name, viewers)
	}
}

// quietest is the edge with the fewest viewers, of several the youngest.
func quietest(edges []*child, nodes []cluster.Node) (best *child, fewest int) {
	for _, c := range edges {
		i := slices.IndexFunc(nodes, func(n cluster.Node) bool { return n.ID == c.name })
		if i < 0 {
			continue
		}
		if v := nodes[i].Viewers(); best == nil || v <= fewest {
			best, fewest = c, v
		}
	}
	return best, fewest
}
