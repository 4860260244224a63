package cluster

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"sluice/media"
)

// group is a made-up cluster of edges, seen once a second.
type group struct {
	t     *testing.T
	s     *Scaler
	at    time.Time
	nodes []Node
	sig   Signal
	moves []string // each change of Desired, with when
}

func newGroup(t *testing.T, cfg ScaleConfig, nodes int) *group {
	g := &group{t: t, s: NewScaler(cfg), at: time.Unix(1_000_000, 0)}
	for range nodes {
		g.add()
	}
	g.sig.Desired = nodes
	return g
}

func (g *group) add() {
	g.nodes = append(g.nodes, Node{ID: fmt.Sprintf("edge-%d", len(g.nodes)+1), Role: Edge, State: Ready})
}

// load gives each node this load and the viewers that it is of: 200 are a whole node.
func (g *group) load(loads ...float64) {
	for i := range g.nodes {
		g.nodes[i].CPU = loads[min(i, len(loads)-1)]
		g.nodes[i].Load = g.nodes[i].CPU
		g.nodes[i].Serving = []Serving{{Stream: media.Key{App: "live", ID: "a"}, Viewers: int(200 * g.nodes[i].CPU)}}
	}
}

// run lets time pass; each, if any, sets the loads for a second.
func (g *group) run(d time.Duration, each func(second float64)) *group {
	g.t.Helper()
	for i := range int(d / time.Second) {
		g.at = g.at.Add(time.Second)
		if each != nil {
			each(float64(i))
		}
		for i := range g.nodes {
			if g.nodes[i].PID >= 0 { // else dead
				g.nodes[i].LastHeartbeat = g.at
			}
		}
		was := g.sig.Desired
		for _, s := range g.s.Observe(View{Nodes: g.nodes, At: g.at}) {
			if s.Role == Edge {
				g.sig = s
			}
		}
		if g.sig.Desired != was {
			g.moves = append(g.moves, fmt.Sprintf("%ds: %d (%s)", i, g.sig.Desired, g.sig.Reason))
		}
	}
	return g
}

func (g *group) want(desired int, reason string) {
	g.t.Helper()
	if g.sig.Desired != desired || !strings.Contains(g.sig.Reason, reason) {
		g.t.Errorf("%d are wanted: %q\nshould be %d: %q\nchanges: %s", g.sig.Desired, g.sig.Reason, desired, reason, strings.Join(g.moves, "\n\t"))
	}
}

func TestScalerGrows(t *testing.T) {
	for _, tc := range []struct {
		name    string
		loads   []float64 // before
		after   []float64 // from then on
		for_    time.Duration
		desired int
		reason  string
	}{
		{"steady below the target", []float64{0.5}, []float64{0.5}, 10 * time.Minute, 2, "1 would not stay well below"},
		{"steady above the target, not yet for long", []float64{0.5}, []float64{0.7}, 2 * time.Minute, 2, ""},
		{"steady above the target, for long", []float64{0.5}, []float64{0.7}, 6 * time.Minute, 3, "70 % over 5m0s: 3 are needed for 60 %"},
		{"a step to what is nearly full is told within half a minute", []float64{0.3}, []float64{0.95}, 30 * time.Second, 4, "needed for 60 %"},
		{"a short peak", []float64{0.4}, []float64{0.7, 0.4}, time.Minute, 2, ""},
		{"one at 100 %, one idle", []float64{1, 0.05}, []float64{1, 0.05}, 10 * time.Minute, 2, "(edge-1 at 100 %, the others have room)"},
		{"both full for long", []float64{1}, []float64{1}, 10 * time.Minute, 4, "needed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newGroup(t, ScaleConfig{}, 2)
			g.load(tc.loads...)
			g.run(5*time.Minute-10*time.Second, nil)
			g.load(tc.after...)
			g.run(tc.for_, nil).want(tc.desired, tc.reason)
		})
	}
}

