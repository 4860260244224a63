package rig

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/internal/config"
	"sluice/load"
	"sluice/load/crowd"
)

// patient gives drains time.
func patient(c *config.Node) { c.DrainDeadline = 15 * time.Second }

// audience is publishers and lean viewers that move when they are asked to, while during runs.
func (c *Cluster) audience(viewers int, during func()) *crowd.Report {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	begun, over := make(chan struct{}), make(chan struct{})
	var last string
	go func() {
		defer close(over)
		select {
		case <-begun:
			during()
		case <-ctx.Done():
			return
		}
		select { // what is seen then counts, too
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
		cancel()
	}()
	r, err := crowd.Run(ctx, crowd.Config{
		Publish: c.PublishURL(stream1), Play: c.PlayURL(stream1), Streams: 1, Viewers: viewers, Rate: 100, For: time.Minute,
		Connections: 16, Bitrate: 100_000, FPS: 30, GOP: time.Second, Insecure: true, Follow: true, Log: c.options.Log,
		Progress: func(s crowd.Sample) {
			if s.Phase == "measuring" && last != s.Phase {
				close(begun)
			}
			last = s.Phase
		},
	})
	cancel()
	<-over
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Logf("%d viewers: gap p50 %.0f ms, p95 %.0f ms, max %.0f ms; %g moved, %g came back, %g ended, %g failed", viewers,
		r.Figures["gap_p50"], r.Figures["gap_p95"], r.Figures["gap_max"], r.Figures["moved"], r.Figures["returned"], r.Figures["ended"], r.Figures["failed"])
	return r
}

// TestDrainOfAnEdge: viewers that know how to move are on the other edge before theirs is gone.
func TestDrainOfAnEdge(t *testing.T) {
	const viewers = 200
	c := Start(t, Options{Edges: 1, Configure: patient})
	r := c.audience(viewers, func() {
		c.Run(cluster.Edge, "edge-2")
		c.Stop("edge-1")
	})
	f := r.Figures
	if f["up"] != 100 || f["ended"] != 0 || f["returned"] != 0 || f["moved"] != viewers {
		t.Errorf("%g of %d viewers moved; %g %% are up, %g ended, %g came back", f["moved"], viewers, f["up"], f["ended"], f["returned"])
	}
	if f["gap_p95"] > slower*500 {
		t.Errorf("the gap's p95 is %.0f ms", f["gap_p95"])
	}
}

// TestRollingUpgrade: every node of a cluster is replaced, one by one, while people publish and watch.
func TestRollingUpgrade(t *testing.T) {
	const viewers = 30
	c := Start(t, Options{Origins: 2, Configure: patient})
	took := map[string]time.Duration{}
	r := c.audience(viewers, func() {
		for _, id := range []string{"origin-1", "edge-1", "origin-2", "edge-2"} {
			role := cluster.Origin
			if strings.HasPrefix(id, "edge") {
				role = cluster.Edge
			}
			c.Run(role, id+"-new")
			began := time.Now()
			c.Drain(id, 15*time.Second)
			took[id] = time.Since(began).Round(10 * time.Millisecond)
		}
	})
	t.Logf("the drains took %v", took)
	f := r.Figures
	if f["up"] != 100 || f["ended"] != 0 || f["returned"] != 0 || f["failed"] != 0 {
		t.Errorf("%g %% are up, %g ended, %g came back", f["up"], f["ended"], f["returned"])
	}
	if f["gap_max"] > slower*1000 {
		t.Errorf("somebody saw nothing for %.0f ms", f["gap_max"])
	}
	if f["moved"] < viewers+1 {
		t.Errorf("only %g sessions moved, of %d viewers and a publisher", f["moved"], viewers)
	}
}

// TestDrainIsTakenBack: while somebody is there the node can stay, and those who were not told never know.
func TestDrainIsTakenBack(t *testing.T) {
	c := Start(t, Options{Edges: 1, Configure: patient})
	c.publish(stream1)
	v := c.watch(stream1)
	c.More(10, v)
	state := func(want cluster.NodeState) {
		t.Helper()
		c.Poll(10*time.Second, func() error {
			if got := c.State("edge-1"); got != want {
				return fmt.Errorf("edge-1 is %s, want %s", got, want)
			}
			return nil
		})
	}
	c.Order("edge-1", cluster.Order{Drain: true})
	state(cluster.Draining)
	c.Poll(10*time.Second, func() error {
		w, err := c.Watch(stream1)
		if err == nil {
			w.Vanish()
			return errors.New("a node that drains takes a viewer")
		}
		return nil
	})
	c.Order("edge-1", cluster.Order{})
	state(cluster.Ready)
	c.More(10, c.watch(stream1), v)
	if err := v.Whole(); err != nil {
		t.Errorf("over a drain that was taken back: %v", err)
	}
}

// TestDeafClientsAreSentAway: those who can't be told stay as long as they may, and are gone before the deadline, not all at once.
func TestDeafClientsAreSentAway(t *testing.T) {
	const within = 4 * time.Second
	c := Start(t, Options{Edges: 1, Configure: func(n *config.Node) { n.DrainDeadline = within }})
	c.publish(stream1)
	var viewers []*Viewer
	for range 20 {
		viewers = append(viewers, c.watch(stream1))
	}
	c.More(10, viewers...)
	edge := c.Node("edge-1")
	left := func() int {
		i, _ := edge.Hub().Info(stream1)
		return i.Viewers
	}
	began := time.Now()
	stopped := make(chan struct{})
	go func() { defer close(stopped); c.Stop("edge-1") }()
	c.Poll(within, func() error {
		if left() == len(viewers) {
			return errors.New("nobody was sent away")
		}
		return nil
	})
	first, some := time.Since(began), left()
	<-stopped
	took := time.Since(began)
	if first < within/2 || took > within {
		t.Errorf("the first was sent away after %v, and the last were gone after %v of %v", first, took, within)
	}
	if some == 0 {
		t.Error("all were sent away in the same instant")
	}
}

// TestOneOfEachMoves: sluice publish and sluice play go over to other nodes without a gap that anybody minds.
func TestOneOfEachMoves(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("publishing needs ffmpeg, which is not installed")
	}
	c := Start(t, Options{Edges: 1, Configure: patient})
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	sessions := make(chan int, 100)
	work.Go(func() {
		err := load.Publish(ctx, load.PublishConfig{URL: c.PublishURL(stream1), Source: load.TestPattern, Insecure: true, Width: 160, Height: 90, Bitrate: 100_000, Log: c.options.Log,
			Progress: func(s load.PublishStats) { sessions <- s.Sessions }})
		if err != nil {
			t.Errorf("publish: %v", err)
		}
	})
	watched := make(chan load.PlayReport, 1)
	flows := make(chan struct{})
	var once sync.Once
	watching, stop := context.WithCancel(ctx)
	defer stop()
	work.Go(func() {
		r, err := load.Play(watching, load.PlayConfig{URL: c.PlayURL(stream1), Insecure: true, Wait: 10 * time.Second, Log: c.options.Log,
			Progress: func(s load.PlayStats) {
				if s.Frames > 20 {
					once.Do(func() { close(flows) })
				}
			}})
		if err != nil {
			t.Errorf("play: %v", err)
		}
		watched <- r
	})
	select {
	case <-flows:
	case <-time.After(20 * time.Second):
		t.Fatal("no picture within 20 s")
	}
	for _, x := range []struct {
		role cluster.Role
		id   string
	}{{cluster.Origin, "origin-1"}, {cluster.Edge, "edge-1"}} {
		c.Run(x.role, x.id+"-new")
		c.Drain(x.id, 15*time.Second)
	}
	select { // what comes after counts, too
	case <-time.After(time.Second):
	case <-ctx.Done():
	}
	stop()
	r := <-watched
	t.Logf("the longest gap was %v", time.Duration(r.Video.LongestGap))
	if r.Moves != 1 || r.Reconnections != 0 || r.Video.LongestGap > load.Millis(time.Second) {
		t.Errorf("%d moves, %d reconnections, the longest gap was %v", r.Moves, r.Reconnections, r.Video.LongestGap)
	}
	last := 0
	for len(sessions) > 0 {
		last = <-sessions
	}
	if last != 2 {
		t.Errorf("the publisher had %d sessions", last)
	}
}
