// Package memory is the cluster's registry within one process: for tests and for rigs that
// cut nodes off from it.
//
// Imports: media, cluster.
package memory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice/cluster"
	"sluice/media"
)

// ErrCut is what a Registry returns while it is cut off, and after Close.
var ErrCut = errors.New("registry can't be reached")

// Store is what several registries share.
type Store struct {
	now func() time.Time

	mu      sync.Mutex
	nodes   map[string]cluster.Node
	streams map[media.Key]cluster.Stream // as written: State may be Broadcasting after LeaseUntil
}

// NewStore returns an empty store; now is time.Now unless a test has its own clock.
func NewStore(now func() time.Time) *Store {
	return &Store{now: now, nodes: map[string]cluster.Node{}, streams: map[media.Key]cluster.Stream{}}
}

// Registry is one node's way to the store.
type Registry struct {
	store *Store

	// These belong to store.mu.
	cut     bool
	closed  bool
	queries map[string]int
}

var _ cluster.Registry = (*Registry)(nil)

// Open returns another way to the store.
func (s *Store) Open() *Registry { return &Registry{store: s, queries: map[string]int{}} }

// Cut makes every call fail with ErrCut until it is called with false.
func (r *Registry) Cut(off bool) {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	r.cut = off
}

// Queries says how often a method was called, such as "Lookup".
func (r *Registry) Queries(method string) int {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	return r.queries[method]
}

// begin takes the lock; the caller gives it back, whatever begin returned.
func (r *Registry) begin(ctx context.Context, method string) error {
	r.store.mu.Lock()
	r.queries[method]++
	if r.cut || r.closed {
		return ErrCut
	}
	return ctx.Err()
}

// Heartbeat implements cluster.Registry.
func (r *Registry) Heartbeat(ctx context.Context, n cluster.Node) error {
	if err := n.Check(); err != nil {
		return err
	}
	err := r.begin(ctx, "Heartbeat")
	defer r.store.mu.Unlock()
	if err != nil {
		return err
	}
	n.Serving = slices.Clone(n.Serving)
	n.LastHeartbeat = r.store.now()
	r.store.nodes[n.ID] = n
	return nil
}

// RemoveNode implements cluster.Registry.
func (r *Registry) RemoveNode(ctx context.Context, id string) error {
	err := r.begin(ctx, "RemoveNode")
	defer r.store.mu.Unlock()
	if err == nil {
		delete(r.store.nodes, id)
	}
	return err
}

// Nodes implements cluster.Registry.
func (r *Registry) Nodes(ctx context.Context) ([]cluster.Node, error) {
	err := r.begin(ctx, "Nodes")
	defer r.store.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var list []cluster.Node
	for _, n := range r.store.nodes {
		n.Serving = slices.Clone(n.Serving)
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b cluster.Node) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// Claim implements cluster.Registry.
func (r *Registry) Claim(ctx context.Context, key media.Key, node string, ttl time.Duration) (cluster.Lease, error) {
	if err := cluster.CheckClaim(key, node, ttl); err != nil {
		return cluster.Lease{}, err
	}
	err := r.begin(ctx, "Claim")
	defer r.store.mu.Unlock()
	if err != nil {
		return cluster.Lease{}, err
	}
	now := r.store.now()
	s, live := r.store.streams[key], false
	if s.State != cluster.Finished && s.LeaseUntil.After(now) {
		live = true
		if s.State == cluster.Broadcasting && s.Origin != node {
			return cluster.Lease{}, fmt.Errorf("claim stream %q: %w", key, cluster.ErrStreamInUse)
		}
	}
	if !live {
		s.Started = now
	}
	s = cluster.Stream{Key: key, State: cluster.Broadcasting, Origin: node, Epoch: s.Epoch + 1, Started: s.Started, LeaseUntil: now.Add(ttl)}
	r.store.streams[key] = s
	return cluster.Lease{Key: key, Node: node, Epoch: s.Epoch}, nil
}

// Renew implements cluster.Registry.
func (r *Registry) Renew(ctx context.Context, l cluster.Lease, info cluster.StreamInfo, ttl time.Duration) error {
	if err := cluster.CheckRenew(l, info, ttl); err != nil {
		return err
	}
	return r.change(ctx, "Renew", l, func(s *cluster.Stream) {
		s.State, s.Codecs, s.LeaseUntil = info.State, slices.Clone(info.Codecs), r.store.now().Add(ttl)
	})
}

// Release implements cluster.Registry.
func (r *Registry) Release(ctx context.Context, l cluster.Lease) error {
	return r.change(ctx, "Release", l, func(s *cluster.Stream) {
		s.State, s.LeaseUntil = cluster.Finished, r.store.now()
	})
}

// change edits a stream whose lease is held.
func (r *Registry) change(ctx context.Context, method string, l cluster.Lease, edit func(*cluster.Stream)) error {
	err := r.begin(ctx, method)
	defer r.store.mu.Unlock()
	if err != nil {
		return err
	}
	s, ok := r.store.streams[l.Key]
	if !ok || s.Epoch != l.Epoch || s.Origin != l.Node || s.State == cluster.Finished {
		return fmt.Errorf("stream %q, epoch %d: %w", l.Key, l.Epoch, cluster.ErrLeaseLost)
	}
	edit(&s)
	r.store.streams[l.Key] = s
	return nil
}

// Lookup implements cluster.Registry.
func (r *Registry) Lookup(ctx context.Context, keys ...media.Key) ([]cluster.Stream, error) {
	err := r.begin(ctx, "Lookup")
	defer r.store.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var list []cluster.Stream
	asked := map[media.Key]bool{}
	for _, key := range keys {
		if s, ok := r.store.streams[key]; ok && !asked[key] {
			asked[key] = true
			list = append(list, r.read(s))
		}
	}
	return list, nil
}

// Streams implements cluster.Registry.
func (r *Registry) Streams(ctx context.Context) ([]cluster.Stream, error) {
	err := r.begin(ctx, "Streams")
	defer r.store.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var list []cluster.Stream
	for _, s := range r.store.streams {
		if s = r.read(s); s.State != cluster.Finished {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b cluster.Stream) int { return cmp.Compare(a.Key.String(), b.Key.String()) })
	return list, nil
}

// read returns a stream as it is now.
func (r *Registry) read(s cluster.Stream) cluster.Stream {
	s.Codecs = slices.Clone(s.Codecs)
	if !s.LeaseUntil.After(r.store.now()) {
		s.State = cluster.Finished
	}
	return s
}

// Close implements cluster.Registry; the store and its other registries stay.
func (r *Registry) Close() error {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	r.closed = true
	return nil
}
