package usage

import "golang.org/x/sys/unix"

// cpuClock reads the clock of a process's processor time, which /proc rounds to 10 ms. The clock's number is made of the
// process's as by clock_getcpuclockid(3).
func cpuClock(pid int) (seconds float64, ok bool) {
	const sched = 2 // CPUCLOCK_SCHED: user and kernel mode
	var t unix.Timespec
	if unix.ClockGettime(int32(^pid<<3|sched), &t) != nil {
		return 0, false
	}
	return float64(t.Nano()) / 1e9, true
}
