package cluster

import (
	"cmp"
	"hash/fnv"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"sluice/media"
)

const (
	// NearLimit is the Node.Load at which a node has no room for new clients, as when it says Full: they
	// are sent there only when every other node is full too, and it says so itself.
	NearLimit = 0.85
	// concentrate is how far above the mean of its region a node may be and still get the viewers of the
	// streams that it has, as a share of what the mean leaves free. More: fewer edges for each stream, so less
	// relaying. Less: a more even load.
	concentrate = 0.15
	// crowded is the mean load at which a region sends viewers on to others, if they are less loaded: what several gateways do at
	// once shows a second later.
	crowded = 0.9
	// loadStep: for a stream that no node has, loads that differ by less are equal, so that
	// gateways with views of different age choose the same node.
	loadStep = 0.05
	// shownAfter is when a session is among those that its node's row counts: DTLS takes some round trips.
	shownAfter = time.Second
	// A session that doesn't show costs its node a half more than one does in the mean: starting one (DTLS, SDP) is dearer
	// than going on. Within these bounds, as shares of a node's limit; the upper one also
	// stands for what isn't known yet.
	unitFactor = 1.5
	unitLeast  = 0.0002
	unitMost   = 0.004
	// newStream is what a stream costs that a node did not have, in sessions: it takes it from one node and gives it to another.
	newStream = 4
	// lag is how far a row's Load is behind its sessions: it is a mean over LoadOver.
	lag = LoadOver / 2
	// fewSpots: of so many or fewer all are compared. Of more, two that are drawn: the better of two spreads the load
	// nearly as well as the best of all, and gateways whose views are old don't run to the same one.
	fewSpots = 8
	// maxRecent bounds what is remembered when the registry is away and no row shows anything. The oldest are forgotten.
	maxRecent = 1 << 16
	// recentAfter: what no row has shown by then never will, as when the registry is away.
	recentAfter = time.Minute
)

// Placer chooses the node for each new session of one role, for one gateway. Rows are seconds old, so it counts
// what it has placed itself until they show it. Any goroutine may call it.
//
// A viewer gets an edge of the gateway's region that has the stream, unless that one is well above the region's mean;
// then another of the region; then one elsewhere. A publisher gets the origin that still has the stream,
// since its hub goes on for the viewers without a gap; then the least loaded of the region; then one elsewhere.
// Full ones come last: they refuse, and say why.
type Placer struct {
	role   Role
	region string
	now    func() time.Time

	mu        sync.Mutex
	rng       *rand.Rand
	at, read  time.Time // when the view was read: by the registry's clock, and by ours
	round     int       // counts views
	spots     map[string]*spot
	sites     map[media.Key]*site
	near, far zone
	leaving   zone // draining ones
	recent    []placement
	unit      float64 // what a session costs that doesn't show yet
}

// spot is a node that lives.
type spot struct {
	Node
	round    int     // of the last view it was in
	load     float64 // share of its limit, recent sessions included
	sessions int     // viewers at an edge, streams at an origin, recent sessions included
	usual    float64 // sessions, as they were when the load was measured
	home     *zone
}

// zone is the nodes of one kind of place.
type zone struct {
	spots []*spot
	load  float64 // sum
}

// mean is the load of its nodes; without any it is full.
func (z *zone) mean() float64 {
	if len(z.spots) == 0 {
		return math.Inf(1)
	}
	return z.load / float64(len(z.spots))
}

// site is where a stream is.
type site struct {
	round     int // the rest is of that view
	near, far []*spot
	shown     bool // a row has it
	placed    int  // recent sessions; without any, and without a row, nothing of it is kept
}

// placement is a session that no row shows yet.
type placement struct {
	at   time.Time // by the registry's clock
	node string
	key  media.Key
	cost float64 // as counted
}

// NewPlacer returns a placer without a view: it finds nobody. An empty region: all nodes are equally near. Gateways need different seeds.
func NewPlacer(role Role, region string, seed uint64, now func() time.Time) *Placer {
	return &Placer{role: role, region: region, now: now, rng: rand.New(rand.NewPCG(seed, uint64(len(role)))),
		spots: map[string]*spot{}, sites: map[media.Key]*site{}, unit: unitMost}
}

