package rtc

import (
	"fmt"
	"slices"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"sluice/media"
)

// SenderOptions describe a session that sends.
type SenderOptions struct {
	Tracks []media.Track
	Label  string // the stream's id: the media stream's id and the data channel's label
	Data   bool   // open a data channel ourselves; those that the peer opens are always taken
	Events Events
	// OnKeyFrameRequest: the peer can't decode a track and asks for a key frame (RFC 4585 §6.3.1). Any goroutine.
	OnKeyFrameRequest func(track int)
}

// Sender is a session that sends bursts to a peer. Its methods may be called from any goroutine.
type Sender struct {
	*session
	options SenderOptions
	tracks  []*outTrack // by index of the stream's tracks; nil: the peer doesn't want it
	queue   queue
}

// outTrack is a track on its way to one peer. Only the send loop touches it.
type outTrack struct {
	local *webrtc.TrackLocalStaticRTP
	rtp   *webrtc.RTPSender
	clock uint32

	begun    bool
	shift    uint16 // out = in + shift: packets that were left out have no number
	last     uint16 // in: highest sent
	packets  uint32
	octets   uint32
	reported time.Time
}

// AnswerSender opens a session from the peer's offer. Media begins with GOP.
func (e *Endpoint) AnswerSender(offer string, o SenderOptions) (*Sender, string, error) {
	sections, _, err := parseOffer(offer)
	if err != nil {
		return nil, "", err
	}
	sections = slices.DeleteFunc(sections, func(s section) bool { return !s.receives })
	m := &webrtc.MediaEngine{}
	chosen := make([]*media.Codec, len(o.Tracks))
	wanted := 0
	for i, t := range o.Tracks {
		s, ok := firstOf(sections, t.Kind)
		if !ok {
			continue // the peer did not ask for this kind
		}
		f, ok := chooseFor(t, s.formats)
		if !ok {
			return nil, "", fmt.Errorf("%w: the stream's %s is %s, which the offer doesn't have", ErrNoCodec, t.Kind, t.Codec.Name)
		}
		if err := register(m, t.Kind, f, false); err != nil {
			return nil, "", err
		}
		chosen[i] = &f.codec
		wanted++
	}
	if wanted == 0 && len(o.Tracks) > 0 {
		return nil, "", fmt.Errorf("%w: the offer asks for nothing that the stream has", ErrNoCodec)
	}
	s, err := e.newSender(m, answeringRole(offer), chosen, o)
	if err != nil {
		return nil, "", err
	}
	answer, err := s.answer(offer)
	if err != nil {
		s.Close()
		return nil, "", err
	}
	return s, answer, nil
}

// OfferSender opens a session by an offer of ours; SetAnswer follows.
func (e *Endpoint) OfferSender(o SenderOptions) (*Sender, string, error) {
	m := &webrtc.MediaEngine{}
	chosen := make([]*media.Codec, len(o.Tracks))
	next := uint8(96) // RFC 3551 §6: dynamic payload types
	for i, t := range o.Tracks {
		for _, f := range offered(t, next) {
			if err := register(m, t.Kind, f, false); err != nil {
				return nil, "", err
			}
			if chosen[i] == nil {
				chosen[i] = &f.codec
			}
			next = max(next, f.pt+1)
		}
	}
	s, err := e.newSender(m, webrtc.DTLSRoleServer, chosen, o)
	if err != nil {
		return nil, "", err
	}
	offer, err := s.pc.CreateOffer(nil)
	if err == nil {
		err = s.describe(offer)
	}
	if err != nil {
		s.Close()
		return nil, "", fmt.Errorf("make an offer: %w", err)
	}
	return s, e.announce(s.pc.LocalDescription().SDP), nil
}

// SetAnswer applies the peer's answer to OfferSender's offer.
func (s *Sender) SetAnswer(answer string) error {
	sections, _, err := parseOffer(answer)
	if err != nil {
		return err
	}
	for _, t := range s.options.Tracks {
		if section, ok := firstOf(sections, t.Kind); ok && t.Kind == media.Video && len(section.formats) == 0 {
			return fmt.Errorf("%w: the player takes no %s", ErrNoCodec, t.Codec.Name)
		} else if !ok && t.Kind == media.Video {
			return fmt.Errorf("%w: the player refused the %s", ErrNoCodec, t.Codec.Name)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		return fmt.Errorf("%w: %w", ErrBadSDP, err)
	}
	return nil
}

// MIDs are the media identifications (RFC 5888) of the tracks that are sent.
func (s *Sender) MIDs() []string {
	var mids []string
	for _, t := range s.pc.GetTransceivers() {
		if t.Mid() != "" && t.Sender() != nil && t.Sender().Track() != nil {
			mids = append(mids, t.Mid())
		}
	}
	return mids
}

func (e *Endpoint) newSender(m *webrtc.MediaEngine, role webrtc.DTLSRole, chosen []*media.Codec, o SenderOptions) (*Sender, error) {
	registry := &interceptor.Registry{}
	responder, err := nack.NewResponderInterceptor()
	if err != nil {
		return nil, fmt.Errorf("open a session: %w", err)
	}
	registry.Add(responder)
	inner, err := e.newSession(e.api(m, role, webrtc.WithInterceptorRegistry(registry)), o.Events)
	if err != nil {
		return nil, err
	}
	if o.OnKeyFrameRequest == nil {
		o.OnKeyFrameRequest = func(int) {}
	}
	s := &Sender{session: inner, options: o, tracks: make([]*outTrack, len(o.Tracks))}
	s.queue.init()
	for i, t := range o.Tracks {
		if chosen[i] == nil {
			continue
		}
		if err := s.addTrack(i, t, *chosen[i]); err != nil {
			s.Close()
			return nil, fmt.Errorf("open a session: %w", err)
		}
	}
	if o.Data {
		d, err := s.pc.CreateDataChannel(o.Label, nil)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("open a data channel: %w", err)
		}
		s.data.add(d)
	}
	s.spawn(s.run)
	return s, nil
}

