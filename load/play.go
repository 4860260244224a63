package load

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"sluice/codec/frame"
	"sluice/media"
)

// PlayConfig says what to watch, and for how long.
type PlayConfig struct {
	URL      string         // WHEP endpoint
	Token    string         // bearer token, may be empty
	Insecure bool           // take any certificate
	Roots    *x509.CertPool // certificates to trust; nil: the system's
	Duration time.Duration  // from the first packet on; 0: until ctx ends
	Wait     time.Duration  // for a stream that isn't live, and to come back when a session is lost; 0: neither
	Out      string         // Matroska or WebM file to write, may be empty

	Log      *slog.Logger
	Waiting  func()          // once, when the stream isn't live and is waited for; may be nil
	Progress func(PlayStats) // once a second, from one goroutine; may be nil
}

// PlayStats are a viewer's figures of the last second.
type PlayStats struct {
	Elapsed time.Duration `json:"elapsed"` // since the first packet
	Video   bool          `json:"video"`   // there are pictures, not only sound
	FPS     float64       `json:"fps"`     // pictures
	Bitrate float64       `json:"bitrate"` // bit/s, all tracks
	Frames  uint64        `json:"frames"`  // of video, in all
	Lost    uint64        `json:"lost"`    // packets, in all
	Freezes int           `json:"freezes"` // in all
	Latency Millis        `json:"latencyMs"`
}

// Play watches a stream over WHEP as a browser would, and reports what it saw. It ends without an error
// after Duration or when ctx ends. When the server ends the session, and there is no other within Wait, the
// error is ErrEnded, and the report tells of the time before.
func Play(ctx context.Context, cfg PlayConfig) (PlayReport, error) {
	cfg.Log = orDiscard(cfg.Log)
	v := &viewer{cfg: cfg, client: NewClient(cfg.Token, cfg.Roots, cfg.Insecure)}
	defer v.client.Close()
	m, err := viewerMedia()
	if err != nil {
		return PlayReport{URL: cfg.URL}, fmt.Errorf("register codecs: %w", err)
	}
	if v.api, err = newAPI(cfg.Log, m); err != nil {
		return PlayReport{URL: cfg.URL}, err
	}
	if cfg.Out != "" {
		if v.rec, err = newRecorder(cfg.Out); err != nil {
			return PlayReport{URL: cfg.URL}, err
		}
	}
	if err = v.watch(ctx); err != nil {
		err = fmt.Errorf("play %s: %w", cfg.URL, err)
	}
	report, rerr := v.finish()
	if err == nil {
		err = rerr
	}
	return report, err
}

// viewer watches a stream in one WHEP session after the other.
type viewer struct {
	cfg    PlayConfig
	client *Client
	api    *webrtc.API

	mu        sync.Mutex // guards all below
	tracks    []*reception
	rec       *recorder
	began     time.Time     // the request that was answered
	waited    time.Duration // before it, for the stream
	answered  time.Time
	arrived   chan struct{} // closed with the session's first packet
	flowing   bool          // it is closed
	current   *peer         // whose packets count
	next      *peer         // which is to take its place with its first picture
	took      chan struct{} // closed when it has
	first     time.Time     // packet of all
	ended     time.Time
	live      bool // media was flowing until we ended it
	again     int  // sessions after the first
	moves     int  // sessions that took another's place because the server asked
	asked     int  // key frames
	previous  PlayStats
	prevBytes uint64
}

// watch goes from session to session until the end.
func (v *viewer) watch(ctx context.Context) error {
	s, err := v.await(ctx)
	for err == nil {
		s, err = v.follow(ctx, s)
		v.mu.Lock()
		v.ended, v.live = time.Now(), err == nil
		v.mu.Unlock()
		s.close(ctx, v.cfg.Log)
		if err == nil {
			return nil
		}
		if v.cfg.Wait > 0 && errors.Is(err, ErrEnded) {
			s, err = v.comeBack(ctx, err)
		}
		if err == nil && s == nil { // its time was over meanwhile
			return nil
		}
	}
	return err
}

// await makes the first session. It waits for a stream that isn't live yet.
func (v *viewer) await(ctx context.Context) (*peer, error) {
	called := time.Now()
	s, err := v.try(ctx, called.Add(v.cfg.Wait), func(err error) bool {
		var r *Refused
		if !errors.As(err, &r) || r.Code != "stream_offline" && r.Status != http.StatusServiceUnavailable {
			return false
		}
		if v.waited == 0 && v.cfg.Waiting != nil {
			v.cfg.Waiting()
		}
		v.waited = time.Since(called)
		return true
	})
	if err == nil && v.waited > 0 {
		v.waited = v.began.Sub(called)
	}
	return s, err
}

