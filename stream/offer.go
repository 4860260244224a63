package stream

import (
	"cmp"
	"slices"
)

// Offer says what a rendition takes, bit/s, where it was another figure when it was published; 0: it can't be had at present, and viewers do
// not count on it. A height of 0 is the one that was said before.
func (p *Publisher) Offer(track, bitrate, height int) {
	s := p.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if !p.detached && track < len(p.lanes) {
		s.offerLocked(p.lanes[track], bitrate, height)
	}
}

// offerLocked tells subscribers, who may hold on to the tracks that they were told before.
func (s *Stream) offerLocked(track, bitrate, height int) {
	t := s.tracks[track]
	t.Bitrate, t.Height = bitrate, cmp.Or(height, t.Height)
	if t.Rendition == "" || t == s.tracks[track] {
		return
	}
	s.tracks = slices.Clone(s.tracks)
	s.tracks[track] = t
	for _, sub := range s.subs {
		sub.options.Subscriber.Tracks(s.tracks)
	}
}
