package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/cluster/sqlite"
	"sluice/internal/config"
	"sluice/node"
)

func TestLoadRefuses(t *testing.T) {
	t.Chdir(t.TempDir())
	const here = "--play=http://127.0.0.1:1/live/whep/a"
	for _, tc := range []struct{ name, args, want string }{
		{"nothing to do", "", "nothing to do: give --publish URL"},
		{"somebody's server", "--play=https://example.com/live/whep/a", "example.com is not loopback: a load test harms a server that isn't prepared for it; if it is yours, give --i-own-this-server"},
		{"somebody's server to publish", "--publish=https://192.0.2.7/live/whip/a " + here, "192.0.2.7 is not loopback"},
		{"rate", here + " --rate=fast", `--rate="fast": a rate is a number of joins a second`},
		{"bitrate", here + " --bitrate=2.5T", "--bitrate=2.5T: give bit/s, such as 2500k or 2.5M"},
		{"unknown figure", here + " --fail-over=tff_p95>1ms", `--fail-over: threshold "tff_p95>1ms": there is no figure "tff_p95"`},
		{"bad expression", here + " --fail-over=loss=1", `--fail-over: threshold "loss=1": write a name`},
		{"unit", here + " --fail-over=loss>1ms", `"1ms" is not in %`},
		{"figure that needs a process", here + " --fail-over=cpu_per_packet>3us", "give the server's process with --pid"},
		{"no such process", here + " --pid=999999999", "--pid: process 999999999: "},
		{"no such file", here + " --file=none.mp4", "--file: "},
		{"less than no viewers", here + " --viewers=-1", "-1 viewers per stream"},
		{"no viewers", here + " --viewers=0", "0 viewers per stream"},
		{"no viewers to find the capacity with", here + " --viewers=0 --find-capacity", "0 viewers per stream"},
		{"two streams at one address", here + " --streams=2", "needs a %d"},
		{"capacity of nothing", "--publish=http://127.0.0.1:1/live/whip/a --find-capacity", "give --play URL"},
		{"short steps", here + " --find-capacity --hold=1ms", "--hold at least 1s"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out, errs output
			code := run(t.Context(), append([]string{"load"}, strings.Fields(tc.args)...), nil, nil, &out, &errs)
			if code != exitUsage || !strings.Contains(errs.String(), tc.want) || strings.Count(errs.String(), "\n") != 1 {
				t.Errorf("exit code %d, %q; want one line with %q", code, errs.String(), tc.want)
			}
		})
	}
}

// standalone runs a node in this process, and returns the address of its HTTP.
func standalone(t *testing.T) string {
	t.Helper()
	reg, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "s.db"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Default().Node
	cfg.Role, cfg.HTTP, cfg.Media, cfg.Relay = string(cluster.Standalone), "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.Limits.CPU = 1
	n, err := node.New(cfg, node.Deps{Registry: reg, Version: "test", Log: newLog(t.Output(), config.Log{Level: "error"})})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
		if err := reg.Close(); err != nil {
			t.Error(err)
		}
	})
	return "http://" + n.HTTPAddr()
}

func TestLoad(t *testing.T) {
	base := standalone(t)
	t.Chdir(t.TempDir())
	args := func(more ...string) []string {
		return append([]string{"load", "--publish=" + base + "/live/whip/a%d", "--play=" + base + "/live/whep/a%d", "--streams=2", "--viewers=3",
			"--bitrate=300k", "--warm=0s", "--for=1s", fmt.Sprintf("--pid=%d", os.Getpid())}, more...)
	}
	var out, errs output
	if code := run(t.Context(), args("--json=r.json", "--html=r.html", "--fail-over=up<100%,loss>1%"), nil, nil, &out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	if !strings.Contains(out.String(), "2 streams of 300 kbit/s, 30 frames/s, with sound, 6 viewers") || !strings.Contains(out.String(), "cpu_per_packet") {
		t.Errorf("standard output:\n%s", out.String())
	}
	if !strings.Contains(errs.String(), "2 publishing  6 of 6 up") {
		t.Errorf("standard error:\n%s", errs.String())
	}
	var r struct {
		Config  struct{ Viewers, Streams int }
		Figures map[string]float64
		Samples []map[string]any
	}
	text, err := os.ReadFile("r.json")
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil || r.Config.Viewers != 3 || r.Config.Streams != 2 || r.Figures["up"] != 100 || r.Figures["cpu_per_packet"] <= 0 || len(r.Samples) < 2 {
		t.Errorf("%v: %+v", err, r)
	}
	if page, err := os.ReadFile("r.html"); err != nil || !strings.Contains(string(page), "all thresholds kept") {
		t.Errorf("the page: %v", err)
	}

	var last, told output
	code := run(t.Context(), args("--json=-", "--fail-over", "ttff_p95>0.001ms", "--fail-over", "up<100%"), nil, nil, &last, &told)
	if code != exitBroken || !strings.Contains(told.String(), "sluice: ttff_p95>0.001ms: it is ") {
		t.Errorf("exit code %d, want %d: %s", code, exitBroken, told.String())
	}
	if json.Unmarshal([]byte(last.String()), &r) != nil {
		t.Errorf("standard output is no JSON: %s", last.String())
	}
}

// TestLoadUnmeasured: where nobody could join the run has failed, and says why.
func TestLoadUnmeasured(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request)
		want   string
	}{
		{"it refuses", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, "(HTTP 403)"},
		{"it is busy", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, "(HTTP 503)"},
		{"it has no such method", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMethodNotAllowed) }, "(HTTP 405)"},
		{"it answers with a page", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, "(HTTP 200)"},
		{"it answers with garbage", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/sdp")
			w.Header().Set("Location", "/s")
			w.WriteHeader(http.StatusCreated)
			fmt.Fprint(w, "garbage")
		}, "the server's answer can't be used"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(tc.answer))
			defer s.Close()
			var out, errs output
			code := run(t.Context(), []string{"load", "--play=" + s.URL + "/live/whep/a", "--viewers=2", "--warm=0s", "--for=50ms", "--fail-over=loss>0.5%"}, nil, nil, &out, &errs)
			if code != exitFailed || !strings.Contains(errs.String(), "no viewer could join: ") || !strings.Contains(errs.String(), tc.want) {
				t.Errorf("exit code %d, want 1 and %q: %s", code, tc.want, errs.String())
			}
			if !strings.Contains(out.String(), "loss>0.5%: nothing was measured") {
				t.Errorf("the report:\n%s", out.String())
			}
		})
	}
}

// TestLoadStops: the first signal ends a run, which reports.
func TestLoadStops(t *testing.T) {
	base := standalone(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond) // in the middle of the measured time
	defer cancel()
	var out, errs output
	code := run(ctx, []string{"load", "--publish=" + base + "/live/whip/a", "--play=" + base + "/live/whep/a", "--viewers=2", "--bitrate=300k", "--warm=0s", "--for=1h"}, nil, nil, &out, &errs)
	if code != 0 || !strings.Contains(out.String(), "of 1h0m0s of measuring") {
		t.Errorf("exit code %d: %s%s", code, out.String(), errs.String())
	}
}
