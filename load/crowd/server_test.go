package crowd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	outrtc "sluice/egress/webrtc"
	inrtc "sluice/ingest/webrtc"
	"sluice/internal/access"
	"sluice/internal/impair"
	"sluice/rtc"
	"sluice/signal"
	"sluice/signal/whep"
	"sluice/signal/whip"
	"sluice/stream"
)

// server is what a standalone node has between WHIP and WHEP.
type server struct {
	*httptest.Server
	out   *outrtc.Egress
	media netip.AddrPort
	stop  func() // all but HTTP
}

func newServer(t *testing.T) *server {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	hub := stream.NewHub(stream.Config{Log: quiet, Farewell: 200 * time.Millisecond})
	endpoint := rtc.New(rtc.Config{Listen: "127.0.0.1:0", Log: quiet})
	if err := endpoint.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = hub.Run(ctx) })
	running.Go(func() { _ = endpoint.Run(ctx) })
	s := &server{out: outrtc.New(outrtc.Config{Hub: hub, RTC: endpoint, Log: quiet}), media: endpoint.Addr()}
	cfg := signal.Config{Node: "n", Apps: func() []string { return []string{"live"} }, Log: quiet, Authorize: func(_ context.Context, r access.Request) (*access.Grant, error) {
		if r.Token == "bad" {
			return nil, access.ErrForbidden
		}
		return nil, nil
	}, ClientAddr: func(*http.Request) netip.Addr { return netip.Addr{} }}
	mux := http.NewServeMux()
	whip.New(inrtc.New(inrtc.Config{Hub: hub, RTC: endpoint, Log: quiet}), cfg).Register(mux)
	whep.New(s.out, cfg).Register(mux)
	s.Server = httptest.NewServer(mux)
	var once sync.Once
	s.stop = func() { once.Do(func() { cancel(); running.Wait() }) }
	t.Cleanup(func() { s.Close(); s.stop() })
	return s
}

func (s *server) config() Config {
	c := good()
	c.Publish, c.Play = s.URL+"/live/whip/a%d", s.URL+"/live/whep/a%d"
	return c
}

// bounded is the context of a run that must not take longer.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestRun(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	cfg := s.config()
	cfg.Streams, cfg.Viewers, cfg.For = 2, 5, 1200*time.Millisecond
	var seen atomic.Int64
	cfg.Progress = func(Sample) { seen.Add(1) }
	r, err := Run(bounded(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", r)
	f := r.Figures
	if f["up"] != 100 || f["failed"] != 0 || f["ended"] != 0 || f["undecryptable"] != 0 {
		t.Errorf("not all is well: %v", f)
	}
	// Other tests may keep the machine busy.
	if f["fps"] < 15 || f["fps"] > 36 {
		t.Errorf("%.1f frames a second, want about 30", f["fps"])
	}
	if want := 10 * (0.3 + 0.064); f["mbps"] < want/2 || f["mbps"] > 1.6*want {
		t.Errorf("%.2f Mbit/s, want about %.2f", f["mbps"], want)
	}
	if f["latency_p50"] <= 0 || f["latency_p50"] > 1000 || f["ttff_p50"] <= 0 || f["ttff_p50"] > 5000 || f["join_p50"] <= 0 {
		t.Errorf("latency %g, first picture %g, join %g", f["latency_p50"], f["ttff_p50"], f["join_p50"])
	}
	for _, q := range quantiles() {
		if f["join"+q.suffix] > f["ttff"+q.suffix] {
			t.Errorf("%s: joined after %g ms, and a picture after %g", q.suffix, f["join"+q.suffix], f["ttff"+q.suffix])
		}
	}
	if len(r.Pictures) != 10 || len(r.Samples) < 3 || seen.Load() < 3 {
		t.Errorf("%d first pictures, %d samples, %d told", len(r.Pictures), len(r.Samples), seen.Load())
	}
	if n := s.out.Viewers(); n != 0 {
		t.Errorf("%d viewers are left on the server", n)
	}
	var page strings.Builder
	if err := r.HTML(&page); err != nil || strings.Count(page.String(), "<svg") != 6 || strings.Contains(page.String(), "http://www") {
		t.Errorf("the page: %v, %d charts", err, strings.Count(page.String(), "<svg"))
	}
}

// TestProfiles: all ways in which a server may seal.
func TestProfiles(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for i, name := range []string{"GCM 128", "GCM 256", "CM"} {
		t.Run(name, func(t *testing.T) {
			c := newTestCrowd(t, s.config())
			c.identity.profiles = profiles()[i : i+1]
			var wg sync.WaitGroup
			ctx, cancel := context.WithCancel(bounded(t))
			defer func() { cancel(); wg.Wait() }()
			if err := c.publish(ctx, &wg); err != nil {
				t.Fatal(err)
			}
			c.grow(ctx, 1)
			defer c.leave(ctx, 0)
			c.wait(t, func(s sum) string {
				if s.frames < 10 || s.up != 1 {
					return fmt.Sprintf("%d frames, %d up; failures: %v", s.frames, s.up, c.reasons)
				}
				return ""
			})
			if o := c.measured(c.begin(c.look())); o.bad != 0 {
				t.Errorf("%d packets could not be decrypted", o.bad)
			}
		})
	}
}

// newTestCrowd is a crowd whose loops run as long as the test.
func newTestCrowd(t *testing.T, cfg Config) *crowd {
	t.Helper()
	c, err := newCrowd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var loops sync.WaitGroup
	ended := make(chan error, 64)
	if err := c.startLoops(&loops, ended); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.stopLoops(&loops); err != nil {
			t.Error(err)
		}
		c.client.Close()
	})
	return c
}

