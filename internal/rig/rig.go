// Package rig runs a cluster inside a test: origins, edges and a gateway with real sockets and a registry in
// memory or on a server, publishers and viewers that come in by the gateway, and verbs for what can go wrong.
//
// Imports: cluster, cluster/memory, cluster/mongo, cluster/mongo/mongotest, gateway, gateway/scaling, internal/config, internal/impair, internal/lifecycle, internal/metrics, internal/trace, load, media, node.
package rig

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/gateway"
	"sluice/gateway/scaling"
	"sluice/internal/config"
	"sluice/internal/lifecycle"
	"sluice/internal/metrics"
	"sluice/internal/trace"
	"sluice/media"
	"sluice/node"
)

// Options of a cluster. Zero means one origin and two edges.
type Options struct {
	Origins, Edges int
	Configure      func(*config.Node)                 // changes every node's configuration
	Log            *slog.Logger                       // nil: silence
	Store          Store                              // of the registry; nil: Memory
	Tracer         func(process string) *trace.Tracer // makes the tracer of a node, or of "gateway"; it lives longer than the cluster. nil: none
}

// Cluster is what runs.
type Cluster struct {
	t         testing.TB
	options   Options
	gateway   *gateway.Gateway
	operators *scaling.Watch // the gateway's port for operators
	stop      []func()

	mu    sync.Mutex
	nodes map[string]*member
	users map[*user]struct{} // who has come and not gone
}

// member is a node and its line to the registry.
type member struct {
	node     *node.Node
	registry Line
	cancel   context.CancelFunc
	done     chan error
}

// Start runs a cluster until the test ends, and then checks that nothing of it is left.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Origins == 0 {
		o.Origins = 1
	}
	if o.Edges == 0 {
		o.Edges = 2
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Tracer == nil {
		o.Tracer = func(string) *trace.Tracer { return nil }
	}
	if o.Store == nil {
		o.Store = Memory()
	}
	before := runtime.NumGoroutine()
	c := &Cluster{t: t, options: o, nodes: map[string]*member{}, users: map[*user]struct{}{}}
	t.Cleanup(func() { c.end(before) })
	for i := range o.Origins {
		c.Run(cluster.Origin, fmt.Sprintf("origin-%d", i+1))
	}
	for i := range o.Edges {
		c.Run(cluster.Edge, fmt.Sprintf("edge-%d", i+1))
	}
	c.openGateway()
	return c
}

// Run adds a node, or starts one again under its name.
func (c *Cluster) Run(role cluster.Role, id string) *node.Node {
	c.t.Helper()
	cfg := config.Default().Node
	cfg.Role, cfg.ID = string(role), id
	cfg.HTTP, cfg.Media, cfg.Relay = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.Limits.CPU, cfg.Limits.Memory = 0, 0 // this machine may be busy with other tests
	cfg.DrainDeadline = 50 * time.Millisecond
	if f := c.options.Configure; f != nil {
		f(&cfg)
	}
	m := &member{registry: c.options.Store.Open(c.t), done: make(chan error, 1)}
	var err error
	if m.node, err = node.New(cfg, node.Deps{Registry: m.registry, Documents: m.registry, Tracer: c.options.Tracer(id), Version: "rig", Log: c.options.Log}); err != nil {
		c.t.Fatal(err)
	}
	if err := m.node.Listen(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	go func() { m.done <- m.node.Run(ctx) }()
	c.mu.Lock()
	c.nodes[id] = m
	c.mu.Unlock()
	return m.node
}

func (c *Cluster) openGateway() {
	c.t.Helper()
	cert := certificate(c.t)
	registry := c.options.Store.Open(c.t)
	figures, tracer := metrics.New(), c.options.Tracer("gateway")
	directory := cluster.NewDirectory(cluster.Timed(registry, figures.Registry()), "", c.options.Log)
	gateway.Measure(figures, directory, tracer, "rig")
	c.gateway = gateway.New(gateway.Config{
		PublishListen: "127.0.0.1:0", PlayListen: "127.0.0.1:0", StopTimeout: 500 * time.Millisecond,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil },
	}, gateway.Deps{Directory: directory, Metrics: figures, Tracer: tracer, Log: c.options.Log})
	var err error
	if c.operators, err = scaling.New(scaling.Config{Listen: "127.0.0.1:0", View: directory.View, Metrics: figures, Log: c.options.Log}); err != nil {
		c.t.Fatal(err)
	}
	if err := errors.Join(c.gateway.Listen(c.t.Context()), c.operators.Listen(c.t.Context())); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = directory.Run(ctx) })
	watch := c.operators
	running.Go(func() {
		if err := watch.Run(ctx); err != nil {
			c.t.Errorf("scaling: %v", err)
		}
	})
	running.Go(func() {
		if err := c.gateway.Run(ctx); err != nil {
			c.t.Errorf("gateway: %v", err)
		}
	})
	c.stop = append(c.stop, func() {
		cancel()
		running.Wait()
		c.close("gateway", registry)
	})
	c.Poll(10*time.Second, func() error { // every node has said hello
		live := 0
		for _, n := range directory.View().Alive() {
			if n.HTTP != "" {
				live++
			}
		}
		if live < c.options.Origins+c.options.Edges {
			return fmt.Errorf("%d nodes are in the directory", live)
		}
		return nil
	})
}