func (s *Sender) addTrack(i int, t media.Track, c media.Codec) error {
	id := "ARDAMSv" + s.options.Label // players cut the first seven characters to get the stream's id
	if t.Kind == media.Audio {
		id = "ARDAMSa" + s.options.Label
	}
	local, err := webrtc.NewTrackLocalStaticRTP(capability(c, t.Kind), id, s.options.Label)
	if err != nil {
		return err
	}
	transceiver, err := s.pc.AddTransceiverFromTrack(local, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		return err
	}
	s.tracks[i] = &outTrack{local: local, rtp: transceiver.Sender(), clock: c.ClockRate}
	s.spawn(func() { s.readFeedback(i, transceiver.Sender()) })
	return nil
}

// readFeedback reads the peer's RTCP for a track until the session ends.
func (s *Sender) readFeedback(track int, from *webrtc.RTPSender) {
	for {
		packets, _, err := from.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range packets {
			switch p.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				s.options.OnKeyFrameRequest(track)
			}
		}
	}
}

// GOP queues the packets since the last key frame for a peer that begins. Their timestamps are moved together
// to end at the newest: a player shows the first picture at once and runs to the present
// instead of playing the past at its own speed.
func (s *Sender) GOP(bursts []*media.Burst) {
	const apart = 90 // units of the clock between two pictures of the past: a millisecond of video
	stamps := 0
	for i, b := range bursts {
		if i == 0 || b.Timestamp != bursts[i-1].Timestamp {
			stamps++
		}
	}
	items := make([]item, 0, len(bursts))
	for i, b := range bursts {
		if b.Track >= len(s.tracks) || s.tracks[b.Track] == nil {
			continue
		}
		if i == 0 || b.Timestamp != bursts[i-1].Timestamp {
			stamps--
		}
		ts := bursts[len(bursts)-1].Timestamp - uint32(stamps*apart)
		items = append(items, item{b.Retain(), ts, stamps > 0})
	}
	s.queue.push(items...)
}

// Send queues a burst. It never blocks: when the peer's queue is full, the oldest video up to a key frame is dropped.
func (s *Sender) Send(b *media.Burst) {
	if b.Track >= len(s.tracks) || s.tracks[b.Track] == nil {
		return
	}
	s.queue.push(item{b.Retain(), b.Timestamp, false})
}

// Pacing: what the path is given at once, and how long it gets to take it (about 115 Mbit/s).
const (
	paceAfter = 24 // packets
	paceFor   = 2 * time.Millisecond
)

// run is the send loop.
func (s *Sender) run() {
	defer s.queue.drain()
	pace := time.NewTimer(time.Hour)
	defer pace.Stop()
	sent := 0
	for {
		it, waited, ok := s.queue.pop(s.done, s.options.OnKeyFrameRequest)
		if !ok {
			return
		}
		if waited {
			sent = 0
		}
		for i := range it.burst.Packets {
			if sent++; sent > paceAfter {
				sent = 0
				pace.Reset(paceFor)
				select {
				case <-pace.C:
				case <-s.done:
					it.burst.Release()
					return
				}
			}
			s.write(it, &it.burst.Packets[i])
		}
		s.report(it)
		it.burst.Release()
	}
}

func (s *Sender) write(it item, p *media.Packet) {
	t := s.tracks[it.burst.Track]
	switch d := int16(p.Seq - t.last); {
	case !t.begun:
		t.begun, t.last = true, p.Seq
	case it.burst.Track == s.queue.cutTrack() && d > 0:
		t.shift -= uint16(d - 1) // what the queue dropped leaves no gap
		t.last = p.Seq
	case d > 0:
		t.last = p.Seq
	}
	t.packets++
	t.octets += uint32(len(p.Payload))
	// An error is a peer that is not connected yet or not any more: the session's own end says so.
	_ = t.local.WriteRTP(&rtp.Packet{
		Header:  rtp.Header{Version: 2, Marker: p.Marker, SequenceNumber: p.Seq + t.shift, Timestamp: it.timestamp},
		Payload: p.Payload,
	})
}

// report sends a sender report (RFC 3550 §6.4.1) with the first burst of a track and then each second: it ties
// the track's clock to the publisher's, so that picture and sound stay together and latency can be measured.
func (s *Sender) report(it item) {
	t := s.tracks[it.burst.Track]
	now := time.Now()
	if it.past || it.burst.Captured == 0 || now.Sub(t.reported) < time.Second {
		return
	}
	t.reported = now
	encodings := t.rtp.GetParameters().Encodings
	if len(encodings) == 0 {
		return
	}
	_ = s.pc.WriteRTCP([]rtcp.Packet{&rtcp.SenderReport{
		SSRC: uint32(encodings[0].SSRC), NTPTime: toNTP(it.burst.Captured), RTPTime: it.timestamp,
		PacketCount: t.packets, OctetCount: t.octets,
	}})
}

// NTP counts from 1900, Unix time from 1970 (RFC 3550 §4).
const ntpEpoch = 2208988800

func toNTP(unixNano int64) uint64 {
	sec, frac := unixNano/1e9, unixNano%1e9
	return uint64(sec+ntpEpoch)<<32 | uint64(frac)<<32/1e9
}

func fromNTP(ntp uint64) (unixNano int64) {
	return (int64(ntp>>32)-ntpEpoch)*1e9 + int64((ntp&0xffffffff)*1e9>>32)
}
