package crowd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
)

// offering is a server of another make (Pion's): it takes plain RTP, and offers it to viewers.
type offering struct {
	api     *webrtc.API
	tracks  [2]*webrtc.TrackLocalStaticRTP
	rtcp    *net.UDPConn // of the video
	address string

	mu        sync.Mutex
	publisher netip.AddrPort // of its RTCP; not valid before a report came
	reports   int
	goodbyes  int
}

func newOffering(t *testing.T) *offering {
	t.Helper()
	m := &webrtc.MediaEngine{}
	fb := []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "nack", Parameter: "pli"}}
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	h264 := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH264, ClockRate: 90000, SDPFmtpLine: "packetization-mode=1;profile-level-id=42e01f", RTCPFeedback: fb}
	opus := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}
	must(m.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: h264, PayloadType: ptH264}, webrtc.RTPCodecTypeVideo))
	must(m.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: opus, PayloadType: ptOpus}, webrtc.RTPCodecTypeAudio))
	s := webrtc.SettingEngine{}
	s.SetLite(true)
	s.SetIncludeLoopbackCandidate(true)
	s.SetIPFilter(net.IP.IsLoopback)
	o := &offering{api: webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithSettingEngine(s))}
	var err error
	o.tracks[0], err = webrtc.NewTrackLocalStaticRTP(h264, "video", "a")
	must(err)
	o.tracks[1], err = webrtc.NewTrackLocalStaticRTP(opus, "audio", "a")
	must(err)
	conns := fourPorts(t)
	o.rtcp, o.address = conns[1], fmt.Sprintf("rtp://%s", conns[0].LocalAddr())
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() { o.read(i, c) })
	}
	t.Cleanup(func() {
		for _, c := range conns {
			_ = c.Close()
		}
		wg.Wait()
	})
	return o
}

// fourPorts listens on four ports in a row.
func fourPorts(t *testing.T) (conns [4]*net.UDPConn) {
	t.Helper()
	for range 100 {
		var err error
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
		for i := range conns {
			if conns[i], err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at)); err != nil {
				for _, c := range conns[:i] {
					_ = c.Close()
				}
				break
			}
			at = netip.AddrPortFrom(at.Addr(), uint16(conns[0].LocalAddr().(*net.UDPAddr).Port+i+1))
		}
		if err == nil {
			return conns
		}
	}
	t.Fatal("no four ports in a row are free")
	return
}

// read takes what comes to one of the four ports.
func (o *offering) read(i int, c *net.UDPConn) {
	b := make([]byte, 1500)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		switch i {
		case 0, 2:
			_, _ = o.tracks[i/2].Write(b[:n])
		case 1:
			o.mu.Lock()
			o.publisher, o.reports = from, o.reports+1
			o.mu.Unlock()
		}
	}
}

// open is the Signal: the server's offer, our answer.
func (o *offering) open(_ context.Context, _ string, describe func(string) (string, error)) (string, func(context.Context) error, error) {
	pc, err := o.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return "", nil, err
	}
	fail := func(err error) (string, func(context.Context) error, error) {
		return "", nil, errors.Join(err, pc.Close())
	}
	for i, t := range o.tracks {
		sender, err := pc.AddTrack(t)
		if err != nil {
			return fail(err)
		}
		go o.feedback(sender, i) // ends with the connection
	}
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		return fail(err)
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(offer); err != nil {
		return fail(err)
	}
	<-gathered
	theirs := pc.LocalDescription().SDP
	ours, err := describe(theirs)
	if err != nil {
		return fail(err)
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: ours}); err != nil {
		return fail(err)
	}
	o.requestKey()
	return theirs, func(context.Context) error {
		o.mu.Lock()
		o.goodbyes++
		o.mu.Unlock()
		return pc.Close()
	}, nil
}

func (o *offering) feedback(s *webrtc.RTPSender, track int) {
	for {
		packets, _, err := s.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range packets {
			if _, pli := p.(*rtcp.PictureLossIndication); pli && track == 0 {
				o.requestKey()
			}
		}
	}
}