// TestScalerSeesARamp: the more steeply viewers come, the sooner; with the noise of real figures.
func TestScalerSeesARamp(t *testing.T) {
	g := newGroup(t, ScaleConfig{}, 2)
	random := rand.New(rand.NewPCG(1, 2))
	viewers := 100.0
	noisy := func(perSecond float64) func(float64) {
		return func(float64) {
			viewers += perSecond
			each := viewers / float64(len(g.nodes))
			for i := range g.nodes {
				g.nodes[i].Load = min(1, max(0, 0.05+each*0.002+0.02*random.NormFloat64()))
				g.nodes[i].Serving = []Serving{{Viewers: int(each)}}
			}
		}
	}
	g.run(20*time.Minute, noisy(0)).want(1, "1 are enough")
	g.moves = nil
	g.run(70*time.Second, noisy(2)).want(2, "") // to 240, 0.29 each
	g.nodes = g.nodes[:2]
	g.run(90*time.Second, noisy(6)).want(g.sig.Desired, "viewers in 1m0s as they come")
	// 780 viewers, 360 more in a minute, 275 to a node of 60 %: 5 nodes.
	if g.sig.Desired < 4 || g.sig.Desired > 6 {
		t.Errorf("%d are wanted: %s", g.sig.Desired, g.sig.Reason)
	}
	if math.Abs(g.sig.PerViewer-0.002) > 0.0005 || g.sig.Predicted < g.sig.Viewers+250 || g.sig.Predicted > g.sig.Viewers+450 {
		t.Errorf("a viewer costs %.5f, %d of %d are foreseen", g.sig.PerViewer, g.sig.Predicted, g.sig.Viewers)
	}
}

func TestScalerShrinksOneAtATime(t *testing.T) {
	g := newGroup(t, ScaleConfig{}, 5)
	g.load(0.55)
	g.run(6*time.Minute, nil).want(5, "")
	g.load(0.1)
	g.run(4*time.Minute, nil).want(5, "")
	g.run(6*time.Minute, nil).want(4, "2 are enough, for 5m0s already")

	// The one that goes drains; while it does, and for a window after, no other goes.
	g.nodes[4].State = Draining
	g.run(8*time.Minute, nil).want(4, "1 still drain")
	g.nodes = g.nodes[:4]
	g.run(4*time.Minute, nil).want(4, "one may go after 5m0s without a change")
	g.run(90*time.Second, nil).want(3, "enough")
	for len(g.nodes) > g.sig.Desired {
		g.nodes = g.nodes[:g.sig.Desired]
		g.run(6*time.Minute, nil)
	}
	g.want(1, "as few as may be") // 0.1 of it
	for _, m := range g.moves {
		if strings.Contains(m, " 5 (") || strings.Contains(m, "wants") {
			t.Error(m)
		}
	}
}

// TestScalerDoesNotFlap: a load that swings around the target changes nothing twice.
func TestScalerDoesNotFlap(t *testing.T) {
	for _, period := range []float64{5, 20, 240, 900} {
		t.Run(fmt.Sprint(period), func(t *testing.T) {
			g := newGroup(t, ScaleConfig{}, 4)
			ups, downs := 0, 0
			demand := func(s float64) float64 { return 2.3 + 0.4*math.Sin(2*math.Pi*s/period) } // 0.48 to 0.68 of four
			second := 0.0
			for range 120 {
				g.run(time.Minute, func(float64) { second++; g.load(min(1, demand(second)/float64(len(g.nodes)))) })
				switch {
				case g.sig.Desired > len(g.nodes):
					ups++
					g.add()
				case g.sig.Desired < len(g.nodes):
					downs++
					g.nodes = g.nodes[:len(g.nodes)-1]
				}
			}
			if ups > 2 || downs > 0 {
				t.Errorf("%d up, %d down in two hours:\n\t%s", ups, downs, strings.Join(g.moves, "\n\t"))
			}
		})
	}
}

