package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cluster1 is sluice up, running as a process of its own.
type cluster1 struct {
	t             *testing.T
	dir           string
	publish, play int
	cmd           *exec.Cmd
	out, err      output
	done          chan struct{} // closed at its end
}

func startUp(t *testing.T, dir string, env ...string) *cluster1 {
	t.Helper()
	c := &cluster1{t: t, dir: dir, publish: freePort(t), play: freePort(t), done: make(chan struct{})}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c.cmd = exec.Command(exe, "up", "--dir="+dir, fmt.Sprint("--publish-port=", c.publish), fmt.Sprint("--play-port=", c.play), "--origins=1", "--edges=2")
	c.cmd.Dir = t.TempDir()
	c.cmd.Env = append(append(os.Environ(), asSluice+"=fake"), env...)
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.err
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = c.cmd.Wait() // tests look at ProcessState
		close(c.done)
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // if a test failed
		<-c.done
	})
	return c
}

func (c *cluster1) waitReady() {
	c.t.Helper()
	eventually(c.t, func() string {
		select {
		case <-c.done:
			c.t.Fatalf("up ended: %s%s", c.out.String(), c.err.String())
		default:
		}
		if strings.Contains(c.out.String(), "\nready in ") && strings.Contains(c.out.String(), "stop     Ctrl-C") {
			return ""
		}
		return "ready: " + c.out.String() + c.err.String()
	})
}

// nodes asks as a user does.
func (c *cluster1) nodes() []nodeRow {
	c.t.Helper()
	var out, errs output
	if code := run(c.t.Context(), []string{"nodes", "--json", "--dir=" + c.dir}, nil, nil, &out, &errs); code != 0 {
		c.t.Fatalf("sluice nodes: %d, %s", code, errs.String())
	}
	var rows []nodeRow
	if err := json.Unmarshal([]byte(out.String()), &rows); err != nil {
		c.t.Fatal(err)
	}
	return rows
}

func (c *cluster1) waitEnd() {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(20 * time.Second):
		c.t.Fatalf("up does not end: %s", c.out.String())
	}
}

func TestUp(t *testing.T) {
	c := startUp(t, filepath.Join(t.TempDir(), "cluster"))
	c.waitReady()
	rows := c.nodes()
	if len(rows) != 3 {
		t.Fatalf("got %d nodes, want 3", len(rows))
	}
	for _, n := range rows {
		if n.State != "ready" || gone(n.PID) || !strings.HasPrefix(n.HTTP, "127.0.0.1:") {
			t.Errorf("node is not well: %+v", n)
		}
	}
	for _, url := range []string{
		fmt.Sprintf("publish  https://localhost:%d/live/\n", c.publish), fmt.Sprintf("play     https://localhost:%d/live/player.html\n", c.play),
	} {
		if !strings.Contains(c.out.String(), url) {
			t.Errorf("no line %q in\n%s", url, c.out.String())
		}
	}
	c.usesOwnCertificate()
	c.refusesSecond()
	c.restartsKilled(rows)
	c.runsBeside()

	rows = c.nodes()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.waitEnd()
	if code := c.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d: %s", code, c.err.String())
	}
	for _, n := range rows {
		if !gone(n.PID) {
			t.Errorf("%s is left behind", n.ID)
		}
	}
	if left := c.nodes(); len(left) != 0 {
		t.Errorf("left in the registry: %+v", left)
	}
}

func (c *cluster1) usesOwnCertificate() {
	c.t.Helper()
	a, err := home{dir: c.dir}.readAddress()
	if err != nil {
		c.t.Fatal(err)
	}
	u := &up{home: home{dir: c.dir}}
	if err := u.watch(); err != nil {
		c.t.Fatal(err)
	}
	for _, url := range []string{a.Publish, a.Play, strings.Replace(a.Play, "localhost", "127.0.0.1", 1)} {
		res, err := u.client.Get(url)
		if err != nil {
			c.t.Errorf("with the CA of %s: %v", a.CA, err)
			continue
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			c.t.Errorf("%s: %s", url, res.Status)
		}
	}
}

func (c *cluster1) refusesSecond() {
	c.t.Helper()
	second := startUp(c.t, c.dir)
	second.waitEnd()
	want := fmt.Sprintf("sluice: a cluster runs in %s already (pid %d): stop it, or choose another folder with --dir\n", c.dir, c.cmd.Process.Pid)
	if got := second.err.String(); got != want || second.cmd.ProcessState.ExitCode() != exitFailed {
		c.t.Errorf("second up says %q, want %q", got, want)
	}
}

