package main

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestSpread(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   []float64
		want spread
		ok   bool
	}{
		{"nothing", nil, spread{}, false},
		{"one", []float64{3}, spread{3, 3, 3}, true},
		{"two", []float64{4, 2}, spread{3, 2, 4}, true},
		{"three", []float64{9, 1, 2}, spread{2, 1, 9}, true},
		{"four", []float64{9, 1, 2, 4}, spread{3, 1, 9}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, ok := spreadOf(tc.in); got != tc.want || ok != tc.ok {
				t.Errorf("%v %t, want %v", got, ok, tc.want)
			}
		})
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 2.456: "2.46", 9.99: "9.99", 12.34: "12.3", 120.4: "120", 4140: "4,140", 1234567: "1,234,567"} {
		if got := number(v); got != want {
			t.Errorf("%g is %q, want %q", v, got, want)
		}
	}
}

// sample has three repeats of a case, and one of others.
func sample(ours, floor float64) *result {
	r := &result{Began: time.Unix(0, 0), Machine: machine{Processor: "CPU", Cores: 2, System: "linux"}, Versions: map[string]string{janusName: "1.1.2"}, Seconds: 10, Repeat: 3}
	add := func(server, name string, figures map[string]float64) {
		r.Runs = append(r.Runs, measured{Server: server, Case: name, Repeat: 1, Figures: figures})
	}
	for _, d := range []float64{0.5, 0, -0.5} {
		add(floorName, "v150", map[string]float64{cpuPerPacket: floor + d, otherCores: 0.1})
		add(oursName, "v150", map[string]float64{cpuPerPacket: ours + d, otherCores: 0.2, "ttff_p50": 10, "ttff_p95": 20, "memory_per_viewer": 50})
		add(janusName, "v150", map[string]float64{cpuPerPacket: 20 + d, otherCores: 0})
	}
	return r
}

func TestTable(t *testing.T) {
	r := sample(2.5, 2)
	r.Runs = append(r.Runs, measured{Server: janusName, Case: "small", Repeat: 2, Error: "gone"}, measured{Server: oursName, Case: "small", Repeat: 2, Warning: "the tool was busy",
		Figures: map[string]float64{cpuPerPacket: 5, otherCores: 0.9}})
	for name, cost := range map[string]float64{"line300": 4, "adapt300": 4.4} {
		r.Runs = append(r.Runs, measured{Server: oursName, Case: name, Repeat: 1, Figures: map[string]float64{cpuPerPacket: cost, otherCores: 0}})
	}
	r.conclude()
	text := r.String()
	for _, want := range []string{
		"≤ 1.15 × 4.00  met",
		"CPU, 2 cores, linux; medians of 3 runs of 10 s",
		"floor", "Janus 1.1.2", "must",
		"CPU per packet, 150 viewers, µs", "2.00 [1.50–2.50]", "2.50 [2.00–3.00] (1.2 × floor)", "20.0 [19.5–20.5] (10.0 × floor)", "≤ 2.8, ≤ 1.4 × floor  met",
		"≤ 40  MISSED", "10.0 [10.0–10.0] / 20.0 [20.0–20.0]", "≤ 60 / 120  met",
		"janus, small, run 2 failed: gone", "ours, small: the tool was busy",
		"other work on the machine: 0.10 cores (0.00 to 0.90); it was NOT QUIET in 1 of 12 runs",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	for _, not := range []string{", 50 viewers, µs", "join", "NaN"} { // were not measured
		if strings.Contains(text, not) {
			t.Errorf("%q is in\n%s", not, text)
		}
	}
	if err := r.failure(); err != nil {
		t.Errorf("Janus has failed, and it is ours: %v", err)
	}
	r.Runs = append(r.Runs, measured{Server: oursName, Case: "join", Error: "died"})
	if err := r.failure(); err == nil || !strings.Contains(err.Error(), "ours, join: died") {
		t.Errorf("ours has failed: %v", err)
	}
}

func TestMet(t *testing.T) {
	for _, tc := range []struct {
		name        string
		ours, floor float64
		want        bool
	}{
		{"both limits kept", 2.7, 2, true},
		{"too much for the floor", 2.7, 1.8, false},
		{"too much", 2.9, 2.5, false},
		{"exactly", 2.8, 2, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := sample(tc.ours, tc.floor)
			r.conclude()
			if met := r.Rows[0].Met; met == nil || *met != tc.want {
				t.Errorf("%+v", r.Rows[0])
			}
		})
	}
	r := sample(2.7, 2)
	r.Runs = r.Runs[1:2] // ours only
	r.conclude()
	if r.Rows[0].Met != nil || strings.Contains(r.String(), "× floor)") {
		t.Errorf("without a floor nobody knows: %s", r)
	}
}

// TestWishes: every row is of a case that there is, and has a limit for each figure or none.
func TestWishes(t *testing.T) {
	have := map[string]bool{}
	for _, s := range cases() {
		have[s.name] = true
		if s.viewers < 1 || s.rate <= 0 || math.IsInf(s.rate, 0) {
			t.Errorf("%+v", s)
		}
	}
	for _, w := range wishes() {
		if !have[w.scenario] || len(w.limits) != 0 && len(w.limits) != len(w.figures) {
			t.Errorf("%+v", w)
		}
	}
}
