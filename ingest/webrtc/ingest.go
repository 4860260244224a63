// Package webrtc is the way in for browsers and WHIP encoders: a WebRTC session becomes a publisher on the hub.
//
// Imports: codec, internal/metrics, internal/trace, media, rtc, stream.
package webrtc

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"time"

	"sluice/internal/metrics"
	"sluice/internal/trace"
	"sluice/media"
	"sluice/rtc"
	"sluice/stream"
)

// Config of an Ingest.
type Config struct {
	Hub     *stream.Hub
	RTC     *rtc.Endpoint
	Codecs  []string     // order in which a publisher's codecs are chosen; default rtc.DefaultCodecs
	Metrics *metrics.Set // nil: none
	Log     *slog.Logger // default slog.Default()
}

// Ingest turns sessions into publishers.
type Ingest struct {
	cfg    Config
	meters meters
}

// New returns an Ingest; it has no goroutines of its own.
func New(cfg Config) *Ingest {
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	return &Ingest{cfg: cfg, meters: newMeters(cfg.Metrics)}
}

// Request says what to publish. The callbacks may be nil; they come from the session's goroutines.
type Request struct {
	Key        media.Key
	Session    string      // who publishes: the same one takes its stream over at once
	Remote     string      // the client's address, for the log
	OnStarted  func()      // once, when media flows
	OnRestored func()      // the publisher, which had fallen silent, is back
	OnEnded    func(error) // once, when the session ended other than by Close
}

// Session is one publisher's session.
type Session struct {
	meters   *meters
	began    time.Time
	steps    *trace.Steps
	id       string
	log      *slog.Logger
	receiver *rtc.Receiver
	request  Request
	started  sync.Once
	ended    sync.Once
	layers   *layers
	scalable *scalable // nil: the picture comes whole. Of the goroutine that has the bursts

	mu        sync.Mutex
	publisher *stream.Publisher // nil until the hub took it
	up        bool              // connected
}

// Publish answers a publisher's offer. Its errors wrap those of rtc and of stream.
func (in *Ingest) Publish(ctx context.Context, r Request, offer string) (_ *Session, _ string, err error) {
	defer func() { in.meters.asked.Add(resultOf(err)) }()
	s := &Session{meters: &in.meters, began: time.Now(), id: rand.Text(), request: r}
	s.steps = trace.Follow(ctx, "session negotiation", "stream", r.Key.String(), "session", s.id[:6])
	defer func() {
		if err != nil {
			s.steps.End(err)
		}
	}()
	s.log = trace.Log(ctx, in.cfg.Log).With("stream", r.Key, "peer", r.Remote, "session", s.id[:6])
	receiver, answer, err := in.cfg.RTC.AnswerReceiver(offer, rtc.ReceiverOptions{
		Codecs:  in.cfg.Codecs,
		Events:  rtc.Events{OnConnected: s.connected, OnRestored: r.OnRestored, OnMessage: s.message, OnClosed: s.lost},
		OnBurst: s.burst,
	})
	if err != nil {
		return nil, "", err
	}
	s.receiver, s.layers = receiver, newLayers(receiver.RIDs())
	s.scalable = newScalable(receiver.Tracks())
	publisher, err := in.cfg.Hub.Publish(ctx, r.Key, stream.PublishOptions{
		Tracks:            receiver.Tracks(),
		Session:           r.Session,
		Request:           trace.RequestOf(ctx),
		Trace:             trace.Carried(ctx),
		OnKeyFrameRequest: s.requestKeyFrame,
		OnWanted:          s.layers.want,
		OnMessage:         receiver.SendMessage,
		OnEnd:             s.dropped,
	})
	if err != nil {
		receiver.Close()
		return nil, "", err
	}
	s.steps.Next("ICE and DTLS")
	s.mu.Lock()
	s.publisher = publisher
	up := s.up
	s.mu.Unlock()
	if up {
		s.dataUp()
	}
	s.log.Debug("publisher's offer answered", "codecs", media.CodecNames(receiver.Tracks()))
	return s, answer, nil
}

// ID names the session; it can't be guessed.
func (s *Session) ID() string { return s.id }

// AddCandidate takes a candidate of the client.
func (s *Session) AddCandidate(c rtc.Candidate) error { return s.receiver.AddCandidate(c) }

// RestartICE takes the client's new ICE credentials and returns ours.
func (s *Session) RestartICE(ufrag, pwd string) (newUfrag, newPwd string, err error) {
	return s.receiver.RestartICE(ufrag, pwd)
}

// Close ends the session; stream.ErrStopped says that the user wanted it.
func (s *Session) Close(reason error) {
	s.ended.Do(func() {
		s.steps.End(reason)
		s.unpublish(reason)
		s.receiver.Close()
		s.layers.close()
		s.log.Debug("publisher closed", "reason", reason)
	})
}

func (s *Session) hub() *stream.Publisher {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.publisher
}

func (s *Session) unpublish(reason error) {
	if p := s.hub(); p != nil {
		p.Close(reason)
	}
}

func (s *Session) connected() {
	s.log.Debug("publisher connected")
	s.steps.Next("first media")
	s.mu.Lock()
	s.up = true
	published := s.publisher != nil
	s.mu.Unlock()
	if published {
		s.dataUp()
	}
}

// dataUp: a publisher of data alone has started when it is connected and published.
func (s *Session) dataUp() {
	if len(s.receiver.Tracks()) == 0 {
		s.start()
	}
}

func (s *Session) start() {
	s.started.Do(func() {
		s.meters.join.Observe(time.Since(s.began).Seconds())
		s.steps.End(nil)
		if f := s.request.OnStarted; f != nil {
			f()
		}
	})
}

func (s *Session) burst(b *media.Burst) {
	s.layers.came(b.Track)
	p := s.hub()
	if s.scalable != nil {
		s.scalable.split(b, p.Add, p.Write)
	}
	p.Write(b)
	s.start()
}

// requestKeyFrame is for a track of the publisher, which may be made of layers of another.
func (s *Session) requestKeyFrame(track int) {
	if track >= len(s.receiver.Tracks()) && s.scalable != nil {
		track = s.scalable.track
	}
	s.receiver.RequestKeyFrame(track)
}

func (s *Session) message(m media.Message) {
	if p := s.hub(); p != nil {
		p.Message(m)
	}
}

// lost: the transport ended.
func (s *Session) lost(reason error) {
	s.ended.Do(func() {
		switch {
		case errors.Is(reason, rtc.ErrLeft): // as good as a DELETE
			reason = stream.ErrStopped
		case errors.Is(reason, rtc.ErrDisconnected):
			reason = stream.ErrLost
		}
		s.unpublish(reason)
		s.end(reason)
	})
}

// dropped: the hub took the stream away.
func (s *Session) dropped(reason error) {
	s.ended.Do(func() {
		s.receiver.Close()
		s.end(reason)
	})
}

func (s *Session) end(reason error) {
	s.steps.End(reason)
	s.layers.close()
	s.log.Debug("publisher ended", "reason", reason)
	if f := s.request.OnEnded; f != nil {
		f(reason)
	}
}
