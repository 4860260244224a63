package rig

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"sluice/load"
	"sluice/media"
)

// user is a WebRTC client that came in by WHIP or WHEP.
type user struct {
	pc       *webrtc.PeerConnection
	client   *load.Client
	resource *load.Resource
	once     sync.Once
	work     sync.WaitGroup
	done     chan struct{}
	forget   func()
}

func (c *Cluster) newUser() *user {
	c.t.Helper()
	t := c.t
	m := &webrtc.MediaEngine{}
	if err := m.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	s := webrtc.SettingEngine{}
	s.SetIncludeLoopbackCandidate(true)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithSettingEngine(s), webrtc.WithInterceptorRegistry(&interceptor.Registry{})).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	u := &user{pc: pc, client: load.NewClient("", nil, true), done: make(chan struct{})}
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
	return u.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: u.resource.Answer})
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
	quiet  atomic.Bool
}

// Publish comes in by the gateway. An error is that of the first answer.
func (c *Cluster) Publish(key media.Key) (*Publisher, error) {
	c.t.Helper()
	p := &Publisher{user: c.newUser()}
	track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH264, ClockRate: 90000,
		SDPFmtpLine: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"}, "v", "s")
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
				}
			}
		}
	})
	if err := p.open(c.t.Context(), c.PublishURL(key)); err != nil {
		p.Vanish()
		return nil, err
	}
	p.work.Go(func() { p.send(track, &wanted) })
	return p, nil
}

// Quiet stops or resumes the media while the session stays.
func (p *Publisher) Quiet(on bool) { p.quiet.Store(on) }

func (p *Publisher) send(track *webrtc.TrackLocalStaticRTP, wanted *atomic.Bool) {
	tick := time.NewTicker(time.Second / 30)
	defer tick.Stop()
	payload := make([]byte, 1000)
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
		for i := range 3 {
			if i > 0 {
				payload[0] = 0x41
			}
			_ = track.WriteRTP(&rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: seq, Timestamp: ts, Marker: i == 2}, Payload: payload}) // before it connects nobody hears it
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
}

// Watch comes in by the gateway. An error is that of the answer.
func (c *Cluster) Watch(key media.Key) (*Viewer, error) {
	c.t.Helper()
	v := &Viewer{user: c.newUser(), request: time.Now()}
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
			p, _, err := track.ReadRTP()
			if err != nil {
				return
			}
			v.take(p)
		}
	})
	if err := v.open(c.t.Context(), c.PlayURL(key)); err != nil {
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
	if d := int16(p.SequenceNumber - v.seq); d > 0 {
		v.lost += int(d) - 1
		v.seq = p.SequenceNumber
	}
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
