package rtc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"sluice/media"
)

// path is a viewer's socket: what it receives may be lost, and it may get another address.
type path struct {
	net.PacketConn // the one that closes last
	mu             sync.Mutex
	out            net.PacketConn // by which it sends
	drop           func(b []byte) bool
	in             chan packetFrom
	closed         chan struct{}
	once           sync.Once
}

type packetFrom struct {
	b    []byte
	from net.Addr
}

func newPath(t *testing.T, drop func([]byte) bool) *path {
	p := &path{drop: drop, in: make(chan packetFrom, 4096), closed: make(chan struct{})}
	p.PacketConn = p.socket(t)
	p.out = p.PacketConn
	return p
}

func (p *path) socket(t *testing.T) net.PacketConn {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		for {
			b := make([]byte, 1500)
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if p.drop == nil || !p.drop(b[:n]) {
				p.in <- packetFrom{b[:n], from}
			}
		}
	}()
	return c
}

// move gives the path another address.
func (p *path) move(t *testing.T) {
	c := p.socket(t)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out = c
}

func (p *path) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case m := <-p.in:
		return copy(b, m.b), m.from, nil
	case <-p.closed:
		return 0, nil, net.ErrClosed
	}
}

func (p *path) WriteTo(b []byte, a net.Addr) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.WriteTo(b, a)
}

func (p *path) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// watcher is a viewer behind a path; packets come in the order in which its transport gives them.
type watcher struct {
	pc      *webrtc.PeerConnection
	packets chan *rtp.Packet
}

func watch(t *testing.T, g *Group, p *path, o SenderOptions, mend ...string) (*watcher, *Sender) {
	t.Helper()
	m := &webrtc.MediaEngine{}
	if err := m.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	registry := &interceptor.Registry{}
	if err := webrtc.RegisterDefaultInterceptors(m, registry); err != nil {
		t.Fatal(err)
	}
	s := webrtc.SettingEngine{}
	s.SetIncludeLoopbackCandidate(true)
	s.SetICETimeouts(time.Minute, time.Minute, 300*time.Millisecond)
	mux := webrtc.NewICEUDPMux(nil, p)
	s.SetICEUDPMux(mux)
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithSettingEngine(s), webrtc.WithInterceptorRegistry(registry)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close(); _ = mux.Close(); _ = p.Close() })
	w := &watcher{pc: pc, packets: make(chan *rtp.Packet, 1<<16)}
	if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
		t.Fatal(err)
	}
	pc.OnTrack(func(tr *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			packet, _, err := tr.ReadRTP()
			if err != nil {
				return
			}
			w.packets <- packet
		}
	})
	up := make(chan struct{}, 1)
	told := o.Events.OnConnected
	o.Events.OnConnected = func() {
		if told != nil {
			told()
		}
		up <- struct{}{}
	}
	v, answer, err := g.Answer(strings.NewReplacer(mend...).Replace(offer(t, pc, nil)), o)
	if err != nil {
		t.Fatal(err)
	}
	accept(t, pc, answer)
	await(t, up, "the viewer's connection")
	return w, v
}

// stream sends frames of n packets to a group, 100 a second, until stop is closed.
func streamTo(g *Group, n int, stop <-chan struct{}) *sync.WaitGroup {
	var w sync.WaitGroup
	w.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for seq, ts := uint16(65000), uint32(0); ; ts += 900 {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			b := media.NewBurst(0, ts)
			for i := range n {
				b.Append(seq, i == n-1, []byte{0x41, byte(seq >> 8), byte(seq)})
				seq++
			}
			g.Send(b)
			b.Release()
		}
	})
	return &w
}

