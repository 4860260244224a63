package webrtc

import (
	"context"

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

	// Under Egress.mu.
	viewers int
	over    bool // the stream ended, or has other codecs now: nobody joins any more
}

// join finds the fan of a stream, or makes one.
func (e *Egress) join(ctx context.Context, key media.Key) (*fan, error) {
	if f := e.enter(key, nil); f != nil {
		return f, nil
	}
	f := &fan{egress: e, key: key}
	sub, err := e.cfg.Hub.Subscribe(ctx, key, stream.SubscribeOptions{Subscriber: f, Shared: true})
	if err != nil {
		return nil, err
	}
	f.sub, f.group = sub, e.cfg.RTC.NewGroup(sub.Tracks(), false)
	taken := e.enter(key, f)
	if taken == f {
		sub.Start()
	} else { // somebody else was faster
		sub.Close()
	}
	return taken, nil
}

// enter adds a viewer to the fan of a stream, which is the given one where there is none.
func (e *Egress) enter(key media.Key, otherwise *fan) *fan {
	e.mu.Lock()
	defer e.mu.Unlock()
	f := e.fans[key]
	if f == nil || f.over {
		f = otherwise
	}
	if f != nil {
		f.viewers++
		e.fans[key] = f
	}
	return f
}

// leave is called once for each viewer that joined; the last one ends the fan.
func (f *fan) leave() {
	f.egress.mu.Lock()
	f.viewers--
	last := f.viewers == 0
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
	if f.egress.fans[f.key] == f {
		delete(f.egress.fans, f.key)
	}
}

// begin begins the media for a viewer that is connected.
func (f *fan) begin(v *rtc.Sender) {
	f.sub.Cached(func(cached []*media.Burst) { f.group.Join(v, cached) })
}

// GOP implements stream.Subscriber: nobody has joined yet.
func (f *fan) GOP([]*media.Burst) {}

// Burst implements stream.Subscriber.
func (f *fan) Burst(b *media.Burst) { f.group.Send(b) }

// Tracks implements stream.Subscriber: the viewers' sessions end, and come back to another fan.
func (f *fan) Tracks([]media.Track) { go f.retire() } // not with the stream locked

// Message implements stream.Subscriber: messages go to each viewer's own subscription.
func (f *fan) Message(media.Message) {}

// End implements stream.Subscriber.
func (f *fan) End(error) { go f.retire() }

func (f *fan) retire() {
	f.egress.mu.Lock()
	defer f.egress.mu.Unlock()
	f.forgetLocked()
}