// ReplaceGateway opens another gateway, at another address, and ends the one before.
func (c *Cluster) ReplaceGateway() {
	c.t.Helper()
	old := c.stop[len(c.stop)-1]
	c.openGateway()
	old() // and once more when all ends, which does nothing
}

// Node returns a node that runs.
func (c *Cluster) Node(id string) *node.Node { return c.member(id).node }

func (c *Cluster) member(id string) *member {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.nodes[id]
	if m == nil {
		c.t.Fatalf("there is no node %s", id)
	}
	return m
}

// Kill ends a node without a word to the registry, which keeps its rows and leases until they
// run out. Its sockets close: peers notice as fast as with a process that was killed.
func (c *Cluster) Kill(id string) {
	c.t.Helper()
	m := c.member(id)
	m.registry.Cut(true)
	c.finish(id, m)
}

// Stop ends a node as its operator would: it drains and says goodbye.
func (c *Cluster) Stop(id string) {
	c.t.Helper()
	c.finish(id, c.member(id))
}

// Drain ends a node as sluice drain does: by an order in the registry. It returns when the node is gone.
func (c *Cluster) Drain(id string, within time.Duration) {
	c.t.Helper()
	m := c.member(id)
	c.Order(id, cluster.Order{Drain: true, Deadline: m.registry.Now().Add(within)})
	select {
	case err := <-m.done:
		if !errors.Is(err, lifecycle.ErrDone) {
			c.t.Errorf("%s was drained and ended with %v", id, err)
		}
	case <-time.After(within + 10*time.Second):
		c.t.Fatalf("%s does not end", id)
	}
	c.mu.Lock()
	delete(c.nodes, id)
	c.mu.Unlock()
	m.cancel()
}

// Order is what an operator wants of a node.
func (c *Cluster) Order(id string, o cluster.Order) {
	c.t.Helper()
	if err := c.member(id).registry.Order(c.t.Context(), id, o); err != nil {
		c.t.Fatal(err)
	}
}

// State is what a node says of itself in the registry; "": nothing.
func (c *Cluster) State(id string) cluster.NodeState {
	c.t.Helper()
	nodes, err := c.member(id).registry.Nodes(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	for _, n := range nodes {
		if n.ID == id {
			return n.State
		}
	}
	return ""
}

// CutOff takes the registry away from a node; Rejoin gives it back.
func (c *Cluster) CutOff(id string) { c.t.Helper(); c.member(id).registry.Cut(true) }

// Rejoin ends CutOff.
func (c *Cluster) Rejoin(id string) { c.t.Helper(); c.member(id).registry.Cut(false) }

func (c *Cluster) finish(id string, m *member) {
	c.t.Helper()
	c.mu.Lock()
	delete(c.nodes, id)
	c.mu.Unlock()
	m.cancel()
	select {
	case err := <-m.done:
		if err != nil {
			c.t.Errorf("%s ended with %v", id, err)
		}
	case <-time.After(20 * time.Second):
		c.t.Errorf("%s does not end", id)
	}
	c.close(id, m.registry)
}

func (c *Cluster) close(id string, l Line) {
	if err := l.Close(); err != nil {
		c.t.Errorf("%s: %v", id, err)
	}
}

// end stops everything and looks for what is left.
func (c *Cluster) end(before int) {
	c.mu.Lock()
	users := slices.Collect(maps.Keys(c.users))
	ids := slices.Collect(maps.Keys(c.nodes))
	c.mu.Unlock()
	for _, u := range users {
		u.Vanish()
	}
	for _, f := range c.stop {
		f()
	}
	for _, id := range ids {
		c.Stop(id)
	}
	NoLeak(c.t, before)
}

// NoLeak waits until there are no more goroutines than before, and else shows them all.
func NoLeak(t testing.TB, before int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}

// Poll waits until f returns nil. After within, the test fails with what f said last.
func (c *Cluster) Poll(within time.Duration, f func() error) {
	c.t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("after %v: %v", within, err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// PublishURL and PlayURL are WHIP and WHEP addresses at the gateway.
func (c *Cluster) PublishURL(key media.Key) string {
	return fmt.Sprintf("https://%s/%s/whip/%s", c.gateway.PublishAddr(), key.App, key.ID)
}

// PlayURL is the WHEP address at the gateway's play port.
func (c *Cluster) PlayURL(key media.Key) string {
	return fmt.Sprintf("https://%s/%s/whep/%s", c.gateway.PlayAddr(), key.App, key.ID)
}

// OperatorsURL is the gateway's address for operators.
func (c *Cluster) OperatorsURL() string { return "http://" + c.operators.Addr().String() }

// certificate makes one for 127.0.0.1 that lives as long as the test.
func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err2 := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
