package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/media"
)

const (
	// LeaseTTL is how long a lease lives without a renewal; it is renewed three times in that time.
	LeaseTTL = 3 * time.Second
	// acquireWait: a silent holder says Interrupted after 2 s, so waiting a little longer pays.
	acquireWait = 2500 * time.Millisecond
	acquirePoll = 100 * time.Millisecond
	// renewAtOnce is how many renewals are under way together.
	renewAtOnce = 8
)

// ErrStopped: Run has ended, nothing is kept alive any more.
var ErrStopped = errors.New("node is stopping")

// Leases holds a node's leases and renews them from one goroutine, Run's.
type Leases struct {
	reg  Registry
	node string
	ttl  time.Duration
	out  outage // Run's
	wake chan struct{}

	mu      sync.Mutex
	held    map[media.Key]*Held
	stopped bool
}

// NewLeases does no I/O; a ttl of 0 means LeaseTTL.
func NewLeases(reg Registry, node string, ttl time.Duration, log *slog.Logger) *Leases {
	if ttl <= 0 {
		ttl = LeaseTTL
	}
	return &Leases{reg: reg, node: node, ttl: ttl, out: outage{log: log, doing: "renew leases"},
		wake: make(chan struct{}, 1), held: map[media.Key]*Held{}}
}

// Held is a lease that is kept alive until Release, or until it is lost.
type Held struct {
	leases *Leases
	lease  Lease
	lost   func(error)

	// These belong to leases.mu.
	info    StreamInfo
	dirty   bool      // info must be written at once
	renewed time.Time // last success
}

// Lease is what is held; it does not change.
func (h *Held) Lease() Lease { return h.lease }

// Acquire takes the lease on a stream, and waits up to 2.5 s (or ctx) for a holder that has fallen silent or died. ErrStreamInUse:
// somebody else publishes it. Another error: the registry can't be reached, and
// the caller decides. lost is called once, when somebody has taken the lease over: from Run's goroutines, or from
// an Acquire of the same stream on this node. It must not block.
func (l *Leases) Acquire(ctx context.Context, key media.Key, lost func(error)) (*Held, error) {
	ctx, cancel := context.WithTimeout(ctx, acquireWait)
	defer cancel()
	poll := time.NewTicker(acquirePoll)
	defer poll.Stop()
	var inUse error
	for {
		lease, err := l.reg.Claim(ctx, key, l.node, l.ttl)
		switch {
		case err == nil:
			return l.hold(ctx, lease, lost)
		case errors.Is(err, ErrStreamInUse):
			inUse = err
		case inUse != nil && ctx.Err() != nil: // the wait ended within the last attempt
			return nil, inUse
		default:
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, inUse
		case <-poll.C:
		}
	}
}

// hold puts a fresh lease among those that are renewed.
func (l *Leases) hold(ctx context.Context, lease Lease, lost func(error)) (*Held, error) {
	h := &Held{leases: l, lease: lease, lost: lost, renewed: time.Now(), info: StreamInfo{State: Broadcasting}}
	l.mu.Lock()
	if l.stopped {
		l.mu.Unlock()
		_ = l.reg.Release(ctx, lease) // else it runs out by itself
		return nil, fmt.Errorf("claim stream %q: %w", lease.Key, ErrStopped)
	}
	old := l.held[lease.Key]
	if old != nil && old.lease.Epoch > lease.Epoch {
		l.mu.Unlock()
		return nil, fmt.Errorf("claim stream %q: %w", lease.Key, ErrLeaseLost)
	}
	l.held[lease.Key] = h
	l.mu.Unlock()
	if old != nil {
		old.lost(fmt.Errorf("stream %q: %w", lease.Key, ErrLeaseLost))
	}
	return h, nil
}

// Report sets what the next renewals say. A change is written at once.
func (h *Held) Report(info StreamInfo) {
	h.leases.mu.Lock()
	changed := info.State != h.info.State || !slices.Equal(info.Codecs, h.info.Codecs)
	if changed {
		h.info = StreamInfo{State: info.State, Codecs: slices.Clone(info.Codecs)}
		h.dirty = true
	}
	h.leases.mu.Unlock()
	if changed {
		select {
		case h.leases.wake <- struct{}{}:
		default:
		}
	}
}

// Release ends the lease, so that anyone may publish the stream; after it, lost is
// not called. Of a lease that is lost already nothing remains to be released: nil. On an error the lease
// runs out by itself.
func (h *Held) Release(ctx context.Context) error {
	if !h.leases.drop(h) {
		return nil
	}
	if err := h.leases.reg.Release(ctx, h.lease); err != nil && !errors.Is(err, ErrLeaseLost) {
		return err
	}
	return nil
}

// drop forgets a lease; false when it was forgotten before.
func (l *Leases) drop(h *Held) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[h.lease.Key] != h {
		return false
	}
	delete(l.held, h.lease.Key)
	return true
}

// Run renews until ctx ends; then it releases what is still held, so that publishers
// may go elsewhere at once. It returns nil: a registry that is away stops nothing.
func (l *Leases) Run(ctx context.Context) error {
	tick := time.NewTicker(l.ttl / 3)
	defer tick.Stop()
	defer l.out.end()
	for {
		select {
		case <-ctx.Done():
			l.releaseAll(context.WithoutCancel(ctx))
			return nil
		case <-tick.C:
			l.round(ctx, false)
		case <-l.wake:
			l.round(ctx, true)
		}
	}
}

// round renews all leases, or only those with news, within a third of the ttl: what a
// slow registry does not answer in time is first in the next round.
func (l *Leases) round(run context.Context, newsOnly bool) {
	ctx, cancel := context.WithTimeout(run, l.ttl/3)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(renewAtOnce)
	due := l.due(newsOnly)
	for _, h := range due {
		g.Go(func() error { return l.renew(ctx, h) })
	}
	err := g.Wait()
	if run.Err() == nil && len(due) > 0 {
		l.out.note(err)
	}
}

// due lists the leases to renew, the longest waiting first.
func (l *Leases) due(newsOnly bool) []*Held {
	l.mu.Lock()
	defer l.mu.Unlock()
	var due []*Held
	for _, h := range l.held {
		if h.dirty || !newsOnly {
			due = append(due, h)
		}
	}
	slices.SortFunc(due, func(a, b *Held) int { return a.renewed.Compare(b.renewed) })
	return due
}

// renew writes one lease. Its error says that the registry is away.
func (l *Leases) renew(ctx context.Context, h *Held) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	info := h.info
	h.dirty = false
	l.mu.Unlock()
	err := l.reg.Renew(ctx, h.lease, info, l.ttl)
	switch {
	case errors.Is(err, ErrLeaseLost):
		if l.drop(h) {
			h.lost(err)
		}
		return nil
	case err == nil:
		l.mu.Lock()
		h.renewed = time.Now()
		l.mu.Unlock()
	}
	return err // the next tick writes it again, with what is true then
}

func (l *Leases) releaseAll(ctx context.Context) {
	l.mu.Lock()
	l.stopped = true
	held := l.held
	l.held = map[media.Key]*Held{}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, leaveWithin)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(renewAtOnce)
	for _, h := range held {
		g.Go(func() error { return l.reg.Release(ctx, h.lease) })
	}
	if err := g.Wait(); err != nil && !errors.Is(err, ErrLeaseLost) {
		l.out.log.Warn("some leases were not released and must run out", "error", err)
	}
}
