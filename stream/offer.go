package stream

import "slices"

// Offer says what a rendition takes, bit/s, where it was another figure when it was published; 0: it can't be had at present, and viewers do
// not count on it.
func (p *Publisher) Offer(track, bitrate int) {
	s := p.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if !p.detached && track < len(p.lanes) {
		s.offerLocked(p.lanes[track], bitrate)
	}
}

// offerLocked tells subscribers, who may hold on to the tracks that they were told before.
func (s *Stream) offerLocked(track, bitrate int) {
	if s.tracks[track].Rendition == "" || s.tracks[track].Bitrate == bitrate {
		return
	}
	s.tracks = slices.Clone(s.tracks)
	s.tracks[track].Bitrate = bitrate
	for _, sub := range s.subs {
		sub.options.Subscriber.Tracks(s.tracks)
	}
}
