package rig

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"sluice/load"
)

// The fast forms of what make chaos shows with real processes. There, time is what counts; here, that nothing breaks.

// owner is the origin that has media of a stream, and the other one.
func (c *Cluster) owner() (has, other string) {
	c.t.Helper()
	has, other = "origin-1", "origin-2"
	if i, ok := c.Node(other).Hub().Info(stream1); ok && i.Flowing {
		has, other = other, has
	}
	return has, other
}

// publishAt comes until the stream is on that node: the gateway may prefer another one at first.
func (c *Cluster) publishAt(id string) (p *Publisher) {
	c.t.Helper()
	c.Poll(20*time.Second, func() error {
		q, err := c.Publish(stream1)
		if err != nil {
			return err
		}
		c.Poll(5*time.Second, func() error {
			if q.Frames() == 0 {
				return fmt.Errorf("the publisher is not connected")
			}
			return nil
		})
		if i, ok := c.Node(id).Hub().Info(stream1); !ok || i.Relayed {
			q.Vanish()
			return fmt.Errorf("it is not on %s", id)
		}
		p = q
		return nil
	})
	return p
}

// TestViewersGoOnSoonAfterThePublisher: what an edge adds to the time that a publisher needs to come back is less than a second even
// here, where the machine is shared with other tests.
func TestViewersGoOnSoonAfterThePublisher(t *testing.T) {
	c := Start(t, Options{Origins: 2})
	p := c.publish(stream1)
	v := c.watch(stream1)
	c.More(15, v)
	dying, other := c.owner()
	c.Kill(dying)
	p.Vanish()
	q := c.publishAt(other)
	came, before := time.Now(), v.Frames()
	c.Poll(5*time.Second, func() error {
		if v.Frames() == before && v.Gap() > 100*time.Millisecond {
			return fmt.Errorf("no picture for %s; the publisher has sent %d frames", v.Gap(), q.Frames())
		}
		return nil
	})
	if took := time.Since(came); took > time.Second {
		t.Errorf("the viewer's picture came %s after the publisher's", took)
	}
	c.More(30, v)
	if err := v.Whole(); err != nil {
		t.Error(err)
	}
}

// TestFencedOwner: an origin that is cut off from the registry loses its stream to the other one; when it is back it lets
// go of it, and its viewers never see the old stream again.
func TestFencedOwner(t *testing.T) {
	c := Start(t, Options{Origins: 2})
	p := c.publish(stream1)
	v := c.watch(stream1)
	c.More(15, v)
	fenced, other := c.owner()
	c.CutOff(fenced)
	c.More(30, v) // it goes on for as long as its publisher does
	p.Vanish()
	c.publishAt(other)
	c.More(30, v)
	c.Rejoin(fenced)
	c.Poll(10*time.Second, func() error {
		if i, ok := c.Node(fenced).Hub().Info(stream1); ok && !i.Relayed {
			return fmt.Errorf("%s still has the stream for its own: %+v", fenced, i)
		}
		return nil
	})
	c.More(30, v)
	if err := v.Whole(); err != nil {
		t.Error(err)
	}
}

// TestGatewayDies: media goes on without it, sessions are known to the next one, and newcomers come by that.
func TestGatewayDies(t *testing.T) {
	c := Start(t, Options{Edges: 1})
	c.publish(stream1)
	v := c.watch(stream1)
	c.More(15, v)
	c.ReplaceGateway()
	late := c.watch(stream1)
	c.More(30, v, late)
	if err := v.Whole(); err != nil {
		t.Error(err)
	}
	if gap := v.Gap(); gap > slower*time.Second {
		t.Errorf("no picture for %s", gap)
	}
	if err := late.Leave(); err != nil {
		t.Error(err)
	}
	var refused *load.Refused
	if err := late.resource.Present(t.Context()); err == nil {
		t.Error("a session that has left is still there")
	} else if !errors.As(err, &refused) || refused.Code != "no_session" {
		t.Errorf("a session that has left: %v", err)
	}
}
