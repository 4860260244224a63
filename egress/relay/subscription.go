package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"sluice/internal/trace"
	"sluice/media"
	wire "sluice/relay"
	"sluice/stream"
)

const (
	greetWithin  = 3 * time.Second // a peer that opens a control stream says what it wants within
	makeWithin   = 2 * time.Second // renditions are begun within
	finishWithin = time.Second     // what is queued when a stream ends may be written for so long
)

// subscription is one stream that one peer takes. It is a subscriber of the hub.
type subscription struct {
	relay *Relay
	conn  *quic.Conn
	ctl   *quic.Stream
	key   media.Key
	out   *wire.Outbox
	ended chan wire.Code
	wg    sync.WaitGroup // lanes

	// What the peer said of itself; it does not change.
	version            uint64
	node, region, addr string
	peer               string // its key
	avoid              []string
	request, trace     string

	below wire.Below // Relay.mu's: what it said of its own children, and those that were sent to it since
	sent  time.Time  // Relay.mu's: when the last one was

	mu         sync.Mutex
	generation uint64
	tracks     []media.Track // of that generation
	lanes      []*lane

	cuts, bursts, messages atomic.Uint64 // lost, since last logged
}

// serve answers one control stream until either side ends it. An error says that the peer broke the rules.
func (s *subscription) serve(ctx context.Context) error {
	s.ctl.SetPriority(0, true)
	_ = s.ctl.SetDeadline(time.Now().Add(greetWithin))
	rd := wire.NewReader(s.ctl, wire.MaxControl)
	code, err := s.greet(rd)
	if err != nil {
		s.ctl.CancelRead(wire.StreamMalformed)
		s.ctl.CancelWrite(wire.StreamMalformed)
		return err
	}
	if code != 0 {
		return s.refuse(wire.End{Code: code})
	}
	// The hub would pull a stream that it does not have. Two nodes that ask each other would do so for ever.
	info, ok := s.relay.cfg.Hub.Info(s.key)
	if _, what := s.key.Source(); !ok && what != "" && s.relay.cfg.Make != nil && !s.relay.busy() {
		making, cancel := context.WithTimeout(ctx, makeWithin)
		defer cancel()
		if err := s.relay.cfg.Make(making, s.key); err != nil {
			s.logger().Warn("renditions can't be made for another node", "peer", s.node, "stream", s.key, "err", err)
		}
		info, ok = s.relay.cfg.Hub.Info(s.key)
	}
	_, span := s.relay.cfg.Tracer.Continue(ctx, s.trace, "relay serve", "stream", s.key.String(), "peer", s.node)
	defer span.End(nil) // if it was not before
	span.Link(info.Trace)
	if !ok {
		span.Set("answer", "offline")
		return s.refuse(wire.End{Code: wire.Offline})
	}
	accepted, to := s.relay.admit(s, info.Relayed)
	switch {
	case to != nil:
		span.Set("answer", "redirect", "to", to.Node)
		s.logger().Info("node is sent on for a stream", "stream", s.key, "peer", s.node, "to", to.Node)
		return s.refuse(*to)
	case !accepted:
		span.Set("answer", "full")
		return s.refuse(wire.End{Code: wire.Full})
	}
	defer s.relay.leave(s)
	sub, err := s.relay.cfg.Hub.Subscribe(ctx, s.key, stream.SubscribeOptions{Subscriber: s, Relay: true})
	if err != nil {
		return s.refuse(wire.End{Code: wire.Offline})
	}
	_ = s.ctl.SetDeadline(time.Time{})
	s.logger().Info("node takes a stream", "stream", s.key, "peer", s.node, "published", info.Request)
	span.Set("answer", "ok")
	span.End(nil)
	return s.run(ctx, rd, sub)
}

// logger is for what has to do with the request for which the peer wants the stream.
func (s *subscription) logger() *slog.Logger {
	if s.request == "" {
		return s.relay.cfg.Log
	}
	return s.relay.cfg.Log.With("request", s.request)
}

// greet reads what the peer wants. A code other than 0 says why it does not get it.
func (s *subscription) greet(rd *wire.Reader) (wire.Code, error) {
	hello, err := next[wire.Hello](rd)
	if err != nil {
		return 0, err
	}
	s.node, s.version, s.peer = hello.Node, min(hello.Version, wire.Version), wire.PeerKey(s.conn.ConnectionState().TLS)
	if hello.Version < 1 {
		return wire.BadVersion, nil
	}
	ask, err := next[wire.Subscribe](rd)
	s.key, s.region, s.addr, s.avoid = ask.Key, ask.Region, ask.Addr, ask.Avoid
	s.request, s.trace = trace.CleanRequest(ask.Request), ask.Trace
	return 0, err
}

// next reads a frame that must be of one type.
func next[F wire.Frame](rd *wire.Reader) (want F, err error) {
	b, err := rd.Next()
	if err != nil {
		return want, err
	}
	f, err := wire.ParseFrame(b)
	if err != nil {
		return want, err
	}
	got, ok := f.(F)
	if !ok {
		return want, fmt.Errorf("%w: %T instead of %T", wire.ErrMalformed, f, want)
	}
	return got, nil
}

func (s *subscription) hello() wire.Hello {
	return wire.Hello{Version: cmp.Or(s.version, wire.Version), Node: s.relay.cfg.Node}
}

// refuse answers a request with a reason, or with whom to ask, and nothing else.
func (s *subscription) refuse(why wire.Frame) error {
	b := wire.AppendFrame(wire.AppendFrame(nil, s.hello()), why)
	_, _ = s.ctl.Write(b)
	_ = s.ctl.Close()
	s.ctl.CancelRead(wire.StreamUnsubscribed)
	return nil
}

