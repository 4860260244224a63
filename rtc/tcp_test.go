package rtc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/stun/v4"
	"github.com/pion/webrtc/v4"

	"sluice/media"
)

// tcpPeer is a WebRTC client that has no UDP.
func tcpPeer(t *testing.T) *webrtc.PeerConnection {
	t.Helper()
	m := &webrtc.MediaEngine{}
	if err := m.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	s := webrtc.SettingEngine{}
	s.SetIncludeLoopbackCandidate(true)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeTCP4})
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithSettingEngine(s), webrtc.WithInterceptorRegistry(&interceptor.Registry{})).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	return pc
}

// watchTCP joins a viewer that has no UDP; change may alter our answer.
func watchTCP(t *testing.T, g *Group, o SenderOptions, change func(string) string) (*watcher, *Sender) {
	t.Helper()
	w := &watcher{pc: tcpPeer(t), packets: make(chan *rtp.Packet, 1<<16)}
	if _, err := w.pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
		t.Fatal(err)
	}
	w.pc.OnTrack(func(tr *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		_ = w.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(tr.SSRC())}})
		for {
			p, _, err := tr.ReadRTP()
			if err != nil {
				return
			}
			w.packets <- p
		}
	})
	up := make(chan struct{}, 1)
	o.Events.OnConnected = func() { up <- struct{}{} }
	v, answer, err := g.Answer(offer(t, w.pc, nil), o)
	if err != nil {
		t.Fatal(err)
	}
	accept(t, w.pc, change(answer))
	await(t, up, "the viewer's connection")
	return w, v
}

func unchanged(s string) string { return s }

func TestViewerOverTCP(t *testing.T) {
	e := listen(t)
	g := e.NewGroup([]media.Track{h264}, false)
	keys := make(chan int, 64)
	w, v := watchTCP(t, g, SenderOptions{OnKeyFrameRequest: func(track int) { keys <- track }}, unchanged)
	past := media.NewBurst(0, 0)
	for i := range 100 { // more than goes at once
		past.Append(uint16(64900+i), i == 99, bytes.Repeat([]byte{0x65}, 1000+i))
	}
	g.Join(v, []*media.Burst{past})
	past.Release()
	stop := make(chan struct{})
	running := streamTo(g, 5, stop)
	for i := range 600 {
		if p := await(t, w.packets, "a packet over TCP"); p.SequenceNumber != uint16(64900+i) {
			t.Fatalf("packet %d has number %d", i, p.SequenceNumber)
		}
	}
	close(stop)
	running.Wait()
	await(t, keys, "a key-frame request over TCP")
	v.mu.Lock()
	if v.at.conn == nil {
		t.Errorf("media went to %v by UDP", v.at.from)
	}
	v.mu.Unlock()
	over := closed(w.pc)
	v.Close()
	await(t, over, "the goodbye at the viewer")
}

func closed(pc *webrtc.PeerConnection) <-chan struct{} {
	over := make(chan struct{}, 8)
	pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateClosed {
			over <- struct{}{}
		}
	})
	return over
}

func TestPublisherOverTCP(t *testing.T) {
	e := listen(t)
	pub := &publisher{pc: tcpPeer(t), pli: make(chan struct{}, 64), msg: make(chan string, 8), up: make(chan struct{}), open: make(chan struct{})}
	pub.begin(t)
	bursts := make(chan *media.Burst, 64)
	r, answer, err := e.AnswerReceiver(offer(t, pub.pc, nil), ReceiverOptions{OnBurst: func(b *media.Burst) { bursts <- b }})
	if err != nil {
		t.Fatal(err)
	}
	accept(t, pub.pc, answer)
	await(t, pub.up, "the connection at the publisher")
	for i := range 3 {
		pub.send(t, uint16(i), uint32(1000*i), true, bytes.Repeat([]byte{0x65}, media.MaxPayload-i))
		b := await(t, bursts, "a frame over TCP")
		if b.Timestamp != uint32(1000*i) || len(b.Packets[0].Payload) != media.MaxPayload-i {
			t.Errorf("frame %d came as %d bytes at %d", i, len(b.Packets[0].Payload), b.Timestamp)
		}
		b.Release()
	}
	r.RequestKeyFrame(0)
	await(t, pub.pli, "a key-frame request at the publisher")
	over := closed(pub.pc)
	r.Close() // which says goodbye before the connection is closed
	await(t, over, "the goodbye at the publisher")
}

// valve is a TCP proxy that may be shut, so that its client seems to be slow.
type valve struct {
	to   string
	addr netip.AddrPort
	shut sync.RWMutex
}

