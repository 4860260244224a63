package simulate

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what a run has shown. Times are seconds of virtual time, unless they say otherwise.
type Report struct {
	Config Config
	Wall   float64 // seconds that the run took
	Events int

	Arrived, Watching int // viewers who came; who had a picture at the end
	Waiting           int // who had none
	Passed            int // nodes that were asked in vain, since they were full, draining or dead
	Refusals          int // requests that no node took
	Refused           int // viewers to whom that happened
	LastRefusal       float64
	Overloaded        float64 // seconds of nodes whose processors were at their end
	Join              Times3  // from the click to the picture

	Spread []Spread // of the load over the edges of a region, at the moments that matter
	Tree   []Tree   // at the same moments

	DepthMax, ChildrenMax, Loops    int // of all times; a look every 5 s
	Asked, Redirected, LoopsAvoided int // questions for a stream among nodes

	Registry Registry
	Deaths   []Loss
	Scaling  []Decision
	Booted   int
	Drained  int
	Timeline []Moment

	joins []time.Duration
}

// Times3 is a distribution, in seconds.
type Times3 struct {
	Count         int
	P50, P95, Max float64
}

// Spread is how even the load is: nodes that are ready and older than a minute.
type Spread struct {
	At             float64
	When, Where    string // a region's edges, or all origins
	Nodes          int
	Mean           float64 // share of a node's processors
	P50, P95, Max  float64 // as parts of the mean
	StreamsPerNode float64
}

// Tree is the shape of all relay trees at one time.
type Tree struct {
	At               float64
	When             string
	Feeds            int     // streams at edges
	DepthMax         int     // nodes before the edge, on the way from the publisher
	DepthMean        float64 // over feeds
	DepthViewers     float64 // over viewers
	ChildrenMax      int
	Loops            int
	ViewersPerFeed   float64
	RelayOfAllEgress float64 // share of what all nodes send that goes to nodes
}

// Registry is operations a second.
type Registry struct {
	Steady, Start, Peak float64 // means of the steady time and of the settling; the busiest second
	PeakAt              float64
	Bytes, BytesPeak    float64 // read a second: the mean of the steady time, and the busiest second
	Kinds               []KindRate
}

// KindRate is one kind of operations.
type KindRate struct {
	Kind         string
	Steady, Peak float64
}

// Loss is what a death meant.
type Loss struct {
	At             float64
	What           string
	Nodes, Viewers int
	Moved          Times3 // of viewers whose edge died: until the picture is back, at another
	Held           Times3 // of viewers whose edge lives, but not what it got its stream from: the gap

	back []time.Duration
	gaps []gap
}

type gap struct {
	took    time.Duration
	viewers int
}

// Decision is a change of what the scaler wants.
type Decision struct {
	At             float64
	Region         string
	Nodes, Desired int
	Reason         string
}

// Moment is one line of the story.
type Moment struct {
	At                     float64
	Edges, Viewers         int
	Waiting                int
	LoadMean, LoadMax      float64
	Operations, Refusals   int
	played, refusalsBefore int
}

func newReport(cfg Config) *Report {
	return &Report{Config: cfg, Deaths: make([]Loss, len(cfg.Deaths))}
}

func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }

func (l *Loss) moved(took time.Duration) { l.back = append(l.back, took) }

func (l *Loss) held(took time.Duration, viewers int) {
	if viewers > 0 {
		l.gaps = append(l.gaps, gap{took, viewers})
	}
}

func (r *Report) refuse(now time.Duration, v int, c *crowd) {
	r.Refusals++
	r.LastRefusal = seconds(now)
	if !c.viewers[v].denied {
		c.viewers[v].denied = true
		r.Refused++
	}
}

// times3 sorts the list.
func times3(list []time.Duration) Times3 {
	slices.Sort(list)
	return Times3{len(list), seconds(quantile(list, 0.5)), seconds(quantile(list, 0.95)), seconds(quantile(list, 1))}
}

