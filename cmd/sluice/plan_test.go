package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/internal/plan"
)

func TestPlan(t *testing.T) {
	var out, errs output
	if code := run(t.Context(), strings.Fields("plan --viewers 100000 --bitrate 2500k"), nil, strings.NewReader(""), &out, &errs); code != 0 {
		t.Fatalf("%d: %s", code, errs.String())
	}
	for _, want := range []string{"audience  100000 viewers", "edges     ", "origins   ", "scale set from 2 to ", "relay     ", "idle: nobody watches", "1,000 viewers cost ", "Prices are examples and must be checked"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
	var table output
	if code := run(t.Context(), []string{"plan", "--print-prices"}, nil, strings.NewReader(""), &table, &errs); code != 0 || table.String() != string(plan.Example) {
		t.Errorf("--print-prices: %d", code)
	}
	mine := filepath.Join(t.TempDir(), "prices.yaml")
	if err := os.WriteFile(mine, []byte(strings.ReplaceAll(table.String(), "westeurope", "here")), 0o600); err != nil {
		t.Fatal(err)
	}
	var own output
	if code := run(t.Context(), []string{"plan", "--viewers", "1000", "--region", "here", "--prices", mine, "--json"}, nil, strings.NewReader(""), &own, &errs); code != 0 {
		t.Fatalf("%d: %s", code, errs.String())
	}
	var p plan.Plan
	if err := json.Unmarshal([]byte(own.String()), &p); err != nil || p.Region != "here" || p.Edges.Nodes != 2 || p.Total <= p.Idle {
		t.Errorf("as JSON: %v\n%s", err, own.String())
	}
	for args, want := range map[string]string{
		"":                                    "--viewers must be between 1 and 100000000",
		"--viewers 10 --bitrate fast":         `--bitrate: "fast" is not a bit rate such as 2500k or 2.5M`,
		"--viewers 10 --region mars":          `the price table has no region "mars", only eastus, westeurope`,
		"--viewers 10 --gateway nginx":        "--gateway must be one of",
		"--viewers 10 --prices " + mine + "x": "read prices: ",
	} {
		var errs output
		if code := run(t.Context(), append([]string{"plan"}, strings.Fields(args)...), nil, strings.NewReader(""), &out, &errs); code == 0 || !strings.Contains(errs.String(), want) {
			t.Errorf("plan %s: %d, %s; want %s", args, code, errs.String(), want)
		}
	}
}
