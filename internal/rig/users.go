package rig

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"sluice/internal/impair"
	"sluice/load"
	"sluice/media"
)

// user is a WebRTC client that came in by WHIP or WHEP.
type user struct {
	pc       *webrtc.PeerConnection
	behind   *impair.Config
	path     *impair.Relay
	packets  int  // in a frame that is published
	plain    bool // no RTX, no AES-GCM
	tells    bool // when packets arrive
	client   *load.Client
	resource *load.Resource
	once     sync.Once
	work     sync.WaitGroup
	done     chan struct{}
	forget   func()
}

const h264Line = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"

// Option says how a user comes.
type Option func(*user)

// Behind puts a bad network between the user and the node that has its media: [user.Path]. A publisher
// behind one sends again what it is asked for.
func Behind(cfg impair.Config) Option { return func(u *user) { u.behind = &cfg } }

// InPackets is how many packets a publisher's frame has: 3 without it.
func InPackets(n int) Option { return func(u *user) { u.packets = n } }

// Plain makes a user that knows no RTX (RFC 4588), as many publishers are: packets are sent again as they were. Nor does it know
// AES-GCM, but only what all must (RFC 8827 §6.5).
func Plain() Option { return func(u *user) { u.plain = true } }

// Tells makes a viewer that tells when packets arrive (draft-holmer-rmcat-transport-wide-cc-extensions-01), as browsers do.
func Tells() Option { return func(u *user) { u.tells = true } }

// Path is the bad network that the user is behind.
func (u *user) Path() *impair.Relay { return u.path }

func (c *Cluster) newUser(options []Option) *user {
	c.t.Helper()
	t := c.t
	u := &user{packets: 3, client: load.NewClient("", nil, true), done: make(chan struct{})}
	for _, o := range options {
		o(u)
	}
	m := &webrtc.MediaEngine{}
	registry := &interceptor.Registry{}
	if err := errors.Join(u.codecs(m), u.equip(registry)); err != nil {
		t.Fatal(err)
	}
	s := webrtc.SettingEngine{}
	s.SetIncludeLoopbackCandidate(true)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetSRTPReplayProtectionWindow(1024) // as browsers have
	if u.plain {
		s.SetSRTPProtectionProfiles(dtls.SRTP_AES128_CM_HMAC_SHA1_80)
	}
	var err error
	if u.pc, err = webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithSettingEngine(s), webrtc.WithInterceptorRegistry(registry)).NewPeerConnection(webrtc.Configuration{}); err != nil {
		t.Fatal(err)
	}
	u.forget = func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.users, u)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users[u] = struct{}{}
	return u
}

func (u *user) codecs(m *webrtc.MediaEngine) error {
	if !u.plain {
		err := m.RegisterDefaultCodecs()
		if u.tells {
			m.RegisterFeedback(webrtc.RTCPFeedback{Type: webrtc.TypeRTCPFBTransportCC}, webrtc.RTPCodecTypeVideo)
			err = errors.Join(err, m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: sdp.TransportCCURI}, webrtc.RTPCodecTypeVideo))
		}
		return err
	}
	return m.RegisterCodec(webrtc.RTPCodecParameters{PayloadType: 102, RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH264, ClockRate: 90000,
		SDPFmtpLine: h264Line, RTCPFeedback: []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "nack", Parameter: "pli"}}}}, webrtc.RTPCodecTypeVideo)
}

// equip gives a user behind a bad network what it needs there: reports, and packets to send again. What a viewer misses it
// asks for itself.
func (u *user) equip(registry *interceptor.Registry) error {
	if u.behind == nil {
		return nil
	}
	again, err := nack.NewResponderInterceptor()
	if err != nil {
		return err
	}
	reports, err := report.NewReceiverInterceptor()
	if err != nil {
		return err
	}
	if u.tells {
		arrivals, err := twcc.NewSenderInterceptor()
		if err != nil {
			return err
		}
		registry.Add(arrivals)
	}
	registry.Add(again)
	registry.Add(reports)
	return nil
}

// host candidates of an answer, RFC 8839 §5.1: what comes before the address, the address, the port.
var hostCandidate = regexp.MustCompile(`(?m)^(a=candidate:[^ ]+ 1 udp [0-9]+) ([0-9.]+) ([0-9]+) `)

// detour opens the bad network and puts its address into an answer instead of the node's.
func (u *user) detour(answer string) (string, error) {
	found := hostCandidate.FindStringSubmatch(answer)
	if found == nil {
		return "", fmt.Errorf("no UDP candidate in the answer:\n%s", answer)
	}
	target, err := netip.ParseAddrPort(found[2] + ":" + found[3])
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(context.Background())
	if u.path, err = impair.Listen(ctx, target, *u.behind); err != nil {
		cancel()
		return "", err
	}
	u.work.Go(func() { _ = u.path.Run(ctx) })
	u.work.Go(func() { <-u.done; cancel() })
	here := u.path.Addr()
	return hostCandidate.ReplaceAllString(answer, fmt.Sprintf("${1} %s %d ", here.Addr(), here.Port())), nil
}

