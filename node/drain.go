package node

import (
	"context"
	"math"
	"time"

	"sluice/internal/lifecycle"
	"sluice/stream"
)

const (
	drainTick = 50 * time.Millisecond
	// drainLeast is how long an ordered drain lasts at least, so that every gateway has seen it before the node is gone.
	drainLeast = time.Second
	// drainSays is how often the log tells how far a drain is.
	drainSays = 5 * time.Second
	// movesPerSecond is how many clients are told to move, so that they don't all join other nodes in one instant. Where that would
	// take longer than moveMost, or than moveShare of the time to the deadline, more are told in a second.
	movesPerSecond = 100
	moveMost       = 8 * time.Second
	moveShare      = 0.4
	// shedBefore is the part of the time to the deadline that is left when the last of those who did not move are sent away.
	shedBefore = 0.05
)

// wish is that this node should go, and why.
type wish struct {
	why      string
	deadline time.Time
	stays    bool                        // when it is empty it waits for the wish to be withdrawn
	event    string                      // of the cloud; "": it is not the cloud's wish
	empty    func(context.Context) error // is told once for each event when the node is empty; nil: nobody
}

// or is the wish that counts of two, of which either may be nil: one that ends the node before one that does not, then the one
// with the nearer deadline.
func (a *wish) or(b *wish) *wish {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.stays != b.stays:
		if a.stays {
			return b
		}
	case b.deadline.Before(a.deadline):
		return b
	}
	return a
}

// draining is a drain under way.
type draining struct {
	node  *Node
	began time.Time
	wish  *wish
	move  quota // those who are told
	shed  quota // those who are sent away
	moved bool  // the log has said that all were told
	said  time.Time
	empty bool   // the log has said so
	freed string // the event whose empty was called
}

// drain watches for the wish that the node go: its process is told to stop, an operator orders it, or the cloud gives notice. Then
// the node takes no more work and tells its clients to move; it ends when they have, or at the deadline. When the wish is withdrawn
// before, it takes work again.
func (n *Node) drain(ctx context.Context) error {
	tick := time.NewTicker(drainTick)
	defer tick.Stop()
	stopping := ctx.Done()
	var signal *wish
	var d *draining
	for {
		now := time.Now()
		since := now
		if d != nil && !d.wish.stays { // else the time begins with the wish that ends the node
			since = d.began
		}
		switch w := signal.or(n.order(now, since)).or(n.noticed(since)); {
		case w == nil && d != nil:
			d.cancel()
			d = nil
		case w != nil && d == nil:
			d = n.beginDrain(w, now)
		case w != nil:
			d.turn(w, now)
		}
		if d != nil && d.step(ctx, now, signal != nil) {
			if signal != nil {
				return nil
			}
			return lifecycle.ErrDone
		}
		select {
		case <-stopping:
			stopping = nil
			signal = &wish{why: "the process was told to stop", deadline: time.Now().Add(n.cfg.DrainDeadline)}
		case <-tick.C:
		}
	}
}

func (n *Node) beginDrain(w *wish, now time.Time) *draining {
	n.draining.Store(true)
	n.member.Now()
	n.sockets.Drain()
	n.guard.Leave()
	n.relayOut.Drain()
	n.log.Info("draining: no new work is taken, and clients are told to move", "why", w.why, "viewers", n.out.Viewers(),
		"sessions", n.rtc.Sessions(), "deadline", w.deadline.Sub(now).Round(time.Millisecond))
	return &draining{node: n, began: now, wish: w, said: now}
}

// turn goes on with that wish. When it is the first that ends the node, those who are left get its whole time.
func (d *draining) turn(w *wish, now time.Time) {
	if d.wish.stays && !w.stays {
		d.began, d.said = now, now
		d.move, d.shed = quota{}, quota{}
		d.node.log.Info("the node drains already, and ends now when it is empty", "why", w.why, "sessions", d.node.rtc.Sessions(),
			"deadline", w.deadline.Sub(now).Round(time.Millisecond))
	}
	d.wish = w
}

// cancel is for a node that goes on after all.
func (d *draining) cancel() {
	n := d.node
	n.draining.Store(false)
	n.sockets.Stay()
	n.relayOut.Stay()
	for _, r := range n.resources {
		r.Stay()
	}
	n.member.Now()
	n.log.Info("the drain is withdrawn: the node takes work again", "after", time.Since(d.began).Round(time.Millisecond), "sessions", n.rtc.Sessions())
}

