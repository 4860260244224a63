// Package simulate plays a cluster of any size in virtual time: the real placement, relay tree, scaling and registry rules, driven by
// events instead of sockets. docs/cluster.md says what it models, what not, and what it found.
//
// Imports: cluster, media.
package simulate

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	"sluice/cluster"
	"sluice/media"
)

// Config is one run. Zero values of sizes mean the defaults of Full.
type Config struct {
	Name     string
	Seed     uint64
	Regions  []float64 // share of viewers, publishers, nodes and gateways of each
	Edges    int       // at the start; the autoscaler adds some
	MaxEdges int
	Origins  int
	Gateways int // of each region
	Streams  int
	Zipf     float64 // popularity of the stream of rank n is n^-Zipf

	Viewers int           // who come
	Arrive  time.Duration // in so long
	Watch   time.Duration // for so long, in the mean
	Replace bool          // who leaves is replaced, so that their number stays
	Flash   Flash
	Deaths  []Death
	Settle  time.Duration // from the start to the first viewer: nodes join, streams begin
	End     time.Duration

	Scale  cluster.ScaleConfig
	Fanout int
	Costs  Costs
	Times  Times
}

// Flash is a crowd that comes for one stream, on top of the others.
type Flash struct {
	At, During time.Duration
	Viewers    int // of Config.Viewers
	Rank       int // of the stream, by popularity
}

// Death is the end of nodes without a word, as when machines lose power.
type Death struct {
	At     time.Duration
	Edges  int // so many, drawn
	Origin bool
	Region int // all of that region, gateways too, counted from 1; 0: none
}

// Costs are what work costs a node, in seconds of one core; docs/performance.md has the measurements.
type Costs struct {
	Cores  float64 // of each node
	Packet float64 // to one viewer
	Rate   float64 // packets a second of a stream
	Join   float64 // of a viewer: DTLS, SDP
	Relay  float64 // a packet to a child of the relay tree, or from a parent: QUIC has no GSO here
	Idle   float64 // share of all cores that a node without clients uses
	Bits   float64 // a second, of a stream
}

// Times are what the parts around the code under test take.
type Times struct {
	Registry time.Duration    // an operation, in the registry's region
	Near     time.Duration    // round trip within a region
	Far      time.Duration    // and between two
	Client   time.Duration    // from a viewer to its region
	Heal     time.Duration    // until a player finds that no media comes, and lets go
	Silent   time.Duration    // until a node finds that its relay parent is gone
	Idle     time.Duration    // until a parent finds that of a child: QUIC's idle timeout
	Hop      time.Duration    // until a node gives up one that its parent named
	Attach   time.Duration    // and until it gives up an origin
	Dial     time.Duration    // until a gateway gives up a dial to a machine that is gone
	Measure  time.Duration    // between two looks of a node at its own load
	Release  float64          // share of its limit below which one that was full has room again
	Probe    time.Duration    // gateway.health-interval
	Probing  time.Duration    // its timeout; two in a row make a node dead
	Publish  time.Duration    // until a publisher finds that its origin is gone
	Again    time.Duration    // and how often it tries
	EdgeIdle time.Duration    // node.edge-idle
	Boot     time.Duration    // a new node
	BackOff  [2]time.Duration // of players: least and most
}

// Full is the size of the internet: a thousand edges, a million viewers within five minutes, a flash crowd, and deaths: of
// single edges, of an origin, and of a whole region when all are there.
func Full() Config {
	return Config{
		Name: "full", Seed: 1, Regions: []float64{0.45, 0.35, 0.2}, Edges: 1000, MaxEdges: 1500, Origins: 60, Gateways: 2, Streams: 5000, Zipf: 1,
		Viewers: 1_000_000, Arrive: 5 * time.Minute, Watch: time.Hour, Settle: 20 * time.Second, End: 9 * time.Minute,
		Flash: Flash{At: 200 * time.Second, During: 30 * time.Second, Viewers: 150_000, Rank: 40},
		Deaths: []Death{{At: 100 * time.Second, Edges: 1}, {At: 130 * time.Second, Origin: true}, {At: 160 * time.Second, Edges: 10},
			{At: 225 * time.Second, Edges: 1}, {At: 6 * time.Minute, Region: 2}},
		Scale: cluster.ScaleConfig{Min: 2}, Fanout: 16, Costs: DefaultCosts(), Times: DefaultTimes(),
	}
}

// Budget is the cluster for which the registry's operations are limited: 100 nodes, 1,000 streams, 100,000 viewers, who come and go.
func Budget() Config {
	c := Full()
	c.Name, c.Edges, c.MaxEdges, c.Origins, c.Gateways, c.Streams = "budget", 92, 92, 8, 1, 1000
	c.Viewers, c.Arrive, c.Watch, c.Replace, c.End = 100_000, 2*time.Minute, 15*time.Minute, true, 8*time.Minute
	c.Flash = Flash{}
	c.Deaths = []Death{{At: 6 * time.Minute, Edges: 1}, {At: 7 * time.Minute, Origin: true}}
	return c
}

// Small is Full in a size for tests: a tenth of it, with fewer edges than the viewers will need.
func Small() Config {
	c := Full()
	c.Name, c.Edges, c.MaxEdges, c.Origins, c.Gateways, c.Streams = "small", 60, 150, 9, 1, 500
	c.Viewers = 60_000
	c.Flash.Viewers = 9_000
	c.Deaths[2].Edges = 3
	c.Scale.Window, c.Scale.Lead = 2*time.Minute, time.Minute // so that a short run sees it
	return c
}

