package load

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"sluice/codec"
	"sluice/media"
)

// How long to wait between attempts to publish again: the same for a while, in which another server takes over, then more and more.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 8 * time.Second
	retrySoon  = 10 * time.Second
)

// How often the sender reports and the figures come.
const reportInterval = time.Second

// PublishConfig says what to publish where.
type PublishConfig struct {
	URL      string               // WHIP endpoint
	Source   string               // file, or TestPattern
	Token    string               // bearer token, may be empty
	Insecure bool                 // take any certificate
	Roots    *x509.CertPool       // certificates to trust; nil: the system's
	Allow    func(*url.URL) error // what may be asked, redirects included; nil: all

	Width, Height int  // pixels of the test pattern; 0: 1280x720
	FPS           int  // of the test pattern; 0: 30
	Bitrate       int  // bit/s of video that is encoded; 0: 2,500,000
	Loop          bool // begin the file again at its end

	Log      *slog.Logger
	Progress func(PublishStats) // once a second and when the source is over, from one goroutine; may be nil
}

// PublishStats are figures of a publisher.
type PublishStats struct {
	Elapsed          time.Duration `json:"elapsed"`
	Connected        bool          `json:"connected"`
	Ended            bool          `json:"ended"`    // the source is over
	Video            bool          `json:"video"`    // there are pictures, not only sound
	Sessions         int           `json:"sessions"` // 1 + how often it had to publish again
	Frames           uint64        `json:"frames"`
	Packets          uint64        `json:"packets"`
	Bytes            uint64        `json:"bytes"`   // of payload
	FPS              float64       `json:"fps"`     // in the last second
	Bitrate          float64       `json:"bitrate"` // bit/s in the last second
	RTT              time.Duration `json:"rtt"`
	Loss             float64       `json:"loss"` // share that the server missed lately, 0 to 1
	KeyFrameRequests uint64        `json:"keyFrameRequests"`
}

// Check tells of what Publish would refuse without a look at the source. 0 stands for a default.
func (c PublishConfig) Check() error { return c.complete() }

// complete fills in the defaults.
func (c *PublishConfig) complete() error {
	c.Log = orDiscard(c.Log)
	c.Width, c.Height = orDefault(c.Width, 1280), orDefault(c.Height, 720)
	c.FPS, c.Bitrate = orDefault(c.FPS, 30), orDefault(c.Bitrate, 2_500_000)
	switch {
	case c.Source == "":
		return fmt.Errorf("nothing to publish: give a media file, or %s", TestPattern)
	case c.Width < 64 || c.Height < 64 || c.Width > 8192 || c.Height > 8192 || c.Width%2+c.Height%2 != 0:
		return fmt.Errorf("a picture of %dx%d can't be encoded: give even numbers from 64 to 8192", c.Width, c.Height)
	case c.FPS < 1 || c.FPS > 240:
		return fmt.Errorf("%d frames a second: give 1 to 240", c.FPS)
	case c.Bitrate < 50_000 || c.Bitrate > 200_000_000:
		return fmt.Errorf("a bitrate of %d bit/s: give 50,000 to 200,000,000", c.Bitrate)
	}
	return nil
}

// Publish plays a file or the test pattern to a WHIP endpoint until it is over or ctx ends; both
// are no error. It returns at once when the first attempt fails; a session that is lost later is
// made again with growing pauses, while the source goes on.
func Publish(ctx context.Context, cfg PublishConfig) error {
	if err := cfg.complete(); err != nil {
		return err
	}
	src, err := planSource(ctx, &cfg)
	if err != nil {
		return err
	}
	p, err := newPublisher(cfg, src)
	if err != nil {
		return err
	}
	defer p.client.Close()
	s, err := p.connect(ctx)
	if err != nil {
		return fmt.Errorf("publish to %s: %w", cfg.URL, err)
	}
	cfg.Log.Info("publishing", "what", src.name, "to", cfg.URL, "codecs", media.CodecNames(src.tracks))
	return p.run(ctx, s, src)
}

// publisher sends a feed's packets to whatever session there is.
type publisher struct {
	cfg    PublishConfig
	client *Client
	api    *webrtc.API
	live   bool
	tracks []*outTrack
	began  time.Time

	mu       sync.Mutex // guards all below, and the tracks' mutable fields
	lead     int64      // what to add to the feed's clock to have the wall clock, nanoseconds
	leadOK   bool
	session  *peer         // nil while there is none
	keyed    chan struct{} // closed with the first key frame of the present session
	isKeyed  bool          // it is
	stats    PublishStats
	previous PublishStats // at the last progress
}

