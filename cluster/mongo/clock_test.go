package mongo

import (
	"testing"
	"time"

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