// comeBack makes another session after one that was lost, as a browser's page does. It returns
// none, and no error, when the time to watch ends meanwhile.
func (v *viewer) comeBack(ctx context.Context, lost error) (*peer, error) {
	v.cfg.Log.Warn("the session is lost; coming back", "to", v.cfg.URL)
	v.restart()
	run, cancel := ctx, context.CancelFunc(func() {})
	if v.cfg.Duration > 0 {
		run, cancel = context.WithDeadline(ctx, v.first.Add(v.cfg.Duration))
	}
	defer cancel()
	s, err := v.try(run, v.ended.Add(v.cfg.Wait), func(err error) bool {
		var r *Refused
		return !errors.As(err, &r) || r.Status != http.StatusUnauthorized && r.Status != http.StatusForbidden
	})
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case err == nil:
		v.again++
		v.cfg.Log.Info("watching again", "from", v.cfg.URL, "after", time.Since(v.ended).Round(time.Millisecond))
		return s, nil
	case run.Err() != nil:
		v.ended, v.live = time.Now(), true
		return nil, nil
	}
	return nil, fmt.Errorf("%w; coming back for %s: %w", lost, v.cfg.Wait, err)
}

// restart makes the tracks ready for another session. No session runs.
func (v *viewer) restart() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range v.tracks {
		r.order.flush(v.ended)
	}
	if v.rec != nil {
		v.rec.restart()
	}
	for _, r := range v.tracks {
		r.restart()
	}
}

// How often to ask for a stream that isn't there; within that as the server wishes.
const (
	minAsk = 500 * time.Millisecond
	maxAsk = 2 * time.Second
)

// try asks for a session until it has one, the limit has come, or an error is none to wait for.
func (v *viewer) try(ctx context.Context, limit time.Time, wait func(error) bool) (*peer, error) {
	for {
		s, err := v.connect(ctx, false)
		if err == nil {
			return s, nil
		}
		left := time.Until(limit)
		if ctx.Err() != nil || left <= 0 || !wait(err) {
			return nil, err
		}
		pause := minAsk
		if r := (*Refused)(nil); errors.As(err, &r) {
			pause = min(max(r.RetryAfter, minAsk), maxAsk)
		}
		timer := time.NewTimer(min(pause, left))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// connect makes a session, if need be beside the present one, whose place it takes with its first picture.
func (v *viewer) connect(ctx context.Context, beside bool) (_ *peer, err error) {
	s, err := newPeer(v.api)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close(ctx, v.cfg.Log)
		}
	}()
	v.mu.Lock()
	if beside {
		v.next, v.took = s, make(chan struct{})
	} else {
		v.current, v.next = s, nil
		v.arrived, v.flowing = make(chan struct{}), false
	}
	if v.answered.IsZero() {
		v.began = time.Now()
	}
	v.mu.Unlock()
	s.pc.OnTrack(func(track *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) { v.receive(s, track, receiver) })
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeAudio} {
		_, err := s.pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly})
		if err != nil {
			return nil, fmt.Errorf("offer to receive %s: %w", kind, err)
		}
	}
	if err := s.open(ctx, v.client, v.cfg.URL); err != nil {
		return nil, err
	}
	promised := answered(s.res.Answer, sdp.AttrKeySendOnly)
	if len(promised) == 0 {
		return nil, fmt.Errorf("%w: the server's answer has no codec in common with us", ErrNoMedia)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.answered.IsZero() {
		v.answered = time.Now()
		if v.rec != nil {
			v.rec.want = len(promised)
		}
	}
	v.cfg.Log.Info("watching", "from", v.cfg.URL, "tracks", promised)
	return s, nil
}

// follow waits for a session's first packet, and then for its end or that of the time to watch. When the server asks for it, another
// session takes its place; the last one is returned.
func (v *viewer) follow(ctx context.Context, s *peer) (*peer, error) {
	moving := v.watchForMove(ctx, s)
	defer func() {
		moving.stop()
		select {
		case other := <-moving.to:
			other.close(ctx, v.cfg.Log)
		default:
		}
	}()
	silence := time.NewTimer(mediaTimeout)
	defer silence.Stop()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	v.mu.Lock()
	arrived := v.arrived
	v.mu.Unlock()
	end := v.end()
	for {
		select {
		case <-ctx.Done():
			return s, nil
		case other := <-moving.to:
			old := s
			s = other
			s.wg.Go(func() { old.close(ctx, v.cfg.Log) })
			moving.stop()
			moving = v.watchForMove(ctx, s)
		case <-s.lost:
			moving.stop()
			if len(moving.to) > 0 { // just in time
				continue
			}
			return s, fmt.Errorf("%w: the server closed it, or can't be reached any more", ErrEnded)
		case <-arrived:
			arrived = nil
			silence.Stop()
			end = v.end()
		case <-end:
			return s, nil
		case <-silence.C:
			return s, fmt.Errorf("%w: connected, but not a packet came in %s; does the publisher send?", ErrNoMedia, mediaTimeout)
		case <-tick.C:
			if v.cfg.Progress != nil && arrived == nil {
				v.cfg.Progress(v.progress())
			}
		}
	}
}

