package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sluice/media"
)

const (
	// RefreshEvery is how old a Directory's view gets.
	RefreshEvery = 300 * time.Millisecond
	// A query that takes longer counts as failed.
	refreshWithin = time.Second
	lookupWithin  = 2 * time.Second
	// When the registry was away for longer than outageAfter, its rows are as old
	// as the outage for as long as the nodes need to write them again.
	outageAfter = refreshWithin + 2*RefreshEvery
	settleFor   = 2*HeartbeatEvery + RefreshEvery
)

// View is what the registry said at one moment. It is shared: nobody may change it.
type View struct {
	Nodes []Node // dead ones included, ordered by ID
	// At is the time by which heartbeats are judged (Node.Alive). It stands still while the registry is
	// away, and until the nodes have had time to come back after that: an outage kills nobody.
	// Zero: nothing was read yet.
	At time.Time
}

// Alive returns the nodes that live.
func (v View) Alive() []Node {
	var alive []Node
	for _, n := range v.Nodes {
		if n.Alive(v.At) {
			alive = append(alive, n)
		}
	}
	return alive
}

// Directory is the view that gateways and edges have of the registry. Each refresh
// costs two queries (nodes; all watched streams) however many viewers wait, and
// look-ups of single streams share queries. Everything but Run may be called from any goroutine.
type Directory struct {
	reg Registry
	out outage // refresh's

	ask     chan struct{} // look-ups are waiting
	stopped chan struct{} // Run has ended

	mu      sync.Mutex
	view    View
	streams map[media.Key]Stream // watched ones, as last read
	watched map[media.Key]map[*watcher]struct{}
	next    *batch // look-ups that go out with the next query

	// These belong to refresh.
	lastRead time.Time
	settled  time.Time // until then the view's clock stands still
}

// watcher is one Watch.
type watcher struct {
	fn    func(Stream)
	epoch int64 // for which fn was called
}

// batch is one query for several look-ups.
type batch struct {
	keys map[media.Key]struct{}
	done chan struct{} // closed when found or err is there
	// written before done is closed
	found map[media.Key]Stream
	err   error
}

// NewDirectory does no I/O.
func NewDirectory(reg Registry, log *slog.Logger) *Directory {
	return &Directory{reg: reg, out: outage{log: log, doing: "refresh the view of the cluster"},
		ask: make(chan struct{}, 1), stopped: make(chan struct{}),
		streams: map[media.Key]Stream{}, watched: map[media.Key]map[*watcher]struct{}{}}
}

// Run refreshes until ctx ends. It returns nil, and may be called once.
func (d *Directory) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { d.answerLookups(ctx) })
	defer func() {
		wg.Wait()
		close(d.stopped)
		d.out.end()
	}()
	tick := time.NewTicker(RefreshEvery)
	defer tick.Stop()
	for {
		if err := d.refresh(ctx); ctx.Err() == nil {
			d.out.note(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// View returns the nodes as last read, and the time by which to judge them.
func (d *Directory) View() View {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.view
}

// Nodes returns the nodes as last read, dead ones included.
func (d *Directory) Nodes() []Node { return d.View().Nodes }

// Stream returns a watched stream as last read; false when it is unknown or nobody watches it.
func (d *Directory) Stream(key media.Key) (Stream, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.streams[key]
	return s, ok
}

// Watch calls fn within a refresh when the stream is Broadcasting, now or later, and again for each new epoch: that
// is how an edge learns that a stream has moved to another origin. fn is called from
// Run's goroutine and must not block. A call that has begun may still be running when cancel returns.
func (d *Directory) Watch(key media.Key, fn func(Stream)) (cancel func()) {
	w := &watcher{fn: fn}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.watched[key] == nil {
		d.watched[key] = map[*watcher]struct{}{}
	}
	d.watched[key][w] = struct{}{}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.watched[key], w)
		if len(d.watched[key]) == 0 {
			delete(d.watched, key)
			delete(d.streams, key)
		}
	}
}

// Lookup asks the registry for one stream, now. Calls that come while a query is under
// way share the next one, so there is never more than one. A stream that was never
// published reads as Finished with epoch 0. Run must be running.
func (d *Directory) Lookup(ctx context.Context, key media.Key) (Stream, error) {
	d.mu.Lock()
	if d.next == nil {
		d.next = &batch{keys: map[media.Key]struct{}{}, done: make(chan struct{})}
	}
	b := d.next
	b.keys[key] = struct{}{}
	d.mu.Unlock()
	select {
	case d.ask <- struct{}{}:
	default:
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		return Stream{}, fmt.Errorf("look up stream %q: %w", key, ctx.Err())
	case <-d.stopped:
		return Stream{}, fmt.Errorf("look up stream %q: %w", key, ErrStopped)
	}
	if b.err != nil {
		return Stream{}, fmt.Errorf("look up stream %q: %w", key, b.err)
	}
	if s, ok := b.found[key]; ok {
		return s, nil
	}
	return Stream{Key: key, State: Finished}, nil
}

// answerLookups sends one batch after the other.
func (d *Directory) answerLookups(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.ask:
		}
		d.mu.Lock()
		b := d.next
		d.next = nil
		d.mu.Unlock()
		if b == nil { // its question went out with the batch before
			continue
		}
		b.found, b.err = d.query(ctx, keys(b.keys), lookupWithin)
		close(b.done)
	}
}

func (d *Directory) query(ctx context.Context, of []media.Key, within time.Duration) (map[media.Key]Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	list, err := d.reg.Lookup(ctx, of...)
	if err != nil {
		return nil, err
	}
	found := make(map[media.Key]Stream, len(list))
	for _, s := range list {
		found[s.Key] = s
	}
	return found, nil
}

// refresh reads nodes and watched streams; on an error the last view stays.
func (d *Directory) refresh(run context.Context) error {
	ctx, cancel := context.WithTimeout(run, refreshWithin)
	defer cancel()
	nodes, err := d.reg.Nodes(ctx)
	if err != nil {
		return err
	}
	d.show(nodes, time.Now())

	d.mu.Lock()
	wanted := keys(d.watched)
	d.mu.Unlock()
	if len(wanted) == 0 {
		return nil
	}
	found, err := d.query(ctx, wanted, refreshWithin)
	if err != nil {
		return err
	}
	for _, call := range d.learn(wanted, found) {
		call()
	}
	return nil
}

// show replaces the view of the nodes.
func (d *Directory) show(nodes []Node, now time.Time) {
	if !d.lastRead.IsZero() && now.Sub(d.lastRead) > outageAfter {
		d.settled = now.Add(settleFor)
	}
	d.lastRead = now
	d.mu.Lock()
	defer d.mu.Unlock()
	d.view.Nodes = nodes
	if now.After(d.settled) {
		d.view.At = now
	}
}

// learn takes what a query found and returns the calls to make, without the lock.
func (d *Directory) learn(asked []media.Key, found map[media.Key]Stream) (calls []func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, key := range asked {
		watchers := d.watched[key]
		if len(watchers) == 0 { // cancelled meanwhile
			continue
		}
		s, ok := found[key]
		if !ok {
			delete(d.streams, key)
			continue
		}
		d.streams[key] = s
		if s.State != Broadcasting {
			continue
		}
		for w := range watchers {
			if w.epoch != s.Epoch {
				w.epoch = s.Epoch
				calls = append(calls, func() { w.fn(s) })
			}
		}
	}
	return calls
}

func keys[V any](m map[media.Key]V) []media.Key {
	list := make([]media.Key, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	return list
}
