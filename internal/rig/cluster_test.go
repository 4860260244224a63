package rig

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/load"
	"sluice/media"
)

var stream1 = media.Key{App: "live", ID: "stream1"}

func (c *Cluster) publish(key media.Key) *Publisher {
	c.t.Helper()
	p, err := c.Publish(key)
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// watch comes as players do: again while the stream is not there yet.
func (c *Cluster) watch(key media.Key) *Viewer {
	c.t.Helper()
	var v *Viewer
	c.Poll(10*time.Second, func() (err error) {
		v, err = c.Watch(key)
		return err
	})
	return v
}

// serving is the edge that has viewers of a stream.
func (c *Cluster) serving(key media.Key) (id string) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, m := range c.nodes {
		if i, ok := m.node.Hub().Info(key); ok && strings.HasPrefix(name, "edge") && i.Viewers > 0 {
			id = name
		}
	}
	return id
}

func TestPublishOnOriginWatchFromEdge(t *testing.T) {
	c := Start(t, Options{})
	p := c.publish(stream1)
	var viewers []*Viewer
	for range 10 {
		viewers = append(viewers, c.watch(stream1))
	}
	c.More(30, viewers...)
	for i, v := range viewers {
		if err := v.Whole(); err != nil {
			t.Errorf("viewer %d: %v", i, err)
		}
	}
	origin, _ := c.Node("origin-1").Hub().Info(stream1)
	if origin.Viewers != 0 || origin.Relays != 1 {
		t.Errorf("the origin has %d viewers and %d relays; ten viewers of one stream belong on one edge", origin.Viewers, origin.Relays)
	}
	for _, v := range viewers {
		if err := v.Leave(); err != nil {
			t.Errorf("leave: %v", err)
		}
	}
	c.Poll(10*time.Second, func() error {
		if i, ok := c.Node("origin-1").Hub().Info(stream1); ok && i.Relays > 0 {
			return errors.New("the edge still takes a stream that nobody watches")
		}
		return nil
	})
	if err := p.Leave(); err != nil {
		t.Errorf("leave: %v", err)
	}
	c.Poll(10*time.Second, func() error {
		if _, err := c.Watch(stream1); err == nil || !strings.Contains(err.Error(), "stream_offline") {
			return fmt.Errorf("watching a stream that has ended: %v", err)
		}
		return nil
	})
}

func TestEdgeDies(t *testing.T) {
	c := Start(t, Options{})
	c.publish(stream1)
	first := c.watch(stream1)
	c.More(10, first)
	dying := c.serving(stream1)
	var second *Viewer
	for i := 2; second == nil; i++ { // the gateway prefers the emptier edge, sooner or later
		other := media.Key{App: "live", ID: fmt.Sprint("stream", i)}
		c.publish(other)
		v := c.watch(other)
		c.More(10, v)
		if c.serving(other) != dying {
			second = v
		} else if i == 10 {
			t.Fatal("all streams are on one edge")
		}
	}
	c.Kill(dying)
	begin := time.Now()
	again := c.watch(stream1)
	c.More(10, again)
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("a new viewer had its picture %v after the edge died", took)
	}
	c.More(30, second)
	if err := second.Whole(); err != nil {
		t.Errorf("a viewer of the other edge: %v", err)
	}
	if gap := second.Gap(); gap > time.Second {
		t.Errorf("a viewer of the other edge saw nothing for %v", gap)
	}
}

func TestPublisherComesBack(t *testing.T) {
	c := Start(t, Options{Origins: 2})
	p := c.publish(stream1)
	v := c.watch(stream1)
	c.More(15, v)
	p.Vanish()
	q := c.publish(stream1) // waits for the lost one to fall silent
	c.More(30, v)
	if err := v.Whole(); err != nil {
		t.Errorf("after the publisher came back: %v", err)
	}
	if _, err := c.Publish(stream1); err == nil || !strings.Contains(err.Error(), "stream_in_use") {
		t.Errorf("a second publisher beside a live one: %v", err)
	}
	_ = q
}

func TestOriginDies(t *testing.T) {
	c := Start(t, Options{Origins: 2})
	p := c.publish(stream1)
	v := c.watch(stream1)
	c.More(15, v)
	dying := "origin-1"
	if _, ok := c.Node(dying).Hub().Info(stream1); !ok {
		dying = "origin-2"
	}
	begin := time.Now()
	c.Kill(dying)
	p.Vanish()
	c.publish(stream1) // one attempt, which waits until the dead node's session is old
	took := time.Since(begin)
	t.Logf("published again %v after the kill", took.Round(10*time.Millisecond))
	if most := cluster.SessionTTL + 2*time.Second; took > most { // to which the publisher's own start is added
		t.Errorf("published again %v after the kill, want %v at most", took, most)
	}
	c.More(30, v)
	if err := v.Whole(); err != nil {
		t.Errorf("after the stream went to another origin: %v", err)
	}
}

func TestRegistryOutage(t *testing.T) {
	c := Start(t, Options{Edges: 1})
	c.publish(stream1)
	v := c.watch(stream1)
	c.More(10, v)
	for _, id := range []string{"origin-1", "edge-1"} {
		c.CutOff(id)
	}
	c.More(120, v) // longer than a lease lives
	late := c.watch(stream1)
	c.More(30, late)
	for _, id := range []string{"origin-1", "edge-1"} {
		c.Rejoin(id)
	}
	c.More(60, v, late)
	for _, v := range []*Viewer{v, late} {
		if err := v.Whole(); err != nil {
			t.Errorf("over an outage of the registry: %v", err)
		}
	}
}

func TestThousandSessions(t *testing.T) {
	c := Start(t, Options{Edges: 1})
	c.publish(stream1)
	c.More(5, c.watch(stream1))
	round := func(n int) {
		viewers := make([]*Viewer, n)
		var seen []*Viewer
		for i := range viewers {
			v, err := c.Watch(stream1)
			if err != nil {
				t.Fatal(err)
			}
			if viewers[i] = v; i%3 != 0 { // the others go before anything came
				seen = append(seen, v)
			}
		}
		c.More(1, seen...)
		for i, v := range viewers {
			if i%2 == 0 {
				v.Vanish()
			} else if err := v.Leave(); err != nil {
				t.Fatal(err)
			}
		}
	}
	settled := func() (goroutines int, heap uint64) {
		c.Poll(30*time.Second, func() error {
			if i, _ := c.Node("edge-1").Hub().Info(stream1); i.Viewers != 1 {
				return fmt.Errorf("%d viewers are still there", i.Viewers)
			}
			return nil
		})
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), m.HeapAlloc
	}
	round(50)
	goroutines, heap := settled()
	for range 20 {
		round(50)
	}
	c.Poll(30*time.Second, func() error {
		g, h := settled()
		if g > goroutines+5 || h > heap+heap/2+(8<<20) {
			return fmt.Errorf("after 1,000 sessions: goroutines %d → %d, heap %d → %d KiB", goroutines, g, heap>>10, h>>10)
		}
		return nil
	})
}

func TestBadNames(t *testing.T) {
	c := Start(t, Options{Edges: 1})
	for _, x := range []struct {
		key  media.Key
		code string
	}{
		{media.Key{App: "nowhere", ID: "s"}, "unknown_app"},
		{media.Key{App: "live", ID: "a%20b"}, "bad_name"},
	} {
		_, err := c.Watch(x.key)
		var refused *load.Refused
		if !errors.As(err, &refused) || refused.Code != x.code {
			t.Errorf("watch %v: %v", x.key, err)
		}
	}
}
