package simulate

import (
	"time"

	"sluice/cluster"
)

// lookout is a node's Directory: how often it asks the registry, and for what.
type lookout struct {
	n    *node
	view cluster.View  // of those who can hold streams
	all  time.Duration // when those of edges are due again

	batch   []func()      // look-ups that go out together
	batched time.Duration // when the last ones did
	wanted  []*feed       // looked for
	ticking bool
}

func (l *lookout) start() {
	w := l.n.w
	w.after(w.spread(cluster.NodeRefreshEvery), func() {
		w.every(cluster.NodeRefreshEvery, func() bool {
			if l.n.up {
				l.readNodes()
			}
			return l.n.up
		})
	})
	w.after(w.spread(cluster.CountEvery), func() { // some viewer of the node is told how many there are
		w.every(cluster.CountEvery, func() bool {
			if l.n.viewers > 0 {
				w.reg.count(opCount)
			}
			return l.n.up
		})
	})
	flowing := cluster.PollEvery(0)
	w.after(w.spread(flowing), func() {
		w.every(flowing, func() bool {
			if len(l.n.feeds) > len(l.wanted) && l.n.role == cluster.Edge {
				w.reg.count(opWatch)
				w.reg.reads(0, 0, len(l.n.feeds))
			}
			return l.n.up
		})
	})
}

func (l *lookout) readNodes() {
	all := l.n.w.now >= l.all
	if all {
		l.all = l.n.w.now + cluster.PeersRefreshEvery
	}
	l.view = l.n.w.reg.peers(all)
}

// live is what the node believes of a stream's row; it reads the nodes when the row has a holder it doesn't know.
func (l *lookout) live(row cluster.Stream) bool {
	if row.Origin == "" {
		return false
	}
	if holder, ok := l.view.Node(row.Origin); !ok || holder.Session != row.Session {
		l.readNodes()
	}
	return l.view.Live(row)
}

// up looks one stream up. Those who ask within LookupPause share a query.
func (l *lookout) up(found func()) {
	w := l.n.w
	if l.batch = append(l.batch, found); len(l.batch) > 1 {
		return
	}
	w.at(max(w.now, l.batched+cluster.LookupPause), func() {
		l.batched = w.now
		w.reg.count(opLookup)
		asked := l.batch
		w.reg.reads(0, 0, len(asked))
		l.batch = nil
		w.after(w.reg.took(l.n.region), func() {
			for _, found := range asked {
				found()
			}
		})
	})
}

// lookFor polls until the stream lives.
func (l *lookout) lookFor(f *feed) {
	if f.looking == 0 {
		f.looking = l.n.w.now
	}
	f.due = l.n.w.now
	l.wanted = append(l.wanted, f)
	if !l.ticking {
		l.ticking = true
		l.n.w.every(cluster.PollStep, l.poll)
	}
}

// poll asks for the streams that are due, in one query.
func (l *lookout) poll() bool {
	w := l.n.w
	if !l.n.up {
		return false
	}
	kept, asked := l.wanted[:0], false
	var due []*feed
	for _, f := range l.wanted {
		switch {
		case f.ended || f.parent != nil || f.busy:
			continue
		case w.now >= f.due:
			f.due = w.now + cluster.PollEvery(max(1, w.now-f.looking))
			due = append(due, f)
			asked = true
		}
		kept = append(kept, f)
	}
	l.wanted = kept
	if asked {
		w.reg.count(opWatch)
		w.reg.reads(0, 0, len(due))
		w.after(w.reg.took(l.n.region), func() {
			for _, f := range due {
				if f.alive() && f.parent == nil && !f.busy && f.ready() {
					f.ask(w.byID[f.s.row.Origin])
				}
			}
		})
	}
	l.ticking = len(l.wanted) > 0
	return l.ticking
}
