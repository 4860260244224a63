package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
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
	up      *upstream            // whose media the hub gets
	spare   *upstream            // that waits to take over; nil: none
	moving  bool                 // the spare takes over as soon as it can
	seeking bool                 // a spare is looked for
	sought  chan finding         // what came of it
	after   time.Time            // no spare is looked for before
	found   bool                 // the last look-up named a node
	src     Source               // which it was
	shunned map[string]time.Time // nodes to avoid, until when
	told    wire.Below           // what the upstream was told last,
	toldAt  time.Time            // and when

	ready chan struct{}            // the spare has a picture to begin with
	epoch atomic.Int64             // of the origin that it came from last
	route sync.Mutex               // before the locks of those who hear of it
	path  atomic.Pointer[[]string] // by which nodes it comes
	seen  atomic.Int64             // Arrived of the newest video burst that was given to the hub
}

// finding is what came of the search for a spare.
type finding struct {
	up    *upstream
	avoid []string
	err   error
}

func newSession(r *Relay, key media.Key) *session {
	s := &session{relay: r, key: key, ended: make(chan error, 1), done: make(chan struct{}), sought: make(chan finding, 1),
		ready: make(chan struct{}, 1), shunned: map[string]time.Time{}}
	s.path.Store(new([]string))
	return s
}

// use makes an upstream that publishes to the hub the session's.
func (s *session) use(up *upstream) {
	s.up = up
	s.told, s.toldAt = wire.Below{}, time.Time{}
	s.epoch.Store(up.src.Epoch)
	s.reroute(up)
	s.relay.cfg.Log.Info("stream pulled", "stream", s.key, "from", up.src.Node, "addr", up.src.Addr, "epoch", up.src.Epoch, "path", up.way())
}

// reroute tells this node's children by which nodes the stream comes.
func (s *session) reroute(up *upstream) {
	s.route.Lock()
	defer s.route.Unlock()
	if up.left.Load() {
		return
	}
	path := up.way()
	s.path.Store(&path)
	s.relay.cfg.Rerouted(s.key)
}

// run keeps the stream until nobody wants it, it is over, or it can't be found any more.
func (s *session) run() {
	defer s.relay.exit(s)
	defer s.finish()
	var search search
	for {
		reason := s.watch()
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

// leave ends the upstream. Unless the reason is ErrStopped, viewers stay for the hub's grace, and so do this node's children.
func (s *session) leave(reason error) {
	if !s.up.root {
		s.avoid(s.up.src.Node)
	}
	s.up.close(reason)
	s.up = nil
}

// Reasons for which an upstream is left.
var (
	errUnwanted = errors.New("the hub no longer takes the stream")
	errBetter   = errors.New("another node has it")
)

// watch returns when the upstream must be left and there is no spare, and why.
func (s *session) watch() error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		var spareDone, lost <-chan struct{}
		if s.spare != nil {
			spareDone = s.spare.done
		}
		if !s.seeking { // else what is found takes over
			lost = s.up.done
		}
		select {
		case <-s.ctx.Done():
			return stream.ErrClosing
		case why := <-s.ended:
			return fmt.Errorf("%w: %w", errUnwanted, why)
		case <-lost:
			if s.spare == nil || errors.Is(s.up.err, stream.ErrStopped) {
				return s.up.err
			}
			if err := s.swap(s.up.err); err != nil {
				return err
			}
		case <-s.up.asked:
			s.relay.cfg.Log.Info("upstream asks to be left", "stream", s.key, "node", s.up.src.Node)
			s.avoid(s.up.src.Node)
			s.moving = true
			s.seek()
		case f := <-s.sought:
			s.adopt(f)
		case <-spareDone:
			s.dropSpare()
		case <-s.ready:
		case now := <-tick.C:
			s.look(now)
		}
		if s.spare != nil && (s.moving || s.up.quiet(time.Now())) && s.spare.primed() {
			if err := s.swap(errBetter); err != nil {
				return err
			}
		}
	}
}

const (
	lookEvery = 100 * time.Millisecond
	// quietFor: an upstream without media for so long is asked for a sign of life.
	quietFor = 200 * time.Millisecond
	// deadAfter: without one for so long it is given up, as soon as the stream comes from elsewhere. A long path gets two round trips.
	deadAfter = 400 * time.Millisecond
	// silence: without media for so long, the registry is asked whether another node has the stream, and again after seekEvery.
	silence   = 2 * time.Second
	seekEvery = 5 * time.Second
	seekAgain = 300 * time.Millisecond // the same for an upstream that is dead
	tellEvery = 5 * time.Second        // what is below is told at least so often
)

// look does what is due by time.
func (s *session) look(now time.Time) {
	if b := s.relay.cfg.Below(s.key); !sameBelow(b, s.told) || now.Sub(s.toldAt) > tellEvery {
		s.told, s.toldAt = b, now
		s.up.out.Put(b)
	}
	up := s.up
	dead := up.dead(now)
	switch {
	case !up.quiet(now):
		if s.spare != nil && !s.moving {
			s.dropSpare() // false alarm
		}
	case (dead || up.silent(now) > silence) && now.After(s.after):
		s.after = now.Add(seekEvery)
		if dead {
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
		f := finding{avoid: avoid}
		f.up, _, f.err = s.take(ctx, &f.avoid, up)
		s.sought <- f // has room: there is one search at a time
	})
}

// adopt takes what a search for a spare found.
func (s *session) adopt(f finding) {
	s.seeking = false
	s.avoid(f.avoid...)
	if f.err != nil {
		s.relay.cfg.Log.Debug("no other node has the stream", "stream", s.key, "err", f.err)
		return
	}
	s.spare = f.up
	s.spare.refresh()
}

// finish lets go of the spare, also of one that is still looked for.
func (s *session) finish() {
	s.cancel()
	if s.seeking {
		s.adopt(<-s.sought)
	}
	s.dropSpare()
}

func (s *session) dropSpare() {
	if s.spare != nil {
		s.spare.close(errUnwanted)
		s.spare = nil
	}
}

// swap puts the spare in the upstream's place. Viewers go on at a key frame; an error says that the hub does not take it.
func (s *session) swap(why error) error {
	old, up := s.up, s.spare
	s.spare, s.moving = nil, false
	old.left.Store(true)
	err := up.publish(s.ctx)
	if err != nil {
		up.close(err)
		return fmt.Errorf("%w: %w", errUnwanted, err)
	}
	s.relay.cfg.Log.Info("stream comes from another node now", "stream", s.key, "was", old.src.Node, "reason", why)
	old.close(errUnwanted)
	s.use(up)
	return nil
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
	case wire.Full:
		return errFull
	}
	return fmt.Errorf("the node ended the relay: %s", c)
}
