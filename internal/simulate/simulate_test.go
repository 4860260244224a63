package simulate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/cluster"
)

func play(t *testing.T, cfg Config) *Report {
	t.Helper()
	r, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			var b bytes.Buffer
			_ = r.Write(&b)
			t.Logf("the whole report:\n%s", b.String())
		}
	})
	return r
}

// limit is a figure that must be kept.
type limit struct {
	what     string
	is, most float64
}

func check(t *testing.T, limits ...limit) {
	t.Helper()
	for _, l := range limits {
		if l.is > l.most {
			t.Errorf("%s: %g, must be at most %g", l.what, l.is, l.most)
		}
	}
}

// TestSmall: a crowd of 60,000, a flash crowd, deaths of edges, an origin and a region.
func TestSmall(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			cfg := Small()
			cfg.Seed = seed
			r := play(t, cfg)
			check(t,
				limit{"viewers without a picture at the end", float64(r.Waiting), 0},
				limit{"refused viewers", float64(r.Refused), 0},
				limit{"node-seconds overloaded", r.Overloaded, 5},
				limit{"loops", float64(r.Loops), 0},
				limit{"children of a node", float64(r.ChildrenMax), float64(cfg.Fanout)},
				limit{"depth of the relay trees", float64(r.DepthMax), 6},
				limit{"seconds to join, p95", r.Join.P95, 0.3},
				limit{"registry operations a second, steady", r.Registry.Steady, 140},
				limit{"registry operations a second, peak", r.Registry.Peak, 1500},
			)
			for _, tree := range r.Tree {
				check(t, limit{"mean depth, " + tree.When, tree.DepthViewers, 3}, limit{"relay's share of egress, " + tree.When, tree.RelayOfAllEgress, 0.1})
			}
			// By the placer's rule an edge may be above the mean by 15 % of what that leaves free: 1.27 of a mean of 36 %, 1.16 of one of 48 %.
			// The empty edges that replace dead ones lower the mean a little, and are full like the others within a minute.
			spread(t, r, "the flash crowd is there", 1.25, 1.35)
			spread(t, r, "all are there", 1.15, 1.25)
			spread(t, r, "20 s after the region's death", 1.15, 1.25)
			for _, d := range r.Deaths {
				p95 := 2.5
				if strings.HasPrefix(d.What, "region") {
					p95 = 5
				}
				if d.Nodes == 0 || d.Moved.Count+d.Held.Count == 0 {
					t.Errorf("death of %s at %g s: %d nodes, nobody noticed", d.What, d.At, d.Nodes)
				}
				check(t, limit{fmt.Sprintf("death of %s at %g s: seconds until viewers have a picture, p95", d.What, d.At), d.Moved.P95, p95},
					limit{fmt.Sprintf("death of %s at %g s: gap of those who stay, p95", d.What, d.At), d.Held.P95, p95 + 0.7})
			}
			if r.Booted == 0 || len(r.Scaling) == 0 {
				t.Error("the region's death left too few edges, and none was added")
			}
			if r.Arrived < cfg.Viewers || r.Watching < cfg.Viewers*8/10 {
				t.Errorf("%d of %d viewers came, %d watch at the end", r.Arrived, cfg.Viewers, r.Watching)
			}
		})
	}
}

func spread(t *testing.T, r *Report, when string, p95, most float64) {
	t.Helper()
	found := false
	for _, s := range r.Spread {
		if s.When == when && s.Where != "all origins" {
			found = true
			check(t, limit{fmt.Sprintf("%s: p95 of the load of %s, of its mean", when, s.Where), s.P95, p95},
				limit{fmt.Sprintf("%s: the highest load of %s, of its mean", when, s.Where), s.Max, most},
				limit{fmt.Sprintf("%s: the highest load of %s", when, s.Where), s.Max * s.Mean, 1})
		}
	}
	if !found {
		t.Errorf("no spread when %s", when)
	}
}

