package usage

import (
	"bytes"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"
)

// Meter measures how much of what this process may use is in use. What that is depends on where it runs:
//   - On a machine of its own: all processors. They also do work for it that nobody is charged with, such as the network's
//     interrupts, so whatever keeps them busy counts.
//   - In a container with 2 of 16 processors: its cgroup's quota, of which the cgroup's own work counts. Where other containers leave
//     less of the machine than the quota, that is all there is.
//   - Beside others of its kind, each with a share that it was given: its own work counts, against that share.
//
// On systems other than Linux it says 0.
type Meter struct {
	cores float64 // given; 0: found
	over  time.Duration
	root  fs.FS
	own   func() float64 // seconds of processor of this process
	may   int            // processors that the process may run on

	mu      sync.Mutex
	samples []sample // oldest first; they span over or a little more
}

// NewMeter returns a meter that averages over a time, and takes so many processors as the process's share; 0: it finds out.
func NewMeter(over time.Duration, cores float64) *Meter {
	return &Meter{over: over, cores: cores, root: os.DirFS("/"), own: func() float64 { return Own().CPU }, may: runtime.NumCPU()}
}

// sample is what was used at one time.
type sample struct {
	at          time.Time
	own         float64 // seconds
	busy, total uint64  // ticks of all processors
	processors  int
	groups      []cpuGroup
}

// cpuGroup is a cgroup with a limit, of which the process is a part.
type cpuGroup struct {
	dir   string
	cores float64
	used  float64 // seconds
}

// Read returns the shares, 0 to 1, of the processors in use over that time (or since
// the first call, which says 0), and of the memory in use now. Call it once or twice a second.
func (m *Meter) Read() (cpu, memory float64) {
	s := sample{at: time.Now(), own: m.own()}
	stat, _ := fs.ReadFile(m.root, "proc/stat") // what can't be read is 0
	s.busy, s.total, s.processors = parseMachine(stat)
	groups := findGroups(m.root)
	s.groups = groups.cpu(m.root)
	if m.may < s.processors { // pinned to some of them
		s.groups = append(s.groups, cpuGroup{dir: "affinity", cores: float64(m.may), used: s.own})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.add(s), groups.memory(m.root)
}

func (m *Meter) add(s sample) float64 {
	for len(m.samples) > 1 && s.at.Sub(m.samples[1].at) >= m.over {
		m.samples = m.samples[1:]
	}
	m.samples = append(m.samples, s)
	return m.between(m.samples[0], s)
}

// between is the share in use between two samples.
func (m *Meter) between(a, b sample) float64 {
	took := b.at.Sub(a.at).Seconds()
	if took <= 0 {
		return 0
	}
	if m.cores > 0 {
		return portion(b.own-a.own, took*m.cores)
	}
	if b.total <= a.total || b.busy < a.busy {
		return 0
	}
	machine := float64(b.busy-a.busy) / float64(b.total-a.total)
	idle := (1 - machine) * float64(b.processors)
	most, limited := 0.0, false
	for _, g := range b.groups {
		for _, before := range a.groups {
			if before.dir == g.dir && g.used >= before.used && g.cores < float64(b.processors) {
				limited = true
				used := (g.used - before.used) / took
				most = max(most, portion(used, min(g.cores, used+idle)))
			}
		}
	}
	if limited {
		return most
	}
	return min(1, machine)
}

// portion is a part of a whole, 0 to 1.
func portion(part, of float64) float64 {
	if of <= 0 || part <= 0 {
		return 0
	}
	return min(1, part/of)
}

// parseMachine reads /proc/stat (proc_stat(5)): a line for all processors and one for each, of
// user nice system idle iowait irq softirq steal guest guest_nice. Guest time is within user.
func parseMachine(b []byte) (busy, total uint64, processors int) {
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		switch {
		case len(f) < 5 || !bytes.HasPrefix(f[0], []byte("cpu")):
		case string(f[0]) != "cpu":
			processors++
		default:
			for i, word := range f[1:min(len(f), 9)] {
				n, err := strconv.ParseUint(string(word), 10, 64)
				if err != nil {
					return 0, 0, 0
				}
				total += n
				if i != 3 && i != 4 { // idle, iowait
					busy += n
				}
			}
		}
	}
	return busy, total, processors
}

// parseMeminfo reads MemTotal and MemAvailable of /proc/meminfo (proc_meminfo(5)); in bytes.
func parseMeminfo(b []byte) (total, available float64) {
	for line := range bytes.Lines(b) {
		name, rest, _ := bytes.Cut(line, []byte(":"))
		f := bytes.Fields(rest)
		if len(f) == 0 {
			continue
		}
		kB, _ := strconv.ParseFloat(string(f[0]), 64)
		switch string(name) {
		case "MemTotal":
			total = kB * 1024
		case "MemAvailable":
			available = kB * 1024
		}
	}
	return total, available
}
