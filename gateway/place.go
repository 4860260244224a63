package gateway

import (
	"slices"
	"sync"
	"time"

	"sluice/cluster"
	"sluice/media"
)

const (
	// remember is for how long a placement counts that the nodes' heartbeats may not
	// show yet: a heartbeat (1 s), a look at the registry (0.3 s), and the session's own start.
	remember = 3 * time.Second
	// placementCPU is what a new session is taken to cost its node (share of all its cores, 0 to 1)
	// until a heartbeat tells. Starting one (DTLS, SDP) is dearer than going on. So about 200
	// viewers may follow each other to an idle warm edge before the next one gets some.
	placementCPU = 0.004
	// maxPlacements bounds the ledger; the oldest are forgotten first.
	maxPlacements = 1 << 14
)

// placer chooses nodes.
type placer struct {
	pool   *pool
	ledger *ledger
}

// session chooses the node for a new viewer or publisher on a door, and remembers it. Which kind it
// is does not matter: the door decides who gets it, and both follow their stream.
// The zero key is a session whose stream is not known yet.
func (p *placer) session(role cluster.Role, key media.Key, avoid map[string]bool) (cluster.Node, bool) {
	n, ok := p.pick(role, key, avoid)
	if ok {
		p.ledger.add(n.ID, key)
	}
	return n, ok
}

// request chooses the node for a request that leaves nothing behind: the one that has the stream, if any
// is named, else the least loaded. Draining nodes answer when there is nobody else.
func (p *placer) request(role cluster.Role, key media.Key, avoid map[string]bool) (cluster.Node, bool) {
	if n, ok := p.pick(role, key, avoid); ok {
		return n, true
	}
	v := p.pool.view()
	for i := range v.Nodes {
		v.Nodes[i].State = cluster.Ready
	}
	return choose(v, role, key, avoid)
}

// node returns the node with that id, whatever it takes, if it answers.
func (p *placer) node(id string) (cluster.Node, bool) {
	nodes := p.pool.view().Nodes
	i := slices.IndexFunc(nodes, func(n cluster.Node) bool { return n.ID == id })
	if i < 0 {
		return cluster.Node{}, false
	}
	return nodes[i], true
}

func (p *placer) pick(role cluster.Role, key media.Key, avoid map[string]bool) (cluster.Node, bool) {
	v := p.pool.view()
	for i, n := range v.Nodes {
		v.Nodes[i] = p.ledger.apply(n)
	}
	return choose(v, role, key, avoid)
}

func choose(v cluster.View, role cluster.Role, key media.Key, avoid map[string]bool) (cluster.Node, bool) {
	if role == cluster.Edge {
		return cluster.PickEdge(v, key, avoid)
	}
	return cluster.PickOrigin(v, key, avoid)
}

// ledger is what the gateway has placed in the last few seconds. It makes viewers who come within
// one heartbeat follow the first of them to one edge, until that edge has enough.
type ledger struct {
	now   func() time.Time
	mu    sync.Mutex
	queue []placement // oldest first
	nodes map[string]map[media.Key]int
}

type placement struct {
	at   time.Time
	node string
	key  media.Key
}

func newLedger(now func() time.Time) *ledger {
	return &ledger{now: now, nodes: map[string]map[media.Key]int{}}
}

func (l *ledger) add(node string, key media.Key) {
	if key == (media.Key{}) {
		key = unnamed()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireLocked()
	if len(l.queue) >= maxPlacements {
		l.dropLocked()
	}
	l.queue = append(l.queue, placement{l.now(), node, key})
	if l.nodes[node] == nil {
		l.nodes[node] = map[media.Key]int{}
	}
	l.nodes[node][key]++
}

// unnamed stands in a node's row for recent sessions without a stream: work, but of no stream.
func unnamed() media.Key { return media.Key{ID: "*"} }

// apply returns the node as it will look once its recent placements show.
func (l *ledger) apply(n cluster.Node) cluster.Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireLocked()
	recent := l.nodes[n.ID]
	if len(recent) == 0 {
		return n
	}
	n.Serving = slices.Clone(n.Serving) // the view is shared
	for key, count := range recent {
		n.CPU += placementCPU * float64(count)
		n.Serving = append(n.Serving, cluster.Serving{Stream: key, Viewers: count})
	}
	return n
}

func (l *ledger) expireLocked() {
	since := l.now().Add(-remember)
	for len(l.queue) > 0 && l.queue[0].at.Before(since) {
		l.dropLocked()
	}
}

func (l *ledger) dropLocked() {
	old := l.queue[0]
	l.queue = l.queue[1:]
	counts := l.nodes[old.node]
	if counts[old.key]--; counts[old.key] == 0 {
		delete(counts, old.key)
	}
	if len(counts) == 0 {
		delete(l.nodes, old.node)
	}
}
