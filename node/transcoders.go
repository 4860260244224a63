package node

import (
	"cmp"
	"sync"
	"time"

	"sluice/cluster"
	inrelay "sluice/ingest/relay"
	"sluice/media"
	"sluice/stream"
)

const (
	// shunFor is for how long a transcoder is passed over that was lost, or that gave nothing.
	shunFor = 10 * time.Second
	// askedAgain: who is asked for again so soon has given nothing.
	askedAgain = time.Second
	// A stream that was given to a transcoder counts until its load shows it, as so much of the node.
	shows  = cluster.LoadOver + 2*time.Second
	weighs = 0.2
)

// transcoders chooses who makes renditions for this node.
type transcoders struct {
	view func() cluster.View

	mu     sync.Mutex
	chosen map[media.Key]*choice // by the name of the renditions
}

// choice is who makes a stream's renditions, and who shall not.
type choice struct {
	node    string
	since   time.Time            // it was chosen
	asked   time.Time            // last
	shunned map[string]time.Time // until
}

// choose returns where to get renditions: from who makes them already, else from the transcoder that has the least to do.
func (t *transcoders) choose(key media.Key, now time.Time) (inrelay.Source, error) {
	view := t.view()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgetLocked(now)
	c := t.chosen[key]
	if c == nil {
		c = &choice{shunned: map[string]time.Time{}}
		t.chosen[key] = c
	}
	if now.Sub(c.asked) < askedAgain && c.node != "" {
		c.shunned[c.node] = now.Add(shunFor)
	}
	c.asked = now
	recent := map[string]float64{}
	for k, o := range t.chosen {
		if k != key && now.Sub(o.since) < shows {
			recent[o.node] += weighs
		}
	}
	rank := func(n cluster.Node) float64 { // less is better
		r := n.Load + recent[n.ID]
		switch {
		case n.ID == c.node:
			r = -1
		case n.Full != "":
			r += 10
		}
		if now.Before(c.shunned[n.ID]) {
			r += 100
		}
		return r
	}
	var best *cluster.Node
	for _, n := range view.Alive() {
		if n.Role == cluster.Transcoder && n.State == cluster.Ready && (best == nil || cmp.Compare(rank(n), rank(*best)) < 0) {
			best = &n
		}
	}
	if best == nil {
		return inrelay.Source{}, stream.ErrOffline
	}
	if best.ID != c.node {
		c.node, c.since = best.ID, now
	}
	return inrelay.Source{Addr: best.Relay, Key: best.RelayKey, Node: best.ID, Epoch: 1}, nil
}

// suspect passes over who makes a stream's renditions at present.
func (t *transcoders) suspect(key media.Key, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.chosen[key]; c != nil && c.node != "" {
		c.shunned[c.node] = now.Add(shunFor)
	}
}

// remembered is for how long a choice is kept that nobody has asked for.
const remembered = time.Hour

func (t *transcoders) forgetLocked(now time.Time) {
	for k, c := range t.chosen {
		if now.Sub(c.asked) > remembered {
			delete(t.chosen, k)
		}
	}
}
