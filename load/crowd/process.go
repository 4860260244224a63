package crowd

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// usage is what processes have used so far, by /proc.
type usage struct {
	cpu float64 // seconds, in user and kernel mode
	rss float64 // bytes, at present
}

// clockTicks a second in /proc (USER_HZ), on every architecture of today.
const clockTicks = 100

func processUsage(pids []int) (sum usage, err error) {
	for _, pid := range pids {
		u, err := readStat(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return usage{}, fmt.Errorf("process %d: %w", pid, err)
		}
		sum.cpu += u.cpu
		sum.rss += u.rss
	}
	return sum, nil
}

// ownUsage is this process's; zero where there is no /proc.
func ownUsage() usage {
	u, _ := readStat("/proc/self/stat")
	return u
}

func readStat(path string) (usage, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return usage{}, err
	}
	return parseStat(b)
}

// parseStat reads proc_pid_stat(5): utime, stime and rss are fields 14, 15 and 24; the second is a name in
// parentheses, which may contain anything.
func parseStat(b []byte) (usage, error) {
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 22 {
		return usage{}, fmt.Errorf("%d fields", len(f))
	}
	var v [3]float64
	for i, at := range []int{11, 12, 21} {
		n, err := strconv.ParseFloat(f[at], 64)
		if err != nil {
			return usage{}, err
		}
		v[i] = n
	}
	return usage{(v[0] + v[1]) / clockTicks, v[2] * float64(os.Getpagesize())}, nil
}

// machineBusy is the seconds that all processors together have worked, and how many there are, by proc_stat(5); 0 where it can't be told.
func machineBusy() (seconds float64, processors int) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 8 || !strings.HasPrefix(f[0], "cpu"):
		case f[0] != "cpu":
			processors++
		default:
			for _, i := range []int{1, 2, 3, 6, 7} { // user, nice, system, irq, softirq
				v, _ := strconv.ParseFloat(f[i], 64)
				seconds += v / clockTicks
			}
		}
	}
	return seconds, processors
}

// CheckProcess says whether what a process uses can be read.
func CheckProcess(pid int) error {
	_, err := processUsage([]int{pid})
	return err
}
