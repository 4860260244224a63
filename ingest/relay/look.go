package relay

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	wire "sluice/relay"
	"sluice/stream"
)

const (
	// What is due by time is looked at so often, and with a backup publisher, closer.
	lookEvery, lookCloser = 100 * time.Millisecond, 25 * time.Millisecond
	// quietFor: an upstream without media for so long is asked for a sign of life.
	quietFor = 200 * time.Millisecond
	// deadAfter: without one for so long it is given up, as soon as the stream comes from elsewhere. A long path gets two round trips.
	deadAfter = 400 * time.Millisecond
	// silence: without media for so long, the registry is asked whether another node has the stream, and again after seekEvery.
	silence   = 2 * time.Second
	seekEvery = 5 * time.Second
	seekAgain = 200 * time.Millisecond // the same for an upstream that is dead
	// While the backup publisher is on the hub, the other one is looked for so often; news make it sooner.
	seekMain  = 15 * time.Second
	tellEvery = 5 * time.Second // what is below is told at least so often
)

// look does what is due by time.
func (s *session) look(now time.Time) {
	if s.wantFeed && s.feed == nil && !s.feeding && now.After(s.feedAt) {
		s.feeding = s.relay.start(func() {
			ctx, cancel := context.WithTimeout(s.ctx, pullWithin)
			defer cancel()
			f, err := s.openFeed(ctx)
			s.fed <- fed{f, err} // has room: there is one at a time
		})
	}
	if s.up == nil {
		s.lookFromFeed(now)
		return
	}
	if b := s.relay.cfg.Below(s.key); !sameBelow(b, s.told) || now.Sub(s.toldAt) > tellEvery {
		s.told, s.toldAt = b, now
		s.up.out.Put(b)
	}
	up := s.up
	if s.feed != nil {
		s.nudge(up.late(now, quietFor), s.feed.refresh)
	}
	dead := up.dead(now)
	if dead {
		s.relay.cfg.Suspect(s.key) // its origin may be gone: to be told at once of another
	}
	switch newer := s.origin.Load().Epoch > s.epoch.Load(); {
	case !up.quiet(now):
		if s.spare != nil && !s.moving {
			s.dropSpare() // false alarm
		}
	case (dead || newer || up.silent(now) > silence) && now.After(s.after):
		s.after = now.Add(seekEvery)
		if dead || newer {
			s.after = now.Add(seekAgain)
		}
		if !up.root {
			s.avoid(up.src.Node)
		}
		s.seek()
	}
	if s.moving && s.spare == nil && now.After(s.after) {
		s.after = now.Add(seekAgain)
		s.seek()
	}
}

// lookFromFeed is look while the backup publisher's stream is on the hub.
func (s *session) lookFromFeed(now time.Time) {
	if s.spare != nil {
		s.nudge(s.feed.late(now, quietFor), s.spare.refresh)
	} else if now.After(s.after) {
		s.after = now.Add(seekMain)
		s.seek()
	}
}

// nudge asks for key frames once each time that something is late.
func (s *session) nudge(late bool, refresh func()) {
	if late && !s.nudged {
		refresh()
	}
	s.nudged = late
}

// learn takes what the registry has told.
func (s *session) learn() {
	if s.backup.Swap(false) {
		s.wantFeed, s.feedAt = true, time.Time{}
	}
	src := s.origin.Load()
	if src.Epoch <= s.epoch.Load() {
		return
	}
	if s.up != nil && s.up.way()[0] == src.Node && !s.up.quiet(time.Now()) {
		s.epoch.Store(src.Epoch) // the same node, which has joined the cluster again
		return
	}
	s.after = time.Time{}
}

func sameBelow(a, b wire.Below) bool {
	return a.Nodes == b.Nodes && a.Busy == b.Busy && slices.Equal(a.Regions, b.Regions)
}

// seek looks for the stream elsewhere while it still comes.
func (s *session) seek() {
	if s.seeking || s.spare != nil {
		return
	}
	avoid, up := s.avoided(), s.up
	s.seeking = s.relay.start(func() {
		ctx, cancel := context.WithTimeout(s.ctx, attachWithin)
		defer cancel()
		var f finding
		f.up, _, f.err = s.take(ctx, avoid, &f.failed, up)
		s.sought <- f // has room: there is one search at a time
	})
}

