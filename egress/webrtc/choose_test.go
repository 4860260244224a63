package webrtc

import (
	"math"
	"slices"
	"testing"
	"time"

	"sluice/rtc"
)

// scene is a link, and what a viewer behind it must see.
type scene struct {
	name    string
	link    link
	seconds float64
	musts   []must
}

type must struct {
	what  string
	value func([]moment) float64
	least float64
	most  float64
}

func steps(points ...float64) func(float64) float64 {
	return func(at float64) (v float64) {
		for i := 0; i < len(points); i += 2 {
			if at >= points[i] {
				v = points[i+1]
			}
		}
		return v
	}
}

// Three rungs, as of a ladder of 720p.
func threeRungs() []rung { return []rung{{2, 400e3, 240}, {1, 800e3, 480}, {0, 2500e3, 720}} }

func frozen(from, to float64) func([]moment) float64 {
	return func(log []moment) float64 {
		at := func(t float64) (f float64) {
			for _, m := range log {
				if m.at <= t {
					f = m.frozen
				}
			}
			return f
		}
		return at(to) - at(from)
	}
}

// share is that of the time at which a rung is shown.
func share(from, to float64, rung int) func([]moment) float64 {
	return func(log []moment) float64 {
		n, of := 0, 0
		for _, m := range log {
			if m.at >= from && m.at < to {
				of++
				if m.rung == rung {
					n++
				}
			}
		}
		return float64(n) / float64(of)
	}
}

// reached is the time after from at which a rung is shown for a second.
func reached(from, to float64, rung int) func([]moment) float64 {
	return func(log []moment) float64 {
		since := math.Inf(1)
		for _, m := range log {
			switch {
			case m.at < from || m.at > to || m.rung != rung:
				since = math.Inf(1)
			case math.IsInf(since, 1):
				since = m.at
			case m.at-since > 1:
				return since - from
			}
		}
		return math.Inf(1)
	}
}

func scenes() []scene {
	const M = 1e6
	delay := 20 * time.Millisecond
	constant := func(rate float64) func(float64) float64 { return steps(0, rate) }
	step := func(name string, cut float64) scene {
		return scene{name, link{rate: steps(0, 5*M, cut, 0.6*M, 32, 5*M), queue: 300 * time.Millisecond, delay: delay}, 52, []must{
			{"frozen after the cut", frozen(cut, 32), 0, 0.8},
			{"right after", reached(cut, 32, 0), 0, 2},
			{"best after", reached(32, 52, 2), 0, 10},
			{"frozen on the way up", frozen(32, 52), 0, 0},
		}}
	}
	return []scene{
		step("step", 12),
		step("step just before a key frame", 13.6), // most is cached of the smaller rung then
		{"steady", link{rate: constant(2 * M), queue: 300 * time.Millisecond, delay: delay}, 60, []must{
			{"share on the best", share(10, 60, 1), 0.95, 1}, {"frozen", frozen(5, 60), 0, 0},
		}},
		{"ramp", link{rate: func(at float64) float64 { return (4 - 3.4*(1-math.Abs(at-30)/30)) * M }, queue: 300 * time.Millisecond, delay: delay}, 60, []must{
			{"frozen", frozen(5, 60), 0, 2},
		}},
		{"saw", link{rate: steps(0, 4*M, 10, 0.7*M, 20, 4*M, 30, 0.7*M, 40, 4*M, 50, 0.7*M), queue: 300 * time.Millisecond, delay: delay}, 60, []must{
			{"frozen", frozen(5, 60), 0, 3}, {"best after", reached(20, 30, 2), 0, 10},
		}},
		{"bufferbloat", link{rate: steps(0, 3*M, 10, 1.2*M), queue: 2 * time.Second, delay: delay}, 60, []must{
			{"frozen", frozen(5, 60), 0, 1}, {"share on the best", share(20, 60, 1), 0.9, 1},
		}},
		{"loss 5 %, 50 ms", link{rate: constant(5 * M), queue: 300 * time.Millisecond, delay: 50 * time.Millisecond, loss: steps(8, 0.05)}, 60, []must{
			{"frozen", frozen(8, 60), 0, 0.5}, {"share on the best", share(10, 60, 2), 0.95, 1},
		}},
		{"burst loss", link{rate: constant(5 * M), queue: 300 * time.Millisecond, delay: delay, loss: func(at float64) float64 {
			if math.Mod(at, 5) < 0.1 {
				return 0.5
			}
			return 0
		}}, 60, []must{{"frozen", frozen(5, 60), 0, 2}, {"share on the best", share(10, 60, 2), 0.9, 1}}},
		{"clock drift", link{rate: constant(5 * M), queue: 300 * time.Millisecond, delay: delay, drift: 200e-6}, 60, []must{{"share on the best", share(10, 60, 2), 0.99, 1}}},
		{"competing flow", link{rate: constant(3 * M), cross: func(at float64) float64 { // fills and leaves the link every 4 s
			return 0.5*M + 1.2*M*math.Mod(at, 4)/4
		}, queue: 200 * time.Millisecond, delay: delay}, 60, []must{{"share on the worst", share(10, 60, 0), 0, 0.05}, {"frozen", frozen(5, 60), 0, 1}}},
	}
}