func TestLostPacketsAreSentAgain(t *testing.T) {
	for _, gso := range []bool{true, false} {
		t.Run(fmt.Sprint("gso ", gso), func(t *testing.T) {
			e := listen(t)
			var lost atomic.Int32
			n := 0
			p := newPath(t, func(b []byte) bool { // every twentieth packet of video, once
				if b[0]>>6 == 2 && (b[1] < 192 || b[1] > 223) {
					if n++; n%20 == 0 {
						lost.Add(1)
						return true
					}
				}
				return false
			})
			g := e.NewGroup([]media.Track{h264}, false)
			w, v := watch(t, g, p, SenderOptions{})
			g.Join(v, nil)
			stop := make(chan struct{})
			running := streamTo(g, 5, stop)
			seen := map[uint16]bool{}
			first := await(t, w.packets, "the first packet").SequenceNumber
			seen[first] = true
			deadline := time.After(30 * time.Second)
			for len(seen) < 1500 {
				select {
				case packet := <-w.packets:
					if want := []byte{0x41, byte(packet.SequenceNumber >> 8), byte(packet.SequenceNumber)}; string(packet.Payload) != string(want) {
						t.Fatalf("packet %d has the payload %x", packet.SequenceNumber, packet.Payload)
					}
					seen[packet.SequenceNumber] = true
				case <-deadline:
					t.Fatalf("%d packets came", len(seen))
				}
			}
			close(stop)
			running.Wait()
			missing := 0
			for i := range uint16(1400) { // the newest may still be on their way
				if !seen[first+i] {
					missing++
				}
			}
			if lost.Load() < 50 || missing > int(lost.Load())/100 {
				t.Errorf("of %d packets that were lost %d never came", lost.Load(), missing)
			}
			if s := v.Stats(); s.Again < uint64(lost.Load())*9/10 {
				t.Errorf("%d were lost and %d sent again", lost.Load(), s.Again)
			}
		})
	}
}

// A peer that can't tell its own estimate of the bandwidth tells when packets came, and the estimate is ours. Losses are made good all the same.
func TestPeerTellsArrivalTimes(t *testing.T) {
	e := listen(t)
	g := e.NewGroup([]media.Track{h264}, false)
	var n atomic.Int32
	p := newPath(t, func(b []byte) bool { return b[0] == 0x90 && n.Add(1)%20 == 0 }) // with a header extension
	w, v := watch(t, g, p, SenderOptions{}, "goog-remb", "none")
	g.Join(v, nil)
	stop := make(chan struct{})
	sending := streamTo(g, 3, stop)
	defer sending.Wait()
	defer close(stop)
	seen := map[uint16]bool{}
	for first, last := uint16(0), uint16(0); int16(last-first) < 600; {
		got := await(t, w.packets, "a packet")
		if len(seen) == 0 {
			first = got.SequenceNumber
		}
		if seen[got.SequenceNumber] {
			continue
		}
		seen[got.SequenceNumber] = true
		if int16(got.SequenceNumber-first) > int16(last-first) {
			last = got.SequenceNumber
		}
	}
	if s := v.Stats(); s.Estimate < 50e3 || s.Again == 0 {
		t.Errorf("estimate %d bit/s, %d packets sent again", s.Estimate, s.Again)
	}
}

// There are peers that send no checks once they are connected; their reports show that they are there.
func TestReportsAreSignsOfLife(t *testing.T) {
	e := listen(t)
	g := e.NewGroup([]media.Track{h264}, false)
	_, v := watch(t, g, newPath(t, nil), SenderOptions{})
	other, err := newSRTCP(keys{profile: profiles()[0], ourKey: make([]byte, 16), ourSalt: make([]byte, 12), theirKey: make([]byte, 16), theirSalt: make([]byte, 12)})
	if err != nil {
		t.Fatal(err)
	}
	v.mu.Lock()
	v.rtcp = other // both directions have the same keys
	v.mu.Unlock()
	sealed, err := other.seal(nil, []byte{128, 201, 0, 1, 0, 0, 0, 9})
	if err != nil {
		t.Fatal(err)
	}
	long := int64(-time.Hour)
	v.heard.Store(long)
	v.rtcpPacket(v.at, append([]byte(nil), sealed...))
	if v.heard.Load() == long {
		t.Error("a report is no sign of life")
	}
	v.heard.Store(long)
	v.rtcpPacket(v.at, append([]byte(nil), sealed...))
	if v.heard.Load() != long {
		t.Error("a report that was recorded is a sign of life")
	}
	v.alive(time.Now())
}

