package rig

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/internal/config"
)

// watchAt comes to an edge without the gateway, which would put all viewers of a stream on one.
func (c *Cluster) watchAt(id string) (v *Viewer) {
	c.t.Helper()
	c.Poll(10*time.Second, func() (err error) {
		v, err = c.WatchAt(id, stream1)
		return err
	})
	return v
}

// treeOf returns the path of the stream to each edge, and fails when it is none, or when a node has more than fanout children.
func (c *Cluster) treeOf(fanout int, edges ...string) map[string][]string {
	c.t.Helper()
	paths := map[string][]string{}
	c.Poll(5*time.Second, func() error {
		children := map[string]int{}
		for _, id := range edges {
			p := c.Node(id).Path(stream1)
			if len(p) == 0 || slices.Contains(p, id) {
				return fmt.Errorf("%s takes the stream by %v", id, p)
			}
			paths[id] = p
			children[p[len(p)-1]]++
		}
		for id, n := range children {
			if info, _ := c.Node(id).Hub().Info(stream1); n > fanout || info.Relays > fanout {
				return fmt.Errorf("%s has %d children, and serves %d", id, n, info.Relays)
			}
		}
		return nil
	})
	return paths
}

func TestRelayTree(t *testing.T) {
	const fanout = 2
	c := Start(t, Options{Edges: 6, Configure: func(n *config.Node) { n.RelayFanout = fanout }})
	c.publish(stream1)
	edges := []string{"edge-1", "edge-2", "edge-3", "edge-4", "edge-5", "edge-6"}
	viewers := map[string]*Viewer{}
	for _, id := range edges {
		viewers[id] = c.watchAt(id)
	}
	all := func() (list []*Viewer) {
		for _, id := range edges {
			list = append(list, viewers[id])
		}
		return list
	}
	c.More(30, all()...)
	paths := c.treeOf(fanout, edges...)
	middle := ""
	for id, p := range paths {
		if len(p) > 2 {
			t.Errorf("%s takes the stream by %v: 2 levels have room for 6", id, p)
		} else if len(p) == 2 {
			middle = p[1]
		}
	}
	if middle == "" {
		t.Fatalf("no edge takes the stream from another: %v", paths)
	}
	for _, kind := range []string{"killed", "drained"} {
		t.Run(kind, func(t *testing.T) {
			edges = slices.DeleteFunc(edges, func(id string) bool { return id == middle })
			for _, v := range all() {
				v.ResetGap()
			}
			if kind == "killed" {
				c.Kill(middle)
			} else {
				c.Stop(middle)
			}
			c.More(45, all()...)
			paths = c.treeOf(fanout, edges...)
			for _, id := range edges {
				v := viewers[id]
				if err := v.Whole(); err != nil {
					t.Errorf("%s: %v", id, err)
				}
				if gap := v.Gap(); gap > slower*time.Second {
					t.Errorf("a viewer at %s saw nothing for %v", id, gap)
				} else {
					t.Logf("a viewer at %s saw nothing for %v", id, gap)
				}
			}
			for _, p := range paths {
				if len(p) == 2 {
					middle = p[1]
				}
			}
		})
	}
}

func TestRelayRegions(t *testing.T) {
	c := Start(t, Options{Edges: 1, Configure: func(n *config.Node) {
		n.Region = "here"
		if len(n.ID) > 5 && n.ID[:5] == "there" {
			n.Region = "there"
		}
	}})
	c.publish(stream1)
	edges := []string{"there-1", "there-2", "there-3", "edge-1"}
	var viewers []*Viewer
	for _, id := range edges {
		if id != "edge-1" {
			c.Run(cluster.Edge, id)
		}
		viewers = append(viewers, c.watchAt(id))
	}
	c.More(15, viewers...)
	for id, p := range c.treeOf(16, edges...) {
		want := []string{"origin-1", "there-1"}
		if id == "there-1" || id == "edge-1" {
			want = want[:1]
		}
		if !slices.Equal(p, want) {
			t.Errorf("%s takes the stream by %v, want %v", id, p, want)
		}
	}
}