// TestBudget: the registry's operations for 100 nodes, 1,000 streams and 100,000 viewers, who come and go.
func TestBudget(t *testing.T) {
	t.Parallel()
	r := play(t, Budget())
	check(t, limit{"operations a second, steady", r.Registry.Steady, 200}, limit{"at the start", r.Registry.Start, 600},
		limit{"peak, when an origin dies", r.Registry.Peak, 1500}, limit{"bytes read a second, steady", r.Registry.Bytes, 4e6}, limit{"refused viewers", float64(r.Refused), 0})
	if r.Watching < 95_000 {
		t.Errorf("%d watch, want 100,000", r.Watching)
	}
	if least := 2.0 * 3 * 100 * cluster.RowBytes; r.Registry.Bytes < least || r.Registry.BytesPeak < r.Registry.Bytes {
		t.Errorf("%g bytes read a second, %g at most: the gateways alone read %g", r.Registry.Bytes, r.Registry.BytesPeak, least)
	}
	for _, k := range r.Registry.Kinds {
		if k.Peak == 0 {
			t.Errorf("no %s were counted", k.Kind)
		}
	}
}

// TestTooFew: without enough edges some viewers are refused. The others don't suffer for it.
func TestTooFew(t *testing.T) {
	t.Parallel()
	cfg := Small()
	cfg.Edges, cfg.MaxEdges, cfg.Viewers, cfg.Deaths, cfg.End = 40, 40, 88_000, nil, 330*time.Second
	r := play(t, cfg)
	if r.Refused == 0 || r.Waiting == 0 {
		t.Errorf("%d were refused, %d wait: 88,000 don't fit on 40 edges", r.Refused, r.Waiting)
	}
	spread(t, r, "all are there", 1.1, 1.15)
	for _, s := range r.Spread {
		if s.When == "all are there" && s.Where != "all origins" && s.Mean < 0.75 {
			t.Errorf("%s is at %g while viewers are refused", s.Where, s.Mean)
		}
	}
	check(t, limit{"node-seconds overloaded", r.Overloaded, 0}, limit{"depth", float64(r.DepthMax), 6})
}

// TestCalm: when viewers go, so do edges, and nobody loses his picture by it.
func TestCalm(t *testing.T) {
	t.Parallel()
	cfg := Small()
	cfg.Edges, cfg.Viewers, cfg.Deaths, cfg.Watch, cfg.End = 30, 10_000, nil, 3*time.Minute, 20*time.Minute
	cfg.Flash.Viewers = 1000
	r := play(t, cfg)
	if r.Drained < 5 || r.Booted > r.Drained {
		t.Errorf("%d edges were drained and %d added while the viewers left", r.Drained, r.Booted)
	}
	check(t, limit{"refused viewers", float64(r.Refused), 0}, limit{"viewers without a picture", float64(r.Waiting), 0}, limit{"seconds to join", r.Join.Max, 5})
}

// TestSameSeed: a run can be repeated.
func TestSameSeed(t *testing.T) {
	var runs [][]byte
	for range 2 {
		cfg := Small()
		cfg.Viewers, cfg.Flash.Viewers, cfg.End = 10_000, 1500, 400*time.Second
		r := play(t, cfg)
		r.Wall = 0
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		runs = append(runs, b)
	}
	if !bytes.Equal(runs[0], runs[1]) {
		t.Error("two runs with the same seed differ")
	}
}

// TestLoop: events come in the order of time, and those of one time in the order of asking.
func TestLoop(t *testing.T) {
	var l loop
	var got []int
	for i, at := range []int{5, 1, 5, 3, 9, 1, 7, 3, 2, 5} {
		l.at(time.Duration(at), func() {
			got = append(got, 100*at+i)
			if at == 3 {
				l.at(1, func() { got = append(got, 350) }) // what is past is now
			}
		})
	}
	if err := l.play(t.Context(), 8); err != nil {
		t.Fatal(err)
	}
	if want := []int{101, 105, 208, 303, 307, 350, 350, 500, 502, 509, 706}; !slices.Equal(got, want) || l.now != 8 {
		t.Errorf("got %v at %d, want %v", got, l.now, want)
	}
}

func TestGapTimes(t *testing.T) {
	got := gapTimes([]gap{{4 * time.Second, 1}, {time.Second, 60}, {2 * time.Second, 39}})
	if want := (Times3{Count: 100, P50: 1, P95: 2, Max: 4}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
