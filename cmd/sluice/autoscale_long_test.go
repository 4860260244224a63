//go:build long

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// loader is sluice load, running until it is told to stop.
type loader struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	out  output
	json string
	done chan struct{}
}

func (c *cluster1) load(exe, name string, args ...string) *loader {
	c.t.Helper()
	l := &loader{t: c.t, name: name, json: filepath.Join(c.t.TempDir(), name+".json"), done: make(chan struct{})}
	l.cmd = exec.Command(exe, append([]string{"load", "--dir=" + c.dir, fmt.Sprintf("--play=https://localhost:%d/live/whep/s", c.play), "--follow", "--for=5m", "--json=" + l.json}, args...)...)
	l.cmd.Stdout, l.cmd.Stderr = &l.out, &l.out
	if err := l.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() {
		_ = l.cmd.Wait() // an interrupted run has its own code
		close(l.done)
	}()
	c.t.Cleanup(func() {
		_ = l.cmd.Process.Kill() // if the test failed
		<-l.done
	})
	return l
}

// crowdReport is what the test looks at.
type crowdReport struct {
	Joined  int
	Figures struct {
		Failed, Ended, Moved, Returned int
		Gap                            float64 `json:"gap_max"` // ms
	}
}

// waitJoined waits until the run itself says that all have joined, which is when it measures.
func (l *loader) waitJoined(viewers int) {
	l.t.Helper()
	want := fmt.Sprintf("%d of %d up", viewers, viewers)
	eventually(l.t, func() string {
		said := l.out.String()
		if i := strings.LastIndex(said, "measuring"); i < 0 || !strings.Contains(said[i:], want) {
			return fmt.Sprintf("%s measures with %s: %s", l.name, want, said)
		}
		return ""
	})
}

// stop ends the run as Ctrl-C does, and returns its report.
func (l *loader) stop() (r crowdReport) {
	l.t.Helper()
	if err := l.cmd.Process.Signal(syscall.SIGINT); err != nil {
		l.t.Fatal(err)
	}
	select {
	case <-l.done:
	case <-time.After(20 * time.Second):
		l.t.Fatalf("%s does not end: %s", l.name, l.out.String())
	}
	b, err := os.ReadFile(l.json)
	if err != nil || json.Unmarshal(b, &r) != nil {
		l.t.Fatalf("%s: no report (%v): %s", l.name, err, l.out.String())
	}
	return r
}

// TestUpAutoscale: viewers come and an edge is added; they go and it is drained, and those who stay are moved and lose nothing.
func TestUpAutoscale(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes most of a minute, and real viewers")
	}
	exe := filepath.Join(t.TempDir(), "sluice") // not this binary: the race detector would cost more than the viewers
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", exe, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c := &cluster1{t: t, dir: t.TempDir(), publish: freePort(t), play: freePort(t), done: make(chan struct{})}
	c.cmd = exec.Command(exe, "up", "--dir="+c.dir, fmt.Sprint("--publish-port=", c.publish), fmt.Sprint("--play-port=", c.play),
		"--origins=1", "--autoscale=1-2", "--scale-window=8s", "--scale-cpu=0.8", "--edge-cores=0.2")
	c.cmd.Dir, c.cmd.Stdout, c.cmd.Stderr = t.TempDir(), &c.out, &c.err
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = c.cmd.Wait() // the test looks at ProcessState
		close(c.done)
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // if the test failed
		<-c.done
		if t.Failed() {
			t.Logf("up said:\n%s%s", c.out.String(), c.err.String())
		}
	})
	c.waitReady()

	first := c.load(exe, "first", fmt.Sprintf("--publish=https://localhost:%d/live/whip/s", c.publish), "--viewers=4", "--bitrate=2M")
	c.waitEdge("edge-1", 4, 0)
	many := c.load(exe, "many", "--viewers=200")
	c.waitSays(30*time.Second, "autoscale: starts edge-2\n")
	eventually(t, func() string { // the gateway looks at the registry twice a second
		b, err := os.ReadFile(home{dir: c.dir}.logPath("gateway"))
		if err != nil || !strings.Contains(string(b), `msg="node is up" node=edge-2`) {
			return fmt.Sprintf("the gateway sees edge-2 (%v): %s", err, b)
		}
		return ""
	})
	many.waitJoined(200)           // a node counts a session before its client knows that media flows
	c.waitEdge("edge-1", 204, 0.9) // who comes now goes elsewhere
	later := c.load(exe, "later", "--viewers=3")
	c.waitEdge("edge-2", 3, 0)
	if r := many.stop(); r.Joined != 200 || r.Figures.Failed+r.Figures.Ended+r.Figures.Moved+r.Figures.Returned > 0 {
		t.Errorf("many: %+v", r)
	}

	c.waitSays(90*time.Second, "autoscale: drains edge-2, whose 3 viewers move to the others\n")
	c.waitSays(30*time.Second, "edge-2 was drained and has left\n")
	c.waitEdge("edge-1", 7, 0)
	if rows := c.nodes(); len(rows) != 2 {
		t.Errorf("nodes: %+v", rows)
	}
	if r := later.stop(); r.Joined < 3 || r.Figures.Moved != 3 || r.Figures.Failed+r.Figures.Ended+r.Figures.Returned > 0 || r.Figures.Gap <= 0 || r.Figures.Gap > 1000 {
		t.Errorf("later: %+v", r)
	}
	if r := first.stop(); r.Figures.Failed+r.Figures.Ended+r.Figures.Moved+r.Figures.Returned > 0 {
		t.Errorf("first: %+v", r)
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.waitEnd()
}

// waitEdge waits for an edge that has so many viewers and is that busy.
func (c *cluster1) waitEdge(id string, viewers int, cpu float64) {
	c.t.Helper()
	eventually(c.t, func() string {
		rows := c.nodes()
		i := slices.IndexFunc(rows, func(r nodeRow) bool { return r.ID == id })
		if i < 0 || rows[i].State != "ready" || rows[i].Viewers != viewers || rows[i].CPU < cpu {
			return fmt.Sprintf("%s has %d viewers, CPU %.2f or more: %+v", id, viewers, cpu, rows)
		}
		return ""
	})
}

// waitSays waits for a line of up.
func (c *cluster1) waitSays(within time.Duration, line string) {
	c.t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(c.out.String(), line) {
		select {
		case <-tick.C:
		case <-deadline:
			c.t.Fatalf("not within %s: %q; nodes: %+v", within, line, c.nodes())
		}
	}
}
