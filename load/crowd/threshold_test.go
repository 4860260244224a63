package crowd

import (
	"strings"
	"testing"
	"time"
)

func TestParseThresholds(t *testing.T) {
	for _, tc := range []struct{ in, want, err string }{
		{"ttff_p95>300ms", "ttff_p95>300ms", ""},
		{"ttff_p95>0.3s", "ttff_p95>300ms", ""},
		{"ttff_p95 > 300", "ttff_p95>300ms", ""},
		{"loss>0.5%", "loss>0.5%", ""},
		{"up<99%", "up<99%", ""},
		{"cpu_per_packet>3.5us", "cpu_per_packet>3.5µs", ""},
		{"memory_per_viewer>40KiB", "memory_per_viewer>40KiB", ""},
		{"loss>1%,freezes>3", "loss>1% freezes>3", ""},
		{"ttfff_p95>1ms", "", `there is no figure "ttfff_p95"; did you mean ttff_p50, ttff_p95`},
		{"zzz>1", "", "sluice load --help lists them"},
		{"loss>1ms", "", `"1ms" is not in %`},
		{"freezes>3s", "", `"3s" has no unit`},
		{"loss", "", "write a name, > or <, and a value"},
		{"loss>", "", "write a name"},
		{">1", "", "write a name"},
		{"loss>x", "", "no number"},
		{"loss>=1", "", "no number"},
		{"", "", "write a name"},
	} {
		t.Run(tc.in, func(t *testing.T) {
			all, err := ParseThresholds(tc.in)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error %v, want one with %q", err, tc.err)
				}
				return
			}
			var got []string
			for _, x := range all {
				got = append(got, x.String())
			}
			if err != nil || strings.Join(got, " ") != tc.want {
				t.Errorf("%v, %v; want %s", got, err, tc.want)
			}
		})
	}
}

func FuzzParseThresholds(f *testing.F) {
	f.Add("ttff_p95>300ms,loss<1%")
	f.Fuzz(func(t *testing.T, s string) {
		all, err := ParseThresholds(s)
		for _, x := range all {
			if again, e := ParseThresholds(x.String()); err == nil && (e != nil || len(again) != 1) {
				t.Errorf("%q is written as %q, that can't be read: %v", s, x, e)
			}
		}
	})
}

