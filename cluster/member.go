package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// HeartbeatEvery is how often a node writes its row. It also bounds each write, so that after one that hangs
// there is time for another before the session is SessionTTL old.
const HeartbeatEvery = time.Second

// leaveWithin bounds the last writes of a stopping node.
const leaveWithin = 2 * time.Second

// ErrStopped: Run has ended, nothing is kept alive any more.
var ErrStopped = errors.New("node is stopping")

// Member is a node's membership of the cluster: it keeps the node's session alive with one write a second,
// however many streams the session holds, and writes of the streams only what changes.
//
// What the registry says is brought to what is true here, again and again until it is: an answer that got lost, or a registry that
// was away, leaves neither a stream without its holder nor a holder without its stream.
type Member struct {
	reg      Registry
	id       string
	describe func() Node
	log      *slog.Logger
	// Gone reports that no process of this machine has that number any more. It may be set before Run; nil: that is not known.
	Gone    func(pid int) bool
	beatNow chan struct{}
	news    chan struct{} // something of streams must be written
	joined  chan struct{} // closed with the first Join

	first int64 // the first session of this process; each attempt to join takes the next number

	// These belong to the goroutine that beats.
	in    bool // the row has our session, as far as we know
	rival Node // who had the id before the first Join
	last  int64

	mu       sync.Mutex
	session  int64 // of the last Join that succeeded; 0: none
	stopped  bool
	held     map[slot]*Held
	orphans  map[slot]struct{} // rows that may be ours with nobody behind
	claiming map[slot]int      // Acquires under way
}

// NewMember does no I/O. describe says what the row says; it is called before each heartbeat from
// Run's goroutine. The id and what the Registry writes are added to it.
func NewMember(reg Registry, id string, describe func() Node, log *slog.Logger) *Member {
	first := 1 + rand.Int64N(1<<62)
	return &Member{reg: reg, id: id, describe: describe, log: log, first: first, last: first - 1,
		beatNow: make(chan struct{}, 1), news: make(chan struct{}, 1), joined: make(chan struct{}),
		held: map[slot]*Held{}, orphans: map[slot]struct{}{}, claiming: map[slot]int{}}
}

// Now asks for a heartbeat at once, as when a node begins to drain. It does not wait.
func (m *Member) Now() { poke(m.beatNow) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run keeps the membership until ctx ends; then it releases what is held and removes the row, so that publishers may go elsewhere
// at once. A registry that is away stops nothing. The errors it ends with by itself are ErrReplaced: then all
// streams are lost; and, before it has joined, ErrIDInUse.
func (m *Member) Run(ctx context.Context) error {
	writing, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { m.writeNews(writing) })
	err := m.beatOn(ctx)
	stop()
	wg.Wait()
	m.leave(context.WithoutCancel(ctx), err)
	return err
}

// beatOn returns nil when ctx has ended.
func (m *Member) beatOn(ctx context.Context) error {
	out := outage{log: m.log, doing: "heartbeat"}
	defer out.end()
	tick := time.NewTicker(HeartbeatEvery)
	defer tick.Stop()
	for {
		err := m.beat(ctx)
		if errors.Is(err, ErrReplaced) || errors.Is(err, ErrIDInUse) {
			return err
		}
		if ctx.Err() == nil {
			out.note(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-m.beatNow:
		}
	}
}

// beat writes the row; a node that is not in joins.
func (m *Member) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, HeartbeatEvery)
	defer cancel()
	n := m.describe()
	n.ID, n.Session = m.id, m.last
	if m.in {
		err := m.reg.Heartbeat(ctx, n)
		switch {
		case errors.Is(err, ErrReplaced):
			if err := m.replaced(ctx); err != nil {
				return err
			}
		case errors.Is(err, ErrFenced):
			m.log.Warn("fenced: this node was silent for so long that its session is void; it joins again", "streams", m.Holds())
		default:
			return err
		}
		m.in = false
	}
	return m.join(ctx, n)
}

func (m *Member) join(ctx context.Context, n Node) error {
	if m.last < m.first {
		if free, err := m.free(ctx, n); err != nil || !free {
			return err
		}
	}
	m.last++ // after an error too: the row may have been written
	n.Session = m.last
	if err := m.reg.Join(ctx, n); err != nil {
		return err
	}
	m.in = true
	m.mu.Lock()
	again := m.session != 0
	m.session = m.last
	m.mu.Unlock()
	if again {
		m.log.Info("joined again, resuming streams", "streams", m.Holds())
		poke(m.news)
	} else {
		close(m.joined)
	}
	return nil
}

// free reports whether the id is nobody else's, before the first Join. Of two processes with one id each would else end the other, for ever when
// something starts them again. Another process that was heard of within SessionTTL may live: it does if it is heard again. The
// process before on this machine is known to be gone at once.
func (m *Member) free(ctx context.Context, n Node) (bool, error) {
	nodes, err := m.reg.Peers(ctx, m.id)
	if err != nil {
		return false, err
	}
	row, ok := View{Nodes: nodes}.Node(m.id)
	here := row.Host == n.Host
	switch {
	case !ok || row.Fenced || row.Host == "" || row.PID == 0,
		here && (row.PID == n.PID || m.Gone != nil && m.Gone(row.PID)),
		m.reg.Now().Sub(row.LastHeartbeat) >= SessionTTL:
		return true, nil
	case m.rival.Session == 0:
		m.log.Info("another process had this id a moment ago: waiting until it is heard again or known to be gone", "process", row.PID, "host", row.Host)
	case row.Session != m.rival.Session || !row.LastHeartbeat.Equal(m.rival.LastHeartbeat):
		return false, fmt.Errorf("node %q: %w: process %d on %s; give each process its own --id, or stop that one first", m.id, ErrIDInUse, row.PID, row.Host)
	}
	m.rival = row
	return false, nil
}

// replaced finds out who has the row: nil when it was an attempt of this process to join that was thought to have failed.
func (m *Member) replaced(ctx context.Context) error {
	nodes, err := m.reg.Peers(ctx, m.id)
	if err != nil {
		return err // asked again with the next heartbeat
	}
	n, ok := View{Nodes: nodes}.Node(m.id)
	if !ok || n.Session >= m.first && n.Session <= m.last {
		return nil
	}
	return fmt.Errorf("node %q: %w: process %d on %s; give each process its own --id", m.id, ErrReplaced, n.PID, cmp.Or(n.Host, "an unknown host"))
}

// Holds is the number of streams that the node holds.
func (m *Member) Holds() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.held)
}

// leave ends all leases and removes the row. Who was replaced tells his publishers.
func (m *Member) leave(ctx context.Context, why error) {
	m.mu.Lock()
	m.stopped = true
	session, held := m.session, m.held
	m.held = map[slot]*Held{}
	m.mu.Unlock()
	if why != nil {
		for _, h := range held {
			h.lost(why)
		}
	}
	if session == 0 && m.last < m.first {
		return // the registry has never heard of us
	}
	ctx, cancel := context.WithTimeout(ctx, leaveWithin)
	defer cancel()
	err := each(ctx, held, func(ctx context.Context, h *Held) error { return m.reg.Release(ctx, h.lease) })
	if err = errors.Join(err, m.reg.Leave(ctx, m.id, m.last)); err != nil {
		m.log.Warn("the node's row stays in the registry until its heartbeat is old, and its streams are free only then", "error", err)
	}
}
