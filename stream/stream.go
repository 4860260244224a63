package stream

import (
	"slices"
	"sync"
	"time"

	"sluice/codec"
	"sluice/media"
)

// Stream is one published thing and all who take it.
type Stream struct {
	key media.Key
	cfg *Config

	mu      sync.Mutex
	tracks  []media.Track
	lanes   []lane // one for each track
	pub     *Publisher
	beside  []*Publisher // of renditions
	right   *holding     // nil: relayed, or no other node exists
	subs    []*Subscription
	live    []*Subscription // those of subs that were started
	started time.Time
	bytes   uint64
	last    time.Time // when media came last; while no publisher is here, when it went
	flowing bool      // media came from this publisher
	before  time.Time // when media came last from the publisher before; zero: there was none, or the gap was told
	idle    time.Time // since when a relayed stream has no subscriber; zero: it has
	gone    error     // why there is no publisher: ErrStopped, ErrLost …
	heardOf bool      // the operator was told of it
	ended   bool
}

// lane is the state of one track on its way through the hub.
type lane struct {
	splice  splice
	gop     gop       // video only
	keyAt   time.Time // when a key frame was last requested
	keyWant bool      // a request waits until KeyLeast has passed
	wanted  bool      // somebody takes it; its publisher was told so

	last     time.Time // when something came
	given    time.Time // when something went to the subscribers
	bytes    uint64    // payload since the start
	counted  uint64    // of them at the last measurement
	measured time.Time
	rate     int       // bit/s between the last two measurements; of what nobody takes and what does not come, that of before
	learned  time.Time // when the stream's track was given what was measured
	width    int       // of the picture; 0: not known yet
	height   int
	distance time.Duration // between the last two key frames
}

// rateEvery is over how long a track's bitrate is measured.
const rateEvery = time.Second

// measure updates the bitrate.
func (l *lane) measure(now time.Time) {
	over := now.Sub(l.measured)
	if over < rateEvery {
		return
	}
	if !l.measured.IsZero() && (l.wanted || now.Sub(l.last) < goesOn) {
		l.rate = int(float64(l.bytes-l.counted) * 8 / over.Seconds())
	}
	l.measured, l.counted = now, l.bytes
}

// look reads the picture's size from a key frame.
func (l *lane) look(t media.Track, b *media.Burst) {
	for i := range b.Packets {
		if w, h, ok := codec.PictureSize(t.Codec.Name, b.Packets[i].Payload); ok {
			if t.Height > 0 && t.Height < h { // a part of the layers of a picture, which says how large all of them are
				w, h = w*t.Height/h, t.Height
			}
			l.width, l.height = w, h
			return
		}
	}
}

func newStream(key media.Key, cfg *Config) *Stream {
	return &Stream{key: key, cfg: cfg, started: time.Now(), idle: time.Now(), last: time.Now()}
}

// mayReplace reports whether a publisher with these options may take the stream now.
func (s *Stream) mayReplace(o PublishOptions, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pub
	return p == nil || p.options.Relayed || o.Session != "" && o.Session == p.options.Session || now.Sub(s.last) >= s.cfg.Silence
}

func (s *Stream) held() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.right != nil && !s.right.lost.Load()
}

// attach makes p the publisher, with a new right unless the stream has one. It reports false when the stream has ended.
func (s *Stream) attach(p *Publisher, right *holding) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || right == nil && !p.options.Relayed && s.cfg.Own != nil && (s.right == nil || s.right.lost.Load()) {
		return false
	}
	if old := s.pub; old != nil {
		s.detachLocked(old, ErrReplaced)
	}
	s.before = s.heardLocked()
	s.pub, s.gone, s.last = p, nil, time.Now()
	s.flowing = len(p.options.Tracks) == 0 // data alone flows from the start
	p.lanes = s.adoptLocked(p.options.Tracks)
	for i := range s.lanes {
		s.lanes[i].keyAt, s.lanes[i].keyWant = time.Time{}, false
		s.lanes[i].splice.restart(s.tracks[i].Kind == media.Video)
		bitrate := 0 // nobody publishes it
		if by, own := s.ofLocked(i); by != nil {
			bitrate = s.tracks[i].Bitrate
			if by == p {
				bitrate = p.options.Tracks[own].Bitrate
			}
		}
		s.offerLocked(i, bitrate, 0)
	}
	s.wantsLocked(p, false)
	if right != nil {
		s.right = right
	}
	s.reportLocked()
	s.cfg.Log.Debug("publisher attached", "stream", s.key, "codecs", media.CodecNames(s.tracks), "relayed", p.options.Relayed)
	if s.flowing {
		s.startedLocked()
	}
	return true
}

