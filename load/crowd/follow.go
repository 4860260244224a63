package crowd

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"sluice/load"
)

const (
	// takeOverWithin is how long another session's first picture may take.
	takeOverWithin = 10 * time.Second
	// askAgain is between two attempts to open another session.
	askAgain = 500 * time.Millisecond
	// comeBack is Return.Soon of viewers that follow.
	comeBack = 200 * time.Millisecond
)

// told waits until the server asks for another session: true. False: the session is over, or ctx.
func (c *crowd) told(ctx context.Context, s *session) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	heard := make(chan bool, 1)
	go func() {
		heard <- c.cfg.Follow && s.at != nil && s.at.AwaitMove(ctx) == nil
	}()
	var moved bool
	select {
	case <-s.over:
	case <-ctx.Done():
	case moved = <-heard:
		if moved {
			return true
		}
		select { // it can't be told
		case <-s.over:
		case <-ctx.Done():
		}
		return false
	}
	cancel()
	<-heard
	return false
}

// move opens another session beside a viewer's and goes over to it at its first picture; nil when the session is lost or ctx
// ends before that is done.
func (c *crowd) move(ctx context.Context, v *viewer) *viewer {
	for wait := time.Duration(0); pause(ctx, wait); wait = askAgain/2 + rand.N(askAgain) {
		select {
		case <-v.session.over:
			return nil
		default:
		}
		next := c.newSession()
		next.loop = v.session.loop // which owns what the viewer has seen
		came, err := c.enter(ctx, next, v.stream, v)
		if err == nil {
			if err = came.takeOver(ctx); err == nil {
				c.count(&c.moves)
				return came
			}
			came.session.close(ctx)
		}
		if ctx.Err() == nil {
			c.log.Info("a viewer could not move yet", "error", err)
		}
	}
	return nil
}

func (c *crowd) count(n *int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*n++
}

// takeOver waits until the viewer has the place of the one before.
func (v *viewer) takeOver(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, takeOverWithin, errors.New("no picture came"))
	defer cancel()
	select {
	case <-v.took:
		return nil
	case <-v.session.over:
		return load.ErrEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// succeed is for a viewer with its first picture: it goes on where the one before is. Both are of one loop.
func (v *viewer) succeed() {
	old := v.before
	v.before = nil
	v.inherit(old)
	old.seen, old.retired = seen{}, true
	close(v.took)
}

// apart: it is not the one that is watched by, of two of which one takes the other's place.
func (v *viewer) apart() bool { return v.before != nil || v.retired }

// sending is a publisher's session that sends.
type sending struct {
	o     *outgoing
	stop  context.CancelFunc
	ended chan struct{}
}

func (o *outgoing) start(ctx context.Context) *sending {
	ctx, stop := context.WithCancel(ctx)
	r := &sending{o, stop, make(chan struct{})}
	go func() {
		defer close(r.ended)
		o.stream(ctx)
	}()
	return r
}

// leave stops sending and says goodbye.
func (r *sending) leave(ctx context.Context) {
	r.stop()
	<-r.ended
	r.o.publisher.leave(ctx, r.o)
}

// keep sends through a session until it is lost or ctx ends; when the server asks for it, through another one from then on.
func (p *publisher) keep(ctx context.Context, o *outgoing) {
	now := o.start(ctx)
	for {
		next := p.successor(ctx, now)
		if next == nil {
			now.leave(ctx)
			return
		}
		then := next.start(ctx)
		select {
		case <-next.keyed: // by which viewers go over: what they see by the old way after that they can't see by the new one
		case <-then.ended:
		}
		now.leave(ctx)
		p.mu.Lock()
		p.live = true
		p.mu.Unlock()
		now = then
		p.crowd.count(&p.crowd.moves)
	}
}

// successor waits until the server asks for another session, and opens it; nil when the session is lost before or ctx has ended.
func (p *publisher) successor(ctx context.Context, r *sending) *outgoing {
	s, ok := r.o.carrier.(sealed)
	if !ok || !p.crowd.told(ctx, s.session) {
		<-r.ended
		return nil
	}
	for wait := time.Duration(0); pause(ctx, wait); wait = askAgain/2 + rand.N(askAgain) {
		select {
		case <-r.ended:
			return nil
		default:
		}
		next, err := p.connect(ctx)
		if err == nil {
			return next
		}
		p.crowd.log.Info("a publisher could not move yet", "to", p.url(), "error", err)
	}
	return nil
}
