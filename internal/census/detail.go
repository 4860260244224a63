package census

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"sluice/cluster"
	"sluice/media"
)

// Paths of what nodes answer each other. No application is called so.
const (
	Prefix      = "/.node/"
	StreamsPath = Prefix + "streams" // GET: []Detail of the streams that are published there
	ViewersPath = Prefix + "viewers" // GET ?stream=APP/ID: []Viewer
	StopPath    = Prefix + "stop"    // POST ?stream=APP/ID&backup=0: ends its publisher
)

const (
	askWithin = time.Second
	askAtOnce = 16 // nodes
)

// Detail is what a stream's own node knows of it.
type Detail struct {
	Stream  media.Key
	Started time.Time
	Bytes   uint64 // of payload, received
	Bitrate int    // of all tracks that come, bit/s
	Tracks  []Track
}

// Track is one of its tracks.
type Track struct {
	Kind        string // video, audio
	Codec       string
	Rendition   string // "": as it is published
	Width       int    `json:",omitempty"`
	Height      int    `json:",omitempty"`
	Bitrate     int    // bit/s
	KeyDistance time.Duration
	Made        bool // by the ladder: it was not sent by the publisher
}

// Viewer is somebody who watches a stream at a node.
type Viewer struct {
	Node      string
	ID        string
	Remote    string
	Since     time.Time
	Path      int // what his path takes by the last estimate, bit/s; 0: not known
	Video     int // what he gets, bit/s
	Rendition string
	Lost      float64
	Jitter    time.Duration
	RoundTrip time.Duration
	Again     uint64
}

// told is what a node said last. ready is closed when it is there.
type told struct {
	at      time.Time
	ready   chan struct{}
	details map[media.Key]Detail
}

// Details are what the nodes know of some streams. Those whose nodes don't answer are not there. Each node is asked once a second at most.
func (c *Cluster) Details(ctx context.Context, s *Snapshot, keys ...media.Key) map[media.Key]Detail {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	asked := map[string]*told{}
	for _, key := range keys {
		one := s.Streams[key]
		if one == nil || asked[one.Origin] != nil {
			continue
		}
		if n, ok := s.View.Node(one.Origin); ok {
			asked[n.ID] = c.tell(ctx, n)
		}
	}
	all := map[media.Key]Detail{}
	for _, key := range keys {
		one := s.Streams[key]
		if one == nil || asked[one.Origin] == nil {
			continue
		}
		t := asked[one.Origin]
		select {
		case <-t.ready:
			if d, ok := t.details[key]; ok {
				all[key] = d
			}
		case <-ctx.Done():
		}
	}
	return all
}

// tell asks a node, if nobody has a moment ago.
func (c *Cluster) tell(ctx context.Context, n cluster.Node) *told {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.details[n.ID]; t != nil && time.Since(t.at) < fresh {
		return t
	}
	for id, t := range c.details {
		if time.Since(t.at) > usable {
			delete(c.details, id)
		}
	}
	t := &told{at: time.Now(), ready: make(chan struct{})}
	c.details[n.ID] = t
	go func() { // ends by itself within askWithin; others wait for it too
		defer close(t.ready)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askWithin)
		defer cancel()
		var list []Detail
		if c.ask(ctx, n, http.MethodGet, StreamsPath, &list) != nil {
			return // its streams have no details
		}
		t.details = make(map[media.Key]Detail, len(list))
		for _, d := range list {
			t.details[d.Stream] = d
		}
	}()
	return t
}

// Viewers are those of a stream on all nodes, and how many nodes did not answer.
func (c *Cluster) Viewers(ctx context.Context, s *Snapshot, key media.Key) (all []Viewer, silent int) {
	one := s.Streams[key]
	if one == nil {
		return nil, 0
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	turn := make(chan struct{}, askAtOnce)
	for _, id := range one.Nodes {
		n, ok := s.View.Node(id)
		if !ok {
			continue
		}
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			var list []Viewer
			err := c.ask(ctx, n, http.MethodGet, ViewersPath+"?stream="+url.QueryEscape(key.String()), &list)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent++
			}
			for _, v := range list {
				v.Node = id
				all = append(all, v)
			}
		})
	}
	wg.Wait()
	slices.SortFunc(all, func(a, b Viewer) int { return a.Since.Compare(b.Since) })
	return all, silent
}

// Stop ends a stream's publisher, and that of its backup, wherever they are. It reports false when there is none.
func (c *Cluster) Stop(ctx context.Context, key media.Key) (bool, error) {
	c.Forget()
	s, err := c.Now(ctx)
	if err != nil {
		return false, err
	}
	one := s.Streams[key]
	if one == nil {
		return false, nil
	}
	defer c.Forget()
	path := StopPath + "?stream=" + url.QueryEscape(key.String())
	if n, ok := s.View.Node(one.Backup); ok { // first, lest edges change over to it
		if err := c.ask(ctx, n, http.MethodPost, path+"&backup=1", nil); err != nil {
			return false, err
		}
	}
	n, _ := s.View.Node(one.Origin) // the snapshot has judged the stream by it
	return true, c.ask(ctx, n, http.MethodPost, path, nil)
}
