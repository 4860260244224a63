package rtc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"sluice/media"
)

var (
	h264 = media.Track{Kind: media.Video, Codec: media.Codec{Name: media.H264, ClockRate: 90000, Fmtp: "packetization-mode=1;profile-level-id=42e01f"}}
	opus = media.Track{Kind: media.Audio, Codec: media.Codec{Name: media.Opus, ClockRate: 48000, Channels: 2}}
)

func listen(t *testing.T) *Endpoint {
	t.Helper()
	e := New(Config{Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
	if err := e.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		await(t, done, "the endpoint's end")
		if n := e.Sessions(); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
	return e
}

func await[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(15 * time.Second):
		t.Fatalf("%s did not come within 15 s", what)
	}
	panic("unreachable")
}

// peer is a full WebRTC client as browsers are.
func peer(t *testing.T, codecs ...webrtc.RTPCodecParameters) *webrtc.PeerConnection {
	t.Helper()
	m := &webrtc.MediaEngine{}
	if len(codecs) == 0 {
		if err := m.RegisterDefaultCodecs(); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range codecs {
		if err := m.RegisterCodec(c, webrtc.RTPCodecTypeVideo); err != nil {
			t.Fatal(err)
		}
	}
	s := webrtc.SettingEngine{}
	s.SetIncludeLoopbackCandidate(true)
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithSettingEngine(s), webrtc.WithInterceptorRegistry(&interceptor.Registry{})).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	return pc
}

func offer(t *testing.T, pc *webrtc.PeerConnection, options *webrtc.OfferOptions) string {
	t.Helper()
	o, err := pc.CreateOffer(options)
	if err != nil {
		t.Fatal(err)
	}
	done := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(o); err != nil {
		t.Fatal(err)
	}
	<-done
	return pc.LocalDescription().SDP
}

func accept(t *testing.T, pc *webrtc.PeerConnection, answer string) {
	t.Helper()
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
}

// publisher is a peer that sends one H.264 track, and what it got.
type publisher struct {
	pc    *webrtc.PeerConnection
	track *webrtc.TrackLocalStaticRTP
	pli   chan struct{}
	msg   chan string
	data  *webrtc.DataChannel
	up    chan struct{}
	open  chan struct{} // closed when the data channel is open
}

func newPublisher(t *testing.T) *publisher {
	p := &publisher{pc: peer(t), pli: make(chan struct{}, 64), msg: make(chan string, 8), up: make(chan struct{}), open: make(chan struct{})}
	p.begin(t)
	return p
}

// begin adds the track and the data channel.
func (p *publisher) begin(t *testing.T) {
	var once sync.Once
	p.pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateConnected {
			once.Do(func() { close(p.up) })
		}
	})
	var err error
	p.track, err = webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH264, ClockRate: 90000, SDPFmtpLine: h264.Codec.Fmtp}, "v", "s")
	if err != nil {
		t.Fatal(err)
	}
	sender, err := p.pc.AddTrack(p.track)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			ps, _, err := sender.ReadRTCP()
			if err != nil {
				return
			}
			for _, r := range ps {
				if _, ok := r.(*rtcp.PictureLossIndication); ok {
					p.pli <- struct{}{}
				}
			}
		}
	}()
	p.data, err = p.pc.CreateDataChannel("s", nil)
	if err != nil {
		t.Fatal(err)
	}
	p.data.OnMessage(func(m webrtc.DataChannelMessage) { p.msg <- string(m.Data) })
	p.data.OnOpen(func() { close(p.open) })
}

func (p *publisher) send(t *testing.T, seq uint16, ts uint32, marker bool, payload []byte) {
	t.Helper()
	if err := p.track.WriteRTP(&rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: seq, Timestamp: ts, Marker: marker}, Payload: payload}); err != nil {
		t.Fatal(err)
	}
}

