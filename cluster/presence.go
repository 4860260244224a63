package cluster

import (
	"context"
	"log/slog"
	"time"
)

// HeartbeatEvery is how often a node writes its row.
const HeartbeatEvery = time.Second

// leaveWithin bounds the last write of a stopping node.
const leaveWithin = 2 * time.Second

// Presence keeps a node's row in the registry fresh, and removes it at a clean stop.
type Presence struct {
	reg      Registry
	interval time.Duration
	describe func() Node
	out      outage
	wake     chan struct{}
}

// NewPresence does no I/O. describe is called by Run's goroutine before each
// heartbeat; an interval of 0 means HeartbeatEvery.
func NewPresence(reg Registry, interval time.Duration, describe func() Node, log *slog.Logger) *Presence {
	if interval <= 0 {
		interval = HeartbeatEvery
	}
	return &Presence{reg: reg, interval: interval, describe: describe,
		out: outage{log: log, doing: "heartbeat"}, wake: make(chan struct{}, 1)}
}

// Now asks for a heartbeat at once, as when a node begins to drain. It does not wait.
func (p *Presence) Now() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run heartbeats until ctx ends, then removes the row. It returns nil: a registry
// that is away stops nothing.
func (p *Presence) Run(ctx context.Context) error {
	tick := time.NewTicker(p.interval)
	defer tick.Stop()
	defer p.out.end()
	for {
		p.beat(ctx)
		select {
		case <-ctx.Done():
			p.leave(context.WithoutCancel(ctx))
			return nil
		case <-tick.C:
		case <-p.wake:
		}
	}
}

// beat writes the row; two missed beats of waiting are enough.
func (p *Presence) beat(run context.Context) {
	ctx, cancel := context.WithTimeout(run, 2*p.interval)
	defer cancel()
	if err := p.reg.Heartbeat(ctx, p.describe()); run.Err() == nil {
		p.out.note(err)
	}
}

func (p *Presence) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveWithin)
	defer cancel()
	id := p.describe().ID
	if err := p.reg.RemoveNode(ctx, id); err != nil {
		p.out.log.Warn("node's row stays in the registry until its heartbeat is old", "node", id, "error", err)
	}
}