func TestViewerGetsAnotherAddress(t *testing.T) {
	e := listen(t)
	p := newPath(t, nil)
	g := e.NewGroup([]media.Track{h264}, false)
	w, v := watch(t, g, p, SenderOptions{})
	g.Join(v, nil)
	stop := make(chan struct{})
	running := streamTo(g, 3, stop)
	defer running.Wait()
	defer close(stop)
	await(t, w.packets, "media")
	p.move(t)
	v.mu.Lock()
	old := v.at
	v.mu.Unlock()
	deadline := time.After(15 * time.Second)
	for {
		select {
		case <-w.packets:
		case <-deadline:
			t.Fatal("media did not follow the viewer to its new address")
		}
		v.mu.Lock()
		moved := v.at != old
		v.mu.Unlock()
		if moved {
			break
		}
	}
	for len(w.packets) > 0 {
		<-w.packets
	}
	await(t, w.packets, "media at the new address")
}

func TestDataChannelsAreBounded(t *testing.T) {
	e := listen(t)
	for _, c := range []struct {
		name string
		open func(offer string, o Events) (string, error)
	}{
		{"viewer", func(offer string, o Events) (string, error) {
			_, answer, err := e.NewGroup([]media.Track{h264}, false).Answer(offer, SenderOptions{Events: o})
			return answer, err
		}},
		{"publisher", func(offer string, o Events) (string, error) {
			_, answer, err := e.AnswerReceiver(offer, ReceiverOptions{Events: o})
			return answer, err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			pc := peer(t)
			if c.name == "viewer" { // the publisher sends data alone
				if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
					t.Fatal(err)
				}
			}
			refused := make(chan struct{}, 64)
			for i := range 3 * maxChannels {
				d, err := pc.CreateDataChannel(fmt.Sprint(i), nil)
				if err != nil {
					t.Fatal(err)
				}
				d.OnOpen(func() { _ = d.SendText("hello") })
				d.OnClose(func() { refused <- struct{}{} })
			}
			heard := make(chan media.Message, 64)
			answer, err := c.open(offer(t, pc, nil), Events{OnMessage: func(m media.Message) { heard <- m }})
			if err != nil {
				t.Fatal(err)
			}
			accept(t, pc, answer)
			for range maxChannels {
				await(t, heard, "a message")
			}
			for range 2 * maxChannels {
				await(t, refused, "the end of a channel too many")
			}
			if len(heard) != 0 {
				t.Errorf("%d messages more than channels", len(heard))
			}
		})
	}
}