// quantile of a sorted list.
func quantile[T any](list []T, q float64) (x T) {
	if len(list) == 0 {
		return x
	}
	return list[min(len(list)-1, int(q*float64(len(list))))]
}

func gapTimes(gaps []gap) (t Times3) {
	slices.SortFunc(gaps, func(a, b gap) int { return int(a.took - b.took) })
	for _, g := range gaps {
		t.Count += g.viewers
	}
	seen := 0
	for _, g := range gaps {
		before := seen
		seen += g.viewers
		for _, q := range []struct {
			at float64
			to *float64
		}{{0.5, &t.P50}, {0.95, &t.P95}, {1, &t.Max}} {
			if rank := q.at * float64(t.Count); float64(before) < rank && rank <= float64(seen) {
				*q.to = seconds(g.took)
			}
		}
	}
	return t
}

// sample looks at everything, once a second, and tells a line now and then.
func (w *world) sample() {
	w.after(time.Second, w.sample)
	second := int(w.now / time.Second)
	if second%5 == 0 {
		w.out.worst(w.shape(""))
	}
	for _, m := range w.moments() {
		if second == int(m.at/time.Second) {
			w.evenness(m.name)
			w.out.Tree = append(w.out.Tree, w.shape(m.name))
		}
	}
	if second%15 == 0 {
		w.moment()
	}
}

type moment struct {
	at   time.Duration
	name string
}

// moments are when evenness is measured.
func (w *world) moments() (list []moment) {
	c := &w.cfg
	list = append(list, moment{c.Settle + c.Arrive, "all are there"}, moment{c.End - time.Second, "the end"})
	if c.Flash.Viewers > 0 {
		list = append(list, moment{c.Flash.At + c.Flash.During, "the flash crowd is there"})
	}
	for _, d := range c.Deaths {
		if d.Region > 0 {
			list = append(list, moment{d.At + 20*time.Second, "20 s after the region's death"})
		}
	}
	return list
}

// grown reports that a node had the time to fill.
func (n *node) grown() bool { return n.up && !n.leaves && n.w.now-n.born >= time.Minute }

func (w *world) evenness(when string) {
	for r := range w.cfg.Regions {
		w.spreadOf(when, regionName(r), w.edges, r)
	}
	w.spreadOf(when, "all origins", w.origins, -1)
}

func (w *world) spreadOf(when, where string, nodes []*node, region int) {
	var loads []float64
	sum, streams := 0.0, 0
	for _, n := range nodes {
		if (n.region == region || region < 0) && n.grown() {
			loads = append(loads, n.load())
			sum += n.load()
			streams += len(n.feeds)
		}
	}
	if len(loads) == 0 {
		return
	}
	slices.Sort(loads)
	mean := sum / float64(len(loads))
	w.out.Spread = append(w.out.Spread, Spread{At: seconds(w.now), When: when, Where: where, Nodes: len(loads), Mean: round(mean),
		P50: round(quantile(loads, 0.5) / mean), P95: round(quantile(loads, 0.95) / mean), Max: round(loads[len(loads)-1] / mean),
		StreamsPerNode: round(float64(streams) / float64(len(loads)))})
}

func round(x float64) float64 { return math.Round(x*1000) / 1000 }

// shape looks at the relay trees.
func (w *world) shape(when string) (t Tree) {
	t.At, t.When = seconds(w.now), when
	var depths, viewers, weighted, relayed int
	for _, list := range [][]*node{w.edges, w.origins} {
		for _, n := range list {
			if !n.up {
				continue
			}
			for _, f := range n.feeds {
				t.ChildrenMax = max(t.ChildrenMax, len(f.children))
				relayed += len(f.children)
				if f == f.s.root {
					continue
				}
				d, loop := f.depth()
				if loop {
					t.Loops++
				}
				if !f.flowing {
					continue
				}
				t.Feeds++
				t.DepthMax = max(t.DepthMax, d)
				depths += d
				viewers += f.viewers
				weighted += d * f.viewers
			}
		}
	}
	t.DepthMean, t.DepthViewers = round(float64(depths)/float64(max(1, t.Feeds))), round(float64(weighted)/float64(max(1, viewers)))
	t.ViewersPerFeed = round(float64(viewers) / float64(max(1, t.Feeds)))
	t.RelayOfAllEgress = round(float64(relayed) / float64(max(1, relayed+viewers)))
	return t
}

