package congestion

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pion/interceptor/pkg/twcc"
)

var begin = time.Unix(1_000_000, 0)

// trace are the times at which packets are sent and arrive; 0: it is lost.
type trace struct {
	sent, came []time.Duration
	size       int
}

// path makes a trace of a stream of 30 frames a second over a path.
type path struct {
	sent    float64                  // bit/s
	takes   func(at float64) float64 // bit/s
	queue   time.Duration            // that it holds
	extra   func(at float64) float64 // seconds that a packet takes more
	loss    func(at float64) float64 // share
	drift   float64                  // of the peer's clock
	key     float64                  // how many times as large as others each 60th frame is
	share   func(at float64) float64 // of what is sent usually; nil: all
	seconds float64
}

func (p path) trace() (t trace) {
	const size = 1000
	r := rand.New(rand.NewPCG(1, 2))
	free, last := 0.0, 0.0
	for n := 0; float64(n)/30 < p.seconds; n++ {
		at := float64(n) / 30
		bits := p.sent / 30
		if p.key > 0 && n%60 == 0 {
			bits *= p.key
		}
		least := 1
		if p.share != nil {
			bits, least = bits*p.share(at), 0
		}
		for i := range max(least, int(math.Round(bits/8/size))) {
			sent := at + float64(i/8)*0.002 // eight at once
			t.sent = append(t.sent, time.Duration(sent*1e9))
			free = max(free, sent)
			if p.queue > 0 && free-sent > p.queue.Seconds() || p.loss != nil && r.Float64() < p.loss(at) {
				t.came = append(t.came, 0)
				continue
			}
			free += size * 8 / p.takes(at)
			came := free + 0.02
			if p.extra != nil {
				came += p.extra(at)
			}
			last = max(last, came)
			t.came = append(t.came, time.Duration(last*(1+p.drift)*1e9))
		}
	}
	t.size = size
	return t
}

// play tells a Control of a trace, in a message each 100 ms, and calls see each 50 ms.
func (t trace) play(tb testing.TB, c *Control, see func(at float64, estimate int)) {
	recorder := twcc.NewRecorder(1)
	type arrival struct {
		number uint16
		at     time.Duration
	}
	var under []arrival
	next := 50 * time.Millisecond
	for i, sent := range t.sent {
		for ; sent >= next; next += 50 * time.Millisecond {
			see(next.Seconds(), c.Estimate())
			if next%(100*time.Millisecond) != 0 {
				continue
			}
			for len(under) > 0 && under[0].at <= next {
				recorder.Record(2, under[0].number, begin.Add(under[0].at).UnixMicro())
				under = under[1:]
			}
			for _, p := range recorder.BuildFeedbackPacket() {
				b, err := p.Marshal()
				if err != nil {
					tb.Fatal(err)
				}
				c.Feedback(b[12:], begin.Add(next))
			}
		}
		number := c.Send(t.size, begin.Add(sent))
		if t.came[i] > 0 {
			under = append(under, arrival{number, t.came[i]})
		}
	}
}

func step(at, before, after float64) func(float64) float64 {
	return func(now float64) float64 {
		if now < at {
			return before
		}
		return after
	}
}

// The estimate follows the path, and nothing else.
func TestEstimate(t *testing.T) {
	const M = 1e6
	random := rand.New(rand.NewPCG(3, 4))
	jitter := func(float64) float64 { return 0.02 * random.Float64() }
	for _, c := range []struct {
		name        string
		path        path
		from        float64 // second from which on the estimate must be between
		least, most float64 // bit/s
	}{
		{"room", path{sent: 2 * M, takes: step(0, 0, 50*M)}, 3, 2 * M, 4 * M},
		{"jitter of 20 ms", path{sent: 0.8 * M, takes: step(0, 0, 2*M), extra: jitter}, 3, 0.8 * M, 2.2 * M},
		{"large key frames", path{sent: 0.8 * M, takes: step(0, 0, 2*M), key: 10}, 3, 0.8 * M, 2.2 * M},
		{"large key frames and jitter", path{sent: 0.8 * M, takes: step(0, 0, 2*M), key: 10, extra: jitter}, 3, 0.8 * M, 2.2 * M},
		{"the peer stands still for 80 ms each second", path{sent: 0.8 * M, takes: step(0, 0, 2*M), extra: func(at float64) float64 { return max(0, 0.08-math.Mod(at, 1)) }}, 3, 0.8 * M, 2.2 * M},
		{"the peer's clock is fast", path{sent: 2 * M, takes: step(0, 0, 50*M), drift: 500e-6}, 3, 2 * M, 4 * M},
		{"and slow", path{sent: 2 * M, takes: step(0, 0, 50*M), drift: -500e-6}, 3, 2 * M, 4 * M},
		{"a path that is a second longer from now on", path{sent: 2 * M, takes: step(0, 0, 50*M), extra: step(5, 0, 1)}, 8, 2 * M, 4 * M},
		{"half of it", path{sent: 2 * M, takes: step(5, 50*M, 1*M), queue: 300 * time.Millisecond}, 6, 0.7 * M, 1.05 * M},
		{"half of it, with a queue of 2 s", path{sent: 2 * M, takes: step(5, 50*M, 1*M), queue: 2 * time.Second}, 6.5, 0.7 * M, 1.05 * M},
		{"a quarter of it, and nothing is sent for a second", path{sent: 2 * M, takes: step(5, 5*M, 0.5*M), queue: 300 * time.Millisecond, share: func(at float64) float64 {
			switch {
			case at < 5.4:
				return 1
			case at < 6.4:
				return 0
			}
			return 0.2
		}}, 6, 0.3 * M, 0.8 * M},
		{"a little less", path{sent: 2 * M, takes: step(5, 50*M, 1.8*M), queue: time.Second}, 7.5, 1.3 * M, 1.9 * M},
		{"a fifth is lost", path{sent: 2 * M, takes: step(0, 0, 50*M), loss: step(5, 0, 0.2)}, 15, leastEstimate, 1.7 * M},
		{"5 % are lost", path{sent: 2 * M, takes: step(0, 0, 50*M), loss: step(5, 0, 0.05)}, 3, 1.9 * M, 4 * M},
		{"much is lost for a moment", path{sent: 2 * M, takes: step(0, 0, 50*M), loss: func(at float64) float64 { return 0.5 * step(0.1, 1, 0)(math.Mod(at, 5)) }}, 3, 1.5 * M, 4 * M},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.path.seconds = 20
			var control Control
			least, most := math.Inf(1), 0.0
			c.path.trace().play(t, &control, func(at float64, estimate int) {
				if at > c.from {
					least, most = min(least, float64(estimate)), max(most, float64(estimate))
				}
			})
			if least < c.least || most > c.most {
				t.Errorf("estimated %.0f to %.0f bit/s, want %.0f to %.0f", least, most, c.least, c.most)
			}
		})
	}
}

