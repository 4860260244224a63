package crowd

import (
	"math"
	"strings"
	"testing"
	"time"

	"sluice/internal/usage"
)

// TestPerViewer: what can't be right is no figure, and it says why.
func TestPerViewer(t *testing.T) {
	const mib = 1 << 20
	begin := time.Unix(1000, 0)
	for _, tc := range []struct {
		name         string
		before, end  float64 // resident bytes
		joining      float64 // seconds of processor until the measured time
		server       float64 // seconds of processor in it
		memory, join float64 // NaN: left out
		remark       string
	}{
		{"a thin stream", 50 * mib, 60 * mib, 0.5, 0.2, 102.4, 3.8, ""},
		{"a server that has run before", 60 * mib, 50 * mib, 0.5, 0.2, math.NaN(), 3.8, "memory_per_viewer is left out"},
		{"as large as before", 60 * mib, 60 * mib, 0.5, 0.2, math.NaN(), 3.8, "memory_per_viewer is left out"},
		{"a thick stream", 50 * mib, 60 * mib, 2, 3, 102.4, math.NaN(), "cpu_per_join is left out"},
		{"more than all", 50 * mib, 60 * mib, 0.5, 2, 102.4, math.NaN(), "cpu_per_join is left out"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := &outcome{seconds: 10, viewers: 100}
			// 2 s of joining and 5 s of warming up: the steady cost counts for 6 s.
			o.before = look{at: begin, ramp: 2 * time.Second, server: usage.Usage{RSS: tc.before}}
			o.begin = look{at: begin.Add(7 * time.Second), server: usage.Usage{CPU: tc.joining}}
			o.end = look{server: usage.Usage{CPU: tc.joining + tc.server, RSS: tc.end}}
			f := Figures{}
			(&crowd{}).perViewer(f, o, tc.server)
			for name, want := range map[string]float64{"memory_per_viewer": tc.memory, "cpu_per_join": tc.join} {
				if v, ok := f[name]; ok == math.IsNaN(want) || ok && math.Abs(v-want) > 1e-9 {
					t.Errorf("%s: %g, %v; want %g", name, v, ok, want)
				}
			}
			if got := strings.Join(o.remarks, " "); tc.remark == "" && got != "" || !strings.Contains(got, tc.remark) {
				t.Errorf("remarks %q, want %q", got, tc.remark)
			}
		})
	}
}

// TestPictureAfterKeys: nothing is shown before it can be decrypted, so no viewer has a picture before it has joined.
func TestPictureAfterKeys(t *testing.T) {
	began := time.Unix(1000, 0)
	at := func(d time.Duration) int64 { return began.Add(d).UnixNano() }
	for _, tc := range []struct {
		name                 string
		keys, picture, shown time.Duration
	}{
		{"picture after the keys", 20 * time.Millisecond, 30 * time.Millisecond, 30 * time.Millisecond},
		{"picture that overtook the handshake", 30 * time.Millisecond, 20 * time.Millisecond, 30 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := &viewer{session: &session{loop: &loop{}, heard: at(tc.keys)}, began: began}
			v.frame(frameState{key: true, at: at(tc.picture)}, true)
			if v.picture != tc.shown {
				t.Errorf("a picture after %s, want %s", v.picture, tc.shown)
			}
		})
	}
}