func newValve(t *testing.T, to netip.AddrPort) *valve {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &valve{to: to.String(), addr: l.Addr().(*net.TCPAddr).AddrPort()}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp4", v.to)
			if err != nil {
				_ = client.Close()
				return
			}
			_ = server.(*net.TCPConn).SetReadBuffer(16 << 10)
			work.Go(func() { _, _ = io.Copy(server, client); _ = server.Close() })
			work.Go(func() {
				defer client.Close()
				b := make([]byte, 4096)
				for {
					n, err := server.Read(b)
					if err != nil {
						return
					}
					v.shut.RLock()
					_, err = client.Write(b[:n])
					v.shut.RUnlock()
					if err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); await(t, waited(&work), "the valve's end") })
	return v
}

func waited(w *sync.WaitGroup) <-chan struct{} {
	done := make(chan struct{})
	go func() { defer close(done); w.Wait() }()
	return done
}

// A viewer over TCP that does not read loses video up to a key frame, which it asks for; others don't notice.
func TestSlowViewerOverTCP(t *testing.T) {
	e := listen(t)
	g := e.NewGroup([]media.Track{h264}, false)
	slow := newValve(t, netip.AddrPortFrom(e.addrs[0], e.port))
	keys := make(chan int, 1024)
	from, to := fmt.Sprintf(" 127.0.0.1 %d ", e.port), fmt.Sprintf(" 127.0.0.1 %d ", slow.addr.Port())
	w, v := watchTCP(t, g, SenderOptions{OnKeyFrameRequest: func(track int) { keys <- track }}, func(answer string) string {
		return strings.ReplaceAll(answer, from, to)
	})
	fast, u := watch(t, g, newPath(t, nil), SenderOptions{})
	g.Join(v, nil)
	g.Join(u, nil)

	seq, frame := uint16(0), 0
	payload := bytes.Repeat([]byte{0x41}, 1100)
	send := func(key bool) { // 9 packets
		b := media.NewBurst(0, uint32(3000*frame))
		b.Key = key
		for i := range 9 {
			b.Append(seq, i == 8, payload)
			seq++
		}
		frame++
		g.Send(b)
		b.Release()
		for range 9 {
			if p := await(t, fast.packets, "a packet at the other viewer"); p.Timestamp != uint32(3000*(frame-1)) {
				t.Fatalf("the other viewer got timestamp %d in frame %d", p.Timestamp, frame-1)
			}
		}
	}
	for range 10 {
		send(false)
		for range 9 {
			await(t, w.packets, "a packet before the valve is shut")
		}
	}
	await(t, keys, "the request at the beginning")
	slow.shut.Lock()
	for range 300 { // 3 MB
		send(false)
	}
	v.mu.Lock()
	c := v.at.conn
	v.mu.Unlock()
	c.mu.Lock()
	waiting := len(c.queue) + c.flying
	c.mu.Unlock()
	if waiting < tcpQueue/2 || waiting > tcpQueue {
		t.Errorf("%d bytes wait for the slow viewer, at most %d may", waiting, tcpQueue)
	}
	for len(keys) > 0 {
		<-keys
	}
	slow.shut.Unlock()
	last := uint16(0)
	deadline := time.After(15 * time.Second)
	for asked := false; !asked; {
		send(false)
		select {
		case <-keys:
			asked = true
		case <-deadline:
			t.Fatal("no key frame was asked for")
		case <-time.After(5 * time.Millisecond):
		}
		for len(w.packets) > 0 {
			last = (<-w.packets).SequenceNumber
		}
	}
	first := seq
	send(true)
	p := await(t, w.packets, "the key frame")
	for ; p.SequenceNumber < first; p = await(t, w.packets, "the key frame") {
		if p.SequenceNumber > 310*9 {
			t.Fatalf("packet %d came after %d and before the key frame %d", p.SequenceNumber, last, first)
		}
	}
	for i := range 9 { // all of it, and what follows
		if p.SequenceNumber != first+uint16(i) {
			t.Fatalf("packet %d of the key frame has number %d, want %d", i, p.SequenceNumber, first+uint16(i))
		}
		if i == 8 {
			send(false)
		}
		p = await(t, w.packets, "the rest")
	}
}

