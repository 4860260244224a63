package cluster_test

import (
	"fmt"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/media"
)

var (
	now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	key = media.Key{App: "live", ID: "s"}
)

// node is a ready edge whose heartbeat is fresh, changed by edits.
func node(id string, edits ...func(*cluster.Node)) cluster.Node {
	n := cluster.Node{ID: id, Role: cluster.Edge, State: cluster.Ready, LastHeartbeat: now.Add(-time.Second)}
	for _, e := range edits {
		e(&n)
	}
	return n
}

type edit = func(*cluster.Node)

func cpu(x float64) edit          { return func(n *cluster.Node) { n.CPU = x } }
func load(x float64) edit         { return func(n *cluster.Node) { n.Load = x } }
func role(r cluster.Role) edit    { return func(n *cluster.Node) { n.Role = r } }
func full(n *cluster.Node)        { n.Full = "no memory" }
func draining(n *cluster.Node)    { n.State = cluster.Draining }
func beat(ago time.Duration) edit { return func(n *cluster.Node) { n.LastHeartbeat = now.Add(-ago) } }
func serves(k media.Key, viewers int) edit {
	return func(n *cluster.Node) {
		n.Serving = append(n.Serving, cluster.Serving{Stream: k, Viewers: viewers})
	}
}

func near(n *cluster.Node)     { n.Region = "here" }
func far(n *cluster.Node)      { n.Region = "there" }
func isOrigin(n *cluster.Node) { n.Role = cluster.Origin }

// placer has seen a view.
func placer(r cluster.Role, v cluster.View) *cluster.Placer {
	p := cluster.NewPlacer(r, "here", 1, func() time.Time { return now })
	p.Show(v)
	return p
}

func TestPlace(t *testing.T) {
	other := media.Key{App: "live", ID: "other"}
	for _, c := range []struct {
		name   string
		nodes  []cluster.Node
		avoid  map[string]bool
		edge   string // "" is none
		origin string
	}{
		{"nobody", nil, nil, "", ""},
		{"one edge", []cluster.Node{node("a")}, nil, "a", ""},
		{"one origin", []cluster.Node{node("a", isOrigin)}, nil, "", "a"},
		{"standalone is both", []cluster.Node{node("a", role(cluster.Standalone))}, nil, "a", "a"},
		{"dead and draining ones are no choice", []cluster.Node{
			node("a", beat(cluster.DeadAfter)), node("b", draining),
			node("c", isOrigin, beat(time.Hour)), node("d", isOrigin, draining)}, nil, "", ""},
		{"late is not dead", []cluster.Node{node("a", beat(cluster.DeadAfter-time.Millisecond))}, nil, "a", ""},
		{"a clock that is ahead is not dead", []cluster.Node{node("a", beat(-time.Minute))}, nil, "a", ""},
		{"least CPU", []cluster.Node{node("a", cpu(0.5)), node("b", cpu(0.2)), node("c", cpu(0.7))}, nil, "b", ""},
		{"least CPU, origins", []cluster.Node{node("a", isOrigin, cpu(0.5)), node("b", isOrigin, cpu(0.2)), node("c")}, nil, "c", "b"},
		{"the edge that has the stream, though busier", []cluster.Node{node("a", cpu(0.3)), node("b", cpu(0.4), serves(key, 500))}, nil, "b", ""},
		{"not when it is far busier than its region", []cluster.Node{node("a", cpu(0.1)), node("b", cpu(0.6), serves(key, 500))}, nil, "a", ""},
		{"the less busy of those that have it", []cluster.Node{
			node("a", cpu(0.1)), node("b", cpu(0.4), serves(key, 1)), node("c", cpu(0.3), serves(key, 500))}, nil, "c", ""},
		{"not when its CPU is near the limit", []cluster.Node{node("a", cpu(0.84)), node("b", cpu(0.86), serves(key, 5))}, nil, "a", ""},
		{"not when its network is near the limit", []cluster.Node{node("a", cpu(0.5)), node("b", cpu(0.2), load(0.86), serves(key, 5))}, nil, "a", ""},
		{"not when it says that it is full", []cluster.Node{node("a", cpu(0.5)), node("b", full, serves(key, 5))}, nil, "a", ""},
		{"all near the limit: the least loaded", []cluster.Node{node("a", cpu(0.99), serves(key, 5)), node("b", cpu(0.9))}, nil, "b", ""},
		{"one of the region rather than one that has it elsewhere", []cluster.Node{node("a", near, cpu(0.5)), node("b", far, serves(key, 5))}, nil, "a", ""},
		{"one elsewhere that has it when the region is full", []cluster.Node{
			node("a", near, cpu(0.86)), node("b", far, cpu(0.2)), node("c", far, cpu(0.3), serves(key, 5))}, nil, "c", ""},
		{"one elsewhere when the region is gone", []cluster.Node{node("a", near, beat(time.Hour)), node("b", far)}, nil, "b", ""},
		{"all are full: the least, wherever", []cluster.Node{node("a", near, cpu(0.95)), node("b", far, cpu(0.9))}, nil, "b", ""},
		{"all are full: one that has it rather than one that is hardly less so", []cluster.Node{node("a", near, cpu(0.95)), node("b", far, cpu(0.97), serves(key, 5))}, nil, "b", ""},
		{"an origin that has the stream is no edge", []cluster.Node{node("a"), node("b", isOrigin, serves(key, 5))}, nil, "a", "b"},
		{"the origin that has the stream", []cluster.Node{node("a", isOrigin), node("b", isOrigin, cpu(0.7), serves(key, 0))}, nil, "", "b"},
		{"another origin when that one is near its limit", []cluster.Node{node("a", isOrigin), node("b", isOrigin, cpu(0.95), serves(key, 0))}, nil, "", "a"},
		{"the origin that has the stream, elsewhere", []cluster.Node{node("a", isOrigin, near), node("b", isOrigin, far, serves(key, 0))}, nil, "", "b"},
		{"the least loaded origin of the region", []cluster.Node{
			node("a", isOrigin, near, cpu(0.6)), node("b", isOrigin, near, cpu(0.4), serves(other, 0)), node("c", isOrigin, far)}, nil, "", "b"},
		{"an avoided one is passed over", []cluster.Node{node("a", cpu(0.5)), node("b", serves(key, 5))}, map[string]bool{"b": true}, "a", ""},
		{"all avoided", []cluster.Node{node("a"), node("b")}, map[string]bool{"a": true, "b": true}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := cluster.View{Nodes: c.nodes, At: now}
			for range 2 { // the order of the rows is no reason
				edge, ok := placer(cluster.Edge, v).Place(key, c.avoid)
				if edge.ID != c.edge || ok != (c.edge != "") {
					t.Errorf("edge %q, %v; want %q", edge.ID, ok, c.edge)
				}
				origin, ok := placer(cluster.Origin, v).Place(key, c.avoid)
				if origin.ID != c.origin || ok != (c.origin != "") {
					t.Errorf("origin %q, %v; want %q", origin.ID, ok, c.origin)
				}
				turned := make([]cluster.Node, 0, len(v.Nodes))
				for i := range v.Nodes {
					turned = append(turned, v.Nodes[len(v.Nodes)-1-i])
				}
				v.Nodes = turned
			}
		})
	}
}