// worst notes what must never be, of any sample.
func (r *Report) worst(t Tree) {
	r.DepthMax, r.ChildrenMax, r.Loops = max(r.DepthMax, t.DepthMax), max(r.ChildrenMax, t.ChildrenMax), r.Loops+t.Loops
}

func (w *world) moment() {
	m := Moment{At: seconds(w.now), Refusals: w.out.Refusals, Operations: w.reg.rate(w.now-5*time.Second, w.now)}
	sum := 0.0
	for _, n := range w.edges {
		if n.up {
			m.Edges++
			m.Viewers += n.viewers
			sum += n.load()
			m.LoadMax = max(m.LoadMax, n.load())
		}
	}
	m.Waiting = w.crowd.there - m.Viewers
	m.LoadMean, m.LoadMax = round(sum/float64(max(1, m.Edges))), round(m.LoadMax)
	w.out.Timeline = append(w.out.Timeline, m)
}

// rate is operations a second between two times.
func (r *registry) rate(from, to time.Duration) int {
	sum := 0
	for _, counts := range r.counts {
		for s := max(0, int(from/time.Second)); s < min(len(counts), int(to/time.Second)); s++ {
			sum += counts[s]
		}
	}
	return sum / max(1, int((to-from)/time.Second))
}

// steady is the last minute before the first death after all have come; without one, the last minute.
func (w *world) steady() (from, to time.Duration) {
	to = w.cfg.End
	for _, d := range w.cfg.Deaths {
		if d.At > w.cfg.Settle+w.cfg.Arrive {
			to = min(to, d.At)
		}
	}
	return max(w.cfg.Settle, to-time.Minute), to
}

func (w *world) finish(wall time.Duration) {
	out := w.out
	out.Wall, out.Events = seconds(wall), w.played
	out.Arrived = w.crowd.came
	for i := range w.crowd.viewers {
		switch w.crowd.viewers[i].state {
		case watching:
			out.Watching++
		case joining, waiting:
			out.Waiting++
		}
	}
	out.Join = times3(out.joins)
	for i := range out.Deaths {
		d := &out.Deaths[i]
		d.Moved, d.Held = times3(d.back), gapTimes(d.gaps)
	}
	from, to := w.steady()
	reg := &out.Registry
	reg.Start = float64(w.reg.rate(0, w.cfg.Settle))
	for o := op(0); o < ops; o++ {
		k := KindRate{Kind: o.String()}
		for s, n := range w.reg.counts[o] {
			k.Peak = max(k.Peak, float64(n))
			if at := time.Duration(s) * time.Second; at >= from && at < to {
				k.Steady += float64(n) / (to - from).Seconds()
			}
		}
		k.Steady = math.Round(k.Steady*10) / 10
		reg.Steady += k.Steady
		reg.Kinds = append(reg.Kinds, k)
	}
	reg.Steady = math.Round(reg.Steady*10) / 10
	for s, n := range w.reg.bytes {
		reg.BytesPeak = max(reg.BytesPeak, float64(n))
		if at := time.Duration(s) * time.Second; at >= from && at < to {
			reg.Bytes += float64(n) / (to - from).Seconds()
		}
	}
	reg.Bytes = math.Round(reg.Bytes)
	for s := range w.reg.counts[opHeartbeat] {
		at := time.Duration(s) * time.Second
		if n := float64(w.reg.rate(at, at+time.Second)); n > reg.Peak {
			reg.Peak, reg.PeakAt = n, at.Seconds()
		}
	}
}

