// Package webrtc is the way out to browsers and WHEP players: a WebRTC session that subscribes to a stream.
//
// Imports: internal/metrics, internal/trace, media, rtc, stream.
package webrtc

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sluice/internal/metrics"
	"sluice/internal/trace"
	"sluice/media"
	"sluice/rtc"
	"sluice/stream"
)

// ErrFull: this node takes no more sessions.
var ErrFull = errors.New("the node is full")

// ErrViewers: the stream has as many viewers as its application lets it have.
var ErrViewers = errors.New("the stream has as many viewers as it may")

// ErrCodecsChanged: the publisher came back with codecs for which the session was not made; the player must come again.
var ErrCodecsChanged = errors.New("the stream's codecs have changed")

// Config of an Egress.
type Config struct {
	Hub        *stream.Hub
	RTC        *rtc.Endpoint
	MaxViewers int                            // on this node; 0: no limit
	Adaptive   func(media.Key) bool           // whether a stream may get renditions after its first viewers have come; nil: none does
	Playout    func(media.Key) *time.Duration // how long players may keep a stream's picture back, as for rtc.Group.SetPlayout; nil: as they like
	Metrics    *metrics.Set                   // nil: none
	Log        *slog.Logger                   // default slog.Default()
}

// Egress gives streams to viewers.
type Egress struct {
	cfg     Config
	meters  meters
	viewers atomic.Int64

	mu   sync.Mutex
	fans map[media.Key]*fan
}

// New returns an Egress; it has no goroutines of its own.
func New(cfg Config) *Egress {
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	if cfg.Adaptive == nil {
		cfg.Adaptive = func(media.Key) bool { return false }
	}
	if cfg.Playout == nil {
		cfg.Playout = func(media.Key) *time.Duration { return nil }
	}
	e := &Egress{cfg: cfg, fans: map[media.Key]*fan{}}
	e.meters = newMeters(cfg.Metrics, e)
	return e
}

// Viewers is the number of sessions.
func (e *Egress) Viewers() int { return int(e.viewers.Load()) }

// Request says what to play. The callbacks may be nil; they come from the session's goroutines.
type Request struct {
	Key        media.Key
	Remote     string // the client's address, for the log
	Data       bool   // open a data channel named after the stream; the client's own are taken in any case
	OnStarted  func() // once, when the client is connected and media begins
	OnRestored func() // the client, which had fallen silent, is back
	// OnRendition says which rendition of the picture the viewer gets, of a stream that has several, when that has changed.
	OnRendition func(Quality)
	OnEnded     func(error) // once, when the session ended other than by Close
}

// Session is one viewer's session. As a stream.Subscriber it has no part in the media, which its fan gives it.
type Session struct {
	egress  *Egress
	id      string
	log     *slog.Logger
	request Request
	began   time.Time
	steps   *trace.Steps
	ended   sync.Once
	ready   chan struct{}              // closed when the session is described, or has failed
	sender  atomic.Pointer[rtc.Sender] // nil until the session is described
	sub     *stream.Subscription
	fan     *fan

	choice  choice                       // of the loop that sends
	next    atomic.Pointer[move]         // what it has decided
	showing sync.Mutex                   // guards the order of what is switched on and off
	off     [media.Video + 1]atomic.Bool // by kind: the viewer does not want it at the moment

	wish     atomic.Pointer[wish] // what the viewer wants; nil: what his path takes
	going    atomic.Int32         // the track that he was told to take last; -1: none
	patience patience             // of the goroutine that adapts
	told     atomic.Int32         // the one of which OnRendition has heard; -1: none
}

// Play answers a viewer's offer (WHEP). Its errors wrap those of rtc and of stream, or are ErrFull.
func (e *Egress) Play(ctx context.Context, r Request, offer string) (*Session, string, error) {
	return e.open(ctx, r, func(g *rtc.Group, o rtc.SenderOptions) (*rtc.Sender, string, error) { return g.Answer(offer, o) })
}

// Offer opens a session by an offer of ours; the client's answer goes to SetAnswer.
func (e *Egress) Offer(ctx context.Context, r Request) (*Session, string, error) {
	return e.open(ctx, r, (*rtc.Group).Offer)
}

