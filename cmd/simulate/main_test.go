package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"sluice/internal/simulate"
)

func TestRun(t *testing.T) {
	for _, c := range []struct {
		name string
		args string
		code int
		want string // in what it prints
	}{
		{"text", "--case small --viewers 3000 --edges 20 --max-edges 30 --streams 100 --seed 7", 0, "small: 20 edges, 9 origins, 3 regions, 100 streams, 3000 viewers in 5m0s; seed 7"},
		{"help", "--help", 0, "autoscaler"},
		{"no such case", "--case huge", 1, `"huge"`},
		{"too few streams", "--case small --streams 10", 1, "10 streams are too few"},
		{"nonsense", "--viewers=-1", 1, "can't be fewer than 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			if code := run(t.Context(), strings.Fields(c.args), &out, &errs); code != c.code {
				t.Errorf("exit code %d, want %d: %s", code, c.code, errs.String())
			}
			if all := out.String() + errs.String(); !strings.Contains(all, c.want) {
				t.Errorf("printed %q, want %q in it", all, c.want)
			}
		})
	}
}

func TestJSON(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), strings.Fields("--case small --viewers 1000 --streams 50 --json"), &out, &errs); code != 0 {
		t.Fatal(errs.String())
	}
	var r simulate.Report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.Arrived != 1000 || len(r.Deaths) != 5 {
		t.Errorf("%v: %d viewers, %d deaths", err, r.Arrived, len(r.Deaths))
	}
}
