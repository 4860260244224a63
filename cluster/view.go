package cluster

import (
	"cmp"
	"slices"
	"time"
)

// View is what the registry said at one moment. It is shared: nobody may change it.
type View struct {
	Nodes []Node // dead ones included, ordered by ID
	// At is the time by which heartbeats are judged (Node.Alive), by the registry's clock. It stands still while the registry is
	// away, and until the nodes have had time to come back after that: an outage kills nobody.
	// Zero: nothing was read yet.
	At time.Time
}

// Alive returns the nodes that live.
func (v View) Alive() []Node {
	var alive []Node
	for _, n := range v.Nodes {
		if n.Alive(v.At) {
			alive = append(alive, n)
		}
	}
	return alive
}

// Node returns the row of a node.
func (v View) Node(id string) (Node, bool) {
	i, ok := slices.BinarySearchFunc(v.Nodes, id, func(n Node, id string) int { return cmp.Compare(n.ID, id) })
	if !ok {
		return Node{}, false
	}
	return v.Nodes[i], true
}

// State is the true state of a stream: what its row says, but Finished when the session that holds it is void
// or the node is dead, and Broadcasting while it is Leaving.
func (v View) State(s Stream) StreamState {
	if n, ok := v.Node(s.Origin); !ok || n.Session != s.Session || !n.Alive(v.At) {
		return Finished
	}
	if s.State == Leaving {
		return Broadcasting
	}
	return s.State
}

// Live reports whether the stream is Broadcasting in truth.
func (v View) Live(s Stream) bool { return v.State(s) == Broadcasting }

// knows reports whether the node's row has the stream's session, whether it lives or not.
func (v View) knows(s Stream) bool {
	n, ok := v.Node(s.Origin)
	return ok && n.Session == s.Session
}
