package mongo

import (
	"context"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	monitor "go.mongodb.org/mongo-driver/v2/event"
)

const (
	measureEvery = 30 * time.Second
	measureAgain = 500 * time.Millisecond // when the server may have changed, until it answers
	// samples are taken at the start, of which the quickest counts.
	samples = 3
	// jump is how far a clock must be from what was known of it to be another one, as when another server was elected. Less does no harm.
	jump = 200 * time.Millisecond
	// holdFor is how long two clocks count after a jump: until every process has heard of it and has written its row by it.
	holdFor = 5 * time.Second
)

// clock is the server's clock as this process knows it. It runs by our monotonic clock, so that setting
// this machine's time changes nothing.
//
// When it jumps, some processes know of it earlier than others. So that nobody looks dead because of it, for a while heartbeats are
// stamped by the later of the two clocks, and judged by the earlier.
type clock struct {
	mu     sync.Mutex
	server time.Time     // what the server said, plus half the round trip
	at     time.Time     // when
	trip   time.Duration // of that sample; the error is at most half of it; 0: none yet
	off    time.Duration // of the clock before, from this one
	held   time.Time     // by our clock: until then both count
}

// now is the time by which heartbeats are judged.
func (c *clock) now() time.Time { return c.read(false) }

// stamp is the time that heartbeats get.
func (c *clock) stamp() time.Time { return c.read(true) }

func (c *clock) read(later bool) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.server.Add(time.Since(c.at))
	if later == (c.off > 0) && time.Now().Before(c.held) {
		t = t.Add(c.off)
	}
	return t
}

// learn takes a sample: the server's time somewhen between two moments of ours. What is known stays, unless the sample
// is quicker or shows that it is wrong, as when another server has taken over or its clock was set.
func (c *clock) learn(server, sent, received time.Time) {
	trip := received.Sub(sent)
	middle := server.Add(trip / 2)
	c.mu.Lock()
	defer c.mu.Unlock()
	off := c.server.Add(received.Sub(c.at)).Sub(middle)
	wrong := off.Abs() > trip/2+time.Millisecond // servers tell milliseconds
	if c.trip != 0 && wrong && off.Abs() > trip/2+jump {
		c.off, c.held = off, received.Add(holdFor)
	}
	if c.trip == 0 || trip < c.trip || wrong {
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

// stamp is the time of a heartbeat.
func (r *Registry) stamp() time.Time {
	if r.fixed != nil {
		return r.fixed()
	}
	return r.clock.stamp()
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

// keepTime measures again now and then, and at once when a call has failed or there is another primary: that may have another clock. Who
// asks while the server is away learns nothing, and goes on by what he knows.
func (r *Registry) keepTime(ctx context.Context) {
	for wait := measureEvery; ; {
		select {
		case <-ctx.Done():
			return
		case <-r.doubt:
		case <-time.After(wait):
		}
		began := time.Now()
		wait = measureEvery
		if r.ask(ctx) != nil {
			wait = measureAgain
		}
		select { // a failing server is not asked more often than that
		case <-ctx.Done():
			return
		case <-time.After(measureAgain - time.Since(began)):
		}
	}
}

// doubtClock has the clock measured at once.
func (r *Registry) doubtClock() {
	select {
	case r.doubt <- struct{}{}:
	default:
	}
}

// elected listens to the driver's view of the servers for another primary.
func (r *Registry) elected(e *monitor.TopologyDescriptionChangedEvent) {
	primary := func(d monitor.TopologyDescription) string {
		for _, s := range d.Servers {
			if s.Kind == "RSPrimary" {
				return s.Addr.String()
			}
		}
		return ""
	}
	if now := primary(e.NewDescription); now != "" && now != primary(e.PreviousDescription) {
		r.doubtClock()
	}
}
