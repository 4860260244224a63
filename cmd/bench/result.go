package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Names of figures; all are those of docs/load.md.
const (
	cpuPerPacket = "cpu_per_packet"
	otherCores   = "other_cores"
)

// quietCores is how much other work a run may have beside it to count as one on a quiet machine.
const quietCores = 0.35

// result is what is kept. Its JSON is stable: fields may be added, not changed.
type result struct {
	Began    time.Time         `json:"began"`
	Machine  machine           `json:"machine"`
	Versions map[string]string `json:"versions"`
	Seconds  float64           `json:"seconds"` // measured time of each run
	Repeat   int               `json:"repeat"`
	Rows     []row             `json:"rows"`
	Notes    []string          `json:"notes,omitempty"`
	Runs     []measured        `json:"runs"`
}

// machine has no name: files are shown to others.
type machine struct {
	Processor string `json:"processor"`
	Cores     int    `json:"cores"`
	System    string `json:"system"`
	Go        string `json:"go"`
}

// measured is one run.
type measured struct {
	Server  string             `json:"server"`
	Case    string             `json:"case"`
	Repeat  int                `json:"repeat"`
	Figures map[string]float64 `json:"figures,omitempty"` // of docs/load.md
	Warning string             `json:"warning,omitempty"`
	Error   string             `json:"error,omitempty"`
}

// row is a line of the table.
type row struct {
	Name   string              `json:"name"`
	Case   string              `json:"case"`
	Values map[string][]spread `json:"values"` // of each server, of each figure
	Limits []float64           `json:"limits,omitempty"`
	Floor  float64             `json:"floor_limit,omitempty"` // times the floor
	Plain  *spread             `json:"plain,omitempty"`       // what ours needs without the thing that is measured
	Times  float64             `json:"times_limit,omitempty"` // times that
	Met    *bool               `json:"met,omitempty"`
}

// spread is the median of the repeats, with the least and the most.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, after, ok := strings.Cut(string(b), "model name"); ok {
			line, _, _ := strings.Cut(after, "\n")
			m.Processor = strings.TrimSpace(strings.TrimLeft(line, "\t :"))
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		release, _, _ := strings.Cut(strings.TrimSpace(string(b)), "-") // what follows may name who made it
		m.System += " " + release
	}
	return m
}

// wish is a row of the table that is not filled yet.
type wish struct {
	name, scenario string
	figures        []string
	limits         []float64 // ours must not be above; may be none
	floor          float64   // nor above so many times the floor; 0: no matter
	plain          string    // nor above so many times of ours in this case; "": no matter
	times          float64
}

func wishes() []wish {
	cpu := []string{cpuPerPacket}
	return []wish{
		{"CPU per packet, 50 viewers, µs", "v50", cpu, []float64{3.5}, 0, "", 0},
		{"CPU per packet, 150 viewers, µs", "v150", cpu, []float64{2.8}, 1.4, "", 0},
		{"CPU per packet, 200 at 300 kbit/s, µs", "small", cpu, []float64{7.5}, 0, "", 0},
		{"memory per viewer (150), KiB", "v150", []string{"memory_per_viewer"}, []float64{40}, 0, "", 0},
		{"first key frame (150), p50 / p95, ms", "v150", []string{"ttff_p50", "ttff_p95"}, []float64{60, 120}, 0, "", 0},
		{"frame latency, 50 viewers, p50 / p99, ms", "v50", []string{"latency_p50", "latency_p99"}, []float64{1, 5}, 0, "", 0},
		{"CPU per join (200), ms", "join", []string{"cpu_per_join"}, []float64{0.8}, 0, "", 0},
		{"CPU per packet, 50 at 300 kbit/s, µs", "line50", cpu, nil, 0, "", 0},
		{"CPU per packet, 300 at 300 kbit/s, µs", "line300", cpu, nil, 0, "", 0},
		{"CPU per packet, 300 adaptive, µs", "adapt300", cpu, nil, 0, "line300", 1.15},
		{"CPU per packet, 1,000 at 300 kbit/s, µs", "line1000", cpu, nil, 0, "", 0},
		{"memory per viewer (1,000), KiB", "line1000", []string{"memory_per_viewer"}, nil, 0, "", 0},
	}
}