func (c *cluster1) restartsKilled(before []nodeRow) {
	c.t.Helper()
	if before[0].ID != "edge-1" {
		c.t.Fatalf("first node is %s", before[0].ID)
	}
	if err := syscall.Kill(before[0].PID, syscall.SIGKILL); err != nil {
		c.t.Fatal(err)
	}
	eventually(c.t, func() string {
		after := c.nodes()
		if len(after) != 3 || after[0].PID == before[0].PID {
			return fmt.Sprintf("edge-1 is back: %+v", after)
		}
		if after[1].PID != before[1].PID || after[2].PID != before[2].PID {
			c.t.Fatalf("others were restarted: %+v", after)
		}
		return ""
	})
	if !strings.Contains(c.out.String(), "edge-1 died (signal: killed); it starts again in 250ms") {
		c.t.Errorf("the death is not told:\n%s", c.out.String())
	}
}

// runsBeside: a cluster with another folder and ports.
func (c *cluster1) runsBeside() {
	c.t.Helper()
	other := startUp(c.t, filepath.Join(c.t.TempDir(), "other"))
	other.waitReady()
	if err := other.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		c.t.Fatal(err)
	}
	other.waitEnd()
}

// TestUpWithRealNodes: what up gives its children is what they take.
func TestUpWithRealNodes(t *testing.T) {
	c := startUp(t, t.TempDir(), asSluice+"=real")
	c.waitReady()
	for _, n := range c.nodes() {
		if n.State != "ready" || n.Media == "" || n.Host == "" || n.Version != version || !strings.HasPrefix(n.ID, n.Role+"-") {
			t.Errorf("node is not well: %+v", n)
		}
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.waitEnd()
	if code := c.cmd.ProcessState.ExitCode(); code != 0 || len(c.nodes()) != 0 {
		t.Errorf("exit code %d, left: %+v; %s", code, c.nodes(), c.err.String())
	}
}

// TestUpKilled: children end with up, however it ends.
func TestUpKilled(t *testing.T) {
	c := startUp(t, t.TempDir())
	c.waitReady()
	rows := c.nodes()
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.waitEnd()
	eventually(t, func() string {
		for _, n := range rows {
			if !gone(n.PID) {
				return n.ID + " has ended"
			}
		}
		return ""
	})
	again := startUp(t, c.dir) // neither the lock nor the old rows are in the way
	again.waitReady()
}

func TestUpChildDoesNotStart(t *testing.T) {
	c := startUp(t, t.TempDir(), "TEST_BROKEN=edge")
	c.waitEnd()
	got := c.err.String()
	if c.cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(got, "edge-") ||
		!strings.Contains(got, "does not start (exit status 1: ") || !strings.Contains(got, "no edge today); see "+c.dir) || strings.Count(got, "\n") != 1 {
		t.Errorf("got %q", got)
	}
}

func TestUpPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	for _, flag := range []string{"--publish-port", "--play-port"} {
		t.Run(flag, func(t *testing.T) {
			var out, errs output
			args := []string{"up", "--dir=" + t.TempDir(), fmt.Sprint("--publish-port=", freePort(t)), fmt.Sprint("--play-port=", freePort(t)), fmt.Sprint(flag, "=", port)}
			code := run(t.Context(), args, nil, nil, &out, &errs)
			want := fmt.Sprintf("sluice: port %d is in use by another program: stop it (ss -ltnp 'sport = :%d' names it), or choose another with %s\n", port, port, flag)
			if code != exitFailed || errs.String() != want {
				t.Errorf("got %d, %q\nwant %q", code, errs.String(), want)
			}
		})
	}
}

// TestChildStops: Run ends the process, then returns.
func TestChildStops(t *testing.T) {
	dir := t.TempDir()
	c := &child{name: "x", exe: "/bin/sh", args: []string{"-c", "echo here; exec cat /dev/zero > /dev/null"},
		log: filepath.Join(dir, "x.log"), logSize: 1e6, say: t.Logf}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	var pid int
	eventually(t, func() string {
		if pid, _, _ = c.state(); pid == 0 || len(lastLines(c.log, 0, 1)) == 0 {
			return "running"
		}
		return ""
	})
	cancel()
	select {
	case err := <-done:
		if err != nil || !gone(pid) {
			t.Errorf("got %v, gone: %v", err, gone(pid))
		}
	case <-time.After(stopGrace + 10*time.Second):
		t.Fatal("Run does not return")
	}
}

func TestLogIsSetAside(t *testing.T) {
	c := &child{log: filepath.Join(t.TempDir(), "x.log"), logSize: 10}
	for _, line := range []string{"first\n", "second\n", "third\n"} {
		f, err := c.openLog()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(line); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	old, _ := os.ReadFile(c.log + ".1")
	now, _ := os.ReadFile(c.log)
	if string(old) != "first\nsecond\n" || string(now) != "third\n" {
		t.Errorf("old %q, now %q", old, now)
	}
}

func TestLastLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	text := strings.Repeat("x", 5000) + "\na\nb\nc\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		from int64
		n    int
		want string
	}{
		{"last two", 0, 2, "b|c"},
		{"only of this life", int64(len(text)) - 2, 3, "c"},
		{"nothing yet", int64(len(text)), 3, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := strings.Join(lastLines(path, tc.from, tc.n), "|"); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
