package sqlite

import (
	"bufio"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"sluice/cluster"
	"sluice/media"
)

var contested = media.Key{App: "live", ID: "contested"}

// childArgs is how many arguments TestChild gets; it is this binary run as another process.
const childArgs = 3 // path, node, rounds

// child starts this test binary as another node that claims and releases.
func child(t *testing.T, path, node string, rounds int) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$", "--", path, node, strconv.Itoa(rounds))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// TestChild is the other process. It prints "won EPOCH" for each claim it won, after the claim was written.
func TestChild(t *testing.T) {
	if flag.NArg() != childArgs {
		t.Skip("only as a child of the tests below")
	}
	rounds, err := strconv.Atoi(flag.Arg(2))
	if err != nil {
		t.Fatal(err)
	}
	r := open(t, flag.Arg(0))
	node := flag.Arg(1)
	row := cluster.Node{ID: node, Session: 1 + rand.Int64N(1<<62), PID: os.Getpid()}
	if err := r.Join(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	for won := 0; won < rounds; {
		if err := r.Heartbeat(t.Context(), row); err != nil {
			t.Fatal(err)
		}
		l, err := r.Claim(t.Context(), cluster.Lease{Key: contested, Node: node, Session: row.Session})
		if errors.Is(err, cluster.ErrStreamInUse) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		won++
		fmt.Println("won", l.Epoch)
		if err := r.Report(t.Context(), l, cluster.StreamInfo{State: cluster.Broadcasting}); err != nil {
			t.Fatal(err) // nobody else may have taken it
		}
		if err := r.Release(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
}

// epoch reads what a child won.
func epoch(line string) (n int64, ok bool) {
	_, err := fmt.Sscanf(line, "won %d", &n)
	return n, err == nil
}

// Processes that fight for one stream never hold it together: every epoch has one winner.
func TestProcessesShareTheFile(t *testing.T) {
	const processes, rounds = 3, 40
	path := filepath.Join(t.TempDir(), "sluice.db") // created by whoever is first
	type report struct {
		epochs []int64
		err    error
	}
	reports := make(chan report, processes)
	for i := range processes {
		cmd, lines := child(t, path, fmt.Sprintf("node-%d", i), rounds)
		go func() {
			var r report
			for lines.Scan() {
				if n, ok := epoch(lines.Text()); ok {
					r.epochs = append(r.epochs, n)
				}
			}
			r.err = cmd.Wait()
			reports <- r
		}()
	}
	seen := map[int64]bool{}
	for range processes {
		r := <-reports
		if r.err != nil || len(r.epochs) != rounds {
			t.Errorf("a process won %d times, want %d; %v", len(r.epochs), rounds, r.err)
		}
		for i, n := range r.epochs {
			if seen[n] || i > 0 && n <= r.epochs[i-1] {
				t.Errorf("epoch %d was won twice, or out of order", n)
			}
			seen[n] = true
		}
	}
	reg := open(t, path)
	if s, err := reg.Lookup(t.Context(), contested); err != nil || len(s) != 1 || !seen[s[0].Epoch] || len(seen) != processes*rounds {
		t.Errorf("stream %+v, %v; want one of %d epochs", s, err, processes*rounds)
	}
	if nodes, err := reg.Nodes(t.Context()); err != nil || len(nodes) != processes {
		t.Errorf("nodes %+v, %v; want %d", nodes, err, processes)
	}
}

// A process that is killed while it writes loses nothing that it was told is written,
// and the file needs no repair.
func TestKilledProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sluice.db")
	reg := open(t, path)
	for i, after := range []int{1, 7, 30, 101} {
		cmd, lines := child(t, path, "victim", 1<<30)
		var last int64
		for n := 0; lines.Scan(); {
			e, ok := epoch(lines.Text())
			if !ok {
				continue
			}
			last = e
			if n++; n == after {
				if err := cmd.Process.Kill(); err != nil { // SIGKILL; what is still in the pipe counts too
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // "signal: killed"

		// The node starts again: what its session before held is free at once.
		row := cluster.Node{ID: "victim", Session: int64(i + 1)}
		if err := reg.Join(t.Context(), row); err != nil {
			t.Fatal(err)
		}
		l, err := reg.Claim(t.Context(), cluster.Lease{Key: contested, Node: row.ID, Session: row.Session})
		if err != nil || l.Epoch <= last {
			t.Fatalf("kill %d: epoch %d, %v; the victim had %d", i, l.Epoch, err, last)
		}
		if err := reg.Release(t.Context(), l); err != nil {
			t.Error(err)
		}
		var verdict string
		db, err := sql.Open("sqlite", "file:"+path)
		if err == nil {
			err = errors.Join(db.QueryRow(`PRAGMA integrity_check`).Scan(&verdict), db.Close())
		}
		if err != nil || verdict != "ok" {
			t.Fatalf("kill %d: integrity check says %q, %v", i, verdict, err)
		}
	}
}
