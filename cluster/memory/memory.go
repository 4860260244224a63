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

// slot is a row of a stream.
type slot struct {
	key    media.Key
	backup bool
}

// Store is what several registries share.
type Store struct {
	now func() time.Time

	mu        sync.Mutex
	nodes     map[string]cluster.Node
	streams   map[slot]cluster.Stream
	changed   map[slot]time.Time // when a stream was written last
	forgot    time.Time          // when rows were looked for that are gone for good
	documents map[document]cluster.Document
	notices   map[string]int64 // of each kind
}

// NewStore returns an empty store; now is time.Now unless a test has its own clock.
func NewStore(now func() time.Time) *Store {
	return &Store{now: now, nodes: map[string]cluster.Node{}, streams: map[slot]cluster.Stream{}, changed: map[slot]time.Time{},
		documents: map[document]cluster.Document{}, notices: map[string]int64{}}
}

// Registry is one node's way to the store. It works as one for a database would whose only atomic
// step is to change one row if it is still as it was.
type Registry struct {
	store *Store
	trip  func(context.Context) error // nil: nothing

	// These belong to store.mu.
	cut     bool
	closed  bool
	queries map[string]int

	revisions cluster.Revisions
}

var _ cluster.Store = (*Registry)(nil)

// Open returns another way to the store.
func (s *Store) Open() *Registry { return &Registry{store: s, queries: map[string]int{}} }

// OpenVia returns a way to the store on which trip is called before and after each round trip: it may wait, and its error is the call's.
func (s *Store) OpenVia(trip func(context.Context) error) *Registry {
	r := s.Open()
	r.trip = trip
	return r
}

// Empty deletes all streams, and nodes and documents too if whole: as a database that was lost comes back.
func (s *Store) Empty(whole bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.streams)
	if whole {
		clear(s.nodes)
		clear(s.documents)
	}
}

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

// call counts a method.
func (r *Registry) call(method string) {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	r.queries[method]++
}

// step is one round trip: fn has the store for itself.
func (r *Registry) step(ctx context.Context, fn func()) error {
	if r.trip != nil {
		if err := r.trip(ctx); err != nil {
			return err
		}
	}
	if err := r.locked(ctx, fn); err != nil {
		return err
	}
	if r.trip != nil {
		return r.trip(ctx)
	}
	return nil
}

