package relay_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"sluice/media"
	"sluice/stream"
)

// clock is a subscriber that measures how long frames took since they were given to the origin's hub.
type clock struct {
	viewer
	mu   sync.Mutex
	took []time.Duration
	each chan struct{}
}

func (c *clock) GOP([]*media.Burst) {}

func (c *clock) Burst(b *media.Burst) {
	c.mu.Lock()
	c.took = append(c.took, time.Duration(time.Now().UnixNano()-b.Captured))
	c.mu.Unlock()
	c.each <- struct{}{}
}

// BenchmarkRelay measures what the relay adds over loopback: frames of 9 packets of 1,200 bytes, one every 5 ms, key frames of 60.
func BenchmarkRelay(b *testing.B) {
	reg := &registry{}
	origin, edge := start(b, reg, "o", options{}), start(b, reg, "e", options{})
	reg.set(origin.source("", 1))
	cam := publish(b, origin, 1, video)
	cam.frame(0, true, 60, 1200)
	c := &clock{each: make(chan struct{}, 1000)}
	sub, err := edge.hub.Subscribe(b.Context(), key, stream.SubscribeOptions{Subscriber: c})
	if err != nil {
		b.Fatal(err)
	}
	sub.Start()
	measure(b, cam, c)
}

// measure sends a frame every 5 ms and reports how long they took.
func measure(b *testing.B, cam *camera, c *clock) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	i := 0
	for b.Loop() {
		<-tick.C
		if i++; i%60 == 0 {
			cam.frame(0, true, 60, 1200)
		} else {
			cam.frame(0, false, 9, 1200)
		}
		<-c.each
	}
	slices.Sort(c.took)
	at := func(p int) float64 { return float64(c.took[(len(c.took)-1)*p/100].Microseconds()) }
	b.ReportMetric(at(50), "p50-µs")
	b.ReportMetric(at(99), "p99-µs")
}

// BenchmarkThroughput is the cost of a frame of 9 packets of 1,200 bytes through both ends, on one machine.
func BenchmarkThroughput(b *testing.B) {
	reg := &registry{}
	origin, edge := start(b, reg, "o", options{}), start(b, reg, "e", options{})
	reg.set(origin.source("", 1))
	cam := publish(b, origin, 1, video)
	cam.frame(0, true, 1, 1200)
	c := &clock{each: make(chan struct{}, 1000)}
	sub, err := edge.hub.Subscribe(b.Context(), key, stream.SubscribeOptions{Subscriber: c})
	if err != nil {
		b.Fatal(err)
	}
	sub.Start()
	b.SetBytes(9 * 1200)
	b.ReportAllocs()
	open := 0
	i := 0
	for b.Loop() {
		i++
		cam.frame(0, i%60 == 0, 9, 1200)
		if open++; open > 32 {
			<-c.each
			open--
		}
	}
}