// end comes when the stream has been watched for Duration.
func (v *viewer) end() <-chan time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.cfg.Duration <= 0 || v.first.IsZero() {
		return nil
	}
	return time.After(time.Until(v.first.Add(v.cfg.Duration)))
}

// receive reads a track until its session is closed. Pion calls it in a goroutine for each track.
func (v *viewer) receive(s *peer, track *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	if !s.enter() {
		return
	}
	defer s.wg.Done()
	c := track.Codec()
	_, name, _ := strings.Cut(c.MimeType, "/")
	kind := media.Video
	if track.Kind() == webrtc.RTPCodecTypeAudio {
		kind = media.Audio
	}
	r := v.reception(kind, name, c)
	s.wg.Go(func() { v.reports(s, track, receiver, r) })
	for {
		pkt, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		now := time.Now()
		v.mu.Lock()
		if s != v.current && !v.takesOver(s, kind) {
			v.mu.Unlock()
			continue
		}
		if v.first.IsZero() {
			v.first = now
		}
		if !v.flowing {
			v.flowing = true
			close(v.arrived)
		}
		r.packet(pkt, now)
		ask := r.wantsKey(now)
		if ask {
			v.asked++
		}
		v.mu.Unlock()
		if ask { // a failure is one of a session that ends
			_ = s.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(track.SSRC())}})
		}
	}
}

// reception is of a track, that may go on from a session before.
func (v *viewer) reception(kind media.Kind, codec string, c webrtc.RTPCodecParameters) *reception {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range v.tracks {
		if r.kind == kind && r.codec == codec && r.clock.rate == int64(c.ClockRate) {
			return r
		}
	}
	r := newReception(kind, codec, c.ClockRate)
	if v.rec != nil {
		t := v.rec.add(kind, codec, c.Channels, &r.clock)
		r.onFrame = func(f frame.Frame, intact bool) {
			if intact {
				v.rec.write(t, f)
			}
		}
	}
	v.tracks = append(v.tracks, r)
	return r
}

// reports reads what the server says about a track until the session is closed.
func (v *viewer) reports(s *peer, track *webrtc.TrackRemote, receiver *webrtc.RTPReceiver, r *reception) {
	for {
		pkts, _, err := receiver.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range pkts {
			if sr, ok := p.(*rtcp.SenderReport); ok && sr.SSRC == uint32(track.SSRC()) {
				v.mu.Lock()
				if s == v.current { // else it is of another clock
					r.report(sr)
				}
				v.mu.Unlock()
			}
		}
	}
}

// progress sums up the time since it was last called.
func (v *viewer) progress() PlayStats {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := PlayStats{Elapsed: time.Since(v.first)}
	var bytes uint64
	for _, r := range v.tracks {
		bytes += r.bytes
		s.Lost += r.order.lost
		if r.kind == media.Video {
			s.Video, s.Frames = true, r.complete
		}
		if r.kind == media.Video || len(v.tracks) == 1 {
			s.Freezes, s.Latency = r.freezes, Millis(r.recent.Quantile(0.5))
			r.recent = Histogram{}
		}
	}
	if d := (s.Elapsed - v.previous.Elapsed).Seconds(); d > 0 {
		s.FPS = float64(s.Frames-v.previous.Frames) / d
		s.Bitrate = float64(bytes-v.prevBytes) * 8 / d
	}
	v.previous, v.prevBytes = s, bytes
	return s
}

// finish sums up when all goroutines have ended, and completes the file.
func (v *viewer) finish() (PlayReport, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	rep := PlayReport{URL: v.cfg.URL, Waited: Millis(v.waited), Reconnections: v.again, Moves: v.moves}
	since := func(t time.Time) Millis {
		if t.IsZero() {
			return 0
		}
		return Millis(t.Sub(v.began))
	}
	rep.Answered, rep.FirstPacket, rep.KeyFrameRequests = since(v.answered), since(v.first), v.asked
	if !v.first.IsZero() {
		rep.Duration = Millis(v.ended.Sub(v.first))
	}
	for _, r := range v.tracks {
		r.finish(v.ended, v.live)
		s := r.stats()
		if r.kind == media.Video {
			rep.Video = s
		} else {
			rep.Audio = s
		}
		if r.kind == media.Video {
			rep.FirstFrame = since(r.firstKey)
		}
	}
	if v.rec == nil {
		return rep, nil
	}
	if err := v.rec.finish(); err != nil {
		return rep, err
	}
	rep.Out = v.cfg.Out
	return rep, nil
}