// A path that is full is known before the peer can tell of it, and soon after it is cut.
func TestLate(t *testing.T) {
	for _, c := range []struct {
		name string
		path path
		late bool
	}{
		{"cut to a quarter", path{sent: 2e6, takes: step(5, 5e6, 0.5e6), queue: 300 * time.Millisecond}, true},
		{"jitter", path{sent: 2e6, takes: step(5, 5e6, 4e6), extra: func(at float64) float64 { return 0.03 * math.Mod(at*7, 1) }}, false},
		{"key frames on a narrow path", path{sent: 0.8e6, takes: step(0, 0, 1.2e6), key: 6}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.path.seconds = 10
			var control Control
			var late float64
			c.path.trace().play(t, &control, func(at float64, _ int) {
				if control.Late(begin.Add(time.Duration(at*1e9))) && late == 0 {
					late = at
				}
			})
			if c.late && (late < 5 || late > 5.5) || !c.late && late != 0 {
				t.Errorf("late at %.1f s", late)
			}
		})
	}
}

// Where much is lost packets are sent again more than once, soon after that begins; but not to a path that is full.
func TestAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		path  path
		at    float64
		least int
		most  int
	}{
		{"nothing is lost", path{takes: step(0, 0, 50e6)}, 8, 1, 1},
		{"5 %, for half a second", path{takes: step(0, 0, 50e6), loss: step(5, 0, 0.05)}, 5.5, 2, 3},
		{"5 %", path{takes: step(0, 0, 50e6), loss: step(5, 0, 0.05)}, 8, 2, 3},
		{"the path is full", path{takes: step(5, 50e6, 1e6), queue: 300 * time.Millisecond}, 8, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.path.sent, c.path.seconds = 2.5e6, 9
			var control Control
			got := 0
			c.path.trace().play(t, &control, func(at float64, _ int) {
				if at <= c.at {
					got = control.Again(begin.Add(time.Duration(at * 1e9)))
				}
			})
			if got < c.least || got > c.most {
				t.Errorf("%d times", got)
			}
		})
	}
}

// A path that is full gets nothing for a moment, and then less than what is sent to it usually.
func TestPaceOfAFullPath(t *testing.T) {
	var c Control
	p := path{sent: 2.5e6, takes: step(0, 0, 5e6), seconds: 5}
	p.trace().play(t, &c, func(float64, int) {})
	now := begin.Add(5 * time.Second)
	before := c.Pace(now)
	c.Full(400e3, now)
	if got := c.Pace(now.Add(50 * time.Millisecond)); got != 0 {
		t.Errorf("%.0f bit/s while its queue drains", got)
	}
	if got := c.Pace(now.Add(500 * time.Millisecond)); got < 400e3 || got > 600e3 || before < 3e6 {
		t.Errorf("%.0f bit/s, and %.0f before", got, before)
	}
}

// Nothing is allocated for a packet, nor for a message.
func TestNothingIsAllocated(t *testing.T) {
	var c Control
	recorder := twcc.NewRecorder(1)
	now := begin
	var b []byte
	round := func() {
		for range 10 {
			recorder.Record(2, c.Send(1000, now), now.UnixMicro())
		}
		now = now.Add(100 * time.Millisecond)
	}
	round()
	b, err := recorder.BuildFeedbackPacket()[0].Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		c.Send(1000, now)
		c.Feedback(b[12:], now)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
