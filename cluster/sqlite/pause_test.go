package sqlite

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/cluster"
)

// memberArgs is how many arguments TestMember gets; it is this binary run as a node.
const memberArgs = 2 // path, node

// TestMember is a node with one publisher who wants the contested stream for ever. It prints "own EPOCH", and "lost" when it
// has to end.
func TestMember(t *testing.T) {
	if flag.NArg() != memberArgs {
		t.Skip("only as a child of the test below")
	}
	m := cluster.NewMember(open(t, flag.Arg(0)), flag.Arg(1), func() cluster.Node { return cluster.Node{PID: os.Getpid()} },
		slog.New(slog.NewTextHandler(os.Stdout, nil)))
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _ = m.Run(t.Context()) })
	for {
		lost := make(chan struct{})
		held, err := m.Acquire(t.Context(), contested, false, func(error) { close(lost) })
		if errors.Is(err, cluster.ErrStreamInUse) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("own", held.Lease().Epoch)
		<-lost
		fmt.Println("lost")
	}
}

// nodeProcess is such a process.
type nodeProcess struct {
	t     *testing.T
	id    string
	cmd   *exec.Cmd
	lines chan string
}

func startNode(t *testing.T, path, id string) *nodeProcess {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &nodeProcess{t: t, id: id, cmd: exec.CommandContext(ctx, os.Args[0], "-test.run=^TestMember$", "--", path, id), lines: make(chan string, 100)}
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
		close(p.lines)
	}()
	t.Cleanup(func() {
		cancel() // SIGKILL, which also ends who is stopped
		for range p.lines {
		}
		_ = p.cmd.Wait() // "signal: killed"
	})
	return p
}

func (p *nodeProcess) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// says waits for a line that begins so, and returns it and what was said before.
func (p *nodeProcess) says(begins string, within time.Duration) (line string, before []string) {
	p.t.Helper()
	late := time.After(within)
	for {
		select {
		case line, ok := <-p.lines:
			if strings.HasPrefix(line, begins) {
				return line, before
			}
			if before = append(before, line); !ok {
				p.t.Fatalf("%s ended, it did not say %q but %q", p.id, begins, before)
			}
		case <-late:
			p.t.Fatalf("%s did not say %q within %v, but %q", p.id, begins, within, before)
		}
	}
}

func (p *nodeProcess) owns(within time.Duration) (epoch int64) {
	p.t.Helper()
	line, _ := p.says("own ", within)
	if _, err := fmt.Sscanf(line, "own %d", &epoch); err != nil {
		p.t.Fatal(err)
	}
	return epoch
}

// slack is what a busy machine may add.
const slack = 5 * time.Second

// Real processes that are stopped (SIGSTOP) lose their stream to others, and end their publisher as soon as they go on.
func TestStoppedProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sluice.db")
	reg := open(t, path)
	a := startNode(t, path, "a")
	epoch := a.owns(slack)
	b := startNode(t, path, "b")
	for range 2 {
		a.signal(syscall.SIGSTOP)
		begin := time.Now()
		next := b.owns(cluster.SessionTTL + slack)
		t.Logf("taken over %v after SIGSTOP", time.Since(begin).Round(10*time.Millisecond))
		if next <= epoch {
			t.Errorf("epoch %d after %d", next, epoch)
		}
		epoch = next
		if nodes, err := reg.Nodes(t.Context()); err != nil || len(nodes) != 2 || !nodes[0].Fenced && !nodes[1].Fenced {
			t.Errorf("nodes %+v, %v; want one fenced", nodes, err)
		}
		select {
		case line := <-a.lines:
			t.Errorf("%s said %q while it was stopped", a.id, line)
		default:
		}
		begin = time.Now()
		a.signal(syscall.SIGCONT)
		_, story := a.says("lost", cluster.HeartbeatEvery+slack)
		t.Logf("fenced %v after SIGCONT", time.Since(begin).Round(10*time.Millisecond))
		if told := strings.Join(story, "\n"); !strings.Contains(told, "fenced") || !strings.Contains(told, "stream lost") {
			t.Errorf("%s does not say what happened:\n%s", a.id, told)
		}
		a, b = b, a
	}
	a.signal(syscall.SIGKILL)
	begin := time.Now()
	if next := b.owns(cluster.SessionTTL + slack); next <= epoch {
		t.Errorf("epoch %d after %d", next, epoch)
	}
	t.Logf("taken over %v after SIGKILL", time.Since(begin).Round(10*time.Millisecond))
}
