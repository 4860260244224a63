package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/cluster"
)

// within is what the operator is promised.
const within = 2 * time.Second

func TestKilledNodeIsPassedOver(t *testing.T) {
	a, b := startNode(t, "e1", cluster.Edge, stream1), startNode(t, "e2", cluster.Edge)
	r := start(t, Config{}, a, b)
	if got := r.ask(t, "POST", r.play("/live/whep/stream1"), "v=0"); got.Node != "e1" {
		t.Fatalf("first viewer went to %q", got.Node)
	}
	a.kill()
	for i := range 20 { // none of them may fail, from the first
		if got := r.ask(t, "POST", r.play("/live/whep/stream1"), "v=0"); got.Node != "e2" || got.Body != "v=0" {
			t.Fatalf("viewer %d: %+v", i, got)
		}
		if got := r.ask(t, "GET", r.play("/live/player.html"), ""); got.Node != "e2" {
			t.Fatalf("page %d: %+v", i, got)
		}
	}
	if resp, body := r.do(t, "PATCH", r.play("/live/whep/stream1/e1.abc"), "v=0"); code(body) != "no_session" {
		t.Errorf("session of the dead node: %s %s", resp.Status, body)
	}
	if !strings.Contains(r.log.String(), `msg="node is down" node=e1 role=edge`) {
		t.Error("the log does not tell that the node is down")
	}
}

// A node that takes connections and answers nothing is found by the probes, and requests
// that wait for it then go to another.
func TestHungNodeIsPassedOver(t *testing.T) {
	a, b := startNode(t, "e1", cluster.Edge, stream1), startNode(t, "e2", cluster.Edge)
	r := start(t, Config{}, a, b)
	upAndRunning(t, r, 2)
	a.hung.Store(true)
	begin := time.Now()
	if got := r.ask(t, "POST", r.play("/live/whep/stream1"), "v=0"); got.Node != "e2" || got.Body != "v=0" {
		t.Fatalf("got %+v", got)
	}
	if took := time.Since(begin); took > within {
		t.Errorf("viewer waited for %v, want at most %v", took, within)
	}
	begin = time.Now()
	if got := r.ask(t, "POST", r.play("/live/whep/stream1"), "v=0"); got.Node != "e2" || time.Since(begin) > time.Second {
		t.Errorf("next viewer: %+v after %v", got, time.Since(begin))
	}
	// Its sessions are gone for as long as it hangs; when it is back, so are they.
	if _, body := r.do(t, "DELETE", r.play("/live/whep/stream1/e1.abc"), ""); code(body) != "no_session" {
		t.Errorf("session of the hung node: %s", body)
	}
}

func TestNodeComesBack(t *testing.T) {
	a := startNode(t, "e1", cluster.Edge)
	r := start(t, Config{HealthInterval: 10 * time.Millisecond}, a)
	upAndRunning(t, r, 1)
	a.ready.Store(503)
	eventually(t, within, func() string {
		if resp, _ := r.do(t, "POST", r.play("/live/whep/stream1"), "v=0"); resp.StatusCode != 503 {
			return "an unready node still gets viewers"
		}
		return ""
	})
	r.ask(t, "PATCH", r.play("/live/whep/stream1/e1.abc"), "v=0") // but keeps what it has
	a.ready.Store(200)
	eventually(t, within, func() string {
		if resp, body := r.do(t, "POST", r.play("/live/whep/stream1"), "v=0"); resp.StatusCode != 201 {
			return "a ready node gets no viewers: " + body
		}
		return ""
	})
	r.pool.failed("e1", fmt.Errorf("a dial failed")) // and after a failed dial one good probe is enough
	eventually(t, within, func() string {
		if resp, body := r.do(t, "POST", r.play("/live/whep/stream1"), "v=0"); resp.StatusCode != 201 {
			return "a node that is up again gets no viewers: " + body
		}
		return ""
	})
	for _, want := range []string{"node takes no new work", "node is down", "node is up"} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("the log does not tell: %s", want)
		}
	}
}

