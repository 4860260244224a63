package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"sluice/cluster"
	outrtc "sluice/egress/webrtc"
	inrelay "sluice/ingest/relay"
	"sluice/internal/trace"
	"sluice/internal/webhook"
	"sluice/media"
	"sluice/stream"
)

func (n *Node) hubConfig() stream.Config {
	cfg := stream.Config{
		Own:      n.own,
		Silence:  n.cfg.Publish.Silence,
		Grace:    n.cfg.Publish.Grace,
		Farewell: n.cfg.Publish.Farewell,
		Idle:     n.cfg.EdgeIdle,
		KeyEvery: n.cfg.KeyFrameInterval,
		OnGap:    n.gaps(),
		Log:      n.log,
	}
	if n.ways.pull {
		cfg.Pull = n.pull
	}
	return cfg
}

// pull: a node that has nothing of the registry's to look at is offline for the stream.
func (n *Node) pull(ctx context.Context, key media.Key) error { return n.relayIn.Pull(ctx, key) }

// own takes the lease on a stream; it is the hub's right to publish.
func (n *Node) own(ctx context.Context, key media.Key, lost func()) (_ stream.Holding, err error) {
	main, backup := key.Main()
	if backup {
		if err := n.mayBackUp(main); err != nil {
			return nil, err
		}
	}
	ctx, span := trace.Start(ctx, "registry claim", "stream", main.String())
	defer func() { span.End(err) }()
	held, err := n.member.Acquire(ctx, main, backup, func(error) { lost() })
	if errors.Is(err, cluster.ErrStreamInUse) {
		return nil, fmt.Errorf("%w, on another node", stream.ErrInUse)
	}
	if err != nil {
		return nil, err
	}
	r := &right{held: held, draining: n.draining.Load}
	if !backup { // a backup is no stream of its own
		r.told = n.publication(main)
	}
	return r, nil
}

// mayBackUp: a backup on the origin that has the stream would die with it.
func (n *Node) mayBackUp(main media.Key) error {
	if !n.ways.pull {
		return fmt.Errorf("%w: a standalone node has no other; start origins and edges, for example with `sluice up --origins 2`", stream.ErrNoBackup)
	}
	if i, ok := n.hub.Info(main); ok && !i.Relayed {
		return fmt.Errorf("%w, and this one has it; start another origin", stream.ErrNoBackup)
	}
	return nil
}

// right is a lease as the hub sees it.
type right struct {
	held     *cluster.Held
	draining func() bool
	told     func(action string) // customers' servers; nil: nobody is
	flowed   atomic.Bool
}

func (r *right) Report(flowing bool, codecs []string) {
	if flowing && r.told != nil && r.flowed.CompareAndSwap(false, true) {
		r.told(webhook.LiveStreamStarted)
	}
	state := cluster.Interrupted
	switch {
	case flowing && r.draining():
		state = cluster.Leaving // a publisher who moves finds his stream free
	case flowing:
		state = cluster.Broadcasting
	}
	r.held.Report(cluster.StreamInfo{State: state, Codecs: codecs})
}

// releaseWithin bounds how long a publisher's end waits for the registry; the member goes on trying.
const releaseWithin = time.Second

func (r *right) Release() {
	if r.flowed.CompareAndSwap(true, false) {
		r.told(webhook.LiveStreamEnded)
	}
	ctx, cancel := context.WithTimeout(context.Background(), releaseWithin)
	defer cancel()
	r.held.Release(ctx)
}

// seen says whether a relay key belongs to a node of the cluster, as far as the directory has seen.
func (n *Node) seen(key string) bool {
	return slices.ContainsFunc(n.directory.Nodes(), func(n cluster.Node) bool { return n.RelayKey == key })
}

// known looks for a node that is new in the registry.
func (n *Node) known(ctx context.Context, key string) bool {
	return n.directory.Refresh(ctx) == nil && n.seen(key)
}

