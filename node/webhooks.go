package node

import (
	"context"
	"time"

	"sluice/internal/access"
	"sluice/internal/config"
	"sluice/internal/safehttp"
	"sluice/internal/settings"
	"sluice/internal/webhook"
	"sluice/media"
)

// hookWithin is how long a customer's server may take to take an event.
const hookWithin = 10 * time.Second

// newWebhooks makes what tells customers' servers of what happens.
func (n *Node) newWebhooks() error {
	private, err := config.Prefixes(n.cfg.Access.PrivateHosts)
	if err != nil {
		return err
	}
	n.hooks = webhook.New(n.deps.Documents, webhook.Config{Targets: n.hookOf, Any: n.anyHook, Client: safehttp.New(hookWithin, private), Node: n.cfg.ID, Log: n.log})
	return nil
}

func (n *Node) hookOf(app string) webhook.Target {
	w := n.settings.Cluster().Webhooks
	if app != "" {
		a, _ := n.settings.App(app)
		w = a.Webhooks
	}
	return webhook.Target(w)
}

func (n *Node) anyHook() bool {
	for _, app := range append([]string{""}, n.settings.Apps()...) {
		if n.hookOf(app).URL != "" {
			return true
		}
	}
	return false
}

func checkWebhooks(w settings.Webhooks) error {
	if w.URL == "" {
		return nil
	}
	return safehttp.CheckURL(w.URL)
}

// publication tells of a stream's begin and end, with what its publisher had shown when it began.
func (n *Node) publication(key media.Key) func(action string) {
	var by access.Request
	return func(action string) {
		if !n.hookOf(key.App).Wants(action) {
			return
		}
		if r, ok := n.guard.Publisher(key); ok {
			by = r
		}
		n.hooks.Send(key.App, webhook.Event{ID: key.ID, Action: action, StreamName: by.Name, SubscriberID: by.SubscriberID, Metadata: by.Metadata})
	}
}

// played tells of a viewer who has come or gone.
func (n *Node) played(r access.Request, began bool) {
	if r.Action != access.Play {
		return
	}
	action := webhook.PlayStopped
	if began {
		action = webhook.PlayStarted
	}
	n.hooks.Send(r.Stream.App, webhook.Event{ID: r.Stream.ID, Action: action, SubscriberID: r.SubscriberID, Metadata: r.Metadata})
}

// tellFull tells when the node has become full.
func (n *Node) tellFull(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	was := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		full := n.load.state().full
		if full != "" && was == "" {
			n.hooks.Send("", webhook.Event{ID: n.cfg.ID, Action: webhook.HighResourceUsage, Metadata: full})
		}
		was = full
	}
}
