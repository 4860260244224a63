// Package usage reads what processes and the whole machine have used, from /proc. Elsewhere than on Linux nothing is known.
//
// Imports: nothing of ours.
package usage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Usage is what processes have used so far.
type Usage struct {
	CPU float64 // seconds, in user and kernel mode
	RSS float64 // bytes, at present
}

// clockTicks a second in /proc (USER_HZ), on every architecture of today.
const clockTicks = 100

// Of adds up processes of this machine.
func Of(pids ...int) (sum Usage, err error) {
	for _, pid := range pids {
		u, err := readStat(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return Usage{}, fmt.Errorf("process %d: %w", pid, err)
		}
		if exact, ok := cpuClock(pid); ok {
			u.CPU = exact
		}
		sum.CPU += u.CPU
		sum.RSS += u.RSS
	}
	return sum, nil
}

// Own is this process's; zero where it can't be told.
func Own() Usage {
	u, _ := Of(os.Getpid())
	return u
}

// Gone reports that there is no process with that number on this machine, or only its remains.
func Gone(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil || errors.Is(p.Signal(syscall.Signal(0)), os.ErrProcessDone) {
		return true
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	state := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // proc_pid_stat(5): Z is a zombie, X is dead
	return len(state) > 0 && (state[0] == "Z" || state[0] == "X")
}

func readStat(path string) (Usage, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Usage{}, err
	}
	return parseStat(b)
}

// parseStat reads proc_pid_stat(5): utime, stime and rss are fields 14, 15 and 24; the second is a name in
// parentheses, which may contain anything.
func parseStat(b []byte) (Usage, error) {
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 22 {
		return Usage{}, fmt.Errorf("%d fields", len(f))
	}
	var v [3]float64
	for i, at := range []int{11, 12, 21} {
		n, err := strconv.ParseFloat(f[at], 64)
		if err != nil {
			return Usage{}, err
		}
		v[i] = n
	}
	return Usage{(v[0] + v[1]) / clockTicks, v[2] * float64(os.Getpagesize())}, nil
}

// Others tells what a machine was busy with in a time, in seconds of processor: all together, and those whose time isn't known. /proc/stat counts who runs at a tick, so it
// misses short wake-ups, which the clocks of processes have: the machine was busy at least as long as those whose time is known.
// So other is a lower bound.
func Others(machine float64, known ...float64) (busy, other float64) {
	for _, k := range known {
		busy += k
	}
	other = max(0, machine-busy)
	return busy + other, other
}

// Machine is the seconds that all processors together have worked, and how many there are, by proc_stat(5); 0 where it can't be told.
func Machine() (seconds float64, processors int) {
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
