package usage

import (
	"math"
	"os"
	"runtime"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	u, err := parseStat([]byte("12 (a b) c) S 1 1 1 0 -1 4194304 1 0 0 0 250 150 0 0 20 0 5 0 100 1000 3 18446744073709551615"))
	if err != nil || u.CPU != 4 || u.RSS != float64(3*os.Getpagesize()) {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := parseStat([]byte("12 (x) S 1")); err == nil {
		t.Error("a short line is taken")
	}
}

// TestOthers: the figures of one time don't contradict each other.
func TestOthers(t *testing.T) {
	for _, tc := range []struct {
		name                               string
		machine, own, server, busy, others float64
	}{
		{"others work", 5, 1, 2, 5, 2},
		{"all is known", 3, 1, 2, 3, 0},
		{"short wake-ups that ticks miss", 0.96, 1.2, 0.54, 1.74, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if busy, others := Others(tc.machine, tc.own, tc.server); math.Abs(busy-tc.busy) > 1e-9 || math.Abs(others-tc.others) > 1e-9 {
				t.Errorf("%g busy, %g others; want %g, %g", busy, others, tc.busy, tc.others)
			}
		})
	}
}

// TestOwn: the clock counts work, and says what /proc says.
func TestOwn(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells")
	}
	before := Own()
	for end := time.Now().Add(30 * time.Millisecond); time.Now().Before(end); { // work
	}
	after := Own()
	if d := after.CPU - before.CPU; d <= 0 || after.RSS <= 0 {
		t.Errorf("%.3f s of work, %.0f bytes", d, after.RSS)
	}
	ticks, err := readStat("/proc/self/stat")
	if err != nil || math.Abs(ticks.CPU-Own().CPU) > 0.1 {
		t.Errorf("/proc says %.3f s, the clock %.3f (%v)", ticks.CPU, Own().CPU, err)
	}
	if _, err := Of(os.Getpid(), 1<<30); err == nil {
		t.Error("a process that isn't there is counted")
	}
	if busy, n := Machine(); busy <= 0 || n < 1 {
		t.Errorf("the machine's %d processors have worked %g s", n, busy)
	}
}
