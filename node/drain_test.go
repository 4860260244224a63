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
	id     string
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
			_, _ = fmt.Fprintf(w, `{"Events":[{"EventId":%q,"EventType":%q,"Resources":["edge_0"],"EventStatus":"Scheduled","NotBefore":%q,"DurationInSeconds":-1}]}`,
				m.id, m.event, m.before.UTC().Format(http.TimeFormat))
		}
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *metadata) announce(kind string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.event, m.id, m.before = kind, "e-"+kind, time.Now().Add(10*time.Minute)
}

func (m *metadata) acknowledged(kinds ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []string
	for _, k := range kinds {
		ids = append(ids, "e-"+k)
	}
	if !slices.Equal(m.acked, ids) {
		return fmt.Errorf("the cloud was told that %v may happen, not %v", m.acked, ids)
	}
	return nil
}

// frozen waits until the cloud knows that the machine may be paused.
func (m *metadata) frozen(t *testing.T) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		err := m.acknowledged("Freeze")
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
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
	if err := m.acknowledged("Terminate"); err != nil {
		t.Error(err)
	}
}

// TestFreeze: a machine that is only paused goes on afterwards, and so does the node.
func TestFreeze(t *testing.T) {
	t.Parallel()
	m := newMetadata(t)
	x := try(t, m.URL)
	m.announce("Freeze")
	x.is(cluster.Draining)
	m.frozen(t)
	m.announce("")
	x.is(cluster.Ready)
	x.cancel()
	if err := <-x.done; err != nil {
		t.Error(err)
	}
}

// TestFreezeThenEnd: a node that waits for a pause to be over ends when it is told to, by whomever.
func TestFreezeThenEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		told  func(*trial, *metadata)
		acked []string
	}{
		{"ordered", func(x *trial, _ *metadata) {
			if err := x.reg.Order(t.Context(), "edge-1", cluster.Order{Drain: true, Deadline: x.reg.Now().Add(time.Hour)}); err != nil {
				t.Error(err)
			}
		}, []string{"Freeze"}},
		{"a notice", func(_ *trial, m *metadata) { m.announce("Terminate") }, []string{"Freeze", "Terminate"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMetadata(t)
			x := try(t, m.URL)
			m.announce("Freeze") // in ten minutes, which is before the order's end
			x.is(cluster.Draining)
			m.frozen(t)
			c.told(x, m)
			x.ends()
			if err := m.acknowledged(c.acked...); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWishes: what counts of several wishes.
func TestWishes(t *testing.T) {
	at := time.Now()
	soon, late := &wish{deadline: at}, &wish{deadline: at.Add(time.Minute)}
	freeze, freezeLate := &wish{deadline: at.Add(-time.Minute), stays: true}, &wish{deadline: at.Add(time.Hour), stays: true}
	for _, c := range []struct {
		name       string
		a, b, want *wish
	}{
		{"none", nil, nil, nil},
		{"one", nil, soon, soon},
		{"the nearer one", late, soon, soon},
		{"one that ends the node before one that does not", freeze, late, late},
		{"the same, with the nearer deadline", freezeLate, soon, soon},
		{"two that the node stays for", freezeLate, freeze, freeze},
	} {
		if got := c.a.or(c.b); got != c.want {
			t.Errorf("%s: got %+v", c.name, got)
		}
		if got := c.b.or(c.a); got != c.want {
			t.Errorf("%s, turned round: got %+v", c.name, got)
		}
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
