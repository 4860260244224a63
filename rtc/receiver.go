package rtc

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"sluice/media"
)

// ReceiverOptions describe a session that receives.
type ReceiverOptions struct {
	Codecs []string // order of preference; default DefaultCodecs
	Events Events
	// OnBurst has the packets of a frame, or of a part of it, as they came; it owns the burst. Each track
	// calls from a goroutine of its own. It is called only after Start.
	OnBurst func(*media.Burst)
}

// Receiver is a session whose peer sends. Its methods may be called from any goroutine.
type Receiver struct {
	*session
	options ReceiverOptions
	tracks  []media.Track
	clocks  *clocks
	started chan struct{} // closed by Start
	once    sync.Once
	keys    chan int // tracks for which a key frame is wanted

	ssrcMu sync.Mutex
	ssrcs  []webrtc.SSRC // by track; 0: nothing came yet
}

// AnswerReceiver opens a session from the offer of a peer that will send. Of each kind of
// medium one track is taken, in the one codec that comes first in the order of preference.
func (e *Endpoint) AnswerReceiver(offer string, o ReceiverOptions) (*Receiver, string, error) {
	sections, data, err := parseOffer(offer)
	if err != nil {
		return nil, "", err
	}
	if len(o.Codecs) == 0 {
		o.Codecs = DefaultCodecs()
	}
	offer = withoutLayers(offer)
	if sections, err = sent(sections); err != nil {
		return nil, "", err
	}
	m := &webrtc.MediaEngine{}
	var tracks []media.Track
	for _, kind := range []media.Kind{media.Video, media.Audio} {
		s, ok := firstOf(sections, kind)
		if !ok {
			continue
		}
		f, ok := choosePublished(s.formats, o.Codecs)
		if !ok {
			return nil, "", fmt.Errorf("%w: the offer has no %s codec that is accepted here (%v)", ErrNoCodec, kind, o.Codecs)
		}
		if err := register(m, kind, f, s.sources); err != nil {
			return nil, "", err
		}
		tracks = append(tracks, media.Track{Kind: kind, Codec: f.codec})
	}
	if len(tracks) == 0 && !data {
		return nil, "", fmt.Errorf("%w: it sends nothing", ErrBadSDP)
	}
	registry, err := receiverInterceptors(m)
	if err != nil {
		return nil, "", fmt.Errorf("open a session: %w", err)
	}
	inner, err := e.newSession(e.api(m, answeringRole(offer), webrtc.WithInterceptorRegistry(registry)), o.Events)
	if err != nil {
		return nil, "", err
	}
	r := &Receiver{session: inner, options: o, tracks: tracks, clocks: newClocks(tracks), started: make(chan struct{}), keys: make(chan int, 16), ssrcs: make([]webrtc.SSRC, len(tracks))}
	r.pc.OnTrack(r.onTrack)
	r.spawn(r.sendRequests)
	answer, err := r.answer(offer)
	if err != nil {
		r.Close()
		return nil, "", err
	}
	return r, answer, nil
}

// receiverInterceptors are what a sender needs from us: NACK, receiver reports, transport-wide feedback.
func receiverInterceptors(m *webrtc.MediaEngine) (*interceptor.Registry, error) {
	registry := &interceptor.Registry{}
	generator, err := nack.NewGeneratorInterceptor(nack.GeneratorInterval(20 * time.Millisecond))
	if err != nil {
		return nil, err
	}
	reports, err := report.NewReceiverInterceptor()
	if err != nil {
		return nil, err
	}
	registry.Add(generator)
	registry.Add(reports)
	return registry, webrtc.ConfigureTWCCSender(m, registry)
}

// Tracks are the tracks that were agreed on, video first.
func (r *Receiver) Tracks() []media.Track { return r.tracks }

// Start lets bursts through; what came before waits.
func (r *Receiver) Start() { r.once.Do(func() { close(r.started) }) }

