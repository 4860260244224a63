package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"sluice/cluster"
	"sluice/gateway"
	"sluice/gateway/scaling"
	"sluice/internal/config"
	"sluice/internal/lifecycle"
	"sluice/internal/metrics"
	"sluice/internal/publicip"
	"sluice/internal/trace"
	"sluice/node"
)

// stopSlack is what a process may take to stop beyond the deadlines of its parts.
const stopSlack = 10 * time.Second

// gcPercent is how much garbage a node's heap may gather, in percent of what lives in it. Sending makes none, and a viewer should cost little
// memory rather than the last bit of a join's time.
const gcPercent = 50

type serveCmd struct {
	config.Shared `embed:""`
	config.Node   `embed:""`
	Log           config.Log   `embed:"" prefix:"log-"`
	Trace         config.Trace `embed:"" prefix:"trace-"`
}

// Run runs a node until the first signal, and then until it is drained.
func (c *serveCmd) Run(p *process) (err error) {
	credential, err := c.ICE.Credential.Value() // a file is read once, here
	if err != nil {
		return err
	}
	c.ICE.Credential = config.Secret(credential)
	secret, err := c.TURN.Secret.Value()
	if err != nil {
		return err
	}
	c.TURN.Secret = config.Secret(secret)
	log, level := newLeveledLog(p.err, c.Log)
	if err := findAddress(p.ctx, &c.Node, publicip.Finder{}, log); err != nil {
		return err
	}
	reg, err := openStore(p.ctx, c.Store, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	if before := debug.SetGCPercent(gcPercent); before != 100 {
		debug.SetGCPercent(before) // whoever started us has set GOGC
	}
	if c.ID == "" {
		c.ID = node.DefaultID()
	}
	tracer, err := newTracer(c.Trace, "sluice-"+c.Role, c.ID, log)
	if err != nil {
		return err
	}
	n, err := node.New(c.Node, node.Deps{Registry: reg, Documents: reg, Tracer: tracer, LogLevel: level, Version: version, Log: log})
	if err != nil {
		return err
	}
	parts := []lifecycle.Part{
		{Name: "traces", Run: tracer.Run}, // stops last
		{Name: "node", Listen: n.Listen, Run: n.Run},
	}
	if c.Accounts.FirstLink {
		parts = append(parts, lifecycle.Part{Name: "first link", Run: func(ctx context.Context) error {
			return firstLink(ctx, p.out, reg, cmp.Or(originOf(c.PublishURL), "http://"+n.HTTPAddr()))
		}})
	}
	err = lifecycle.Run(p.ctx, log, c.DrainDeadline+stopSlack, parts...)
	if errors.Is(err, lifecycle.ErrDone) {
		return nil // drained by order
	}
	return err
}

// findAddress replaces a way to find the machine's addresses, as node.announce may name one, by what it finds.
func findAddress(ctx context.Context, n *config.Node, finder publicip.Finder, log *slog.Logger) error {
	if !slices.ContainsFunc(n.Announce, publicip.Dynamic) {
		return nil
	}
	if len(n.Announce) > 1 {
		return usageError{fmt.Errorf("announce is %s: %s and stun: stand alone", strings.Join(n.Announce, ", "), publicip.Auto)}
	}
	found, err := finder.Find(ctx, n.Announce[0])
	if err != nil {
		return fmt.Errorf("find this machine's address for --announce=%s: %w", n.Announce[0], err)
	}
	n.Announce = []string{found.Public.String()}
	if n.Address == "" && found.Private.IsValid() {
		n.Address = found.Private.String()
	}
	log.Info("address found", "public", found.Public, "private", n.Address, "by", found.By)
	return nil
}

type gatewayCmd struct {
	config.Shared  `embed:""`
	config.Gateway `embed:""`
	Log            config.Log   `embed:"" prefix:"log-"`
	Trace          config.Trace `embed:"" prefix:"trace-"`
}

// Run runs the gateway until the first signal.
func (c *gatewayCmd) Run(p *process) (err error) {
	doors := c.Publish != "" // else it only tells the scaling signal
	if doors != (c.Play != "") {
		return usageError{errors.New("publish and play of the gateway: give both an address, or none; one alone would let nobody in by the other")}
	}
	if doors && (c.Certificate == "" || c.Key == "") {
		return usageError{errors.New("the gateway needs a certificate: give --certificate and --key (PEM files); sluice up makes its own")}
	}
	trusted, err := config.Prefixes(c.TrustedProxies)
	if err != nil {
		return usageError{err}
	}
	log := newLog(p.err, c.Log)
	reg, err := openStore(p.ctx, c.Store, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	tracer, err := newTracer(c.Trace, "sluice-gateway", node.DefaultID(), log)
	if err != nil {
		return err
	}
	figures := metrics.New()
	directory := cluster.NewDirectory(cluster.Timed(reg, figures.Registry()), "", log)
	gateway.Measure(figures, directory, tracer, version)
	g := gateway.New(gateway.Config{
		PublishListen: c.Publish, PlayListen: c.Play, RedirectListen: c.Redirect,
		CertFile: c.Certificate, KeyFile: c.Key, TrustedProxies: trusted, HealthInterval: c.HealthInterval, Region: c.Region,
	}, gateway.Deps{Directory: directory, Metrics: figures, Tracer: tracer, Log: log})
	watch, err := scaling.New(scaling.Config{
		Rules:  cluster.ScaleConfig{Target: c.Scale.CPU, Window: c.Scale.Window, Min: c.Scale.Min},
		Azure:  scaling.Azure{Endpoint: c.Scale.Azure.Endpoint, Edges: c.Scale.Azure.Edges, Origins: c.Scale.Azure.Origins, Region: c.Region},
		Listen: c.Operators, View: directory.View, Metrics: figures, Log: log,
	})
	if err != nil {
		return usageError{err}
	}
	parts := []lifecycle.Part{{Name: "traces", Run: tracer.Run}, {Name: "directory", Run: directory.Run}, {Name: "scaling", Listen: watch.Listen, Run: watch.Run}}
	if doors {
		parts = append(parts, lifecycle.Part{Name: "gateway", Listen: g.Listen, Run: g.Run})
	}
	return lifecycle.Run(p.ctx, log, stopSlack, parts...)
}

// newTracer makes what sends the spans of a process; nil when they are sent nowhere.
func newTracer(c config.Trace, service, instance string, log *slog.Logger) (*trace.Tracer, error) {
	t, err := trace.New(trace.Config{Endpoint: c.Endpoint, Ratio: c.Ratio, Service: service, Instance: instance, Version: version, Log: log})
	if err == nil && t != nil {
		log.Info("requests are traced", "endpoint", c.Endpoint, "ratio", c.Ratio)
	}
	return t, err
}
