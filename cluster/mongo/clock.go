package mongo

import (
	"context"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	measureEvery = 30 * time.Second
	// samples are taken at the start, of which the quickest counts.
	samples = 3
)

// clock is the server's clock as this process knows it. It runs by our monotonic clock, so that setting
// this machine's time changes nothing.
type clock struct {
	mu     sync.Mutex
	server time.Time     // what the server said, plus half the round trip
	at     time.Time     // when
	trip   time.Duration // of that sample; the error is at most half of it; 0: none yet
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.server.Add(time.Since(c.at))
}

// learn takes a sample: the server's time somewhen between two moments of ours. What is known stays, unless the sample
// is quicker or shows that it is wrong, as when another server has taken over or its clock was set.
func (c *clock) learn(server, sent, received time.Time) {
	trip := received.Sub(sent)
	middle := server.Add(trip / 2)
	c.mu.Lock()
	defer c.mu.Unlock()
	off := c.server.Add(received.Sub(c.at)).Sub(middle)
	if c.trip == 0 || trip < c.trip || off.Abs() > trip/2+time.Millisecond { // servers tell milliseconds
		c.server, c.at, c.trip = middle, received, max(trip, 1)
	}
}

// Now implements cluster.Registry: the server's clock.
func (r *Registry) Now() time.Time {
	if r.fixed != nil {
		return r.fixed()
	}
	return r.clock.now()
}

// ask takes one sample.
func (r *Registry) ask(ctx context.Context) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	var hello struct {
		LocalTime time.Time `bson:"localTime"`
	}
	sent := time.Now()
	err := r.nodes.Database().Client().Database("admin").RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello)
	if err == nil {
		r.clock.learn(hello.LocalTime, sent, time.Now())
	}
	return err
}

// measure takes samples; the first also opens a connection and is slow.
func (r *Registry) measure(ctx context.Context) error {
	for range samples {
		if err := r.ask(ctx); err != nil {
			return err
		}
	}
	return nil
}

// keepTime measures again now and then. Who asks while the server is away learns nothing, and goes on by what he knows.
func (r *Registry) keepTime(ctx context.Context) {
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = r.ask(ctx)
		}
	}
}
