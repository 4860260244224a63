package webrtc

import (
	"context"
	"sync"

	"sluice/media"
	"sluice/rtc"
	"sluice/stream"
)

// fan takes a stream's media once for all its viewers on this node. It is a stream.Subscriber.
type fan struct {
	egress *Egress
	key    media.Key
	group  *rtc.Group
	sub    *stream.Subscription
	ladder ladder
	moves  chan *Session // those for whom something was decided

	retired sync.Once
	ended   chan struct{} // closed when nobody joins any more

	// Under Egress.mu.
	sessions map[*Session]struct{}
	over     bool // the stream ended, or has other codecs now: nobody joins any more
}

// join finds the fan of a stream for a session, or makes one.
func (e *Egress) join(ctx context.Context, key media.Key, s *Session) (*fan, error) {
	if f := e.enter(key, s, nil); f != nil {
		return f, nil
	}
	f := &fan{egress: e, key: key, ended: make(chan struct{}), moves: make(chan *Session, 256), sessions: map[*Session]struct{}{}}
	sub, err := e.cfg.Hub.Subscribe(ctx, key, stream.SubscribeOptions{Subscriber: f, Shared: true})
	if err != nil {
		return nil, err
	}
	tracks := sub.Tracks()
	f.sub, f.group = sub, e.cfg.RTC.NewGroup(media.Main(tracks), e.cfg.Adaptive(key) || len(media.Main(tracks)) < len(tracks))
	f.group.SetPlayout(e.cfg.Playout(key))
	taken := e.enter(key, s, f)
	if taken == f {
		sub.Start()
		if len(media.Main(tracks)) < len(tracks) {
			f.look()
			f.Tracks(tracks)
		}
	} else { // somebody else was faster
		sub.Close()
	}
	return taken, nil
}

// enter adds a session to the fan of a stream, which is the given one where there is none.
func (e *Egress) enter(key media.Key, s *Session, otherwise *fan) *fan {
	e.mu.Lock()
	defer e.mu.Unlock()
	f := e.fans[key]
	if f == nil || f.over {
		f = otherwise
	}
	if f != nil {
		f.sessions[s] = struct{}{}
		e.fans[key] = f
	}
	return f
}

// leave is called once for each session that joined; the last one ends the fan.
func (f *fan) leave(s *Session) {
	f.egress.mu.Lock()
	delete(f.sessions, s)
	last := len(f.sessions) == 0
	if last {
		f.forgetLocked()
	}
	f.egress.mu.Unlock()
	if last {
		f.sub.Close()
	}
}

func (f *fan) forgetLocked() {
	f.over = true
	f.retired.Do(func() { close(f.ended) })
	if f.egress.fans[f.key] == f {
		delete(f.egress.fans, f.key)
	}
}

// begin begins the media for a viewer that is connected.
func (f *fan) begin(v *rtc.Sender) {
	first := f.ladder.first(f.group.Tracks())
	if first < 0 {
		f.group.Join(v, nil)
		return
	}
	f.sub.Cached(first, func(cached []*media.Burst) { f.group.Join(v, cached) })
}

// GOP implements stream.Subscriber: nobody has joined yet.
func (f *fan) GOP([]*media.Burst) {}

// Burst implements stream.Subscriber.
func (f *fan) Burst(b *media.Burst) { f.group.Send(b) }

// Tracks implements stream.Subscriber: with other codecs the viewers' sessions end, and come back to another fan.
func (f *fan) Tracks(tracks []media.Track) {
	if !same(media.Main(tracks), f.group.Tracks()) {
		go f.retire() // not with the stream locked
		return
	}
	f.ladder.begin(func() { go f.adapt() })
}

// same reports whether players that were made for some tracks take others.
func same(a, b []media.Track) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Kind != b[i].Kind || !a[i].Codec.Same(b[i].Codec) {
			return false
		}
	}
	return true
}

// Message implements stream.Subscriber: messages go to each viewer's own subscription.
func (f *fan) Message(media.Message) {}

// End implements stream.Subscriber.
func (f *fan) End(error) { go f.retire() }

func (f *fan) retire() {
	f.egress.mu.Lock()
	defer f.egress.mu.Unlock()
	f.forgetLocked()
}
