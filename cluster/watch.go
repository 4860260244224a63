package cluster

import (
	"context"
	"time"

	"sluice/media"
)

const (
	// A stream that flows is looked at every flowingEvery, in the rhythm of all others.
	flowingEvery = 2 * time.Second
	// PollStep is how often a stream is looked for that was lost, or is waited for, in the first seconds.
	PollStep = 100 * time.Millisecond
	// suspectFor is how long a lost stream is looked for that is well by the registry.
	suspectFor = 30 * time.Second
)

// watched is a stream that somebody watches.
type watched struct {
	watchers map[*watcher]struct{}
	rows     [2]Stream // main and backup as last read; epoch 0: there is none
	read     time.Time // when
	due      time.Time // when to look again; zero: at once
	since    time.Time // it has been looked for since then; zero: it flows
	suspect  [2]int64  // the epochs that are not believed, until they change or for suspectFor
}

// watcher is one Watch.
type watcher struct {
	fn    func(Stream)
	epoch [2]int64 // for which fn was called: main, backup
}

// Watch calls fn as soon as the stream, or its backup, is Broadcasting, now or later, and again for each new epoch: that
// is how an edge learns that a stream has moved to another origin. Epochs never go back. fn is called from
// Run's goroutine and must not block. A call that has begun may still be running when cancel returns.
func (d *Directory) Watch(key media.Key, fn func(Stream)) (cancel func()) {
	w := &watcher{fn: fn}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.watched[key]
	if s == nil {
		s = &watched{watchers: map[*watcher]struct{}{}, since: time.Now()}
		d.watched[key] = s
	}
	s.watchers[w] = struct{}{}
	s.due = time.Time{}
	poke(d.wake)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(s.watchers, w)
		if len(s.watchers) == 0 && d.watched[key] == s {
			delete(d.watched, key)
		}
	}
}

// Suspect says that a watched stream, or its backup, does not come from where the registry says, as when an upstream was lost: it is
// looked at at once, and often, until it has a new epoch.
func (d *Directory) Suspect(key media.Key, backup bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, i := d.watched[key], index(backup)
	if s != nil && s.rows[i].Epoch != 0 && s.suspect[i] != s.rows[i].Epoch {
		s.suspect[i], s.since, s.due = s.rows[i].Epoch, time.Now(), time.Time{}
		poke(d.wake)
	}
}

// suspected reports that one of its epochs is not believed.
func (s *watched) suspected() bool { return s.suspect != [2]int64{} }

// changed is told by the registry.
func (d *Directory) changed(c Change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.watched[c.Stream]; s != nil {
		s.due = time.Time{}
		poke(d.wake)
		return
	}
	wanted := d.self == "" // a gateway wants to know of every node
	for _, s := range d.watched {
		wanted = wanted || c.Node != "" && (s.rows[0].Origin == c.Node || s.rows[1].Origin == c.Node)
	}
	if wanted && c.Node != "" && !d.hurry {
		d.hurry = true
		poke(d.wake)
	}
}

// PollEvery is how often a stream is looked at that has been looked for so long; 0: it flows.
func PollEvery(lookedFor time.Duration) time.Duration {
	switch {
	case lookedFor <= 0:
		return flowingEvery
	case lookedFor < 5*time.Second:
		return PollStep
	case lookedFor < 30*time.Second:
		return 3 * PollStep
	}
	return time.Second
}

// period is how often this one is.
func (s *watched) period(now time.Time) time.Duration {
	if s.since.IsZero() {
		return PollEvery(0)
	}
	return PollEvery(max(1, now.Sub(s.since)))
}

// offline reports that the stream did not flow when it was looked at a moment ago.
func (s *watched) offline(now time.Time) bool {
	return !s.suspected() && !s.since.IsZero() && !s.read.IsZero() && now.Sub(s.read) < s.period(now)+PollStep
}

// next is the first time after now in a rhythm that all share: so that one query asks for all.
func next(begin, now time.Time, period time.Duration) time.Time {
	return begin.Add(now.Sub(begin)/period*period + period)
}

// refresh reads the nodes if they are due, and the watched streams that are.
func (d *Directory) refresh(ctx context.Context, begin time.Time, nodes bool) (asked bool, err error) {
	now := time.Now()
	var due []media.Key
	d.mu.Lock()
	hurry := d.hurry
	d.hurry = false
	for key, s := range d.watched {
		if now.Before(s.due) {
			continue
		}
		due = append(due, key)
		s.due = next(begin, now, s.period(now))
	}
	d.mu.Unlock()
	switch {
	case nodes:
		err = d.readNodes(ctx, 0, false)
	case hurry:
		err = d.readNodes(ctx, nodesAtMost, false)
	}
	if err != nil || len(due) == 0 {
		return nodes || hurry || err != nil, err
	}
	found, err := d.query(ctx, due, refreshWithin)
	if err == nil && d.unknownHolder(found) {
		err = d.readNodes(ctx, 0, false)
	}
	if err != nil {
		return true, err
	}
	for _, call := range d.learn(due, found) {
		call()
	}
	return true, nil
}

// unknownHolder reports that a stream has a new epoch under a session that the view does not know: it joined before it
// claimed, so reading the nodes once is enough to judge it.
func (d *Directory) unknownHolder(found map[slot]Stream) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for at, s := range found {
		w := d.watched[at.key]
		if w != nil && s.State != Finished && s.Epoch > w.rows[index(at.backup)].Epoch && !d.view.knows(s) {
			return true
		}
	}
	return false
}

func index(backup bool) int {
	if backup {
		return 1
	}
	return 0
}

// learn takes what a query found and returns the calls to make, without the lock.
func (d *Directory) learn(asked []media.Key, found map[slot]Stream) (calls []func()) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, key := range asked {
		w := d.watched[key]
		if w == nil { // cancelled meanwhile
			continue
		}
		w.read = now
		flows := false
		for i, at := range []slot{{key, false}, {key, true}} {
			s, ok := found[at]
			switch {
			case !ok: // never published, or the registry was emptied
				w.rows[i] = Stream{}
				for t := range w.watchers {
					t.epoch[i] = 0
				}
				continue
			case s.Epoch < w.rows[i].Epoch: // an answer that was overtaken
				s = w.rows[i]
			}
			w.rows[i] = s
			if !d.view.Live(s) {
				continue
			}
			flows = true
			s.State = Broadcasting
			for t := range w.watchers {
				if t.epoch[i] < s.Epoch {
					t.epoch[i] = s.Epoch
					calls = append(calls, func() { t.fn(s) })
				}
			}
		}
		w.judge(flows, now)
	}
	return calls
}

// judge decides whether the stream must be looked for.
func (w *watched) judge(flows bool, now time.Time) {
	for i := range w.suspect {
		if w.suspect[i] != w.rows[i].Epoch || now.Sub(w.since) > suspectFor {
			w.suspect[i] = 0
		}
	}
	switch {
	case w.suspected():
	case flows:
		w.since = time.Time{}
	case w.since.IsZero():
		w.since, w.due = now, time.Time{}
	}
}
