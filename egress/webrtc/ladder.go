package webrtc

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/media"
	"sluice/rtc"
	"sluice/stream"
)

const (
	// surveyEvery is how often each viewer's path is looked at, and rateEvery how often the rungs' rates are.
	surveyEvery = 50 * time.Millisecond
	rateEvery   = time.Second
	// firstRate is the most that a viewer gets of whose path nothing is known.
	firstRate = 1_500_000
	// lastLooked is how long a rendition is taken from the publisher after the last viewer has left it: one who goes down and comes back finds it.
	lastLooked = 3 * time.Second
)

// ladder are the renditions of a stream.
type ladder struct {
	once  sync.Once
	rungs atomic.Pointer[[]rung]
}

// begin calls adapt, the first time.
func (l *ladder) begin(adapt func()) { l.once.Do(adapt) }

func (l *ladder) get() []rung {
	if p := l.rungs.Load(); p != nil {
		return *p
	}
	return nil
}

// first is the track with which a viewer begins of whose path nothing is known; -1: there is no picture.
func (l *ladder) first(tracks []media.Track) int {
	if rungs := l.get(); len(rungs) > 0 {
		return rungs[fits(rungs, firstRate)].track
	}
	return slices.IndexFunc(tracks, func(t media.Track) bool { return t.Kind == media.Video })
}

// rungsOf orders a stream's renditions that flow, or would if they were wanted. What flows is known by its measured rate.
func rungsOf(i stream.Info, main []media.Track) (rungs []rung) {
	picture := slices.IndexFunc(main, func(t media.Track) bool { return t.Kind == media.Video })
	for n, t := range i.Tracks {
		if t.Kind != media.Video || n < len(main) && n != picture || n >= len(main) && !t.Codec.Is(main[picture].Codec.Name) {
			continue
		}
		r := rung{track: n, rate: t.Track.Bitrate, height: cmp.Or(t.Height, t.Track.Height)}
		if t.Bitrate > 0 && (n == picture || t.Flowing && t.Track.Bitrate == 0) {
			r.rate = t.Bitrate
		}
		if r.rate > 0 && (t.Flowing || !t.Wanted) {
			rungs = append(rungs, r)
		}
	}
	slices.SortStableFunc(rungs, func(a, b rung) int { return cmp.Compare(a.rate, b.rate) })
	return rungs
}

// adapt chooses the renditions of the fan's viewers until it has ended.
func (f *fan) adapt() {
	tick := time.NewTicker(surveyEvery)
	defer tick.Stop()
	var looked time.Time
	idle := map[int]time.Time{}
	for {
		select {
		case <-f.ended:
			return
		case now := <-tick.C:
			if now.Sub(looked) >= rateEvery {
				looked = now
				f.look()
				f.unwant(f.ladder.get(), idle, now)
				for _, s := range f.members() {
					s.await(f, now)
				}
				f.trace()
			}
			f.group.Survey()
			for _, s := range f.members() {
				s.note()
			}
		case s := <-f.moves:
			s.adapt(f)
		}
	}
}

// trace says what is known of the viewers' paths, to developers.
func (f *fan) trace() {
	if !f.egress.cfg.Log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	for _, s := range f.members() {
		if v := s.sender.Load(); v != nil {
			s.log.Debug("viewer's path", "estimate", v.Stats().Estimate, "track", v.Rendition())
		}
	}
}

// look learns the rungs of the ladder.
func (f *fan) look() {
	if info, ok := f.egress.cfg.Hub.Info(f.key); ok {
		rungs := rungsOf(info, f.group.Tracks())
		f.ladder.rungs.Store(&rungs)
	}
}

// members are the fan's sessions.
func (f *fan) members() []*Session {
	f.egress.mu.Lock()
	defer f.egress.mu.Unlock()
	all := make([]*Session, 0, len(f.sessions))
	for s := range f.sessions {
		all = append(all, s)
	}
	return all
}

// unwant gives up the renditions that no viewer has had for a while.
func (f *fan) unwant(rungs []rung, idle map[int]time.Time, now time.Time) {
	used := map[int]bool{}
	for _, s := range f.members() {
		if v := s.sender.Load(); v != nil {
			used[v.Rendition()], used[int(s.going.Load())] = true, true
		} else {
			used[f.ladder.first(f.group.Tracks())] = true
		}
	}
	for _, r := range rungs {
		switch since, was := idle[r.track]; {
		case used[r.track]:
			delete(idle, r.track)
		case !was:
			idle[r.track] = now
		case now.Sub(since) >= lastLooked:
			f.sub.Want(r.track, false)
		}
	}
}

