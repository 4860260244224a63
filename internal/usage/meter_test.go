package usage

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// at is a meter of a tree of files in place of the system's.
func at(root fs.FS, cores float64, may int) *Meter {
	return &Meter{over: 3 * time.Second, cores: cores, root: root, own: func() float64 { return 0 }, may: may}
}

// take reads a tree as if at a time, with so much own work behind.
func take(t *testing.T, m *Meter, root fs.FS, seconds, own float64) sample {
	t.Helper()
	stat, err := fs.ReadFile(root, "proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	s := sample{at: time.Unix(0, int64(seconds*1e9)), own: own}
	s.busy, s.total, s.processors = parseMachine(stat)
	s.groups = findGroups(root).cpu(root)
	if m.may < s.processors {
		s.groups = append(s.groups, cpuGroup{"affinity", float64(m.may), own})
	}
	return s
}

// TestMeterOfVersion1: recorded on a machine with 2 processors, in a group with half a processor and 256 MB within which another group has
// no limit, while it did all that it could for two seconds.
func TestMeterOfVersion1(t *testing.T) {
	const tree = "testdata/v1-quota"
	when := func(name string) float64 {
		b, err := os.ReadFile(filepath.Join(tree, name, "at"))
		if err != nil {
			t.Fatal(err)
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	before, after := os.DirFS(filepath.Join(tree, "before")), os.DirFS(filepath.Join(tree, "after"))
	m := at(after, 0, 2)
	start := when("before")
	a, b := take(t, m, before, 0, 0), take(t, m, after, when("after")-start, 0)
	if len(b.groups) != 1 || b.groups[0].cores != 0.5 || b.groups[0].dir != "sys/fs/cgroup/cpu/sluice-rec" {
		t.Fatalf("groups: %+v", b.groups)
	}
	if got := m.between(a, b); got < 0.97 {
		t.Errorf("CPU %v, want nearly 1: it used all of its half", got)
	}
	want := (3522560.0 - 204800) / 268435456 // usage without the files that can be dropped
	if got := findGroups(after).memory(after); math.Abs(got-want) > 0.02 {
		t.Errorf("memory %v, want %v or the machine's", got, want)
	}
}

// tree makes files of text: name, then its lines, up to an empty line.
func tree(text string) fstest.MapFS {
	m := fstest.MapFS{}
	for part := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		name, body, _ := strings.Cut(strings.TrimSpace(part), "\n")
		m[name] = &fstest.MapFile{Data: []byte(body + "\n")}
	}
	return m
}

// stat is /proc/stat of a machine after so many seconds of work and rest of all its processors.
func stat(processors int, busy, idle float64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "proc/stat\ncpu  %d 0 0 %d 0 0 0 0 0 0", int(100*busy), int(100*idle))
	for i := range processors {
		fmt.Fprintf(&b, "\ncpu%d 0 0 0 0 0 0 0 0 0 0", i)
	}
	return b.String()
}

const (
	memory16G = "proc/meminfo\nMemTotal:       16384000 kB\nMemFree:         9000000 kB\nMemAvailable:   12288000 kB"

	// As the kernel writes them (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/).
	mount2      = "proc/self/mountinfo\n25 30 0:23 / /proc rw - proc proc rw\n30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot"
	service2    = "proc/self/cgroup\n0::/system.slice/sluice.service"
	container2  = "proc/self/cgroup\n0::/"
	noLimit2    = "sys/fs/cgroup/system.slice/cpu.max\nmax 100000\n\nsys/fs/cgroup/system.slice/cpu.stat\nusage_usec %d\n\nsys/fs/cgroup/system.slice/sluice.service/cpu.max\nmax 100000\n\nsys/fs/cgroup/system.slice/sluice.service/cpu.stat\nusage_usec %d"
	quota2      = "sys/fs/cgroup/cpu.max\n200000 100000\n\nsys/fs/cgroup/cpu.stat\nusage_usec %d\nuser_usec 1\nsystem_usec 1\nnr_periods 3"
	sliceQuota2 = "sys/fs/cgroup/system.slice/cpu.max\n200000 100000\n\nsys/fs/cgroup/system.slice/cpu.stat\nusage_usec %d\n\nsys/fs/cgroup/system.slice/sluice.service/cpu.max\nmax 100000\n\nsys/fs/cgroup/system.slice/sluice.service/cpu.stat\nusage_usec %d"

	docker1 = "proc/self/cgroup\n4:memory:/docker/f00\n3:cpu,cpuacct:/docker/f00\n\n" +
		"proc/self/mountinfo\n40 39 0:30 /docker/f00 /sys/fs/cgroup/cpu,cpuacct ro,nosuid master:11 - cgroup cgroup rw,cpu,cpuacct\n41 39 0:31 /docker/f00 /sys/fs/cgroup/memory ro master:12 - cgroup cgroup rw,memory\n\n" +
		"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us\n200000\n\nsys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us\n100000\n\nsys/fs/cgroup/cpu,cpuacct/cpuacct.usage\n%d000"
)

func TestMeterCPU(t *testing.T) {
	for _, tc := range []struct {
		name       string
		processors int
		busy       float64 // seconds of the machine in a second
		used       float64 // of the group
		own        float64 // of the process
		files      string  // with the group's time, in µs
		cores      float64
		may        int
		want       float64
	}{
		{"a machine of its own: all that keeps it busy counts", 4, 3, 1, 1, mount2 + "\n\n" + service2 + "\n\n" + noLimit2, 0, 4, 0.75},
		{"version 2: 2 of 16, half of them used", 16, 4, 1, 1, mount2 + "\n\n" + container2 + "\n\n" + quota2, 0, 16, 0.5},
		{"version 2: the neighbours are busy, and leave enough", 16, 13, 1, 1, mount2 + "\n\n" + container2 + "\n\n" + quota2, 0, 16, 0.5},
		{"version 2: the neighbours leave half a processor", 16, 15.5, 1, 1, mount2 + "\n\n" + container2 + "\n\n" + quota2, 0, 16, 1 / 1.5},
		{"version 2: more than its quota, for a moment", 16, 4, 2.2, 2.2, mount2 + "\n\n" + container2 + "\n\n" + quota2, 0, 16, 1},
		{"version 2: the limit is of a group above, which others share", 16, 4, 1.5, 0.3, mount2 + "\n\n" + service2 + "\n\n" + sliceQuota2, 0, 16, 0.75},
		{"version 2: a quota of more than there is", 2, 1, 0.5, 0.5, mount2 + "\n\n" + container2 + "\n\n" + strings.Replace(quota2, "200000", "800000", 1), 0, 2, 0.5},
		{"version 1: docker, whose mount shows only its own part", 16, 4, 1, 1, docker1, 0, 16, 0.5},
		{"pinned to 2 of 16", 16, 4, 0, 1, mount2 + "\n\n" + container2, 0, 2, 0.5},
		{"a share that it was given, whatever others do", 2, 2, 0.1, 0.1, mount2 + "\n\n" + service2 + "\n\n" + noLimit2, 0.25, 2, 0.4},
		{"no groups are mounted", 2, 1, 0, 0, "proc/self/cgroup\n0::/", 0, 2, 0.5},
	} {
		t.Run(tc.name, func(t *testing.T) {
			moment := func(seconds float64) fstest.MapFS {
				used := int(seconds*tc.used*1e6) + 1_000_000
				args := []any{used, used}[:strings.Count(tc.files, "%d")]
				return tree(stat(tc.processors, seconds*tc.busy, seconds*(float64(tc.processors)-tc.busy)) + "\n\n" + memory16G + "\n\n" + fmt.Sprintf(tc.files, args...))
			}
			m := at(nil, tc.cores, tc.may)
			got := m.between(take(t, m, moment(10), 10, 10*tc.own), take(t, m, moment(13), 13, 13*tc.own))
			if math.Abs(got-tc.want) > 0.01 {
				t.Errorf("got %.3f, want %.3f", got, tc.want)
			}
		})
	}
}

func TestMeterMemory(t *testing.T) {
	v2 := func(current, limit, inactive string) string {
		return mount2 + "\n\n" + container2 + "\n\nsys/fs/cgroup/memory.current\n" + current + "\n\nsys/fs/cgroup/memory.max\n" + limit + "\n\nsys/fs/cgroup/memory.stat\nanon 5\ninactive_file " + inactive
	}
	for _, tc := range []struct {
		name, files string
		want        float64
	}{
		{"the machine's", mount2 + "\n\n" + service2, 0.25},
		{"version 2: without files that can be dropped", v2("1000000000", "1073741824", "200000000"), 0.8e9 / (1 << 30)},
		{"version 2: no limit", v2("1000000000", "max", "0"), 0.25},
		{"version 2: the machine is fuller", v2("1000000", "1073741824", "0"), 0.25},
		{"version 1: no limit is a large number", docker1 + "\n\nsys/fs/cgroup/memory/memory.usage_in_bytes\n9000\n\nsys/fs/cgroup/memory/memory.limit_in_bytes\n9223372036854771712", 0.25},
		{"version 1: a limit", docker1 + "\n\nsys/fs/cgroup/memory/memory.usage_in_bytes\n900\n\nsys/fs/cgroup/memory/memory.limit_in_bytes\n1000\n\nsys/fs/cgroup/memory/memory.stat\ninactive_file 1\ntotal_inactive_file 300", 0.6},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := tree(memory16G + "\n\n" + strings.ReplaceAll(tc.files, "%d", "1"))
			if got := findGroups(root).memory(root); math.Abs(got-tc.want) > 0.001 {
				t.Errorf("got %.4f, want %.4f", got, tc.want)
			}
		})
	}
}

