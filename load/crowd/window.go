package crowd

import (
	"context"
	"runtime"
	"slices"
	"time"

	"sluice/internal/usage"
	"sluice/load"
)

// loopFigures are what a loop keeps of its viewers together.
type loopFigures struct {
	added    int
	gone     seen // of viewers that have left
	pictures []time.Duration
	latency  load.Histogram // in the measured time
	recent   load.Histogram // since the last sample
}

// Sample is a second of the run.
type Sample struct {
	At         float64 `json:"at"` // seconds since the begin
	Phase      string  `json:"phase"`
	Publishers int     `json:"publishers"`
	Viewers    int     `json:"viewers"` // that have joined
	Up         int     `json:"up"`      // that see a picture
	Failed     int     `json:"failed"`  // joins, in all
	Ended      int     `json:"ended"`   // sessions that the server has ended, or that were lost
	Mbps       float64 `json:"mbps"`
	Packets    float64 `json:"packets"` // a second
	Loss       float64 `json:"loss"`    // percent
	Frames     uint64  `json:"frames"`  // whose latency is known; 0: the latencies mean nothing, as loss does without packets
	LatencyP50 float64 `json:"latency_p50"`
	LatencyP95 float64 `json:"latency_p95"`
	LatencyP99 float64 `json:"latency_p99"`
	Server     float64 `json:"server_cores,omitempty"`
	Load       float64 `json:"load_cores"`
}

// sum is what all viewers together have seen until now.
type sum struct {
	seen
	joined, up, ended int
	recent            load.Histogram
}

// sum takes what is recent: the next one begins where this ends.
func (c *crowd) sum() (s sum) {
	for _, l := range c.loops {
		l.do(func() {
			s.seen.add(l.figures.gone)
			s.recent.Merge(&l.figures.recent)
			l.figures.recent = load.Histogram{}
			for v := range l.viewers() {
				s.seen.add(v.seen)
				switch {
				case v.session.keys == nil || v.apart():
					continue
				case v.session.gone:
					s.ended++
				case v.picture != 0:
					s.up++
				}
				s.joined++
			}
		})
	}
	return s
}

// viewers are those of a loop. For the loop's goroutine.
func (l *loop) viewers() func(func(*viewer) bool) {
	return func(yield func(*viewer) bool) {
		for _, beat := range l.beats {
			for s := range beat {
				if v, ok := s.medium.(*viewer); ok && !yield(v) {
					return
				}
			}
		}
	}
}

// sampling takes a sample every second until ctx ends.
func (c *crowd) sampling(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last sum
	at, own := time.Now(), usage.Own()
	server, _ := usage.Of(c.cfg.PIDs...)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s, now, o := c.sum(), time.Now(), usage.Own()
		v, _ := usage.Of(c.cfg.PIDs...) // it may be gone
		sec := now.Sub(at).Seconds()
		d := s.seen.sub(last.seen)
		q := func(p float64) float64 { return millis(s.recent.Quantile(p)) }
		m := Sample{At: now.Sub(c.start).Seconds(), Viewers: s.joined, Up: s.up, Ended: s.ended,
			Mbps: float64(d.bytes) * 8 / sec / 1e6, Packets: float64(d.packets) / sec, Loss: 100 * d.share(), Frames: uint64(s.recent.Count()),
			LatencyP50: q(0.5), LatencyP95: q(0.95), LatencyP99: q(0.99), Server: max(0, v.CPU-server.CPU) / sec, Load: (o.CPU - own.CPU) / sec}
		c.mu.Lock()
		m.Phase, m.Failed = c.phase, c.failed
		for _, p := range c.publishers {
			p.mu.Lock()
			if p.live {
				m.Publishers++
			}
			p.mu.Unlock()
		}
		if c.cfg.File != "" && c.phase != "publishing" {
			m.Publishers = c.cfg.Streams
		}
		c.samples = append(c.samples, m)
		c.mu.Unlock()
		if c.cfg.Progress != nil {
			c.cfg.Progress(m)
		}
		last, at, own, server = s, now, o, v
	}
}

