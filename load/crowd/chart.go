package crowd

import (
	"fmt"
	"html/template"
	"iter"
	"math"
	"strings"
)

// chart is a drawing of figures over time, or of a distribution. Colours are the page's, by class.
type chart struct {
	Title string
	Note  string // what it means, under the title
	unit  string
	least float64 // the axis goes at least so far
	area  bool    // fill under the first line
	x     []float64
	lines []line
	shade [2]float64 // the measured time
}

type line struct {
	Name  string
	Class string    // s1 to s4
	y     []float64 // NaN: unknown
}

// The drawing's size in its own units; text of 11 can be read when a phone shows it.
const (
	chartWidth, chartHeight      = 420.0, 200.0
	left, right, top, bottom     = 44.0, 10.0, 10.0, 26.0
	plotWidth, plotHeight        = chartWidth - left - right, chartHeight - top - bottom
	mostPoints, mostBins, xTicks = 400, 28, 5
)

// Legend is shown when there is more than one line.
func (c chart) Legend() []line {
	if len(c.lines) < 2 {
		return nil
	}
	return c.lines
}

// SVG draws it.
func (c chart) SVG() template.HTML {
	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format, a...) }
	high := c.least
	for _, l := range c.lines {
		for _, v := range l.y {
			if !math.IsNaN(v) {
				high = max(high, v)
			}
		}
	}
	step := niceStep(high, 4)
	high = math.Ceil(high/step-1e-9) * step
	x0, x1 := 0.0, 1.0
	if len(c.x) > 0 {
		x1 = max(1, c.x[len(c.x)-1])
	}
	at := func(x, y float64) (float64, float64) {
		return left + (x-x0)/(x1-x0)*plotWidth, top + plotHeight - y/high*plotHeight
	}
	p(`<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, chartWidth, chartHeight, template.HTMLEscapeString(c.Title))
	if c.shade[1] > c.shade[0] {
		a, _ := at(c.shade[0], 0)
		z, _ := at(min(c.shade[1], x1), 0)
		p(`<rect class="shade" x="%.1f" y="%g" width="%.1f" height="%g"/>`, a, top, max(0, z-a), plotHeight)
	}
	grid(p, high, step, at)
	xStep := niceStep(x1, xTicks)
	for x := 0.0; x <= x1+1e-9; x += xStep {
		px, _ := at(x, 0)
		anchor := "middle"
		if px > chartWidth-20 {
			px, anchor = chartWidth-2, "end"
		}
		p(`<text class="tick" text-anchor="%s" x="%.1f" y="%g">%s</text>`, anchor, px, chartHeight-8, seconds(x))
	}
	for i, l := range c.lines {
		for first, end := range l.runs() {
			var path strings.Builder
			cmd := "M"
			for j := first; j < end; j++ {
				px, py := at(c.x[j], l.y[j])
				fmt.Fprintf(&path, "%s%.1f %.1f", cmd, px, py)
				cmd = "L"
			}
			a, base := at(c.x[first], 0)
			z, _ := at(c.x[end-1], 0)
			if c.area && i == 0 {
				p(`<path class="area %s" d="%sL%.1f %.1fL%.1f %.1fZ"/>`, l.Class, path.String(), z, base, a, base)
			}
			p(`<path class="line %s" d="%sh0"/>`, l.Class, path.String()) // h0: a point alone is a dot
		}
	}
	c.titles(p, at)
	p(`</svg>`)
	return template.HTML(b.String()) // numbers, and names that are ours
}

// runs are the parts of a line that are known: from the first point to before the end.
func (l line) runs() iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		for first := 0; first < len(l.y); first++ {
			end := first
			for end < len(l.y) && !math.IsNaN(l.y[end]) {
				end++
			}
			if end > first && !yield(first, end) {
				return
			}
			first = end
		}
	}
}

// titles are what a pointer that rests on a moment is told.
func (c chart) titles(p func(string, ...any), at func(x, y float64) (float64, float64)) {
	for j, x := range c.x {
		px, _ := at(x, 0)
		w := plotWidth / float64(len(c.x))
		var parts []string
		for _, l := range c.lines {
			name := ""
			if len(c.lines) > 1 {
				name = l.Name + " "
			}
			if v := l.y[j]; math.IsNaN(v) {
				parts = append(parts, name+"-")
			} else {
				parts = append(parts, name+FormatValue(v, c.unit))
			}
		}
		p(`<rect class="hit" x="%.1f" y="%g" width="%.1f" height="%g"><title>%s: %s</title></rect>`, px-w/2, top, w, plotHeight, seconds(x), strings.Join(parts, ", "))
	}
}

func grid(p func(string, ...any), high, step float64, at func(x, y float64) (float64, float64)) {
	for y := 0.0; y <= high+step/1e6; y += step {
		_, py := at(0, y)
		class := "grid"
		if y == 0 {
			class = "axis"
		}
		p(`<line class="%s" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/>`, class, left, chartWidth-right, py, py)
		p(`<text class="tick" text-anchor="end" x="%g" y="%.1f">%s</text>`, left-6, py+3.5, tickText(y))
	}
}

// tickText is short: 1500 is 1.5k.
func tickText(v float64) string {
	if v >= 10_000 {
		return fmt.Sprintf("%gk", math.Round(v/100)/10)
	}
	return fmt.Sprintf("%g", math.Round(v*1e6)/1e6)
}

func seconds(x float64) string {
	if x >= 120 {
		return fmt.Sprintf("%d:%02d", int(x)/60, int(x)%60)
	}
	return fmt.Sprintf("%g s", math.Round(x*10)/10)
}

// niceStep divides a range in about n steps of 1, 2 or 5 of a power of ten.
func niceStep(high float64, n int) float64 {
	if high <= 0 {
		return 1
	}
	raw := high / float64(n)
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 2.5, 5, 10} {
		if m*power >= raw*(1-1e-9) {
			return m * power
		}
	}
	return 10 * power
}

// The room for the marks' names: above the bars, and right of them.
const labelWidth, labelHeight = 14.0, 16.0

// distribution draws how many of the values, which are sorted, are in each of some equal ranges, up to the 99th percentile or a little more.
func distribution(values []float64, unit, of string) template.HTML {
	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format, a...) }
	p99, _ := quantile(values, 0.99)
	width := niceStep(max(p99*1.15, 1), mostBins)
	bins := make([]int, mostBins+1) // the last one: beyond
	used, most := 1, 1
	for _, v := range values {
		i := min(int(v/width), mostBins)
		bins[i]++
		used, most = max(used, i+1), max(most, bins[i])
	}
	used = min(mostBins+1, max(used, 8))
	step := max(1, niceStep(float64(most), 4))
	high := math.Ceil(float64(most)/step) * step
	at := func(x, y float64) (float64, float64) {
		return left + x/float64(used)*(plotWidth-labelWidth), top + plotHeight - y/high*(plotHeight-labelHeight)
	}
	p(`<svg viewBox="0 0 %g %g" role="img" aria-label="distribution">`, chartWidth, chartHeight)
	grid(p, high, step, at)
	for i, n := range bins[:used] {
		x, y := at(float64(i), float64(n))
		end, base := at(float64(i+1), 0)
		text := fmt.Sprintf("%g to %s", round3(float64(i)*width), FormatValue(round3(float64(i+1)*width), unit))
		if i == mostBins {
			text = "more than " + FormatValue(round3(float64(i)*width), unit)
		}
		p(`<rect class="bar s1" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="1.5"><title>%s: %s</title></rect>`, x+0.7, y, end-x-1.4, base-y, text, plural(n, of))
	}
	for i := 0; i <= used; i += max(1, used/5) {
		x, _ := at(float64(i), 0)
		p(`<text class="tick" text-anchor="middle" x="%.1f" y="%g">%s</text>`, x, chartHeight-8, tickText(round3(float64(i)*width)))
	}
	for _, m := range []struct {
		name string
		q    float64
	}{{"p50", 0.5}, {"p95", 0.95}} {
		v, ok := quantile(values, m.q)
		if !ok || v/width > float64(used) {
			continue
		}
		x, _ := at(v/width, 0)
		label, anchor := x+3, "start"
		if m.q == 0.5 { // away from the other's
			label, anchor = x-3, "end"
		}
		p(`<line class="mark" x1="%.1f" x2="%.1f" y1="%g" y2="%g"/><text class="marktext" text-anchor="%s" x="%.1f" y="%g">%s</text>`,
			x, x, top, top+plotHeight, anchor, label, top+8, m.name)
	}
	p(`</svg>`)
	return template.HTML(b.String()) // numbers only
}

func round3(v float64) float64 { return math.Round(v*1000) / 1000 }

// thin makes at most mostPoints of samples; of several that become one it keeps the worst.
func thin(samples []Sample) []Sample {
	n := (len(samples) + mostPoints - 1) / mostPoints
	if n <= 1 {
		return samples
	}
	var out []Sample
	for i := 0; i < len(samples); i += n {
		s := samples[i]
		for _, o := range samples[i+1 : min(i+n, len(samples))] {
			s.Loss, s.LatencyP50 = max(s.Loss, o.Loss), max(s.LatencyP50, o.LatencyP50)
			s.LatencyP95, s.LatencyP99 = max(s.LatencyP95, o.LatencyP95), max(s.LatencyP99, o.LatencyP99)
			s.Server, s.Load = max(s.Server, o.Server), max(s.Load, o.Load)
			s.Packets, s.Frames = max(s.Packets, o.Packets), max(s.Frames, o.Frames)
			s.Up, s.Mbps = min(s.Up, o.Up), min(s.Mbps, o.Mbps)
		}
		out = append(out, s)
	}
	return out
}
