package rtc

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"sluice/media"
)

// ReceiverOptions describe a session that receives.
type ReceiverOptions struct {
	Codecs []string // order of preference; default DefaultCodecs
	Events Events
	// OnBurst has the packets of a frame, or of a part of it, as they came; it owns the burst. It is called from one goroutine
	// at a time, and must not block.
	OnBurst func(*media.Burst)
}

// Receiver is a session whose peer sends. Its methods may be called from any goroutine. What comes is decrypted and handed on
// by whoever reads the socket.
type Receiver struct {
	session
	onBurst   func(*media.Burst)
	tracks    []media.Track
	ssrc      uint32          // ours, in reports
	ssrcs     []atomic.Uint32 // by track; 0: nothing came yet
	wideID    uint8           // of the header extension with transport-wide numbers; 0: none
	layers    layers
	described uint8 // id of the header extension with dependency descriptors; 0: none

	in       sync.Mutex // guards what follows
	opener   *opener
	early    [][]byte // what came before the keys
	header   rtp.Header
	clocks   clocks
	lanes    []inTrack
	blocks   []redBlock // of the packet that is being taken
	wide     *twcc.Recorder
	next     time.Time // when the peer is told of what came
	told     time.Time // when the last receiver report went out
	toldWide time.Time // and the last arrival times
	closed   bool
}

// inTrack is a track as it comes in.
type inTrack struct {
	pt, rtxPT uint8
	redPT     uint8  // of the payload with redundancy; 0: none
	nack      bool   // what is missing of sound may be asked for
	rid       string // of a picture that comes in layers
	repair    uint32 // the source of what is sent again of it; 0: not known
	video     bool
	history   history
	pad       padding
	reception reception
	burst     *media.Burst // is being put together
	usual     int          // bytes of the one before
	flush     *time.Timer  // for a burst whose frame does not end
	apart     int          // as many frames more are expected to come in parts; then there is a timer for them
}

// AnswerReceiver opens a session from the offer of a peer that will send. Of each kind of
// medium one track is taken, in the one codec that comes first in the order of preference.
func (e *Endpoint) AnswerReceiver(offer string, o ReceiverOptions) (*Receiver, string, error) {
	d, err := parseDescription(offer)
	if err != nil {
		return nil, "", err
	}
	if len(o.Codecs) == 0 {
		o.Codecs = DefaultCodecs()
	}
	sections, err := sent(d.sections)
	if err != nil {
		return nil, "", err
	}
	r := &Receiver{onBurst: o.OnBurst, ssrc: newSSRC()}
	r.endpoint, r.side, r.events = e, r, o.Events
	var chosen []format
	for _, kind := range []media.Kind{media.Video, media.Audio} {
		s, ok := firstOf(sections, kind)
		if !ok {
			continue
		}
		f, ok := choosePublished(s.formats, o.Codecs)
		if !ok {
			return nil, "", fmt.Errorf("%w: the offer has no %s codec that is accepted here (%v)", ErrNoCodec, kind, o.Codecs)
		}
		chosen = append(chosen, f)
		r.wideID = max(r.wideID, s.wideID)
		r.tracks = append(r.tracks, media.Track{Kind: kind, Codec: f.codec})
		r.lanes = append(r.lanes, inTrack{pt: f.pt, rtxPT: f.rtx, redPT: f.red, nack: f.nack, video: kind == media.Video, apart: expectApart, reception: reception{rate: int64(f.codec.ClockRate)}})
		if kind == media.Video {
			r.layers = s.layers
			if f.codec.Is(media.AV1) { // with VP9 its payload says as much
				r.described = s.described
			}
		}
	}
	if len(r.layers.rids) > 0 { // video comes first
		lane := r.lanes[0]
		r.lanes[0].rid = r.layers.rids[0]
		for i, t := range r.layers.renditions(r.tracks[0]) {
			r.tracks = append(r.tracks, t)
			lane.rid = r.layers.rids[i+1]
			r.lanes = append(r.lanes, lane)
		}
	}
	if len(r.tracks) == 0 && !d.data {
		return nil, "", fmt.Errorf("%w: it sends nothing", ErrBadSDP)
	}
	r.clocks = newClocks(r.tracks)
	r.ssrcs = make([]atomic.Uint32, len(r.tracks))
	r.wide = twcc.NewRecorder(r.ssrc)
	r.meet(d)
	if err := r.open(); err != nil {
		return nil, "", err
	}
	lines := d.answer(media.Main(r.tracks), chosen, func(s direction) bool { return s.sends })
	return r, r.describe(lines, d.active, false, r.describeTrack), nil
}

