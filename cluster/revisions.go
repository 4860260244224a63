package cluster

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// Revisions is what a registry has learnt of notices, for Documents.Revision.
type Revisions struct {
	mu    sync.Mutex
	seen  map[string]int64 // of each kind, as the store has it: any other value is news
	count map[string]int64
	joins int64
}

// Learn takes the revisions that a heartbeat has brought.
func (r *Revisions) Learn(now map[string]int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen, r.count = map[string]int64{}, map[string]int64{}
	}
	for kind, n := range now {
		if r.seen[kind] != n {
			r.seen[kind] = n
			r.count[kind]++
		}
	}
}

// Noticed counts notices of this process itself.
func (r *Revisions) Noticed(kinds []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count == nil {
		r.seen, r.count = map[string]int64{}, map[string]int64{}
	}
	for _, kind := range kinds {
		r.count[kind]++
	}
}

// Joined: the node's row is new, notices may have been missed.
func (r *Revisions) Joined() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.joins++
}

// Of is Documents.Revision.
func (r *Revisions) Of(kind string) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.joins + r.count[kind]
}

const (
	watchStep = 100 * time.Millisecond // between two looks at the revisions, which cost nothing
	// watchAnyway is how old gets what a node knows of documents when a notice was lost, as when its writer died before it.
	watchAnyway = time.Minute
	watchAgain  = time.Second // after an error
	watchWithin = 5 * time.Second
	sweepEvery  = 10 * time.Minute
)

// Watch keeps what a node knows of documents up to date: it calls those who read a kind when documents of that kind have changed.
// While the registry is away they keep what they know.
type Watch struct {
	docs Documents
	log  *slog.Logger

	mu   sync.Mutex
	read map[string][]*reader
}

type reader struct {
	kind  string
	fn    func(context.Context) error
	seen  int64
	after time.Time // due then at the latest
}

// NewWatch does no I/O.
func NewWatch(docs Documents, log *slog.Logger) *Watch {
	return &Watch{docs: docs, log: log, read: map[string][]*reader{}}
}

// On has fn called by Run: at its start, within two seconds after a Notify of the kind, and once a minute. After an error it is called
// again. fn is called by one goroutine, together with all others: it reads what it must and returns.
func (w *Watch) On(kind string, fn func(context.Context) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.read[kind] = append(w.read[kind], &reader{kind: kind, fn: fn, seen: -1})
}

// Run watches until ctx ends, and returns nil.
func (w *Watch) Run(ctx context.Context) error {
	out := outage{log: w.log, doing: "read documents"}
	defer out.end()
	tick := time.NewTicker(watchStep)
	defer tick.Stop()
	sweep := time.Now().Add(rand.N(sweepEvery)) // not all nodes at once
	for {
		for _, r := range w.due() {
			err := w.call(ctx, r)
			if ctx.Err() == nil {
				out.note(err)
			}
		}
		if now := time.Now(); now.After(sweep) {
			sweep = now.Add(sweepEvery)
			call, cancel := context.WithTimeout(ctx, watchWithin)
			_, _ = w.docs.Sweep(call) // the next does it
			cancel()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// due are the readers to call.
func (w *Watch) due() (list []*reader) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for kind, readers := range w.read {
		revision := w.docs.Revision(kind)
		for _, r := range readers {
			if failed := r.seen == -1 && now.Before(r.after); !failed && (r.seen != revision || now.After(r.after)) {
				list = append(list, r)
			}
		}
	}
	return list
}

func (w *Watch) call(ctx context.Context, r *reader) error {
	revision := w.docs.Revision(r.kind) // before the read: what comes during it is read again
	ctx, cancel := context.WithTimeout(ctx, watchWithin)
	defer cancel()
	err := r.fn(ctx)
	if err != nil {
		r.seen, r.after = -1, time.Now().Add(watchAgain)
		return err
	}
	r.seen, r.after = revision, time.Now().Add(watchAnyway-rand.N(watchAnyway/4))
	return nil
}