func TestParseMachine(t *testing.T) {
	for _, c := range []struct {
		name, in    string
		busy, total uint64
		processors  int
	}{
		{"all columns", "cpu  10 20 30 400 50 6 7 8 9 10\ncpu0 1 1 1 1 1\n", 81, 531, 1}, // guest is within user
		{"an old kernel's four", "cpu 1 2 3 4\n", 6, 10, 0},
		{"empty", "", 0, 0, 0},
		{"no sum", "cpu0 1 2 3 4\n", 0, 0, 1},
		{"not numbers", "cpu a b c d e\n", 0, 0, 0},
		{"negative", "cpu 1 -2 3 4\n", 0, 0, 0},
	} {
		if busy, total, n := parseMachine([]byte(c.in)); busy != c.busy || total != c.total || n != c.processors {
			t.Errorf("%s: %d of %d, %d processors; want %d of %d, %d", c.name, busy, total, n, c.busy, c.total, c.processors)
		}
	}
}

func TestMeterAverages(t *testing.T) {
	m := at(nil, 0, 1)
	s := sample{at: time.Unix(0, 0), busy: 1000, total: 5000, processors: 1}
	for i, c := range []struct {
		busy uint64 // of 100 ticks within the next second
		want float64
	}{{0, 0}, {100, 1}, {0, 0.5}, {50, 0.5}, {0, 0.5 / 3}, {0, 0.5 / 3}, {0, 0}} {
		if i > 0 {
			s.at, s.busy, s.total = s.at.Add(time.Second), s.busy+c.busy, s.total+100
		}
		if got := m.add(s); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("second %d: %v, want %v", i, got, c.want)
		}
	}
	if got := m.add(sample{at: s.at.Add(time.Second), busy: 1, total: 2}); got != 0 { // counters that went back
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
	m := NewMeter(3*time.Second, 0)
	cpu, memory := m.Read()
	if cpu != 0 || memory <= 0 || memory >= 1 {
		t.Errorf("first reading: CPU %v, memory %v", cpu, memory)
	}
	if cpu, _ = m.Read(); cpu < 0 || cpu > 1 {
		t.Errorf("second reading: CPU %v", cpu)
	}
}