// describeTrack writes the lines of a track that is received.
func (r *Receiver) describeTrack(p printer, l line) {
	p("a=recvonly")
	p("a=rtcp-mux")
	p("a=rtcp-rsize")
	if l.wideID != 0 {
		p("a=extmap:%d %s", l.wideID, wideURI)
	}
	feedback := []string{"nack", "nack pli", "ccm fir"}
	if l.kind == "audio" {
		feedback = soundFeedback(l.formats)
	}
	if l.wideID != 0 {
		feedback = append(feedback, "transport-cc")
	}
	if l.kind == "video" && len(r.layers.rids) > 0 {
		r.layers.describe(p)
	}
	if l.kind == "video" {
		describeDescriptor(p, r.described)
	}
	describeFormats(p, l.formats, feedback)
}

// Tracks are the tracks that were agreed on, video first.
func (r *Receiver) Tracks() []media.Track { return r.tracks }

// RIDs are the names that the peer has for the renditions of the picture, by track; none: it sends one.
func (r *Receiver) RIDs() []string { return r.layers.rids }

// RequestKeyFrame asks the peer for a key frame (RFC 4585 §6.3.1). It never blocks.
func (r *Receiver) RequestKeyFrame(track int) {
	if ssrc := r.ssrcs[track].Load(); ssrc != 0 {
		r.sendControl(&rtcp.PictureLossIndication{SenderSSRC: r.ssrc, MediaSSRC: ssrc})
	}
}

// secured implements side.
func (r *Receiver) secured(k keys, _ arrival) error {
	o, err := newOpener(k)
	if err != nil {
		return err
	}
	r.in.Lock()
	defer r.in.Unlock()
	r.opener = o
	for _, b := range r.early {
		r.packetLocked(b)
	}
	r.early = nil
	return nil
}

// maxEarly is how many packets are kept of a peer that is done with its handshake before we are.
const maxEarly = 64

// moved implements side: where media comes from does not matter.
func (r *Receiver) moved(arrival) {}

// over implements side. It may be called while a burst is being handed on.
func (r *Receiver) over(arrival) {
	r.endpoint.spawn(func() {
		r.in.Lock()
		defer r.in.Unlock()
		r.closed = true
		for i := range r.lanes {
			l := &r.lanes[i]
			if l.flush != nil {
				l.flush.Stop()
			}
			if l.burst != nil {
				l.burst.Release()
				l.burst = nil
			}
		}
	})
}

// arrivals implements side: nothing is sent that is numbered so.
func (r *Receiver) arrivals([]byte) {}

// control implements side: sender reports tie a track's clock to the peer's wall clock.
func (r *Receiver) control(packets []rtcp.Packet) {
	now := time.Now()
	r.in.Lock()
	defer r.in.Unlock()
	for _, p := range packets {
		sr, ok := p.(*rtcp.SenderReport)
		if !ok || sr.NTPTime == 0 {
			continue
		}
		for i := range r.lanes {
			if r.ssrcs[i].Load() == sr.SSRC {
				r.clocks.set(i, sr.RTPTime, fromNTP(sr.NTPTime))
				r.lanes[i].reception.report(sr.NTPTime, now)
			}
		}
	}
}

// together is how long a burst waits for the rest of its frame.
const together = 2 * time.Millisecond

// media implements side: a packet is decrypted and put into its track's burst.
func (r *Receiver) media(b []byte) {
	r.in.Lock()
	defer r.in.Unlock()
	switch {
	case r.opener != nil:
		r.packetLocked(b)
	case len(r.early) < maxEarly:
		r.early = append(r.early, append([]byte(nil), b...))
	}
}

func (r *Receiver) packetLocked(b []byte) {
	if r.closed {
		return
	}
	now := time.Now()
	h := &r.header
	n, err := h.Unmarshal(b)
	if err != nil {
		return
	}
	track, again := r.trackOf(h)
	if track < 0 {
		return
	}
	payload, err := r.opener.open(b, h, n)
	if err != nil {
		return
	}
	r.alive(now)
	if r.wideID != 0 {
		if ext := h.GetExtension(r.wideID); len(ext) >= 2 {
			r.wide.Record(h.SSRC, binary.BigEndian.Uint16(ext), now.UnixMicro())
		}
	}
	if h.Padding && len(payload) > 0 {
		payload = payload[:max(0, len(payload)-int(payload[len(payload)-1]))]
	}
	l := &r.lanes[track]
	if again { // RFC 4588 §4: the number it had, then the payload
		l.repair = h.SSRC
		if len(payload) < 2 {
			return // sent to measure the path
		}
		h.SequenceNumber, payload = binary.BigEndian.Uint16(payload), payload[2:]
		if !l.history.misses(h.SequenceNumber) {
			return // sent to measure the path, or too late
		}
	} else if !r.known(track, h.SSRC) {
		return // a second track of a kind is not part of the stream
	} else {
		l.reception.add(h.SequenceNumber, h.Timestamp, now)
	}
	if l.redPT != 0 && h.PayloadType == l.redPT {
		r.takeRED(track, h, payload, now)
	} else {
		r.take(track, h, payload, now)
	}
	for i := range r.lanes {
		if l := &r.lanes[i]; l.burst != nil && l.waited(now) >= together {
			r.handOn(l, now)
		}
	}
	if !now.Before(r.next) {
		r.tell(now)
	}
}

