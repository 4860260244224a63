package stream

import (
	"fmt"
	"slices"
	"time"

	"sluice/media"
)

// publishBeside is Publish for who makes renditions of a stream that is there.
func (h *Hub) publishBeside(key media.Key, o PublishOptions) (*Publisher, error) {
	s := h.stream(key)
	if s == nil {
		return nil, fmt.Errorf("publish renditions of %s: %w", key, ErrOffline)
	}
	p := &Publisher{stream: s, options: o}
	s.mu.Lock()
	defer s.mu.Unlock()
	have := len(media.Main(s.tracks))
	if s.ended || s.pub == nil || have == 0 {
		return nil, fmt.Errorf("publish renditions of %s: %w", key, ErrOffline)
	}
	if len(media.Main(o.Tracks)) > 0 || len(s.tracks)+len(o.Tracks) > media.MaxTracks {
		return nil, fmt.Errorf("publish renditions of %s: %d tracks of which each must have a name; a stream has %d at most", key, len(o.Tracks), media.MaxTracks)
	}
	p.lanes = s.adoptLocked(append(slices.Clone(s.tracks[:have]), o.Tracks...))[have:]
	s.beside = append(s.beside, p)
	for own, i := range p.lanes {
		s.lanes[i].splice.restart(true)
		s.offerLocked(i, o.Tracks[own].Bitrate, 0)
	}
	s.wantsLocked(p, false)
	return p, nil
}

// addLocked puts the tracks that have no lane yet after the others.
func (s *Stream) addLocked(tracks []media.Track, lanes []int) {
	before := len(s.tracks)
	for i, at := range lanes {
		if at < 0 {
			lanes[i] = len(s.tracks)
			s.tracks = append(s.tracks[:len(s.tracks):len(s.tracks)], tracks[i])
			s.lanes = append(s.lanes, lane{})
		}
	}
	if len(s.tracks) > before {
		for _, sub := range s.subs {
			sub.options.Subscriber.Tracks(s.tracks)
		}
	}
}

// detachBesideLocked takes a publisher of renditions away; why is told to it unless it asked itself.
func (s *Stream) detachBesideLocked(p *Publisher, why error) {
	s.beside = slices.DeleteFunc(s.beside, func(o *Publisher) bool { return o == p })
	p.detached = true
	for _, i := range p.lanes {
		s.lanes[i].gop.reset()
		s.lanes[i].wanted = false
		s.offerLocked(i, 0, 0)
	}
	if f := p.options.OnEnd; f != nil && !p.closed {
		go f(why)
	}
}

// ofLocked is who publishes a track, and what that one calls it.
func (s *Stream) ofLocked(track int) (*Publisher, int) {
	if s.pub != nil {
		if own := slices.Index(s.pub.lanes, track); own >= 0 {
			return s.pub, own
		}
	}
	for _, p := range s.beside {
		if own := slices.Index(p.lanes, track); own >= 0 {
			return p, own
		}
	}
	return nil, 0
}

// alignedLocked is the timestamp that a burst has by the clock of another rendition of the picture: all of them go by one.
func (s *Stream) alignedLocked(b *media.Burst) stamp {
	if !s.lanes[b.Track].splice.anew || s.tracks[b.Track].Kind != media.Video || b.Captured == 0 {
		return stamp{}
	}
	own, _ := s.ofLocked(b.Track)
	if own.options.Exact {
		return stamp{b.Timestamp, true}
	}
	for i := range s.lanes {
		l := &s.lanes[i].splice
		if i == b.Track || s.tracks[i].Kind != media.Video || !l.begun || l.anew || l.captured == 0 {
			continue
		}
		if p, _ := s.ofLocked(i); p == nil || p != own && !own.options.Beside && !p.options.Beside {
			continue // what another publisher's clock said
		}
		rate := int64(s.tracks[i].Codec.ClockRate)
		at := l.lastTS + uint32((b.Captured-l.captured)/1e3*rate/1e6)
		exact := b.Timestamp // who publishes beside goes by the stream's clock, as a rule
		if !own.options.Beside {
			exact += l.tsShift // and who publishes both by one clock
		}
		if d := int64(int32(at - exact)); d > -rate/10 && d < rate/10 {
			at = exact
		}
		return stamp{at, true}
	}
	return stamp{}
}

