package cluster

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Of a Scaler's rules.
const (
	scaleTarget = 0.6
	scaleWindow = 5 * time.Minute // with scaleTarget the usual rule of a scale set
	// What is steep is seen in a tenth of the window, and looked ahead for a fifth of it: so long does a machine need to come.
	scaleRecent = 10
	scaleLead   = 5
	scaleLeast  = 6 * HeartbeatEvery // for what is recent: fewer heartbeats say nothing
	// wellBelow is the share of the target under which the others must stay when a node goes: between it and the target nothing changes.
	wellBelow = 0.75
	// sure is how many standard errors a slope must be away from 0 to be one, and rises how much of the group's target (of its
	// viewers) it must bring within the lead.
	sure  = 3
	rises = 0.1
	// someViewers is the least for which a cost per viewer is computed.
	someViewers = 5
)

// ScaleConfig says when a group of nodes grows and shrinks.
type ScaleConfig struct {
	Target float64       // mean load at which it grows, 0 to 1; default 0.6
	Window time.Duration // over which the mean is taken, and for which it must be quiet before a node goes; default 5 min
	Lead   time.Duration // from a decision until a new node is up; default a fifth of the window
	Min    int           // nodes of a group; default 1
	Max    int           // 0: no limit
}

// Signal is what a Scaler says of a group: the nodes of a role in a region.
type Signal struct {
	Role   Role
	Region string
	At     time.Time // of the view that it is made of

	Nodes    int // alive and ready
	Draining int
	Full     int // of Nodes, that take nobody new
	Viewers  int

	CPU       float64 // mean over the nodes, now
	Load      float64 // what all carry for each ready node, now; what draining nodes carry will come to the others
	Mean      float64 // of Load over the window
	Recent    float64 // of Load over a tenth of it
	Predicted int     // viewers when the lead is over, if they go on coming
	PerViewer float64 // load that a viewer costs a node, as measured here; 0: not known

	Desired int    // nodes that should be ready
	Reason  string // why, in words
}

// Scaler says how many nodes a group should have, from Views over time. It has no clock and no goroutine; one goroutine uses it.
type Scaler struct {
	cfg    ScaleConfig
	groups map[scaleKey]*scaleGroup
	at     time.Time // of the last view
	last   []Signal
}

type scaleKey struct {
	role   Role
	region string
}

// NewScaler returns a Scaler that has seen nothing.
func NewScaler(cfg ScaleConfig) *Scaler {
	cfg.Target = cmp.Or(cfg.Target, scaleTarget)
	cfg.Window = cmp.Or(cfg.Window, scaleWindow)
	cfg.Lead = cmp.Or(cfg.Lead, cfg.Window/scaleLead)
	cfg.Min = max(cfg.Min, 1)
	return &Scaler{cfg: cfg, groups: map[scaleKey]*scaleGroup{}}
}

// Target is the mean load at which a group is to grow.
func (s *Scaler) Target() float64 { return s.cfg.Target }

// Observe takes a view and returns the signals of all groups, by role and region; call it about once a second. While a view's time
// stands still, as when the registry is away, the signals stay as they were.
func (s *Scaler) Observe(v View) []Signal {
	if !v.At.After(s.at) {
		return s.last
	}
	s.at = v.At
	for _, g := range s.groups {
		g.now = scaleSample{at: v.At}
	}
	for i := range v.Nodes {
		n := &v.Nodes[i]
		k := scaleKey{n.Role, n.Region}
		g := s.groups[k]
		if g == nil {
			g = &scaleGroup{key: k, cfg: s.cfg, now: scaleSample{at: v.At}, young: true}
			s.groups[k] = g
		}
		g.count(n, v.At)
	}
	s.last = make([]Signal, 0, len(s.groups))
	for k, g := range s.groups {
		if !g.keep() {
			delete(s.groups, k)
			continue
		}
		s.last = append(s.last, g.decide())
	}
	slices.SortFunc(s.last, func(a, b Signal) int { return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.Region, b.Region)) })
	return s.last
}