// adopt takes what a search for a spare found.
func (s *session) adopt(f finding) {
	s.seeking = false
	s.avoid(f.failed...)
	if f.err != nil {
		s.log.Debug("no other node has the stream", "stream", s.key, "err", f.err)
		return
	}
	s.spare = f.up
	if s.up != nil {
		s.spare.mirror(s.up)
		s.spare.refresh()
		return
	}
	s.epoch.Store(f.up.src.Epoch)
	s.log.Info("the publisher is back and waits beside its backup", "stream", s.key, "node", f.up.src.Node)
}

func (s *session) dropSpare() {
	if s.spare != nil {
		s.spare.close(errUnwanted)
		s.spare = nil
	}
}

// adoptFeed takes the backup publisher's stream.
func (s *session) adoptFeed(f fed) {
	s.feeding = false
	switch {
	case f.err == nil:
		s.feed = f.feed
		s.log.Info("the stream has a backup", "stream", s.key)
	case errors.Is(f.err, stream.ErrOffline):
		s.wantFeed = false // until the registry tells
	default:
		s.feedAt = time.Now().Add(seekEvery)
	}
}

// dropFeed lets go of the backup publisher's stream; if that has ended, until the registry tells of another.
func (s *session) dropFeed() {
	if s.feed == nil {
		return
	}
	select {
	case <-s.feed.done:
		s.wantFeed = errors.Is(s.feed.err, stream.ErrLeaseLost)
	default:
	}
	s.feed.close(errUnwanted)
	s.feed = nil
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
	for attempt := 0; ; attempt++ {
		select {
		case <-time.After(f.pause):
		case <-s.news:
			s.learn()
			if s.origin.Load().Epoch <= s.epoch.Load() && !s.wantFeed && attempt > 0 {
				continue
			}
		case <-s.ctx.Done():
			return false
		}
		f.pause = min(max(2*f.pause, retryLeast), retryMost)
		info, ok := s.relay.cfg.Hub.Info(s.key)
		if !ok || info.Flowing {
			return false // its grace is over, or it is published here
		}
		if attempt > 0 && time.Now().After(f.over) {
			s.log.Warn("stream not found again", "stream", s.key, "reason", why)
			return false
		}
		if info.Viewers+info.Relays == 0 {
			continue // nobody to find it for
		}
		err := s.attempt()
		switch {
		case err == nil:
			return true
		case errors.Is(err, stream.ErrInUse):
			return false // published here meanwhile
		case errors.Is(err, errNews):
			f.pause = 0
		}
		why = err
	}
}

// attempt is one attach. It is given up when the registry tells of a newer origin than the one that is asked: a node that is gone
// takes its time not to answer.
func (s *session) attempt() error {
	ctx, cancel := context.WithTimeout(s.ctx, attachWithin)
	defer cancel()
	ctx, moved := context.WithCancelCause(ctx)
	defer moved(nil)
	s.asking.Store(math.MaxInt64) // nobody yet
	over := make(chan error, 1)
	go func() { over <- s.attach(ctx) }()
	for {
		select {
		case err := <-over:
			s.learn()
			if err != nil && errors.Is(context.Cause(ctx), errNews) {
				err = errNews
			}
			return err
		case <-s.news:
			if s.origin.Load().Epoch > s.asking.Load() {
				moved(errNews)
			}
		}
	}
}

// attachFeed publishes the backup publisher's stream, because there is no other.
func (s *session) attachFeed(ctx context.Context) (err error) {
	if s.feed != nil {
		select {
		case <-s.feed.done:
			s.dropFeed()
		default:
		}
	}
	if s.feed == nil {
		if s.feed, err = s.openFeed(ctx); err != nil {
			s.feed = nil
			return err
		}
	}
	if err := s.feed.publish(ctx); err != nil {
		s.dropFeed()
		return err
	}
	s.nudged = false
	s.after = time.Now().Add(seekEvery)
	s.reroute(nil)
	s.log.Info("stream pulled from its backup publisher", "stream", s.key)
	return nil
}