// wait waits until why is empty.
func (c *crowd) wait(t *testing.T, why func(sum) string) {
	t.Helper()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	deadline := time.After(15 * time.Second)
	for {
		w := why(c.sum())
		if w == "" {
			return
		}
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatal(w)
		}
	}
}

// TestServerEnds: sessions that end are told from those that go on.
func TestServerEnds(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := newTestCrowd(t, s.config())
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(bounded(t))
	defer func() { cancel(); wg.Wait() }()
	if err := c.publish(ctx, &wg); err != nil {
		t.Fatal(err)
	}
	c.grow(ctx, 3)
	defer c.leave(ctx, 0)
	c.wait(t, func(s sum) string {
		if s.up != 3 {
			return fmt.Sprintf("%d are up, want 3", s.up)
		}
		return ""
	})
	s.stop()
	c.wait(t, func(s sum) string {
		if s.ended != 3 {
			return fmt.Sprintf("%d have ended, want 3", s.ended)
		}
		return ""
	})
}

func TestFailures(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, tc := range []struct {
		name   string
		change func(*Config)
		want   string // the run's error
		reason string // the viewers'
	}{
		{"nobody may publish", func(c *Config) { c.Token = "bad" }, "publish: ", ""},
		{"no server", func(c *Config) { c.Publish = ""; c.Play = "http://127.0.0.1:1/live/whep/a" }, "", "reach 127.0.0.1:1: "},
		{"nothing to see", func(c *Config) { c.Publish = "" }, "", "stream_offline"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := s.config()
			cfg.Viewers, cfg.For = 3, 50*time.Millisecond
			cfg.Thresholds = DefaultCapacityThresholds()
			tc.change(&cfg)
			r, err := Run(bounded(t), cfg)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("error %v, want %q", err, tc.want)
				}
				return
			}
			if err != nil || r.Figures["failed"] != 3 || len(r.Failures) != 1 || r.Failures[0].Times != 3 || !strings.Contains(r.Failures[0].Error, tc.reason) {
				t.Fatalf("%v, %+v", err, r)
			}
			if len(r.Broken) != 3 || r.Broken[0].Name != "loss" || !r.Broken[0].Missing || r.Broken[1].Name != "latency_p95" || !r.Broken[1].Missing || r.Broken[2].Name != "up" {
				t.Errorf("broken: %v", r.Broken)
			}
			for _, name := range []string{"loss", "loss_p95", "freezes", "gap_max", "mbps", "fps", "packets_per_second", "cpu_per_packet"} {
				if v, ok := r.Figures[name]; ok {
					t.Errorf("%s is %g, and nobody has seen a packet", name, v)
				}
			}
			if err := r.Unmeasured(); err == nil || !strings.Contains(err.Error(), tc.reason) {
				t.Errorf("unmeasured: %v, want %q", err, tc.reason)
			}
		})
	}
}

