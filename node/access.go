package node

import (
	"context"
	"fmt"
	"time"

	outrtc "sluice/egress/webrtc"
	"sluice/internal/access"
	"sluice/internal/config"
	"sluice/internal/safehttp"
	"sluice/internal/settings"
)

const (
	// askWithin is how long somebody else's server may take that is asked before a session begins.
	askWithin = 3 * time.Second
	// knowWithin is how long the first clients wait for a node to have read the rules. They are not let in without.
	knowWithin = 2 * time.Second
)

// newGuard makes what decides who may publish and play.
func (n *Node) newGuard() error {
	private, err := config.Prefixes(n.cfg.Access.PrivateHosts)
	if err != nil {
		return err
	}
	n.guard = access.New(n.deps.Documents, access.Config{Rules: n.rules, Client: safehttp.New(askWithin, private), Node: n.cfg.ID, Session: n.played, Log: n.log})
	n.ruled = make(chan struct{})
	if n.docs == nil {
		close(n.ruled)
		return nil
	}
	n.settings.OnChange(func() {
		ctx, cancel := context.WithTimeout(context.Background(), askWithin)
		defer cancel()
		n.guard.Recheck(ctx)
	})
	first := true
	n.docs.On(access.KindRevocation, func(ctx context.Context) error {
		if first { // the order of readers is not known
			if err := n.settings.Load(ctx); err != nil {
				return err
			}
		}
		if err := n.guard.Load(ctx); err != nil {
			return err
		}
		if first {
			close(n.ruled)
			first = false
		}
		return nil
	})
	return nil
}

// runGuard keeps what the guard holds in the registry.
func (n *Node) runGuard(ctx context.Context) error {
	if n.docs == nil {
		<-ctx.Done()
		return nil
	}
	return n.guard.Run(ctx)
}

func (n *Node) rules(app string) access.Rules {
	a, _ := n.settings.App(app)
	return rulesOf(a)
}

func rulesOf(a settings.App) access.Rules {
	return access.Rules{Publish: access.Rule(a.Access.Publish), Play: access.Rule(a.Access.Play)}
}

func checkAccess(a settings.App) error {
	rules := rulesOf(a)
	for _, do := range []access.Action{access.Publish, access.Play} {
		if err := rules.Of(do).Check(safehttp.CheckURL); err != nil {
			return fmt.Errorf("access.%s: %w", do, err)
		}
	}
	return nil
}

// authorize is asked before each session.
func (n *Node) authorize(ctx context.Context, r access.Request) (*access.Grant, error) {
	select {
	case <-n.ruled:
	default:
		late := time.NewTimer(knowWithin)
		defer late.Stop()
		select {
		case <-n.ruled:
		case <-late.C:
			return nil, access.ErrUnavailable
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if r.Action == access.Play {
		if a, ok := n.settings.App(r.Stream.App); ok && a.ViewerLimit >= 0 && n.viewersOf(r.Stream) >= a.ViewerLimit {
			return nil, outrtc.ErrViewers
		}
	}
	return n.guard.Admit(ctx, r)
}