// scaleGroup is the history of a group.
type scaleGroup struct {
	key     scaleKey
	cfg     ScaleConfig
	now     scaleSample
	samples []scaleSample // of the window, oldest first
	cost    scaleCost

	ready   int       // nodes in the last sample
	quiet   time.Time // since when nobody came, drained or went, data came without a gap, and no node was let go
	desired int       // what was said last; a node that drains or dies does not lower it
	lowered bool      // one was let go, and is still ready
	young   bool      // the window is not full, and nobody has drained yet: those who come are a cluster that starts
	peaks   []scalePeak
	present time.Time // when there was a node
}

// scaleSample is the sum over a group's living nodes at one time.
type scaleSample struct {
	at                             time.Time
	ready, draining, full, viewers int
	load, cpu, hottest             float64
	hot                            string // the node with the highest load
	rows, lost                     int    // lost: dead, but not for longer than a window
}

// scalePeak is how many nodes were needed at a time: at the target, and to stay well below it.
type scalePeak struct {
	at         time.Time
	need, calm int
}

// count adds a node to the present sample.
func (g *scaleGroup) count(n *Node, at time.Time) {
	s := &g.now
	s.rows++
	if !n.Alive(at) {
		if at.Sub(n.LastHeartbeat) < g.cfg.Window {
			s.lost++
		}
		return
	}
	load, viewers := n.Load, n.Viewers()
	if n.Full != "" {
		load = max(load, NearLimit) // whatever it lacks
	}
	s.load += load
	s.viewers += viewers
	if n.State != Ready {
		s.draining++
		return
	}
	s.ready++
	s.cpu += n.CPU
	if n.Full != "" {
		s.full++
	}
	if load > s.hottest || s.hot == "" {
		s.hot, s.hottest = n.ID, load
	}
	g.cost.add(float64(viewers), n.Load)
}

// keep takes the present sample into the history; false when the group has gone.
func (g *scaleGroup) keep() bool {
	at := g.now.at
	if g.now.rows > 0 {
		g.present = at
	}
	if at.Sub(g.present) > g.cfg.Window {
		return false
	}
	g.cost.age(at, g.cfg.Window)
	if n := len(g.samples); n == 0 || at.Sub(g.samples[n-1].at) > g.recentSpan() || g.now.ready != g.ready || g.now.draining > 0 {
		g.quiet = at
	}
	g.follow()
	g.ready = g.now.ready
	for len(g.samples) > 0 && at.Sub(g.samples[0].at) > g.cfg.Window {
		g.samples = g.samples[1:]
	}
	if n := len(g.samples); n == 0 || at.Sub(g.samples[n-1].at) >= g.cfg.Window/600 {
		g.samples = append(g.samples, g.now)
	}
	return true
}

// follow takes what was said last as what there should be, and more nodes when somebody has added some. In a rolling replacement the new
// are ready before the old drain: whoever makes as many as are desired would add to that again and again, so these must stay.
func (g *scaleGroup) follow() {
	at, ready, draining := g.now.at, g.now.ready, g.now.draining
	if len(g.samples) == 0 && g.desired == 0 { // who has just begun does not know what is about to come back
		g.desired = ready + draining + g.now.lost
	}
	g.young = g.young && draining == 0 && !g.whole()
	if ready <= g.desired || ready > g.ready {
		g.lowered = false
	}
	if ready > g.desired && !g.lowered && (g.young || at.Sub(g.quiet) >= g.recentSpan()) {
		g.desired = ready
	}
	g.desired = max(g.desired, g.cfg.Min)
}

// recentSpan is a tenth of the window, but enough for a few heartbeats.
func (g *scaleGroup) recentSpan() time.Duration { return max(g.cfg.Window/scaleRecent, scaleLeast) }

// recent returns the samples of the last tenth of the window; nil when there are too few to say something.
func (g *scaleGroup) recent() []scaleSample {
	since := g.now.at.Add(-g.recentSpan())
	i, _ := slices.BinarySearchFunc(g.samples, since, func(s scaleSample, t time.Time) int { return s.at.Compare(t) })
	list := g.samples[i:]
	if len(list) < 5 || list[0].at.Sub(since) > g.recentSpan()/4 {
		return nil
	}
	return list
}

// whole reports that the samples span the window, nearly.
func (g *scaleGroup) whole() bool {
	return len(g.samples) > 0 && g.now.at.Sub(g.samples[0].at) >= g.cfg.Window*9/10
}

func meanLoad(list []scaleSample) (sum float64) {
	for _, s := range list {
		sum += s.load
	}
	return sum / float64(max(len(list), 1))
}