// field is the value of the first line of a description that begins with prefix.
func field(sdp, prefix string) string {
	for line := range strings.Lines(sdp) {
		if v, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func TestRoad(t *testing.T) {
	e := listen(t)
	bursts := make(chan *media.Burst, 64)
	up := make(chan struct{}, 1)
	gone := make(chan error, 1)
	fromPublisher := make(chan media.Message, 8)
	pub := newPublisher(t)
	r, answer, err := e.AnswerReceiver(offer(t, pub.pc, nil), ReceiverOptions{
		Events: Events{
			OnConnected: func() { up <- struct{}{} },
			OnMessage:   func(m media.Message) { fromPublisher <- m },
			OnClosed:    func(err error) { gone <- err },
		},
		OnBurst: func(b *media.Burst) { bursts <- b },
	})
	if err != nil {
		t.Fatal(err)
	}
	accept(t, pub.pc, answer)
	await(t, up, "the publisher's connection")
	await(t, pub.up, "the connection at the publisher")
	if len(r.Tracks()) != 1 || !r.Tracks()[0].Codec.Is(media.H264) {
		t.Fatalf("tracks %v", r.Tracks())
	}

	// A viewer that the server offers to.
	view := peer(t)
	connected := make(chan struct{}, 1)
	keys := make(chan int, 64)
	fromViewer := make(chan media.Message, 8)
	group := e.NewGroup(r.Tracks(), false)
	s, o, err := group.Offer(SenderOptions{
		Label: "stream1", Data: true,
		Events:            Events{OnConnected: func() { connected <- struct{}{} }, OnMessage: func(m media.Message) { fromViewer <- m }},
		OnKeyFrameRequest: func(track int) { keys <- track },
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.MIDs(); len(got) != 1 {
		t.Errorf("MIDs %v, want one", got)
	}
	packets := make(chan *rtp.Packet, 64)
	reports := make(chan *rtcp.SenderReport, 64)
	label := make(chan string, 1)
	view.OnTrack(func(tr *webrtc.TrackRemote, rr *webrtc.RTPReceiver) {
		label <- tr.StreamID() + " " + tr.ID()
		go func() {
			for {
				ps, _, err := rr.ReadRTCP()
				if err != nil {
					return
				}
				for _, p := range ps {
					if sr, ok := p.(*rtcp.SenderReport); ok {
						reports <- sr
					}
				}
			}
		}()
		_ = view.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(tr.SSRC())}})
		for {
			p, _, err := tr.ReadRTP()
			if err != nil {
				return
			}
			packets <- p
		}
	})
	var channel *webrtc.DataChannel
	toViewer := make(chan string, 8)
	channelOpen := make(chan struct{})
	view.OnDataChannel(func(d *webrtc.DataChannel) {
		channel = d
		d.OnMessage(func(m webrtc.DataChannelMessage) { toViewer <- string(m.Data) })
		d.OnOpen(func() { close(channelOpen) })
	})
	if err := view.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: o}); err != nil {
		t.Fatal(err)
	}
	a, err := view.CreateAnswer(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := view.SetLocalDescription(a); err != nil {
		t.Fatal(err)
	}
	if err := s.SetAnswer(view.LocalDescription().SDP); err != nil {
		t.Fatal(err)
	}
	await(t, connected, "the viewer's connection")

	// Two frames, the first of three packets; padding between them is left out.
	pub.send(t, 65534, 1000, false, []byte{0x67, 1})
	pub.send(t, 65535, 1000, false, []byte{0x68, 2})
	pub.send(t, 0, 1000, true, []byte{0x65, 3})
	pub.send(t, 1, 1000, false, nil)
	pub.send(t, 2, 4000, true, []byte{0x41, 4})
	first := await(t, bursts, "the first frame")
	for len(first.Packets) < 3 { // 2 ms went by between the packets: the frame came in parts
		next := await(t, bursts, "the rest of the first frame")
		for _, p := range next.Packets {
			first.Append(p.Seq, p.Marker, p.Payload)
		}
	}
	second := await(t, bursts, "the second frame")
	if first.Timestamp != 1000 || second.Timestamp != 4000 || second.Packets[0].Seq != 1 || !second.Packets[0].Marker {
		t.Errorf("bursts came as %+v and %+v", first, second)
	}
	r.RequestKeyFrame(0)
	await(t, pub.pli, "a key-frame request at the publisher")

	first.Captured = time.Date(2026, 1, 2, 3, 4, 5, 500e6, time.UTC).UnixNano()
	second.Captured = first.Captured
	group.Join(s, []*media.Burst{first, second})
	third := media.NewBurst(0, 7000)
	third.Captured = first.Captured
	third.Append(2, true, []byte{0x41, 5})
	group.Send(third)
	if got := await(t, label, "the viewer's track"); got != "stream1 ARDAMSvstream1" {
		t.Errorf("track is called %q", got)
	}
	want := []struct {
		ts      uint32
		payload []byte
	}{{4000 - 90, []byte{0x67, 1}}, {4000 - 90, []byte{0x68, 2}}, {4000 - 90, []byte{0x65, 3}}, {4000, []byte{0x41, 4}}, {7000, []byte{0x41, 5}}}
	for i, w := range want {
		p := await(t, packets, fmt.Sprintf("packet %d at the viewer", i))
		if p.Timestamp != w.ts || !bytes.Equal(p.Payload, w.payload) || p.SequenceNumber != uint16(65534+i) {
			t.Errorf("packet %d: seq %d ts %d payload %x", i, p.SequenceNumber, p.Timestamp, p.Payload)
		}
	}
	sr := await(t, reports, "a sender report")
	if diff := fromNTP(sr.NTPTime) - first.Captured; diff < -1000 || diff > 1000 {
		t.Errorf("the sender report's clock is %d ns off", diff)
	}
	if got := await(t, keys, "the viewer's key-frame request"); got != 0 {
		t.Errorf("key frame of track %d", got)
	}

	await(t, channelOpen, "the viewer's data channel")
	if err := channel.SendText("from the viewer"); err != nil {
		t.Fatal(err)
	}
	if m := await(t, fromViewer, "the viewer's message"); m.Binary || string(m.Data) != "from the viewer" {
		t.Errorf("message %+v", m)
	}
	s.SendMessage(media.Message{Data: []byte("to the viewer")})
	if got := await(t, toViewer, "a message at the viewer"); got != "to the viewer" {
		t.Errorf("message %q", got)
	}
	await(t, pub.open, "the publisher's data channel")
	if err := pub.data.Send([]byte{1, 2}); err != nil {
		t.Fatal(err)
	}
	if m := await(t, fromPublisher, "the publisher's message"); !m.Binary || len(m.Data) != 2 {
		t.Errorf("message %+v", m)
	}
	s.Close()
	for _, b := range []*media.Burst{first, second, third} {
		b.Release()
	}
	_ = pub.pc.Close()
	if err := await(t, gone, "the publisher's end"); !errors.Is(err, ErrLeft) {
		t.Errorf("ended with %v", err)
	}
}

