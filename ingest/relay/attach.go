package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/internal/trace"
	wire "sluice/relay"
	"sluice/stream"
)

const (
	// maxAsked is how many nodes are asked in one attempt: a tree of 16 children each has 2.5 million nodes in six levels.
	maxAsked = 16
	// hopWithin is how long a node may take that another one has named. It may be dead.
	hopWithin = 700 * time.Millisecond
	// avoidFor is for how long a node that was lost, or that refused, is avoided.
	avoidFor = 10 * time.Second
)

// Reasons for which a node does not give a stream.
var (
	errFull = errors.New("the node has no room, and knows nobody who has")
	errLoop = errors.New("the stream comes by this node itself")
	errSame = errors.New("only the node that it comes from has the stream")
)

// redirect is the answer that names another node.
type redirect wire.Redirect

func (r redirect) Error() string { return fmt.Sprintf("ask node %q", r.Node) }

// take asks the stream's origin for it, and whoever that names, until one gives it. Nodes that fail on the way are put before
// those in failed: the latest first, since only some can be named. spare: it comes already, and shall come from somewhere else.
func (s *session) take(ctx context.Context, avoid []string, failed *[]string, spare *upstream) (*upstream, Source, error) {
	origin, err := s.lookup(ctx)
	if err != nil {
		return nil, origin, err
	}
	s.asking.Store(origin.Epoch)
	if told := s.origin.Load().Epoch; told > origin.Epoch {
		return nil, origin, fmt.Errorf("the registry says epoch %d after it has told of %d", origin.Epoch, told)
	}
	if spare != nil && spare.root && spare.src.Node == origin.Node && spare.src.Key == origin.Key {
		return nil, origin, errSame
	}
	at := origin
	var asked []string // that were named by others
	for range maxAsked {
		up, err := s.ask(ctx, at, len(asked), slices.Concat(*failed, avoid))
		if err == nil {
			up.root = at.Node == origin.Node
			return up, origin, nil
		}
		to, sentOn := errors.AsType[redirect](err)
		switch {
		case sentOn && to.Node != s.relay.cfg.Node && !slices.Contains(asked, to.Node):
			asked = append(asked, to.Node)
			at = Source{Addr: to.Addr, Key: to.Key, Node: to.Node, Epoch: origin.Epoch}
		case at.Node == origin.Node:
			return nil, origin, err
		case ctx.Err() != nil:
			return nil, origin, context.Cause(ctx)
		default: // somebody else, then
			s.log.Debug("relay parent passed over", "stream", s.key, "node", at.Node, "err", err)
			*failed = slices.Insert(*failed, 0, at.Node)
			at = origin
		}
	}
	return nil, origin, fmt.Errorf("%w: %d nodes were asked", errFull, maxAsked)
}

// ask connects to a node and asks it for the stream.
func (s *session) ask(ctx context.Context, at Source, hops int, avoid []string) (up *upstream, err error) {
	if hops > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, hopWithin)
		defer cancel()
	}
	ctx, span := trace.Start(ctx, "relay subscribe", "node", at.Node, "stream", s.key.String())
	defer func() { span.End(err) }()
	p, err := s.relay.peer(ctx, at)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	up, err = p.subscribe(ctx, s, at, wire.Subscribe{Key: s.key, Region: s.relay.cfg.Region, Addr: s.relay.cfg.Addr(), Hops: uint64(hops), Avoid: avoid,
		Request: trace.RequestOf(ctx), Trace: trace.Carried(ctx)})
	if err != nil {
		s.relay.meters.subscribe.Observe(time.Since(begin).Seconds(), "no")
		p.release()
		return nil, err
	}
	s.relay.meters.subscribe.Observe(time.Since(begin).Seconds(), "ok")
	return up, nil
}

// lookup asks the registry. A node that lost the stream to a higher epoch does not get it back.
func (s *session) lookup(ctx context.Context) (Source, error) {
	src, err := s.relay.cfg.Lookup(ctx, s.key)
	if epoch := s.epoch.Load(); err == nil && (src.Node == s.relay.cfg.Node || src.Epoch < epoch) {
		err = fmt.Errorf("node %q with epoch %d is not the one to ask: %w", src.Node, src.Epoch, stream.ErrOffline)
	}
	return src, err
}

// attach finds the stream and publishes it to the hub.
func (s *session) attach(ctx context.Context) error {
	var failed []string
	up, src, err := s.take(ctx, s.avoided(), &failed, nil)
	s.found, s.src = src.Node != "", src
	s.avoid(failed...)
	s.wantFeed = s.wantFeed || src.Backup
	if err != nil && src.Backup {
		return s.attachFeed(ctx)
	}
	if err != nil {
		return err
	}
	if err := up.publish(ctx); err != nil {
		up.close(err)
		return err
	}
	s.use(up)
	return nil
}

// avoided lists the nodes not to be sent to, the latest of them when there are many.
func (s *session) avoided() (ids []string) {
	now := time.Now()
	for id, until := range s.shunned {
		if now.After(until) {
			delete(s.shunned, id)
			continue
		}
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int { return s.shunned[b].Compare(s.shunned[a]) })
	return ids[:min(len(ids), wire.MaxAvoid)]
}

// avoid remembers nodes not to be sent to for a while, which begins anew for those that are avoided already.
func (s *session) avoid(ids ...string) {
	until := time.Now().Add(avoidFor)
	for _, id := range ids {
		s.shunned[id] = until
	}
}