// Show replaces the view. The placer forgets of its recent sessions those that the rows have by now.
func (p *Placer) Show(v View) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !v.At.Equal(p.at) || p.read.IsZero() { // else the registry is away, and its clock goes on
		p.at, p.read = v.At, p.now()
	}
	p.round++
	p.near, p.far, p.leaving = zone{spots: p.near.spots[:0]}, zone{spots: p.far.spots[:0]}, zone{spots: p.leaving.spots[:0]}
	var load float64
	var sessions int
	for _, n := range v.Nodes {
		if !n.Takes(p.role) || !n.Alive(v.At) {
			continue
		}
		s := p.spots[n.ID]
		if s == nil {
			s = &spot{}
			p.spots[n.ID] = s
		}
		s.update(n, p.role, p.round)
		s.load += p.unit * max(0, float64(s.sessions)-s.usual)
		load += s.load
		sessions += s.sessions
		switch {
		case n.State != Ready:
			s.home = &p.leaving
		case p.region == "" || n.Region == p.region:
			s.home = &p.near
		default:
			s.home = &p.far
		}
		s.home.spots = append(s.home.spots, s)
		s.home.load += s.load
		for _, serving := range n.Serving {
			site := p.site(serving.Stream)
			site.shown = true
			if list := site.list(s, p); list != nil {
				*list = append(*list, s)
			}
		}
	}
	p.unit = unitMost
	if sessions > 0 { // for the next view, too
		p.unit = max(unitLeast, min(unitMost, unitFactor*load/float64(sessions)))
	}
	p.forget()
}

// update takes a new row.
func (s *spot) update(n Node, role Role, round int) {
	sessions := len(n.Serving)
	if role == Edge {
		sessions = n.Viewers()
	}
	usual := float64(sessions)
	if s.round > 0 {
		age := n.LastHeartbeat.Sub(s.LastHeartbeat).Seconds() / lag.Seconds()
		usual = s.usual + (usual-s.usual)*(1-math.Exp(-age))
	}
	*s = spot{Node: n, round: round, load: pressure(n), sessions: sessions, usual: usual}
}

// forget drops what is no longer there, and counts the recent sessions again.
func (p *Placer) forget() {
	for id, s := range p.spots {
		if s.round != p.round {
			delete(p.spots, id)
		}
	}
	for key, s := range p.sites {
		if s.round < p.round-fewSpots { // a stream may come back soon: the lists' memory is kept for some rounds
			delete(p.sites, key)
		}
	}
	old := p.clock().Add(-recentAfter)
	kept := p.recent[:0]
	for _, r := range p.recent {
		if s := p.spots[r.node]; s != nil && s.LastHeartbeat.Sub(r.at) < shownAfter && !r.at.Before(old) {
			r.cost = p.count(s, r.key)
			kept = append(kept, r)
		}
	}
	clear(p.recent[len(kept):])
	p.recent = kept
}

// clock is the registry's, about.
func (p *Placer) clock() time.Time { return p.at.Add(p.now().Sub(p.read)) }

// count adds a session to a node as this gateway sees it, and returns what it costs.
func (p *Placer) count(s *spot, key media.Key) float64 {
	cost := p.unit
	if key != (media.Key{}) {
		site := p.site(key)
		site.placed++
		if list := site.list(s, p); list != nil && !slices.Contains(*list, s) {
			*list = append(*list, s)
			cost *= 1 + newStream
		}
	}
	s.load += cost
	s.home.load += cost
	s.sessions++
	return cost
}

// uncount forgets where the stream of a recent session is, unless a row or another one shows it.
func (p *Placer) uncount(r placement) {
	s := p.sites[r.key]
	if s == nil || s.round != p.round {
		return
	}
	if s.placed--; s.placed == 0 && !s.shown {
		delete(p.sites, r.key)
	}
}

func (p *Placer) site(key media.Key) *site {
	s := p.sites[key]
	if s == nil {
		s = &site{}
		p.sites[key] = s
	}
	if s.round != p.round {
		*s = site{round: p.round, near: s.near[:0], far: s.far[:0]}
	}
	return s
}

// list is where a node belongs that has the stream.
func (s *site) list(at *spot, p *Placer) *[]*spot {
	switch at.home {
	case &p.near:
		return &s.near
	case &p.far:
		return &s.far
	}
	return nil
}

// Place chooses the node for a new session and counts it. The zero key is a session whose stream is not known yet.
// Nodes in avoid (ids) have just failed and are passed over. False: there is none.
func (p *Placer) Place(key media.Key, avoid map[string]bool) (Node, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.pick(key, avoid)
	if s == nil {
		return Node{}, false
	}
	if len(p.recent) >= maxRecent {
		for _, r := range p.recent[:maxRecent/8] {
			p.uncount(r)
		}
		p.recent = slices.Delete(p.recent, 0, maxRecent/8)
	}
	p.recent = append(p.recent, placement{p.clock(), s.ID, key, p.count(s, key)})
	return s.Node, true
}

// Refused takes back what Place has counted: the node has not taken the session.
func (p *Placer) Refused(key media.Key, node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.recent) - 1; i >= 0; i-- { // it is among the last
		r := p.recent[i]
		if r.node != node || r.key != key {
			continue
		}
		p.recent = slices.Delete(p.recent, i, i+1)
		p.uncount(r)
		if s := p.spots[node]; s != nil {
			s.load -= r.cost
			s.home.load -= r.cost
			s.sessions--
		}
		return
	}
}