// Both sides say goodbye, and are believed at once.
func TestGoodbyes(t *testing.T) {
	e := listen(t)
	for _, c := range []string{"ours", "theirs"} {
		t.Run(c, func(t *testing.T) {
			g := e.NewGroup([]media.Track{h264}, false)
			gone := make(chan error, 1)
			w, v := watch(t, g, newPath(t, nil), SenderOptions{Events: Events{OnClosed: func(err error) { gone <- err }}})
			g.Join(v, nil)
			frame := media.NewBurst(0, 0)
			frame.Append(1, true, []byte{0x65, 1})
			for range 100 { // until the peer has made its part of the handshake
				g.Send(frame)
				select {
				case <-w.packets:
				case <-time.After(20 * time.Millisecond):
					continue
				}
				break
			}
			frame.Release()
			over := make(chan struct{}, 8)
			w.pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
				if s == webrtc.PeerConnectionStateClosed {
					over <- struct{}{}
				}
			})
			begin := time.Now()
			if c == "ours" {
				v.Close()
				await(t, over, "the end at the peer")
			} else {
				_ = w.pc.Close()
				if err := await(t, gone, "the end at our side"); !errors.Is(err, ErrLeft) {
					t.Errorf("ended with %v", err)
				}
			}
			if took := time.Since(begin); took > 3*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestStrangersChangeNothing(t *testing.T) {
	e := listen(t)
	p := newPath(t, nil)
	g := e.NewGroup([]media.Track{h264}, false)
	keys := make(chan int, 1024)
	w, v := watch(t, g, p, SenderOptions{OnKeyFrameRequest: func(i int) { keys <- i }})
	g.Join(v, nil)
	stop := make(chan struct{})
	running := streamTo(g, 3, stop)
	defer running.Wait()
	defer close(stop)
	await(t, w.packets, "media")
	v.mu.Lock()
	at, ufrag := v.at, v.ours.ufrag
	v.mu.Unlock()

	stranger, err := net.Dial("udp4", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	forged, err := makeCheck(credentials{"abcd", "x"}, credentials{ufrag, "not the password of the session"})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{{}, {0}, {0, 1}, forged, {20}, {22, 254, 253}, {128}, {128, 206, 0, 2}, make([]byte, 1400)} {
		for range 20 {
			_, _ = stranger.Write(b)
			// The same as if it came from the viewer itself: spoofed.
			if len(b) > 0 {
				e.hosts[0].receive(arrival{host: e.hosts[0], shard: at.shard, from: at.from}, append([]byte(nil), b...))
			}
		}
	}
	for len(w.packets) > 0 {
		<-w.packets
	}
	for range 30 {
		await(t, w.packets, "media after the strangers")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.at != at || v.state != stateConnected {
		t.Errorf("the session is in state %v at %v, was at %v", v.state, v.at.from, at.from)
	}
	if len(keys) != 0 {
		t.Errorf("%d key frames were requested", len(keys))
	}
}

// A check that names another session, sent with the address of a publisher, takes nothing from it.
func TestStrangersDoNotTakeAPublishersAddress(t *testing.T) {
	e := listen(t)
	bursts := make(chan *media.Burst, 1024)
	pub := newPublisher(t)
	_, answer, err := e.AnswerReceiver(offer(t, pub.pc, nil), ReceiverOptions{OnBurst: func(b *media.Burst) { bursts <- b }})
	if err != nil {
		t.Fatal(err)
	}
	accept(t, pub.pc, answer)
	await(t, pub.up, "the publisher's connection")
	stranger, strangers, err := e.AnswerReceiver(offer(t, newPublisher(t).pc, nil), ReceiverOptions{OnBurst: func(b *media.Burst) { b.Release() }})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	forged, err := makeCheck(credentials{"zzzz", "x"}, credentials{field(strangers, "a=ice-ufrag:"), "anything but the password"})
	if err != nil {
		t.Fatal(err)
	}
	h := e.hosts[0]
	h.mu.RLock()
	var victim netip.AddrPort
	for a := range h.addrs {
		victim = a
	}
	h.mu.RUnlock()
	for i := range 20 {
		h.receive(arrival{host: h, from: victim}, append([]byte(nil), forged...))
		for j := range 1000 { // and none of these addresses is kept
			h.receive(arrival{host: h, from: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), byte(j)}), uint16(j))}, append([]byte(nil), forged...))
		}
	}
	h.mu.RLock()
	kept := len(h.addrs)
	h.mu.RUnlock()
	if kept > maxAddrs {
		t.Errorf("%d addresses are kept", kept)
	}
	pub.send(t, 1, 1000, true, []byte{0x65, 1})
	await(t, bursts, "media after the strangers").Release()
}

func FuzzReceive(f *testing.F) {
	e := New(Config{Listen: "127.0.0.1:0", Shards: 1, Log: slog.New(slog.DiscardHandler)})
	if err := e.Listen(f.Context()); err != nil {
		f.Fatal(err)
	}
	h := e.hosts[0]
	v, _, err := e.NewGroup([]media.Track{h264}, false).Offer(SenderOptions{})
	if err != nil {
		f.Fatal(err)
	}
	r := &Receiver{onBurst: func(b *media.Burst) { b.Release() }, tracks: []media.Track{h264}, ssrcs: make([]atomic.Uint32, 1), wideID: 3, wide: twcc.NewRecorder(1),
		lanes: []inTrack{{pt: 96, rtxPT: 97, video: true}}, clocks: newClocks([]media.Track{h264})}
	r.endpoint, r.side = e, r
	if err := r.open(); err != nil {
		f.Fatal(err)
	}
	p := profiles()[0]
	k := splitKeys(p, make([]byte, p.material()), false)
	peers := map[netip.AddrPort]*session{netip.MustParseAddrPort("127.0.0.1:9"): &v.session, netip.MustParseAddrPort("127.0.0.1:19"): &r.session}
	for from, s := range peers {
		h.bind(from, s)
		s.at = arrival{host: h, from: from}
		if err := s.connected(k); err != nil {
			f.Fatal(err)
		}
	}
	good, err := makeCheck(credentials{"abcd", "abcdefghijklmnopqrstuvwx"}, v.ours)
	if err != nil {
		f.Fatal(err)
	}
	for _, b := range [][]byte{good, {0, 1, 0, 0}, {22, 254, 253, 0, 0}, {21, 254, 253}, {128, 200, 0, 1, 1, 1, 1, 1}, {144, 206, 0, 2, 0, 0, 0, 0, 1, 1, 1, 1},
		{128, 96, 0, 1, 0, 0, 0, 0, 1, 1, 1, 1, 65, 1}, {176, 225, 0, 2, 0, 0, 0, 0, 1, 1, 1, 1, 190, 222, 0, 1, 49, 0, 1, 0, 65, 1, 0, 1}, {160, 97, 0, 2, 0, 0, 0, 0, 1, 1, 1, 2, 0, 1, 65, 1}} {
		f.Add(b)
	}
	seal, err := newSealer(k)
	if err != nil {
		f.Fatal(err)
	}
	control, err := newSRTCP(k)
	if err != nil {
		f.Fatal(err)
	}
	index := uint32(0)
	f.Fuzz(func(t *testing.T, b []byte) {
		for from := range peers {
			h.receive(arrival{host: h, from: from}, append([]byte(nil), b...))
			if len(b) < headerSize || b[0] < 128 || b[0] > 191 {
				continue
			}
			var sealed []byte // and as from a peer that has the keys
			if b[1] >= 192 && b[1] <= 223 {
				sealed, err = control.seal(nil, b)
			} else {
				sealed, err = resealed(seal, b, &index)
			}
			if err == nil {
				h.receive(arrival{host: h, from: from}, sealed)
			}
		}
	})
}