// rightCheck is a check of a controlling peer.
func rightCheck(t *testing.T, s *session, nominate bool) []byte {
	t.Helper()
	setters := []stun.Setter{stun.BindingRequest, stun.TransactionID, stun.NewUsername(s.ours.ufrag + ":abcd")}
	if nominate {
		setters = append(setters, stun.RawAttribute{Type: stun.AttrUseCandidate})
	}
	m, err := stun.Build(append(setters, stun.NewShortTermIntegrity(s.ours.pwd), stun.Fingerprint)...)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

func frame(b []byte) []byte { return append([]byte{byte(len(b) >> 8), byte(len(b))}, b...) }

// readFrame reads what we send to a peer.
func readFrame(t *testing.T, c net.Conn) []byte {
	t.Helper()
	var head [2]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, binary.BigEndian.Uint16(head[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	return b
}

// A session whose connection ends goes on over another path as soon as that is checked, without a nomination.
func TestConnectionIsLost(t *testing.T) {
	e := listen(t)
	v, _, err := e.NewGroup([]media.Track{h264}, false).Offer(SenderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dial := func() net.Conn {
		c, err := net.Dial("tcp4", netip.AddrPortFrom(e.addrs[0], e.port).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	state := func() (at arrival, paths int) {
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.at, len(v.addrs)
	}
	// goesTo waits until media goes to a connection, of so many.
	goesTo := func(c net.Conn, paths int) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		for {
			a, n := state()
			if a.conn != nil && int(a.from.Port()) == c.LocalAddr().(*net.TCPAddr).Port && n == paths {
				return
			}
			select {
			case <-deadline:
				t.Fatalf("media goes to %v, of %d paths, want %v, of %d", a.from, n, c.LocalAddr(), paths)
			case <-time.After(time.Millisecond):
			}
		}
	}
	first, second := dial(), dial()
	for _, c := range []net.Conn{first, second} {
		if _, err := c.Write(frame(rightCheck(t, &v.session, false))); err != nil {
			t.Fatal(err)
		}
		m := &stun.Message{Raw: readFrame(t, c)}
		var mapped stun.XORMappedAddress
		if err := m.Decode(); err != nil || m.Type != stun.BindingSuccess || mapped.GetFrom(m) != nil || mapped.Port != c.LocalAddr().(*net.TCPAddr).Port {
			t.Fatalf("answered with %v (%v)", m, err)
		}
	}
	goesTo(first, 2)
	_ = first.Close()
	goesTo(first, 1) // there is no other yet
	if _, err := second.Write(frame(rightCheck(t, &v.session, false))); err != nil {
		t.Fatal(err)
	}
	goesTo(second, 1)
	third := dial() // a path that is not used
	if _, err := third.Write(frame(rightCheck(t, &v.session, false))); err != nil {
		t.Fatal(err)
	}
	goesTo(second, 2)
	a, _ := state()
	a.conn.heard.Store(int64(e.clock(time.Now().Add(tcpSilence))))
	if err := v.age(time.Now().Add(tcpSilence+time.Second), time.Hour); err != nil {
		t.Errorf("the session ended: %v", err)
	}
	goesTo(second, 1)
	if _, err := io.Copy(io.Discard, third); err != nil {
		t.Errorf("the connection that is not used was not closed: %v", err)
	}
	v.Close()
	if _, err := io.Copy(io.Discard, second); err != nil {
		t.Errorf("the connection did not end with the session: %v", err)
	}
}

// fakeConn is one end of a pipe with an address.
type fakeConn struct {
	net.Conn
	from netip.AddrPort
}

func (c fakeConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.from) }

func TestStrangersOverTCP(t *testing.T) {
	for _, c := range []struct {
		name  string
		says  func(t *testing.T, v *Sender) []byte
		stays time.Duration
	}{
		{"nothing", func(*testing.T, *Sender) []byte { return nil }, tcpHello},
		{"half a frame", func(*testing.T, *Sender) []byte { return []byte{1} }, tcpHello},
		{"frames of nothing", func(*testing.T, *Sender) []byte { return make([]byte, 64) }, tcpHello},
		{"DTLS", func(*testing.T, *Sender) []byte { return frame([]byte{22, 254, 253, 0}) }, tcpHello},
		{"a check with a wrong password", func(t *testing.T, v *Sender) []byte {
			return frame(rightCheck(t, &session{ours: credentials{v.ours.ufrag, "guessed"}}, true))
		}, tcpHello},
		{"a frame that is too large", func(*testing.T, *Sender) []byte { return []byte{tcpFrame >> 8, tcpFrame&255 + 1} }, 0},
		{"HTTP", func(*testing.T, *Sender) []byte { return []byte("GET / HTTP/1.1\r\n\r\n")[:2] }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := New(Config{Log: slog.New(slog.DiscardHandler)})
				h := newHost(nil)
				e.hosts = []*host{h}
				v, _, err := e.NewGroup([]media.Track{h264}, false).Offer(SenderOptions{})
				if err != nil {
					t.Fatal(err)
				}
				ours, theirs := net.Pipe()
				begin := time.Now()
				h.takeTCP(e, fakeConn{ours, netip.MustParseAddrPort("192.0.2.1:5000")})
				if b := c.says(t, v); len(b) > 0 {
					if _, err := theirs.Write(b); err != nil {
						t.Fatal(err)
					}
				}
				if n, err := theirs.Read(make([]byte, 100)); err == nil {
					t.Errorf("it was told %d bytes", n)
				}
				if d := time.Since(begin); d != c.stays {
					t.Errorf("it stayed for %v, want %v", d, c.stays)
				}
				_ = h.Close()
				if e.strangers.all != 0 || len(e.strangers.of) != 0 || len(h.conns) != 0 {
					t.Errorf("it is still counted: %d, %v, %d connections", e.strangers.all, e.strangers.of, len(h.conns))
				}
			})
		})
	}
}

func TestStrangersAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(Config{Log: slog.New(slog.DiscardHandler)})
		h := newHost(nil)
		e.hosts = []*host{h}
		come := func(from string) (taken bool) {
			ours, theirs := net.Pipe()
			h.takeTCP(e, fakeConn{ours, netip.AddrPortFrom(netip.MustParseAddr(from), 5000)})
			_ = theirs.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := theirs.Read(make([]byte, 1))
			return !errors.Is(err, io.EOF)
		}
		for i := range maxStrangersOf + 1 {
			if taken := come("192.0.2.1"); taken != (i < maxStrangersOf) {
				t.Fatalf("connection %d of one address: taken is %v", i, taken)
			}
		}
		for i := range maxStrangersOf + 1 {
			from := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i)}).String()
			if taken := come(from); taken != (i < maxStrangersOf) {
				t.Fatalf("connection %d of one network: taken is %v", i, taken)
			}
		}
		for i := 2 * maxStrangersOf; i <= maxStrangers; i++ {
			if taken := come(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String()); taken != (i < maxStrangers) {
				t.Fatalf("connection %d: taken is %v", i, taken)
			}
		}
		<-time.After(tcpHello)
		synctest.Wait()
		if !come("192.0.2.1") {
			t.Error("no connection is taken after the others have gone")
		}
		_ = h.Close()
	})
}

