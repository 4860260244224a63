package cluster

import (
	"context"
	"errors"
	"time"

	"sluice/media"
)

// Timed is a registry of which somebody learns how long each operation takes, and whether it failed. done may be called from any goroutine.
// What the registry says on purpose, such as ErrStreamInUse or ErrLeaseLost, is no failure: failed is true when it could not be asked.
func Timed(reg Registry, done func(operation string, took time.Duration, failed bool)) Registry {
	t := timed{reg, done}
	if feed, ok := reg.(Notifier); ok {
		return struct {
			timed
			Notifier
		}{t, feed}
	}
	return t
}

// Operations are the names that Timed gives.
func Operations() []string {
	return []string{"join", "heartbeat", "leave", "nodes", "peers", "viewers", "order", "claim", "resume", "report", "release", "lookup", "streams"}
}

// decided reports an error that the registry, or the caller, has chosen.
func decided(err error) bool {
	for _, e := range []error{ErrStreamInUse, ErrLeaseLost, ErrFenced, ErrReplaced, ErrNoNode, media.ErrBadKey, context.Canceled} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// timed embeds the registry for Now and Close.
type timed struct {
	Registry
	done func(operation string, took time.Duration, failed bool)
}

func (t timed) time(operation string, begin time.Time, err error) {
	t.done(operation, time.Since(begin), err != nil && !decided(err))
}

func (t timed) Join(ctx context.Context, n Node) (err error) {
	defer func(begin time.Time) { t.time("join", begin, err) }(time.Now())
	return t.Registry.Join(ctx, n)
}

func (t timed) Heartbeat(ctx context.Context, n Node) (err error) {
	defer func(begin time.Time) { t.time("heartbeat", begin, err) }(time.Now())
	return t.Registry.Heartbeat(ctx, n)
}

func (t timed) Leave(ctx context.Context, id string, session int64) (err error) {
	defer func(begin time.Time) { t.time("leave", begin, err) }(time.Now())
	return t.Registry.Leave(ctx, id, session)
}

func (t timed) Nodes(ctx context.Context) (_ []Node, err error) {
	defer func(begin time.Time) { t.time("nodes", begin, err) }(time.Now())
	return t.Registry.Nodes(ctx)
}

func (t timed) Peers(ctx context.Context, self string) (_ []Node, err error) {
	defer func(begin time.Time) { t.time("peers", begin, err) }(time.Now())
	return t.Registry.Peers(ctx, self)
}

func (t timed) Viewers(ctx context.Context, keys ...media.Key) (_ map[media.Key]int, err error) {
	defer func(begin time.Time) { t.time("viewers", begin, err) }(time.Now())
	return t.Registry.Viewers(ctx, keys...)
}

func (t timed) Order(ctx context.Context, id string, o Order) (err error) {
	defer func(begin time.Time) { t.time("order", begin, err) }(time.Now())
	return t.Registry.Order(ctx, id, o)
}

func (t timed) Claim(ctx context.Context, l Lease) (_ Lease, err error) {
	defer func(begin time.Time) { t.time("claim", begin, err) }(time.Now())
	return t.Registry.Claim(ctx, l)
}

func (t timed) Resume(ctx context.Context, l Lease, session int64) (_ Lease, err error) {
	defer func(begin time.Time) { t.time("resume", begin, err) }(time.Now())
	return t.Registry.Resume(ctx, l, session)
}

func (t timed) Report(ctx context.Context, l Lease, info StreamInfo) (err error) {
	defer func(begin time.Time) { t.time("report", begin, err) }(time.Now())
	return t.Registry.Report(ctx, l, info)
}

func (t timed) Release(ctx context.Context, l Lease) (err error) {
	defer func(begin time.Time) { t.time("release", begin, err) }(time.Now())
	return t.Registry.Release(ctx, l)
}

func (t timed) Lookup(ctx context.Context, keys ...media.Key) (_ []Stream, err error) {
	defer func(begin time.Time) { t.time("lookup", begin, err) }(time.Now())
	return t.Registry.Lookup(ctx, keys...)
}

func (t timed) Streams(ctx context.Context) (_ []Stream, err error) {
	defer func(begin time.Time) { t.time("streams", begin, err) }(time.Now())
	return t.Registry.Streams(ctx)
}