// resealed encrypts a packet, whatever its header is, with the next sequence number.
func resealed(s *sealer, b []byte, index *uint32) ([]byte, error) {
	var h rtp.Header
	n, err := h.Unmarshal(b)
	if err != nil {
		return nil, err
	}
	*index++
	header := append([]byte(nil), b[:n]...)
	binary.BigEndian.PutUint16(header[2:], uint16(*index))
	nonce := s.salt
	binary.BigEndian.PutUint32(nonce[2:], binary.BigEndian.Uint32(nonce[2:])^h.SSRC)
	binary.BigEndian.PutUint32(nonce[6:], binary.BigEndian.Uint32(nonce[6:])^(*index>>16))
	nonce[10] ^= byte(*index >> 8)
	nonce[11] ^= byte(*index)
	return s.aead.Seal(header, nonce[:], b[n:], header), nil
}

func BenchmarkLoop(b *testing.B) {
	for _, c := range [][2]int{{1, 9}, {50, 9}, {500, 9}, {50, 100}} { // the last is paced
		viewers, packets := c[0], c[1]
		b.Run(fmt.Sprintf("viewers=%d/packets=%d", viewers, packets), func(b *testing.B) {
			e := New(Config{Listen: "127.0.0.1:0", Shards: 1, Log: slog.New(slog.DiscardHandler)})
			if err := e.Listen(b.Context()); err != nil {
				b.Fatal(err)
			}
			defer e.closeSockets()
			sink, err := net.ListenPacket("udp4", "127.0.0.1:0") // nobody reads
			if err != nil {
				b.Fatal(err)
			}
			defer sink.Close()
			g, sh := e.NewGroup([]media.Track{h264}, false), e.shards[0]
			p := profiles()[0]
			for range viewers {
				v := &Sender{group: g, tracks: []outTrack{{wanted: true, pt: 96, ssrc: 1}}, report: time.Now().Add(time.Hour), lane: g.lanes[0]}
				if v.seal, err = newSealer(splitKeys(p, make([]byte, p.material()), false)); err != nil {
					b.Fatal(err)
				}
				v.addr = sh.sockets[0].MakeAddr(sink.LocalAddr().(*net.UDPAddr).AddrPort())
				g.lanes[0].viewers = append(g.lanes[0].viewers, v)
			}
			sh.now = time.Now()
			frame := media.NewBurst(0, 0)
			payload := make([]byte, 1188)
			for i := range packets {
				frame.Append(uint16(i), i == packets-1, payload)
			}
			b.ReportAllocs()
			for b.Loop() {
				for i := range frame.Packets {
					frame.Packets[i].Seq += uint16(packets)
				}
				g.lanes[0].send(sh, frame, false)
				for sh.flush(); len(sh.behind) > 0; sh.flush() {
					sh.catchUp(paceAfter)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*viewers*packets), "ns/packet")
		})
	}
}