// A frame whose packets come apart is handed on in parts, and reading goes on.
func TestFrameInParts(t *testing.T) {
	e := listen(t)
	bursts := make(chan *media.Burst, 8)
	pub := newPublisher(t)
	r, answer, err := e.AnswerReceiver(offer(t, pub.pc, nil), ReceiverOptions{OnBurst: func(b *media.Burst) { bursts <- b }})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	accept(t, pub.pc, answer)
	await(t, pub.up, "the connection at the publisher")
	for i, part := range []string{"the first part", "the second part", "the last part"} {
		pub.send(t, uint16(100+i), 1000, i == 2, []byte{0x65, byte(i)})
		b := await(t, bursts, part) // which takes more than together
		if len(b.Packets) != 1 || b.Packets[0].Payload[1] != byte(i) || b.Timestamp != 1000 {
			t.Errorf("%s: %+v", part, b.Packets)
		}
	}
}

func TestICERestartKeepsTheSession(t *testing.T) {
	e := listen(t)
	bursts := make(chan *media.Burst, 64)
	pub := newPublisher(t)
	up := make(chan struct{}, 1)
	r, answer, err := e.AnswerReceiver(offer(t, pub.pc, nil), ReceiverOptions{Events: Events{OnConnected: func() { up <- struct{}{} }}, OnBurst: func(b *media.Burst) { bursts <- b }})
	if err != nil {
		t.Fatal(err)
	}
	accept(t, pub.pc, answer)
	await(t, up, "the connection")
	await(t, pub.up, "the connection at the publisher")
	pub.send(t, 1, 1000, true, []byte{0x65, 1})
	await(t, bursts, "the first frame").Release()

	again := offer(t, pub.pc, &webrtc.OfferOptions{ICERestart: true})
	ufrag, pwd := field(again, "a=ice-ufrag:"), field(again, "a=ice-pwd:")
	newUfrag, newPwd, err := r.RestartICE(ufrag, pwd)
	if err != nil {
		t.Fatal(err)
	}
	if newUfrag == field(answer, "a=ice-ufrag:") || newPwd == field(answer, "a=ice-pwd:") {
		t.Error("our credentials did not change (RFC 8445 §9)")
	}
	changed := strings.NewReplacer(field(answer, "a=ice-ufrag:"), newUfrag, field(answer, "a=ice-pwd:"), newPwd).Replace(answer)
	accept(t, pub.pc, changed)
	deadline := time.After(15 * time.Second)
	for seq := uint16(2); ; seq++ {
		pub.send(t, seq, 1000*uint32(seq), true, []byte{0x41, 1})
		select {
		case b := <-bursts:
			b.Release()
			return
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatal("no media within 15 s of the restart")
		}
	}
}