// heardLocked is when media came last: video if there is a picture. Zero: none has come.
func (s *Stream) heardLocked() (last time.Time) {
	video := false
	for i := range s.lanes {
		if own := s.tracks[i].Kind == media.Video; own && !video {
			last, video = s.lanes[i].given, true
		} else if own == video && s.lanes[i].given.After(last) {
			last = s.lanes[i].given
		}
	}
	return last
}

// resumedLocked tells for how long there was no media, with the first burst of a new publisher.
func (s *Stream) resumedLocked(kind media.Kind, now time.Time) {
	if kind != media.Video && slices.ContainsFunc(s.tracks, func(t media.Track) bool { return t.Kind == media.Video }) || s.pub == nil {
		return
	}
	if f := s.cfg.OnGap; f != nil {
		f(now.Sub(s.before), s.pub.options.Relayed)
	}
	s.before = time.Time{}
}

func (s *Stream) received() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// startedLocked tells the operator, who hears nothing of publishers that never send.
func (s *Stream) startedLocked() {
	s.heardOf = true
	log := s.cfg.Log
	if id := s.pub.options.Request; id != "" {
		log = log.With("request", id)
	}
	log.Info("stream published", "stream", s.key, "codecs", media.CodecNames(s.tracks), "relayed", s.pub.options.Relayed)
}

// adoptLocked maps a publisher's tracks to the stream's, which keep their
// order when the new ones are of the same kinds and codecs; new renditions come after them.
func (s *Stream) adoptLocked(tracks []media.Track) []int {
	lanes := make([]int, len(tracks))
	taken := make([]bool, len(s.tracks))
	same, added := len(media.Main(tracks)) == len(media.Main(s.tracks)) && s.tracks != nil, 0
	for i, t := range tracks {
		lanes[i] = -1
		for j, have := range s.tracks {
			if !taken[j] && have.Kind == t.Kind && have.Rendition == t.Rendition && have.Codec.Same(t.Codec) {
				lanes[i], taken[j] = j, true
				break
			}
		}
		if lanes[i] < 0 {
			added++
			same = same && t.Rendition != ""
		}
	}
	if same && len(s.tracks)+added <= media.MaxTracks {
		s.addLocked(tracks, lanes)
		return lanes
	}
	for len(s.beside) > 0 {
		s.detachBesideLocked(s.beside[0], ErrReplaced)
	}
	for i := range s.lanes {
		s.lanes[i].gop.reset()
	}
	first := s.tracks == nil
	s.tracks, s.lanes = slices.Clone(tracks), make([]lane, len(tracks))
	for i := range lanes {
		lanes[i] = i
	}
	if !first {
		for _, sub := range s.subs {
			sub.wants = 1<<len(media.Main(s.tracks)) - 1
			sub.options.Subscriber.Tracks(s.tracks)
		}
	}
	return lanes
}

// detachLocked takes the publisher away; why is told to it unless it asked itself.
func (s *Stream) detachLocked(p *Publisher, why error) {
	s.pub, s.gone, s.last, s.flowing = nil, why, time.Now(), false
	p.detached = true
	for _, i := range p.lanes {
		s.lanes[i].wanted = false
	}
	s.reportLocked()
	if f := p.options.OnEnd; f != nil && !p.closed {
		go f(why)
	}
}

func (s *Stream) reportLocked() {
	if s.right != nil {
		s.right.Report(s.flowsLocked(), media.CodecNames(s.tracks))
	}
}

// flowsLocked reports whether the publisher sends at this moment.
func (s *Stream) flowsLocked() bool {
	return s.flowing && (len(s.tracks) == 0 || time.Since(s.last) < s.cfg.Silence)
}

// write sends a burst to everybody. It takes the caller's reference.
func (s *Stream) write(p *Publisher, b *media.Burst) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer b.Release()
	if p.detached || b.Track >= len(p.lanes) || len(b.Packets) == 0 {
		return
	}
	b.Track = p.lanes[b.Track]
	l, t := &s.lanes[b.Track], s.tracks[b.Track]
	now := time.Now()
	s.bytes += uint64(b.Size())
	l.bytes += uint64(b.Size())
	l.last = now
	if !p.options.Beside {
		s.last = now
	}
	if !s.flowing && !p.options.Beside {
		s.flowing = true
		s.reportLocked()
		s.startedLocked()
	}
	video := t.Kind == media.Video
	if video {
		if b.Key = startsKeyFrame(t.Codec.Name, b); b.Key {
			l.look(t, b)
		}
	}
	newest, ok := l.splice.rewrite(b, t.Codec.ClockRate, s.alignedLocked(b))
	if !ok {
		if video {
			s.requestKeyLocked(b.Track) // nothing can begin before a key frame
		}
		return
	}
	if !s.before.IsZero() {
		s.resumedLocked(t.Kind, now)
	}
	l.given = now
	if video {
		if b.Key = b.Key && newest && !l.gop.continues(b); b.Key && len(l.gop.bursts) > 0 {
			l.distance = now.Sub(l.gop.since)
		}
		l.gop.add(b)
		if now.Sub(l.gop.since) > s.cfg.KeyEvery && !p.options.Relayed {
			s.requestKeyLocked(b.Track)
		}
	}
	for _, sub := range s.live {
		if sub.takes(b.Track) {
			sub.options.Subscriber.Burst(b)
		}
	}
}

