package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain makes this test binary behave as the floor's readers when it is started so.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == sinkCommand {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func TestCommandLine(t *testing.T) {
	for _, tc := range []struct {
		args string
		code int
		want string
	}{
		{"--help", 0, "v50,v150,small,join"},
		{"--seconds 0", 2, "--seconds 1 to 600"},
		{"--repeat 0", 2, "--repeat 1 to 100"},
		{"--only srs", 2, "--only"},
		{"--cases v51", 2, "--cases"},
		{"nonsense", 2, "nonsense"},
		{"sink x", 1, `"x" viewers`},
		{"--only ours --sluice not-there", 1, "make build makes it"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			var out bytes.Buffer
			code := run(t.Context(), strings.Fields(tc.args), strings.NewReader(""), &out, &out)
			if code != tc.code || !strings.Contains(out.String(), tc.want) {
				t.Errorf("exit %d, want %d with %q:\n%s", code, tc.code, tc.want, out.String())
			}
		})
	}
}

// TestBench measures the floor and the real binary with two viewers: every figure of the table must come out.
func TestBench(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds the binary")
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "sluice")
	if b, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../sluice").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out, errs bytes.Buffer
	c := &cli{Seconds: 1, Repeat: 1, Only: []string{floorName, oursName}, Cases: []string{"small"}, Sluice: binary, Out: filepath.Join(dir, "kept")}
	tiny := scenario{"small", "2 viewers", 2, 299_000, 100, 100 * time.Millisecond, 1, false, false}
	if err := c.bench(ctx, []scenario{tiny}, &out, &errs); err != nil {
		t.Fatalf("%v\n%s%s", err, out.String(), errs.String())
	}
	kept, err := filepath.Glob(filepath.Join(c.Out, "*.json"))
	if err != nil || len(kept) != 1 || !strings.Contains(out.String(), "kept in "+kept[0]) {
		t.Fatalf("kept %v, %v; told:\n%s", kept, err, out.String())
	}
	b, err := os.ReadFile(kept[0])
	if err != nil {
		t.Fatal(err)
	}
	var r result
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Runs) != 2 || len(r.Rows) != 1 || r.Machine.Cores < 1 || r.Versions[oursName] == "" {
		t.Fatalf("%d runs, %d rows, %+v, %v", len(r.Runs), len(r.Rows), r.Machine, r.Versions)
	}
	for _, m := range r.Runs {
		// 30 frames and 50 packets of sound, to two viewers.
		if f := m.Figures; m.Error != "" || f[cpuPerPacket] <= 0 || f["packets_per_second"] < 120 || f["packets_per_second"] > 200 {
			t.Errorf("%s: %v %s", m.Server, m.Figures, m.Error)
		}
	}
	if host, err := os.Hostname(); err == nil && len(host) > 3 && bytes.Contains(b, []byte(host)) {
		t.Error("the file has the machine's name in it")
	}
}

// TestEnds: a signal ends a run and all that it has started.
func TestEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := measureFloor(ctx, self, scenario{viewers: 2, segments: 9}, time.Minute)
		ended <- err
	}()
	cancel()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it says that all was well")
		}
	case <-time.After(20 * time.Second):
		t.Error("it goes on")
	}
}