// outTrack is a track of the feed; its RTP goes to all sessions, one after the other, with the
// same timestamps and continuous sequence numbers.
type outTrack struct {
	kind  media.Kind
	codec string
	local *webrtc.TrackLocalStaticRTP
	clock wallClock // by the feed's clock

	ssrc     uint32    // in the present session
	reported time.Time // last sender report in the present session
	ntp      [8]uint32 // middle bits of the last reports' times, that receivers refer to
	sentAt   [8]time.Time
	packets  uint32
	octets   uint32
}

func newPublisher(cfg PublishConfig, src *plan) (*publisher, error) {
	p := &publisher{cfg: cfg, client: NewClient(cfg.Token, cfg.Roots, cfg.Insecure), live: src.live, began: time.Now()}
	p.client.Allow(cfg.Allow)
	m := &webrtc.MediaEngine{}
	pt := webrtc.PayloadType(96)
	for _, t := range src.tracks {
		kind, capability := webrtc.RTPCodecTypeAudio, webrtc.RTPCodecCapability{
			MimeType: t.Kind.String() + "/" + t.Codec.Name, ClockRate: t.Codec.ClockRate, Channels: t.Codec.Channels, SDPFmtpLine: t.Codec.Fmtp}
		offers := []string{t.Codec.Fmtp}
		if t.Kind == media.Video {
			kind = webrtc.RTPCodecTypeVideo
			capability.RTCPFeedback = []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "nack", Parameter: "pli"}, {Type: "ccm", Parameter: "fir"}}
			// A server that knows no other profile takes this one, and players look at the picture itself.
			if plain := h264Track("42e01f").Codec.Fmtp; plain != t.Codec.Fmtp {
				offers = append(offers, plain)
			}
		}
		for _, fmtp := range offers {
			c := capability
			c.SDPFmtpLine = fmtp
			if err := m.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: c, PayloadType: pt}, kind); err != nil {
				return nil, fmt.Errorf("register %s: %w", c.MimeType, err)
			}
			pt++
		}
		local, err := webrtc.NewTrackLocalStaticRTP(capability, t.Kind.String(), "sluice")
		if err != nil {
			return nil, fmt.Errorf("make a track: %w", err)
		}
		p.tracks = append(p.tracks, &outTrack{kind: t.Kind, codec: t.Codec.Name, local: local, clock: wallClock{rate: int64(t.Codec.ClockRate)}})
	}
	var err error
	p.api, err = newAPI(cfg.Log, m)
	return p, err
}

// connect makes a session and starts to send through it.
func (p *publisher) connect(ctx context.Context) (_ *peer, err error) {
	s, err := newPeer(p.api)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close(ctx, p.cfg.Log)
		}
	}()
	senders := make([]*webrtc.RTPSender, len(p.tracks))
	for i, t := range p.tracks {
		tr, err := s.pc.AddTransceiverFromTrack(t.local, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
		if err != nil {
			return nil, fmt.Errorf("add a track: %w", err)
		}
		senders[i] = tr.Sender()
	}
	if err := s.open(ctx, p.client, p.cfg.URL); err != nil {
		return nil, err
	}
	if got := answered(s.res.Answer, sdp.AttrKeyRecvOnly); len(got) < len(p.tracks) {
		return nil, fmt.Errorf("the server takes only %v of what is offered", got)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, t := range p.tracks {
		t.ssrc = uint32(senders[i].GetParameters().Encodings[0].SSRC)
		t.reported, t.packets, t.octets = time.Time{}, 0, 0
		s.wg.Go(func() { p.feedback(senders[i], t) })
	}
	p.session = s
	p.keyed, p.isKeyed = make(chan struct{}), false
	p.stats.Sessions++
	return s, nil
}

// answered lists the kinds of media that an answer takes in that direction, or in both.
func answered(answer, direction string) []string {
	var d sdp.SessionDescription
	if d.UnmarshalString(answer) != nil {
		return nil // SetRemoteDescription has refused it already
	}
	kinds := []string{}
	for _, m := range d.MediaDescriptions {
		_, one := m.Attribute(direction)
		_, inactive := m.Attribute(sdp.AttrKeyInactive)
		_, send := m.Attribute(sdp.AttrKeySendOnly)
		_, recv := m.Attribute(sdp.AttrKeyRecvOnly)
		both := !inactive && !send && !recv // RFC 8866 §6.7: sendrecv when nothing is said
		if m.MediaName.Port.Value != 0 && (one || both) && m.MediaName.Media != "application" {
			kinds = append(kinds, m.MediaName.Media)
		}
	}
	return kinds
}

// run sends the feed until it ends or ctx does, and makes lost sessions again.
func (p *publisher) run(ctx context.Context, s *peer, src *plan) error {
	run, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() {
		cancel()
		wg.Wait()
		if s := p.detach(); s != nil {
			s.close(ctx, p.cfg.Log)
		}
	}()
	f, err := startFeed(run, src)
	if err != nil {
		return err
	}
	over := make(chan error, 1)
	wg.Go(func() { over <- p.pump(run, f) })

	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	lost := s.lost
	again := make(chan *peer, 1)
	p.watchForMove(run, &wg, s, again)
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-over:
			return p.ended(err)
		case <-lost:
			lost = nil
			if p.left(s) { // another one is there, and comes by again
				continue
			}
			old, since := p.detach(), time.Now()
			p.cfg.Log.Warn("the session is lost; publishing again", "to", p.cfg.URL)
			wg.Go(func() {
				old.close(run, p.cfg.Log) // also on the server, if it still knows it
				p.reconnect(run, since, again)
			})
		case s = <-again:
			lost = s.lost
			p.watchForMove(run, &wg, s, again)
		case <-tick.C:
			if p.cfg.Progress != nil {
				p.cfg.Progress(p.progress())
			}
		}
	}
}

