package cluster

import (
	"math"
	"runtime"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	for _, c := range []struct {
		name, in    string
		busy, total uint64
	}{
		{"all columns", "cpu  10 20 30 400 50 6 7 8 9 10\ncpu0 1 1 1 1 1\n", 81, 531}, // guest is within user
		{"an old kernel's four", "cpu 1 2 3 4\n", 6, 10},
		{"empty", "", 0, 0},
		{"not the sum", "cpu0 1 2 3 4\n", 0, 0},
		{"not numbers", "cpu a b c d e\n", 0, 0},
		{"negative", "cpu 1 -2 3 4\n", 0, 0},
	} {
		if busy, total := parseStat([]byte(c.in)); busy != c.busy || total != c.total {
			t.Errorf("%s: %d of %d, want %d of %d", c.name, busy, total, c.busy, c.total)
		}
	}
}

func TestParseMeminfo(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     float64
	}{
		{"as it is", "MemTotal:        8000 kB\nMemFree:  100 kB\nMemAvailable:    2000 kB\n", 0.75},
		{"no total", "MemAvailable: 2000 kB\n", 0},
		{"more than all", "MemTotal: 1 kB\nMemAvailable: 2 kB\n", 0},
		{"no value", "MemTotal:\nMemAvailable: 2 kB\n", 0},
		{"empty", "", 0},
	} {
		if got := parseMeminfo([]byte(c.in)); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestMeterAverages(t *testing.T) {
	var m Meter
	at := time.Unix(0, 0)
	busy, total := uint64(1000), uint64(5000)
	for i, c := range []struct {
		busy uint64 // of 100 ticks within the next second
		want float64
	}{{0, 0}, {100, 1}, {0, 0.5}, {50, 0.5}, {0, 0.5 / 3}, {0, 0.5 / 3}, {0, 0}} {
		if i > 0 {
			at, busy, total = at.Add(time.Second), busy+c.busy, total+100
		}
		if got := m.add(sample{at, busy, total}); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("second %d: %v, want %v", i, got, c.want)
		}
	}
	if got := m.add(sample{at.Add(time.Second), 1, 2}); got != 0 { // counters that went back
		t.Errorf("after a reset: %v, want 0", got)
	}
	if len(m.samples) > 5 {
		t.Errorf("%d samples are kept for 3 s", len(m.samples))
	}
}

func TestMeterReadsThisMachine(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("Linux only")
	}
	if busy, total := cpuTicks(); busy == 0 || total <= busy {
		t.Errorf("%d busy ticks of %d since boot", busy, total)
	}
	var m Meter
	cpu, memory := m.Read()
	if cpu != 0 || memory <= 0 || memory >= 1 {
		t.Errorf("first reading: CPU %v, memory %v", cpu, memory)
	}
	if cpu, _ = m.Read(); cpu < 0 || cpu > 1 {
		t.Errorf("second reading: CPU %v", cpu)
	}
}
