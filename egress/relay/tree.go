package relay

import (
	"context"
	"slices"
	"time"

	"sluice/cluster"
	"sluice/media"
	wire "sluice/relay"
)

// admit takes a subscription as a child of its stream, or answers whom to ask instead; nil, nil: nobody.
func (r *Relay) admit(s *subscription, relayed bool) (accepted bool, to *wire.Redirect) {
	busy := r.busy()
	r.mu.Lock()
	defer r.mu.Unlock()
	path := r.path(s.key)
	if r.count >= r.cfg.MaxSubscriptions {
		return false, nil
	}
	children := r.children[s.key]
	known := make([]cluster.Child, len(children))
	now := time.Now()
	for i, c := range children {
		if p := r.pulses[c.conn]; p != nil && now.Sub(p.heard) > deafAfter {
			// Its own children have noticed before QUIC does. It is nobody's parent, and its place is free for those who say so.
			known[i] = cluster.Child{ID: c.node, Busy: true, Gone: slices.Contains(s.avoid, c.node)}
			continue
		}
		known[i] = cluster.Child{ID: c.node, Region: c.region, Below: int(c.below.Nodes), Regions: c.below.Regions, Busy: c.below.Busy}
	}
	v := cluster.Verdict{Accept: true} // who speaks version 1 can't be sent on
	if s.version > 1 {
		self := cluster.Parent{ID: r.cfg.Node, Region: r.cfg.Region, Fanout: r.cfg.Fanout, Root: !relayed, Busy: busy}
		v = cluster.Admit(self, known, cluster.Asker{ID: s.node, Region: s.region, Avoid: s.avoid})
	}
	switch {
	case v.Accept && len(path) <= wire.MaxPath:
		s.below.Busy = s.addr == ""
		s.out.Put(s.hello())
		if s.version > 1 {
			s.out.Put(wire.Path{Nodes: path}) // here, so that Rerouted comes after it
		}
		r.children[s.key] = append(children, s)
		r.count++
		r.stats.subscriptions.Add(1)
		return true, nil
	case v.To == "":
		return false, nil
	}
	c := children[slices.IndexFunc(known, func(c cluster.Child) bool { return c.ID == v.To })]
	// Until the child says how many it has, those that were sent there count: else many who come at once all go to the same.
	c.below.Nodes++
	c.sent = now
	if !slices.Contains(c.below.Regions, s.region) && len(c.below.Regions) < wire.MaxRegions {
		c.below.Regions = append(slices.Clip(c.below.Regions), s.region)
	}
	r.stats.redirects.Add(1)
	return false, &wire.Redirect{Addr: c.addr, Key: c.peer, Node: c.node}
}

func (r *Relay) busy() bool {
	r.mu.Lock()
	draining := r.draining
	r.mu.Unlock()
	return draining || r.cfg.Busy()
}

// pulse is what shows that a peer lives: packets of its connection. It sends some at least every 400 ms.
type pulse struct {
	packets uint64
	heard   time.Time // when there were more of them
}

const (
	listenEvery = 100 * time.Millisecond
	deafAfter   = 600 * time.Millisecond // a peer that sends nothing for so long may be dead
)

// listen takes the pulse of each peer.
func (r *Relay) listen(ctx context.Context) {
	tick := time.NewTicker(listenEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			r.mu.Lock()
			for conn, p := range r.pulses {
				if n := conn.ConnectionStats().PacketsReceived; n != p.packets {
					p.packets, p.heard = n, now
				}
			}
			r.mu.Unlock()
		}
	}
}

// path is what children are told.
func (r *Relay) path(key media.Key) []string {
	return append(slices.Clone(r.cfg.Path(key)), r.cfg.Node)
}

// leave forgets a child.
func (r *Relay) leave(s *subscription) {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(r.children[s.key]), func(c *subscription) bool { return c == s })
	if r.children[s.key] = left; len(left) == 0 {
		delete(r.children, s.key)
	}
	r.count--
}

// arriveWithin is how long a node that was sent to a child may take to get there. The child says at least every 5 s how many it has.
const arriveWithin = time.Second

// report takes what a child says of those below it.
func (r *Relay) report(s *subscription, b wire.Below) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b.Busy = b.Busy || s.addr == ""
	if time.Since(s.sent) < arriveWithin { // it may not know yet of the one that was sent there
		b.Nodes = max(b.Nodes, s.below.Nodes)
	}
	s.below = b
}

// Below sums up who takes a stream through this node, for the one that it takes it from itself.
func (r *Relay) Below(key media.Key) wire.Below {
	b := wire.Below{Busy: r.busy()}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.children[key] {
		b.Nodes += 1 + c.below.Nodes
		for _, region := range append([]string{c.region}, c.below.Regions...) {
			if !slices.Contains(b.Regions, region) && len(b.Regions) < wire.MaxRegions {
				b.Regions = append(b.Regions, region)
			}
		}
	}
	slices.Sort(b.Regions)
	return b
}

// Rerouted tells a stream's children that it comes another way now.
func (r *Relay) Rerouted(key media.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	path := wire.Path{Nodes: r.path(key)}
	for _, c := range r.children[key] {
		if c.version > 1 {
			c.out.Put(path)
		}
	}
}

// Drain takes no children any more and asks those that it has to get their streams elsewhere, but for streams that are
// published here: those move with their publishers.
func (r *Relay) Drain() {
	r.mu.Lock()
	r.draining = true
	r.mu.Unlock()
	for _, s := range r.all() {
		if s.movable() {
			s.out.Put(wire.Move{})
		}
	}
}

// Stay takes children again after Drain.
func (r *Relay) Stay() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = false
}

// Movable counts the children that could take their stream elsewhere.
func (r *Relay) Movable() (n int) {
	for _, s := range r.all() {
		if s.movable() {
			n++
		}
	}
	return n
}

func (s *subscription) movable() bool {
	info, ok := s.relay.cfg.Hub.Info(s.key)
	return s.version > 1 && ok && info.Relayed
}

func (r *Relay) all() (subs []*subscription) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range r.children {
		subs = append(subs, of...)
	}
	return subs
}