// Find chooses the node for a request that leaves nothing behind. Draining ones answer when nobody else does.
func (p *Placer) Find(key media.Key, avoid map[string]bool) (Node, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.pick(key, avoid)
	if s == nil {
		s = p.lesser(p.leaving.spots, math.Inf(1), avoid)
	}
	if s == nil {
		return Node{}, false
	}
	return s.Node, true
}

// Ready reports whether a session would find a node.
func (p *Placer) Ready() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.near.spots)+len(p.far.spots) > 0
}

func (p *Placer) pick(key media.Key, avoid map[string]bool) *spot {
	var at site
	if s := p.sites[key]; s != nil && s.round == p.round {
		at = *s
	}
	if p.role == Origin {
		return cmp.Or(p.lesser(at.near, 1, avoid), p.lesser(at.far, 1, avoid),
			p.lesser(p.near.spots, 1, avoid), p.lesser(p.far.spots, 1, avoid), p.least(at, avoid))
	}
	near, far := func() *spot { return p.edge(&p.near, at.near, key, avoid) }, func() *spot { return p.edge(&p.far, at.far, key, avoid) }
	if mean := p.near.mean(); mean > crowded && p.far.mean() < mean {
		near, far = far, near
	}
	if s := near(); s != nil {
		return s
	}
	return cmp.Or(far(), p.least(at, avoid))
}

// edge chooses one of a zone, if there is room.
func (p *Placer) edge(g *zone, having []*spot, key media.Key, avoid map[string]bool) *spot {
	if len(g.spots) == 0 {
		return nil
	}
	mean := min(1, g.mean())
	limit := mean + concentrate*(1-mean)
	if s := p.lesser(having, limit, avoid); s != nil {
		return s
	}
	if len(having) == 0 && key != (media.Key{}) {
		if s := p.first(g.spots, key, limit, avoid); s != nil {
			return s
		}
	}
	return p.lesser(g.spots, 1, avoid)
}

// least is for when all are full: the least full of all, or one that has the stream and is hardly worse.
func (p *Placer) least(at site, avoid map[string]bool) *spot {
	all := math.Inf(1)
	best := lighter(p.lesser(p.near.spots, all, avoid), p.lesser(p.far.spots, all, avoid), 0)
	return lighter(lighter(p.lesser(at.near, all, avoid), p.lesser(at.far, all, avoid), 0), best, loadStep)
}

// lighter is a, unless b has less to carry by more than that.
func lighter(a, b *spot, by float64) *spot {
	if a == nil || b != nil && b.load < a.load-by {
		return b
	}
	return a
}

// first chooses the node that gets a stream which nobody has. Gateways don't know of each other's
// sessions for a second or two, so it is the stream that says which nodes are asked: all come to about the same one.
func (p *Placer) first(spots []*spot, key media.Key, below float64, avoid map[string]bool) (best *spot) {
	consider := func(s *spot) bool {
		if s.load >= below || avoid[s.ID] {
			return false
		}
		if best == nil || cmp.Or(cmp.Compare(math.Floor(s.load/loadStep), math.Floor(best.load/loadStep)),
			cmp.Compare(spread(s.ID, key), spread(best.ID, key))) < 0 {
			best = s
		}
		return true
	}
	if len(spots) <= fewSpots {
		for _, s := range spots {
			consider(s)
		}
		return best
	}
	seed, found := spread("", key), 0
	for i := 0; i < fewSpots && found < 2; i++ {
		if consider(spots[mix(seed+uint64(i))%uint64(len(spots))]) {
			found++
		}
	}
	return best
}

// lesser chooses the least loaded of a few, of many the less loaded of two. nil: all are loaded as much as that, or more.
func (p *Placer) lesser(spots []*spot, below float64, avoid map[string]bool) (best *spot) {
	consider := func(s *spot) bool {
		if s.load >= below || avoid[s.ID] {
			return false
		}
		if best == nil || cmp.Or(cmp.Compare(s.load, best.load), cmp.Compare(s.sessions, best.sessions)) < 0 {
			best = s
		}
		return true
	}
	if len(spots) > fewSpots {
		for i, found := 0, 0; i < fewSpots && found < 2; i++ {
			if consider(spots[p.rng.IntN(len(spots))]) {
				found++
			}
		}
		if best != nil {
			return best
		}
	}
	if len(spots) == 0 {
		return nil
	}
	from := p.rng.IntN(len(spots)) // equals get equal shares
	for i := range spots {
		consider(spots[(from+i)%len(spots)])
	}
	return best
}

// pressure is how much of what it may use a node does use. From 1 on it has no room.
func pressure(n Node) float64 {
	p := max(n.Load, n.CPU) / NearLimit
	if n.Full != "" {
		return max(1, p)
	}
	return p
}

// spread is a number that differs for each pair of node and stream, so that of idle
// nodes each gets its share of the streams.
func spread(id string, key media.Key) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, id+" "+key.String())
	return mix(h.Sum64()) // FNV's high bits hardly change with the last letter
}

// mix is splitmix64's last step.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
