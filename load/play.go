package load

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"sluice/media"
)

// PlayConfig says what to watch, and for how long.
type PlayConfig struct {
	URL      string         // WHEP endpoint
	Token    string         // bearer token, may be empty
	Insecure bool           // take any certificate
	Roots    *x509.CertPool // certificates to trust; nil: the system's
	Duration time.Duration  // from the first packet on; 0: until ctx ends
	Out      string         // Matroska or WebM file to write, may be empty

	Log      *slog.Logger
	Progress func(PlayStats) // once a second, from one goroutine; may be nil
}

// PlayStats are a viewer's figures of the last second.
type PlayStats struct {
	Elapsed time.Duration `json:"elapsed"` // since the first packet
	FPS     float64       `json:"fps"`
	Bitrate float64       `json:"bitrate"` // bit/s, all tracks
	Frames  uint64        `json:"frames"`  // of video, in all
	Lost    uint64        `json:"lost"`    // packets, in all
	Freezes int           `json:"freezes"` // in all
	Latency Millis        `json:"latencyMs"`
}

// Play watches a stream over WHEP as a browser would, and reports what it saw. It ends without an error
// after Duration or when ctx ends. When the server ends the session the error is ErrEnded, and the
// report tells of the time before.
func Play(ctx context.Context, cfg PlayConfig) (PlayReport, error) {
	cfg.Log = orDiscard(cfg.Log)
	v := &viewer{cfg: cfg, began: time.Now(), media: make(chan struct{})}
	client := NewClient(cfg.Token, cfg.Roots, cfg.Insecure)
	defer client.Close()
	if cfg.Out != "" {
		var err error
		if v.rec, err = newRecorder(cfg.Out); err != nil {
			return PlayReport{URL: cfg.URL}, err
		}
	}
	err := v.watch(ctx, client)
	if err != nil {
		err = fmt.Errorf("play %s: %w", cfg.URL, err)
	}
	report, rerr := v.finish()
	if err == nil {
		err = rerr
	}
	return report, err
}

// viewer is one WHEP session.
type viewer struct {
	cfg   PlayConfig
	began time.Time
	peer  *peer
	media chan struct{} // closed with the first packet

	mu        sync.Mutex // guards all below
	tracks    []*reception
	rec       *recorder
	answered  time.Time
	first     time.Time // packet
	ended     time.Time
	live      bool // media was flowing until we ended it
	asked     int  // key frames
	previous  PlayStats
	prevBytes uint64
}

// watch runs the session to its end.
func (v *viewer) watch(ctx context.Context, client *Client) error {
	m, err := viewerMedia()
	if err != nil {
		return fmt.Errorf("register codecs: %w", err)
	}
	api, err := newAPI(v.cfg.Log, m)
	if err != nil {
		return err
	}
	if v.peer, err = newPeer(api); err != nil {
		return err
	}
	defer v.peer.close(ctx, v.cfg.Log)
	v.peer.pc.OnTrack(v.receive)
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeAudio} {
		_, err := v.peer.pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly})
		if err != nil {
			return fmt.Errorf("offer to receive %s: %w", kind, err)
		}
	}
	if err := v.peer.open(ctx, client, v.cfg.URL); err != nil {
		return err
	}
	promised := answered(v.peer.res.Answer, sdp.AttrKeySendOnly)
	if len(promised) == 0 {
		return fmt.Errorf("%w: the server's answer has no codec in common with us", ErrNoMedia)
	}
	v.mu.Lock()
	v.answered = time.Now()
	if v.rec != nil {
		v.rec.want = len(promised)
	}
	v.mu.Unlock()
	v.cfg.Log.Info("watching", "from", v.cfg.URL, "tracks", promised)
	err = v.follow(ctx)
	v.mu.Lock()
	v.ended, v.live = time.Now(), err == nil
	v.mu.Unlock()
	return err
}

// follow waits for the first packet, and then for the end.
func (v *viewer) follow(ctx context.Context) error {
	end := time.NewTimer(mediaTimeout)
	defer end.Stop()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	arrived := v.media
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-v.peer.lost:
			return fmt.Errorf("%w: the server closed it, or can't be reached any more", ErrEnded)
		case <-arrived:
			arrived = nil
			end.Stop()
			if v.cfg.Duration > 0 {
				end.Reset(v.cfg.Duration)
			}
		case <-end.C:
			if arrived != nil {
				return fmt.Errorf("%w: connected, but not a packet came in %s; does the publisher send?", ErrNoMedia, mediaTimeout)
			}
			return nil
		case <-tick.C:
			if v.cfg.Progress != nil && arrived == nil {
				v.cfg.Progress(v.progress())
			}
		}
	}
}

// receive reads a track until the session is closed. Pion calls it in a goroutine for each track.
func (v *viewer) receive(track *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	if !v.peer.enter() {
		return
	}
	defer v.peer.wg.Done()
	c := track.Codec()
	_, name, _ := strings.Cut(c.MimeType, "/")
	kind := media.Video
	if track.Kind() == webrtc.RTPCodecTypeAudio {
		kind = media.Audio
	}
	r := newReception(kind, name, c.ClockRate)
	v.mu.Lock()
	if v.rec != nil {
		t := v.rec.add(kind, name, c.Channels, &r.clock)
		r.onFrame = func(f frame, intact bool) {
			if intact {
				v.rec.write(t, f)
			}
		}
	}
	v.tracks = append(v.tracks, r)
	v.mu.Unlock()
	v.peer.wg.Go(func() { v.reports(track, receiver, r) })
	for {
		pkt, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		now := time.Now()
		v.mu.Lock()
		if v.first.IsZero() {
			v.first = now
			close(v.media)
		}
		r.packet(pkt, now)
		ask := r.wantsKey(now)
		if ask {
			v.asked++
		}
		v.mu.Unlock()
		if ask { // a failure is one of a session that ends
			_ = v.peer.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(track.SSRC())}})
		}
	}
}

// reports reads what the server says about a track until the session is closed.
func (v *viewer) reports(track *webrtc.TrackRemote, receiver *webrtc.RTPReceiver, r *reception) {
	for {
		pkts, _, err := receiver.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range pkts {
			if sr, ok := p.(*rtcp.SenderReport); ok && sr.SSRC == uint32(track.SSRC()) {
				v.mu.Lock()
				r.report(sr)
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
		if r.kind == media.Video || len(v.tracks) == 1 {
			s.Frames, s.Freezes, s.Latency = r.complete, r.freezes, Millis(r.recent.Quantile(0.5))
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
	rep := PlayReport{URL: v.cfg.URL}
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
		if r.kind == media.Video || rep.FirstFrame == 0 && len(v.tracks) == 1 {
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