func TestBroken(t *testing.T) {
	all, err := ParseThresholds("ttff_p95>300ms,up<99%,loss>1%")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		f    Figures
		want string
	}{
		{"kept", Figures{"ttff_p95": 300, "up": 99, "loss": 0}, ""},
		{"above", Figures{"ttff_p95": 450, "up": 100, "loss": 0}, "ttff_p95>300ms: it is 450 ms, 150 ms above (150 % of the limit)"},
		{"below", Figures{"ttff_p95": 1, "up": 90, "loss": 0}, "up<99%: it is 90 %, 9 % below (91 % of the limit)"},
		{"missing", Figures{"up": 100, "loss": 0}, "ttff_p95>300ms: nothing was measured"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := ""
			for _, b := range broken(all, tc.f) {
				got += b.String()
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestParseRate(t *testing.T) {
	for in, want := range map[string]float64{"100/s": 100, "100": 100, "30/m": 0.5, "0.5/s": 0.5} {
		if got, err := ParseRate(in); err != nil || got != want {
			t.Errorf("%s: %g, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "x", "1/h", "10ms", "NaN", "inf/s"} {
		if got, err := ParseRate(in); err == nil {
			t.Errorf("%q is read as %g", in, got)
		}
	}
}

// good is a configuration that passes.
func good() Config {
	return Config{Publish: "http://127.0.0.1:1/live/whip/a", Play: "http://127.0.0.1:1/live/whep/a", Streams: 1, Viewers: 1, Rate: 100, For: time.Second,
		Connections: 4, Bitrate: 300_000, FPS: 30, GOP: 2 * time.Second, Audio: true}
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"good", func(*Config) {}, ""},
		{"IPv6 loopback", func(c *Config) { c.Play = "http://[::1]:1/x" }, ""},
		{"localhost", func(c *Config) { c.Play = "https://localhost/x" }, ""},
		{"somebody's server", func(c *Config) { c.Play = "https://example.com/x" }, "example.com is not loopback: a load test harms"},
		{"somebody's server to publish", func(c *Config) { c.Publish = "https://192.0.2.1/x" }, "192.0.2.1 is not loopback"},
		{"a name that begins like loopback", func(c *Config) { c.Play = "http://127.0.0.1.example.com/x" }, "is not loopback"},
		{"user information", func(c *Config) { c.Play = "http://127.0.0.1@example.com/x" }, "example.com is not loopback"},
		{"my own server", func(c *Config) { c.Play, c.Own = "https://example.com/x", true }, ""},
		{"nothing", func(c *Config) { c.Play, c.Publish = "", "" }, "nothing to do"},
		{"no address", func(c *Config) { c.Play = "live/stream1" }, "give one that begins with http"},
		{"several streams, one address", func(c *Config) { c.Streams = 2 }, "needs a %d"},
		{"no viewers", func(c *Config) { c.Viewers = 0 }, "0 viewers per stream"},
		{"no viewers, but nobody plays", func(c *Config) { c.Viewers, c.Play = 0, "" }, ""},
		{"no time", func(c *Config) { c.For = 0 }, "nothing would be measured"},
		{"rate", func(c *Config) { c.Rate = 0 }, "a rate of 0/s"},
		{"fps", func(c *Config) { c.FPS = 1000 }, "1000 frames a second"},
		{"bitrate", func(c *Config) { c.Bitrate = 7 }, "a bitrate of 7 bit/s"},
		{"gop", func(c *Config) { c.GOP = time.Millisecond }, "between key frames"},
		{"capacity without viewers", func(c *Config) { c.Capacity, c.Play = &Capacity{}, "" }, "give --play"},
		{"plain RTP", func(c *Config) { c.Publish = "rtp://127.0.0.1:5000" }, ""},
		{"plain RTP to somebody", func(c *Config) { c.Publish = "rtp://192.0.2.1:5000" }, "192.0.2.1 is not loopback"},
		{"plain RTP without a port", func(c *Config) { c.Publish = "rtp://127.0.0.1" }, "the first of four ports"},
		{"plain RTP without room for four ports", func(c *Config) { c.Publish = "rtp://127.0.0.1:65533" }, "the first of four ports"},
		{"plain RTP of several streams", func(c *Config) { c.Publish, c.Streams, c.Play = "rtp://127.0.0.1:5000/%d", 2, "" }, "for one synthetic stream"},
		{"nobody plays plain RTP", func(c *Config) { c.Play = "rtp://127.0.0.1:5000" }, "give one that begins with http"},
		{"threshold without viewers", func(c *Config) { c.Play = ""; c.Thresholds, _ = ParseThresholds("loss>1%") }, "without --play nobody measures it"},
		{"threshold without processes", func(c *Config) { c.Thresholds, _ = ParseThresholds("cpu_per_packet>1us") }, "give the server's process with --pid"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := good()
			tc.change(&c)
			err := c.Check()
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func TestCapacityNext(t *testing.T) {
	for _, tc := range []struct {
		name             string
		carries          int
		most, want, from int
	}{
		{"below the most", 173, 10_000, 173, 10}, {"exactly the most", 500, 500, 500, 10}, {"nothing", 0, 1000, 0, 10},
		{"less than the first step", 3, 1000, 3, 100}, {"one", 1, 1000, 1, 10}, {"more than the most", 9999, 77, 77, 10},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k, good, bad, steps := &Capacity{From: tc.from}, 0, 0, 0
			for n := k.next(good, bad, tc.most); n != 0; n = k.next(good, bad, tc.most) {
				if steps++; steps > 40 {
					t.Fatal("it never ends")
				}
				if n <= tc.carries {
					good = n
				} else {
					bad = n
				}
			}
			if d := tc.want - good; d < 0 || float64(d) > 0.03*float64(tc.want) {
				t.Errorf("found %d in %d steps, want %d", good, steps, tc.want)
			}
		})
	}
}
