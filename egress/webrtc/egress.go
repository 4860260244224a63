// Package webrtc is the way out to browsers and WHEP players: a WebRTC session that subscribes to a stream.
//
// Imports: media, rtc, stream.
package webrtc

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"sluice/media"
	"sluice/rtc"
	"sluice/stream"
)

// ErrFull: this node takes no more sessions.
var ErrFull = errors.New("the node is full")

// ErrCodecsChanged: the publisher came back with codecs for which the session was not made; the player must come again.
var ErrCodecsChanged = errors.New("the stream's codecs have changed")

// Config of an Egress.
type Config struct {
	Hub        *stream.Hub
	RTC        *rtc.Endpoint
	MaxViewers int          // on this node; 0: no limit
	Log        *slog.Logger // default slog.Default()
}

// Egress gives streams to viewers.
type Egress struct {
	cfg     Config
	viewers atomic.Int64
}

// New returns an Egress; it has no goroutines of its own.
func New(cfg Config) *Egress {
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	return &Egress{cfg: cfg}
}

// Viewers is the number of sessions.
func (e *Egress) Viewers() int { return int(e.viewers.Load()) }

// Request says what to play. The callbacks may be nil; they come from the session's goroutines.
type Request struct {
	Key        media.Key
	Remote     string      // the client's address, for the log
	Data       bool        // open a data channel named after the stream; the client's own are taken in any case
	OnStarted  func()      // once, when the client is connected and media begins
	OnRestored func()      // the client, which had fallen silent, is back
	OnEnded    func(error) // once, when the session ended other than by Close
}

// Session is one viewer's session. It is a stream.Subscriber.
type Session struct {
	egress  *Egress
	id      string
	log     *slog.Logger
	request Request
	ended   sync.Once
	over    atomic.Bool
	sender  atomic.Pointer[rtc.Sender] // nil until the session is described
	sub     *stream.Subscription
}

// Play answers a viewer's offer (WHEP). Its errors wrap those of rtc and of stream, or are ErrFull.
func (e *Egress) Play(ctx context.Context, r Request, offer string) (*Session, string, error) {
	return e.open(ctx, r, func(o rtc.SenderOptions) (*rtc.Sender, string, error) { return e.cfg.RTC.AnswerSender(offer, o) })
}

// Offer opens a session by an offer of ours; the client's answer goes to SetAnswer.
func (e *Egress) Offer(ctx context.Context, r Request) (*Session, string, error) {
	return e.open(ctx, r, e.cfg.RTC.OfferSender)
}

func (e *Egress) open(ctx context.Context, r Request, describe func(rtc.SenderOptions) (*rtc.Sender, string, error)) (*Session, string, error) {
	if n := e.viewers.Add(1); e.cfg.MaxViewers > 0 && n > int64(e.cfg.MaxViewers) {
		e.viewers.Add(-1)
		return nil, "", ErrFull
	}
	s := &Session{egress: e, id: rand.Text(), request: r}
	s.log = e.cfg.Log.With("stream", r.Key, "peer", r.Remote, "session", s.id[:6])
	sub, err := e.cfg.Hub.Subscribe(ctx, r.Key, stream.SubscribeOptions{Subscriber: s})
	if err != nil {
		e.viewers.Add(-1)
		return nil, "", err
	}
	s.sub = sub
	sender, sdp, err := describe(rtc.SenderOptions{
		Tracks: sub.Tracks(),
		Label:  r.Key.ID,
		Data:   r.Data,
		Events: rtc.Events{
			OnConnected: s.connected,
			OnRestored:  r.OnRestored,
			OnMessage:   sub.Send,
			OnClosed:    s.End,
		},
		OnKeyFrameRequest: sub.RequestKeyFrame,
	})
	if err != nil {
		sub.Close()
		e.viewers.Add(-1)
		return nil, "", err
	}
	s.sender.Store(sender)
	if s.over.Load() { // the stream ended while the session was described
		sender.Close()
		return nil, "", stream.ErrOffline
	}
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
		s.over.Store(true)
		s.sub.Close()
		if sender := s.sender.Load(); sender != nil {
			sender.Close()
		}
		s.egress.viewers.Add(-1)
		s.log.Debug("viewer left", "reason", reason)
		if f := s.request.OnEnded; tell && f != nil {
			f(reason)
		}
	})
}

func (s *Session) connected() {
	s.log.Debug("viewer connected")
	s.sub.Start()
	if f := s.request.OnStarted; f != nil {
		f()
	}
}

// GOP implements stream.Subscriber.
func (s *Session) GOP(bursts []*media.Burst) { s.sender.Load().GOP(bursts) }

// Burst implements stream.Subscriber.
func (s *Session) Burst(b *media.Burst) { s.sender.Load().Send(b) }

// Tracks implements stream.Subscriber: a session can't change its codecs.
func (s *Session) Tracks([]media.Track) { s.End(ErrCodecsChanged) }

// Message implements stream.Subscriber.
func (s *Session) Message(m media.Message) {
	if sender := s.sender.Load(); sender != nil {
		sender.SendMessage(m)
	}
}

// End implements stream.Subscriber, and is where the transport says that it is over.
func (s *Session) End(reason error) { go s.close(reason, true) } // not with the stream locked