func (u *user) open(ctx context.Context, url string) error {
	offer, err := u.pc.CreateOffer(nil)
	if err != nil {
		return err
	}
	gathered := webrtc.GatheringCompletePromise(u.pc)
	if err := u.pc.SetLocalDescription(offer); err != nil {
		return err
	}
	<-gathered
	if u.resource, err = u.client.Offer(ctx, url, u.pc.LocalDescription().SDP); err != nil {
		return err
	}
	answer := u.resource.Answer
	if u.behind != nil {
		if answer, err = u.detour(answer); err != nil {
			return err
		}
	}
	return u.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer})
}

// Vanish ends a client as a pulled cable does: nobody is told by HTTP.
func (u *user) Vanish() {
	u.once.Do(func() {
		close(u.done)
		_ = u.pc.Close()
		u.work.Wait()
		u.client.Close()
		u.forget()
	})
}

// Leave ends a client with a DELETE.
func (u *user) Leave() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var err error
	if u.resource != nil {
		err = u.resource.Delete(ctx)
	}
	u.Vanish()
	return err
}

// Publisher sends an H.264 track of 30 frames a second that no decoder would like, with key frames each second and on
// request.
type Publisher struct {
	*user
	frames atomic.Int64
	asked  atomic.Int64 // key frames
	quiet  atomic.Bool
}

// Publish comes in by the gateway. An error is that of the first answer.
func (c *Cluster) Publish(key media.Key, options ...Option) (*Publisher, error) {
	c.t.Helper()
	return c.publishTo(c.PublishURL(key), options...)
}

// PublishBackup comes in as the stream's backup publisher.
func (c *Cluster) PublishBackup(key media.Key, options ...Option) (*Publisher, error) {
	c.t.Helper()
	return c.publishTo(c.PublishURL(key)+"?backup=1", options...)
}

func (c *Cluster) publishTo(url string, options ...Option) (*Publisher, error) {
	c.t.Helper()
	p := &Publisher{user: c.newUser(options)}
	track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH264, ClockRate: 90000,
		SDPFmtpLine: h264Line}, "v", "s")
	if err != nil {
		c.t.Fatal(err)
	}
	transceiver, err := p.pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		c.t.Fatal(err)
	}
	var wanted atomic.Bool
	p.work.Go(func() {
		for {
			packets, _, err := transceiver.Sender().ReadRTCP()
			if err != nil {
				return
			}
			for _, r := range packets {
				if _, ok := r.(*rtcp.PictureLossIndication); ok {
					wanted.Store(true)
					p.asked.Add(1)
				}
			}
		}
	})
	if err := p.open(c.t.Context(), url); err != nil {
		p.Vanish()
		return nil, err
	}
	p.work.Go(func() { p.send(track, &wanted) })
	return p, nil
}

// Frames is how many frames were sent.
func (p *Publisher) Frames() int { return int(p.frames.Load()) }

// Asked is how many key frames were asked for.
func (p *Publisher) Asked() int { return int(p.asked.Load()) }

// Quiet stops or resumes the media while the session stays.
func (p *Publisher) Quiet(on bool) { p.quiet.Store(on) }

// frameSize is that of a frame in bytes: 432 kbit/s.
const frameSize = 1800

// stamp makes a packet say which it is, of which frame, and how many that has; stamped reads it.
func stamp(payload []byte, frame, index, of int) {
	binary.BigEndian.PutUint32(payload[2:], uint32(frame))
	payload[6], payload[7] = byte(index), byte(of)
}

func stamped(payload []byte) (frame, index, of int, ok bool) {
	if len(payload) < 8 || payload[6] >= payload[7] {
		return 0, 0, 0, false
	}
	return int(binary.BigEndian.Uint32(payload[2:])), int(payload[6]), int(payload[7]), true
}

func (p *Publisher) send(track *webrtc.TrackLocalStaticRTP, wanted *atomic.Bool) {
	tick := time.NewTicker(time.Second / 30)
	defer tick.Stop()
	payload := make([]byte, frameSize/p.packets)
	seq, ts := uint16(time.Now().UnixNano()), uint32(time.Now().UnixNano())
	for n := 0; ; n++ {
		select {
		case <-p.done:
			return
		case <-tick.C:
		}
		if p.quiet.Load() {
			continue
		}
		payload[0], payload[1] = 0x41, 0x9a
		if n%30 == 0 || wanted.Swap(false) {
			payload[0], payload[1] = 0x65, 0x88
		}
		for i := range p.packets {
			if i > 0 {
				payload[0] = 0x41
			}
			stamp(payload, int(p.frames.Load()), i, p.packets)
			_ = track.WriteRTP(&rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: seq, Timestamp: ts, Marker: i == p.packets-1}, Payload: payload}) // before it connects nobody hears it
			seq++
		}
		ts += 3000
		p.frames.Add(1)
	}
}