// requestKey asks the publisher, whose RTCP comes from where its answers go.
func (o *offering) requestKey() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if b, err := (&rtcp.PictureLossIndication{}).Marshal(); err == nil && o.publisher.IsValid() {
		_, _ = o.rtcp.WriteToUDPAddrPort(b, o.publisher)
	}
}

// TestServerOffers: plain RTP to a server that offers to its viewers. With key frames 10 s apart, a picture comes only when the
// request for one came back to the publisher.
func TestServerOffers(t *testing.T) {
	t.Parallel()
	s := newOffering(t)
	c := good()
	c.Publish, c.Play, c.Signal = s.address, "http://127.0.0.1:1/not-asked", s.open
	c.Viewers, c.Rate, c.GOP, c.For = 3, 2, 10*time.Second, 1500*time.Millisecond
	r, err := Run(bounded(t), c)
	if err != nil {
		t.Fatal(err)
	}
	f := r.Figures
	if f["up"] != 100 || f["failed"] != 0 || f["loss"] != 0 || f["undecryptable"] != 0 {
		t.Errorf("not all is well: %v, %v", r.Failures, f)
	}
	if f["fps"] < 25 || f["packets_per_second"] < 3*70 || f["latency_p50"] <= 0 || f["latency_p50"] > 100 {
		t.Errorf("%g frames and %g packets a second, latency %g ms", f["fps"], f["packets_per_second"], f["latency_p50"])
	}
	if len(r.Samples) == 0 || r.Samples[len(r.Samples)-1].Publishers != 1 {
		t.Errorf("the publisher isn't counted: %+v", r.Samples)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.goodbyes != 3 || s.reports == 0 {
		t.Errorf("%d goodbyes of 3 viewers, %d sender reports", s.goodbyes, s.reports)
	}
}

func TestReply(t *testing.T) {
	const head = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
	video := "m=video 9 UDP/TLS/RTP/SAVPF 102 103\r\na=mid:v\r\na=setup:actpass\r\na=sendonly\r\na=rtpmap:102 H264/90000\r\na=fmtp:102 packetization-mode=1\r\n" +
		"a=rtcp-fb:102 nack pli\r\na=rtcp-fb:102 transport-cc\r\na=rtpmap:103 rtx/90000\r\na=fmtp:103 apt=102\r\na=candidate:1 1 udp 1 192.0.2.1 5 typ host\r\n"
	audio := "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:a\r\na=rtpmap:111 opus/48000/2\r\n"
	for _, tc := range []struct {
		name, offer string
		sound       bool
		want, not   []string
	}{
		{"video and audio", head + audio + video, true, []string{"a=group:BUNDLE a v\r\n", "m=audio 9 ", "a=mid:v\r\na=recvonly", "a=setup:active", "a=fmtp:103 apt=102", "a=rtcp-fb:102 nack pli"},
			[]string{"candidate", "transport-cc", "actpass", "sendonly", "inactive"}},
		{"no sound wanted", head + audio + video, false, []string{"a=group:BUNDLE v\r\n", "m=audio 0 UDP/TLS/RTP/SAVPF 111", "a=mid:a\r\na=inactive"}, nil},
		{"data", head + video + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:d\r\n", true, []string{"BUNDLE v\r\n", "m=application 0 UDP/DTLS/SCTP webrtc-datachannel"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := offer{ours: credentials{"u", "p"}, fingerprint: "sha-256 00", sound: tc.sound}.describe(tc.offer)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range tc.want {
				if !strings.Contains(got, w) {
					t.Errorf("%q is missing in\n%s", w, got)
				}
			}
			for _, w := range tc.not {
				if strings.Contains(got, w) {
					t.Errorf("%q is in\n%s", w, got)
				}
			}
		})
	}
	if _, err := (offer{}).describe("nonsense"); err == nil {
		t.Error("nonsense is answered")
	}
}