func TestNoTCP(t *testing.T) {
	e := New(Config{Listen: "127.0.0.1:0", NoTCP: true, Log: slog.New(slog.DiscardHandler)})
	if err := e.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer e.closeSockets()
	if all := e.candidates(); len(all) != 1 {
		t.Errorf("candidates %q", all)
	}
	l, err := net.Listen("tcp4", netip.AddrPortFrom(e.addrs[0], e.port).String())
	if err != nil {
		t.Errorf("the TCP port is taken: %v", err)
	} else {
		_ = l.Close()
	}
}

func FuzzFramed(f *testing.F) {
	for _, b := range [][]byte{nil, {0}, {0, 0}, {0, 1, 7}, {0, 0, 0, 2, 1, 2, 0, 1, 3}, {5, 220}, {5, 221, 1}, {255, 255}} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		was := bytes.Clone(in)
		rest := in
		r := framed{from: bytes.NewReader(in)}
		for {
			err := r.next(func(b []byte) {
				for rest[0] == 0 && rest[1] == 0 {
					rest = rest[2:] // of nothing
				}
				if !bytes.HasPrefix(rest, frame(b)) || len(b) == 0 || len(b) > tcpFrame {
					t.Fatalf("%x was read from %x", b, rest)
				}
				rest = rest[2+len(b):]
			})
			if err != nil {
				break
			}
		}
		if !bytes.Equal(in, was) {
			t.Fatal("the input was changed")
		}
	})
}

// Two sessions that take each other's addresses at the same time don't wait for each other.
func TestAddressesAreSwapped(t *testing.T) {
	e := listen(t)
	var sessions [2]*Sender
	var addrs [2]netip.AddrPort
	for i := range sessions {
		var err error
		if sessions[i], _, err = e.NewGroup([]media.Track{h264}, false).Offer(SenderOptions{}); err != nil {
			t.Fatal(err)
		}
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		addrs[i] = c.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	var work sync.WaitGroup
	for i := range sessions {
		work.Go(func() {
			check := [2][]byte{rightCheck(t, &sessions[0].session, false), rightCheck(t, &sessions[1].session, false)}
			for j := range 2000 {
				silent(e.hosts[0]) // else each would keep what it has
				e.hosts[0].receive(arrival{host: e.hosts[0], from: addrs[i]}, bytes.Clone(check[(i+j)%2]))
			}
		})
	}
	await(t, waited(&work), "the end of the checks")
}

// silent makes all addresses look as if nothing had come from there for a while.
func silent(h *host) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, o := range h.addrs {
		o.heard.Store(int64(-time.Hour))
	}
}
