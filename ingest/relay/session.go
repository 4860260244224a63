package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"sluice/media"
	wire "sluice/relay"
	"sluice/stream"
)

// session is one stream for as long as it is wanted here, over changes of the node it comes from. What comes from there is on the hub,
// or what the backup publisher sends.
type session struct {
	relay  *Relay
	key    media.Key
	log    *slog.Logger    // with the id of the request for which it began
	asked  string          // the id of the request for which it began
	ctx    context.Context // ends when the session must
	cancel context.CancelFunc
	done   chan struct{} // closed when it has
	ended  chan error    // the hub no longer takes it

	// These belong to Pull, then to run.
	up       *upstream            // whose media the hub gets; nil: the feed's
	spare    *upstream            // that waits to take over; nil: none
	moving   bool                 // the spare takes over as soon as it can
	seeking  bool                 // a spare is looked for
	sought   chan finding         // what came of it
	after    time.Time            // no spare is looked for before
	feed     *feed                // the backup publisher's stream; nil: none
	wantFeed bool                 // there is one to be had
	feeding  bool                 // it is asked for
	fed      chan fed             // what came of it
	feedAt   time.Time            // it is not asked for before
	nudged   bool                 // a key frame was asked of who may have to take over
	found    bool                 // the last look-up named a node
	src      Source               // which it was
	shunned  map[string]time.Time // nodes to avoid, until when
	told     wire.Below           // what the upstream was told last,
	toldAt   time.Time            // and when

	ready  chan struct{}            // the spare has a picture to begin with
	news   chan struct{}            // the registry has told
	origin atomic.Pointer[Source]   // who publishes the stream, as told
	asking atomic.Int64             // epoch of the origin that an attempt asks
	backup atomic.Bool              // there is a backup publisher, as told since last asked
	epoch  atomic.Int64             // of the origin that it came from last
	route  sync.Mutex               // before the locks of those who hear of it
	path   atomic.Pointer[[]string] // by which nodes it comes
	seen   atomic.Int64             // Arrived of the newest video burst that was given to the hub
}

// finding is what came of the search for a spare, fed of that for the backup.
type finding struct {
	up     *upstream
	failed []string // nodes, on the way
	err    error
}

type fed struct {
	feed *feed
	err  error
}

func newSession(r *Relay, key media.Key, log *slog.Logger) *session {
	s := &session{relay: r, key: key, log: log, ended: make(chan error, 1), done: make(chan struct{}), sought: make(chan finding, 1), fed: make(chan fed, 1),
		ready: make(chan struct{}, 1), news: make(chan struct{}, 1), shunned: map[string]time.Time{}}
	s.path.Store(new([]string))
	s.origin.Store(new(Source))
	return s
}

// use makes an upstream that publishes to the hub the session's.
func (s *session) use(up *upstream) {
	s.up, s.moving, s.nudged = up, false, false
	s.told, s.toldAt = wire.Below{}, time.Time{}
	s.epoch.Store(up.src.Epoch)
	s.reroute(up)
	s.log.Info("stream pulled", "stream", s.key, "from", up.src.Node, "addr", up.src.Addr, "epoch", up.src.Epoch, "path", up.way())
}

// reroute tells this node's children by which nodes the stream comes; nil: by the backup publisher's.
func (s *session) reroute(up *upstream) {
	s.route.Lock()
	defer s.route.Unlock()
	var path []string
	if up != nil {
		if up.left.Load() {
			return
		}
		path = up.way()
	}
	s.path.Store(&path)
	s.relay.cfg.Rerouted(s.key)
}

// run keeps the stream until nobody wants it, it is over, or it can't be found any more.
func (s *session) run() {
	defer s.relay.exit(s)
	defer s.finish()
	defer s.relay.cfg.Watch(s.key, func(src Source) { s.origin.Store(&src); s.tell() })()
	if _, backup := s.key.Main(); !backup {
		defer s.relay.cfg.Watch(s.key.Backup(), func(Source) { s.backup.Store(true); s.tell() })()
	}
	var search search
	for {
		reason := s.watch()
		if s.up == nil || s.up.came.Load() || time.Since(s.up.began) > s.relay.cfg.Grace {
			search = newSearch(s.relay.cfg.Grace)
		}
		fromBackup := s.up == nil
		s.leave(reason)
		switch {
		case errors.Is(reason, errUnwanted) || s.ctx.Err() != nil:
			return
		case errors.Is(reason, stream.ErrStopped) && fromBackup:
			search.over = time.Now() // one attempt: the other publisher may have come back
		case errors.Is(reason, stream.ErrStopped):
			return
		}
		level := slog.LevelWarn
		if planned(reason) {
			level = slog.LevelInfo
		}
		s.log.Log(s.ctx, level, "upstream lost, looking for the stream", "stream", s.key, "reason", reason)
		s.relay.cfg.Suspect(s.key)
		s.relay.meters.changes.Add(lostParent)
		if !s.find(&search) {
			return
		}
	}
}