// RequestKeyFrame asks the peer for a key frame (RFC 4585 §6.3.1). It never blocks.
func (r *Receiver) RequestKeyFrame(track int) {
	select {
	case r.keys <- track:
	default: // sixteen are under way
	}
}

func (r *Receiver) sendRequests() {
	for {
		select {
		case track := <-r.keys:
			r.ssrcMu.Lock()
			ssrc := r.ssrcs[track]
			r.ssrcMu.Unlock()
			if ssrc != 0 {
				_ = r.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(ssrc)}})
			}
		case <-r.done:
			return
		}
	}
}

func (r *Receiver) onTrack(remote *webrtc.TrackRemote, from *webrtc.RTPReceiver) {
	track := -1
	for i, t := range r.tracks {
		if kindOf(t.Kind) == remote.Kind() {
			track = i
		}
	}
	r.ssrcMu.Lock()
	taken := track < 0 || r.ssrcs[track] != 0
	if !taken {
		r.ssrcs[track] = remote.SSRC()
	}
	r.ssrcMu.Unlock()
	if taken {
		return // a second track of a kind is not part of the stream
	}
	r.RequestKeyFrame(track)
	r.spawn(func() { r.readReports(track, from) })
	r.spawn(func() { r.readMedia(track, remote) })
}

// readReports ties the track's clock to the peer's wall clock until the session ends.
func (r *Receiver) readReports(track int, from *webrtc.RTPReceiver) {
	for {
		packets, _, err := from.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range packets {
			if sr, ok := p.(*rtcp.SenderReport); ok && sr.NTPTime != 0 {
				r.clocks.set(track, sr.RTPTime, fromNTP(sr.NTPTime))
			}
		}
	}
}

// together is how long a burst waits for the rest of its frame.
const together = 2 * time.Millisecond

// readMedia groups a track's packets into bursts until the session ends.
func (r *Receiver) readMedia(track int, remote *webrtc.TrackRemote) {
	select {
	case <-r.started:
	case <-r.done:
		return
	}
	buf := make([]byte, 1500)
	var burst *media.Burst
	var pad padding
	flush := func() {
		if burst != nil {
			r.options.OnBurst(burst)
			burst = nil
		}
	}
	defer flush()
	for {
		wait := time.Time{}
		if burst != nil {
			wait = time.Now().Add(together)
		}
		_ = remote.SetReadDeadline(wait)
		n, _, err := remote.Read(buf)
		// Pion's buffer has a timeout of its own, that is no os.ErrDeadlineExceeded.
		if late := net.Error(nil); errors.As(err, &late) && late.Timeout() {
			flush()
			continue
		}
		if err != nil {
			return
		}
		var h rtp.Header
		at, err := h.Unmarshal(buf[:n])
		if err != nil {
			continue
		}
		payload := buf[at:n]
		if h.Padding && len(payload) > 0 {
			payload = payload[:max(0, len(payload)-int(payload[len(payload)-1]))]
		}
		if len(payload) == 0 {
			pad.skip(h.SequenceNumber) // sent to measure the path
			continue
		}
		if burst != nil && burst.Timestamp != h.Timestamp {
			flush()
		}
		if burst == nil {
			burst = r.open(track, h.Timestamp)
		}
		seq := pad.number(h.SequenceNumber)
		if !burst.Append(seq, h.Marker, payload) && len(payload) <= media.MaxPayload {
			flush()
			burst = r.open(track, h.Timestamp)
			burst.Append(seq, h.Marker, payload)
		}
		if h.Marker || r.tracks[track].Kind == media.Audio {
			flush()
		}
	}
}

func (r *Receiver) open(track int, timestamp uint32) *media.Burst {
	b := media.NewBurst(track, timestamp)
	b.Arrived = time.Now().UnixNano()
	b.Captured = r.clocks.captured(track, timestamp, b.Arrived)
	return b
}