// DefaultCosts are those of docs/performance.md, on the small side of what was measured, for machines of two cores.
func DefaultCosts() Costs {
	return Costs{Cores: 2, Packet: 2.7e-6, Rate: 300, Join: 1.3e-3, Relay: 6e-6, Idle: 0.01, Bits: 2.6e6}
}

// DefaultTimes are the settings' defaults, and usual distances.
func DefaultTimes() Times {
	return Times{
		Registry: 3 * time.Millisecond, Near: time.Millisecond, Far: 80 * time.Millisecond, Client: 25 * time.Millisecond,
		Heal: 1200 * time.Millisecond, Silent: 500 * time.Millisecond, Idle: 1500 * time.Millisecond,
		Hop: 700 * time.Millisecond, Attach: 1500 * time.Millisecond, Dial: time.Second, Measure: 500 * time.Millisecond, Release: 0.9,
		Probe: 300 * time.Millisecond, Probing: 600 * time.Millisecond, Publish: time.Second, Again: 500 * time.Millisecond,
		EdgeIdle: 5 * time.Second, Boot: time.Minute, BackOff: [2]time.Duration{500 * time.Millisecond, 5 * time.Second},
	}
}

// world is a run. Everything in it belongs to the one goroutine that plays the events.
type world struct {
	loop
	cfg Config
	rng *rand.Rand

	reg      registry
	edges    []*node
	origins  []*node
	byID     map[string]*node
	gateways [][]*gateway // by region
	gone     []bool       // regions that died
	streams  []*stream
	pick     *popularity
	crowd    crowd
	control  control
	out      *Report
}

// stream is what is published, and where.
type stream struct {
	key    media.Key
	index  int
	region int // of its publisher
	root   *feed
	row    cluster.Stream
}

// Run plays the configuration to its end, or until ctx ends.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	began := time.Now()
	w := &world{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0)), byID: map[string]*node{}, gone: make([]bool, len(cfg.Regions)), out: newReport(cfg)}
	w.reg.w = w
	w.build()
	if err := w.play(ctx, cfg.End); err != nil {
		return nil, err
	}
	w.finish(time.Since(began))
	return w.out, nil
}

// build lets the nodes join, the gateways look, and the streams begin.
func (w *world) build() {
	w.crowd.init(w)
	w.control.init(w)
	for r := range w.cfg.Regions {
		w.gateways = append(w.gateways, nil)
		for range max(1, w.cfg.Gateways) {
			w.gateways[r] = append(w.gateways[r], w.newGateway(r))
		}
	}
	for i := range w.cfg.Origins {
		w.newNode(cluster.Origin, w.share(i, w.cfg.Origins)).start(w.spread(2 * time.Second))
	}
	for i := range w.cfg.Edges {
		w.newNode(cluster.Edge, w.share(i, w.cfg.Edges)).start(w.spread(2 * time.Second))
	}
	w.pick = newPopularity(w.cfg.Streams, w.cfg.Zipf)
	for i := range w.cfg.Streams {
		s := &stream{key: streamKey(i), index: i, region: w.region()}
		w.streams = append(w.streams, s)
		w.at(5*time.Second+w.spread(10*time.Second), func() { w.publish(s, nil) })
	}
	for i, d := range w.cfg.Deaths {
		w.at(d.At, func() { w.kill(i, d) })
	}
	w.at(w.cfg.Settle, w.crowd.arrive)
	w.at(time.Second, w.sample)
}

// share is the region of the i-th of n, so that regions have their parts of any n, and each has one.
func (w *world) share(i, n int) int {
	if i < len(w.cfg.Regions) {
		return i
	}
	at, sum := (float64(i)+0.5)/float64(n), 0.0
	for r, x := range w.cfg.Regions {
		if sum += x; at < sum {
			return r
		}
	}
	return len(w.cfg.Regions) - 1
}

// region draws one.
func (w *world) region() int {
	x := w.rng.Float64()
	for r, share := range w.cfg.Regions {
		if x -= share; x < 0 {
			return r
		}
	}
	return len(w.cfg.Regions) - 1
}

func (w *world) regionOf(name string) int {
	r := 0
	for regionName(r) != name {
		r++
	}
	return r
}

// spread draws a time within d.
func (w *world) spread(d time.Duration) time.Duration { return time.Duration(w.rng.Int64N(int64(d))) }

// trip is the round-trip time between two regions.
func (w *world) trip(a, b int) time.Duration {
	if a == b {
		return w.cfg.Times.Near
	}
	return w.cfg.Times.Far
}

// popularity draws streams by Zipf's law.
type popularity struct{ upTo []float64 }

func newPopularity(n int, exponent float64) *popularity {
	p := &popularity{}
	sum := 0.0
	for i := range n {
		sum += math.Pow(float64(i+1), -exponent)
		p.upTo = append(p.upTo, sum)
	}
	return p
}

func (p *popularity) draw(rng *rand.Rand) int {
	x := rng.Float64() * p.upTo[len(p.upTo)-1]
	lo, hi := 0, len(p.upTo)-1
	for lo < hi {
		if mid := (lo + hi) / 2; p.upTo[mid] < x {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}