// look is a moment: what the processes have used until then, and what was seen.
type look struct {
	at         time.Time
	server     usage.Usage
	known      bool // the server's usage is
	own        usage.Usage
	busy       float64       // the machine
	processors int           // that it has
	ramp       time.Duration // how long the joining took that followed
}

func (c *crowd) look() look {
	l := look{at: time.Now(), own: usage.Own()}
	l.busy, l.processors = usage.Machine()
	var err error
	l.server, err = usage.Of(c.cfg.PIDs...)
	l.known = err == nil && len(c.cfg.PIDs) > 0
	return l
}

// window is a measured time.
type window struct {
	before look // anybody joined
	begin  look
	asked  int // viewers, 0: as many as tried
}

// begin begins a measured time for all viewers.
func (c *crowd) begin(before look) window {
	w := window{before: before, begin: c.look()}
	now := time.Now().UnixNano()
	for _, l := range c.loops {
		l.do(func() {
			l.figures.latency = load.Histogram{}
			for v := range l.viewers() {
				v.measure(now)
			}
		})
	}
	return w
}

// everything is the window of a run that was stopped early.
func (c *crowd) everything(before look) window { return window{before: before, begin: before} }

// outcome is what a window has seen.
type outcome struct {
	window
	end      look
	seconds  float64
	seen     seen
	viewers  int // that have joined
	up       int
	ended    int
	loss     []float64 // percent of each viewer
	freezes  []float64
	gaps     []float64 // ms
	latency  load.Histogram
	pictures []float64 // ms, of the whole run
	joins    []float64 // ms
	failed   int
	moves    int
	returns  int
	bad      int
	remarks  []string // why a figure is left out
}

