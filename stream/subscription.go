package stream

import (
	"slices"
	"time"

	"sluice/media"
)

// Subscriber takes a stream. Its methods are called with the stream locked, one at a time: they must
// neither block nor call the hub or the subscription. End is the last call.
type Subscriber interface {
	// GOP has the packets since the last key frame, oldest first; it is called once, before the first
	// Burst, also when there are none. Bursts must be retained to be kept.
	GOP([]*media.Burst)
	// Burst has the next packets of a track. It must be retained to be kept.
	Burst(*media.Burst)
	// Tracks says that the stream has other tracks than those before: more renditions, or others altogether because a new publisher came.
	Tracks([]media.Track)
	// Message has a message of the data channel. Its data must not be modified.
	Message(media.Message)
	// End says that the stream is over, and why.
	End(reason error)
}

// SubscribeOptions describe a subscriber.
type SubscribeOptions struct {
	Subscriber Subscriber
	Relay      bool // another node: not counted as a viewer, and sent away when the stream moves
	// Shared: takes the media for several viewers, each of whom has a subscription of his own that is never started. It
	// is not counted as a viewer.
	Shared bool
}

// Subscription is a subscriber's place on a stream.
type Subscription struct {
	stream  *Stream
	options SubscribeOptions
	tracks  []media.Track
	wants   uint32 // a bit for each track that is taken
	started bool
	closed  bool
}

// subscribe adds a subscriber; nil when the stream has ended, or has no publisher at the moment: who comes new should wait
// for one, and not see the last picture of one that may not return.
func (s *Stream) subscribe(o SubscribeOptions) (sub *Subscription, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.pub == nil {
		return nil, s.ended
	}
	sub = &Subscription{stream: s, options: o, tracks: s.tracks, wants: 1<<len(media.Main(s.tracks)) - 1}
	s.subs = append(s.subs, sub)
	return sub, false
}

// Tracks are the stream's tracks at the time of the subscription.
func (sub *Subscription) Tracks() []media.Track { return sub.tracks }

// Start begins the media: first what came since the last key frame, then what comes. Where nothing is
// cached, a key frame is requested.
func (sub *Subscription) Start() {
	s := sub.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub.closed || sub.started {
		return
	}
	sub.started = true
	s.live = append(s.live, sub)
	s.wantsLocked(nil, false)
	sub.options.Subscriber.GOP(s.cachedLocked(sub.wants))
}

// Cached calls f with what came of a track since its last key frame, with the stream locked: what the subscriber of a subscription that
// was started gets afterwards follows it without a gap, and if it did not want the track before, it does now. Bursts must be retained to be
// kept. Where nothing is cached, a key frame is requested.
func (sub *Subscription) Cached(track int, f func([]*media.Burst)) {
	s := sub.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub.closed || track < 0 || track >= len(s.lanes) {
		return
	}
	if !sub.takes(track) {
		sub.wants |= 1 << track
		s.wantsLocked(nil, true)
	}
	f(s.cachedLocked(1 << track))
}

func (s *Stream) cachedLocked(which uint32) (cached []*media.Burst) {
	for i := range s.lanes {
		if s.tracks[i].Kind != media.Video || which>>i&1 == 0 {
			continue
		}
		if bursts := s.freshLocked(i); len(bursts) > 0 {
			cached = append(cached, bursts...)
		} else {
			s.requestKeyLocked(i)
		}
	}
	return cached
}

// RequestKeyFrame asks the publisher for a key frame. Requests are merged over all subscribers.
func (sub *Subscription) RequestKeyFrame(track int) {
	s := sub.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if !sub.closed && track >= 0 && track < len(s.lanes) && s.tracks[track].Kind == media.Video {
		s.requestKeyLocked(track)
	}
}

// Send sends a message of the data channel to the publisher and to all other subscribers.
func (sub *Subscription) Send(m media.Message) {
	s := sub.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub.closed {
		return
	}
	if s.pub != nil && s.pub.options.OnMessage != nil {
		s.pub.options.OnMessage(m)
	}
	for _, other := range s.subs {
		if other != sub {
			other.options.Subscriber.Message(m)
		}
	}
}

// Close ends the subscription. Nothing is called after it has returned, not even End.
func (sub *Subscription) Close() {
	s := sub.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub.closed {
		return
	}
	sub.closed = true
	s.removeLocked(func(o *Subscription) bool { return o == sub })
	s.wantsLocked(nil, false)
	s.idle = time.Now()
}

// removeLocked takes subscriptions off the stream.
func (s *Stream) removeLocked(which func(*Subscription) bool) {
	s.subs = slices.DeleteFunc(s.subs, which)
	s.live = slices.DeleteFunc(s.live, which)
}
