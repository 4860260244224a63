package usage

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestGone(t *testing.T) {
	if Gone(os.Getpid()) {
		t.Error("this process is gone")
	}
	if os.Getppid() > 0 && Gone(1) {
		t.Error("the first process is gone")
	}
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		t.Skip(err)
	}
	if Gone(c.Process.Pid) {
		t.Error("a process that runs is gone")
	}
	_ = c.Process.Kill()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !Gone(c.Process.Pid) { // nobody has waited for it: it is a zombie
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("a process that was killed is not gone")
		}
	}
	_ = c.Wait()
	if !Gone(c.Process.Pid) {
		t.Error("a process that was waited for is not gone")
	}
}