// ended tells of the end of the source.
func (p *publisher) ended(err error) error {
	s := p.progress()
	s.Ended = true
	if err == nil && s.Packets == 0 {
		err = fmt.Errorf("publish %s: it was over before anything could be sent: give a longer file", p.cfg.Source)
	}
	if err == nil && p.cfg.Progress != nil {
		p.cfg.Progress(s)
	}
	return err
}

// reconnect tries until it has a session or ctx ends.
func (p *publisher) reconnect(ctx context.Context, since time.Time, again chan<- *peer) {
	pause := firstRetry
	for attempt := 1; ; attempt++ {
		delay := pause/2 + rand.N(pause) // not all publishers of a server that is back come in the same instant
		if attempt == 1 {
			delay = rand.N(firstRetry / 2)
		} else if time.Since(since) > retrySoon {
			pause = min(2*pause, lastRetry)
		}
		wait := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
		s, err := p.connect(ctx)
		if err == nil {
			p.cfg.Log.Info("publishing again", "to", p.cfg.URL, "after", time.Since(since).Round(time.Millisecond), "attempts", attempt)
			again <- s
			return
		}
		if ctx.Err() == nil {
			p.cfg.Log.Warn("could not publish again yet", "to", p.cfg.URL, "attempt", attempt, "error", err)
		}
	}
}

func (p *publisher) detach() *peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.session
	p.session = nil
	return s
}

// pump reads all tracks to their end.
func (p *publisher) pump(ctx context.Context, f *feed) error {
	var wg sync.WaitGroup
	errs := make([]error, len(f.tracks))
	for i, r := range f.tracks {
		wg.Go(func() { errs[i] = p.pumpTrack(r, p.tracks[i]) })
	}
	wg.Wait()
	err := f.wait(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(append([]error{err}, errs...)...)
}

func (p *publisher) pumpTrack(r *os.File, t *outTrack) error {
	buf := make([]byte, 2*rtpPacket)
	for {
		n, err := r.Read(buf) // one packet
		if err != nil || n == 0 {
			if err == nil || errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
				return nil
			}
			return fmt.Errorf("read from ffmpeg: %w", err)
		}
		if n < 2 {
			continue
		}
		if buf[1] >= 192 && buf[1] <= 223 { // RTCP (RFC 5761 §4)
			if err := p.clockFrom(t, buf[:n]); err != nil {
				return err
			}
			continue
		}
		var pkt rtp.Packet
		if err := pkt.Unmarshal(buf[:n]); err != nil {
			return fmt.Errorf("read from ffmpeg: %w", err)
		}
		p.send(t, &pkt, time.Now())
	}
}

