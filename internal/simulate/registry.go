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
	opCount               // the viewers of all streams of a node are added up
	opLookup              // a stream that a node gets a viewer for
	opWrite               // joins, claims, reports
	ops
)

// String is the name in the report.
func (o op) String() string {
	return [...]string{"heartbeats", "nodes", "watches", "counts", "lookups", "writes"}[o]
}

// registry is the rows, and a count of what is asked of them.
type registry struct {
	w      *world
	counts [ops][]int // per second
	bytes  []int      // read of rows, per second
}

// count notes an operation.
func (r *registry) count(o op) { r.counts[o] = add(r.counts[o], r.w.now, 1) }

// reads notes rows that an operation has read.
func (r *registry) reads(nodes, serving, streams int) {
	r.bytes = add(r.bytes, r.w.now, nodes*cluster.RowBytes+serving*cluster.ServingBytes+streams*cluster.StreamBytes)
}

func add(list []int, now time.Duration, n int) []int {
	second := int(now / time.Second)
	for len(list) <= second {
		list = append(list, 0)
	}
	list[second] += n
	return list
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
				r.reads(1, len(n.row.Serving), 0)
			}
		}
	}
	return v
}

// peers is what a node reads: the rows of those who can hold streams, and its own; now and then those of edges too, of which
// it wants relay keys that are not modelled.
func (r *registry) peers(all bool) cluster.View {
	r.count(opNodes)
	r.reads(1, 0, 0)
	for _, n := range r.w.edges {
		if all && n.row.ID != "" {
			r.reads(1, 0, 0)
		}
	}
	v := cluster.View{At: r.w.clock(), Nodes: make([]cluster.Node, 0, len(r.w.origins))}
	for _, n := range r.w.origins {
		if n.row.ID != "" {
			v.Nodes = append(v.Nodes, n.row)
		}
	}
	r.reads(len(v.Nodes), 0, 0)
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