// conclude fills the table and says what makes it doubtful.
func (r *result) conclude() {
	for _, w := range wishes() {
		one := row{Name: w.name, Case: w.scenario, Values: map[string][]spread{}, Limits: w.limits, Floor: w.floor}
		for _, server := range []string{floorName, oursName, janusName} {
			var all []spread
			for _, f := range w.figures {
				if s, ok := r.spread(server, w.scenario, f); ok {
					all = append(all, s)
				}
			}
			if len(all) == len(w.figures) {
				one.Values[server] = all
			}
		}
		if s, ok := r.spread(oursName, w.plain, w.figures[0]); ok {
			one.Plain, one.Times = &s, w.times
		}
		if len(one.Values) > 0 {
			one.Met = w.met(one.Values, one.Plain)
			r.Rows = append(r.Rows, one)
		}
	}
	r.noise()
}

// met says whether ours keeps the limits; nil where there is none, or nothing to compare.
func (w wish) met(values map[string][]spread, plain *spread) *bool {
	ours, floor := values[oursName], values[floorName]
	if ours != nil && plain != nil {
		ok := ours[0].Median <= w.times*plain.Median
		return &ok
	}
	if ours == nil || len(w.limits) == 0 || w.floor > 0 && floor == nil {
		return nil
	}
	ok := w.floor == 0 || ours[0].Median <= w.floor*floor[0].Median
	for i, limit := range w.limits {
		ok = ok && ours[i].Median <= limit
	}
	return &ok
}

func (r *result) spread(server, scenario, figure string) (spread, bool) {
	var v []float64
	for _, m := range r.Runs {
		if f, ok := m.Figures[figure]; ok && m.Server == server && m.Case == scenario {
			v = append(v, f)
		}
	}
	return spreadOf(v)
}

func spreadOf(v []float64) (spread, bool) {
	if len(v) == 0 {
		return spread{}, false
	}
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return spread{(v[(n-1)/2] + v[n/2]) / 2, v[0], v[n-1]}, true
}

// noise notes what else the machine did, and what the load tool warned of.
func (r *result) noise() {
	var other []float64
	busy := 0
	for _, m := range r.Runs {
		if f, ok := m.Figures[otherCores]; ok {
			other = append(other, f)
			if f > quietCores {
				busy++
			}
		}
		if m.Warning != "" {
			r.Notes = append(r.Notes, fmt.Sprintf("%s, %s: %s", m.Server, m.Case, m.Warning))
		}
		if m.Error != "" {
			r.Notes = append(r.Notes, fmt.Sprintf("%s, %s, run %d failed: %s", m.Server, m.Case, m.Repeat, m.Error))
		}
	}
	if s, ok := spreadOf(other); ok {
		text := fmt.Sprintf("other work on the machine: %.2f cores (%.2f to %.2f)", s.Median, s.Min, s.Max)
		if busy > 0 {
			text += fmt.Sprintf("; it was NOT QUIET in %d of %d runs (more than %.2f): don't trust the differences", busy, len(other), quietCores)
		}
		r.Notes = append(r.Notes, text)
	}
}

// failure is an error when nothing of ours, or of the floor, could be measured.
func (r *result) failure() error {
	var all error
	for _, m := range r.Runs {
		if m.Error != "" && m.Server != janusName {
			all = errors.Join(all, fmt.Errorf("%s, %s: %s", m.Server, m.Case, m.Error))
		}
	}
	return all
}

// keep writes the file and returns its path.
func (r *result) keep(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, r.Began.UTC().Format("2006-01-02T15-04-05Z")+".json")
	return path, os.WriteFile(path, append(b, '\n'), 0o644)
}