// decide makes the signal. All rules count in the sum of the nodes' loads: it does not depend on how many share it.
func (g *scaleGroup) decide() Signal {
	now, target := g.now, g.cfg.Target
	nodes := float64(max(now.ready, 1))
	recent := g.recent()
	mean, short := meanLoad(g.samples), meanLoad(recent)
	if recent == nil {
		short = now.load
	}
	sig := Signal{Role: g.key.role, Region: g.key.region, At: now.at,
		Nodes: now.ready, Draining: now.draining, Full: now.full, Viewers: now.viewers, Predicted: now.viewers,
		CPU: now.cpu / nodes, Load: now.load / nodes, Mean: mean / nodes, Recent: short / nodes}
	sig.PerViewer, _ = g.cost.perViewer()

	need, why := g.cfg.Min, ""
	want := func(load float64, reason string, args ...any) {
		if n := ceil(load / target); n > need {
			need, why = n, fmt.Sprintf(reason, args...)
		}
	}
	if g.whole() {
		want(mean, "%s over %s", share(mean/nodes), g.cfg.Window)
	}
	if recent != nil {
		ahead := now.load
		if per := rise(recent, func(s scaleSample) float64 { return s.load }, rises*target*nodes/g.cfg.Lead.Seconds()); per > 0 {
			ahead += per * g.cfg.Lead.Seconds()
		}
		if short > NearLimit*nodes {
			want(short, "%s over %s", share(short/nodes), g.recentSpan())
		}
		if ahead > NearLimit*nodes && ahead > now.load {
			want(ahead, "%s in %s if it goes on rising", share(ahead/nodes), g.cfg.Lead)
		}
		coming := rise(recent, func(s scaleSample) float64 { return float64(s.viewers) }, max(someViewers, rises*float64(now.viewers))/g.cfg.Lead.Seconds())
		sig.Predicted += int(coming * g.cfg.Lead.Seconds())
		if each, idle := g.cost.perViewer(); each > 0 && coming > 0 {
			room := max(target-idle, target/2)
			want(float64(sig.Predicted)*each/room*target, "%d viewers in %s as they come, each %s of a node", sig.Predicted, g.cfg.Lead, share(each))
		}
	}
	calm := max(g.cfg.Min, need, ceil(max(mean, short, now.load)/(wellBelow*target)))
	sig.Desired, sig.Reason = g.settle(need, calm, why, sig)
	return sig
}

// settle holds on to what was said, which what was needed within the window raises, and lets one node go after a quiet one.
func (g *scaleGroup) settle(need, calm int, why string, sig Signal) (int, string) {
	at, ready := g.now.at, g.now.ready
	for len(g.peaks) > 0 && at.Sub(g.peaks[0].at) > g.cfg.Window {
		g.peaks = g.peaks[1:]
	}
	// Only peaks that no later one reaches are kept.
	for n := len(g.peaks); n > 0 && g.peaks[n-1].need <= need && g.peaks[n-1].calm <= calm; n-- {
		g.peaks = g.peaks[:n-1]
	}
	g.peaks = append(g.peaks, scalePeak{at, need, calm})
	held, heldCalm := 0, 0
	for _, p := range g.peaks {
		held, heldCalm = max(held, p.need), max(heldCalm, p.calm)
	}
	desired, reason := g.desired, ""
	switch now := g.describe(sig); {
	case need > ready && why != "":
		desired, reason = max(need, held, desired), fmt.Sprintf("%s; %s: %d are needed for %s", now, why, need, share(g.cfg.Target))
	case held > ready && held > g.cfg.Min:
		desired, reason = max(held, desired), fmt.Sprintf("%s; %d were needed within the last %s", now, held, g.cfg.Window)
	case ready < g.cfg.Min && desired == g.cfg.Min:
		reason = fmt.Sprintf("%s; there are never fewer than %d", now, g.cfg.Min)
	case g.lowered && heldCalm <= desired:
		reason = fmt.Sprintf("%s; %d are enough, for %s already", now, heldCalm, g.cfg.Window)
	case g.lowered: // it has not gone yet, and may stay
		desired, reason = ready, fmt.Sprintf("%s; %d would not stay well below %s", now, desired, share(g.cfg.Target))
	case desired == g.cfg.Min:
		reason = now + "; as few as may be"
	case heldCalm >= desired:
		reason = fmt.Sprintf("%s; %d would not stay well below %s", now, desired-1, share(g.cfg.Target))
	case g.now.draining > 0:
		reason = fmt.Sprintf("%s; %d still drain", now, g.now.draining)
	case at.Sub(g.quiet) < g.cfg.Window:
		reason = fmt.Sprintf("%s; one may go after %s without a change", now, g.cfg.Window)
	default:
		desired--
		g.lowered, g.quiet = desired < ready, at
		reason = fmt.Sprintf("%s; %d are enough, for %s already", now, heldCalm, g.cfg.Window)
	}
	if most := g.cfg.Max; most > 0 && desired > most {
		reason += fmt.Sprintf("; wants %d, but the most is %d", desired, most)
		desired = most
	}
	g.desired = desired
	return desired, reason
}

