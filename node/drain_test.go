package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/cluster/memory"
	"sluice/internal/config"
	"sluice/internal/lifecycle"
)

// metadata is the service that tells a machine of Azure what will happen to it.
type metadata struct {
	*httptest.Server
	mu     sync.Mutex
	event  string // kind; "": nothing will happen
	before time.Time
	acked  []string
}

func newMetadata(t *testing.T) *metadata {
	m := &metadata{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		switch {
		case r.URL.Path == "/metadata/instance/compute/name":
			_, _ = io.WriteString(w, "edge_0")
		case r.Method == http.MethodPost:
			var b struct{ StartRequests []struct{ EventId string } }
			_ = json.NewDecoder(r.Body).Decode(&b)
			for _, e := range b.StartRequests {
				m.acked = append(m.acked, e.EventId)
			}
		case m.event == "":
			_, _ = io.WriteString(w, `{"Events":[]}`)
		default:
			_, _ = fmt.Fprintf(w, `{"Events":[{"EventId":"e-1","EventType":%q,"Resources":["edge_0"],"EventStatus":"Scheduled","NotBefore":%q,"DurationInSeconds":-1}]}`,
				m.event, m.before.UTC().Format(http.TimeFormat))
		}
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *metadata) announce(kind string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.event, m.before = kind, time.Now().Add(10*time.Minute)
}

func (m *metadata) acknowledged() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Equal(m.acked, []string{"e-1"})
}

// trial is an edge with its registry.
type trial struct {
	t      *testing.T
	node   *Node
	reg    *memory.Registry
	cancel context.CancelFunc
	done   chan error
}

func try(t *testing.T, service string) *trial {
	t.Helper()
	cfg := config.Default().Node
	cfg.Role, cfg.ID = "edge", "edge-1"
	cfg.HTTP, cfg.Media, cfg.Relay = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.CloudNotice, cfg.DrainDeadline = "azure", time.Minute
	x := &trial{t: t, reg: memory.NewStore(time.Now).Open(), done: make(chan error, 1)}
	var err error
	if x.node, err = New(cfg, Deps{Registry: x.reg, Metadata: service, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	if err := x.node.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	x.cancel = cancel
	go func() { x.done <- x.node.Run(ctx) }()
	t.Cleanup(cancel)
	x.is(cluster.Ready)
	return x
}

// is waits until the node says of itself that it is in that state, in its row and to who asks by HTTP.
func (x *trial) is(state cluster.NodeState) {
	x.t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		err := x.looks(state)
		if err == nil {
			return
		}
		select {
		case <-deadline:
			x.t.Fatal(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (x *trial) looks(state cluster.NodeState) error {
	nodes, err := x.reg.Nodes(x.t.Context())
	if err != nil || len(nodes) != 1 || nodes[0].State != state {
		return fmt.Errorf("want a row that is %s: %+v, %v", state, nodes, err)
	}
	res, err := http.Get("http://" + x.node.HTTPAddr() + "/readyz")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var p struct{ Code string }
	_ = json.NewDecoder(res.Body).Decode(&p)
	if ready := res.StatusCode == 200; ready != (state == cluster.Ready) || !ready && p.Code != "draining" {
		return fmt.Errorf("the row is %s, and /readyz says %s %s", state, res.Status, p.Code)
	}
	return nil
}

// ends waits until the node has gone by itself.
func (x *trial) ends() {
	x.t.Helper()
	select {
	case err := <-x.done:
		if !errors.Is(err, lifecycle.ErrDone) {
			x.t.Errorf("it ended with %v", err)
		}
	case <-time.After(15 * time.Second):
		x.t.Fatal("it does not end")
	}
	if nodes, err := x.reg.Nodes(x.t.Context()); err != nil || len(nodes) != 0 {
		x.t.Errorf("left in the registry: %+v, %v", nodes, err)
	}
}

func TestDrainByNotice(t *testing.T) {
	t.Parallel()
	m := newMetadata(t)
	x := try(t, m.URL)
	m.announce("Terminate")
	x.ends()
	if !m.acknowledged() {
		t.Error("the cloud does not know that the machine may go")
	}
}

// TestFreeze: a machine that is only paused goes on afterwards, and so does the node.
func TestFreeze(t *testing.T) {
	t.Parallel()
	m := newMetadata(t)
	x := try(t, m.URL)
	m.announce("Freeze")
	x.is(cluster.Draining)
	deadline := time.After(15 * time.Second)
	for !m.acknowledged() {
		select {
		case <-deadline:
			t.Fatal("the cloud does not know that the machine may be paused")
		case <-time.After(20 * time.Millisecond):
		}
	}
	m.announce("")
	x.is(cluster.Ready)
	x.cancel()
	if err := <-x.done; err != nil {
		t.Error(err)
	}
}

func TestDrainByOrder(t *testing.T) {
	t.Parallel()
	x := try(t, "http://127.0.0.1:0")
	if err := x.reg.Order(t.Context(), "edge-1", cluster.Order{Drain: true}); err != nil {
		t.Fatal(err)
	}
	x.ends()
}

func TestQuota(t *testing.T) {
	for _, c := range []struct {
		clients int
		within  time.Duration
		over    time.Duration // until the last is told
	}{
		{1, time.Minute, 10 * time.Millisecond},
		{200, time.Minute, 2 * time.Second},
		{1000, time.Minute, 8 * time.Second},
		{100_000, time.Minute, 8 * time.Second},
		{200, 2 * time.Second, 800 * time.Millisecond},
		{0, time.Minute, time.Millisecond},
	} {
		if got := spread(c.clients, c.within); got != c.over {
			t.Errorf("%d clients within %v: over %v, want %v", c.clients, c.within, got, c.over)
		}
		var q quota
		most := 0
		for at := time.Duration(0); at <= c.over; at += drainTick {
			n := q.due(at, c.over, c.clients-q.done)
			most = max(most, n)
		}
		if q.done != c.clients {
			t.Errorf("%d of %d clients were told", q.done, c.clients)
		}
		if limit := 1 + int(1.1*float64(c.clients)*float64(drainTick)/float64(c.over)); c.over > drainTick && most > limit {
			t.Errorf("%d of %d clients were told at once", most, c.clients)
		}
	}
	q := quota{done: 10}
	if n := q.due(0, time.Second, -5); n != 0 {
		t.Errorf("%d are due of none", n)
	}
}