func TestScalerCountsOnlyWhoWorks(t *testing.T) {
	t.Run("a dead node", func(t *testing.T) {
		g := newGroup(t, ScaleConfig{}, 3)
		g.load(0.55)
		g.run(6*time.Minute, nil)
		g.nodes[2].PID = -1
		g.nodes[0].Load, g.nodes[1].Load = 0.825, 0.825 // its viewers went to the others
		g.run(15*time.Second, nil)
		if g.sig.Nodes != 2 {
			t.Errorf("%d nodes", g.sig.Nodes)
		}
		g.want(3, "3 are needed") // the window has seen what they carry; nobody waits five minutes
	})
	t.Run("a draining node's load comes to the others", func(t *testing.T) {
		g := newGroup(t, ScaleConfig{}, 3)
		g.load(0.55)
		g.run(6*time.Minute, nil)
		g.nodes[2].State = Draining
		g.run(15*time.Second, nil).want(3, "2 ready at 82 %")
		if g.sig.Draining != 1 {
			t.Errorf("%d drain", g.sig.Draining)
		}
	})
	t.Run("nobody is left", func(t *testing.T) {
		g := newGroup(t, ScaleConfig{Min: 2}, 2)
		g.load(0.1)
		g.run(time.Minute, nil)
		g.nodes[0].PID, g.nodes[1].PID = -1, -1
		g.run(20*time.Second, nil).want(2, "no edge is ready")
	})
	t.Run("full for another reason", func(t *testing.T) {
		g := newGroup(t, ScaleConfig{}, 1)
		g.load(0.2)
		g.nodes[0].Full = "90 % of the memory is in use"
		g.run(time.Minute, nil).want(2, "1 ready at 85 %")
	})
}

// TestScalerHolds: whoever makes as many replicas as are desired loses none by a node that drains or dies, and gets none by a
// rolling replacement.
func TestScalerHolds(t *testing.T) {
	drain := func(g *group, n int) {
		for i := range n {
			g.nodes[i].State = Draining
		}
	}
	for _, tc := range []struct {
		name string
		then func(g *group)
	}{
		{"one drains and leaves", func(g *group) {
			drain(g, 1)
			g.run(time.Minute, nil)
			g.nodes = g.nodes[1:]
			g.run(10*time.Minute, nil)
		}},
		{"three drain", func(g *group) { drain(g, 3); g.run(10*time.Minute, nil) }},
		{"one dies", func(g *group) { g.nodes[0].PID = -1; g.run(10*time.Minute, nil) }},
		{"one dies and is replaced", func(g *group) {
			g.nodes[0].PID = -1
			g.run(time.Minute, nil)
			g.add()
			g.nodes[10].Load = 0.5
			g.run(10*time.Minute, nil)
		}},
		{"each is replaced, the new one is there first", func(g *group) {
			for range 10 {
				g.add()
				g.nodes[len(g.nodes)-1].Load = 0.5
				g.run(2*time.Second, nil)
				drain(g, 1)
				g.run(20*time.Second, nil)
				g.nodes = g.nodes[1:]
			}
			g.run(10*time.Minute, nil)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newGroup(t, ScaleConfig{}, 10)
			g.load(0.5)
			g.run(400*time.Second, nil).want(10, "9 would not stay well below")
			g.moves = nil
			if tc.then(g); len(g.moves) > 0 {
				t.Errorf("changes: %s", strings.Join(g.moves, "\n\t"))
			}
		})
	}
	t.Run("a gateway begins while one drains and one is dead", func(t *testing.T) {
		g := newGroup(t, ScaleConfig{}, 10)
		g.load(0.5)
		drain(g, 1)
		g.nodes[1].PID, g.nodes[1].LastHeartbeat = -1, g.at.Add(-time.Minute)
		g.run(10*time.Minute, nil).want(10, "")
	})
	t.Run("a cluster starts, and some are added later", func(t *testing.T) {
		g := newGroup(t, ScaleConfig{}, 1)
		g.load(0.5)
		for range 4 {
			g.run(time.Second, nil)
			g.add()
			g.load(0.5)
		}
		g.run(6*time.Minute, nil).want(5, "")
		g.add()
		g.load(0.5)
		g.run(time.Minute, nil).want(6, "")
	})
	t.Run("nobody takes the one that may go", func(t *testing.T) {
		g := newGroup(t, ScaleConfig{}, 5)
		g.load(0.1)
		g.run(time.Hour, nil).want(4, "enough")
		g.load(0.5)
		g.run(time.Minute, nil).want(5, "4 would not stay well below")
	})
	t.Run("one that is not replaced is not needed", func(t *testing.T) {
		g := newGroup(t, ScaleConfig{}, 5)
		g.load(0.1)
		g.run(time.Minute, nil)
		g.nodes[0].PID = -1
		g.run(4*time.Minute, nil).want(5, "one may go after")
		g.run(2*time.Minute, nil).want(4, "")
	})
}

