package crowd

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestChartsOfUnknown: seconds in which nothing was measured have no point in the charts of loss and latency.
func TestChartsOfUnknown(t *testing.T) {
	r := &Report{Config: Summary{Play: "http://127.0.0.1/x"}, Figures: Figures{}}
	for i, n := range []uint64{0, 0, 30, 30, 0, 30} {
		s := Sample{At: float64(i + 1), Frames: n, Packets: float64(n)}
		if n > 0 {
			s.LatencyP50, s.LatencyP95, s.LatencyP99, s.Loss = 1, 2, 3, 4
		}
		r.Samples = append(r.Samples, s)
	}
	for _, c := range r.charts() {
		if c.Title != "Loss" && c.Title != "Frame latency" {
			continue
		}
		svg := string(c.SVG())
		if strings.Contains(svg, "NaN") {
			t.Errorf("%s draws what it does not know: %s", c.Title, svg)
		}
		for _, d := range regexp.MustCompile(`class="line s.*?d="([^"]*)"`).FindAllStringSubmatch(svg, -1) {
			if n := strings.Count(d[1], "M") + strings.Count(d[1], "L"); n != 2 && n != 1 {
				t.Errorf("%s: a line of %d points, want one of 2 and one of 1: %s", c.Title, n, d[1])
			}
		}
		if n, want := strings.Count(svg, `class="line s`), 2*len(c.lines); n != want {
			t.Errorf("%s: %d parts of lines, want %d", c.Title, n, want)
		}
		if !strings.Contains(svg, "<title>1 s: ") || !strings.Contains(svg, "-</title>") {
			t.Errorf("%s does not say that the first second is unknown", c.Title)
		}
	}
}

// TestMarksAboveBars: the names of the percentiles are not painted over the bars.
func TestMarksAboveBars(t *testing.T) {
	for name, values := range map[string][]float64{"all the same": {5, 5, 5, 5}, "spread": {1, 2, 3, 4, 5, 6, 7, 8, 9, 30}, "one": {0.1}} {
		svg := string(distribution(values, "ms", "viewer"))
		highest := chartHeight
		for _, m := range regexp.MustCompile(`class="bar s1" x="[^"]*" y="([^"]*)"`).FindAllStringSubmatch(svg, -1) {
			y, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			highest = min(highest, y)
		}
		marks := regexp.MustCompile(`class="marktext" text-anchor="[a-z]*" x="([^"]*)" y="([^"]*)"`).FindAllStringSubmatch(svg, -1)
		if len(marks) != 2 {
			t.Errorf("%s: %d marks, want 2", name, len(marks))
		}
		for _, m := range marks {
			if y, err := strconv.ParseFloat(m[2], 64); err != nil || y+3 > highest {
				t.Errorf("%s: a name at %s, the highest bar at %g", name, m[2], highest)
			}
		}
	}
}