// Viewer counts what it gets of a stream's video.
type Viewer struct {
	*user
	mu      sync.Mutex
	begun   bool
	seq     uint16
	ts      uint32
	ssrc    uint32
	last    time.Time
	frames  int
	lost    int
	back    int // timestamps that went back
	ssrcs   int
	gap     time.Duration
	ended   atomic.Bool
	request time.Time
	first   time.Duration
	seen    *Ledger // nil: nobody wants to know
	screen  *screen // of a viewer that tells when packets arrive
}

// Watch comes in by the gateway. An error is that of the answer.
func (c *Cluster) Watch(key media.Key, options ...Option) (*Viewer, error) {
	c.t.Helper()
	return c.watchURL(c.PlayURL(key), options...)
}

// WatchAt comes to a node itself.
func (c *Cluster) WatchAt(id string, key media.Key, options ...Option) (*Viewer, error) {
	c.t.Helper()
	return c.watchURL(fmt.Sprintf("http://%s/%s/whep/%s", c.Node(id).HTTPAddr(), key.App, key.ID), options...)
}

func (c *Cluster) watchURL(url string, options ...Option) (*Viewer, error) {
	c.t.Helper()
	v := &Viewer{user: c.newUser(options), request: time.Now()}
	if v.behind != nil {
		v.seen = newLedger(*v.behind)
		v.screen = newScreen()
		v.work.Go(v.ask)
	}
	if _, err := v.pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
		c.t.Fatal(err)
	}
	v.pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateFailed || s == webrtc.PeerConnectionStateClosed {
			v.ended.Store(true)
		}
	})
	v.pc.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			p, attributes, err := track.ReadRTP()
			if err != nil {
				return
			}
			v.take(p)
			if v.screen != nil {
				v.screen.take(p)
			}
			if v.seen != nil {
				v.seen.take(p, attributes.Get(webrtc.AttributeRtxSsrc) != nil)
			}
		}
	})
	if err := v.open(c.t.Context(), url); err != nil {
		v.Vanish()
		return nil, err
	}
	return v, nil
}

func (v *Viewer) take(p *rtp.Packet) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	if !v.begun {
		v.begun, v.seq, v.first = true, p.SequenceNumber-1, now.Sub(v.request)
		v.ts = p.Timestamp - 1
	}
	if v.ssrc != p.SSRC {
		v.ssrc = p.SSRC
		v.ssrcs++
	}
	d := int16(p.SequenceNumber - v.seq)
	if d <= 0 {
		return // sent again
	}
	v.lost += int(d) - 1
	v.seq = p.SequenceNumber
	switch d := int32(p.Timestamp - v.ts); {
	case d < 0:
		v.back++
	case d > 0:
		v.frames++
		v.ts = p.Timestamp
		if !v.last.IsZero() {
			v.gap = max(v.gap, now.Sub(v.last))
		}
		v.last = now
	}
}

// Seen is the ledger of a viewer behind a bad network.
func (v *Viewer) Seen() *Ledger { return v.seen }

// ask asks for what is missing, as browsers do.
func (v *Viewer) ask() {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-v.done:
			return
		case now := <-tick.C:
			if lost := v.seen.wanted(now); lost != nil {
				_ = v.pc.WriteRTCP([]rtcp.Packet{lost}) // lost, as on any path
			}
		}
	}
}

// Frames is how many frames came.
func (v *Viewer) Frames() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.frames
}

// First is the time from the request to the first packet.
func (v *Viewer) First() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.first
}

// Gap is the longest time between two frames, the present pause included.
func (v *Viewer) Gap() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.last.IsZero() {
		return 0
	}
	return max(v.gap, time.Since(v.last))
}

// ResetGap begins to measure anew.
func (v *Viewer) ResetGap() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.gap = 0
}

// alive returns an error unless the viewer still has his first session, and time has not gone back in it.
func (v *Viewer) alive() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ended.Load() || v.back != 0 || v.ssrcs != 1 {
		return fmt.Errorf("ended %v, %d timestamps went back, %d SSRCs", v.ended.Load(), v.back, v.ssrcs)
	}
	return nil
}

// Whole returns an error unless the viewer has one unbroken track: same session, same
// SSRC, no number missing, no timestamp that goes back.
func (v *Viewer) Whole() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.ended.Load():
		return errors.New("the session ended")
	case v.lost != 0 || v.back != 0 || v.ssrcs != 1:
		return fmt.Errorf("%d packets are missing, %d timestamps went back, %d SSRCs", v.lost, v.back, v.ssrcs)
	}
	return nil
}

// More waits until every viewer has got n frames more.
func (c *Cluster) More(n int, viewers ...*Viewer) {
	c.t.Helper()
	want := make([]int, len(viewers))
	for i, v := range viewers {
		want[i] = v.Frames() + n
	}
	for i, v := range viewers {
		c.Poll(15*time.Second, func() error {
			if got := v.Frames(); got < want[i] {
				return fmt.Errorf("viewer %d got %d frames, want %d", i, got, want[i])
			}
			return nil
		})
	}
}