func (g *scaleGroup) describe(sig Signal) string {
	s := g.now
	if s.ready == 0 {
		return fmt.Sprintf("no %s is ready", sig.Role)
	}
	text := fmt.Sprintf("%d ready at %s", s.ready, share(sig.Load))
	if s.ready > 1 && s.hottest > NearLimit && sig.Load < g.cfg.Target {
		text += fmt.Sprintf(" (%s at %s, the others have room)", s.hot, share(s.hottest))
	}
	return text
}

func share(x float64) string {
	if x < 0.1 {
		return fmt.Sprintf("%.2g %%", 100*x)
	}
	return fmt.Sprintf("%.0f %%", 100*x)
}

// ceil forgives what arithmetic leaves over.
func ceil(x float64) int { return int(math.Ceil(x - 1e-9)) }

// rise is by how much the samples grow in a second, 0 when it is less than so much or may be chance. It is that of the slower half:
// a step is no rise, for it does not go on.
func rise(list []scaleSample, of func(scaleSample) float64, least float64) float64 {
	if per, error := slope(list, of); per <= sure*error {
		return 0
	}
	first, _ := slope(list[:len(list)/2+1], of)
	second, _ := slope(list[len(list)/2:], of)
	if per := min(first, second); per >= least {
		return per
	}
	return 0
}

// slope is that of a straight line through the samples, and its standard error.
func slope(list []scaleSample, of func(scaleSample) float64) (per, error float64) {
	n, sx, sy, sxx, sxy, syy := float64(len(list)), 0.0, 0.0, 0.0, 0.0, 0.0
	for _, s := range list {
		x, y := s.at.Sub(list[0].at).Seconds(), of(s)
		sx, sy, sxx, sxy, syy = sx+x, sy+y, sxx+x*x, sxy+x*y, syy+y*y
	}
	spread := sxx - sx*sx/n
	if spread <= 0 || n < 3 {
		return 0, 0
	}
	per = (sxy - sx*sy/n) / spread
	rest := max(0, syy-sy*sy/n-per*per*spread) // what the line does not explain
	return per, math.Sqrt(rest / (n - 2) / spread)
}

// scaleCost learns what a viewer costs: a line through the loads of nodes with more and fewer viewers, in which the past fades.
type scaleCost struct {
	at              time.Time
	w, v, l, vv, vl float64 // sums
}

func (c *scaleCost) add(viewers, load float64) {
	c.w++
	c.v += viewers
	c.l += load
	c.vv += viewers * viewers
	c.vl += viewers * load
}

// age lets what was added fade with the window.
func (c *scaleCost) age(at time.Time, window time.Duration) {
	if !c.at.IsZero() {
		f := math.Exp(-at.Sub(c.at).Seconds() / window.Seconds())
		c.w, c.v, c.l, c.vv, c.vl = f*c.w, f*c.v, f*c.l, f*c.vv, f*c.vl
	}
	c.at = at
}

// perViewer returns the load of one viewer, and that of a node without any; 0: not known.
func (c *scaleCost) perViewer() (each, idle float64) {
	if c.w == 0 || c.v/c.w < someViewers {
		return 0, 0
	}
	v, l := c.v/c.w, c.l/c.w
	variance := c.vv/c.w - v*v
	if covariance := c.vl/c.w - v*l; variance > max(someViewers*someViewers, 0.01*v*v) && covariance > 0 {
		if each = covariance / variance; each*v <= l {
			return each, l - each*v
		}
	}
	return l / v, 0
}
