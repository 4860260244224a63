package node

import (
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"sluice/internal/clientip"
	"sluice/internal/config"
)

// TestJudge: a node that is full stays so until it is well below what it was full of.
func TestJudge(t *testing.T) {
	limits := config.Limits{CPU: 0.85, Memory: 0.8, Egress: 100, Viewers: 3}
	for _, tc := range []struct {
		name    string
		limits  config.Limits
		lacked  string
		state   loadState
		viewers int
		lacks   string
		full    string
	}{
		{"room", limits, "", loadState{cpu: 0.84, memory: 0.79, egress: 99e6}, 2, "", ""},
		{"CPU", limits, "", loadState{cpu: 0.86}, 0, "cpu", "86 % of its processors are busy"},
		{"CPU, a little below", limits, "cpu", loadState{cpu: 0.78}, 0, "cpu", "78 % of its processors are busy"},
		{"CPU, well below", limits, "cpu", loadState{cpu: 0.76}, 0, "", ""},
		{"CPU is what it was not full of", limits, "memory", loadState{cpu: 0.84}, 0, "", ""},
		{"memory", limits, "", loadState{memory: 0.81}, 0, "memory", "81 % of its memory is in use"},
		{"egress", limits, "", loadState{egress: 101e6}, 0, "egress", "it sends 101 of 100 Mbit/s"},
		{"egress, a little below", limits, "egress", loadState{egress: 91e6}, 0, "egress", "it sends 91 of 100 Mbit/s"},
		{"viewers", limits, "", loadState{}, 3, "viewers", "it has 3 viewers of 3"},
		{"no limits but the processors'", config.Limits{CPU: 1, Memory: 1}, "", loadState{cpu: 1, memory: 0.99, egress: 1e12}, 1e6, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if lacks, full := judge(tc.limits, tc.lacked, tc.state, tc.viewers); lacks != tc.lacks || full != tc.full {
				t.Errorf("got %q, %q; want %q, %q", lacks, full, tc.lacks, tc.full)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	cpu, sent, viewers := 0.0, uint64(1e9), 10
	l := &load{limits: config.Limits{CPU: 0.85, Memory: 0.85, Egress: 100, Viewers: 100},
		read: func() (float64, float64) { return cpu, 0.5 }, sent: func() uint64 { return sent }, viewers: func() int { return viewers }, log: slog.New(slog.DiscardHandler)}
	at := time.Unix(1000, 0)
	second := func(bytes uint64) loadState {
		for range 2 {
			at, sent = at.Add(time.Second/2), sent+bytes/2
			l.measure(at)
		}
		return l.state()
	}
	for range 5 {
		second(5e6)
	}
	if s := second(5e6); math.Abs(s.egress-40e6) > 1 || math.Abs(s.load-0.4) > 1e-6 || s.full != "" {
		t.Errorf("40 Mbit/s of 100: %+v", s)
	}
	viewers = 70
	if s := second(5e6); math.Abs(s.load-0.7) > 1e-6 {
		t.Errorf("70 viewers of 100: %+v", s)
	}
	cpu = 0.9
	if s := second(5e6); math.Abs(s.load-0.9) > 1e-6 || s.full == "" {
		t.Errorf("90 %% CPU: %+v", s)
	}
	cpu = 0.8
	if s := second(5e6); s.full == "" {
		t.Errorf("80 %% CPU, after 90: %+v", s)
	}
	cpu = 0.5
	if s := second(5e6); s.full != "" {
		t.Errorf("50 %% CPU: %+v", s)
	}
	for range 4 {
		second(0)
	}
	if s := second(0); s.egress != 0 || len(l.past) > 8 {
		t.Errorf("nothing is sent: %+v, %d samples", s, len(l.past))
	}
}

func TestFiguresArePrivate(t *testing.T) {
	h := private(clientip.New([]netip.Prefix{netip.MustParsePrefix("10.0.0.5/32")}), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	for _, tc := range []struct {
		name, peer, forwarded string
		status                int
	}{
		{"this machine", "127.0.0.1:5", "", 200},
		{"a private network", "10.0.0.9:5", "", 200},
		{"a private network of IPv6", "[fd00::1]:5", "", 200},
		{"the internet", "203.0.113.9:5", "", 403},
		{"the internet, through the gateway", "10.0.0.5:5", "203.0.113.9", 403},
		{"somebody who says so himself", "203.0.113.9:5", "10.0.0.1", 403},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
			r.RemoteAddr = tc.peer
			if tc.forwarded != "" {
				r.Header.Set("X-Forwarded-For", tc.forwarded)
			}
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, r); w.Code != tc.status {
				t.Errorf("%d, want %d", w.Code, tc.status)
			}
		})
	}
}
