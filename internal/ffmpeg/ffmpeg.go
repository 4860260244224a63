// Package ffmpeg runs FFmpeg, which decodes and encodes in processes of its own.
//
// Imports: nothing.
package ffmpeg

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"sync"
)

// ErrMissing: FFmpeg is not on this machine.
var ErrMissing = errors.New("ffmpeg is not installed: apt-get install ffmpeg")

// Start starts cmd in a process group of its own, and tells of its end. The kernel kills it when the thread that started it ends, not only when
// the process does: so that thread waits for it, and no other goroutine runs on it.
func Start(cmd *exec.Cmd) (<-chan error, error) {
	ownGroup(cmd)
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	return ended, <-started
}

// Output runs cmd, such as ffprobe, and returns what it writes.
func Output(cmd *exec.Cmd) ([]byte, error) {
	ownGroup(cmd)
	runtime.LockOSThread() // see Start
	defer runtime.UnlockOSThread()
	return cmd.Output()
}

// Need tells what to install when a program of FFmpeg is missing.
func Need(err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return ErrMissing
	}
	return fmt.Errorf("start ffmpeg: %w", err)
}

// Tail keeps the end of what is written to it: FFmpeg's last words are its reason.
type Tail struct {
	mu  sync.Mutex
	buf []byte
}

var _ io.Writer = (*Tail)(nil)

const tailSize = 2 << 10

func (t *Tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if len(t.buf) > tailSize {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-tailSize:]...)
	}
	return len(b), nil
}

// String is the last three lines in one.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(t.buf)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}