func startsKeyFrame(name string, b *media.Burst) bool {
	for i := range b.Packets {
		if codec.StartsKeyFrame(name, b.Packets[i].Payload) {
			return true
		}
	}
	return false
}

// requestKeyLocked asks the publisher for a key frame, now or as soon as KeyLeast has passed since the last request.
func (s *Stream) requestKeyLocked(track int) {
	l := &s.lanes[track]
	now := time.Now()
	p, own := s.ofLocked(track)
	if p == nil || now.Sub(l.keyAt) < s.cfg.KeyLeast {
		l.keyWant = true
		return
	}
	l.keyAt, l.keyWant = now, false
	if f := p.options.OnKeyFrameRequest; f != nil {
		f(own)
	}
}

// sweep does what is due by time. A reason means that the stream is over; moved, that it went to
// another node and is wanted here.
func (s *Stream) sweep(now time.Time) (over error, moved bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.lanes {
		s.lanes[i].measure(now)
		if s.lanes[i].keyWant {
			s.requestKeyLocked(i)
		}
	}
	s.learnLocked(now)
	if s.right != nil && s.right.lost.Load() {
		return nil, s.moveLocked()
	}
	quiet := now.Sub(s.last)
	if p := s.pub; p != nil {
		s.reportLocked()
		if p.options.Relayed && len(s.subs) == 0 && now.Sub(s.idle) >= s.cfg.Idle {
			return ErrIdle, false
		}
		return nil, false
	}
	if quiet >= s.cfg.Grace || s.gone == ErrStopped && quiet >= s.cfg.Farewell || s.gone == ErrLeaseLost && len(s.subs) == 0 {
		return s.gone, false
	}
	return nil, false
}

// moveLocked lets go of a stream that another node publishes now. Nodes that take it from
// here are sent away; viewers stay, and it reports whether there are any.
func (s *Stream) moveLocked() bool {
	s.right = nil
	if s.pub != nil {
		s.detachLocked(s.pub, ErrLeaseLost)
	}
	s.gone = ErrLeaseLost
	s.removeLocked(func(sub *Subscription) bool {
		if sub.options.Relay && !sub.closed {
			sub.closed = true
			sub.options.Subscriber.End(ErrLeaseLost)
		}
		return sub.options.Relay
	})
	s.cfg.Log.Info("stream moved to another node", "stream", s.key)
	return len(s.subs) > 0
}

// finish ends the stream for everybody.
func (s *Stream) finish(reason error) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.ended = true
	if s.pub != nil {
		s.detachLocked(s.pub, reason)
	}
	for len(s.beside) > 0 {
		s.detachBesideLocked(s.beside[0], reason)
	}
	right := s.right
	for i := range s.lanes {
		s.lanes[i].gop.reset()
	}
	for _, sub := range s.subs {
		sub.closed = true
		sub.options.Subscriber.End(reason)
	}
	s.right, s.subs, s.live = nil, nil, nil
	s.mu.Unlock()
	if right != nil {
		right.Release()
	}
	if s.heardOf {
		s.cfg.Log.Info("stream ended", "stream", s.key, "reason", reason)
	}
}

func (s *Stream) info() Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := Info{Key: s.key, Started: s.started, Bytes: s.bytes, Flowing: s.flowsLocked(), Last: s.last}
	if s.pub != nil {
		i.Relayed = s.pub.options.Relayed
		i.Request, i.Trace = s.pub.options.Request, s.pub.options.Trace
	}
	for j := range s.lanes {
		l := &s.lanes[j]
		i.Tracks = append(i.Tracks, TrackInfo{Track: s.tracks[j], Bitrate: l.rate, Width: l.width, Height: l.height, KeyDistance: l.distance, Flowing: time.Since(l.last) < s.cfg.Silence, Wanted: l.wanted})
	}
	for _, sub := range s.subs {
		switch {
		case sub.options.Relay:
			i.Relays++
		case !sub.options.Shared:
			i.Viewers++
		}
	}
	return i
}
