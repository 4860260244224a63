package webrtc

import (
	"slices"
)

// Quality is a rendition of a stream as viewers see it.
type Quality struct {
	Track         int    // of the stream
	Name          string // "480p"; "" is the picture as it is published
	Width, Height int    // pixels; 0: not known
	Bitrate       int    // bit/s
	Codec         string
}

// Qualities are the renditions of the session's stream, the best first.
func (s *Session) Qualities() (all []Quality) {
	info, ok := s.egress.cfg.Hub.Info(s.request.Key)
	if !ok {
		return nil
	}
	rungs := rungsOf(info, s.fan.group.Tracks())
	for _, r := range slices.Backward(rungs) {
		t := info.Tracks[r.track]
		all = append(all, Quality{r.track, t.Rendition, t.Width, r.height, r.rate, t.Codec.Name})
	}
	return all
}

// Playing is the rendition that the viewer gets, and what his path takes by the last estimate, in bit/s; 0: nothing is known.
func (s *Session) Playing() (q Quality, estimate int) {
	v := s.sender.Load()
	if v == nil {
		return q, 0
	}
	for _, q = range s.Qualities() {
		if q.Track == v.Rendition() {
			break
		}
	}
	return q, v.Stats().Estimate
}

// Pin gives the viewer the rendition of a height whatever his path takes; 0: the one that it takes. It reports whether there is such a rendition.
func (s *Session) Pin(height int) bool {
	if height == 0 {
		s.pinned.Store(-1)
		return true
	}
	i := slices.IndexFunc(s.Qualities(), func(q Quality) bool { return q.Height == height })
	if i < 0 {
		return false
	}
	s.pinned.Store(int32(s.Qualities()[i].Track))
	return true
}

// tell says that the viewer gets another rendition.
func (s *Session) tell(track int) {
	if s.told.Swap(int32(track)) == int32(track) {
		return
	}
	if f := s.request.OnRendition; f != nil {
		if q, _ := s.Playing(); q.Track == track {
			f(q)
		}
	}
}
