package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// How a child is started again, and how it is stopped.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 10 * time.Second
	sound      = 30 * time.Second // a child that ran for so long begins with the first pause again
	stopGrace  = 6 * time.Second  // between SIGTERM and SIGKILL
)

// child is a process that is kept running.
type child struct {
	name    string
	exe     string
	args    []string
	env     []string // nil: as this process
	log     string   // path of its log
	logSize int64    // a longer log is set aside at a start
	say     func(format string, args ...any)

	logFrom int64 // where the present life begins in the log; Run's goroutine

	mu     sync.Mutex
	pid    int  // 0: it does not run
	deaths int  // in a row, without sound life between
	leaves bool // an operator has ordered it to go: it is not started again
	goes   bool // it was dismissed: the same, and nobody takes that back
	last   string
}

// state returns the pid, 0 when it does not run; and how often in a row it died, with why.
func (c *child) state() (pid, deaths int, last string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid, c.deaths, c.last
}

// Run keeps the child running until ctx ends, then stops it, or until it has left by order. It returns when the
// process is gone.
func (c *child) Run(ctx context.Context) error {
	// Pdeathsig goes by the thread that started the child, not by the process: that thread
	// must live as long as the child. It ends with this goroutine, as it is never unlocked.
	runtime.LockOSThread()
	pause := firstPause
	for {
		began := time.Now()
		died := c.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if c.leaving() {
			if died == errEnded {
				c.say("%s was drained and has left", c.name)
			} else {
				c.say("%s was to drain and died (%v); it does not start again", c.name, died)
			}
			return nil
		}
		if time.Since(began) > sound {
			pause = firstPause
		}
		c.report(died, began, pause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// once starts the child and waits for its end, which it brings about when ctx ends.
func (c *child) once(ctx context.Context) error {
	log, err := c.openLog()
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own handle; nothing is buffered
	cmd := exec.CommandContext(ctx, c.exe, c.args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = c.env, log, log
	cmd.SysProcAttr = attributes()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	if err := cmd.Start(); err != nil {
		return err
	}
	_, before, _ := c.state()
	c.set(cmd.Process.Pid)
	if before > 0 {
		c.say("%s runs again (pid %d)", c.name, cmd.Process.Pid)
	}
	err = cmd.Wait()
	c.set(0)
	if err == nil {
		err = errEnded
	}
	return err
}

// errEnded: a process ended without an error.
var errEnded = errors.New("it ended by itself")

// leave says whether an operator wants the process to go.
func (c *child) leave(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaves = on
}

func (c *child) leaving() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leaves || c.goes
}

// dismiss says that it goes for good, whatever its row says.
func (c *child) dismiss() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.goes = true
}

func (c *child) set(pid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pid = pid
}

func (c *child) openLog() (*os.File, error) {
	if st, err := os.Stat(c.log); err == nil && st.Size() > c.logSize {
		if err := os.Rename(c.log, c.log+".1"); err != nil {
			return nil, fmt.Errorf("set log aside: %w", err)
		}
	}
	f, err := os.OpenFile(c.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	c.logFrom, err = f.Seek(0, io.SeekEnd)
	return f, err
}

// report tells of a death, with the child's last lines.
func (c *child) report(died error, began time.Time, pause time.Duration) {
	lines := lastLines(c.log, c.logFrom, 3)
	c.mu.Lock()
	if time.Since(began) > sound {
		c.deaths = 0
	}
	c.deaths++
	c.last = died.Error()
	if len(lines) > 0 {
		c.last += ": " + lines[len(lines)-1]
	}
	c.mu.Unlock()
	c.say("%s died (%v); it starts again in %s; end of %s:", c.name, died, pause, c.log)
	for _, line := range lines {
		c.say("    %s", line)
	}
}

// lastLines returns up to n lines from the end of a file, of at most 4 kB and not before from.
func lastLines(path string, from int64, n int) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil
	}
	from = max(from, size-4096)
	b, _ := io.ReadAll(io.NewSectionReader(f, from, size-from)) // what could be read is good enough for a message
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return nil
	}
	lines := strings.Split(string(b), "\n")
	return lines[max(0, len(lines)-n):]
}
