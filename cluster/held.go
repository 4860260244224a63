package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/media"
)

const (
	// acquireWait: a silent holder says Interrupted within 2 s, and a dead one's session ends within SessionTTL.
	acquireWait = SessionTTL + 300*time.Millisecond
	// acquirePoll is the pause between two attempts; it grows, as nobody knows how long the holder goes on.
	acquirePoll, acquirePollMost = 50 * time.Millisecond, 300 * time.Millisecond
	// writeAtOnce is how many writes are under way together.
	writeAtOnce = 8
)

// slot is a row of a stream.
type slot struct {
	key    media.Key
	backup bool
}

// Held is a stream that the node's session holds until Release, or until it is lost.
type Held struct {
	member *Member
	slot   slot
	lost   func(error)

	// These belong to member.mu.
	lease Lease // changes when the node has joined again
	info  StreamInfo
	dirty bool // info must be written
}

// Lease is what is held at this moment; its epoch grows when the node has to join again.
func (h *Held) Lease() Lease {
	h.member.mu.Lock()
	defer h.member.mu.Unlock()
	return h.lease
}

// Acquire takes a stream, or its backup's place, and waits up to 2.8 s (or ctx) for a holder that has fallen silent or died.
// ErrStreamInUse: somebody else publishes it. Another error: the registry can't be reached, and
// the caller decides. lost is called once, when somebody has taken the stream over: from Run's goroutines, or from
// an Acquire of the same stream on this node. It must not block.
func (m *Member) Acquire(ctx context.Context, key media.Key, backup bool, lost func(error)) (*Held, error) {
	ctx, cancel := context.WithTimeout(ctx, acquireWait)
	defer cancel()
	select {
	case <-m.joined:
	case <-ctx.Done():
		return nil, fmt.Errorf("claim stream %q: this node has not joined the cluster yet, the registry does not answer: %w", key, ctx.Err())
	}
	at := slot{key, backup}
	m.count(at, 1)
	defer m.count(at, -1)
	var inUse error
	for pause := acquirePoll; ; pause = min(2*pause, acquirePollMost) {
		m.mu.Lock()
		session, stopped := m.session, m.stopped
		m.mu.Unlock()
		if stopped {
			return nil, fmt.Errorf("claim stream %q: %w", key, ErrStopped)
		}
		lease, err := m.reg.Claim(ctx, Lease{Key: key, Backup: backup, Node: m.id, Session: session})
		if err == nil {
			return m.hold(ctx, lease, lost)
		}
		var busy *InUse
		if !errors.As(err, &busy) {
			m.orphan(at) // the claim may have been written
			if inUse != nil && ctx.Err() != nil {
				err = inUse // the wait ended within the last attempt
			}
			return nil, err
		}
		inUse = err
		if left := busy.Until.Sub(m.reg.Now()); left > 0 {
			pause = min(pause, left+time.Millisecond) // times are exact to one
		}
		select {
		case <-ctx.Done():
			return nil, inUse
		case <-time.After(pause):
		}
	}
}

func (m *Member) count(at slot, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.claiming[at] += n; m.claiming[at] == 0 {
		delete(m.claiming, at)
		if _, ok := m.orphans[at]; ok {
			poke(m.news)
		}
	}
}

// orphan notes a row that may be ours with nobody behind.
func (m *Member) orphan(at slot) {
	m.mu.Lock()
	m.orphans[at] = struct{}{}
	m.mu.Unlock()
	poke(m.news)
}

