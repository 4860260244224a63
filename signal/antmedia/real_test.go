package antmedia

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"

	"sluice/cluster"
	"sluice/cluster/memory"
	out "sluice/egress/webrtc"
	in "sluice/ingest/webrtc"
	keys "sluice/media"
	"sluice/rtc"
	"sluice/stream"
)

// node serves the protocol with the real hub, way in and way out.
func node(t *testing.T) (url string, reg cluster.Registry) {
	t.Helper()
	var stop []func()
	run := func(f func(context.Context) error) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); _ = f(ctx) }()
		stop = append(stop, func() { cancel(); <-done })
	}
	endpoint := rtc.New(rtc.Config{Listen: "127.0.0.1:0", Log: quiet()})
	if err := endpoint.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(endpoint.Run)
	registry := memory.NewStore(time.Now).Open()
	directory := cluster.NewDirectory(registry, "", quiet())
	run(directory.Run)
	member := cluster.NewMember(registry, "n1", func() cluster.Node { return cluster.Node{} }, quiet())
	run(member.Run)
	hub := stream.NewHub(stream.Config{Log: quiet(), Silence: 300 * time.Millisecond, Own: func(ctx context.Context, key keys.Key, _ func()) (stream.Holding, error) {
		held, err := member.Acquire(ctx, key, false, func(error) {})
		return holding{held}, err
	}})
	run(hub.Run)
	_, url = serve(t, nil, func(c *Config) {
		c.Publisher = Publishing{in.New(in.Config{Hub: hub, RTC: endpoint, Log: quiet()})}
		c.Player = Playing{out.New(out.Config{Hub: hub, RTC: endpoint, Log: quiet()})}
		c.Directory = Known{hub, directory}
	})
	t.Cleanup(func() {
		for i := len(stop) - 1; i >= 0; i-- {
			stop[i]()
		}
	})
	return url, registry
}

type holding struct{ held *cluster.Held }

func (holding) Report(bool, []string) {}
func (h holding) Release()            { h.held.Release(context.Background()) }

// browser is a client with one peer connection, as the SDK would be.
type browser struct {
	*client
	pc       *webrtc.PeerConnection
	id       string
	settings []func(*webrtc.SettingEngine)
	said     chan map[string]any // what is not about the negotiation
	data     chan string
	dc       chan *webrtc.DataChannel
	rtp      chan struct{}
}

func open(t *testing.T, url, id string, settings ...func(*webrtc.SettingEngine)) *browser {
	b := &browser{settings: settings, client: dial(t, url), id: id, said: make(chan map[string]any, 100), data: make(chan string, 100),
		dc: make(chan *webrtc.DataChannel, 2), rtp: make(chan struct{}, 10_000)}
	b.renew()
	go b.listen()
	return b
}

// renew makes a new peer connection, as after a stop.
func (b *browser) renew() {
	s := webrtc.SettingEngine{}
	s.SetIncludeLoopbackCandidate(true)
	for _, set := range b.settings {
		set(&s)
	}
	m := &webrtc.MediaEngine{}
	_ = m.RegisterDefaultCodecs()
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(s), webrtc.WithMediaEngine(m)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = pc.Close() })
	b.pc = pc
	pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c != nil {
			i := c.ToJSON()
			b.tell(map[string]any{"command": "takeCandidate", "streamId": b.id, "label": i.SDPMLineIndex, "id": i.SDPMid, "candidate": i.Candidate})
		}
	})
	pc.OnDataChannel(b.channel)
	pc.OnTrack(func(tr *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			if _, _, err := tr.ReadRTP(); err != nil {
				return
			}
			select {
			case b.rtp <- struct{}{}:
			default:
			}
		}
	})
}

func (b *browser) channel(d *webrtc.DataChannel) {
	d.OnOpen(func() { b.dc <- d })
	d.OnMessage(func(m webrtc.DataChannelMessage) { b.data <- string(m.Data) })
}

func (b *browser) tell(m map[string]any) {
	text, _ := json.Marshal(m)
	_ = b.ws.Write(context.Background(), 1, text) // a closed socket is the test's wish
}

