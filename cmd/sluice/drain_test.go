package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/cluster/sqlite"
)

// TestDrainAndUp: a node that is drained leaves, and up does not start it again.
func TestDrainAndUp(t *testing.T) {
	c := startUp(t, filepath.Join(t.TempDir(), "cluster"), asSluice+"=real")
	c.waitReady()
	var edge nodeRow
	for _, n := range c.nodes() {
		if n.ID == "edge-1" {
			edge = n
		}
	}
	out := ask(t, "drain", "edge-1", "--dir="+c.dir)
	if !strings.HasPrefix(out, "edge-1 drains: 0 viewers, 0 streams; it ends within 5m0s") || !strings.Contains(out, "edge-1 is empty and has left after ") {
		t.Errorf("it says\n%s", out)
	}
	eventually(t, func() string {
		if !gone(edge.PID) || !strings.Contains(c.out.String(), "edge-1 was drained and has left") {
			return "gone and told: " + c.out.String()
		}
		return ""
	})
	if rows := c.nodes(); len(rows) != 2 || strings.Contains(c.out.String(), "died") {
		t.Errorf("left are %+v, and up said\n%s", rows, c.out.String())
	}
}

// TestDrainCommand: what it says, and what stands in the registry after it.
func TestDrainCommand(t *testing.T) {
	path := filepath.Join(t.TempDir(), registryFile)
	reg, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range []cluster.Node{{ID: "edge-1", Host: "elsewhere"}, {ID: "edge-2", Host: host}} {
		n.Session, n.Role, n.State = int64(i+1), cluster.Edge, cluster.Ready
		if err := reg.Join(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	order := func(id string) (o cluster.Order) {
		nodes, err := reg.Nodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			if n.ID == id {
				o = n.Order
			}
		}
		return o
	}
	for _, tc := range []struct {
		name, args, says string
		code             int
		node             string
		drain            bool
	}{
		{"no node", "", "name one node, or give --self", exitUsage, "edge-1", false},
		{"a node and --self", "edge-1 --self", "name one node, or give --self", exitUsage, "edge-1", false},
		{"no time", "edge-1 --deadline=0s", "--deadline must be a time", exitUsage, "edge-1", false},
		{"unknown", "edge-9", `there is no living node "edge-9"; there are: edge-1, edge-2`, exitFailed, "edge-1", false},
		{"detached", "edge-1 --detach --deadline=1m", "edge-1 drains: 0 viewers, 0 streams; it ends within 1m0s\n", 0, "edge-1", true},
		{"undone", "edge-1 --undo", "edge-1 takes work again\n", 0, "edge-1", false},
		{"this machine's", "--self --detach", "edge-2 drains", 0, "edge-2", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out, errs output
			code := run(t.Context(), append([]string{"drain", "--store=sqlite:" + path}, strings.Fields(tc.args)...), nil, &out, &errs)
			if code != tc.code || !strings.Contains(out.String()+errs.String(), tc.says) {
				t.Errorf("%d: %s%s", code, out.String(), errs.String())
			}
			o := order(tc.node)
			if o.Drain != tc.drain {
				t.Errorf("the order is %+v", o)
			}
			if in := time.Until(o.Deadline); tc.drain && (in < 30*time.Second || in > 5*time.Minute) {
				t.Errorf("the deadline is in %s", in)
			}
		})
	}
	if err := reg.Order(t.Context(), "edge-2", cluster.Order{}); err != nil {
		t.Fatal(err)
	}
	var out, errs output
	done := make(chan int, 1)
	go func() {
		done <- run(t.Context(), []string{"drain", "edge-2", "--store=sqlite:" + path}, nil, &out, &errs)
	}()
	eventually(t, func() string {
		if !order("edge-2").Drain {
			return "no order yet"
		}
		return ""
	})
	if err := reg.Order(t.Context(), "edge-2", cluster.Order{}); err != nil { // somebody else takes it back
		t.Fatal(err)
	}
	if code := <-done; code != exitFailed || !strings.Contains(errs.String(), "the drain of edge-2 was taken back") {
		t.Errorf("%d: %s", code, fmt.Sprint(out.String(), errs.String()))
	}
}