// Add gives the publisher more renditions than it began with.
func (p *Publisher) Add(tracks []media.Track) {
	s := p.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.detached || len(tracks) == 0 || len(s.tracks)+len(tracks) > media.MaxTracks {
		return
	}
	have := len(media.Main(s.tracks))
	lanes := s.adoptLocked(append(slices.Clone(s.tracks[:have]), tracks...))[have:]
	for _, i := range lanes {
		s.lanes[i].splice.restart(true)
	}
	p.lanes = append(p.lanes[:len(p.lanes):len(p.lanes)], lanes...)
	s.wantsLocked(nil, false)
}

// learnEvery is how often the figures of a rendition may change.
const learnEvery = 5 * time.Second

// learnLocked gives the renditions of a publisher that did not say how large they are what was measured, so that it is known where they are not taken.
func (s *Stream) learnLocked(now time.Time) {
	if s.pub == nil || s.pub.options.Relayed {
		return
	}
	for _, i := range s.pub.lanes {
		t, l := s.tracks[i], &s.lanes[i]
		if t.Rendition == "" || l.rate == 0 || l.height == 0 || now.Sub(l.last) >= s.cfg.Silence || now.Sub(l.learned) < learnEvery {
			continue
		}
		if d := l.rate - t.Bitrate; max(d, -d)*4 > t.Bitrate || t.Height != l.height {
			l.learned = now
			s.offerLocked(i, l.rate, l.height)
		}
	}
}

// goesOn is how long after its last burst a picture that nobody took is taken to have come all the time.
const goesOn = 300 * time.Millisecond

// staleAfter is how long nothing has come of a picture, while other tracks went on, when what is cached of it is of no use any more.
const staleAfter = 2 * time.Second

// freshLocked is what is cached of a picture. What does not come any more, as nobody took it, or its publisher was told to pause, is none.
func (s *Stream) freshLocked(track int) []*media.Burst {
	l := &s.lanes[track]
	if time.Since(l.last) > staleAfter && time.Since(s.last) < staleAfter/2 {
		l.gop.reset()
	}
	return l.gop.bursts
}

// takes reports whether a subscription wants a track.
func (sub *Subscription) takes(track int) bool { return sub.wants>>track&1 == 1 }

// Want says whether a subscription takes a track, of which it gets the next key frame and what follows. At first it takes all but the renditions;
// see also Cached.
func (sub *Subscription) Want(track int, wanted bool) {
	s := sub.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub.closed || track < 0 || track >= media.MaxTracks {
		return
	}
	if sub.takes(track) == wanted {
		return
	}
	sub.wants ^= 1 << track
	s.wantsLocked(nil, false)
}

// wantsLocked tells publishers what is wanted of them: what has changed, or all to one that is new.
func (s *Stream) wantsLocked(anew *Publisher, now bool) {
	var all uint32
	for _, sub := range s.live {
		all |= sub.wants
	}
	if len(s.live) == 0 {
		all = 1<<len(media.Main(s.tracks)) - 1
	}
	for i := range s.lanes {
		p, own := s.ofLocked(i)
		wanted := all>>i&1 == 1
		if p == nil || wanted == s.lanes[i].wanted && p != anew {
			continue
		}
		s.lanes[i].wanted = wanted
		if l := &s.lanes[i]; wanted && p != anew && time.Since(l.last) > goesOn {
			l.gop.reset()
		}
		expected := p == anew && wanted == (s.tracks[i].Rendition == "")
		if f := p.options.OnWanted; f != nil && !expected {
			f(own, wanted, now || p == anew)
		}
	}
}
