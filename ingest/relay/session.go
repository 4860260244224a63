package relay

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"sluice/media"
	wire "sluice/relay"
	"sluice/stream"
)

// session is one stream for as long as it is wanted here, over changes of the node it comes from.
type session struct {
	relay  *Relay
	key    media.Key
	ctx    context.Context // ends when the session must
	cancel context.CancelFunc
	done   chan struct{} // closed when it has
	ended  chan error    // the hub no longer takes it

	// These belong to Pull, then to run.
	up    *upstream
	found bool   // the last look-up named a node
	src   Source // which it was
	epoch int64

	last atomic.Int64 // when something came from upstream, Unix nanoseconds
	seen atomic.Int64 // Arrived of the newest video burst that was given to the hub
}

// attach finds the stream's node, takes the stream from it and publishes it to the hub.
func (s *session) attach(ctx context.Context) error {
	src, err := s.lookup(ctx)
	s.found, s.src = err == nil, src
	if err != nil {
		return err
	}
	p, err := s.relay.peer(ctx, src)
	if err != nil {
		return err
	}
	up, err := p.subscribe(ctx, s)
	if err != nil {
		p.release()
		return err
	}
	if err := up.publish(ctx); err != nil {
		up.close(err)
		return err
	}
	s.up, s.epoch = up, src.Epoch
	s.last.Store(time.Now().UnixNano())
	s.relay.cfg.Log.Info("stream pulled", "stream", s.key, "from", src.Node, "addr", src.Addr, "epoch", src.Epoch)
	return nil
}

// lookup asks the registry. A node that lost the stream to a higher epoch does not get it back.
func (s *session) lookup(ctx context.Context) (Source, error) {
	src, err := s.relay.cfg.Lookup(ctx, s.key)
	if err == nil && (src.Node == s.relay.cfg.Node || src.Epoch < s.epoch) {
		err = fmt.Errorf("node %q with epoch %d is not the one to ask: %w", src.Node, src.Epoch, stream.ErrOffline)
	}
	return src, err
}

// run keeps the stream until nobody wants it, it is over, or it can't be found any more.
func (s *session) run() {
	defer s.relay.exit(s)
	var search search
	for {
		reason := s.wait()
		if s.up.came.Load() || time.Since(s.up.began) > s.relay.cfg.Grace {
			search = newSearch(s.relay.cfg.Grace)
		}
		s.leave(reason)
		if errors.Is(reason, errUnwanted) || errors.Is(reason, stream.ErrStopped) || s.ctx.Err() != nil {
			return
		}
		s.relay.cfg.Log.Warn("upstream lost, looking for the stream", "stream", s.key, "reason", reason)
		if !s.find(&search) {
			return
		}
	}
}

// leave ends the upstream. Unless the reason is ErrStopped, viewers stay for the hub's grace.
func (s *session) leave(reason error) {
	s.up.close(reason)
	s.up = nil
}

// Reasons for which an upstream is left.
var (
	errUnwanted = errors.New("the hub no longer takes the stream")
	errMoved    = errors.New("another node publishes the stream")
)

// wait returns when the upstream must be left, and why.
func (s *session) wait() error {
	tick := time.NewTicker(silence / 4)
	defer tick.Stop()
	var asked time.Time
	for {
		select {
		case <-s.ctx.Done():
			return stream.ErrClosing
		case why := <-s.ended:
			return fmt.Errorf("%w: %w", errUnwanted, why)
		case <-s.up.done:
			return s.up.err
		case <-tick.C:
			// A node that was cut off from the registry and from its publisher still believes that it has the stream.
			if now := time.Now(); now.UnixNano()-s.last.Load() > int64(silence) && now.Sub(asked) > askEvery {
				asked = now
				if s.movedOn() {
					return errMoved
				}
			}
		}
	}
}

// movedOn asks the registry whether the stream is with another node now.
func (s *session) movedOn() bool {
	ctx, cancel := context.WithTimeout(s.ctx, retryMost)
	defer cancel()
	src, err := s.lookup(ctx)
	return err == nil && src.Epoch > s.epoch
}

// search is for how long and how often a lost stream is looked for. It goes on when a node was
// found from which nothing came.
type search struct {
	over  time.Time
	pause time.Duration // before the next attempt
}

func newSearch(grace time.Duration) search { return search{over: time.Now().Add(grace)} }

// find attaches again, to whichever node has the stream then; false when it was given up.
func (s *session) find(f *search) bool {
	if f.over.IsZero() {
		*f = newSearch(s.relay.cfg.Grace)
	}
	var why error
	for {
		select {
		case <-time.After(f.pause):
		case <-s.ctx.Done():
			return false
		}
		f.pause = min(max(2*f.pause, retryLeast), retryMost)
		info, ok := s.relay.cfg.Hub.Info(s.key)
		if !ok || info.Flowing {
			return false // its grace is over, or it is published here
		}
		if time.Now().After(f.over) {
			s.relay.cfg.Log.Warn("stream not found again", "stream", s.key, "reason", why)
			return false
		}
		if info.Viewers+info.Relays == 0 {
			continue // nobody to find it for
		}
		ctx, cancel := context.WithTimeout(s.ctx, attachWithin)
		err := s.attach(ctx)
		cancel()
		switch {
		case err == nil:
			return true
		case errors.Is(err, stream.ErrInUse):
			return false // published here meanwhile
		}
		why = err
	}
}

// reason translates what the other node said into what this one's hub says.
func reason(c wire.Code) error {
	switch c {
	case wire.Stopped:
		return stream.ErrStopped
	case wire.Offline:
		return stream.ErrOffline
	}
	return fmt.Errorf("the node ended the relay: %s", c)
}
