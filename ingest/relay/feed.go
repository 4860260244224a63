package relay

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sluice/media"
	"sluice/stream"
)

// feed is the backup publisher's stream, which is on this node's hub under a name of its own, ready to be what viewers of the
// stream itself get. As long as it is not, it costs nothing here: the hub keeps its GOP.
type feed struct {
	session *session
	sub     *stream.Subscription
	done    chan struct{} // closed when it is over
	err     error         // why; valid after done
	left    atomic.Bool   // somebody else has taken over
	stop    chan struct{}
	wake    chan struct{}
	wg      sync.WaitGroup
	pub     *stream.Publisher // run's

	mu        sync.Mutex
	tracks    []media.Track
	active    bool // it publishes
	published int  // how often
	queue     []event
	cut       bool // the queue was full, and is empty now
	paces     []pace
}

// event is what one of the two hubs says: exactly one of these.
type event struct {
	burst  *media.Burst
	tracks []media.Track
	down   *media.Message // to the viewers
	up     *media.Message // to the publisher
	key    int            // a key frame of track key-1 is wanted
}

// maxEvents bounds the queue between the two hubs. When it is full it is emptied, and viewers go on at the next key frame.
const maxEvents = 2048

// openFeed subscribes to the backup publisher's stream.
func (s *session) openFeed(ctx context.Context) (*feed, error) {
	f := &feed{session: s, done: make(chan struct{}), stop: make(chan struct{}), wake: make(chan struct{}, 1)}
	sub, err := s.relay.cfg.Hub.Subscribe(ctx, s.key.Backup(), stream.SubscribeOptions{Subscriber: f, Relay: true})
	if err != nil {
		return nil, fmt.Errorf("take the backup: %w", err)
	}
	f.sub = sub
	f.mu.Lock()
	if f.tracks == nil { // else the hub was quicker with newer ones
		f.tracks = sub.Tracks()
	}
	f.mu.Unlock()
	return f, nil
}

// publish gives viewers of the stream what the backup publisher sends.
func (f *feed) publish(ctx context.Context) (err error) {
	f.mu.Lock()
	f.active = true
	tracks := f.tracks
	f.paces = make([]pace, len(tracks))
	f.mu.Unlock()
	if f.pub, err = f.offerTo(ctx, tracks); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(f.session.ctx)
	f.wg.Go(func() {
		defer cancel()
		f.run(ctx)
	})
	f.sub.Start()
	return nil
}

func (f *feed) offerTo(ctx context.Context, tracks []media.Track) (*stream.Publisher, error) {
	s := f.session
	f.mu.Lock()
	f.published++
	published := f.published
	f.mu.Unlock()
	return s.relay.cfg.Hub.Publish(ctx, s.key, stream.PublishOptions{
		Tracks:            tracks,
		Relayed:           true,
		OnKeyFrameRequest: func(track int) { f.put(event{key: track + 1}) },
		OnMessage:         func(m media.Message) { f.put(event{up: &m}) },
		OnEnd: func(why error) {
			f.mu.Lock()
			latest := f.published == published
			f.mu.Unlock()
			if latest && !f.left.Load() {
				select {
				case s.ended <- why:
				default:
				}
			}
		},
	})
}

// put queues what one hub has for the other. It is called with either one's stream locked.
func (f *feed) put(e event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.active {
		if e.burst != nil {
			e.burst.Release()
		}
		return
	}
	if len(f.queue) >= maxEvents {
		f.releaseLocked()
		f.cut = true
	}
	f.queue = append(f.queue, e)
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// releaseLocked empties the queue; of tracks only the latest count, and they stay.
func (f *feed) releaseLocked() {
	var keep []event
	for _, e := range f.queue {
		switch {
		case e.burst != nil:
			e.burst.Release()
		case e.tracks != nil:
			keep = []event{e}
		}
	}
	f.queue = keep
}

// run carries events from one hub to the other.
func (f *feed) run(ctx context.Context) {
	for {
		f.mu.Lock()
		queue, cut := f.queue, f.cut
		f.queue, f.cut = nil, false
		tracks := f.tracks
		f.mu.Unlock()
		if cut {
			for i := range tracks {
				f.pub.Discontinuity(i)
			}
		}
		for _, e := range queue {
			f.carry(ctx, e)
		}
		if len(queue) > 0 {
			continue
		}
		select {
		case <-f.wake:
		case <-f.stop:
			return
		}
	}
}

func (f *feed) carry(ctx context.Context, e event) {
	switch {
	case e.burst != nil:
		b := e.burst.Clone() // the hub numbers it anew
		e.burst.Release()
		f.session.show(b, f.isVideo(b.Track))
		f.pub.Write(b)
	case e.tracks != nil:
		if pub, err := f.offerTo(ctx, e.tracks); err == nil { // else the session is told by OnEnd
			f.pub = pub
		}
	case e.down != nil:
		f.pub.Message(*e.down)
	case e.up != nil:
		f.sub.Send(*e.up)
	default:
		f.sub.RequestKeyFrame(e.key - 1)
	}
}

func (f *feed) isVideo(track int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return track < len(f.tracks) && f.tracks[track].Kind == media.Video
}

// close lets go of the backup.
func (f *feed) close(why error) {
	f.sub.Close()
	close(f.stop)
	f.wg.Wait()
	f.mu.Lock()
	f.active = false
	f.releaseLocked()
	f.mu.Unlock()
	if f.pub != nil {
		f.pub.Close(why)
	}
}

// refresh asks for key frames, so that a change-over need not wait for one.
func (f *feed) refresh() {
	f.mu.Lock()
	n := len(f.tracks)
	f.mu.Unlock()
	for i := range n {
		f.sub.RequestKeyFrame(i) // of sound it is nothing
	}
}

// flows reports whether the backup publisher sends at this moment.
func (f *feed) flows(now time.Time) bool {
	info, ok := f.session.relay.cfg.Hub.Info(f.session.key.Backup())
	return ok && info.Flowing && now.Sub(info.Last) < lateAfter
}

// late reports whether a track that flowed does no more.
func (f *feed) late(now time.Time, after time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.paces {
		if f.paces[i].late(now, after) {
			return true
		}
	}
	return false
}

// GOP, Burst, Message, Tracks and End are called by the hub, with the backup's stream locked.

// GOP drops a picture that viewers have seen as the other publisher sent it: showing it again would put them behind.
func (f *feed) GOP(cached []*media.Burst) {
	known := map[int]bool{} // tracks, and whether theirs is taken
	for _, b := range cached {
		take, ok := known[b.Track]
		if !ok {
			if take = f.session.unseen(b); !take {
				f.put(event{key: b.Track + 1})
			}
			known[b.Track] = take
		}
		if take {
			f.put(event{burst: b.Retain()})
		}
	}
}

func (f *feed) Burst(b *media.Burst) {
	f.mu.Lock()
	if b.Track < len(f.paces) {
		f.paces[b.Track].beat(time.Now())
	}
	f.mu.Unlock()
	f.put(event{burst: b.Retain()})
}

func (f *feed) Tracks(tracks []media.Track) {
	f.mu.Lock()
	f.tracks = tracks
	f.paces = make([]pace, len(tracks))
	f.mu.Unlock()
	f.put(event{tracks: tracks})
}

func (f *feed) Message(m media.Message) { f.put(event{down: &m}) }

func (f *feed) End(reason error) {
	f.err = reason
	close(f.done)
}
