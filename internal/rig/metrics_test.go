package rig

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/config"
)

var update = flag.Bool("update", false, "write the table of docs/observability.md from what is exported")

// figure is a family of metrics as it is exported.
type figure struct {
	help, kind string
	labels     map[string]bool
	from       map[string]bool // "node", "gateway"
}

// scrape reads what a process exports, in Prometheus' text format.
func scrape(t *testing.T, url string) string {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v %s", url, resp.Status, err, b)
	}
	return string(b)
}

var (
	headLine   = regexp.MustCompile(`^# (HELP|TYPE) (\S+) (.*)$`)
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:0-9]+)(?:\{(.*)\})? \S+$`)
	oneLabel   = regexp.MustCompile(`([a-z_]+)="((?:[^"\\]|\\.)*)"`)
)

// collect adds what is exported to the figures, without the runtime's and the process', and returns how many series there are.
func collect(t *testing.T, text, from string, into map[string]*figure) (series int) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if m := headLine.FindStringSubmatch(line); m != nil && strings.HasPrefix(m[2], "sluice_") {
			f := into[m[2]]
			if f == nil {
				f = &figure{labels: map[string]bool{}, from: map[string]bool{}}
				into[m[2]] = f
			}
			f.from[from] = true
			if m[1] == "HELP" {
				f.help = m[3]
			} else {
				f.kind = m[3]
			}
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil || !strings.HasPrefix(m[1], "sluice_") {
			continue
		}
		series++
		name := m[1]
		for _, end := range []string{"_bucket", "_sum", "_count"} {
			if f := into[strings.TrimSuffix(name, end)]; f != nil && f.kind == "histogram" {
				name = strings.TrimSuffix(name, end)
			}
		}
		for _, l := range oneLabel.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains([]string{"le", "node", "role", "region"}, l[1]) || from == "gateway" && l[1] != "le" {
				into[name].labels[l[1]] = true
			}
			if strings.Contains(l[2], stream1.ID) || strings.Contains(l[2], "127.0.0.1") {
				t.Errorf("a label has the name of a stream or an address: %s", line)
			}
		}
	}
	return series
}

// table is the documentation of the figures.
func table(figures map[string]*figure) string {
	var b strings.Builder
	b.WriteString("| metric | type | of | labels | meaning |\n|---|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(figures)) {
		f := figures[name]
		labels := strings.Join(slices.Sorted(maps.Keys(f.labels)), ", ")
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", name, f.kind, strings.Join(slices.Sorted(maps.Keys(f.from)), ", "), cmp.Or(labels, "–"), f.help)
	}
	return b.String()
}

const (
	page       = "../../docs/observability.md"
	tableBegin = "<!-- made from what is exported: go test ./internal/rig -run TestMetrics -update -->\n"
	tableEnd   = "<!-- end -->\n"
)

// TestMetrics: docs/observability.md lists what a node and a gateway export, and nothing else; names are as Prometheus wants them; there are no more
// series with more viewers.
func TestMetrics(t *testing.T) {
	c := Start(t, Options{Edges: 1, Configure: func(n *config.Node) { n.TURN.Listen = "127.0.0.1:0" }})
	c.publish(stream1)
	c.More(5, c.watch(stream1))
	scrapeAll := func() (figures map[string]*figure, series int) {
		figures = map[string]*figure{}
		for from, url := range map[string]string{"node": "http://" + c.Node("edge-1").HTTPAddr(), "gateway": c.OperatorsURL()} {
			series += collect(t, scrape(t, url+"/metrics"), from, figures)
		}
		series += collect(t, scrape(t, "http://"+c.Node("origin-1").HTTPAddr()+"/metrics"), "node", figures)
		return figures, series
	}
	var figures map[string]*figure
	var series int
	c.Poll(10*time.Second, func() error { // the signal of scaling comes once a second
		if figures, series = scrapeAll(); figures["sluice_group_nodes"] == nil {
			return fmt.Errorf("there is no sluice_group_nodes yet")
		}
		return nil
	})
	for range 2 { // the first few use each way to ask
		_, series = scrapeAll()
		var more []*Viewer
		for range 10 {
			more = append(more, c.watch(stream1))
		}
		c.More(2, more...)
	}
	if _, again := scrapeAll(); again > series+10 {
		t.Errorf("%d series with 11 viewers, %d with 21", series, again)
	}
	for name, f := range figures {
		if f.help == "" || f.kind == "" || strings.HasSuffix(name, "_total") != (f.kind == "counter") || f.kind == "histogram" && !strings.HasSuffix(name, "_seconds") {
			t.Errorf("%s (%s, %q) is not named as Prometheus wants it", name, f.kind, f.help)
		}
	}
	for _, must := range []string{"sluice_viewer_first_packet_seconds", "sluice_viewer_first_key_frame_seconds", "sluice_viewer_join_duration_seconds", "sluice_http_request_duration_seconds",
		"sluice_registry_operation_duration_seconds", "sluice_relay_subscribe_duration_seconds", "sluice_stream_gap_seconds", "sluice_publisher_join_duration_seconds"} {
		if figures[must] == nil {
			t.Errorf("there is no %s", must)
		}
	}
	edge := scrape(t, "http://"+c.Node("edge-1").HTTPAddr()+"/metrics")
	for _, line := range []string{`sluice_viewer_first_key_frame_seconds_count{node="edge-1",region="",role="edge"} 21`, `sluice_viewers{node="edge-1",region="",role="edge"} 21`,
		`sluice_relay_subscribe_duration_seconds_count{node="edge-1",region="",result="ok",role="edge"} 1`} {
		if !strings.Contains(edge, line+"\n") {
			t.Errorf("the edge does not say %s", line)
		}
	}
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), tableBegin)
	have, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", page)
	}
	want := table(figures)
	if *update {
		if err := os.WriteFile(page, []byte(before+tableBegin+want+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if have != want {
		t.Errorf("%s is out of date: run go test ./internal/rig -run TestMetrics -update\nwant\n%s", page, want)
	}
}
