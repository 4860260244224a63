package load

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"sluice/media"
)

func TestQuantile(t *testing.T) {
	ms := func(v ...float64) (d []time.Duration) {
		for _, v := range v {
			d = append(d, time.Duration(v*float64(time.Millisecond)))
		}
		return d
	}
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i+1) * time.Millisecond
	}
	for _, c := range []struct {
		name string
		in   []time.Duration
		q    float64
		want time.Duration
	}{
		{"none", nil, 0.5, 0},
		{"one", ms(7), 0.99, 7 * time.Millisecond},
		{"two, the lower", ms(1, 9), 0.5, time.Millisecond},
		{"two, the upper", ms(1, 9), 0.51, 9 * time.Millisecond},
		{"median of a hundred", hundred, 0.5, 50 * time.Millisecond},
		{"95 %", hundred, 0.95, 95 * time.Millisecond},
		{"99 %", hundred, 0.99, 99 * time.Millisecond},
		{"all", hundred, 1, 100 * time.Millisecond},
		{"negative counts as zero", ms(-5), 0.5, 0},
		{"two hours count as 71 minutes, the maximum is kept", []time.Duration{2 * time.Hour}, 1, 2 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			var h, half, other Histogram
			for i, d := range c.in {
				h.Add(d)
				if i%2 == 0 {
					half.Add(d)
				} else {
					other.Add(d)
				}
			}
			half.Merge(&other)
			for _, h := range []*Histogram{&h, &half} {
				got := h.Quantile(c.q)
				if e := math.Abs(float64(got - c.want)); e > 0.016*float64(c.want) {
					t.Errorf("%s, want %s", got, c.want)
				}
			}
		})
	}
}

func TestHistogramIsWithin2PercentOfSorting(t *testing.T) {
	var h Histogram
	var all []time.Duration
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		d := time.Duration(r.ExpFloat64() * float64(30*time.Millisecond))
		h.Add(d)
		all = append(all, d)
	}
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.9, 0.95, 0.99, 0.999} {
		want := all[int(math.Ceil(q*5000))-1]
		if got := h.Quantile(q); math.Abs(float64(got-want)) > 0.02*float64(want)+1000 {
			t.Errorf("%g: %s, want %s", q, got, want)
		}
	}
	if h.Count() != 5000 || h.min != all[0] || h.max != all[4999] {
		t.Errorf("%d values from %s to %s", h.Count(), h.min, h.max)
	}
}

func TestWallClock(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 250_000_000, time.UTC).UnixNano()
	for _, c := range []struct {
		name  string
		rate  int64
		rtp   uint32 // in the report
		stamp uint32
		want  time.Duration // after the report
	}{
		{"same moment", 90000, 5000, 5000, 0},
		{"a frame later", 90000, 5000, 8000, 33_333_333 * time.Nanosecond},
		{"before the report", 48000, 48000, 0, -time.Second},
		{"wrapped", 90000, math.MaxUint32 - 44999, 45000, time.Second},
		{"wrapped back", 90000, 45000, math.MaxUint32 - 44999, -time.Second},
		{"five hours", 90000, 1, 1 + 5*3600*90000, 5 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := wallClock{rate: c.rate}
			k.set(&rtcp.SenderReport{NTPTime: toNTP(at), RTPTime: c.rtp})
			if got := time.Duration(k.at(c.stamp) - at); (got - c.want).Abs() > 2 {
				t.Errorf("%s after the report, want %s", got, c.want)
			}
			if got := int32(k.stamp(k.at(c.stamp)) - c.stamp); got < -1 || got > 0 {
				t.Errorf("there and back is off by %d", got)
			}
		})
	}
}

// script plays packets of VP8 frames, of one packet each, into a reception. ms -1: never comes.
func script(frames []float64, pace uint32) *reception {
	return scriptAt(frames, func(i int) uint32 { return uint32(i) * pace })
}

func scriptAt(frames []float64, stamp func(int) uint32) *reception {
	r := newReception(media.Video, media.VP8, 90000)
	key := []byte{0x10, 0x90, 0x0f, 0x00, 0x9d, 0x01, 0x2a, 0x42, 0x01, 0xb6, 0x00, 0x00}
	began := time.Unix(1_800_000_000, 0)
	for i, ms := range frames {
		if ms < 0 {
			continue
		}
		r.packet(&rtp.Packet{Header: rtp.Header{SequenceNumber: uint16(65530 + i), Timestamp: stamp(i), Marker: true}, Payload: key},
			began.Add(time.Duration(ms*float64(time.Millisecond))))
	}
	return r
}