// run serves an accepted subscription.
func (s *subscription) run(ctx context.Context, rd *wire.Reader, sub *stream.Subscription) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() {
		sub.Close() // from here on the hub calls nothing
		cancel()
		s.stop()
		s.ctl.CancelRead(wire.StreamUnsubscribed)
		s.ctl.CancelWrite(wire.StreamUnsubscribed) // nothing, when it was closed
		wg.Wait()
		s.wg.Wait()
	}()
	s.begin(sub.Tracks(), true)
	wg.Go(func() {
		if s.out.Run(ctx, s.ctl) == nil {
			_ = s.ctl.Close()
		}
	})
	wg.Go(func() { s.finish(ctx) })
	sub.Start()
	for {
		b, err := rd.Next()
		if err != nil {
			if errors.Is(err, wire.ErrMalformed) {
				return err
			}
			return nil // the peer has enough, or is gone
		}
		f, err := wire.ParseFrame(b)
		if err != nil {
			return err
		}
		switch f := f.(type) {
		case wire.Message:
			sub.Send(media.Message(f))
		case wire.KeyFrameRequest:
			sub.RequestKeyFrame(f.Track)
		case wire.Want:
			s.want(sub, f)
		case wire.Below:
			s.relay.report(s, f)
		}
	}
}

// finish waits for the stream's end, lets what is queued out, and says why it ended.
func (s *subscription) finish(ctx context.Context) {
	var code wire.Code
	select {
	case <-ctx.Done():
		return
	case code = <-s.ended:
	}
	s.mu.Lock()
	for _, l := range s.lanes {
		l.finish()
	}
	s.mu.Unlock()
	late := time.AfterFunc(finishWithin, s.stop)
	s.wg.Wait() // nothing is added after End
	late.Stop()
	s.out.Put(wire.End{Code: code})
	s.out.Close()
	_ = s.ctl.SetDeadline(time.Now().Add(finishWithin)) // for the peer to hang up
}

// stop ends the lanes at once.
func (s *subscription) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lanes {
		l.stop()
	}
}

// begin announces tracks and opens a lane for each. The first ones are those at the time of the subscription,
// unless the hub was quicker with newer ones.
func (s *subscription) begin(tracks []media.Track, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if first && s.generation > 0 {
		return
	}
	if s.version < 3 {
		tracks = media.Main(tracks)
	}
	if s.generation > 0 && len(s.tracks) <= len(tracks) && slices.Equal(media.Main(tracks), media.Main(s.tracks)) {
		if !slices.Equal(tracks, s.tracks) { // more renditions, or at other rates
			s.addLocked(tracks)
		}
		return
	}
	for _, l := range s.lanes {
		l.stop()
	}
	s.lanes = nil
	if err := wire.CheckTracks(tracks); err != nil {
		s.relay.cfg.Log.Error("stream can't be relayed", "stream", s.key, "tracks", media.CodecNames(tracks), "err", err)
		tracks = nil
	}
	s.generation++
	s.tracks = nil
	s.addLocked(tracks)
}

// addLocked announces the tracks of the present generation, and opens a lane for each that has none.
func (s *subscription) addLocked(tracks []media.Track) {
	s.tracks = tracks
	s.out.Put(wire.Tracks{Generation: s.generation, Tracks: tracks})
	for i, t := range tracks {
		if i < len(s.lanes) {
			continue
		}
		l := &lane{sub: s, header: wire.Header{Subscription: uint64(s.ctl.StreamID()), Generation: s.generation, Track: i},
			audio: t.Kind == media.Audio, wake: make(chan struct{}, 1)}
		s.lanes = append(s.lanes, l)
		s.wg.Go(l.run)
	}
}

// want begins or ends a rendition, or the picture itself.
func (s *subscription) want(sub *stream.Subscription, f wire.Want) {
	if !f.Now {
		if l := s.lane(f.Track); f.On && l != nil {
			l.again(nil)
		}
		sub.Want(f.Track, f.On)
		return
	}
	sub.Cached(f.Track, func(cached []*media.Burst) {
		if l := s.lane(f.Track); l != nil {
			l.again(cached)
		}
	})
}

// Tracks, GOP, Burst, Message and End are called by the hub.

func (s *subscription) Tracks(tracks []media.Track) { s.begin(tracks, false) }

func (s *subscription) GOP(cached []*media.Burst) {
	for _, b := range cached {
		s.lane(b.Track).cached(b)
	}
}

func (s *subscription) Burst(b *media.Burst) { s.lane(b.Track).push(b) }

func (s *subscription) lane(track int) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	if track < len(s.lanes) {
		return s.lanes[track]
	}
	return nil
}

func (s *subscription) Message(m media.Message) {
	if !s.out.Put(wire.Message(m)) {
		s.messages.Add(1)
		s.relay.stats.messages.Add(1)
	}
}

func (s *subscription) End(reason error) {
	code := wire.Stopped
	switch {
	case errors.Is(reason, stream.ErrLeaseLost):
		code = wire.Moved
	case errors.Is(reason, stream.ErrClosing):
		code = wire.Closing
	}
	s.ended <- code // has room: End is the last call
}

// lost counts what a lane gave up.
func (s *subscription) lost(cuts, bursts int) {
	s.cuts.Add(uint64(cuts))
	s.bursts.Add(uint64(bursts))
	s.relay.stats.cuts.Add(uint64(cuts))
	s.relay.stats.bursts.Add(uint64(bursts))
}
