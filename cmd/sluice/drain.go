package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"sluice/cluster"
)

const (
	drainPoll = 500 * time.Millisecond // between two looks at a node that drains
	// drainSlack is what a node may take to hear of an order and, after its deadline, to end.
	drainSlack = 20 * time.Second
	undoWithin = 10 * time.Second // a node hears within 3 s that it may stay
	// Whoever is still there shortly before the deadline is cut off: in the last part of the time, and before that for as long as it
	// takes to send them away one by one.
	cutShare     = 0.05
	cutEach      = 10 * time.Millisecond
	cutMost      = 8 * time.Second
	cutMostShare = 0.4
)

type drainCmd struct {
	storeFlags `embed:""`
	Node       string        `arg:"" optional:"" help:"The node's id; sluice nodes lists them."`
	Self       bool          `help:"The node that runs on this machine, as for a preStop hook."`
	Deadline   time.Duration `help:"The node ends after this time, with whoever is left." default:"5m"`
	Undo       bool          `help:"The node shall take work again."`
	Detach     bool          `help:"Don't wait until the node is gone."`
}

// Run orders a node to go, and shows how its clients leave.
func (c *drainCmd) Run(p *process, top *cli) (err error) {
	switch {
	case (c.Node == "") != c.Self:
		return usageError{errors.New("name one node, or give --self (sluice nodes lists them)")}
	case c.Deadline <= 0:
		return usageError{errors.New("--deadline must be a time such as 5m")}
	}
	reg, err := c.open(p, top)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	n, others, err := c.find(p.ctx, reg)
	if err != nil {
		return err
	}
	if c.Undo && !n.Order.Drain {
		return notOrdered(p, n)
	}
	order := cluster.Order{}
	if !c.Undo {
		order = cluster.Order{Drain: true, Deadline: reg.Now().Add(c.Deadline)}
	}
	ctx, cancel := context.WithTimeout(p.ctx, askWithin)
	defer cancel()
	if err := reg.Order(ctx, n.ID, order); err != nil {
		return fmt.Errorf("order node %q: %w", n.ID, err)
	}
	if c.Undo {
		return c.watchUndo(p, reg, n)
	}
	fmt.Fprintf(p.out, "%s drains: %s; it ends within %s (sluice drain --undo %s takes it back)\n", n.ID, holds(n), c.Deadline, n.ID)
	if role := lastOf(n, others, reg.Now()); role != "" {
		fmt.Fprintf(p.out, "warning: %s is the last ready %s: its clients have nowhere to go, and are cut off at the deadline. Take it back, or start another %s first;"+
			" sluice up starts a drained node again only when it is itself started again\n", n.ID, role, role)
	}
	if c.Detach {
		return nil
	}
	return c.watch(p, reg, n, order.Deadline)
}

// notOrdered answers who wants to take back what nobody ordered.
func notOrdered(p *process, n cluster.Node) error {
	if n.State == cluster.Draining {
		return fmt.Errorf("%s drains, but not by sluice drain: its process was told to stop, or the cloud has given notice; that can't be taken back here", n.ID)
	}
	fmt.Fprintf(p.out, "%s was not ordered to drain: it takes work\n", n.ID)
	return nil
}

// lastOf is a role for which no other node is ready, "": there are others.
func lastOf(n cluster.Node, others []cluster.Node, now time.Time) cluster.Role {
	for _, role := range []cluster.Role{cluster.Origin, cluster.Edge} {
		if n.Takes(role) && !slices.ContainsFunc(others, func(o cluster.Node) bool {
			return o.ID != n.ID && o.Takes(role) && o.State == cluster.Ready && !o.Order.Drain && o.Alive(now)
		}) {
			return role
		}
	}
	return ""
}