func TestFreeze(t *testing.T) {
	steady := func(n int, every float64) (f []float64) {
		for i := range n {
			f = append(f, float64(i)*every)
		}
		return f
	}
	later := func(f []float64, from int, by float64) []float64 {
		f = slices.Clone(f)
		for i := from; i < len(f); i++ {
			f[i] += by
		}
		return f
	}
	for _, c := range []struct {
		name    string
		frames  []float64
		pace    uint32
		live    bool    // and is watched for a second more
		freezes int     // wanted
		longest float64 // ms
	}{
		{"steady at 30 a second", steady(60, 1000.0/30), 3000, false, 0, 33.3},
		{"a pause of 190 ms", later(steady(60, 1000.0/30), 30, 190-1000.0/30), 3000, false, 0, 190},
		{"a pause of 210 ms", later(steady(60, 1000.0/30), 30, 210-1000.0/30), 3000, false, 1, 210},
		{"two pauses", later(later(steady(60, 1000.0/30), 30, 300), 40, 500), 3000, false, 2, 533.3},
		{"five frames a second are no freeze", steady(20, 200), 18000, false, 0, 200},
		{"at five a second, two frames are left out", later(steady(20, 200), 10, 400), 18000, false, 0, 600},
		{"at five a second, three frames are left out", later(steady(20, 200), 10, 600), 18000, false, 1, 800},
		{"silence at the end", steady(30, 1000.0/30), 3000, true, 1, 1000},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := script(c.frames, c.pace)
			r.finish(r.last.Add(time.Second), c.live)
			s := r.stats()
			if got := float64(s.LongestGap) / 1e6; s.Freezes != c.freezes || math.Abs(got-c.longest) > 0.1 {
				t.Errorf("%d freezes, longest gap %.1f ms; want %d, %.1f ms", s.Freezes, got, c.freezes, c.longest)
			}
		})
	}
}

func TestLatencyIsFromCaptureToArrival(t *testing.T) {
	// Captured every 100 ms from second 0 on, 40 ms on the way; the last one takes 90 ms. The first was captured
	// before the session could have it.
	frames := []float64{40, 140, 240, 340, 490}
	base := time.Unix(1_800_000_000, 0)
	sr := &rtcp.SenderReport{NTPTime: toNTP(base.Add(200 * time.Millisecond).UnixNano()), RTPTime: 2 * 9000}
	r := script(frames, 9000)
	if s := r.stats(); s.Latency.Frames != 0 {
		t.Errorf("latency without a sender report: %+v", s.Latency)
	}
	r.report(sr) // counts for what was before it, too
	l := r.stats().Latency
	if l.Frames != 4 || l.Cached != 1 || l.P50.String() != "40.0 ms" && l.P50.String() != "40.2 ms" || l.Max.String() != "90.0 ms" || l.Ahead != 0 {
		t.Errorf("latency %+v", l)
	}
	ahead := script(frames, 9000)
	sr.NTPTime = toNTP(base.Add(time.Hour).UnixNano())
	ahead.report(sr)
	if l := ahead.stats().Latency; l.Ahead != 5 || l.Max != 0 {
		t.Errorf("with a publisher's clock that is an hour ahead: %+v", l)
	}
	behind := script(frames, 9000)
	sr.NTPTime = toNTP(base.Add(-time.Hour).UnixNano())
	behind.report(sr)
	if l := behind.stats().Latency; l.Frames != 5 || l.P50 < Millis(time.Hour) {
		t.Errorf("with a publisher's clock that is an hour behind: %+v", l)
	}
}

// A server begins with its GOP cache: a second of pictures at once. That is neither a high frame rate nor latency.
func TestFastStart(t *testing.T) {
	for _, pace := range []string{"as captured", "squeezed by the server"} {
		t.Run(pace, func(t *testing.T) { fastStart(t, pace != "as captured") })
	}
}

func fastStart(t *testing.T, squeezed bool) {
	var frames []float64
	for i := range 30 {
		frames = append(frames, 1000+float64(i)/10)
	}
	for i := range 60 {
		frames = append(frames, 1000+20+float64(i)*1000/30)
	}
	sr := &rtcp.SenderReport{NTPTime: toNTP(time.Unix(1_800_000_000, 0).UnixNano())}
	stamp := func(i int) uint32 {
		if squeezed && i < 30 {
			return 90_000 - uint32(30-i)*90 // 1 ms apart, up to what is live
		}
		return uint32(i) * 3000
	}
	r := scriptAt(frames, stamp)
	r.report(sr)
	s := r.stats()
	if s.FPS < 29.9 || s.FPS > 30.1 || s.Freezes != 0 {
		t.Errorf("%.2f frames a second, %d freezes", s.FPS, s.Freezes)
	}
	if l := s.Latency; l.Cached != 30 || l.Frames != 60 || l.Max.String() != "20.0 ms" {
		t.Errorf("latency %+v", l)
	}
}