// hold puts a fresh lease among those that are kept.
func (m *Member) hold(ctx context.Context, lease Lease, lost func(error)) (*Held, error) {
	h := &Held{member: m, slot: slot{lease.Key, lease.Backup}, lease: lease, lost: lost, info: StreamInfo{State: Broadcasting}}
	m.mu.Lock()
	if m.stopped {
		m.mu.Unlock()
		_ = m.reg.Release(ctx, lease) // the session ends anyway
		return nil, fmt.Errorf("claim stream %q: %w", lease.Key, ErrStopped)
	}
	old := m.held[h.slot]
	if old != nil && old.lease.Epoch > lease.Epoch {
		m.mu.Unlock()
		return nil, fmt.Errorf("claim stream %q: %w", lease.Key, ErrLeaseLost)
	}
	m.held[h.slot] = h
	behind := lease.Session != m.session // the node has joined again meanwhile
	m.mu.Unlock()
	if behind {
		poke(m.news)
	}
	if old != nil {
		old.lost(fmt.Errorf("stream %q: %w", lease.Key, ErrLeaseLost))
	}
	return h, nil
}

// Report says what is true of the stream now. A change is written at once.
func (h *Held) Report(info StreamInfo) {
	h.member.mu.Lock()
	changed := info.State != h.info.State || !slices.Equal(info.Codecs, h.info.Codecs)
	if changed {
		h.info = StreamInfo{State: info.State, Codecs: slices.Clone(info.Codecs)}
		h.dirty = true
	}
	h.member.mu.Unlock()
	if changed {
		poke(h.member.news)
	}
}

// Release ends the lease, so that anyone may publish the stream; after it, lost is
// not called. Of a lease that is lost already nothing remains to be released. When the registry does not
// answer, Run goes on trying.
func (h *Held) Release(ctx context.Context) {
	m := h.member
	if m.drop(h) && m.reg.Release(ctx, h.Lease()) != nil {
		m.orphan(h.slot)
	}
}

// drop forgets a lease; false when it was forgotten before.
func (m *Member) drop(h *Held) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held[h.slot] != h {
		return false
	}
	delete(m.held, h.slot)
	return true
}

// writeNews brings the registry to what is true, when something changes and as long as it is not done.
func (m *Member) writeNews(ctx context.Context) {
	out := outage{log: m.log, doing: "write streams"}
	defer out.end()
	tick := time.NewTicker(HeartbeatEvery)
	defer tick.Stop()
	for {
		ticked := false
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			ticked = true
		case <-m.news:
		}
		if asked, err := m.write(ctx, ticked); asked && ctx.Err() == nil {
			out.note(err)
		}
	}
}

// write does what there is to write; it stops at the first error, which says that the registry is away. At a tick it looks
// whether streams that anyone may take, the interrupted and the leaving, were taken.
func (m *Member) write(ctx context.Context, tick bool) (asked bool, err error) {
	due, free := map[slot]*Held{}, map[slot]*Held{}
	orphans := map[slot]struct{}{}
	m.mu.Lock()
	for at, h := range m.held {
		switch {
		case h.dirty || h.lease.Session != m.session:
			due[at] = h
		case tick && h.info.State != Broadcasting:
			free[at] = h
		}
	}
	for at := range m.orphans {
		if m.claiming[at] == 0 { // else the row may be somebody's in a moment
			orphans[at] = struct{}{}
			delete(m.orphans, at)
		}
	}
	m.mu.Unlock()
	if len(orphans) > 0 {
		if err = m.bury(ctx, orphans); err != nil {
			m.mu.Lock()
			for at := range orphans {
				m.orphans[at] = struct{}{}
			}
			m.mu.Unlock()
			return true, err
		}
	}
	if len(free) > 0 {
		if err = m.look(ctx, free); err != nil {
			return true, err
		}
	}
	return len(due)+len(orphans)+len(free) > 0, each(ctx, due, m.update)
}

// look finds out which of these streams were taken, in one query.
func (m *Member) look(ctx context.Context, free map[slot]*Held) error {
	ctx, cancel := context.WithTimeout(ctx, HeartbeatEvery)
	defer cancel()
	var keys []media.Key
	for at := range free {
		keys = append(keys, at.key)
	}
	rows, err := m.reg.Lookup(ctx, keys...)
	for _, s := range rows {
		if h := free[slot{s.Key, s.Backup}]; h != nil && s.Epoch > h.Lease().Epoch {
			m.lose(h, fmt.Errorf("stream %q: %w", s.Key, ErrLeaseLost))
		}
	}
	return err
}