// find returns the node that is meant, and all there are.
func (c *drainCmd) find(ctx context.Context, reg cluster.Registry) (n cluster.Node, nodes []cluster.Node, err error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	if nodes, err = reg.Nodes(ctx); err != nil {
		return n, nil, fmt.Errorf("read nodes: %w", err)
	}
	host := ""
	if c.Self {
		if host, err = os.Hostname(); err != nil {
			return n, nil, fmt.Errorf("find this machine's name: %w (name the node instead of --self)", err)
		}
	}
	now := reg.Now()
	var found []cluster.Node
	var living []string
	for _, n := range nodes {
		if !n.Alive(now) {
			continue
		}
		living = append(living, n.ID)
		if n.ID == c.Node || c.Self && n.Host == host {
			found = append(found, n)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nodes, nil
	case len(found) > 1:
		return n, nil, fmt.Errorf("%d nodes run on this machine: name one instead of --self", len(found))
	case len(living) == 0:
		return n, nil, errors.New("no node is alive in this cluster")
	case c.Self:
		return n, nil, fmt.Errorf("no node runs on this machine (%s); there are: %s", host, strings.Join(living, ", "))
	}
	return n, nil, fmt.Errorf("there is no living node %q; there are: %s", c.Node, strings.Join(living, ", "))
}

// holds says what a node has to move.
func holds(n cluster.Node) string {
	return fmt.Sprintf("%d viewers, %d streams", n.Viewers(), len(n.Serving))
}

// watch shows the drain until the node is gone.
func (c *drainCmd) watch(p *process, reg cluster.Registry, n cluster.Node, deadline time.Time) error {
	began, text := time.Now(), holds(n)
	last, cut := n.Viewers(), 0 // clients when it was last seen, and when the rest began to be cut off
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for {
		select {
		case <-p.ctx.Done():
			fmt.Fprintf(p.out, "%s goes on to drain\n", n.ID)
			return nil
		case <-tick.C:
		}
		took := time.Since(began).Round(100 * time.Millisecond)
		now, clients, err := c.look(p.ctx, reg, n.ID)
		ending := c.ending(last, deadline.Sub(reg.Now()))
		another := now != nil && (now.PID != n.PID || !now.Started.Equal(n.Started)) // a session changes also when a node joins again
		switch {
		case p.ctx.Err() != nil:
			continue
		case err != nil:
			return err
		case now == nil && ending && max(cut, last) > 0:
			return fmt.Errorf("%s has left at its deadline, after %s: up to %d viewers and publishers had not moved and were cut off", n.ID, took, max(cut, last))
		case now == nil:
			fmt.Fprintf(p.out, "%s is empty and has left after %s\n", n.ID, took)
			return nil
		case another && last > 0:
			return fmt.Errorf("%s was started again after %s, while it drained: up to %d viewers and publishers were cut off", n.ID, took, last)
		case another:
			fmt.Fprintf(p.out, "%s has left after %s; another process runs under its name\n", n.ID, took)
			return nil
		case !now.Order.Drain:
			return fmt.Errorf("the drain of %s was taken back", n.ID)
		case reg.Now().Sub(now.LastHeartbeat) >= cluster.DeadAfter: // one that is fenced may come back
			return fmt.Errorf("%s is dead: its clients must come back by themselves", n.ID)
		case reg.Now().Sub(deadline) > drainSlack:
			return fmt.Errorf("%s is still there %s after its deadline: see its log", n.ID, drainSlack)
		}
		if ending && cut == 0 {
			cut = clients
		}
		last = clients
		if t := holds(*now); t != text {
			text = t
			fmt.Fprintf(p.out, "  %6s  %s left\n", took, text)
		}
	}
}

// ending says whether a node with so many clients, and so much time left, is cutting them off.
func (c *drainCmd) ending(clients int, left time.Duration) bool {
	of := func(share float64) time.Duration { return time.Duration(share * float64(c.Deadline)) }
	return left <= of(cutShare)+min(time.Duration(clients)*cutEach, cutMost, of(cutMostShare))
}

// look reads one node's row, nil: there is none; and how many viewers and publishers it has.
func (c *drainCmd) look(ctx context.Context, reg cluster.Registry, id string) (n *cluster.Node, clients int, err error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	nodes, err := reg.Nodes(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("read nodes: %w (the drain goes on)", err)
	}
	i := slices.IndexFunc(nodes, func(n cluster.Node) bool { return n.ID == id })
	if i < 0 {
		return nil, 0, nil
	}
	n, clients = &nodes[i], nodes[i].Viewers()
	if !n.Takes(cluster.Origin) {
		return n, clients, nil
	}
	streams, err := reg.Streams(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("read streams: %w (the drain goes on)", err)
	}
	for _, s := range streams {
		if s.Origin == id && s.Session == n.Session && s.State != cluster.Interrupted {
			clients++
		}
	}
	return n, clients, nil
}

// watchUndo waits until the node has heard that it may stay.
func (c *drainCmd) watchUndo(p *process, reg cluster.Registry, n cluster.Node) error {
	ctx, cancel := context.WithTimeout(p.ctx, undoWithin)
	defer cancel()
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for {
		now, _, err := c.look(p.ctx, reg, n.ID)
		switch {
		case err != nil:
			return err
		case now == nil:
			return fmt.Errorf("%s has left before it heard that it may stay: start it again", n.ID)
		case now.State == cluster.Ready && now.Alive(reg.Now()):
			fmt.Fprintf(p.out, "%s takes work again\n", n.ID)
			return nil
		case c.Detach:
			fmt.Fprintf(p.out, "%s is told that it may stay\n", n.ID)
			return nil
		}
		select {
		case <-ctx.Done():
			if p.ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("the order is taken back, but %s still drains: its process was told to stop as well, or the cloud has given notice; see its log", n.ID)
		case <-tick.C:
		}
	}
}
