package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"sluice/media"
)

const (
	// RefreshEvery is how old the view of the nodes gets at a gateway, which places clients by it.
	RefreshEvery = 500 * time.Millisecond
	// NodeRefreshEvery is the same at a node, which needs its own Order and who can hold streams: of these it reads Peers.
	NodeRefreshEvery = 3 * time.Second
	// PeersRefreshEvery is how often a node reads the edges too, whose relay keys it knows. One that is new is looked for at once.
	PeersRefreshEvery = time.Minute
	// Nodes that are missing are looked for at once, but not more often than this.
	nodesAtMost = 300 * time.Millisecond
	// A query that takes longer counts as failed.
	refreshWithin = time.Second
	lookupWithin  = 2 * time.Second
	// LookupPause is the least time between the starts of two queries of look-ups: however many ask.
	LookupPause = 50 * time.Millisecond
	// feedAgain is the pause before a feed of changes that broke is opened again.
	feedAgain = time.Second
)

// Directory is the view that gateways and nodes have of the registry. It asks for what is needed, as often as it is: streams that
// flow every 2 s, streams that somebody waits for up to ten times a second, all in one query however many viewers wait;
// and look-ups of single streams share queries. A Notifier makes it faster, nothing else. States of streams are what View.State
// says. Everything but Run may be called from any goroutine.
//
// Locks: reading before mu.
type Directory struct {
	reg   Registry
	self  string        // the node whose directory it is; "": a gateway's
	every time.Duration // of nodes
	log   *slog.Logger
	out   outage // refresh's

	ask     chan struct{} // look-ups are waiting
	wake    chan struct{} // something is due at once
	stopped chan struct{} // Run has ended

	reading sync.Mutex // one reads the nodes, others wait for him; it holds the next four
	readAt  time.Time  // when the last successful read began, by the local clock
	allAt   time.Time  // and the last that was of all nodes
	failed  bool       // the last attempt, or those before it since the last success
	settled time.Time  // until then the view's clock stands still

	mu      sync.Mutex
	view    View
	watched map[media.Key]*watched
	hurry   bool   // the nodes are due at once
	next    *batch // look-ups that go out with the next query
	counts  map[media.Key]counted

	counting  chan struct{} // has a place for one who counts; he holds countedAt
	countedAt time.Time
}

// batch is one query for several look-ups.
type batch struct {
	keys map[media.Key]struct{}
	done chan struct{} // closed when found or err is there
	// written before done is closed
	found map[slot]Stream
	err   error
}

// NewDirectory does no I/O. It is that of a node, self, which wants of others what Peers returns; or of a gateway, "", which
// places clients by all that rows say.
func NewDirectory(reg Registry, self string, log *slog.Logger) *Directory {
	every := RefreshEvery
	if self != "" {
		every = NodeRefreshEvery
	}
	return &Directory{reg: reg, self: self, every: every, log: log, out: outage{log: log, doing: "refresh the view of the cluster"},
		ask: make(chan struct{}, 1), wake: make(chan struct{}, 1), stopped: make(chan struct{}), watched: map[media.Key]*watched{}, counts: map[media.Key]counted{}, counting: make(chan struct{}, 1)}
}

// Run refreshes until ctx ends. It returns nil, and may be called once.
func (d *Directory) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { d.answerLookups(ctx) })
	wg.Go(func() { d.follow(ctx) })
	defer func() {
		wg.Wait()
		close(d.stopped)
		d.out.end()
	}()
	begin := time.Now()
	tick := time.NewTicker(PollStep)
	defer tick.Stop()
	var nodesDue time.Time
	for {
		now := time.Now()
		nodes := !now.Before(nodesDue)
		if nodes {
			nodesDue = next(begin, now, d.every)
		}
		if asked, err := d.refresh(ctx, begin, nodes); asked && ctx.Err() == nil {
			d.out.note(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-d.wake:
		}
	}
}

// View returns the nodes as last read, and the time by which to judge them.
func (d *Directory) View() View {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.view
}

// Age is how old the view is, by the registry's clock; false: there is none yet.
func (d *Directory) Age() (age time.Duration, ok bool) {
	v := d.View()
	return max(d.reg.Now().Sub(v.At), 0), !v.At.IsZero()
}

// Nodes returns the nodes as last read, dead ones included. At a node, edges may be as they were PeersRefreshEvery ago.
func (d *Directory) Nodes() []Node { return d.View().Nodes }

// Refresh reads the nodes again, for who misses one: after it the view has every node that had joined before. Calls share
// reads, and wait for 0.3 s from one to the next, so that no stranger can make them cost more.
func (d *Directory) Refresh(ctx context.Context) error { return d.readNodes(ctx, nodesAtMost, true) }

// Stream returns a watched stream as last read; false when it is unknown or nobody watches it.
func (d *Directory) Stream(key media.Key) (Stream, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.watched[key]
	if w == nil || w.rows[0].Epoch == 0 {
		return Stream{}, false
	}
	return d.trueLocked(w.rows[0]), true
}

// trueLocked says what is true of a row.
func (d *Directory) trueLocked(s Stream) Stream {
	s.State = d.view.State(s)
	return s
}