// inGroup is set for the process that TestMeterInAGroup starts.
const inGroup = "SLUICE_TEST_IN_GROUP"

// TestMeterInAGroup: a process in a group of this machine that may use a fifth of a processor, and uses it, says that it is full.
func TestMeterInAGroup(t *testing.T) {
	if os.Getenv(inGroup) != "" {
		m := NewMeter(3*time.Second, 0)
		m.Read()
		for end := time.Now().Add(time.Second); time.Now().Before(end); { // work
		}
		cpu, _ := m.Read()
		fmt.Printf("share=%.3f\n", cpu)
		return
	}
	name := fmt.Sprintf("sluice-test-%d", os.Getpid())
	cpu, account := filepath.Join("/sys/fs/cgroup/cpu", name), filepath.Join("/sys/fs/cgroup/cpuacct", name)
	join := ""
	for _, dir := range []string{cpu, account} {
		if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
			t.Skip("no group of version 1 can be made here: ", err)
		}
		t.Cleanup(func() { _ = os.Remove(dir) })
		join += "echo $$ > " + dir + "/cgroup.procs && "
	}
	if err := os.WriteFile(filepath.Join(cpu, "cpu.cfs_quota_us"), []byte("20000"), 0o644); err != nil {
		t.Skip("no quota can be set: ", err)
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", join+`exec "$0" -test.run='^TestMeterInAGroup$' -test.v`, os.Args[0])
	cmd.Env = append(os.Environ(), inGroup+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, after, _ := strings.Cut(string(out), "share=")
	word, _, _ := strings.Cut(after, "\n")
	if share, err := strconv.ParseFloat(word, 64); err != nil || share < 0.7 {
		t.Errorf("share %q (%v) of what a fifth of a processor is:\n%s", word, err, out)
	}
}