// How a viewer goes down depends on what comes sooner: what is cached, or the next key frame.
func TestGoDown(t *testing.T) {
	for _, c := range []struct {
		name     string
		cached   int // bytes
		untilKey time.Duration
		estimate int
		full     bool
		want     rtc.How
	}{
		{"a key frame only", 10_000, 1900 * time.Millisecond, 2e6, true, rtc.AtOnce},
		{"and a moment", 20_000, 1800 * time.Millisecond, 2e6, true, rtc.AtOnce},
		{"and half a second", 35_000, 1500 * time.Millisecond, 2e6, true, rtc.Paused},
		{"and half a second, key frames are rare", 35_000, 9 * time.Second, 2e6, true, rtc.AtOnce},
		{"most of a second", 50_000, time.Second, 2e6, true, rtc.Paused},
		{"just before the next one", 90_000, 100 * time.Millisecond, 2e6, true, rtc.Paused},
		{"nothing", 0, time.Second, 2e6, true, rtc.Paused},
		{"nothing, and there is room", 0, time.Second, 2e6, false, rtc.Seamless},
		{"much, and there is room", 90_000, time.Second, 2e6, false, rtc.AtOnce},
		{"much, and there is some room", 90_000, time.Second, 600e3, false, rtc.Seamless},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := goDown(c.cached, c.untilKey, 400e3, c.estimate, c.full); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// TestChoose lets a viewer watch each scene on a quiet machine, on a path with jitter, and with a peer and a node that are busy with other things.
func TestChoose(t *testing.T) {
	for _, noise := range []struct {
		name string
		add  func(*link)
	}{
		{"quiet", func(*link) {}},
		{"jitter", func(l *link) { l.jitter, l.late = 15*time.Millisecond, 5*time.Millisecond }},
		{"busy", func(l *link) {
			l.jitter, l.late, l.stalls, l.stalled = 2*time.Millisecond, 20*time.Millisecond, 4, 70*time.Millisecond
		}},
	} {
		for _, s := range scenes() {
			t.Run(s.name+", "+noise.name, func(t *testing.T) {
				l := s.link
				noise.add(&l)
				values := make([][]float64, len(s.musts))
				for seed := range uint64(runs) {
					log := simulate(l, threeRungs(), s.seconds, seed+1)
					for i, m := range s.musts {
						values[i] = append(values[i], m.value(log))
					}
				}
				for i, m := range s.musts {
					slices.Sort(values[i])
					t.Logf("%s: %.2f, must be %g to %g", m.what, values[i], m.least, m.most)
					if values[i][1] < m.least || values[i][runs-2] > m.most {
						t.Error(m.what)
					}
				}
			})
		}
	}
}

// runs is how often each scene is played; one may miss.
const runs = 3