func (r *Registry) locked(ctx context.Context, fn func()) error {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	if r.cut || r.closed {
		return ErrCut
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	fn()
	return nil
}

// Join implements cluster.Registry.
func (r *Registry) Join(ctx context.Context, n cluster.Node) error {
	if err := n.Check(); err != nil {
		return err
	}
	r.call("Join")
	return r.step(ctx, func() {
		r.revisions.Joined()
		n.Order = cluster.Order{}
		if row, ok := r.store.nodes[n.ID]; ok && row.Process() != "" && row.Process() == n.Process() {
			n.Order = row.Order
		}
		r.writeLocked(n)
		r.store.forgetLocked()
	})
}

// forgetLocked deletes what is gone for good.
func (s *Store) forgetLocked() {
	s.forgot = s.now()
	old := s.forgot.Add(-cluster.ForgetAfter)
	for id, n := range s.nodes {
		if n.LastHeartbeat.Before(old) {
			delete(s.nodes, id)
		}
	}
	for at, stream := range s.streams {
		n := s.nodes[stream.Origin]
		if void := n.Session != stream.Session || n.Fenced; s.changed[at].Before(old) && (void || stream.State == cluster.Finished) {
			delete(s.streams, at)
			delete(s.changed, at)
		}
	}
}

// writeLocked stamps and writes a node.
func (r *Registry) writeLocked(n cluster.Node) {
	n.Serving, n.Backups, n.Fenced, n.LastHeartbeat = slices.Clone(n.Serving), slices.Clone(n.Backups), false, r.store.now()
	r.store.nodes[n.ID] = n
}

// Heartbeat implements cluster.Registry.
func (r *Registry) Heartbeat(ctx context.Context, n cluster.Node) error {
	if err := n.Check(); err != nil {
		return err
	}
	r.call("Heartbeat")
	var refused error
	err := r.step(ctx, func() {
		row, ok := r.store.nodes[n.ID]
		switch {
		case ok && row.Session != n.Session:
			refused = cluster.ErrReplaced
		case !ok || row.Fenced:
			refused = cluster.ErrFenced
		default:
			n.Order = row.Order
			r.writeLocked(n)
			if r.store.now().Sub(r.store.forgot) >= cluster.ForgetEvery {
				r.store.forgetLocked()
			}
			r.revisions.Learn(r.store.notices)
		}
	})
	if refused != nil && err == nil {
		return fmt.Errorf("heartbeat of node %q: %w", n.ID, refused)
	}
	return err
}

// Leave implements cluster.Registry.
func (r *Registry) Leave(ctx context.Context, id string, session int64) error {
	r.call("Leave")
	return r.step(ctx, func() {
		if r.store.nodes[id].Session == session {
			delete(r.store.nodes, id)
		}
	})
}

// Nodes implements cluster.Registry.
func (r *Registry) Nodes(ctx context.Context) (list []cluster.Node, err error) {
	r.call("Nodes")
	err = r.step(ctx, func() {
		for _, n := range r.store.nodes {
			n.Serving, n.Backups = slices.Clone(n.Serving), slices.Clone(n.Backups)
			list = append(list, n)
		}
	})
	slices.SortFunc(list, func(a, b cluster.Node) int { return cmp.Compare(a.ID, b.ID) })
	return list, err
}

// Peers implements cluster.Registry.
func (r *Registry) Peers(ctx context.Context, self string) (list []cluster.Node, err error) {
	r.call("Peers")
	err = r.step(ctx, func() {
		for _, n := range r.store.nodes {
			if self == "" || n.ID == self || n.Role != cluster.Edge {
				n.Serving, n.Backups = nil, nil
				list = append(list, n)
			}
		}
	})
	slices.SortFunc(list, func(a, b cluster.Node) int { return cmp.Compare(a.ID, b.ID) })
	return list, err
}

// Viewers implements cluster.Registry.
func (r *Registry) Viewers(ctx context.Context, keys ...media.Key) (map[media.Key]int, error) {
	r.call("Viewers")
	viewers := map[media.Key]int{}
	err := r.step(ctx, func() {
		for _, n := range r.store.nodes {
			for _, s := range n.Serving {
				if slices.Contains(keys, s.Stream) && n.Alive(r.store.now()) {
					viewers[s.Stream] += s.Viewers
				}
			}
		}
	})
	return viewers, err
}

// Order implements cluster.Registry.
func (r *Registry) Order(ctx context.Context, id string, o cluster.Order) error {
	r.call("Order")
	found := false
	err := r.step(ctx, func() {
		var n cluster.Node
		if n, found = r.store.nodes[id]; found {
			n.Order = o
			r.store.nodes[id] = n
		}
	})
	if err == nil && !found {
		return fmt.Errorf("order to node %q: %w", id, cluster.ErrNoNode)
	}
	return err
}

// Claim implements cluster.Registry.
func (r *Registry) Claim(ctx context.Context, l cluster.Lease) (cluster.Lease, error) {
	if err := cluster.CheckClaim(l); err != nil {
		return cluster.Lease{}, err
	}
	r.call("Claim")
	at := slot{l.Key, l.Backup}
	for {
		var seen cluster.Stream // its zero value is what a row that isn't there reads as
		if err := r.step(ctx, func() { seen = r.store.streams[at] }); err != nil {
			return cluster.Lease{}, err
		}
		if seen.State == cluster.Broadcasting && seen.Session != l.Session {
			again, err := r.void(ctx, seen)
			if err != nil {
				return cluster.Lease{}, err
			}
			if again {
				continue
			}
		}
		won := false
		err := r.step(ctx, func() {
			now := r.store.streams[at]
			if won = now.Epoch == seen.Epoch && now.State == seen.State; !won {
				return
			}
			started := r.store.now()
			if now.State == cluster.Interrupted || now.State == cluster.Leaving {
				started = now.Started
			}
			l.Epoch = cluster.NextEpoch(now.Epoch, r.store.now())
			r.store.changed[at] = r.store.now()
			r.store.streams[at] = cluster.Stream{Key: l.Key, Backup: l.Backup, State: cluster.Broadcasting, Origin: l.Node, Session: l.Session, Epoch: l.Epoch, Started: started}
		})
		if err != nil {
			return cluster.Lease{}, err
		}
		if won {
			return l, nil
		}
	}
}

// void makes sure that the session which holds a stream is void. When its holder did something meanwhile the
// claim must look again; when it lives, the error is an InUse.
func (r *Registry) void(ctx context.Context, s cluster.Stream) (again bool, err error) {
	var holder cluster.Node
	var now time.Time
	if err := r.step(ctx, func() { holder, now = r.store.nodes[s.Origin], r.store.now() }); err != nil {
		return false, err
	}
	if holder.Session != s.Session || holder.Fenced {
		return false, nil
	}
	if until := holder.LastHeartbeat.Add(cluster.SessionTTL); until.After(now) {
		return false, &cluster.InUse{Key: s.Key, Origin: s.Origin, Until: until}
	}
	fenced := false
	err = r.step(ctx, func() {
		n := r.store.nodes[s.Origin]
		if fenced = n.Session == holder.Session && n.LastHeartbeat.Equal(holder.LastHeartbeat) && !n.Fenced; fenced {
			n.Fenced = true
			r.store.nodes[n.ID] = n
		}
	})
	return !fenced, err
}

// Resume implements cluster.Registry.
func (r *Registry) Resume(ctx context.Context, l cluster.Lease, session int64) (cluster.Lease, error) {
	next := l
	next.Session, next.Epoch = session, l.Epoch+1
	if err := cluster.CheckClaim(next); err != nil {
		return cluster.Lease{}, err
	}
	r.call("Resume")
	resumed := true
	err := r.step(ctx, func() {
		at := slot{l.Key, l.Backup}
		switch s := r.store.streams[at]; {
		case s.Epoch < l.Epoch: // or not there
			r.store.changed[at] = r.store.now()
			r.store.streams[at] = cluster.Stream{Key: l.Key, Backup: l.Backup, State: cluster.Broadcasting, Origin: l.Node,
				Session: next.Session, Epoch: next.Epoch, Started: r.store.now()}
		case s.State != cluster.Finished && s.Origin == l.Node &&
			(s.Session == l.Session && s.Epoch == l.Epoch || s.Session == next.Session && s.Epoch == next.Epoch):
			s.Session, s.Epoch = next.Session, next.Epoch
			r.store.changed[at] = r.store.now()
			r.store.streams[at] = s
		default:
			resumed = false
		}
	})
	switch {
	case err != nil:
		return cluster.Lease{}, err
	case !resumed:
		return cluster.Lease{}, fmt.Errorf("resume stream %q, epoch %d: %w", l.Key, l.Epoch, cluster.ErrLeaseLost)
	}
	return next, nil
}

// Report implements cluster.Registry.
func (r *Registry) Report(ctx context.Context, l cluster.Lease, info cluster.StreamInfo) error {
	if err := cluster.CheckReport(l, info); err != nil {
		return err
	}
	return r.change(ctx, "Report", l, func(s *cluster.Stream) bool {
		s.State, s.Codecs = info.State, slices.Clone(info.Codecs)
		return s.Session == l.Session && s.Epoch == l.Epoch
	})
}

// Release implements cluster.Registry.
func (r *Registry) Release(ctx context.Context, l cluster.Lease) error {
	return r.change(ctx, "Release", l, func(s *cluster.Stream) bool {
		s.State = cluster.Finished
		return s.Session == l.Session && s.Epoch == l.Epoch
	})
}

// change edits a stream if the node holds it and edit, which gets a copy, says that the lease is the one.
func (r *Registry) change(ctx context.Context, method string, l cluster.Lease, edit func(*cluster.Stream) bool) error {
	r.call(method)
	held := false
	err := r.step(ctx, func() {
		at := slot{l.Key, l.Backup}
		s := r.store.streams[at]
		if held = s.State != "" && s.State != cluster.Finished && s.Origin == l.Node && edit(&s); held {
			r.store.changed[at] = r.store.now()
			r.store.streams[at] = s
		}
	})
	if err == nil && !held {
		return fmt.Errorf("stream %q, epoch %d: %w", l.Key, l.Epoch, cluster.ErrLeaseLost)
	}
	return err
}

// Lookup implements cluster.Registry.
func (r *Registry) Lookup(ctx context.Context, keys ...media.Key) (list []cluster.Stream, err error) {
	r.call("Lookup")
	err = r.step(ctx, func() {
		asked := map[media.Key]bool{}
		for _, key := range keys {
			if asked[key] {
				continue
			}
			asked[key] = true
			for _, backup := range []bool{false, true} {
				if s, ok := r.store.streams[slot{key, backup}]; ok {
					s.Codecs = slices.Clone(s.Codecs)
					list = append(list, s)
				}
			}
		}
	})
	return list, err
}

// Streams implements cluster.Registry.
func (r *Registry) Streams(ctx context.Context) (list []cluster.Stream, err error) {
	r.call("Streams")
	err = r.step(ctx, func() {
		for _, s := range r.store.streams {
			if s.State != cluster.Finished {
				s.Codecs = slices.Clone(s.Codecs)
				list = append(list, s)
			}
		}
	})
	slices.SortFunc(list, func(a, b cluster.Stream) int {
		order := cmp.Compare(a.Key.String(), b.Key.String())
		if order == 0 && a.Backup != b.Backup {
			order = 1
			if b.Backup {
				order = -1
			}
		}
		return order
	})
	return list, err
}

// Now implements cluster.Registry.
func (r *Registry) Now() time.Time { return r.store.now() }

// Close implements cluster.Registry; the store and its other registries stay.
func (r *Registry) Close() error {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	r.closed = true
	return nil
}
