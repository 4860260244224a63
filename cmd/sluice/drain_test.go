package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/cluster/sqlite"
	"sluice/media"
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
	for i, n := range []cluster.Node{{ID: "edge-1", Host: "elsewhere"}, {ID: "edge-2", Host: host}, {ID: "edge-3", State: cluster.Draining}} {
		n.Session, n.Role, n.State = int64(i+1), cluster.Edge, cmp.Or(n.State, cluster.Ready)
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
		{"unknown", "edge-9", `there is no living node "edge-9"; there are: edge-1, edge-2, edge-3`, exitFailed, "edge-1", false},
		{"detached", "edge-1 --detach --deadline=1m", "edge-1 drains: 0 viewers, 0 streams; it ends within 1m0s", 0, "edge-1", true},
		{"undone", "edge-1 --undo", "edge-1 takes work again\n", 0, "edge-1", false},
		{"undone twice", "edge-1 --undo", "edge-1 was not ordered to drain: it takes work\n", 0, "edge-1", false},
		{"undone, but it was told to stop", "edge-3 --undo", "edge-3 drains, but not by sluice drain", exitFailed, "edge-3", false},
		{"one of the last two", "edge-1 --detach", "edge-1 drains", 0, "edge-1", true},
		{"the last one", "edge-2 --detach", "warning: edge-2 is the last ready edge", 0, "edge-2", true},
		{"not the last one", "edge-1 --undo", "edge-1 takes work again", 0, "edge-1", false},
		{"this machine's", "--self --detach", "edge-2 drains", 0, "edge-2", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out, errs output
			code := run(t.Context(), append([]string{"drain", "--store=sqlite:" + path}, strings.Fields(tc.args)...), nil, nil, &out, &errs)
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
}

// TestDrainWatch: how the command ends, by what becomes of the node.
func TestDrainWatch(t *testing.T) {
	key, err := media.NewKey("live", "a")
	if err != nil {
		t.Fatal(err)
	}
	busy := []cluster.Serving{{Stream: key, Viewers: 3}}
	for _, tc := range []struct {
		name, deadline, says string
		code                 int
		serving              []cluster.Serving
		then                 func(reg cluster.Registry, n cluster.Node) error // once the order stands
	}{
		{"it leaves empty", "1m", "edge-1 is empty and has left", 0, nil, func(reg cluster.Registry, n cluster.Node) error {
			return reg.Leave(t.Context(), n.ID, n.Session)
		}},
		{"the last go, and it leaves", "1m", "edge-1 is empty and has left", 0, busy, func(reg cluster.Registry, n cluster.Node) error {
			return reg.Leave(t.Context(), n.ID, n.Session)
		}},
		{"the last are cut off at the deadline", "1ms", "up to 3 viewers and publishers had not moved and were cut off", exitFailed, busy, func(reg cluster.Registry, n cluster.Node) error {
			return reg.Leave(t.Context(), n.ID, n.Session)
		}},
		{"the order is taken back", "1m", "the drain of edge-1 was taken back", exitFailed, nil, func(reg cluster.Registry, n cluster.Node) error {
			return reg.Order(t.Context(), n.ID, cluster.Order{})
		}},
		{"another process has its name", "1m", "another process runs under its name", 0, nil, func(reg cluster.Registry, n cluster.Node) error {
			n.Session, n.PID = 9, 9
			return reg.Join(t.Context(), n)
		}},
		{"another process has its name, and clients were left", "1m", "edge-1 was started again after", exitFailed, busy, func(reg cluster.Registry, n cluster.Node) error {
			n.Session, n.Started = 9, n.Started.Add(time.Second)
			return reg.Join(t.Context(), n)
		}},
		{"it joins again, and leaves later", "1m", "edge-1 is empty and has left", 0, nil, func(reg cluster.Registry, n cluster.Node) error {
			n.Session = 9
			if err := reg.Join(t.Context(), n); err != nil {
				return err
			}
			time.AfterFunc(3*drainPoll, func() { _ = reg.Leave(context.WithoutCancel(t.Context()), n.ID, n.Session) })
			return nil
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), registryFile)
			reg, err := sqlite.Open(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			defer reg.Close()
			n := cluster.Node{ID: "edge-1", Session: 1, Role: cluster.Edge, State: cluster.Ready, PID: 1, Started: time.Now().Truncate(time.Millisecond), Serving: tc.serving}
			if err := reg.Join(t.Context(), n); err != nil {
				t.Fatal(err)
			}
			var out, errs output
			done := make(chan int, 1)
			go func() {
				done <- run(t.Context(), []string{"drain", "edge-1", "--store=sqlite:" + path, "--deadline=" + tc.deadline}, nil, nil, &out, &errs)
			}()
			eventually(t, func() string {
				nodes, err := reg.Nodes(t.Context())
				if err != nil || len(nodes) != 1 || !nodes[0].Order.Drain {
					return fmt.Sprint("no order yet: ", nodes, err)
				}
				n = nodes[0]
				return ""
			})
			if err := tc.then(reg, n); err != nil {
				t.Fatal(err)
			}
			if code := <-done; code != tc.code || !strings.Contains(out.String()+errs.String(), tc.says) {
				t.Errorf("%d: %s%s", code, out.String(), errs.String())
			}
		})
	}
}

// TestHeard: how the age of a heartbeat reads.
func TestHeard(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		at   time.Time
		want string
	}{
		{now.Add(-1234 * time.Millisecond), "1.2s ago"},
		{now.Add(-(3*time.Minute + 1234*time.Millisecond)), "3m1s ago"},
		{now.Add(-80 * time.Hour), "3 days ago"},
		{time.UnixMilli(0), "never"},
		{time.Time{}, "never"},
	} {
		if got := heard(tc.at, now); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.at, got, tc.want)
		}
	}
}
