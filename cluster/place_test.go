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
func memoryUse(x float64) edit    { return func(n *cluster.Node) { n.Memory = x } }
func role(r cluster.Role) edit    { return func(n *cluster.Node) { n.Role = r } }
func draining(n *cluster.Node)    { n.State = cluster.Draining }
func beat(ago time.Duration) edit { return func(n *cluster.Node) { n.LastHeartbeat = now.Add(-ago) } }
func serves(k media.Key, viewers int) edit {
	return func(n *cluster.Node) {
		n.Serving = append(n.Serving, cluster.Serving{Stream: k, Viewers: viewers})
	}
}

func TestPick(t *testing.T) {
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
		{"one origin", []cluster.Node{node("a", role(cluster.Origin))}, nil, "", "a"},
		{"standalone is both", []cluster.Node{node("a", role(cluster.Standalone))}, nil, "a", "a"},
		{"dead and draining ones are no choice", []cluster.Node{
			node("a", beat(cluster.DeadAfter)), node("b", draining),
			node("c", role(cluster.Origin), beat(time.Hour)), node("d", role(cluster.Origin), draining)}, nil, "", ""},
		{"late is not dead", []cluster.Node{node("a", beat(cluster.DeadAfter-time.Millisecond))}, nil, "a", ""},
		{"a clock that is ahead is not dead", []cluster.Node{node("a", beat(-time.Minute))}, nil, "a", ""},
		{"least CPU", []cluster.Node{node("a", cpu(0.5)), node("b", cpu(0.2)), node("c", cpu(0.7))}, nil, "b", ""},
		{"least CPU, origins", []cluster.Node{node("a", role(cluster.Origin), cpu(0.5)), node("b", role(cluster.Origin), cpu(0.2)), node("c")}, nil, "c", "b"},
		{"fewest viewers when the CPU is about equal", []cluster.Node{
			node("a", cpu(0.21), serves(other, 5), serves(key2(1), 5)), node("b", cpu(0.24), serves(other, 9)), node("c", cpu(0.22), serves(other, 30))}, nil, "b", ""},
		{"the edge that has the stream, though busier", []cluster.Node{node("a", cpu(0.1)), node("b", cpu(0.8), serves(key, 500))}, nil, "b", ""},
		{"the less busy of those that have it", []cluster.Node{
			node("a", cpu(0.1)), node("b", cpu(0.8), serves(key, 1)), node("c", cpu(0.6), serves(key, 500))}, nil, "c", ""},
		{"not when its CPU is near the limit", []cluster.Node{node("a", cpu(0.5)), node("b", cpu(0.86), serves(key, 5))}, nil, "a", ""},
		{"not when its memory is near the limit", []cluster.Node{node("a", cpu(0.5)), node("b", memoryUse(0.86), serves(key, 5))}, nil, "a", ""},
		{"no more memory-bound than need be", []cluster.Node{node("a", cpu(0.5)), node("b", memoryUse(0.9))}, nil, "a", ""},
		{"all near the limit: the least loaded", []cluster.Node{node("a", cpu(0.99), serves(key, 5)), node("b", cpu(0.9))}, nil, "b", ""},
		{"an origin that has the stream is no edge", []cluster.Node{node("a"), node("b", role(cluster.Origin), serves(key, 5))}, nil, "a", "b"},
		{"the origin that has the stream", []cluster.Node{
			node("a", role(cluster.Origin)), node("b", role(cluster.Origin), cpu(0.5), serves(key, 0))}, nil, "", "b"},
		{"another origin when that one is near its limit", []cluster.Node{
			node("a", role(cluster.Origin)), node("b", role(cluster.Origin), cpu(0.95), serves(key, 0))}, nil, "", "a"},
		{"an avoided one is passed over", []cluster.Node{node("a", cpu(0.5)), node("b", serves(key, 5))}, map[string]bool{"b": true}, "a", ""},
		{"all avoided", []cluster.Node{node("a"), node("b")}, map[string]bool{"a": true, "b": true}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := cluster.View{Nodes: c.nodes, At: now}
			for range 2 { // the order of the rows is no reason
				edge, ok := cluster.PickEdge(v, key, c.avoid)
				if edge.ID != c.edge || ok != (c.edge != "") {
					t.Errorf("edge %q, %v; want %q", edge.ID, ok, c.edge)
				}
				origin, ok := cluster.PickOrigin(v, key, c.avoid)
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

// Idle edges share the streams about evenly, and a stream's viewers go to one edge.
func TestPickSpreads(t *testing.T) {
	v := cluster.View{At: now, Nodes: []cluster.Node{node("edge-1"), node("edge-2"), node("edge-3"), node("edge-4")}}
	got := map[string]int{}
	for i := range 1000 {
		n, _ := cluster.PickEdge(v, key2(i), nil)
		again, _ := cluster.PickEdge(v, key2(i), nil)
		if n.ID != again.ID {
			t.Fatalf("stream %d goes to %s, then to %s", i, n.ID, again.ID)
		}
		got[n.ID]++
	}
	for _, n := range v.Nodes {
		if share := got[n.ID]; share < 200 || share > 300 {
			t.Errorf("%s got %d of 1000 streams, want about 250", n.ID, share)
		}
	}
}

func TestNode(t *testing.T) {
	n := node("a", serves(key, 3), serves(key2(1), 4))
	if n.Viewers() != 7 || !n.Serves(key) || n.Serves(key2(2)) {
		t.Errorf("viewers %d, serves %v and %v; want 7, true, false", n.Viewers(), n.Serves(key), n.Serves(key2(2)))
	}
}