// clockFrom takes over a sender report of FFmpeg. One comes before a track's first packet.
func (p *publisher) clockFrom(t *outTrack, b []byte) error {
	pkts, err := rtcp.Unmarshal(b)
	if err != nil {
		return fmt.Errorf("read from ffmpeg: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range pkts {
		if sr, ok := r.(*rtcp.SenderReport); ok {
			t.clock.set(sr)
		}
	}
	return nil
}

// send passes a packet on. Without a session it is dropped: what is live does not wait.
func (p *publisher) send(t *outTrack, pkt *rtp.Packet, now time.Time) {
	p.mu.Lock()
	// A file's picture is captured, so to speak, when it is played; of which the packet
	// with the least delay tells best. One value for all tracks keeps lips and sound together.
	if d := now.UnixNano() - t.clock.at(pkt.Timestamp); !p.live && t.clock.ok && (!p.leadOK || d < p.lead) {
		p.lead, p.leadOK = d, true
	}
	s := p.session
	if s == nil {
		p.mu.Unlock()
		return
	}
	var sr *rtcp.SenderReport
	if t.clock.ok && now.Sub(t.reported) >= reportInterval {
		sr = p.reportLocked(t, now)
	}
	t.packets++
	t.octets += uint32(len(pkt.Payload))
	p.stats.Packets++
	p.stats.Bytes += uint64(len(pkt.Payload))
	if t.kind == media.Video && pkt.Marker {
		p.stats.Frames++
	}
	if !p.isKeyed && (p.tracks[0].kind == media.Audio || t.kind == media.Video && codec.StartsKeyFrame(t.codec, pkt.Payload)) {
		p.isKeyed = true
		close(p.keyed)
	}
	p.mu.Unlock()
	// Errors are those of a session that is being closed; its end is told by its state.
	if sr != nil {
		_ = s.pc.WriteRTCP([]rtcp.Packet{sr})
	}
	_ = t.local.WriteRTP(pkt)
}

// reportLocked says which moment of the wall clock the timestamps stand for (RFC 3550 §6.4.1). Pion's own
// reports would tell the moment of sending, and so hide the time that capture and encoder took.
func (p *publisher) reportLocked(t *outTrack, now time.Time) *rtcp.SenderReport {
	ntp := toNTP(now.UnixNano())
	copy(t.ntp[1:], t.ntp[:])
	copy(t.sentAt[1:], t.sentAt[:])
	t.ntp[0], t.sentAt[0], t.reported = uint32(ntp>>16), now, now
	return &rtcp.SenderReport{SSRC: t.ssrc, NTPTime: ntp, RTPTime: t.clock.stamp(now.UnixNano() - p.lead),
		PacketCount: t.packets, OctetCount: t.octets}
}

// feedback reads what the server says about a track until the session is closed.
func (p *publisher) feedback(sender *webrtc.RTPSender, t *outTrack) {
	for {
		pkts, _, err := sender.ReadRTCP()
		if err != nil {
			return
		}
		now := time.Now()
		p.mu.Lock()
		for _, r := range pkts {
			switch r := r.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				p.stats.KeyFrameRequests++ // answered by the next one, at most patternKeyFrames later
			case *rtcp.ReceiverReport:
				for _, rep := range r.Reports {
					p.receivedLocked(t, rep, now)
				}
			}
		}
		p.mu.Unlock()
	}
}

// receivedLocked takes loss and round-trip time from a reception report (RFC 3550 §6.4.1).
func (p *publisher) receivedLocked(t *outTrack, rep rtcp.ReceptionReport, now time.Time) {
	if rep.SSRC != t.ssrc {
		return
	}
	if t.kind == media.Video || len(p.tracks) == 1 {
		p.stats.Loss = float64(rep.FractionLost) / 256
	}
	if rep.LastSenderReport == 0 {
		return
	}
	for i, ntp := range t.ntp {
		if ntp == rep.LastSenderReport {
			held := time.Duration(rep.Delay) * time.Second / 65536
			p.stats.RTT = max(0, now.Sub(t.sentAt[i])-held)
			return
		}
	}
}

func (p *publisher) progress() PublishStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, last := p.stats, p.previous
	s.Elapsed, s.Connected, s.Video = time.Since(p.began), p.session != nil, p.tracks[0].kind == media.Video
	if d := (s.Elapsed - last.Elapsed).Seconds(); d > 0 {
		s.FPS = float64(s.Frames-last.Frames) / d
		s.Bitrate = float64(s.Bytes-last.Bytes) * 8 / d
	}
	p.previous = s
	return s
}
