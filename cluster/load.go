package cluster

import (
	"bytes"
	"strconv"
	"sync"
	"time"
)

// loadOver is the time over which Meter averages the CPU.
const loadOver = 3 * time.Second

// Meter measures how busy this machine is, for Node.CPU and Node.Memory. On systems
// other than Linux it says 0.
type Meter struct {
	mu      sync.Mutex
	samples []sample // oldest first; they span loadOver or a little more
}

// sample is the CPU time of all cores since boot, in ticks.
type sample struct {
	at          time.Time
	busy, total uint64
}

// Read returns the shares, 0 to 1, of the CPU in use over the last three seconds (or since
// the first call, which says 0) and of the memory in use now. Call it about once a second.
func (m *Meter) Read() (cpu, memory float64) {
	now := time.Now()
	busy, total := cpuTicks()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.add(sample{now, busy, total}), memoryInUse()
}

func (m *Meter) add(s sample) float64 {
	for len(m.samples) > 1 && s.at.Sub(m.samples[1].at) >= loadOver {
		m.samples = m.samples[1:]
	}
	m.samples = append(m.samples, s)
	first := m.samples[0]
	if s.total <= first.total || s.busy < first.busy {
		return 0
	}
	return min(1, float64(s.busy-first.busy)/float64(s.total-first.total))
}

// parseStat reads the first line of /proc/stat (proc(5)):
// cpu user nice system idle iowait irq softirq steal guest guest_nice. Guest time is within user.
func parseStat(b []byte) (busy, total uint64) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	f := bytes.Fields(line)
	if len(f) < 5 || string(f[0]) != "cpu" {
		return 0, 0
	}
	for i, word := range f[1:min(len(f), 9)] {
		n, err := strconv.ParseUint(string(word), 10, 64)
		if err != nil {
			return 0, 0
		}
		total += n
		if i != 3 && i != 4 { // idle, iowait
			busy += n
		}
	}
	return busy, total
}

// parseMeminfo reads MemTotal and MemAvailable of /proc/meminfo (proc(5)), in kB.
func parseMeminfo(b []byte) float64 {
	var total, available float64
	for line := range bytes.Lines(b) {
		name, rest, _ := bytes.Cut(line, []byte(":"))
		f := bytes.Fields(rest)
		if len(f) == 0 {
			continue
		}
		switch string(name) {
		case "MemTotal":
			total, _ = strconv.ParseFloat(string(f[0]), 64)
		case "MemAvailable":
			available, _ = strconv.ParseFloat(string(f[0]), 64)
		}
	}
	if total <= 0 || available > total {
		return 0
	}
	return 1 - available/total
}
