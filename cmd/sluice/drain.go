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
	n, err := c.find(p.ctx, reg)
	if err != nil {
		return err
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
	switch {
	case c.Undo:
		fmt.Fprintf(p.out, "%s takes work again\n", n.ID)
		return nil
	case c.Detach:
		fmt.Fprintf(p.out, "%s drains: %s; it ends within %s\n", n.ID, holds(n), c.Deadline)
		return nil
	}
	fmt.Fprintf(p.out, "%s drains: %s; it ends within %s (sluice drain --undo %s takes it back)\n", n.ID, holds(n), c.Deadline, n.ID)
	return c.watch(p, reg, n)
}

// find returns the node that is meant.
func (c *drainCmd) find(ctx context.Context, reg cluster.Registry) (n cluster.Node, err error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	nodes, err := reg.Nodes(ctx)
	if err != nil {
		return n, fmt.Errorf("read nodes: %w", err)
	}
	host := ""
	if c.Self {
		if host, err = os.Hostname(); err != nil {
			return n, fmt.Errorf("find this machine's name: %w (name the node instead of --self)", err)
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
		return found[0], nil
	case len(found) > 1:
		return n, fmt.Errorf("%d nodes run on this machine: name one instead of --self", len(found))
	case len(living) == 0:
		return n, errors.New("no node is alive in this cluster")
	case c.Self:
		return n, fmt.Errorf("no node runs on this machine (%s); there are: %s", host, strings.Join(living, ", "))
	}
	return n, fmt.Errorf("there is no living node %q; there are: %s", c.Node, strings.Join(living, ", "))
}

// holds says what a node has to move.
func holds(n cluster.Node) string {
	return fmt.Sprintf("%d viewers, %d streams", n.Viewers(), len(n.Serving))
}

// watch shows the drain until the node is gone.
func (c *drainCmd) watch(p *process, reg cluster.Registry, n cluster.Node) error {
	began, last := time.Now(), holds(n)
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
		now, err := c.look(p.ctx, reg, n.ID)
		switch {
		case p.ctx.Err() != nil:
			continue
		case err != nil:
			return err
		case now == nil:
			fmt.Fprintf(p.out, "%s is empty and has left after %s\n", n.ID, took)
			return nil
		case now.Session != n.Session:
			fmt.Fprintf(p.out, "%s has left after %s; another process runs under its name\n", n.ID, took)
			return nil
		case !now.Order.Drain:
			return fmt.Errorf("the drain of %s was taken back", n.ID)
		case !now.Alive(reg.Now()):
			return fmt.Errorf("%s is dead: its clients must come back by themselves", n.ID)
		case time.Since(began) > c.Deadline+drainSlack:
			return fmt.Errorf("%s is still there %s after its deadline: see its log", n.ID, drainSlack)
		}
		if text := holds(*now); text != last {
			last = text
			fmt.Fprintf(p.out, "  %6s  %s left\n", took, text)
		}
	}
}

// look reads one node's row, nil: there is none.
func (c *drainCmd) look(ctx context.Context, reg cluster.Registry, id string) (*cluster.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	nodes, err := reg.Nodes(ctx)
	if err != nil {
		return nil, fmt.Errorf("read nodes: %w (the drain goes on)", err)
	}
	if i := slices.IndexFunc(nodes, func(n cluster.Node) bool { return n.ID == id }); i >= 0 {
		return &nodes[i], nil
	}
	return nil, nil
}