func (b *browser) listen() {
	defer close(b.said)
	for {
		_, text, err := b.ws.Read(context.Background())
		if err != nil {
			return
		}
		var m map[string]any
		if err := json.Unmarshal(text, &m); err != nil {
			return
		}
		switch {
		case m["command"] == "start":
			offer, err := b.pc.CreateOffer(nil)
			if err == nil {
				err = b.pc.SetLocalDescription(offer)
			}
			if err != nil {
				m["problem"] = err.Error()
			}
			b.tell(map[string]any{"command": "takeConfiguration", "streamId": b.id, "type": "offer", "sdp": offer.SDP})
		case m["command"] == "takeConfiguration" && m["type"] == "answer":
			_ = b.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: m["sdp"].(string)})
		case m["command"] == "takeConfiguration":
			_ = b.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: m["sdp"].(string)})
			answer, err := b.pc.CreateAnswer(nil)
			if err == nil {
				err = b.pc.SetLocalDescription(answer)
			}
			if err != nil {
				m["problem"] = err.Error()
			}
			b.tell(map[string]any{"command": "takeConfiguration", "streamId": b.id, "type": "answer", "sdp": answer.SDP})
		}
		b.said <- m
	}
}

// hears waits for a message with this definition or command.
func (b *browser) hears(what string) map[string]any {
	b.t.Helper()
	var heard []any
	deadline := time.After(10 * time.Second)
	for {
		select {
		case m, ok := <-b.said:
			if !ok {
				b.t.Fatalf("the socket closed; wanted %s, heard %v", what, heard)
			}
			if m["definition"] == what || m["command"] == what {
				return m
			}
			heard = append(heard, m)
		case <-deadline:
			b.t.Fatalf("wanted %s, heard %v", what, heard)
		}
	}
}

// publish sends H.264 and opens a channel, until the test ends.
func (b *browser) publish() {
	track, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH264}, "v", "s")
	if err == nil {
		_, err = b.pc.AddTrack(track)
	}
	d, err2 := b.pc.CreateDataChannel(b.id, nil)
	if err = errors.Join(err, err2); err != nil {
		b.t.Fatal(err)
	}
	b.channel(d)
	ctx, pc := b.t.Context(), b.pc
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil && pc.ConnectionState() != webrtc.PeerConnectionStateClosed {
			// RFC 6184 §1.3: parameter sets and the slice of a key frame
			_ = track.WriteSample(media.Sample{Data: []byte{0, 0, 0, 1, 0x67, 0x42, 0xe0, 0x1f, 0, 0, 0, 1, 0x68, 0xce, 0, 0, 0, 1, 0x65, 1, 2, 3}, Duration: 20 * time.Millisecond})
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	b.t.Cleanup(func() { _ = pc.Close(); <-done })
	b.tell(map[string]any{"command": "publish", "streamId": b.id, "video": true, "audio": false})
}

func (b *browser) play() {
	b.tell(map[string]any{"command": "play", "streamId": b.id, "token": ""})
}

// gets waits until n more packets have arrived.
func (b *browser) gets(n int) {
	b.t.Helper()
	for range n {
		select {
		case <-b.rtp:
		case <-time.After(10 * time.Second):
			b.t.Fatal("media stopped")
		}
	}
}

func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("no %s", what)
	}
	panic("unreachable")
}

