package crowd

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
)

//go:embed report.html
var page string

// tile is a figure that is shown large.
type tile struct{ Name, Value, Text string }

type row struct {
	Name  string
	Cells []string
	Text  string
}

// HTML writes the report as a page that needs nothing else.
func (r *Report) HTML(w io.Writer) error {
	t, err := template.New("report").Parse(page)
	if err != nil {
		return fmt.Errorf("read the page's template: %w", err)
	}
	view := struct {
		*Report
		What, Measured string
		Verdict, Class string
		Tiles          []tile
		Charts         []chart
		First          template.HTML
		Percentiles    []row
		Others         []row
		Steps          []row
	}{Report: r, What: r.what(), Charts: r.charts()}
	view.Measured = fmt.Sprintf("%.1f s", r.Seconds)
	view.Verdict, view.Class = r.verdict()
	for _, n := range []struct{ name, text string }{
		{"up", "viewers with a picture"}, {"ttff_p95", "first picture, p95"}, {"latency_p95", "frame latency, p95"}, {"loss", "packets lost"},
		{"freezes", "freezes"}, {"mbps", "to all viewers"}, {"cpu_per_packet", "CPU per packet"}, {"memory_per_viewer", "memory per viewer"},
	} {
		if v, ok := r.Figures[n.name]; ok {
			view.Tiles = append(view.Tiles, tile{n.name, FormatValue(v, unitOf(n.name)), n.text})
		}
	}
	if len(r.Pictures) > 0 {
		view.First = distribution(r.Pictures, "ms", "viewer")
	}
	if _, ok := r.Figures["up"]; ok {
		for _, d := range Distributions() {
			x := row{Name: d.Name, Text: d.Text}
			for _, q := range quantiles() {
				x.Cells = append(x.Cells, r.value(d.Name+q.suffix, d.Unit))
			}
			view.Percentiles = append(view.Percentiles, x)
		}
	}
	for _, n := range Names() {
		if _, ok := r.Figures[n.Name]; ok && !n.distributed() {
			view.Others = append(view.Others, row{n.Name, []string{r.value(n.Name, n.Unit)}, n.Text})
		}
	}
	if r.Capacity != nil {
		for _, s := range r.Capacity.Steps {
			cell := func(name string) string {
				if v, ok := s.Figures[name]; ok {
					return FormatValue(v, unitOf(name))
				}
				return "-"
			}
			passed := "carried"
			if !s.Passed {
				passed = s.Why
			}
			view.Steps = append(view.Steps, row{fmt.Sprint(s.Viewers), []string{cell("latency_p95"), cell("loss"), cell("up"), cell("server_cores"), cell("load_cores")}, passed})
		}
	}
	return t.Execute(w, view)
}

func unitOf(name string) string {
	for _, n := range Names() {
		if n.Name == name {
			return n.Unit
		}
	}
	return ""
}

func (r *Report) verdict() (text, class string) {
	switch {
	case r.Capacity != nil && r.Capacity.LoadIsTheLimit:
		return plural(r.Capacity.Viewers, "viewer") + " or more", "warn"
	case r.Capacity != nil:
		return plural(r.Capacity.Viewers, "viewer"), "good"
	case len(r.Broken) > 0:
		return plural(len(r.Broken), "threshold") + " broken", "bad"
	case r.Stopped != "":
		return "stopped early", "warn"
	case len(r.Thresholds) > 0:
		return "all thresholds kept", "good"
	}
	return "", ""
}

// charts are those that have something to show.
func (r *Report) charts() (all []chart) {
	samples := thin(r.Samples)
	if len(samples) < 2 {
		return nil
	}
	var x []float64
	var shade [2]float64
	for _, s := range samples {
		x = append(x, s.At)
		if s.Phase == "measuring" {
			if shade[0] == 0 {
				shade[0] = max(0, s.At-1)
			}
			shade[1] = s.At
		}
	}
	get := func(name, class string, f func(Sample) float64) line {
		l := line{Name: name, Class: class}
		for _, s := range samples {
			l.y = append(l.y, f(s))
		}
		return l
	}
	// What was not measured has no point.
	known := func(name, class string, ok func(Sample) bool, f func(Sample) float64) line {
		return get(name, class, func(s Sample) float64 {
			if !ok(s) {
				return math.NaN()
			}
			return f(s)
		})
	}
	timed, came := func(s Sample) bool { return s.Frames > 0 }, func(s Sample) bool { return s.Packets > 0 }
	add := func(c chart) {
		c.x, c.shade = x, shade
		all = append(all, c)
	}
	if r.Config.Play != "" {
		add(chart{Title: "Viewers", Note: "that have joined, and that see a picture", least: 1, lines: []line{
			get("joined", "s2", func(s Sample) float64 { return float64(s.Viewers) }), get("up", "s1", func(s Sample) float64 { return float64(s.Up) })}})
		add(chart{Title: "Throughput", Note: "Mbit/s to all viewers", unit: "Mbit/s", least: 1, area: true, lines: []line{
			get("throughput", "s1", func(s Sample) float64 { return s.Mbps })}})
		add(chart{Title: "Frame latency", Note: "ms, from sending to the last packet's arrival", unit: "ms", least: 1, lines: []line{
			known("p99", "s3", timed, func(s Sample) float64 { return s.LatencyP99 }), known("p95", "s2", timed, func(s Sample) float64 { return s.LatencyP95 }),
			known("p50", "s1", timed, func(s Sample) float64 { return s.LatencyP50 })}})
		add(chart{Title: "Loss", Note: "% of packets that never came", unit: "%", least: 1, area: true, lines: []line{
			known("loss", "s3", came, func(s Sample) float64 { return s.Loss })}})
	}
	cores := chart{Title: "Processors", Note: "cores that were busy", unit: "cores", least: 0.5, lines: []line{get("load tool", "s2", func(s Sample) float64 { return s.Load })}}
	if _, ok := r.Figures["server_cores"]; ok {
		cores.lines = append(cores.lines, get("server", "s1", func(s Sample) float64 { return s.Server }))
	}
	add(cores)
	return all
}