// lookup finds the origin of a stream, or of its backup.
func (n *Node) lookup(ctx context.Context, key media.Key) (inrelay.Source, error) {
	if _, what := key.Source(); what != "" {
		return n.transcoders.choose(key, time.Now())
	}
	stem, backup := key.Main()
	ctx, span := trace.Start(ctx, "registry look-up", "stream", stem.String())
	s, b, err := n.directory.LookupBoth(ctx, stem)
	span.End(err)
	if err != nil {
		return inrelay.Source{}, fmt.Errorf("look up %s: %w", key, err)
	}
	src := inrelay.Source{Backup: !backup && b.State == cluster.Broadcasting}
	if backup {
		s = b
	}
	if s.State != cluster.Broadcasting || s.Origin == n.cfg.ID {
		return src, stream.ErrOffline
	}
	node, ok := n.directory.View().Node(s.Origin) // LookupBoth has judged the stream by it
	if !ok {
		return src, stream.ErrOffline
	}
	src.Addr, src.Key, src.Node, src.Epoch = node.Relay, node.RelayKey, node.ID, s.Epoch
	return src, nil
}

// countWithin is how long clients wait for a count of viewers.
const countWithin = 300 * time.Millisecond

// viewersOf is how many watch a stream in the whole cluster: at least those of this node, without the registry too.
func (n *Node) viewersOf(key media.Key) int {
	ctx, cancel := context.WithTimeout(context.Background(), countWithin)
	defer cancel()
	viewers, _ := n.directory.Viewers(ctx, key)
	here, _ := n.hub.Info(key)
	return max(viewers, here.Viewers)
}

// watch tells of each new origin of a stream, or of its backup.
func (n *Node) watch(key media.Key, fn func(inrelay.Source)) (cancel func()) {
	if _, what := key.Source(); what != "" { // the registry knows nothing of it
		return func() {}
	}
	stem, backup := key.Main()
	return n.directory.Watch(stem, func(s cluster.Stream) {
		if s.Backup == backup {
			fn(inrelay.Source{Node: s.Origin, Epoch: s.Epoch})
		}
	})
}

// suspect has the directory look closer at a stream, or a backup, that was lost.
func (n *Node) suspect(key media.Key) {
	if _, what := key.Source(); what != "" {
		n.transcoders.suspect(key, time.Now())
		return
	}
	n.directory.Suspect(key.Main())
}

// relayAddr is where other nodes get streams from this one.
func (n *Node) relayAddr() string { return n.reachable(n.relayOut.Addr()) }

// describe is what the node says of itself at each heartbeat.
func (n *Node) describe() cluster.Node {
	l := n.load.state()
	host, _ := os.Hostname() // for people only
	d := cluster.Node{
		ID: n.cfg.ID, Role: n.role, State: cluster.Ready, PID: os.Getpid(), Host: host, Region: n.cfg.Region, Version: n.deps.Version,
		HTTP: n.HTTPAddr(), Media: n.rtc.Addr().String(), Relay: n.relayAddr(), RelayKey: n.identity.Key(),
		CPU: l.cpu, Memory: l.memory, Egress: l.egress, Load: l.load, Full: l.full, Started: n.started,
	}
	if n.draining.Load() {
		d.State = cluster.Draining
	}
	for _, i := range n.hub.List() {
		if _, what := i.Key.Source(); what != "" {
			continue
		}
		if main, backup := i.Key.Main(); backup { // nobody watches it under that name
			if !i.Relayed {
				d.Backups = append(d.Backups, main)
			}
			continue
		}
		d.Serving = append(d.Serving, cluster.Serving{Stream: i.Key, Viewers: i.Viewers})
	}
	return d
}

// admit refuses new sessions when the node is at its limit or about to stop.
func (n *Node) admit() error {
	if n.draining.Load() {
		return stream.ErrClosing
	}
	if full := n.load.state().full; full != "" {
		return fmt.Errorf("%w: %s", outrtc.ErrFull, full)
	}
	return nil
}