func TestNodesJoinAndLeave(t *testing.T) {
	a, b := startNode(t, "e1", cluster.Edge), startNode(t, "e2", cluster.Edge)
	r := start(t, Config{HealthInterval: 10 * time.Millisecond}, a)
	upAndRunning(t, r, 1)
	r.dir.set(b)
	if got := r.ask(t, "POST", r.play("/live/whep/stream1"), "v=0"); got.Node != "e2" {
		t.Errorf("got %+v", got)
	}
	eventually(t, within, func() string {
		r.pool.mu.Lock()
		defer r.pool.mu.Unlock()
		if len(r.pool.probes) != 1 || r.pool.probes["e2"] == nil {
			return fmt.Sprintf("watched are %v", r.pool.probes)
		}
		return ""
	})
	// A heartbeat that stopped counts too, however well the node answers.
	r.dir.mu.Lock()
	r.dir.view.At = r.dir.view.At.Add(cluster.DeadAfter)
	r.dir.mu.Unlock()
	if resp, _ := r.do(t, "POST", r.play("/live/whep/stream1"), "v=0"); resp.StatusCode != 503 {
		t.Errorf("a node without heartbeats got a viewer: %s", resp.Status)
	}
}

// roundTrip answers probes.
type roundTrip func() error

func (f roundTrip) RoundTrip(*http.Request) (*http.Response, error) {
	if err := f(); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
}

// TestGoneNodesAreLeftAlone: a row that nobody has written for minutes costs few probes, until somebody writes it again.
func TestGoneNodesAreLeftAlone(t *testing.T) {
	for _, c := range []struct {
		name        string
		silent      time.Duration // since the last heartbeat
		err         error
		least, most int // probes in ten minutes
	}{
		{"nobody there for minutes", goneAfter + time.Second, errors.New("refused"), 20, 25},
		{"hung for minutes", goneAfter + time.Second, context.DeadlineExceeded, 20, 25},
		{"nobody there for a moment", time.Minute, errors.New("refused"), 1900, 2100},
		{"cut off from the registry, but up", time.Hour, nil, 1900, 2100},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				at := time.Now()
				row := cluster.Node{ID: "e1", HTTP: "h:1", LastHeartbeat: at.Add(-c.silent)}
				dir := &fakeDirectory{view: cluster.View{At: at, Nodes: []cluster.Node{row}}}
				p := newPool(dir, 300*time.Millisecond, 600*time.Millisecond, slog.New(slog.DiscardHandler))
				var asked atomic.Int64
				p.client.Transport = roundTrip(func() error {
					asked.Add(1)
					if isTimeout(c.err) {
						<-time.After(p.timeout) // else the clock would stand still
					}
					return c.err
				})
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() { p.run(ctx) })
				<-time.After(10 * time.Minute)
				if n := int(asked.Load()); n < c.least || n > c.most {
					t.Errorf("asked %d times in ten minutes, want %d to %d", n, c.least, c.most)
				}
				before := asked.Load()
				row.LastHeartbeat = at
				dir.mu.Lock()
				dir.view.Nodes = []cluster.Node{row}
				dir.mu.Unlock()
				<-time.After(time.Second)
				if asked.Load() == before {
					t.Error("a heartbeat came, and it was not asked within a second")
				}
				cancel()
				wg.Wait()
			})
		})
	}
}

func TestAddressTakenOver(t *testing.T) {
	now := time.Now()
	got := newest([]cluster.Node{
		{ID: "old", HTTP: "h:1", Started: now}, {ID: "new", HTTP: "h:1", Started: now.Add(time.Second)},
		{ID: "other", HTTP: "h:2", Started: now}, {ID: "nowhere"},
	})
	if len(got) != 2 || got[0].ID != "new" || got[1].ID != "other" {
		t.Errorf("got %+v", got)
	}
}

// upAndRunning waits until that many nodes were probed.
func upAndRunning(t *testing.T, r *rig, n int) {
	t.Helper()
	eventually(t, within, func() string {
		r.pool.mu.Lock()
		defer r.pool.mu.Unlock()
		ready := 0
		for _, p := range r.pool.probes {
			if p.health == up {
				ready++
			}
		}
		if ready != n {
			return fmt.Sprintf("%d of %d nodes are up", ready, n)
		}
		return ""
	})
}
