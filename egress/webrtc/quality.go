package webrtc

import (
	"slices"

	"sluice/media"
	"sluice/rtc"
	"sluice/stream"
)

// Quality is a rendition of a stream as viewers see it.
type Quality struct {
	Track         int    // of the stream
	Name          string // "480p"; "" is the picture as it is published
	Width, Height int    // pixels; 0: not known
	Bitrate       int    // bit/s
	Flowing       bool   // it comes to this node now; one that nobody watches here does not
	Codec         string
}

// Qualities are the renditions of a stream's picture, the best first.
func Qualities(i stream.Info) (all []Quality) {
	tracks := make([]media.Track, len(i.Tracks))
	for n, t := range i.Tracks {
		tracks[n] = t.Track
	}
	return qualities(i, media.Main(tracks))
}

func qualities(i stream.Info, main []media.Track) (all []Quality) {
	var whole stream.TrackInfo // the picture as it is published, of which the others have the shape
	if n := slices.IndexFunc(main, func(t media.Track) bool { return t.Kind == media.Video }); n >= 0 && n < len(i.Tracks) {
		whole = i.Tracks[n]
	}
	for _, r := range slices.Backward(rungsOf(i, main)) {
		t := i.Tracks[r.track]
		q := Quality{Track: r.track, Name: t.Rendition, Width: t.Width, Height: r.height, Bitrate: r.rate, Flowing: t.Flowing, Codec: t.Codec.Name}
		if q.Width == 0 && whole.Height > 0 {
			q.Width = (q.Height*whole.Width/whole.Height + 1) &^ 1 // encoders want it even
		}
		all = append(all, q)
	}
	return all
}

// wish is what a viewer wants of the picture.
type wish struct {
	track  int // in any case; -1: what his path takes
	height int // pixels at most; 0: as large as there is
}

// Qualities are the renditions of the session's stream, the best first.
func (s *Session) Qualities() []Quality {
	info, ok := s.egress.cfg.Hub.Info(s.request.Key)
	if !ok {
		return nil
	}
	return qualities(info, s.fan.group.Tracks())
}

// Live reports whether the stream's publisher sends.
func (s *Session) Live() bool {
	info, ok := s.egress.cfg.Hub.Info(s.request.Key)
	return ok && info.Flowing
}

// Playing is the rendition that the viewer gets; ok is false when that is not known.
func (s *Session) Playing() (q Quality, ok bool) {
	v := s.sender.Load()
	if v == nil {
		return q, false
	}
	all := s.Qualities()
	i := slices.IndexFunc(all, func(q Quality) bool { return q.Track == v.Rendition() })
	if i < 0 {
		return q, false
	}
	return all[i], true
}

// Rates are what a viewer's path takes by the last estimate, 0 when nothing is known, and what he gets, in bit/s.
type Rates struct{ Path, Video, Audio int }

// Rates of the session.
func (s *Session) Rates() (r Rates) {
	if v := s.sender.Load(); v != nil {
		r.Path = v.Stats().Estimate
	}
	if q, ok := s.Playing(); ok {
		r.Video = q.Bitrate
	}
	info, _ := s.egress.cfg.Hub.Info(s.request.Key)
	for _, t := range info.Tracks {
		if t.Kind == media.Audio {
			r.Audio = t.Bitrate
		}
	}
	return r
}

// Pin gives the viewer a rendition, by its track, whatever his path takes. It reports false when there is no such rendition. When it ends, he gets
// what his path takes.
func (s *Session) Pin(track int) bool {
	if !slices.ContainsFunc(s.Qualities(), func(q Quality) bool { return q.Track == track }) {
		return false
	}
	s.wish.Store(&wish{track: track})
	return true
}

// Adapt gives the viewer the rendition that his path takes, none larger than so many pixels where that is not 0.
func (s *Session) Adapt(width, height int) {
	if all := s.Qualities(); width > 0 && len(all) > 0 && all[0].Width > 0 { // all have one shape
		if h := width * all[0].Height / all[0].Width; height == 0 || h < height {
			height = h
		}
	}
	s.wish.Store(&wish{-1, height})
}

// Show says whether the viewer gets the picture, or the sound. It goes on at once, with the picture that is cached.
func (s *Session) Show(kind media.Kind, on bool) {
	s.showing.Lock()
	defer s.showing.Unlock()
	off := &s.off[kind]
	if off.Swap(!on) == !on {
		return
	}
	if v := s.sender.Load(); v != nil {
		s.showLocked(v, kind)
	}
}

// showLocked brings it to the loop that sends, when there is one; showing is held.
func (s *Session) showLocked(v *rtc.Sender, kind media.Kind) {
	switch {
	case s.off[kind].Load():
		s.fan.group.Pause(v, kind)
	case kind == media.Video:
		track := int(s.going.Load())
		if track < 0 {
			track = v.Rendition()
		}
		s.fan.sub.Cached(track, func(cached []*media.Burst) { s.fan.group.Resume(v, kind, cached) })
	default:
		s.fan.group.Resume(v, kind, nil)
	}
}

// allowed are the rungs of which the viewer may get one, and the one that he gets in any case; -1: none is.
func (s *Session) allowed(rungs []rung) ([]rung, int) {
	w := s.wish.Load()
	if w == nil {
		return rungs, -1
	}
	if slices.ContainsFunc(rungs, func(r rung) bool { return r.track == w.track }) {
		return rungs, w.track
	}
	if w.height == 0 || len(rungs) == 0 {
		return rungs, -1
	}
	small := slices.DeleteFunc(slices.Clone(rungs), func(r rung) bool { return r.height == 0 || r.height > w.height })
	if len(small) == 0 { // the smallest is the nearest to what he wants
		small = rungs[:1]
	}
	return small, -1
}

// tell says that the viewer gets another rendition.
func (s *Session) tell(track int) {
	if s.told.Load() == int32(track) {
		return
	}
	q, ok := s.Playing()
	if !ok || q.Track != track || q.Height == 0 { // of what has just begun not all is known
		return
	}
	s.told.Store(int32(track))
	if f := s.request.OnRendition; f != nil {
		f(q)
	}
}
