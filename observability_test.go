package sluice

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// figureName is a word of a query that may be a metric of ours, of the Go runtime or of the process.
var figureName = regexp.MustCompile(`\b(?:sluice|go|process)_[a-z0-9_]+\b`)

// shown are the metrics that docs/observability.md lists, by type; internal/rig compares that list with what is exported.
func shown(t *testing.T) map[string]string {
	page, err := os.ReadFile("docs/observability.md")
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]string{"go_goroutines": "gauge", "process_resident_memory_bytes": "gauge", "process_open_fds": "gauge", "process_max_fds": "gauge"}
	for _, m := range regexp.MustCompile("(?m)^\\| `(sluice_[a-z_]+)` \\| ([a-z]+) \\|").FindAllStringSubmatch(string(page), -1) {
		types[m[1]] = m[2]
	}
	return types
}

// unknown lists the metrics in a query that nobody exports, or that are used as what they are not: rates of gauges, counters without a rate.
func unknown(query string, types map[string]string) (wrong []string) {
	for _, at := range figureName.FindAllStringIndex(query, -1) {
		name, before := query[at[0]:at[1]], query[:at[0]]
		family, kind := name, types[name]
		for _, end := range []string{"_bucket", "_count", "_sum"} {
			if base, ok := strings.CutSuffix(name, end); ok && types[base] == "histogram" {
				family, kind = base, "counter" // each of its parts
			}
		}
		rated := strings.HasSuffix(before, "rate(") || strings.HasSuffix(before, "increase(")
		switch {
		case kind == "":
			wrong = append(wrong, name+" is not exported")
		case kind == "histogram":
			wrong = append(wrong, family+" is a histogram: take its _bucket, _sum or _count")
		case kind == "counter" && !rated:
			wrong = append(wrong, name+" is a counter: take its rate")
		case kind == "gauge" && rated:
			wrong = append(wrong, name+" is a gauge: it has no rate")
		}
	}
	return wrong
}

func TestUnknownFigures(t *testing.T) {
	types := map[string]string{"sluice_viewers": "gauge", "sluice_lost_total": "counter", "sluice_wait_seconds": "histogram"}
	for _, tc := range []struct{ query, want string }{
		{"sum(sluice_viewers)", ""},
		{"sum by (reason) (rate(sluice_lost_total[5m]))", ""},
		{"histogram_quantile(0.9, sum by (le) (rate(sluice_wait_seconds_bucket[5m])))", ""},
		{"increase(sluice_lost_total[1h]) / sluice_viewers", ""},
		{"sluice_watchers", "sluice_watchers is not exported"},
		{"rate(sluice_viewers[5m])", "sluice_viewers is a gauge: it has no rate"},
		{"sluice_lost_total > 0", "sluice_lost_total is a counter: take its rate"},
		{"rate(sluice_wait_seconds[5m])", "sluice_wait_seconds is a histogram: take its _bucket, _sum or _count"},
		{"sluice_wait_seconds_bucket", "sluice_wait_seconds_bucket is a counter: take its rate"},
	} {
		t.Run(tc.query, func(t *testing.T) {
			if got := strings.Join(unknown(tc.query, types), "; "); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// TestDashboard: each panel asks for something that exists, and each of the important ones is on it or in a rule.
func TestDashboard(t *testing.T) {
	types := shown(t)
	if len(types) < 40 {
		t.Fatalf("docs/observability.md lists %d metrics", len(types))
	}
	b, err := os.ReadFile("deploy/observability/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Title, UID string
		Panels     []struct {
			ID      int
			Title   string
			Type    string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	if err := json.Unmarshal(b, &d); err != nil || d.UID != "sluice" {
		t.Fatalf("%v, uid %q", err, d.UID)
	}
	ids := map[int]bool{}
	covered := map[int]string{} // squares of the grid
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d %q: the id is another's, or it has no title or no query", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := covered[y*24+x]; other != "" || x >= 24 {
					t.Fatalf("panel %q lies over %q", p.Title, other)
				}
				covered[y*24+x] = p.Title
			}
		}
		for _, q := range p.Targets {
			for _, w := range unknown(q.Expr, types) {
				t.Errorf("panel %q: %s", p.Title, w)
			}
		}
	}
	for _, v := range d.Templating.List {
		for _, w := range unknown(v.Definition, types) {
			t.Errorf("variable %s: %s", v.Name, w)
		}
	}
	rules, err := os.ReadFile("deploy/observability/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	exempt := []string{"sluice_build_info"}
	for name := range types {
		if !strings.Contains(string(b)+string(rules), name) && !slices.Contains(exempt, name) && important(name) {
			t.Errorf("%s is on no panel and in no rule", name)
		}
	}
}

// important are the figures of which each belongs on the dashboard.
func important(name string) bool {
	return strings.HasSuffix(name, "_seconds") || strings.HasPrefix(name, "sluice_rtc_") && strings.HasSuffix(name, "_total") && !strings.Contains(name, "lost_sessions") ||
		strings.HasPrefix(name, "sluice_viewer")
}

// TestAlertRules: each rule asks for something that exists, says what to do, and has a test; promtool checks the rest (make rules).
func TestAlertRules(t *testing.T) {
	types := shown(t)
	rules, err := os.ReadFile("deploy/observability/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("deploy/observability/alerts_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(rules), "- alert: ")
	if len(parts) < 10 {
		t.Fatalf("%d rules", len(parts)-1)
	}
	for _, part := range parts[1:] {
		name, rest, _ := strings.Cut(part, "\n")
		expr, _, _ := strings.Cut(rest, "labels:")
		if !strings.Contains(rest, "severity: page") && !strings.Contains(rest, "severity: ticket") || !strings.Contains(rest, "summary:") || !strings.Contains(rest, "action:") {
			t.Errorf("%s needs a severity, a summary and an action", name)
		}
		if !strings.Contains(string(tests), "alertname: "+name+"\n") {
			t.Errorf("%s has no test in which it fires", name)
		}
		for _, w := range unknown(expr, types) {
			t.Errorf("%s: %s", name, w)
		}
	}
}
