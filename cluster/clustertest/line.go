package clustertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"sluice/cluster"
	"sluice/media"
)

// ErrCut is what calls return on a Line that is cut.
var ErrCut = errors.New("the line to the registry is cut")

// Line is a node's line to a registry of any kind: it counts calls, and can be cut, slowed and paused.
type Line struct {
	cluster.Registry

	mu     sync.Mutex
	calls  map[string]int
	cut    bool
	paused chan struct{} // closed when the pause ends; nil: there is none
	delay  func() time.Duration
	skew   time.Duration
}

var _ cluster.Notifier = (*Line)(nil)

// NewLine returns a line that does nothing but count.
func NewLine(reg cluster.Registry) *Line { return &Line{Registry: reg, calls: map[string]int{}} }

// Calls returns how often each method was called, such as "Lookup"; Now and Close do not count.
func (l *Line) Calls() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.calls)
}

// Cut makes every call fail until it is called with false. Of a call under way nobody hears whether it was done.
func (l *Line) Cut(off bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = off
}

// Pause holds up every call and every answer until it is called with false, as if the process had been stopped: even a
// call whose context has ended returns only then.
func (l *Line) Pause(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case on && l.paused == nil:
		l.paused = make(chan struct{})
	case !on && l.paused != nil:
		close(l.paused)
		l.paused = nil
	}
}

// Delay sets how long each way takes. d is called from any goroutine.
func (l *Line) Delay(d func() time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
}

// Skew makes Now wrong by so much, as of a process that measures the registry's clock badly.
func (l *Line) Skew(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.skew = d
}

// Trip is one way of a round trip.
func (l *Line) Trip(ctx context.Context) error {
	l.mu.Lock()
	delay := l.delay
	l.mu.Unlock()
	if delay != nil {
		select {
		case <-time.After(delay()):
		case <-ctx.Done():
		}
	}
	for {
		l.mu.Lock()
		paused, cut := l.paused, l.cut
		l.mu.Unlock()
		switch {
		case paused != nil:
			<-paused
			continue
		case cut:
			return ErrCut
		}
		return ctx.Err()
	}
}

// call does a call that returns a T.
func call[T any](ctx context.Context, l *Line, method string, fn func() (T, error)) (T, error) {
	l.mu.Lock()
	l.calls[method]++
	l.mu.Unlock()
	var none T
	if err := l.Trip(ctx); err != nil {
		return none, err
	}
	v, err := fn()
	if lost := l.Trip(ctx); lost != nil {
		return none, lost
	}
	return v, err
}

// do does a call that returns nothing.
func (l *Line) do(ctx context.Context, method string, fn func() error) error {
	_, err := call(ctx, l, method, func() (struct{}, error) { return struct{}{}, fn() })
	return err
}

// Join implements cluster.Registry.
func (l *Line) Join(ctx context.Context, n cluster.Node) error {
	return l.do(ctx, "Join", func() error { return l.Registry.Join(ctx, n) })
}

// Heartbeat implements cluster.Registry.
func (l *Line) Heartbeat(ctx context.Context, n cluster.Node) error {
	return l.do(ctx, "Heartbeat", func() error { return l.Registry.Heartbeat(ctx, n) })
}

// Leave implements cluster.Registry.
func (l *Line) Leave(ctx context.Context, id string, session int64) error {
	return l.do(ctx, "Leave", func() error { return l.Registry.Leave(ctx, id, session) })
}

// Nodes implements cluster.Registry.
func (l *Line) Nodes(ctx context.Context) ([]cluster.Node, error) {
	return call(ctx, l, "Nodes", func() ([]cluster.Node, error) { return l.Registry.Nodes(ctx) })
}

// Peers implements cluster.Registry.
func (l *Line) Peers(ctx context.Context, self string) ([]cluster.Node, error) {
	return call(ctx, l, "Peers", func() ([]cluster.Node, error) { return l.Registry.Peers(ctx, self) })
}

// Viewers implements cluster.Registry.
func (l *Line) Viewers(ctx context.Context, keys ...media.Key) (map[media.Key]int, error) {
	return call(ctx, l, "Viewers", func() (map[media.Key]int, error) { return l.Registry.Viewers(ctx, keys...) })
}

// Order implements cluster.Registry.
func (l *Line) Order(ctx context.Context, id string, o cluster.Order) error {
	return l.do(ctx, "Order", func() error { return l.Registry.Order(ctx, id, o) })
}

// Claim implements cluster.Registry.
func (l *Line) Claim(ctx context.Context, want cluster.Lease) (cluster.Lease, error) {
	return call(ctx, l, "Claim", func() (cluster.Lease, error) { return l.Registry.Claim(ctx, want) })
}

// Resume implements cluster.Registry.
func (l *Line) Resume(ctx context.Context, lease cluster.Lease, session int64) (cluster.Lease, error) {
	return call(ctx, l, "Resume", func() (cluster.Lease, error) { return l.Registry.Resume(ctx, lease, session) })
}

// Report implements cluster.Registry.
func (l *Line) Report(ctx context.Context, lease cluster.Lease, info cluster.StreamInfo) error {
	return l.do(ctx, "Report", func() error { return l.Registry.Report(ctx, lease, info) })
}

// Release implements cluster.Registry.
func (l *Line) Release(ctx context.Context, lease cluster.Lease) error {
	return l.do(ctx, "Release", func() error { return l.Registry.Release(ctx, lease) })
}

// Lookup implements cluster.Registry.
func (l *Line) Lookup(ctx context.Context, keys ...media.Key) ([]cluster.Stream, error) {
	return call(ctx, l, "Lookup", func() ([]cluster.Stream, error) { return l.Registry.Lookup(ctx, keys...) })
}

// Streams implements cluster.Registry.
func (l *Line) Streams(ctx context.Context) ([]cluster.Stream, error) {
	return call(ctx, l, "Streams", func() ([]cluster.Stream, error) { return l.Registry.Streams(ctx) })
}

// Now implements cluster.Registry.
func (l *Line) Now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Registry.Now().Add(l.skew)
}

// Changes implements cluster.Notifier, for registries that do.
func (l *Line) Changes(ctx context.Context, fn func(cluster.Change)) error {
	feed, ok := l.Registry.(cluster.Notifier)
	if !ok {
		return fmt.Errorf("this registry tells of no changes: %w", errors.ErrUnsupported)
	}
	return feed.Changes(ctx, fn)
}
