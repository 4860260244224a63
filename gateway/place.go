package gateway

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"sluice/cluster"
	"sluice/media"
)

// showEvery is how many times as long as it takes to tell the placers the next news of the pool waits: when a region dies there
// are hundreds. Until then a dead node costs a dial.
const showEvery = 10

// placer chooses nodes: those of the directory's view that answer the pool's probes.
type placer struct {
	pool    *pool
	origins *cluster.Placer
	edges   *cluster.Placer

	mu     sync.Mutex
	view   cluster.View            // as last shown to the two
	health int                     // the pool's changes that were shown with it
	nodes  map[string]cluster.Node // of the view, those that answer; by id
	next   time.Time               // not before then the pool's news alone are shown
}

func newPlacer(pool *pool, region string) *placer {
	return &placer{pool: pool, health: -1,
		origins: cluster.NewPlacer(cluster.Origin, region, rand.Uint64(), time.Now),
		edges:   cluster.NewPlacer(cluster.Edge, region, rand.Uint64(), time.Now)}
}

// session chooses the node for a new viewer or publisher on a door, and remembers it. Which kind it
// is does not matter: the door decides who gets it, and both follow their stream.
// The zero key is a session whose stream is not known yet.
func (p *placer) session(role cluster.Role, key media.Key, avoid map[string]bool) (cluster.Node, bool) {
	if role == cluster.Origin { // the stream's backup is of use on another one only
		return p.apart(key, avoid, func(n cluster.Node) bool { return slices.Contains(n.Backups, key) })
	}
	return p.of(role).Place(key, avoid)
}

// backup chooses the origin for a stream's backup publisher: one that does not have the stream. Where all have, the node
// that is asked says what is wrong.
func (p *placer) backup(key media.Key, avoid map[string]bool) (cluster.Node, bool) {
	return p.apart(key, avoid, func(n cluster.Node) bool { return n.Serves(key) })
}

// apart chooses an origin of which a condition does not hold, if there is one.
func (p *placer) apart(key media.Key, avoid map[string]bool, from func(cluster.Node) bool) (cluster.Node, bool) {
	origins := p.of(cluster.Origin)
	others := map[string]bool{}
	maps.Copy(others, avoid)
	p.mu.Lock()
	for id, n := range p.nodes {
		if from(n) {
			others[id] = true
		}
	}
	p.mu.Unlock()
	if n, ok := origins.Place(key, others); ok {
		return n, true
	}
	return origins.Place(key, avoid)
}

// refused says that the node which was chosen for a session has not taken it.
func (p *placer) refused(role cluster.Role, key media.Key, node string) {
	p.of(role).Refused(key, node)
}

// request chooses the node for a request that leaves nothing behind: one that has the stream, if any
// is named, else the least loaded. Draining nodes answer when there is nobody else.
func (p *placer) request(role cluster.Role, key media.Key, avoid map[string]bool) (cluster.Node, bool) {
	return p.of(role).Find(key, avoid)
}

// ready reports whether a session would find a node.
func (p *placer) ready(role cluster.Role) bool { return p.of(role).Ready() }

// node returns the node with that id, whatever it takes, if it answers. One whose heartbeats don't reach the
// registry has its sessions still.
func (p *placer) node(id string) (cluster.Node, bool) {
	p.of(cluster.Edge)
	p.mu.Lock()
	defer p.mu.Unlock()
	n, ok := p.nodes[id]
	return n, ok
}

// of returns the role's placer with the present view. A look at each node is taken only when something has changed.
func (p *placer) of(role cluster.Role) *cluster.Placer {
	v, health := p.pool.dir.View(), p.pool.changes()
	p.mu.Lock()
	defer p.mu.Unlock()
	if began := time.Now(); !sameView(v, p.view) || health != p.health && began.After(p.next) {
		p.view, p.health = v, health
		alive := p.pool.view(v)
		p.origins.Show(alive)
		p.edges.Show(alive)
		p.nodes = make(map[string]cluster.Node, len(alive.Nodes))
		for _, n := range alive.Nodes {
			p.nodes[n.ID] = n
		}
		ended := time.Now()
		p.next = ended.Add(showEvery * ended.Sub(began))
	}
	if role == cluster.Edge {
		return p.edges
	}
	return p.origins
}

// sameView: a view is never changed, so that one with the same rows is the same.
func sameView(a, b cluster.View) bool {
	return a.At.Equal(b.At) && len(a.Nodes) == len(b.Nodes) && (len(a.Nodes) == 0 || &a.Nodes[0] == &b.Nodes[0])
}