func TestPublishAndPlayForReal(t *testing.T) {
	url, _ := node(t)
	viewer := open(t, url, "stream1")
	viewer.play()
	viewer.hears("no_stream_exist")

	publisher := open(t, url, "stream1")
	publisher.publish()
	publisher.hears("publish_started")
	viewer.hears("streaming_started")
	viewer.play()
	offer := viewer.hears("takeConfiguration")
	if m, _ := offer["idMapping"].(map[string]any); m["0"] != "ARDAMSvstream1" {
		t.Errorf("idMapping is %v", offer["idMapping"])
	}
	viewer.hears("play_started")
	viewer.gets(5)

	up, down := receive(t, publisher.dc, "channel of the publisher"), receive(t, viewer.dc, "channel of the viewer")
	if down.Label() != "stream1" {
		t.Errorf("the channel is called %q", down.Label())
	}
	_ = up.SendText("down")
	if got := receive(t, viewer.data, "message for the viewer"); got != "down" {
		t.Errorf("got %q", got)
	}
	_ = down.Send([]byte{0, 1})
	if got := receive(t, publisher.data, "message for the publisher"); got != "\x00\x01" {
		t.Errorf("got %q", got)
	}

	viewer.tell(map[string]any{"command": "getStreamInfo", "streamId": "stream1"})
	info := viewer.hears("streamInformation")["streamInfo"].([]any)[0].(map[string]any)
	if info["videoCodec"] != "H264" {
		t.Errorf("streamInfo is %v", info)
	}
	viewer.tell(map[string]any{"command": "getBroadcastObject", "streamId": "stream1"})
	var b map[string]any
	if err := json.Unmarshal([]byte(viewer.hears("broadcastObject")["broadcast"].(string)), &b); err != nil || b["status"] != "broadcasting" || b["originAdress"] != "n1" {
		t.Errorf("broadcast is %v, %v", b, err)
	}

	// The same owner comes again on the same socket; then on a new one, while the old is half dead.
	publisher.tell(map[string]any{"command": "stop", "streamId": "stream1"})
	publisher.hears("publish_finished")
	_ = publisher.pc.Close()
	publisher.renew()
	publisher.publish()
	publisher.hears("publish_started")
	viewer.gets(20)
	_ = publisher.pc.Close() // its socket stays open and says nothing
	again := open(t, url, "stream1")
	again.publish()
	again.hears("publish_started")
	publisher.hears("publish_finished")
	for len(viewer.rtp) > 0 {
		<-viewer.rtp
	}
	viewer.gets(20)

	thief := open(t, url, "stream1")
	thief.publish()
	thief.hears("streamIdInUse")

	again.tell(map[string]any{"command": "stop", "streamId": "stream1"})
	again.hears("publish_finished")
	viewer.hears("play_finished")
}

// pausable is a socket that can fall silent.
type pausable struct {
	net.PacketConn
	silent atomic.Bool
}

func (p *pausable) WriteTo(b []byte, a net.Addr) (int, error) {
	if p.silent.Load() {
		return len(b), nil
	}
	return p.PacketConn.WriteTo(b, a)
}

func TestSessionIsRestored(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as the server waits before it calls a silent peer disconnected")
	}
	url, _ := node(t)
	publisher := open(t, url, "stream1")
	publisher.publish()
	publisher.hears("publish_started")
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	wire := &pausable{PacketConn: udp}
	mux := webrtc.NewICEUDPMux(nil, wire)
	t.Cleanup(func() { _ = mux.Close(); _ = udp.Close() })
	viewer := open(t, url, "stream1", func(s *webrtc.SettingEngine) {
		s.SetICEUDPMux(mux)
		s.SetICETimeouts(time.Minute, time.Minute, 500*time.Millisecond)
	})
	viewer.play()
	viewer.hears("play_started")
	wire.silent.Store(true)
	back := time.AfterFunc(6*time.Second, func() { wire.silent.Store(false) }) // rtc calls it disconnected after 5 s
	defer back.Stop()
	viewer.hears("session_restored")
	viewer.gets(10)
}

func TestBadDescriptionsForReal(t *testing.T) {
	url, _ := node(t)
	c := dial(t, url)
	for _, sdp := range []string{"", "rubbish", "v=0\\r\\n", "v=0\\r\\no=- 1 1 IN IP4 0.0.0.0\\r\\ns=-\\r\\nt=0 0\\r\\n"} {
		c.send(`{"command":"publish","streamId":"x"}`)
		c.want(`{"command":"start","streamId":"x"}`)
		c.send(`{"command":"takeConfiguration","streamId":"x","type":"offer","sdp":"` + sdp + `"}`)
		text, err := c.read()
		var m map[string]any
		if err != nil || json.Unmarshal([]byte(text), &m) != nil || m["definition"] != notSetRemote {
			t.Fatalf("%q: %s, %v", sdp, text, err)
		}
	}
}
