package mongo

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	monitor "go.mongodb.org/mongo-driver/v2/event"

	"sluice/cluster/mongo/mongotest"
)

func TestClockLearns(t *testing.T) {
	const ms = time.Millisecond
	begin := time.Now()
	type sample struct {
		at, trip, server time.Duration // after begin; server is what it said
	}
	for _, c := range []struct {
		name    string
		samples []sample
		want    time.Duration // of the server's clock at the last sample's end
	}{
		{"half the round trip", []sample{{0, 20 * ms, 1000 * ms}}, 1010 * ms},
		{"a slower one that agrees changes nothing", []sample{{0, 10 * ms, 1000 * ms}, {100 * ms, 200 * ms, 1105 * ms}}, 1295 * ms},
		{"a quicker one counts", []sample{{0, 200 * ms, 1000 * ms}, {200 * ms, 10 * ms, 1290 * ms}}, 1295 * ms},
		{"a slower one that can't be true otherwise counts", []sample{{0, 10 * ms, 1000 * ms}, {100 * ms, 200 * ms, 5000 * ms}}, 5100 * ms},
		{"a clock that was set back", []sample{{0, 10 * ms, 5000 * ms}, {100 * ms, 20 * ms, 1000 * ms}}, 1010 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			var k clock
			var end time.Time
			for _, s := range c.samples {
				end = begin.Add(s.at + s.trip)
				k.learn(begin.Add(s.server), begin.Add(s.at), end)
			}
			got := k.server.Add(end.Sub(k.at)).Sub(begin)
			if (got - c.want).Abs() > ms {
				t.Errorf("it is %v, want %v", got, c.want)
			}
		})
	}
}

// After a jump of the server's clock nobody looks dead, to whoever knows of it and to whoever doesn't yet: heartbeats of before and after
// are all younger than they are.
func TestClockJumps(t *testing.T) {
	for name, by := range map[string]time.Duration{"forward": time.Minute, "back": -time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				var knows, late clock
				for _, k := range []*clock{&knows, &late} {
					k.learn(begin, begin, begin.Add(time.Millisecond))
				}
				old := knows.stamp() // a heartbeat of just before
				knows.learn(begin.Add(by), begin, begin.Add(time.Millisecond))
				for range 4 {
					pass(time.Second)
					for who, age := range map[string]time.Duration{
						"one of before, by who knows":         knows.now().Sub(old) - time.Since(begin),
						"one by who is late, by who knows":    knows.now().Sub(late.stamp()),
						"one by who knows, by himself":        knows.now().Sub(knows.stamp()),
						"one by who knows, by who is late":    late.now().Sub(knows.stamp()),
						"one by who is late, by who is later": late.now().Sub(late.stamp()),
					} {
						if age > 2*time.Millisecond {
							t.Errorf("%s looks %v old after %v", who, age, time.Since(begin))
						}
					}
				}
				pass(holdFor)
				want := time.Now().Add(by)
				if now, stamp := knows.now(), knows.stamp(); now.Sub(want).Abs() > 2*time.Millisecond || !stamp.Equal(now) {
					t.Errorf("at the end it is %v, heartbeats get %v; want %v", now, stamp, want)
				}
			})
		})
	}
}

// Another primary, and a call that fails, have the clock measured at once.
func TestClockDoubts(t *testing.T) {
	line := mongotest.Start(t, mongotest.Options{}).Line(nil)
	r := open(t, line.URL("db"))
	wrong := func() {
		r.clock.mu.Lock()
		defer r.clock.mu.Unlock()
		r.clock.server = r.clock.server.Add(-time.Hour)
	}
	right := func(when string) {
		t.Helper()
		deadline := time.Now().Add(20 * time.Second)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for r.stamp().Sub(time.Now()).Abs() > time.Minute { // the later one counts at once
			if <-tick.C; time.Now().After(deadline) {
				t.Fatalf("%s the clock is still wrong: %v", when, r.stamp())
			}
		}
		if r.Now().Sub(time.Now()) > -time.Minute {
			t.Errorf("%s heartbeats are judged by %v: those by the former clock look dead", when, r.Now())
		}
	}
	wrong()
	r.elected(&monitor.TopologyDescriptionChangedEvent{
		PreviousDescription: monitor.TopologyDescription{Servers: []monitor.ServerDescription{{Addr: "a:1", Kind: "RSPrimary"}}},
		NewDescription:      monitor.TopologyDescription{Servers: []monitor.ServerDescription{{Addr: "b:1", Kind: "RSPrimary"}}},
	})
	right("after an election")
	wrong()
	line.Cut(true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := r.Nodes(ctx); err == nil {
		t.Fatal("the line is not cut")
	}
	line.Cut(false)
	right("after a failure")
}

// The server runs on this machine, so both clocks are the same.
func TestNowIsTheServers(t *testing.T) {
	sameClock(t, open(t, mongotest.Start(t, mongotest.Options{}).Line(nil).URL("db")))
}

// sameClock: the registry's clock is this machine's, but for half a round trip and the milliseconds that servers tell.
func sameClock(t *testing.T, r *Registry) {
	t.Helper()
	most := r.clock.trip/2 + 2*time.Millisecond
	before := time.Now()
	now := r.Now()
	after := time.Now()
	if now.Before(before.Add(-most)) || now.After(after.Add(most)) {
		t.Errorf("the clock is off by %v, more than %v", now.Sub(before), most)
	}
}

// pass lets fake time pass.
func pass(d time.Duration) { <-time.After(d) }
