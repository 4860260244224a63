package node

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"sluice/cluster"
	"sluice/internal/config"
	"sluice/internal/settings"
	"sluice/ladder"
	"sluice/media"
	"sluice/stream"
)

// newSettings makes what knows the settings that change at run time: those of the configuration, where there are no documents.
func (n *Node) newSettings() (err error) {
	n.settings, err = settings.New(n.deps.Documents, settings.Config{
		Apps: n.cfg.Apps, Check: checkSettings, Log: n.log,
		Defaults: settings.App{PlayoutDelay: n.cfg.PlayoutDelay, ViewerLimit: -1, Origins: []string{}, Ladder: settings.Ladder{Rungs: n.cfg.Ladder.Rungs}},
	})
	if err != nil || n.deps.Documents == nil {
		return err
	}
	n.docs = cluster.NewWatch(n.deps.Documents, n.log)
	n.docs.On(settings.Kind, n.settings.Load)
	n.settings.OnChange(n.applySettings)
	return nil
}

// checkSettings refuses what this node could not use.
func checkSettings(a settings.App) error {
	if _, err := config.Playout(a.PlayoutDelay); err != nil {
		return fmt.Errorf("playoutDelay: %w", err)
	}
	if _, err := rungsOf(a); err != nil {
		return err
	}
	if err := checkWebhooks(a.Webhooks); err != nil {
		return fmt.Errorf("webhooks.listenerHookURL: %w", err)
	}
	return checkAccess(a)
}

func rungsOf(a settings.App) (list []ladder.Rung, err error) {
	for _, s := range a.Ladder.Rungs {
		r, err := config.ParseRung(s)
		if err != nil {
			return nil, fmt.Errorf("ladder.rungs: %w", err)
		}
		if slices.ContainsFunc(list, func(l ladder.Rung) bool { return l.Name == r.Name }) {
			return nil, fmt.Errorf("ladder.rungs: there are two of %s", r.Name)
		}
		list = append(list, ladder.Rung(r))
	}
	return list, nil
}

// applySettings gives new settings to those who don't look at them anyway.
func (n *Node) applySettings() {
	for _, app := range n.settings.Apps() {
		if err := n.applyLadder(app); err != nil {
			n.log.Error("an application's renditions stay as they are", "application", app, "error", err)
		}
	}
	for _, i := range n.hub.List() {
		if _, ok := n.settings.App(i.Key.App); !ok {
			n.hub.Stop(i.Key, stream.ErrStopped) // its application was deleted
		}
	}
	if level := n.deps.LogLevel; level != nil {
		var l slog.Level
		if err := l.UnmarshalText([]byte(n.settings.Cluster().LogLevel)); err != nil {
			l = n.logLevel // the one that it was started with
		}
		level.Set(l)
	}
}

// applyLadder makes a rule for an application. Where its renditions are the cluster's, what sluice.yaml says of it counts.
func (n *Node) applyLadder(app string) error {
	a, ok := n.settings.App(app)
	if !ok {
		return nil
	}
	streams := app + "/*"
	if !slices.Equal(a.Ladder.Rungs, n.cfg.Ladder.Rungs) {
		rungs, err := rungsOf(a)
		if err != nil {
			return err
		}
		return n.ladder.Set(ladder.Rule{Streams: streams, Rungs: rungs})
	}
	for _, s := range n.cfg.Ladder.Rules {
		if strings.HasPrefix(s, streams+"=") {
			_, rungs, err := config.ParseRule(s)
			if err != nil {
				return err
			}
			r := ladder.Rule{Streams: streams}
			for _, rung := range rungs {
				r.Rungs = append(r.Rungs, ladder.Rung(rung))
			}
			return n.ladder.Set(r)
		}
	}
	n.ladder.Unset(streams)
	return nil
}

// adaptive reports whether a stream may get renditions while it runs.
func (n *Node) adaptive(key media.Key) bool {
	a, _ := n.settings.App(key.App)
	return len(a.Ladder.Rungs)+len(n.cfg.Ladder.Rules) > 0
}

// playout is how long players may keep a stream's picture back.
func (n *Node) playout(key media.Key) *time.Duration {
	a, ok := n.settings.App(key.App)
	if !ok {
		a.PlayoutDelay = n.cfg.PlayoutDelay
	}
	d, err := config.Playout(a.PlayoutDelay)
	if err != nil {
		return nil // can't be: both were checked
	}
	return d
}

// allows reports whether pages of a site may use an application.
func (n *Node) allows(app, origin string) bool {
	a, ok := n.settings.App(app)
	return !ok || a.Allows(origin)
}