// look is called by the loop that sends to the viewer, for each survey.
func (s *Session) look(p rtc.Path) {
	if s.off[media.Video].Load() {
		return
	}
	rungs, pinned := s.allowed(s.fan.ladder.get())
	if m := s.choice.step(p, rungs, pinned); m.take >= 0 || m.probe > 0 {
		m.estimate = p.Estimate
		s.next.Store(&m)
		select {
		case s.fan.moves <- s:
		default: // at the next survey
		}
	}
}

// note tells which rendition the viewer gets.
func (s *Session) note() {
	if v := s.sender.Load(); v != nil {
		s.tell(v.Rendition())
	}
}

// adapt does what was decided last.
func (s *Session) adapt(f *fan) {
	m, v := s.next.Swap(nil), s.sender.Load()
	if m == nil || v == nil {
		return
	}
	if m.probe > 0 {
		v.Probe(m.probe)
	}
	if m.take < 0 || m.take == int(s.going.Load()) && !m.down {
		return
	}
	s.going.Store(int32(m.take))
	if m.down {
		s.egress.meters.changes.Add("down")
	} else {
		s.egress.meters.changes.Add("up")
	}
	s.log.Debug("viewer goes to another rendition", "track", m.take, "estimate", m.estimate, "down", m.down, "full", m.full)
	info, _ := f.egress.cfg.Hub.Info(f.key)
	if m.take >= len(info.Tracks) {
		return
	}
	distance := info.Tracks[m.take].KeyDistance
	if !m.down {
		f.sub.Want(m.take, true)
		f.group.Take(v, m.take, rtc.Seamless, nil)
		if distance == 0 || distance > usualKeys {
			f.sub.RequestKeyFrame(m.take)
		}
		return
	}
	if m.full {
		v.Full(m.rate)
	}
	var how rtc.How
	var wait time.Duration // for the next key frame
	f.sub.Cached(m.take, func(cached []*media.Burst) {
		bytes := 0
		for _, b := range cached {
			bytes += b.Size()
		}
		wait = untilKey(cached, distance, time.Now())
		how = goDown(bytes, wait, m.rate, m.estimate, m.full)
		f.group.Take(v, m.take, how, cached)
	})
	s.log.Debug("viewer goes down", "track", m.take, "how", how, "keyFrameIn", wait)
	if how != rtc.AtOnce && wait > mostWait {
		f.sub.RequestKeyFrame(m.take)
	}
}

// usualKeys is the distance of key frames at which going up waits for the next one; where they are further apart one is asked for.
const usualKeys = 2500 * time.Millisecond

// mostWait is how long a viewer waits for a rendition's next key frame before its publisher is asked for one.
const mostWait = 200 * time.Millisecond

// untilKey is how long the next key frame takes to come, if they come as before.
func untilKey(cached []*media.Burst, distance time.Duration, now time.Time) time.Duration {
	if len(cached) == 0 {
		return 0 // it comes as soon as the rendition does
	}
	return max(cmp.Or(distance, 2*time.Second)-now.Sub(time.Unix(0, cached[0].Arrived)), 0)
}

// goDown decides how a viewer goes to a smaller rendition, of which so many bytes are cached.
//
// He goes to it at once if what is cached comes before its next key frame would. Else he goes on with the larger one until then, or, if his path is full, sees nothing: what would be
// sent meanwhile would keep the path full.
func goDown(cached int, untilKey time.Duration, rate, estimate int, full bool) rtc.How {
	takes, otherwise := float64(max(estimate, leastPath)), rtc.Seamless
	if full {
		takes, otherwise = fullTakes*float64(rate), rtc.Paused
	}
	if cached == 0 || float64(cached*8)/takes > untilKey.Seconds() {
		return otherwise
	}
	return rtc.AtOnce
}

// leastPath is what a path is taken to carry at least, bit/s, and fullTakes what one that is full has room for besides the new frames of the rendition that the viewer goes to, of its rate:
// there are sound and headers too, and what does not fit keeps it full.
const (
	leastPath = 300_000
	fullTakes = 0.25
)