func TestRefusals(t *testing.T) {
	e := listen(t)
	vp8only := peer(t, webrtc.RTPCodecParameters{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}, PayloadType: 96})
	if _, err := vp8only.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo); err != nil {
		t.Fatal(err)
	}
	vp8 := offer(t, vp8only, nil)
	for _, c := range []struct {
		name string
		open func(sdp string) error
		sdp  string
		want error
	}{
		{"viewer without the codec", func(sdp string) error {
			_, _, err := e.NewGroup([]media.Track{h264, opus}, false).Answer(sdp, SenderOptions{})
			return err
		}, vp8, ErrNoCodec},
		{"publisher without a codec that is accepted", func(sdp string) error {
			_, _, err := e.AnswerReceiver(sdp, ReceiverOptions{Codecs: []string{media.H264}})
			return err
		}, vp8, ErrNoCodec},
		{"empty", receive(e), "", ErrBadSDP},
		{"not an sdp", receive(e), "hello", ErrBadSDP},
		{"no media", receive(e), "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", ErrBadSDP},
		{"no ice credentials", receive(e), "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\n", ErrBadSDP},
		{"too large", receive(e), strings.Repeat("a", maxSDP+1), ErrBadSDP},
		{"too many media lines", receive(e), "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n" + strings.Repeat("m=video 9 UDP/TLS/RTP/SAVPF 96\r\n", maxSections+1), ErrBadSDP},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.open(c.sdp); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if n := e.Sessions(); n != 0 {
				t.Errorf("%d sessions are left behind", n)
			}
		})
	}
}

func receive(e *Endpoint) func(string) error {
	return func(sdp string) error { _, _, err := e.AnswerReceiver(sdp, ReceiverOptions{}); return err }
}

func TestSessionThatNeverConnectsIsClosed(t *testing.T) {
	e := listen(t)
	e.cfg.ConnectWithin = 50 * time.Millisecond
	gone := make(chan error, 1)
	_, _, err := e.NewGroup([]media.Track{h264}, false).Offer(SenderOptions{Events: Events{OnClosed: func(err error) { gone <- err }}})
	if err != nil {
		t.Fatal(err)
	}
	if err := await(t, gone, "the session's end"); !errors.Is(err, ErrTimeout) {
		t.Errorf("ended with %v", err)
	}
}

func TestAddCandidate(t *testing.T) {
	s := &session{}
	for _, c := range []struct {
		in string
		ok bool
	}{
		{"", true},
		{"candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host", true},
		{"candidate:1 1 udp 2130706431 0b5a3e9e-0000-4000-8000-000000000000.local 5000 typ host generation 0", true},
		{"candidate:1 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active", true},
		{"candidate:1 1 ssltcp 1518280447 192.0.2.1 443 typ host", true},
		{"candidate:1 1 udp 1 host.example.org 5000 typ host", true},
		{"candidate:1 1 UDP 41885439 2001:db8::7 50000 typ relay raddr 198.51.100.7 rport 5000", true},
		{"candidate:nonsense", false},
		{"candidate:1 1 udp x 192.0.2.1 5000 typ host", false},
		{"candidate:1 1 udp 1 192.0.2.1 5000 type host", false},
		{strings.Repeat("x", 2000), false},
	} {
		if err := s.AddCandidate(Candidate{Candidate: c.in}); (err == nil) != c.ok {
			t.Errorf("%.60q: %v", c.in, err)
		}
	}
}

