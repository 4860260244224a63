// Package census tells what a cluster does at this moment: its nodes, and the streams with their viewers on all of them. The registry has that; what
// only a stream's own node knows is asked of it by HTTP. It is read when somebody asks, and at most once a second.
//
// Imports: cluster, media, relay.
package census

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/cluster"
	"sluice/media"
)

// ErrUnavailable: the registry can't be reached, and what was known is old.
var ErrUnavailable = errors.New("the registry can't be reached")

const (
	fresh  = time.Second      // what is younger is told again
	usable = 10 * time.Second // and, while the registry is away, what is younger than this
	within = 3 * time.Second
)

// Stream is a stream that somebody publishes, or has published a moment ago.
type Stream struct {
	cluster.Stream          // State is the true one; never Finished
	Viewers        int      // in the whole cluster
	Nodes          []string // that serve it, sorted; the origin too, if it lives
	Backup         string   // the node that has its backup publisher; "": none
}

// Snapshot is the cluster at one moment. It is shared: nobody may change it.
type Snapshot struct {
	View    cluster.View
	Streams map[media.Key]*Stream
	apps    map[string][]*Stream
}

// App is an application's streams, sorted by name.
func (s *Snapshot) App(name string) []*Stream { return s.apps[name] }

// Live is how many of an application's streams flow.
func (s *Snapshot) Live(app string) (n int) {
	for _, stream := range s.apps[app] {
		if stream.State == cluster.Broadcasting {
			n++
		}
	}
	return n
}

// rows is what a registry is asked for.
type rows interface {
	Nodes(ctx context.Context) ([]cluster.Node, error)
	Streams(ctx context.Context) ([]cluster.Stream, error)
	Now() time.Time
}

// Cluster reads it. All methods may be called from any goroutine.
type Cluster struct {
	reg rows
	ask func(ctx context.Context, to cluster.Node, method, path string, out any) error

	last    atomic.Pointer[taken]
	taking  chan struct{} // has a place for one who reads the registry
	mu      sync.Mutex
	details map[string]*told // by node
}

type taken struct {
	*Snapshot
	at time.Time // the reading began, by the local clock
}

// New does no I/O. ask asks a node (Caller.Ask).
func New(reg rows, ask func(ctx context.Context, to cluster.Node, method, path string, out any) error) *Cluster {
	return &Cluster{reg: reg, ask: ask, taking: make(chan struct{}, 1), details: map[string]*told{}}
}

// Now is the cluster at most a second ago. However many ask, one reads.
func (c *Cluster) Now(ctx context.Context) (*Snapshot, error) {
	if t := c.last.Load(); t != nil && time.Since(t.at) < fresh {
		return t.Snapshot, nil
	}
	select {
	case c.taking <- struct{}{}:
		defer func() { <-c.taking }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
	t := c.last.Load()
	if t != nil && time.Since(t.at) < fresh {
		return t.Snapshot, nil // somebody else has read it
	}
	at := time.Now()
	s, err := c.read(ctx)
	if err == nil {
		c.last.Store(&taken{s, at})
		return s, nil
	}
	if t != nil && time.Since(t.at) < usable {
		return t.Snapshot, nil
	}
	return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// Forget has the next Now read again: after something was changed.
func (c *Cluster) Forget() { c.last.Store(nil) }

func (c *Cluster) read(ctx context.Context) (*Snapshot, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within) // others wait for it
	defer cancel()
	streams, err := c.reg.Streams(ctx)
	if err != nil {
		return nil, err
	}
	nodes, err := c.reg.Nodes(ctx) // after the streams: who holds one has joined before
	if err != nil {
		return nil, err
	}
	return snapshot(cluster.View{Nodes: nodes, At: c.reg.Now()}, streams), nil
}

func snapshot(view cluster.View, rows []cluster.Stream) *Snapshot {
	s := &Snapshot{View: view, Streams: make(map[media.Key]*Stream, len(rows)), apps: map[string][]*Stream{}}
	for _, row := range rows { // ordered by key, backups after mains
		if row.State = view.State(row); row.State == cluster.Finished {
			continue
		}
		if row.Backup {
			if main := s.Streams[row.Key]; main != nil {
				main.Backup = row.Origin
			}
			continue
		}
		one := &Stream{Stream: row}
		s.Streams[row.Key] = one
		s.apps[row.Key.App] = append(s.apps[row.Key.App], one)
	}
	for _, list := range s.apps {
		slices.SortFunc(list, func(a, b *Stream) int { return cmp.Compare(a.Key.ID, b.Key.ID) })
	}
	for _, n := range view.Nodes { // ordered by id
		if !n.Alive(view.At) {
			continue
		}
		for _, serving := range n.Serving {
			if one := s.Streams[serving.Stream]; one != nil {
				one.Viewers += serving.Viewers
				one.Nodes = append(one.Nodes, n.ID)
			}
		}
	}
	return s
}
