package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRunRefuses(t *testing.T) {
	for _, tc := range []struct{ name, args, want string }{
		{"unknown scenario", "--only=flood", `--only must be one of "origin","backup","edge"`},
		{"unknown store", "--store=paper", "--store must be one of"},
		{"too much loss", "--loss=0.9", "give --loss 0 to 0.5"},
		{"negative rate", "--rate=-1", "--rate 0 or more"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			if code := run(t.Context(), strings.Fields(tc.args), &out, &errs); code != 2 || !strings.Contains(errs.String(), tc.want) || strings.Count(errs.String(), "\n") != 1 {
				t.Errorf("exit code %d, %q; want one line with %q", code, errs.String(), tc.want)
			}
		})
	}
}

func TestLayout(t *testing.T) {
	n := layout(77, 2, 3, 2)
	seen := map[string]string{}
	for name, h := range n.hosts {
		if other := seen[h.address()]; other != "" {
			t.Errorf("%s and %s have the address %s", name, other, h.address())
		}
		seen[h.address()] = name
		if len(name) > 15 {
			t.Errorf("%s is too long for a cable's name", name)
		}
		if pid, ok := makerOf(h.namespace); !ok || pid != 77 {
			t.Errorf("%s: made by %d, %v", h.namespace, pid, ok)
		}
	}
	if len(seen) != 9 {
		t.Errorf("%d hosts", len(seen))
	}
	for _, name := range []string{"other-77-x", "sluice-chaos-", "sluice-chaos-x-1", "sluice-e2e-77-near"} {
		if pid, ok := makerOf(name); ok {
			t.Errorf("%s is taken for ours, of %d", name, pid)
		}
	}
}

func TestRules(t *testing.T) {
	got := rules([]cut{{with: []string{"10.88.1.0/24"}}, {with: []string{"10.88.3.0/24", "10.88.5.11"}, port: 443}}, 0.015)
	for _, want := range []string{
		"ip saddr { 10.88.1.0/24 } drop", "ip daddr { 10.88.1.0/24 } drop",
		"ip saddr { 10.88.3.0/24, 10.88.5.11 } tcp sport 443 drop", "ip daddr { 10.88.3.0/24, 10.88.5.11 } tcp dport 443 drop",
		"numgen random mod 1000 < 15 drop",
	} {
		if strings.Count(got, want) != 1 {
			t.Errorf("%q is not there once in:\n%s", want, got)
		}
	}
	if whole := rules(nil, 0); strings.Contains(whole, "drop") {
		t.Errorf("a whole network drops something:\n%s", whole)
	}
}

func TestQuantile(t *testing.T) {
	var twenty []time.Duration
	for i := range 20 {
		twenty = append(twenty, time.Duration(20-i))
	}
	for _, tc := range []struct {
		name    string
		all     []time.Duration
		percent int
		want    time.Duration
	}{
		{"nothing", nil, 95, 0}, {"one", []time.Duration{7}, 95, 7}, {"95 of 20", twenty, 95, 19}, {"all of 20", twenty, 100, 20}, {"half of 20", twenty, 50, 10},
	} {
		if got := quantile(tc.all, tc.percent); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

func TestResult(t *testing.T) {
	r := &result{Began: time.Unix(1_800_000_000, 0), Errors: map[string]string{"c": "it broke"}, scenario: "a"}
	r.times("gap", time.Second, []time.Duration{900 * time.Millisecond})
	r.times("gap of nobody", time.Second, nil)
	r.scenario = "b"
	r.most("lost", 0, 1, "")
	r.told("took", 12.4, "ms")
	if n := r.missed(); n != 3 {
		t.Errorf("%d missed, want those of nobody, of the lost one and of what broke", n)
	}
	text := r.String()
	for _, want := range []string{"≤ 1000 ms   900 ms (of 1)   met", "≤ 0         1               MISSED", "c: could not be measured: it broke", "12 ms"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	path, err := r.keep(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), `"met": false`) {
		t.Errorf("%v: %s", err, b)
	}
}

func TestBusiest(t *testing.T) {
	for _, tc := range []struct{ all, want string }{{"a b b", "b [1 2]"}, {"b a", "a [1]"}, {"", " []"}} {
		name, at := busiest(strings.Fields(tc.all))
		if got := fmt.Sprint(name, " ", at); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.all, got, tc.want)
		}
	}
}

func TestSaid(t *testing.T) {
	log := filepath.Join(t.TempDir(), "x.log")
	text := `{"time":"2026-11-22T19:00:00Z","level":"INFO","msg":"stream pulled","from":"origin-1"}
not json
{"time":"2026-11-22T19:00:05Z","level":"WARN","msg":"upstream lost, looking for the stream"}
{"time":"2026-11-22T19:00:06.5Z","level":"INFO","msg":"stream pulled","from":"origin-2"}
`
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &process{log: log}
	found := p.said(time.Date(2026, 11, 22, 19, 0, 1, 0, time.UTC), "stream pulled", "upstream lost")
	if len(found) != 2 || found[1].From != "origin-2" || found[1].Time.Nanosecond() != 5e8 {
		t.Errorf("%+v", found)
	}
}
