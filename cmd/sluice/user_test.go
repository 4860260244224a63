package main

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"
)

func TestResolve(t *testing.T) {
	t.Chdir(t.TempDir())
	h := home{dir: "c"}
	if err := h.make(); err != nil {
		t.Fatal(err)
	}
	if err := h.certificates([]string{"localhost"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := h.writeAddress(address{Publish: "https://localhost:1", Play: "https://localhost:2"}); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, dir, what, want string }{
		{"name", "c", "live/a", "https://localhost:2/live/whep/a"},
		{"URL", "c", "https://x.example/whep", "https://x.example/whep"},
		{"URL needs no cluster", "none", "http://x.example/whep", "http://x.example/whep"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &process{ctx: t.Context(), env: map[string]string{"SLUICE_UP_DIR": tc.dir}}
			url, roots, err := target{}.resolve(p, &cli{}, tc.what, "whep", func(a address) string { return a.Play })
			if err != nil || url != tc.want {
				t.Fatalf("got %q, %v", url, err)
			}
			_, leaf := pair(t, h, "localhost", time.Now())
			_, err = leaf.Verify(x509.VerifyOptions{DNSName: "localhost", Roots: roots})
			if trusted := err == nil; trusted != (tc.dir == "c") {
				t.Errorf("trusts the cluster's certificate: %v", trusted)
			}
		})
	}
}

func TestPublishRefusesNumbers(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, tc := range []struct{ flag, want string }{
		{"--fps=0", "--fps=0: give a number above 0"},
		{"--width=-2", "--width=-2: give a number above 0"},
		{"--height=0", "--height=0: give a number above 0"},
		{"--bitrate=0", "--bitrate=0: give a number above 0"},
		{"--fps=1000", "1000 frames a second: give 1 to 240"},
		{"--width=100000", "a picture of 100000x720 can't be encoded"},
		{"--bitrate=7", "a bitrate of 7 bit/s: give"},
	} {
		t.Run(tc.flag, func(t *testing.T) {
			var out, errs strings.Builder
			code := run(t.Context(), []string{"publish", "test-pattern", "http://127.0.0.1:1/whip", tc.flag}, nil, nil, &out, &errs)
			if code != exitUsage || !strings.Contains(errs.String(), tc.want) || strings.Count(errs.String(), "\n") != 1 {
				t.Errorf("exit code %d, %q; want one line with %q", code, errs.String(), tc.want)
			}
		})
	}
}
