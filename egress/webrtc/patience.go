package webrtc

import (
	"slices"
	"time"

	"sluice/media"
	"sluice/rtc"
)

// overdue is how long a viewer waits for the key frame of the rendition that he was told to take before something is done about it. He may see nothing
// meanwhile, if his path was full.
const overdue = 2 * time.Second

// patience is how long a viewer has waited for a rendition.
type patience struct {
	track int
	since time.Time
}

// step says what is to be done for a viewer who gets one rendition and was told to take another, -1 if none: to ask for a key frame of a track, and whether he must be
// told to take that one, as what he was told to take can't be had any more.
func (p *patience) step(now time.Time, gets, going int, rungs []rung) (ask int, take bool) {
	if going < 0 || gets == going || p.track != going || p.since.IsZero() {
		p.track, p.since = going, now
		return -1, false
	}
	if now.Sub(p.since) < overdue || len(rungs) == 0 {
		return -1, false
	}
	p.since = now
	has := func(track int) bool { return slices.ContainsFunc(rungs, func(r rung) bool { return r.track == track }) }
	switch {
	case has(going):
		return going, false
	case has(gets):
		return gets, true
	}
	return rungs[0].track, true
}

// await does what is to be done for a viewer who waits too long.
func (s *Session) await(f *fan, now time.Time) {
	v := s.sender.Load()
	if v == nil || s.off[media.Video].Load() {
		return
	}
	ask, take := s.patience.step(now, v.Rendition(), int(s.going.Load()), f.ladder.get())
	if ask < 0 {
		return
	}
	s.log.Debug("viewer waits for a key frame of another rendition", "track", ask, "instead", take)
	f.sub.Want(ask, true)
	if take {
		s.going.Store(int32(ask))
		f.group.Take(v, ask, rtc.Seamless, nil)
	}
	f.sub.RequestKeyFrame(ask)
}