// lose ends a lease that another has taken over.
func (m *Member) lose(h *Held, why error) {
	if !m.drop(h) {
		return
	}
	m.log.Warn("stream lost: another node has taken it over", "stream", h.slot.key, "backup", h.slot.backup, "epoch", h.Lease().Epoch)
	h.lost(why)
	m.orphan(h.slot) // or was it a claim of ours whose answer got lost?
}

// each calls fn for all, some at once, each with the time of a heartbeat; it stops at the first error.
func each(ctx context.Context, held map[slot]*Held, fn func(context.Context, *Held) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writeAtOnce)
	for _, h := range held {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, HeartbeatEvery)
			defer cancel()
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := fn(ctx, h); !errors.Is(err, ErrLeaseLost) {
				return err
			}
			return nil
		})
	}
	return g.Wait()
}

// update resumes a lease if the node has joined again, and reports the stream if there is news.
func (m *Member) update(ctx context.Context, h *Held) (err error) {
	m.mu.Lock()
	session, lease, info, dirty := m.session, h.lease, h.info, h.dirty
	h.dirty = false
	m.mu.Unlock()
	gone, resumed := false, lease.Session != session
	if resumed {
		lease, gone, err = m.resume(ctx, h, lease, session)
	}
	if err == nil && !gone && (dirty || resumed) { // a row that was written anew says nothing of the stream
		dirty = true
		err = m.reg.Report(ctx, lease, info)
		if errors.Is(err, ErrLeaseLost) && !resumed {
			// Somebody has it, or the row is gone.
			if lease, gone, err = m.resume(ctx, h, lease, session); err == nil && !gone {
				err = m.reg.Report(ctx, lease, info)
			}
		}
	}
	switch {
	case errors.Is(err, ErrLeaseLost):
		m.lose(h, err)
		return nil
	case err != nil && dirty:
		m.mu.Lock()
		h.dirty = true
		m.mu.Unlock()
	}
	return err
}

// resume moves a lease to a session; gone: it was released while that was written, under its former epoch.
func (m *Member) resume(ctx context.Context, h *Held, lease Lease, session int64) (next Lease, gone bool, err error) {
	if next, err = m.reg.Resume(ctx, lease, session); err != nil {
		return lease, false, err
	}
	m.mu.Lock()
	h.lease = next
	gone = m.held[h.slot] != h
	m.mu.Unlock()
	if gone {
		m.orphan(h.slot)
	}
	return next, gone, nil
}

// bury releases those rows that are this process's and that nobody holds here.
func (m *Member) bury(ctx context.Context, orphans map[slot]struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, HeartbeatEvery)
	defer cancel()
	var keys []media.Key
	for at := range orphans {
		keys = append(keys, at.key)
	}
	rows, err := m.reg.Lookup(ctx, keys...)
	if err != nil {
		return err
	}
	for _, s := range rows {
		at := slot{s.Key, s.Backup}
		_, ours := orphans[at]
		m.mu.Lock()
		if m.held[at] != nil || m.claiming[at] > 0 {
			ours = false // it has a holder again, or a claim of it is under way
		}
		// Another process with our id may have joined since.
		ours = ours && s.Origin == m.id && s.Session >= m.first && s.Session <= m.session
		m.mu.Unlock()
		if !ours || s.State == Finished {
			continue
		}
		err := m.reg.Release(ctx, Lease{Key: s.Key, Backup: s.Backup, Node: s.Origin, Session: s.Session, Epoch: s.Epoch})
		if err != nil && !errors.Is(err, ErrLeaseLost) {
			return err
		}
	}
	return nil
}