// step does what is due, and says whether the drain is over.
func (d *draining) step(ctx context.Context, now time.Time, signalled bool) (over bool) {
	n, left := d.node, d.node.rtc.Sessions()
	children := n.relayOut.Movable()
	within := d.wish.deadline.Sub(d.began)
	after := now.Sub(d.began).Round(10 * time.Millisecond)
	switch {
	case left+children == 0 && !signalled && now.Sub(d.began) < drainLeast:
		return false
	case left+children == 0:
		return d.isEmpty(ctx, after, signalled)
	case !now.Before(d.wish.deadline) && !d.wish.stays:
		n.log.Warn("clients are cut off at the deadline", "sessions", left, "nodes", children, "after", after)
		return true
	}
	d.tell(now, within)
	d.sendAway(now, within, left)
	if now.Sub(d.said) >= drainSays {
		d.said = now
		n.log.Info("still draining", "left", left, "viewers", n.out.Viewers(), "nodes", children, "until", d.wish.deadline.Sub(now).Round(time.Second))
	}
	return false
}

func (d *draining) isEmpty(ctx context.Context, after time.Duration, signalled bool) (over bool) {
	if !d.empty {
		d.empty = true
		d.node.log.Info("empty: nobody is left here", "after", after)
	}
	if w := d.wish; w.empty != nil && w.event != d.freed {
		d.freed = w.event
		if err := w.empty(context.WithoutCancel(ctx)); err != nil {
			d.node.log.Warn("could not tell the cloud that this machine may go", "error", err)
		}
	}
	return signalled || !d.wish.stays
}

// tell tells as many clients as are due to move: first publishers, whose viewers follow them.
func (d *draining) tell(now time.Time, within time.Duration) {
	n := d.node
	waiting := n.sockets.Listening()
	for _, r := range n.resources {
		waiting += r.Listening()
	}
	due := d.move.due(now.Sub(d.began), spread(waiting+d.move.done, within), waiting)
	for _, r := range n.resources { // WHIP comes before WHEP
		k := min(due, r.Listening())
		r.Move(k)
		due -= k
	}
	n.sockets.Move(due)
	if waiting == 0 && !d.moved {
		d.moved = true
		n.log.Info("all clients that listen were told to move", "told", d.move.done, "left", n.rtc.Sessions(), "after", now.Sub(d.began).Round(10*time.Millisecond))
	}
}

// sendAway ends, shortly before the deadline, the sessions of those who can't be told, or did not go.
func (d *draining) sendAway(now time.Time, within time.Duration, left int) {
	took := spread(left+d.shed.done, within)
	start := within - time.Duration(float64(within)*shedBefore) - took
	if d.wish.stays || now.Sub(d.began) < start {
		return
	}
	n := d.node
	if d.shed.done == 0 {
		n.log.Info("clients that did not move are sent away", "sessions", left, "within", took)
	}
	due := d.shed.due(now.Sub(d.began)-start, took, left)
	for _, r := range n.resources {
		k := min(due, r.Sessions())
		r.Shed(k, stream.ErrClosing)
		due -= k
	}
	n.sockets.Shed(due)
}

// spread is the time over which n clients are told.
func spread(n int, within time.Duration) time.Duration {
	d := time.Duration(n) * time.Second / movesPerSecond
	return max(time.Millisecond, min(d, moveMost, time.Duration(moveShare*float64(within))))
}

// quota deals clients out over a time.
type quota struct{ done int }

// due is how many more are to be dealt with at that moment, of those that wait.
func (q *quota) due(at, over time.Duration, waiting int) int {
	share := min(1, float64(at+drainTick)/float64(over))
	due := min(waiting, int(math.Ceil(share*float64(q.done+waiting)))-q.done)
	if due < 0 {
		return 0
	}
	q.done += due
	return due
}

// order is what an operator wants of this node; a drain under way began at since.
func (n *Node) order(now, since time.Time) *wish {
	row, ok := n.directory.View().Node(n.cfg.ID)
	if !ok || !row.Order.Drain || row.Started.Sub(n.started).Abs() > time.Millisecond { // the row is that of a process before
		return nil
	}
	w := &wish{why: "an operator ordered it", deadline: since.Add(n.cfg.DrainDeadline)}
	if at := row.Order.Deadline; !at.IsZero() {
		w.deadline = now.Add(at.Sub(n.deps.Registry.Now()))
	}
	return w
}

// noticed is what the cloud has announced.
func (n *Node) noticed(since time.Time) *wish {
	if n.notices == nil {
		return nil
	}
	notice := n.notices.Notice()
	if notice == nil {
		return nil
	}
	w := &wish{why: "the cloud announced: " + notice.Kind, deadline: notice.Deadline, stays: notice.Stays, event: notice.ID,
		empty: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, acknowledgeWithin)
			defer cancel()
			return n.notices.Acknowledge(ctx, notice)
		}}
	if notice.Deadline.IsZero() {
		w.deadline = since.Add(n.cfg.DrainDeadline)
	}
	return w
}

// acknowledgeWithin bounds the last word to the cloud.
const acknowledgeWithin = 5 * time.Second

func (n *Node) watchNotices(ctx context.Context) error {
	if n.notices == nil {
		<-ctx.Done()
		return nil
	}
	return n.notices.Run(ctx)
}