// TestStaysHere: nothing that a server says leads to another machine.
func TestStaysHere(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, tc := range []struct {
		name, candidate string
		location        string // of a redirect
		own             bool
		want            string // the reason; "": viewers join
	}{
		{"a redirect to another server", "", "http://192.0.2.1:1/live/whep/a0", false, "192.0.2.1 is not loopback"},
		{"a redirect on this machine", "", "here", false, ""},
		{"a candidate of another machine", "192.0.2.1", "", false, "sends media to 192.0.2.1, which is not this machine"},
		{"a candidate of another machine, and one of this", "both", "", false, ""},
		{"a candidate of another machine, with permission", "both", "", true, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			front := httptest.NewServer(s.rewriting(t, func(answer string) string {
				here := fmt.Sprintf(" 127.0.0.1 %d ", s.media.Port())
				switch tc.candidate {
				case "":
					return answer
				case "both":
					return strings.Replace(answer, "a=candidate:", "a=candidate:9 1 udp 1 192.0.2.1 9 typ host\r\na=candidate:", 1)
				}
				return strings.ReplaceAll(answer, here, " "+tc.candidate+" 9 ")
			}))
			defer front.Close()
			cfg := s.config()
			cfg.Play, cfg.Viewers, cfg.For, cfg.Own = front.URL+"/live/whep/a%d", 1, 300*time.Millisecond, tc.own
			if to := tc.location; to != "" {
				if to == "here" {
					to = front.URL + "/live/whep/a0"
				}
				r := httptest.NewServer(http.RedirectHandler(to, http.StatusTemporaryRedirect))
				defer r.Close()
				cfg.Play = r.URL + "/a%d"
			}
			r, err := Run(bounded(t), cfg)
			if err != nil {
				t.Fatal(err)
			}
			switch err := r.Unmeasured(); {
			case tc.want == "" && err != nil:
				t.Error(err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || !errors.Is(err, ErrNotYours)):
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

func TestLocal(t *testing.T) {
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	c := good()
	local, err := c.local()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range own {
		if p := netip.MustParsePrefix(a.String()); !local(p.Addr()) {
			t.Errorf("%s is this machine's", p.Addr())
		}
	}
	for _, a := range []string{"192.0.2.1", "2001:db8::1", "0.0.0.0", "::", "224.0.0.1", "255.255.255.255"} {
		if local(netip.MustParseAddr(a)) {
			t.Errorf("%s is taken for this machine's", a)
		}
	}
}

func TestStopped(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	cfg := s.config()
	cfg.Viewers, cfg.Warm = 2, time.Hour
	ctx, cancel := context.WithCancel(bounded(t))
	defer cancel()
	cfg.Progress = func(m Sample) {
		if m.Up == 2 {
			cancel()
		}
	}
	r, err := Run(ctx, cfg)
	if err != nil || r.Stopped == "" || r.Figures["up"] != 100 || len(r.Pictures) != 2 {
		t.Errorf("%v, %+v", err, r)
	}
}

func TestFindCapacity(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	cfg := s.config()
	cfg.Viewers = 9
	cfg.Capacity = &Capacity{From: 4, Hold: 300 * time.Millisecond, Limit: time.Minute}
	var err error
	if cfg.Thresholds, err = ParseThresholds("packets_per_second>300"); err != nil { // 50 of sound and 60 of video for each
		t.Fatal(err)
	}
	r, err := Run(bounded(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if k := r.Capacity; k.Viewers < 2 || k.Viewers > 3 || !strings.Contains(k.Reason, "packets_per_second>300: it is") || len(k.Steps) < 2 {
		t.Errorf("found %d, %s, %d steps", k.Viewers, k.Reason, len(k.Steps))
	}
}

// over is the server's address when its media goes over a path.
func (s *server) over(t *testing.T, r *impair.Relay) string {
	t.Helper()
	front := httptest.NewServer(s.rewriting(t, func(answer string) string {
		return strings.ReplaceAll(answer, fmt.Sprintf(" 127.0.0.1 %d ", s.media.Port()), fmt.Sprintf(" 127.0.0.1 %d ", r.Addr().Port()))
	}))
	t.Cleanup(front.Close)
	return front.URL
}

// rewriting is the server with other answers.
func (s *server) rewriting(t *testing.T, change func(string) string) http.HandlerFunc {
	return func(w http.ResponseWriter, in *http.Request) {
		req, err := http.NewRequestWithContext(in.Context(), in.Method, s.URL+in.URL.Path, in.Body)
		if err != nil {
			t.Error(err)
			return
		}
		req.Header = in.Header.Clone()
		resp, err := s.Client().Do(req)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		answer, _ := io.ReadAll(resp.Body)
		for k, v := range resp.Header {
			if k != "Content-Length" {
				w.Header()[k] = v
			}
		}
		w.WriteHeader(resp.StatusCode)
		_, _ = io.WriteString(w, change(string(answer)))
	}
}

// TestPaths: what is lost on the way is asked for, and comes; what comes late or twice is no loss.
func TestPaths(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for i, tc := range []struct {
		name     string
		path     impair.Path
		repaired float64 // at least this share of the packets
		latency  float64 // p50, at least, ms
	}{
		{"5 % loss", impair.Path{Loss: 0.05}, 0.02, 0},
		{"delay, jitter and reordering", impair.Path{Delay: 50 * time.Millisecond, Jitter: 10 * time.Millisecond, Reorder: 0.02, Late: 5 * time.Millisecond}, 0, 40},
		{"everything twice", impair.Path{Duplicate: 1}, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r, err := impair.Listen(t.Context(), s.media, impair.Config{Down: tc.path, Seed: 1})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(bounded(t))
			var running sync.WaitGroup
			running.Go(func() { _ = r.Run(ctx) })
			defer func() { cancel(); running.Wait() }()
			cfg := s.config()
			cfg.Publish = fmt.Sprintf("%s/live/whip/p%d", s.URL, i)
			cfg.Play = fmt.Sprintf("%s/live/whep/p%d", s.over(t, r), i)
			cfg.Viewers, cfg.Bitrate, cfg.For, cfg.Warm, cfg.Audio = 3, 1_500_000, 2*time.Second, 500*time.Millisecond, false
			rep, err := Run(ctx, cfg)
			if err != nil {
				t.Fatal(err)
			}
			f := rep.Figures
			packets := f["packets_per_second"] * rep.Seconds
			if f["repaired"] < tc.repaired*packets || f["loss"] > 0.5 || f["up"] != 100 || f["fps"] < 15 || f["latency_p50"] < tc.latency {
				t.Errorf("of %.0f packets %.0f were repaired, %.2f %% are lost; %.1f frames a second, %.0f %% up, latency %.1f ms",
					packets, f["repaired"], f["loss"], f["fps"], f["up"], f["latency_p50"])
			}
		})
	}
}

// TestKeyFrameRequests: a key frame comes when it is asked for, and not more than twice a second.
func TestKeyFrameRequests(t *testing.T) {
	p := &outgoing{publisher: &publisher{}, keyed: make(chan struct{})}
	now := time.Unix(100, 0)
	key := func(after time.Duration) bool { return p.keyNow(now.Add(after), 2*time.Second) }
	for _, tc := range []struct {
		at         time.Duration
		want, asks bool
	}{{0, true, false}, {100 * time.Millisecond, false, false}, {200 * time.Millisecond, false, true}, {400 * time.Millisecond, false, true},
		{510 * time.Millisecond, true, false}, {600 * time.Millisecond, false, false}, {1200 * time.Millisecond, false, false}, {2510 * time.Millisecond, true, false}} {
		p.wantKey = p.wantKey || tc.asks
		if got := key(tc.at); got != tc.want {
			t.Errorf("at %s: key frame %v, want %v", tc.at, got, tc.want)
		}
	}
}