// measured ends a measured time.
func (c *crowd) measured(w window) *outcome {
	o := &outcome{window: w, end: c.look()}
	now := time.Now().UnixNano()
	for _, l := range c.loops {
		l.do(func() {
			o.latency.Merge(&l.figures.latency)
			for _, p := range l.figures.pictures {
				o.pictures = append(o.pictures, millis(p))
			}
			for v := range l.viewers() {
				if v.session.keys == nil || v.apart() {
					continue
				}
				v.finish(now)
				d := v.seen.sub(v.base)
				o.seen.add(d)
				o.viewers++
				o.bad += v.session.bad
				if d.packets+d.lost > 0 { // else nobody knows what it should have got
					o.loss = append(o.loss, 100*d.share())
					o.freezes = append(o.freezes, float64(d.freezes))
				}
				if v.shown != 0 {
					o.gaps = append(o.gaps, millis(v.longest))
				}
				switch {
				case v.session.gone:
					o.ended++
				case v.picture != 0:
					o.up++
				}
			}
		})
	}
	o.seconds = o.end.at.Sub(w.begin.at).Seconds()
	c.mu.Lock()
	defer c.mu.Unlock()
	o.failed, o.moves, o.returns = c.failed, c.moves, c.returns
	for _, j := range c.joins {
		o.joins = append(o.joins, millis(j))
	}
	return o
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// quantile is the smallest value that the share q of all does not exceed (nearest rank). It sorts them.
func quantile(v []float64, q float64) (float64, bool) {
	if len(v) == 0 {
		return 0, false
	}
	slices.Sort(v)
	i := int(q*float64(len(v)) + 0.9999999)
	return v[min(max(i, 1), len(v))-1], true
}

// figures names everything that is known of a measured time. What isn't known is missing.
func (c *crowd) figures(o *outcome) Figures {
	f := Figures{}
	if c.cfg.Play != "" {
		c.viewed(f, o)
	}
	own := o.end.own.CPU - o.begin.own.CPU
	f["load_cores"] = own / o.seconds
	f["load_busy"] = 100 * own / o.seconds / float64(runtime.GOMAXPROCS(0))
	server := 0.0
	if o.end.known && o.before.known {
		server = o.end.server.CPU - o.begin.server.CPU
		f["server_cores"] = server / o.seconds
		f["server_memory"] = o.end.server.RSS / (1 << 20)
		c.perViewer(f, o, server)
	}
	if busy := o.end.busy - o.begin.busy; busy > 0 {
		busy, other := usage.Others(busy, own, server)
		f["machine_busy"] = 100 * busy / o.seconds / float64(max(1, o.end.processors))
		f["other_cores"] = other / o.seconds
	}
	return f
}

// viewed are the figures of what viewers saw. Where no packet came nothing is known but who joined.
func (c *crowd) viewed(f Figures, o *outcome) {
	for name, v := range map[string][]float64{"ttff": o.pictures, "join": o.joins, "gap": o.gaps, "loss": o.loss, "freezes": o.freezes} {
		for _, q := range quantiles() {
			if x, ok := quantile(v, q.q); ok {
				f[name+q.suffix] = x
			}
		}
	}
	for _, q := range quantiles() {
		if o.latency.Count() > 0 {
			f["latency"+q.suffix] = millis(o.latency.Quantile(q.q))
		}
	}
	if asked := max(o.asked, o.viewers+o.failed); asked > 0 {
		f["up"] = 100 * float64(o.up) / float64(asked)
	}
	f["failed"], f["ended"] = float64(o.failed), float64(o.ended)
	if c.cfg.Follow {
		f["moved"], f["returned"] = float64(o.moves), float64(o.returns)
	}
	if o.seen.packets == 0 {
		return
	}
	f["loss"], f["freezes"] = 100*o.seen.share(), float64(o.seen.freezes)
	f["repaired"], f["undecryptable"] = float64(o.seen.repaired), float64(o.bad)
	f["key_frame_requests"] = float64(o.seen.keyFrameRequests)
	f["mbps"], f["packets_per_second"] = float64(o.seen.bytes)*8/o.seconds/1e6, float64(o.seen.packets)/o.seconds
	if o.viewers > 0 {
		f["fps"] = float64(o.seen.frames) / o.seconds / float64(o.viewers)
	}
}

// maxSteady is how much of the joins' cost the steady cost beside it may be: where it is more, its own inaccuracy is all that is seen.
const maxSteady = 1.5

// perViewer are the costs of the server's processes: the definitions are in docs/load.md.
func (c *crowd) perViewer(f Figures, o *outcome, server float64) {
	if o.seen.packets > 0 {
		f["cpu_per_packet"] = server * 1e6 / float64(o.seen.packets)
	}
	if o.viewers == 0 || c.cfg.Capacity != nil { // there viewers come and go
		return
	}
	if grown := o.end.server.RSS - o.before.server.RSS; grown > 0 {
		f["memory_per_viewer"] = grown / 1024 / float64(o.viewers)
	} else {
		o.remarks = append(o.remarks, "memory_per_viewer is left out: the server did not grow, it has memory from before this run; restart it to see what a viewer costs")
	}
	// What joining cost: all until the measured part, less the steady cost, which is taken to
	// grow evenly during the ramp. With a stream that isn't thin it is a small difference of large numbers.
	if ramp := o.before.ramp; ramp > 0 {
		rampEnd := o.before.at.Add(ramp)
		steady := server / o.seconds * (o.begin.at.Sub(rampEnd).Seconds() + ramp.Seconds()/2)
		if cost := o.begin.server.CPU - o.before.server.CPU - steady; cost > 0 && steady <= maxSteady*cost {
			f["cpu_per_join"] = cost * 1000 / float64(o.viewers)
		} else {
			o.remarks = append(o.remarks, "cpu_per_join is left out: the stream cost the server much more than the joins did; take a thin one (--bitrate 50k), more viewers or a shorter --warm")
		}
	}
}