// known reports whether a source is the track's: the first that sends is.
func (r *Receiver) known(track int, ssrc uint32) bool {
	if r.ssrcs[track].CompareAndSwap(0, ssrc) && r.lanes[track].video {
		r.RequestKeyFrame(track)
	}
	return r.ssrcs[track].Load() == ssrc
}

// take puts a packet into its burst.
func (r *Receiver) take(track int, h *rtp.Header, payload []byte, now time.Time) {
	l := &r.lanes[track]
	fresh, torn := l.history.add(h.SequenceNumber, now)
	if torn && l.video {
		r.RequestKeyFrame(track)
	}
	switch {
	case !fresh || len(payload) > media.MaxPayload:
		return
	case len(payload) == 0:
		l.pad.skip(h.SequenceNumber) // sent to measure the path
		return
	}
	if l.burst != nil && l.burst.Timestamp != h.Timestamp {
		r.handOn(l, now)
	}
	seq, ok := l.pad.number(h.SequenceNumber)
	if !ok {
		return
	}
	if l.burst == nil || !l.burst.Append(seq, h.Marker, payload) {
		r.handOn(l, now)
		l.burst = media.NewBurstOf(track, h.Timestamp, l.usual)
		l.burst.Arrived = now.UnixNano()
		l.burst.Captured = r.clocks.captured(track, h.Timestamp, l.burst.Arrived)
		l.burst.Append(seq, h.Marker, payload)
		if l.apart > 0 && !h.Marker {
			r.flushAfter(l)
		}
	}
	if r.described != 0 && l.video {
		l.burst.Describe(h.GetExtension(r.described))
	}
	if h.Marker || !l.video {
		r.handOn(l, now)
	}
}

// flushAfter hands on what there is of a frame whose end does not come.
func (r *Receiver) flushAfter(l *inTrack) {
	if l.flush != nil {
		l.flush.Reset(together)
		return
	}
	l.flush = time.AfterFunc(together, func() {
		r.in.Lock()
		defer r.in.Unlock()
		if l.burst == nil || r.closed {
			return
		}
		now := time.Now()
		if wait := together - l.waited(now); wait > 0 {
			l.flush.Reset(wait) // it is the burst after the one that the timer was for
			return
		}
		r.handOn(l, now)
	})
}

// waited is how long the burst that is being put together has waited.
func (l *inTrack) waited(now time.Time) time.Duration {
	return time.Duration(now.UnixNano() - l.burst.Arrived)
}

// expectApart is for how many frames a timer is set after one that came in parts. A timer wakes threads, which
// costs more than the frame, so there is none for peers that send a frame at once; what is left of such a frame is handed on with the peer's next packet.
const expectApart = 100

// handOn gives away the burst of a track, if there is one.
func (r *Receiver) handOn(l *inTrack, now time.Time) {
	b := l.burst
	if b == nil {
		return
	}
	if l.waited(now) >= together {
		l.apart = expectApart
	} else if l.apart > 0 {
		l.apart--
		if l.flush != nil {
			l.flush.Stop()
		}
	}
	l.burst, l.usual = nil, b.Size()
	r.onBurst(b)
}

// How often the peer is told of what came.
const (
	tellEvery  = 20 * time.Millisecond // what is missing
	wideEvery  = 60 * time.Millisecond // transport-wide arrival times
	reportEach = time.Second           // receiver reports (RFC 3550 §6.4.2)
)

// tell sends the peer NACKs, arrival times and reports.
func (r *Receiver) tell(now time.Time) {
	r.next = now.Add(tellEvery)
	var packets []rtcp.Packet
	for i := range r.lanes {
		l := &r.lanes[i]
		if !l.video && !l.nack {
			continue // what is missing of sound is concealed before it could come
		}
		seqs, lost := l.history.ask(now)
		if len(seqs) > 0 {
			packets = append(packets, &rtcp.TransportLayerNack{SenderSSRC: r.ssrc, MediaSSRC: r.ssrcs[i].Load(), Nacks: rtcp.NackPairsFromSequenceNumbers(seqs)})
		}
		if lost && l.video {
			packets = append(packets, &rtcp.PictureLossIndication{SenderSSRC: r.ssrc, MediaSSRC: r.ssrcs[i].Load()})
		}
	}
	if r.wideID != 0 && now.Sub(r.toldWide) >= wideEvery {
		r.toldWide = now
		packets = append(packets, r.wide.BuildFeedbackPacket()...)
	}
	if now.Sub(r.told) >= reportEach {
		r.told = now
		report := &rtcp.ReceiverReport{SSRC: r.ssrc}
		for i := range r.lanes {
			if ssrc := r.ssrcs[i].Load(); ssrc != 0 {
				report.Reports = append(report.Reports, r.lanes[i].reception.make(ssrc, now))
			}
		}
		packets = append(packets, report)
	}
	if len(packets) > 0 {
		r.sendControl(packets...)
	}
}