// tell wakes the session; it is called from any goroutine.
func (s *session) tell() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// leave ends what the hub gets. Unless the reason is ErrStopped, viewers stay for the hub's grace, and so do this node's children.
func (s *session) leave(reason error) {
	if s.up == nil {
		s.feed.close(reason)
		s.feed = nil
		return
	}
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
	errNews     = errors.New("the stream has another origin meanwhile")
	errSilent   = errors.New("it has fallen silent")
	errPlanned  = errors.New("the node ended the relay")
)

// watch returns when what the hub gets must be left and nothing can take over, and why.
func (s *session) watch() error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		var lost, asked, spareLost, feedLost <-chan struct{}
		if s.up != nil {
			asked = s.up.asked
			if !s.seeking || s.feed != nil { // else what is found takes over
				lost = s.up.done
			}
		}
		if s.spare != nil {
			spareLost = s.spare.done
		}
		if s.feed != nil {
			feedLost = s.feed.done
		}
		var over error
		select {
		case <-s.ctx.Done():
			return stream.ErrClosing
		case why := <-s.ended:
			return fmt.Errorf("%w: %w", errUnwanted, why)
		case <-lost:
			over = s.up.err
		case <-feedLost:
			if s.up == nil {
				over = s.feed.err
			} else {
				s.dropFeed()
			}
		case <-asked:
			s.log.Info("upstream asks to be left", "stream", s.key, "node", s.up.src.Node)
			s.avoid(s.up.src.Node)
			s.moving = true
			s.seek()
		case f := <-s.sought:
			s.adopt(f)
		case f := <-s.fed:
			s.adoptFeed(f)
		case <-spareLost:
			s.dropSpare()
		case <-s.news:
			s.learn()
		case <-s.ready:
		case now := <-tick.C:
			s.look(now)
			every := lookEvery
			if s.feed != nil {
				every = lookCloser
			}
			tick.Reset(every)
		}
		if err := s.settle(over); err != nil {
			return err
		}
	}
}

// settle changes over if that is due. over says why what the hub gets has ended; it is returned when nothing takes over.
func (s *session) settle(over error) error {
	now := time.Now()
	switch {
	case s.up == nil:
		if s.spare != nil && (over != nil || s.feed.late(now, lateAfter) && s.spare.silent(now) < lateAfter) {
			return s.swap(cmpErr(over, errSilent))
		}
	case s.feed != nil && (over != nil || s.up.late(now, lateAfter)) && s.feed.flows(now):
		return s.toFeed(over)
	case s.spare == nil || errors.Is(over, stream.ErrStopped):
	case over != nil, (s.moving || s.up.quiet(now)) && s.spare.primed():
		return s.swap(cmpErr(over, errBetter))
	}
	return over
}

// cmpErr is the first that is one.
func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// swap puts the spare in the place of what the hub gets. Viewers go on at a key frame; an error says that the hub does not take it.
func (s *session) swap(why error) error {
	old, oldFeed, up := s.up, s.feed, s.spare
	s.spare = nil
	was := "the backup publisher"
	if old != nil {
		was = old.src.Node
		old.left.Store(true)
	} else {
		oldFeed.left.Store(true)
	}
	if err := up.publish(s.ctx); err != nil {
		up.close(err)
		return fmt.Errorf("%w: %w", errUnwanted, err)
	}
	s.relay.meters.changes.Add(sparedParent)
	s.log.Info("stream comes from another node now", "stream", s.key, "was", was, "reason", why)
	s.use(up)
	if old != nil {
		old.close(errUnwanted)
	} else {
		s.dropFeed() // and have it anew, to wait
	}
	return nil
}

// toFeed makes the backup publisher's stream what the hub gets. The upstream, if it is still there, waits to come back.
func (s *session) toFeed(over error) error {
	up := s.up
	up.left.Store(true)
	if err := s.feed.publish(s.ctx); err != nil {
		return fmt.Errorf("%w: %w", errUnwanted, err)
	}
	s.relay.meters.changes.Add(tookBackup)
	s.log.Warn("the backup publisher takes over", "stream", s.key, "was", up.src.Node, "reason", cmpErr(over, errSilent))
	s.up, s.moving, s.nudged = nil, false, false
	s.reroute(nil)
	if over != nil {
		up.close(errUnwanted)
		return nil
	}
	up.retire()
	if s.spare != nil {
		s.dropSpare()
	}
	s.spare = up
	return nil
}

// finish lets go of whatever waits, also of what is still looked for.
func (s *session) finish() {
	s.cancel()
	if s.seeking {
		s.adopt(<-s.sought)
	}
	if s.feeding {
		s.adoptFeed(<-s.fed)
	}
	s.dropSpare()
	s.dropFeed()
}

// planned says whether the stream left the node in good order.
func planned(reason error) bool {
	var closed *quic.ApplicationError
	return errors.Is(reason, errPlanned) || errors.Is(reason, errNews) || errors.As(reason, &closed) && closed.Remote && closed.ErrorCode == wire.ConnClosing
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
	return fmt.Errorf("%w: %s", errPlanned, c)
}
