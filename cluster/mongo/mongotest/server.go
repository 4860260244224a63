// Package mongotest runs a server that speaks MongoDB's wire protocol for tests: FerretDB, in a process that may be
// killed and started again, behind lines that can be cut, held, and whose commands are counted.
//
// Imports: nothing.
package mongotest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
)

// startWithin bounds the start of the server; it takes some tens of milliseconds.
const startWithin = 20 * time.Second

// Options of a server.
type Options struct {
	User, Password string // of the one user; empty: everybody may do everything
}

// Server is FerretDB with its data in files.
type Server struct {
	t       testing.TB
	options Options
	binary  string
	dir     string

	// turn lets one message through at a time: FerretDB's updates are not atomic while others are under way, MongoDB's are.
	turn sync.Mutex

	mu    sync.Mutex
	kill  func() // nil: the server is down
	lines []*Line
}

// Start runs a server until the test ends. It builds FerretDB if need be, which takes a minute at the
// first time: short tests skip it.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if testing.Short() {
		t.Skip("needs FerretDB, which takes a minute to build: run without -short")
	}
	root, err := root()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(root, "scripts", "ferretdb")).CombinedOutput(); err != nil {
		t.Fatalf("build FerretDB: %v; run scripts/ferretdb to see why:\n%s", err, out)
	}
	dir, err := os.MkdirTemp("", "ferretdb") // not t.TempDir: the path of a socket may have 100 characters
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, options: o, binary: filepath.Join(root, "bin", "ferretdb"), dir: dir}
	t.Cleanup(func() {
		for _, l := range s.lines {
			_ = l.Close()
		}
		s.Kill()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for _, d := range []string{s.data(), s.state()} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.Restart()
	return s
}

func (s *Server) data() string   { return filepath.Join(s.dir, "data") }
func (s *Server) state() string  { return filepath.Join(s.dir, "state") }
func (s *Server) socket() string { return filepath.Join(s.dir, "socket") }

// root is the folder of the module, from which the test's own folder is somewhere below.
func root() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "scripts", "ferretdb")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("scripts/ferretdb is in no folder above this test's")
		}
	}
	return "", err
}

// Restart starts the server after Kill.
func (s *Server) Restart() {
	s.t.Helper()
	args := []string{"--handler=sqlite", "--sqlite-url=file:" + s.data() + "/", "--state-dir=" + s.state(), "--listen-addr=",
		"--listen-unix=" + s.socket(), "--debug-addr=-", "--telemetry=disable", "--log-level=WARN"}
	if o := s.options; o.User != "" {
		args = append(args, "--test-enable-new-auth", "--setup-database=admin", "--setup-username="+o.User, "--setup-password="+o.Password)
	}
	cmd := exec.Command(s.binary, args...)
	cmd.SysProcAttr = dieWithParent()
	var log bytes.Buffer // read after the process has ended
	cmd.Stdout, cmd.Stderr = &log, &log
	_ = os.Remove(s.socket()) // of a server that was killed
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // never unlocked: the thread that starts a child must live as long as it, see dieWithParent
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // says that it was killed
		}
	}()
	if err := <-started; err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.kill = func() { _ = cmd.Process.Kill(); <-ended }
	s.mu.Unlock()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(startWithin); ; {
		conn, err := net.Dial("unix", s.socket())
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-ended:
			s.t.Fatalf("FerretDB ended at once:\n%s", log.String())
		case <-tick.C:
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("FerretDB is not up after %v: %v", startWithin, err)
		}
	}
}

// Kill ends the server at once; its lines stay open, and refuse whoever comes.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kill != nil {
		s.kill()
		s.kill = nil
	}
}

// dial opens a connection to the server.
func (s *Server) dial() (net.Conn, error) {
	conn, err := net.Dial("unix", s.socket())
	if err != nil {
		return nil, fmt.Errorf("the server is down: %w", err)
	}
	return conn, nil
}