// Lookup asks the registry for one stream, now. Calls that come while a query is under
// way share the next one, so there is never more than one. Of a stream that is watched and known to be
// offline the answer is that of the last poll: so viewers who ask again and again cost nothing. A stream that was never
// published reads as Finished with epoch 0. Run must be running.
func (d *Directory) Lookup(ctx context.Context, key media.Key) (Stream, error) {
	main, _, err := d.LookupBoth(ctx, key)
	return main, err
}

// LookupBoth returns the stream's backup too.
func (d *Directory) LookupBoth(ctx context.Context, key media.Key) (main, backup Stream, err error) {
	d.mu.Lock()
	if w := d.watched[key]; w != nil && w.offline(time.Now()) {
		main, backup = d.trueLocked(w.rows[0]), d.trueLocked(w.rows[1])
		d.mu.Unlock()
		main.Key, backup.Key, backup.Backup = key, key, true
		return main, backup, nil
	}
	if d.next == nil {
		d.next = &batch{keys: map[media.Key]struct{}{}, done: make(chan struct{})}
	}
	b := d.next
	b.keys[key] = struct{}{}
	d.mu.Unlock()
	poke(d.ask)
	select {
	case <-b.done:
		err = b.err
	case <-ctx.Done():
		err = ctx.Err()
	case <-d.stopped:
		err = ErrStopped
	}
	if err != nil {
		return main, backup, fmt.Errorf("look up stream %q: %w", key, err)
	}
	answer := func(at slot) Stream {
		if s, ok := b.found[at]; ok {
			return s
		}
		return Stream{Key: key, Backup: at.backup, State: Finished}
	}
	return answer(slot{key, false}), answer(slot{key, true}), nil
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
		pause := time.After(LookupPause)
		b.found, b.err = d.lookup(ctx, keys(b.keys))
		close(b.done)
		select {
		case <-ctx.Done():
			return
		case <-pause:
		}
	}
}

// lookup queries streams, and the nodes that hold them if they are new.
func (d *Directory) lookup(ctx context.Context, of []media.Key) (map[slot]Stream, error) {
	found, err := d.query(ctx, of, lookupWithin)
	if err != nil {
		return nil, err
	}
	view := d.View()
	for _, s := range found {
		if s.State != Finished && !view.knows(s) { // it joined before it claimed, so it is there to be read
			if err := d.readNodes(ctx, nodesAtMost, false); err != nil {
				return nil, err
			}
			break
		}
	}
	view = d.View()
	for at, s := range found {
		s.State = view.State(s)
		found[at] = s
	}
	return found, nil
}

func (d *Directory) query(ctx context.Context, of []media.Key, within time.Duration) (map[slot]Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	list, err := d.reg.Lookup(ctx, of...)
	if err != nil {
		return nil, err
	}
	found := make(map[slot]Stream, len(list))
	for _, s := range list {
		found[slot{s.Key, s.Backup}] = s
	}
	return found, nil
}

// readNodes replaces the view of the nodes by one that is younger than the call; on an error the last view stays. It lets
// that much time pass after the last read. Of a node's view, edges are younger only if all is asked for.
func (d *Directory) readNodes(ctx context.Context, pause time.Duration, all bool) error {
	called := time.Now()
	d.reading.Lock()
	defer d.reading.Unlock()
	if d.readAt.After(called) && (!all || d.allAt.After(called)) {
		return nil // another call has read it
	}
	if wait := pause - time.Since(d.readAt); wait > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
	ctx, cancel := context.WithTimeout(ctx, refreshWithin)
	defer cancel()
	now := time.Now()
	all = all || d.self == "" || now.Sub(d.allAt) >= PeersRefreshEvery
	nodes, err := d.rows(ctx, all)
	if err != nil {
		d.failed = true
		return err
	}
	// When the registry was away, or this process, rows are as old as that for as long as the nodes need to write them again.
	if !d.readAt.IsZero() && (d.failed || now.Sub(d.readAt) > refreshWithin+2*d.every) {
		d.settled = now.Add(2*HeartbeatEvery + nodesAtMost)
	}
	d.readAt, d.failed = now, false
	if all {
		d.allAt = now
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.view.Nodes = nodes
	if now.After(d.settled) {
		d.view.At = d.reg.Now()
	}
	return nil
}

// rows reads the nodes. Those that are not asked for stay as they are.
func (d *Directory) rows(ctx context.Context, all bool) ([]Node, error) {
	switch {
	case d.self == "":
		return d.reg.Nodes(ctx)
	case all:
		return d.reg.Peers(ctx, "")
	}
	list, err := d.reg.Peers(ctx, d.self)
	if err != nil {
		return nil, err
	}
	read := View{Nodes: list}
	for _, n := range d.Nodes() {
		if _, ok := read.Node(n.ID); !ok && n.Role == Edge && n.ID != d.self {
			list = append(list, n)
		}
	}
	slices.SortFunc(list, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// follow has the registry tell of changes, where it can.
func (d *Directory) follow(ctx context.Context) {
	feed, ok := d.reg.(Notifier)
	for ok && ctx.Err() == nil {
		if err := feed.Changes(ctx, d.changed); errors.Is(err, errors.ErrUnsupported) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(feedAgain):
		}
	}
}

func keys[V any](m map[media.Key]V) []media.Key {
	list := make([]media.Key, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	return list
}