func key2(i int) media.Key { return media.Key{App: "live", ID: fmt.Sprintf("stream%d", i)} }

// fleet is a view of idle edges, or of such that are as busy as said.
func fleet(n int, edits ...edit) cluster.View {
	v := cluster.View{At: now}
	for i := range n {
		v.Nodes = append(v.Nodes, node(fmt.Sprintf("edge-%d", i), edits...))
	}
	return v
}

// Idle edges share the streams about evenly, and gateways that don't know of each other choose the same one for a stream.
func TestPlaceAgrees(t *testing.T) {
	for _, nodes := range []int{4, 100} {
		v := fleet(nodes)
		one, two := placer(cluster.Edge, v), placer(cluster.Edge, v)
		got, same := map[string]int{}, 0
		for i := range 1000 {
			a, _ := one.Place(key2(i), nil)
			b, _ := two.Place(key2(i), nil)
			if got[a.ID]++; a.ID == b.ID {
				same++
			}
		}
		if same < 900 {
			t.Errorf("%d nodes: the gateways agree on %d of 1000 streams", nodes, same)
		}
		mean := 1000 / nodes
		for _, n := range v.Nodes {
			if got[n.ID] > 2*mean || 2*got[n.ID] < mean && nodes < 10 {
				t.Errorf("%d nodes: %s got %d streams, the mean is %d", nodes, n.ID, got[n.ID], mean)
			}
		}
	}
}

// A burst comes within one view's age. It stays together when it is small, and spreads when it is not.
func TestPlaceBurst(t *testing.T) {
	for _, c := range []struct {
		name            string
		nodes, gateways int
		view            []edit
		viewers         int // of one stream
		least, most     int // nodes that get some
		share           float64
	}{
		{"a small stream has one edge", 100, 1, nil, 30, 1, 1, 1},
		{"for all gateways", 100, 3, nil, 60, 1, 3, 1},
		{"more viewers have more edges", 100, 1, nil, 400, 3, 20, 0.5},
		{"a flash crowd has many, and gateways don't run to the same ones", 100, 4, []edit{cpu(0.4), serves(key2(0), 1000)}, 4500, 8, 60, 0.25},
		{"it has all when it must", 20, 4, []edit{cpu(0.6), serves(key2(0), 1200)}, 9000, 18, 20, 0.1},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := fleet(c.nodes, c.view...)
			var gateways []*cluster.Placer
			for i := range c.gateways {
				p := cluster.NewPlacer(cluster.Edge, "", uint64(i), func() time.Time { return now })
				p.Show(v)
				gateways = append(gateways, p)
			}
			got := map[string]int{}
			for i := range c.viewers {
				n, _ := gateways[i%c.gateways].Place(key, nil)
				got[n.ID]++
			}
			most := 0
			for _, n := range got {
				most = max(most, n)
			}
			if len(got) < c.least || len(got) > c.most || float64(most) > c.share*float64(c.viewers) {
				t.Errorf("%d nodes, %d at most, want %d to %d nodes and no more than %.0f: %v",
					len(got), most, c.least, c.most, c.share*float64(c.viewers), got)
			}
		})
	}
}