func (e *Egress) open(ctx context.Context, r Request, describe func(*rtc.Group, rtc.SenderOptions) (*rtc.Sender, string, error)) (_ *Session, _ string, err error) {
	defer func() { e.meters.opened(err) }()
	if n := e.viewers.Add(1); e.cfg.MaxViewers > 0 && n > int64(e.cfg.MaxViewers) {
		e.viewers.Add(-1)
		return nil, "", ErrFull
	}
	s := &Session{egress: e, id: rand.Text(), request: r, began: time.Now(), ready: make(chan struct{})}
	s.going.Store(-1)
	s.told.Store(-1)
	defer close(s.ready)
	s.steps = trace.Follow(ctx, "session negotiation", "stream", r.Key.String(), "session", s.id[:6])
	s.log = trace.Log(ctx, e.cfg.Log).With("stream", r.Key, "peer", r.Remote, "session", s.id[:6])
	fail := func(err error) (*Session, string, error) {
		s.close(err, false)
		return nil, "", err
	}
	if s.sub, err = e.cfg.Hub.Subscribe(ctx, r.Key, stream.SubscribeOptions{Subscriber: s}); err != nil {
		return fail(err)
	}
	if s.fan, err = e.join(ctx, r.Key, s); err != nil {
		return fail(err)
	}
	sender, sdp, err := describe(s.fan.group, rtc.SenderOptions{
		Label: r.Key.ID,
		Data:  r.Data,
		Events: rtc.Events{
			OnConnected: s.connected,
			OnRestored:  r.OnRestored,
			OnMessage:   s.sub.Send,
			OnClosed:    s.End,
		},
		OnKeyFrameRequest: s.sub.RequestKeyFrame,
		OnPath:            s.look,
		OnFirst:           s.first,
	})
	if err != nil {
		return fail(err)
	}
	s.sender.Store(sender)
	s.steps.Next("ICE and DTLS")
	return s, sdp, nil
}

// ID names the session; it can't be guessed.
func (s *Session) ID() string { return s.id }

// MIDs are the media identifications of the tracks that are sent.
func (s *Session) MIDs() []string { return s.sender.Load().MIDs() }

// SetAnswer applies the client's answer to our offer.
func (s *Session) SetAnswer(sdp string) error { return s.sender.Load().SetAnswer(sdp) }

// AddCandidate takes a candidate of the client.
func (s *Session) AddCandidate(c rtc.Candidate) error { return s.sender.Load().AddCandidate(c) }

// RestartICE takes the client's new ICE credentials and returns ours.
func (s *Session) RestartICE(ufrag, pwd string) (newUfrag, newPwd string, err error) {
	return s.sender.Load().RestartICE(ufrag, pwd)
}

// Close ends the session.
func (s *Session) Close(reason error) { s.close(reason, false) }

func (s *Session) close(reason error, tell bool) {
	s.ended.Do(func() {
		s.steps.End(reason)
		if s.sub != nil {
			s.sub.Close()
		}
		if sender := s.sender.Load(); sender != nil {
			sender.Close()
			stats := sender.Stats()
			s.log.Debug("viewer left", "reason", reason, "lost", stats.Lost, "roundTrip", stats.RoundTrip, "sentAgain", stats.Again, "estimate", stats.Estimate)
		}
		if s.fan != nil {
			s.fan.leave(s)
		}
		s.egress.viewers.Add(-1)
		if s.sender.Load() != nil {
			s.egress.meters.ended.Add(label(reason, ends, "other"))
		}
		if f := s.request.OnEnded; tell && f != nil {
			f(reason)
		}
	})
}

func (s *Session) connected() {
	s.egress.meters.join.Observe(time.Since(s.began).Seconds())
	s.steps.Next("first key frame")
	s.log.Debug("viewer connected")
	v := s.sender.Load()
	s.showing.Lock()
	for _, kind := range []media.Kind{media.Audio, media.Video} {
		if s.off[kind].Load() {
			s.showLocked(v, kind)
		}
	}
	s.fan.begin(v)
	s.showing.Unlock()
	if f := s.request.OnStarted; f != nil {
		f()
	}
}

// GOP implements stream.Subscriber; it is not called, as the subscription is never started.
func (s *Session) GOP([]*media.Burst) {}

// Burst implements stream.Subscriber; it is not called either.
func (s *Session) Burst(*media.Burst) {}

// Tracks implements stream.Subscriber: a session can't change its codecs.
func (s *Session) Tracks(tracks []media.Track) {
	if !same(media.Main(tracks), media.Main(s.sub.Tracks())) {
		s.End(ErrCodecsChanged)
	}
}

// Message implements stream.Subscriber.
func (s *Session) Message(m media.Message) {
	if sender := s.sender.Load(); sender != nil {
		sender.SendMessage(m)
	}
}

// End implements stream.Subscriber, and is where the transport says that it is over.
func (s *Session) End(reason error) {
	go func() { // not with the stream locked
		<-s.ready
		s.close(reason, true)
	}()
}