func TestAnnouncedAddresses(t *testing.T) {
	e := listen(t)
	e.cfg.Announce = append(e.cfg.Announce, e.addrs[0].Next())
	_, o, err := e.NewGroup([]media.Track{h264}, false).Offer(SenderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(o, "a=candidate:") != 2 || !strings.Contains(o, fmt.Sprintf(" udp 2130706431 127.0.0.2 %d typ host\r\n", e.port)) ||
		!strings.Contains(o, fmt.Sprintf(" tcp 1520435199 127.0.0.2 %d typ host tcptype passive\r\n", e.port)) {
		t.Errorf("candidates:\n%s", o)
	}
}

// Packets without a payload leave no gap, and no number is given twice.
func TestPaddingLeavesNoGap(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []int // negative: padding
		want string
	}{
		{"in order, and packets that come late", []int{65533, 65534, -65535, 0, -1, -2, 4, 3, 5}, "[65533 65534 65535 1 0 2]"},
		{"a padding that comes late stays a gap", []int{10, 12, -11, 13, 14}, "[10 12 13 14]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p padding
			var got []uint16
			for _, seq := range c.in {
				if seq < 0 {
					p.skip(uint16(-seq))
				} else if n, ok := p.number(uint16(seq)); ok {
					got = append(got, n)
				}
			}
			if fmt.Sprint(got) != c.want {
				t.Errorf("numbers %v, want %s", got, c.want)
			}
		})
	}
	var p padding
	p.number(10)
	for seq := range uint16(100) {
		p.skip(20 + seq)
	}
	if n, ok := p.number(11); ok {
		t.Errorf("a packet from before all that is remembered got %d", n)
	}
}

func TestChoice(t *testing.T) {
	f := func(pt uint8, name, fmtp string) format {
		return format{pt: pt, codec: media.Codec{Name: name, ClockRate: 90000, Fmtp: fmtp}}
	}
	chrome := []format{
		f(96, media.VP8, ""), f(103, media.H264, "packetization-mode=1;profile-level-id=42001f"), f(107, media.H264, "packetization-mode=0;profile-level-id=42001f"),
		f(109, media.H264, "packetization-mode=1;profile-level-id=42e01f"), f(98, media.VP9, "profile-id=0"), f(100, media.VP9, "profile-id=2"), f(127, media.H264, "packetization-mode=1;profile-level-id=4d001f"),
	}
	for _, c := range []struct {
		name  string
		order []string
		want  uint8
	}{
		{"H.264 first, constrained baseline", DefaultCodecs(), 109},
		{"VP9 first, profile 0", []string{media.VP9}, 98},
		{"none", []string{media.H265}, 0},
	} {
		if got, _ := choosePublished(chrome, c.order); got.pt != c.want {
			t.Errorf("publisher, %s: payload type %d, want %d", c.name, got.pt, c.want)
		}
	}
	for _, c := range []struct {
		name  string
		codec media.Codec
		want  uint8
	}{
		{"same profile", media.Codec{Name: media.H264, ClockRate: 90000, Fmtp: "profile-level-id=4d0028;packetization-mode=1"}, 127},
		{"no profile said", media.Codec{Name: media.H264, ClockRate: 90000}, 109},
		{"a profile that is not listed", media.Codec{Name: media.H264, ClockRate: 90000, Fmtp: "profile-level-id=640028"}, 103},
		{"VP9 profile 2", media.Codec{Name: media.VP9, ClockRate: 90000, Fmtp: "profile-id=2"}, 100},
		{"AV1", media.Codec{Name: media.AV1, ClockRate: 90000}, 0},
		{"another clock rate", media.Codec{Name: media.VP8, ClockRate: 8000}, 0},
	} {
		if got, _ := chooseFor(media.Track{Kind: media.Video, Codec: c.codec}, chrome); got.pt != c.want {
			t.Errorf("viewer, %s: payload type %d, want %d", c.name, got.pt, c.want)
		}
	}
}

func FuzzOffer(f *testing.F) {
	f.Add("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n")
	f.Add("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0 111\r\na=rtpmap:111 opus/48000/2\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parseDescription(text)
		if err != nil {
			if !errors.Is(err, ErrBadSDP) {
				t.Fatalf("error %v is not ErrBadSDP", err)
			}
			return
		}
		for _, s := range d.sections {
			choosePublished(s.formats, DefaultCodecs())
			chooseFor(h264, s.formats)
		}
	})
}