// What a gateway placed counts until its row has it.
func TestPlaceForgets(t *testing.T) {
	clock := now
	p := cluster.NewPlacer(cluster.Edge, "", 1, func() time.Time { return clock })
	p.Show(fleet(2))
	for range 10 {
		p.Place(key, map[string]bool{"edge-1": true})
	}
	share := func(of int) (got int) { // how many of so many get edge-0
		for range of {
			if n, _ := p.Find(media.Key{}, nil); n.ID == "edge-0" {
				got++
			}
		}
		return got
	}
	for _, c := range []struct {
		name    string
		beat    time.Duration // when the rows are written
		viewers int           // that the row of edge-0 has
		load    float64
		least   int
		most    int
	}{
		{"no row since", -time.Second, 0, 0, 0, 0},
		{"a row that is too young to have them", 500 * time.Millisecond, 0, 0, 0, 0},
		{"a row that has them, but not their load", time.Second, 10, 0, 0, 0},
		{"a row that has their load", 30 * time.Second, 10, 0.01, 0, 0},
		{"a row without them: they didn't stay", 31 * time.Second, 0, 0, 20, 80},
	} {
		clock = now.Add(max(0, c.beat))
		v := fleet(2, func(n *cluster.Node) { n.LastHeartbeat = now.Add(c.beat) })
		v.At = clock
		v.Nodes[0].Serving, v.Nodes[0].Load = []cluster.Serving{{Stream: key, Viewers: c.viewers}}, c.load
		p.Show(v)
		if n := share(100); n < c.least || n > c.most {
			t.Errorf("%s: %d of 100 go to it, want %d to %d", c.name, n, c.least, c.most)
		}
	}
	if n, ok := p.Find(key, map[string]bool{"edge-0": true, "edge-1": true}); ok {
		t.Errorf("found %q among the avoided", n.ID)
	}
}

// Draining nodes answer requests that leave nothing behind, and take no session.
func TestFindDraining(t *testing.T) {
	p := placer(cluster.Edge, fleet(1, draining))
	if _, ok := p.Place(key, nil); ok || p.Ready() {
		t.Error("a draining node takes a session")
	}
	if n, ok := p.Find(key, nil); !ok || n.ID != "edge-0" {
		t.Errorf("found %q, %v", n.ID, ok)
	}
}

// 1,000 nodes, 10,000 streams, and one that is everywhere.
func benchmarkView() cluster.View {
	v := fleet(1000, cpu(0.4), serves(key, 100))
	for i := range 30000 {
		n := &v.Nodes[i%1000]
		n.Serving = append(n.Serving, cluster.Serving{Stream: key2(i % 10000), Viewers: 30})
	}
	return v
}

func BenchmarkPlace(b *testing.B) {
	v := benchmarkView()
	for _, c := range []struct {
		name string
		key  func(i int) media.Key
	}{
		{"stream of 3 nodes", func(i int) media.Key { return key2(i % 10000) }},
		{"stream of all", func(int) media.Key { return key }},
		{"new stream", func(i int) media.Key { return media.Key{App: "live", ID: "new" + string(rune('a'+i%26))} }},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := placer(cluster.Edge, v)
			for i := 0; b.Loop(); i++ {
				if i%1500 == 0 { // a view's worth at 3,000 a second
					b.StopTimer()
					p = placer(cluster.Edge, v)
					b.StartTimer()
				}
				p.Place(c.key(i), nil)
			}
		})
	}
}

func BenchmarkShow(b *testing.B) {
	v := benchmarkView()
	p := placer(cluster.Edge, v)
	for b.Loop() {
		p.Show(v)
	}
}

func TestNode(t *testing.T) {
	n := node("a", serves(key, 3), serves(key2(1), 4))
	if n.Viewers() != 7 || !n.Serves(key) || n.Serves(key2(2)) {
		t.Errorf("viewers %d, serves %v and %v; want 7, true, false", n.Viewers(), n.Serves(key), n.Serves(key2(2)))
	}
}
