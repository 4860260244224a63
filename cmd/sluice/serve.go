package main

import (
	"errors"
	"runtime/debug"
	"time"

	"sluice/cluster"
	"sluice/gateway"
	"sluice/gateway/scaling"
	"sluice/internal/config"
	"sluice/internal/lifecycle"
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
	Log           config.Log `embed:"" prefix:"log-"`
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
	log := newLog(p.err, c.Log)
	reg, err := openStore(p.ctx, c.Store, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	if before := debug.SetGCPercent(gcPercent); before != 100 {
		debug.SetGCPercent(before) // whoever started us has set GOGC
	}
	n, err := node.New(c.Node, node.Deps{Registry: reg, Version: version, Log: log})
	if err != nil {
		return err
	}
	err = lifecycle.Run(p.ctx, log, c.DrainDeadline+stopSlack, lifecycle.Part{Name: "node", Listen: n.Listen, Run: n.Run})
	if errors.Is(err, lifecycle.ErrDone) {
		return nil // drained by order
	}
	return err
}

type gatewayCmd struct {
	config.Shared  `embed:""`
	config.Gateway `embed:""`
	Log            config.Log `embed:"" prefix:"log-"`
}

// Run runs the gateway until the first signal.
func (c *gatewayCmd) Run(p *process) (err error) {
	if c.Certificate == "" || c.Key == "" {
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
	directory := cluster.NewDirectory(reg, 0, log)
	g := gateway.New(gateway.Config{
		PublishListen: c.Publish, PlayListen: c.Play, RedirectListen: c.Redirect,
		CertFile: c.Certificate, KeyFile: c.Key, TrustedProxies: trusted, HealthInterval: c.HealthInterval, Region: c.Region,
	}, gateway.Deps{Directory: directory, Log: log})
	watch, err := scaling.New(scaling.Config{
		Rules:  cluster.ScaleConfig{Target: c.Scale.CPU, Window: c.Scale.Window, Min: c.Scale.Min},
		Azure:  scaling.Azure{Endpoint: c.Scale.Azure.Endpoint, Edges: c.Scale.Azure.Edges, Origins: c.Scale.Azure.Origins, Region: c.Region},
		Listen: c.Operators, View: directory.View, Log: log,
	})
	if err != nil {
		return usageError{err}
	}
	return lifecycle.Run(p.ctx, log, stopSlack,
		lifecycle.Part{Name: "directory", Run: directory.Run},
		lifecycle.Part{Name: "scaling", Listen: watch.Listen, Run: watch.Run},
		lifecycle.Part{Name: "gateway", Listen: g.Listen, Run: g.Run})
}