func TestKeyFrameIsAskedForAsADecoderWould(t *testing.T) {
	r := newReception(media.Video, media.VP8, 90000)
	base := time.Unix(1_800_000_000, 0)
	other := []byte{0x10, 0x31, 2, 0, 1, 16, 16, 0, 20, 0, 24, 96, 0}
	key := []byte{0x10, 0x90, 0x0f, 0x00, 0x9d, 0x01, 0x2a, 0x42, 0x01, 0xb6, 0x00, 0x00}
	for _, step := range []struct {
		name    string
		seq     uint16
		ms      int
		payload []byte
		want    bool
	}{
		{"no key frame at first", 1, 0, other, false},
		{"none for half a second", 2, 500, other, true},
		{"just asked", 3, 700, other, false},
		{"still none", 4, 1001, other, true},
		{"there it is", 5, 1500, key, false},
		{"all is well", 6, 1533, other, false},
		{"one is missing, but may still come", 8, 1600, other, false},
		{"it is lost", 9, 1900, other, true},
		{"there it is", 10, 1950, key, false},
		{"all is well again", 11, 3000, other, false},
	} {
		now := base.Add(time.Duration(step.ms) * time.Millisecond)
		r.packet(&rtp.Packet{Header: rtp.Header{SequenceNumber: step.seq, Timestamp: uint32(step.seq) * 3000, Marker: true}, Payload: step.payload}, now)
		if got := r.wantsKey(now); got != step.want {
			t.Errorf("%s: asks %v", step.name, got)
		}
	}
}

func TestReorder(t *testing.T) {
	type in struct {
		seq uint16
		ms  int
	}
	for _, c := range []struct {
		name                 string
		in                   []in
		want                 []uint16
		gaps                 int
		lost, late, repeated uint64
	}{
		{"in order, wrapping", []in{{65534, 0}, {65535, 1}, {0, 2}, {1, 3}}, []uint16{65534, 65535, 0, 1}, 0, 0, 0, 0},
		{"swapped", []in{{1, 0}, {3, 1}, {2, 2}, {4, 3}}, []uint16{1, 2, 3, 4}, 0, 0, 1, 0},
		{"sent again in time", []in{{1, 0}, {3, 10}, {4, 20}, {5, 200}, {2, 249}}, []uint16{1, 2, 3, 4, 5}, 0, 0, 1, 0},
		{"lost", []in{{1, 0}, {3, 10}, {4, 20}, {5, 270}}, []uint16{1, 3, 4, 5}, 1, 1, 0, 0},
		{"too late", []in{{1, 0}, {3, 10}, {4, 270}, {2, 280}}, []uint16{1, 3, 4}, 1, 1, 0, 1},
		{"twice", []in{{1, 0}, {1, 1}, {3, 2}, {3, 3}, {2, 4}}, []uint16{1, 2, 3}, 0, 0, 1, 2},
		{"two holes", []in{{1, 0}, {3, 10}, {6, 20}, {7, 500}}, []uint16{1, 3, 6, 7}, 2, 3, 0, 0},
		{"a hole at the end is flushed", []in{{1, 0}, {3, 1}}, []uint16{1, 3}, 1, 1, 0, 0},
		{"far ahead", []in{{1, 0}, {1 + window + 5, 1}}, []uint16{1, 1 + window + 5}, 1, window + 4, 0, 0},
		{"another numbering", []in{{1, 0}, {40000, 1}, {40001, 2}}, []uint16{1, 40000, 40001}, 1, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []uint16
			gaps := 0
			r := reorder{out: func(p *rtp.Packet, _ time.Time, gap bool) {
				got = append(got, p.SequenceNumber)
				if gap {
					gaps++
				}
			}}
			now := time.Unix(0, 0)
			for _, i := range c.in {
				now = time.Unix(0, 0).Add(time.Duration(i.ms) * time.Millisecond)
				r.push(&rtp.Packet{Header: rtp.Header{SequenceNumber: i.seq}}, now)
			}
			r.flush(now)
			if !slices.Equal(got, c.want) || gaps != c.gaps || r.lost != c.lost || r.late != c.late || r.repeated != c.repeated {
				t.Errorf("got %v, %d gaps, %d lost, %d late, %d repeated", got, gaps, r.lost, r.late, r.repeated)
			}
		})
	}
}

// Whatever comes in whatever order, packets come out in order, once, and all are accounted for.
func FuzzReorder(f *testing.F) {
	f.Add([]byte{0, 1, 2, 4, 3, 9, 200, 5})
	f.Add([]byte{0, 255, 255, 255, 255, 255, 1, 1})
	f.Fuzz(func(t *testing.T, steps []byte) {
		last, n, first := 0, 0, true
		r := reorder{}
		r.out = func(p *rtp.Packet, _ time.Time, gap bool) {
			if d := int(int16(p.SequenceNumber - uint16(last))); !first && d != 1 && !gap {
				t.Fatalf("%d after %d without a gap", p.SequenceNumber, uint16(last))
			}
			first, last = false, int(p.SequenceNumber)
			n++
		}
		now, seq := time.Unix(0, 0), uint16(0)
		for _, s := range steps {
			seq += uint16(int8(s)) * 9
			now = now.Add(time.Duration(s) * time.Millisecond)
			r.push(&rtp.Packet{Header: rtp.Header{SequenceNumber: seq}}, now)
		}
		r.flush(now)
		if uint64(n)+r.repeated != uint64(len(steps)) {
			t.Fatalf("%d in, %d out, %d repeated", len(steps), n, r.repeated)
		}
	})
}
