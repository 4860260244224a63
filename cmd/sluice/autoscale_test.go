package main

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sluice/cluster"
	"sluice/cluster/sqlite"
	"sluice/internal/config"
	"sluice/media"
)

func TestBareAutoscale(t *testing.T) {
	for _, tc := range []struct{ name, args, want string }{
		{"last", "up --autoscale", "up --autoscale=auto"},
		{"before a flag", "up --autoscale --edges 3", "up --autoscale=auto --edges 3"},
		{"with a value", "up --autoscale=1-4", "up --autoscale=1-4"},
		{"with a value apart", "up --autoscale 1-4", "up --autoscale 1-4"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := strings.Join(bareAutoscale(strings.Fields(tc.args)), " "); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// TestCores: nodes that share a machine count their own work, of a share, and not what the others do.
func TestCores(t *testing.T) {
	machine := float64(runtime.NumCPU())
	for _, tc := range []struct {
		name         string
		up           config.Up
		origin, edge float64
	}{
		{"one of each", config.Up{Origins: 1, Edges: 1}, machine, machine},
		{"several", config.Up{Origins: 2, Edges: 4}, machine / 2, machine / 4},
		{"autoscale", config.Up{Origins: 1, Edges: 2, Autoscale: "1-3"}, machine, machine / 3},
		{"given", config.Up{Origins: 1, Edges: 2, Autoscale: "1-3", EdgeCores: 0.2}, machine, 0.2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := &up{cmd: &upCmd{Up: tc.up}, p: &process{config: config.Default()}, home: home{dir: t.TempDir()}}
			u.parts()
			seen := map[cluster.Role]int{}
			for _, c := range u.nodes {
				role, want := cluster.Origin, tc.origin
				if strings.HasPrefix(c.name, "edge-") {
					role, want = cluster.Edge, tc.edge
				}
				seen[role]++
				if !slices.Contains(c.args, fmt.Sprint("--limits-cores=", want)) {
					t.Errorf("%s counts not %g processors: %q", c.name, want, c.args)
				}
			}
			if seen[cluster.Origin] == 0 || seen[cluster.Edge] == 0 {
				t.Errorf("nodes %v", seen)
			}
		})
	}
}

// flockOf is a flock of so many edges whose processes sleep, and whose rows the test writes.
func flockOf(t *testing.T, edges int) (*flock, *output) {
	t.Helper()
	dir, out := t.TempDir(), &output{}
	reg, err := sqlite.Open(t.Context(), filepath.Join(dir, registryFile))
	if err != nil {
		t.Fatal(err)
	}
	u := &up{cmd: &upCmd{Up: config.Up{Edges: edges, Autoscale: fmt.Sprint(edges, "-", edges+1)}}, reg: reg, p: &process{out: out, config: config.Default()}}
	f := &flock{u: u, going: map[*child]cluster.Order{}, make: func(i int) *child {
		name := fmt.Sprint("edge-", i)
		return &child{name: name, exe: "/bin/sleep", args: []string{"1000"}, log: filepath.Join(dir, name), logSize: 1e6, say: u.say}
	}}
	ctx, cancel := context.WithCancel(t.Context())
	for _, c := range f.begin() {
		f.start(ctx, c)
	}
	t.Cleanup(func() {
		cancel()
		f.group.Wait()
		_ = reg.Close()
	})
	return f, out
}

// join writes an edge's row as a process does that joins, and returns all rows.
func (f *flock) join(t *testing.T, id string, pid int, viewers int) []cluster.Node {
	t.Helper()
	n := cluster.Node{ID: id, Role: cluster.Edge, State: cluster.Ready, PID: pid, Session: int64(pid), Serving: []cluster.Serving{{Stream: media.Key{App: "live", ID: "s"}, Viewers: viewers}}}
	if err := f.u.reg.Join(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	return f.rows(t)
}

func (f *flock) rows(t *testing.T) []cluster.Node {
	t.Helper()
	nodes, err := f.u.reg.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}

// TestFlockLetsOneGo: an edge that must go is known until its process is gone, is ordered again when it has joined again, and does not
// come back when it dies.
func TestFlockLetsOneGo(t *testing.T) {
	f, out := flockOf(t, 2)
	edges := f.list()
	var pid int
	eventually(t, func() string {
		if pid, _, _ = edges[1].state(); pid == 0 {
			return "edge-2 runs"
		}
		return ""
	})
	f.join(t, "edge-1", 11, 5)
	nodes := f.join(t, "edge-2", 12, 3)
	one := cluster.Signal{Role: cluster.Edge, Nodes: 2, Desired: 1}
	f.act(t.Context(), one, nodes)
	ordered := func() bool {
		rows := f.rows(t)
		return rows[slices.IndexFunc(rows, func(n cluster.Node) bool { return n.ID == "edge-2" })].Order.Drain
	}
	if !ordered() || len(f.list()) != 2 || len(f.staying()) != 1 {
		t.Fatalf("ordered: %v; edges %d, of which %d stay: %s", ordered(), len(f.list()), len(f.staying()), out.String())
	}

	nodes = f.join(t, "edge-2", 13, 3) // it was fenced
	f.remind(t.Context(), nodes)
	if !ordered() {
		t.Error("the order is lost")
	}
	f.act(t.Context(), one, nodes) // it does not say yet that it drains
	if stays := f.staying(); len(stays) != 1 {
		t.Errorf("%d edges stay: %s", len(stays), out.String())
	}

	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if n := len(f.list()); n != 1 {
			return fmt.Sprintf("edge-2 is forgotten: %d edges: %s", n, out.String())
		}
		return ""
	})
	f.act(t.Context(), cluster.Signal{Role: cluster.Edge, Nodes: 1, Desired: 2}, nodes[:1])
	if list := f.list(); len(list) != 2 || list[1].name != "edge-3" {
		t.Errorf("edges: %+v", list)
	}
	if said := out.String(); !strings.Contains(said, "edge-2 was to drain and died (signal: killed); it does not start again\n") || strings.Contains(said, "starts again in") {
		t.Errorf("said: %s", said)
	}
}
