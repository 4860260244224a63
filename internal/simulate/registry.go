package simulate

import (
	"time"

	"sluice/cluster"
)

// op is a kind of operation of the registry, as its users count them.
type op int

const (
	opHeartbeat op = iota // a node's row, once a second
	opNodes               // all rows are read
	opWatch               // the streams are read that flow at a node, or that it looks for
	opLookup              // a stream that a node gets a viewer for
	opWrite               // joins, claims, reports
	ops
)

// String is the name in the report.
func (o op) String() string {
	return [...]string{"heartbeats", "nodes", "watches", "lookups", "writes"}[o]
}

// registry is the rows, and a count of what is asked of them.
type registry struct {
	w      *world
	counts [ops][]int // per second
}

// count notes an operation.
func (r *registry) count(o op) {
	second := int(r.w.now / time.Second)
	for len(r.counts[o]) <= second {
		r.counts[o] = append(r.counts[o], 0)
	}
	r.counts[o][second]++
}

// took is how long an operation takes from a region; the registry is in the first that lives.
func (r *registry) took(region int) time.Duration {
	home := 0
	for home < len(r.w.gone)-1 && r.w.gone[home] {
		home++
	}
	if region == home {
		return r.w.cfg.Times.Registry
	}
	return r.w.cfg.Times.Registry + r.w.cfg.Times.Far
}

// nodes is all rows, as a gateway reads them.
func (r *registry) nodes() cluster.View {
	r.count(opNodes)
	v := cluster.View{At: r.w.clock(), Nodes: make([]cluster.Node, 0, len(r.w.edges)+len(r.w.origins))}
	for _, list := range [][]*node{r.w.edges, r.w.origins} {
		for _, n := range list {
			if n.row.ID != "" {
				v.Nodes = append(v.Nodes, n.row)
			}
		}
	}
	return v
}

// holders is the rows of those who can hold streams: what a node wants of all rows.
func (r *registry) holders() cluster.View {
	r.count(opNodes)
	v := cluster.View{At: r.w.clock(), Nodes: make([]cluster.Node, 0, len(r.w.origins))}
	for _, n := range r.w.origins {
		if n.row.ID != "" {
			v.Nodes = append(v.Nodes, n.row)
		}
	}
	return v
}

// claim takes a stream for a node, as Registry.Claim does; else it says until when its holder's session lives.
func (r *registry) claim(s *stream, n *node) (until time.Time, ok bool) {
	r.count(opWrite)
	if s.row.Origin != "" && s.row.Origin != n.id {
		holder := &r.w.byID[s.row.Origin].row
		if holder.ID != "" && !holder.Fenced {
			if r.w.clock().Sub(holder.LastHeartbeat) < cluster.SessionTTL {
				return holder.LastHeartbeat.Add(cluster.SessionTTL), false
			}
			r.count(opWrite)
			holder.Fenced = true
		}
	}
	s.row = cluster.Stream{Key: s.key, State: cluster.Broadcasting, Origin: n.id, Session: n.row.Session, Epoch: s.row.Epoch + 1, Started: r.w.clock()}
	r.count(opWrite) // the codecs are reported
	return time.Time{}, true
}
