package stream

import (
	"errors"
	"time"

	"sluice/media"
)

// Publisher is the one that a stream takes its media from.
type Publisher struct {
	stream  *Stream
	options PublishOptions

	// Under the stream's lock.
	lanes    []int // own track → the stream's track
	detached bool  // the stream no longer listens to it
	closed   bool  // it ended by itself
}

// Write sends a burst and takes over the caller's reference to it. The burst must not have been shared yet: its
// numbers are rewritten. Different tracks may be written from different goroutines.
func (p *Publisher) Write(b *media.Burst) { p.stream.write(p, b) }

// Discontinuity says that packets were left out before the next ones on a track: those are
// numbered without a gap, and video goes on at the next key frame. The track's clock is still the same.
func (p *Publisher) Discontinuity(track int) {
	s := p.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if !p.detached && track < len(p.lanes) {
		i := p.lanes[track]
		s.lanes[i].splice.skip(s.tracks[i].Kind == media.Video)
	}
}

// Message sends a message of the data channel to all subscribers.
func (p *Publisher) Message(m media.Message) {
	s := p.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.detached {
		return
	}
	if len(s.tracks) == 0 {
		s.last = time.Now() // a publisher of data alone lives by its messages
	}
	for _, sub := range s.subs {
		sub.options.Subscriber.Message(m)
	}
}

// Close ends the publisher; the stream waits for another one for a while. The reason is ErrStopped when the
// user wanted it, ErrClosing when the node stops, else what went wrong. Closing twice does nothing.
func (p *Publisher) Close(reason error) {
	s := p.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	if p.detached {
		return
	}
	if p.options.Beside {
		s.detachBesideLocked(p, reason)
		return
	}
	switch {
	case errors.Is(reason, ErrStopped):
		reason = ErrStopped
	case errors.Is(reason, ErrClosing):
		reason = ErrClosing
	default:
		if s.flowing && !p.options.Relayed { // the relay knows whether that was planned, and says so
			s.cfg.Log.Warn("publisher lost", "stream", s.key, "reason", reason, "grace", s.cfg.Grace)
		}
		reason = ErrLost
	}
	s.detachLocked(p, reason)
	if p.options.Relayed && reason == ErrStopped {
		s.last = s.last.Add(-s.cfg.Farewell) // the node it came from has waited already
	}
}
