package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// row is one figure of a scenario.
type row struct {
	Scenario string   `json:"scenario"`
	Figure   string   `json:"figure"`
	Must     *float64 `json:"must,omitempty"` // at most; nothing: it is told, not judged
	Measured float64  `json:"measured"`
	Unit     string   `json:"unit"`
	Samples  int      `json:"samples,omitempty"` // of which it is the 95th percentile
	Met      *bool    `json:"met,omitempty"`
}

// result is a run.
type result struct {
	Began   time.Time         `json:"began"`
	Version string            `json:"version"`
	Store   string            `json:"store"`
	Quick   bool              `json:"quick"`
	Rows    []row             `json:"rows"`
	Notes   []string          `json:"notes,omitempty"`
	Errors  map[string]string `json:"errors,omitempty"` // scenarios that could not be measured
	Skipped map[string]string `json:"skipped,omitempty"`

	scenario string // that runs
}

// most judges a figure that must not exceed a limit.
func (r *result) most(figure string, limit, measured float64, unit string) {
	met := measured <= limit
	r.Rows = append(r.Rows, row{Scenario: r.scenario, Figure: figure, Must: &limit, Measured: measured, Unit: unit, Met: &met})
}

// told is a figure without a limit.
func (r *result) told(figure string, measured float64, unit string) {
	r.Rows = append(r.Rows, row{Scenario: r.scenario, Figure: figure, Measured: measured, Unit: unit})
}

// times judges the 95th percentile of durations, and tells the longest. Without any, nothing was met.
func (r *result) times(figure string, limit time.Duration, all []time.Duration) {
	x := row{Scenario: r.scenario, Figure: figure + ", p95", Measured: millis(p95(all)), Unit: "ms", Samples: len(all)}
	if limit > 0 {
		must, met := millis(limit), len(all) > 0 && p95(all) <= limit
		x.Must, x.Met = &must, &met
	}
	r.Rows = append(r.Rows, x)
}

func (r *result) note(format string, args ...any) {
	r.Notes = append(r.Notes, r.scenario+": "+fmt.Sprintf(format, args...))
}

func millis(d time.Duration) float64 {
	return float64(d.Round(100*time.Microsecond).Microseconds()) / 1000
}

// p95 is the smallest value that 95 % of all don't exceed (nearest rank); 0 of none.
func p95(all []time.Duration) time.Duration { return quantile(all, 95) }

func quantile(all []time.Duration, percent int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[max(1, (len(all)*percent+99)/100)-1]
}

// missed are the figures that were not reached, and the scenarios that failed.
func (r *result) missed() (n int) {
	for _, x := range r.Rows {
		if x.Met != nil && !*x.Met {
			n++
		}
	}
	return n + len(r.Errors)
}

// String is the table that a terminal shows.
func (r *result) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "scenario\tfigure\tmust\tmeasured\tverdict")
	last := ""
	for _, x := range r.Rows {
		must, verdict := "", ""
		if x.Must != nil {
			must, verdict = "≤ "+number(*x.Must, x.Unit), map[bool]string{true: "met", false: "MISSED"}[*x.Met]
		}
		measured := number(x.Measured, x.Unit)
		if x.Samples > 0 {
			measured += fmt.Sprintf(" (of %d)", x.Samples)
		}
		title := x.Scenario
		if title == last {
			title = ""
		}
		last = x.Scenario
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", title, x.Figure, must, measured, verdict)
	}
	_ = w.Flush() // into memory: can't fail
	for _, part := range []struct {
		title string
		texts map[string]string
	}{{"could not be measured", r.Errors}, {"left out", r.Skipped}} {
		for _, name := range sortedKeys(part.texts) {
			fmt.Fprintf(&b, "%s: %s: %s\n", name, part.title, part.texts[name])
		}
	}
	if len(r.Notes) > 0 {
		fmt.Fprintf(&b, "\n%s\n", strings.Join(r.Notes, "\n"))
	}
	return b.String()
}

func sortedKeys(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, cmp.Compare)
	return keys
}

func number(v float64, unit string) string {
	if unit == "" {
		return fmt.Sprintf("%g", v)
	}
	return fmt.Sprintf("%.0f %s", v, unit)
}

// keep writes the run into a folder.
func (r *result) keep(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, r.Began.UTC().Format("20060102-150405")+".json")
	return path, os.WriteFile(path, append(text, '\n'), 0o644)
}