// TestScalerWithoutData: what is not known changes nothing.
func TestScalerWithoutData(t *testing.T) {
	g := newGroup(t, ScaleConfig{}, 3)
	g.load(0.05)
	g.run(4*time.Minute, nil).want(3, "one may go after")
	before := g.sig
	for range 10 { // the registry is away: the view's time stands still
		if got := g.s.Observe(View{Nodes: g.nodes, At: g.at}); got[0] != before {
			t.Errorf("%+v", got[0])
		}
	}
	g.at = g.at.Add(10 * time.Minute)
	g.run(4*time.Minute, nil).want(3, "") // it begins to count again
	g.run(2*time.Minute, nil).want(2, "enough")
	if got := NewScaler(ScaleConfig{}).Observe(View{}); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestScalerLimits(t *testing.T) {
	g := newGroup(t, ScaleConfig{Min: 2, Max: 3}, 2)
	g.load(0.01)
	g.run(20*time.Minute, nil).want(2, "as few as may be")
	g.load(1)
	g.run(2*time.Minute, nil).want(3, "the most is 3")
	g.nodes = nil
	g.run(time.Minute, nil).want(3, "no edge is ready") // and soon as many come back as were needed
}

// TestScalerGroups: roles and regions are apart, and a group that has gone is forgotten.
func TestScalerGroups(t *testing.T) {
	s, at := NewScaler(ScaleConfig{Window: time.Minute}), time.Unix(1_000_000, 0)
	nodes := []Node{
		{ID: "a", Role: Edge, State: Ready, Region: "eu", Load: 0.9}, {ID: "b", Role: Edge, State: Ready, Region: "us", Load: 0.1},
		{ID: "c", Role: Origin, State: Ready, Region: "eu"},
	}
	var got []Signal
	for range 90 {
		at = at.Add(time.Second)
		for i := range nodes {
			nodes[i].LastHeartbeat = at
		}
		got = s.Observe(View{Nodes: nodes, At: at})
	}
	var text []string
	for _, g := range got {
		text = append(text, fmt.Sprint(g.Role, " ", g.Region, " ", g.Nodes, " ", g.Desired))
	}
	if want := "edge eu 1 2, edge us 1 1, origin eu 1 1"; strings.Join(text, ", ") != want {
		t.Errorf("got %s, want %s", strings.Join(text, ", "), want)
	}
	for range 70 {
		at = at.Add(time.Second)
		got = s.Observe(View{At: at})
	}
	if len(got) != 0 {
		t.Errorf("still there: %+v", got)
	}
}

// BenchmarkScaler: a look at 1,000 edges with ten streams each.
func BenchmarkScaler(b *testing.B) {
	s, at := NewScaler(ScaleConfig{}), time.Unix(1_000_000, 0)
	nodes := make([]Node, 1000)
	for i := range nodes {
		nodes[i] = Node{ID: fmt.Sprint(i), Role: Edge, State: Ready, Load: 0.5, Serving: make([]Serving, 10)}
	}
	for b.Loop() {
		at = at.Add(time.Second)
		for i := range nodes {
			nodes[i].LastHeartbeat = at
		}
		s.Observe(View{Nodes: nodes, At: at})
	}
}
