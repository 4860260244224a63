package rig

import (
	"errors"
	"testing"
	"time"

	"sluice/cluster/mongo/mongotest"
)

// The whole road with the registry on a server: an origin dies, and its stream goes to another while the viewer stays; then the
// server dies, and nobody notices.
func TestClusterOnMongoDB(t *testing.T) {
	server := mongotest.Start(t, mongotest.Options{})
	c := Start(t, Options{Origins: 2, Store: MongoDB(server, "sluice")})
	p := c.publish(stream1)
	v := c.watch(stream1)
	c.More(15, v)
	dying := "origin-1"
	if _, ok := c.Node(dying).Hub().Info(stream1); !ok {
		dying = "origin-2"
	}
	c.Kill(dying)
	p.Vanish()
	var q *Publisher
	c.Poll(15*time.Second, func() (err error) { // the dead node's session must run out
		q, err = c.Publish(stream1)
		return err
	})
	c.More(30, v)
	if err := v.Whole(); err != nil {
		t.Errorf("after the stream went to another origin: %v", err)
	}

	server.Kill()
	c.More(100, v) // longer than a session lives without heartbeats
	late := c.watch(stream1)
	c.More(30, late)
	server.Restart()
	c.More(100, v, late)
	for _, v := range []*Viewer{v, late} {
		if err := v.Whole(); err != nil {
			t.Errorf("over an outage of the registry: %v", err)
		}
	}
	if err := q.Leave(); err != nil { // and it goes on afterwards
		t.Error(err)
	}
	c.Poll(15*time.Second, func() error {
		if _, err := c.Watch(stream1); err == nil {
			return errors.New("the stream has ended and is still there")
		}
		return nil
	})
}

// What a cluster asks of its registry does not depend on its viewers, and is little: at most two operations a
// second for a node, which are its heartbeat and its looks at what it watches, and hardly more for the gateway.
func TestOperationsOnMongoDB(t *testing.T) {
	server := mongotest.Start(t, mongotest.Options{})
	store := MongoDB(server, "sluice")
	c := Start(t, Options{Store: store})
	c.publish(stream1)
	c.More(5, c.watch(stream1))
	const rest = 8 * time.Second
	const slack = 3 / 8. // a node has three rhythms, of which each may tick once more than in the mean
	perSecond := func() (nodes []float64, gateway float64) {
		var before []int
		for _, l := range store.Lines {
			before = append(before, l.Operations())
		}
		<-time.After(rest) // operations of a time are counted
		for i, l := range store.Lines {
			nodes = append(nodes, float64(l.Operations()-before[i])/rest.Seconds())
		}
		return nodes[:len(nodes)-1], nodes[len(nodes)-1] // the gateway is opened last
	}
	nodes, gateway := perSecond()
	t.Logf("at rest: nodes %.2f, gateway %.2f operations a second", nodes, gateway)
	for i, n := range nodes {
		if n > 2+slack || n < 0.5 { // a heartbeat a second, at least
			t.Errorf("node %d makes %.2f operations a second at rest, %v", i, n, store.Lines[i].Counts())
		}
	}
	const gatewayMost = 3
	if gateway > gatewayMost+slack {
		t.Errorf("the gateway makes %.2f operations a second at rest", gateway)
	}

	before := 0
	for _, l := range store.Lines {
		before += l.Operations()
	}
	begin := time.Now()
	var viewers []*Viewer
	for range 40 {
		viewers = append(viewers, c.watch(stream1))
	}
	c.More(5, viewers...)
	took, after := time.Since(begin), 0
	for _, l := range store.Lines {
		after += l.Operations()
	}
	most := 2*len(nodes) + gatewayMost // what the time alone would cost
	if got := float64(after-before) - float64(most)*(took.Seconds()+1); got > 10 {
		t.Errorf("40 viewers in %v cost %d operations, which is %.0f more than the time alone does", took, after-before, got)
	} else {
		t.Logf("40 viewers in %v: %d operations", took, after-before)
	}
}