// Write tells the report in words.
func (r *Report) Write(to io.Writer) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(t, format+"\n", args...) }
	c := &r.Config
	line("%s: %d edges, %d origins, %d regions, %d streams, %d viewers in %v; seed %d", c.Name, c.Edges, c.Origins, len(c.Regions), c.Streams, c.Viewers, c.Arrive, c.Seed)
	line("%d events in %.1f s, %v of virtual time", r.Events, r.Wall, c.End)
	line("")
	line("s\tedges\tviewers\twithout picture\tload mean\tmax\tregistry op/s\trefusals")
	for _, m := range r.Timeline {
		line("%.0f\t%d\t%d\t%d\t%.0f %%\t%.0f %%\t%d\t%d", m.At, m.Edges, m.Viewers, m.Waiting, 100*m.LoadMean, 100*m.LoadMax, m.Operations, m.Refusals)
	}
	line("")
	line("load\tof\tnodes\tmean\tp50/mean\tp95/mean\tmax/mean\tstreams each")
	for _, s := range r.Spread {
		line("%s\t%s\t%d\t%.0f %%\t%.2f\t%.2f\t%.2f\t%.1f", s.When, s.Where, s.Nodes, 100*s.Mean, s.P50, s.P95, s.Max, s.StreamsPerNode)
	}
	line("")
	line("viewers\t%d came, %d watch at the end, %d have no picture", r.Arrived, r.Watching, r.Waiting)
	line("joins\tp50 %.2f s, p95 %.2f s, max %.2f s", r.Join.P50, r.Join.P95, r.Join.Max)
	line("refused\t%d viewers, %d times, last at %.0f s; %d nodes asked in vain; %.0f node-seconds overloaded", r.Refused, r.Refusals, r.LastRefusal, r.Passed, r.Overloaded)
	line("")
	line("relay trees\tstreams at edges\tviewers each\tdepth max\tmean\tof viewers\tchildren max\tloops\tof all egress")
	for _, t := range r.Tree {
		line("%s\t%d\t%.1f\t%d\t%.2f\t%.2f\t%d\t%d\t%.1f %%", t.When, t.Feeds, t.ViewersPerFeed, t.DepthMax, t.DepthMean, t.DepthViewers, t.ChildrenMax, t.Loops, 100*t.RelayOfAllEgress)
	}
	line("at any time\t\t\t%d\t\t\t%d\t%d", r.DepthMax, r.ChildrenMax, r.Loops)
	line("questions\t%d, %d sent on, %d loops avoided", r.Asked, r.Redirected, r.LoopsAvoided)
	line("")
	line("registry\tsteady %.0f op/s, at the start %.0f, peak %.0f at %.0f s", r.Registry.Steady, r.Registry.Start, r.Registry.Peak, r.Registry.PeakAt)
	line("\tread: steady %.2f MB/s, peak %.2f MB/s", r.Registry.Bytes/1e6, r.Registry.BytesPeak/1e6)
	for _, k := range r.Registry.Kinds {
		line("\t%s\t%.1f\tpeak %.0f", k.Kind, k.Steady, k.Peak)
	}
	line("")
	line("death\tat\tnodes\tviewers moved\tp50\tp95\tmax\tviewers held\tgap p50\tp95\tmax")
	for _, d := range r.Deaths {
		line("%s\t%.0f s\t%d\t%d\t%.2f\t%.2f\t%.2f\t%d\t%.2f\t%.2f\t%.2f", d.What, d.At, d.Nodes, d.Viewers, d.Moved.P50, d.Moved.P95, d.Moved.Max,
			d.Held.Count, d.Held.P50, d.Held.P95, d.Held.Max)
	}
	line("")
	line("scaling\t%d edges added, %d drained", r.Booted, r.Drained)
	for i, d := range r.Scaling {
		if i == 40 {
			line("\t… and %d more", len(r.Scaling)-i)
			break
		}
		line("\t%.0f s\t%s\t%d\t-> %d\t%s", d.At, d.Region, d.Nodes, d.Desired, d.Reason)
	}
	_ = t.Flush()
	_, err := io.WriteString(to, b.String())
	return err
}
