package turn

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v5"
	"github.com/pion/webrtc/v4"

	"sluice/media"
	"sluice/rtc"
)

func serve(t *testing.T, cfg Config) *Server {
	t.Helper()
	cfg.Listen = "127.0.0.1:0"
	if !cfg.Public.IsValid() {
		cfg.Public = netip.MustParseAddr("127.0.0.1")
	}
	s := New(cfg)
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, s.Run)
	return s
}

func run(t *testing.T, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := await(t, done, "the end"); err != nil {
			t.Error(err)
		}
	})
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

// A viewer that may use nothing but the relay watches a stream, of a node whose announced address is not its own.
func TestWatchThroughTheRelay(t *testing.T) {
	for i, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			endpoint := rtc.New(rtc.Config{Listen: "127.0.0.1:0", Announce: []netip.Addr{netip.MustParseAddr("203.0.113.7")}, Log: slog.New(slog.DiscardHandler)})
			if err := endpoint.Listen(t.Context()); err != nil {
				t.Fatal(err)
			}
			run(t, endpoint.Run)
			s := serve(t, Config{Media: func() (all []Route) {
				for _, r := range endpoint.Routes() {
					all = append(all, Route(r))
				}
				return all
			}})
			login := s.Logins()[i]
			if !strings.HasSuffix(login.URL, "?transport="+transport) {
				t.Fatalf("URL %s", login.URL)
			}
			engine := webrtc.SettingEngine{}
			engine.SetIncludeLoopbackCandidate(true)
			pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(engine)).NewPeerConnection(webrtc.Configuration{
				ICETransportPolicy: webrtc.ICETransportPolicyRelay,
				ICEServers:         []webrtc.ICEServer{{URLs: []string{login.URL}, Username: login.Username, Credential: login.Password}},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = pc.Close() })
			if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
				t.Fatal(err)
			}
			came := make(chan []byte, 64)
			pc.OnTrack(func(tr *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
				for {
					p, _, err := tr.ReadRTP()
					if err != nil {
						return
					}
					came <- p.Payload
				}
			})
			offer, err := pc.CreateOffer(nil)
			if err != nil {
				t.Fatal(err)
			}
			gathered := webrtc.GatheringCompletePromise(pc)
			if err := pc.SetLocalDescription(offer); err != nil {
				t.Fatal(err)
			}
			await(t, gathered, "the relayed candidate")
			up := make(chan struct{}, 1)
			g := endpoint.NewGroup([]media.Track{{Kind: media.Video, Codec: media.Codec{Name: media.VP8, ClockRate: 90000}}}, false)
			v, answer, err := g.Answer(pc.LocalDescription().SDP, rtc.SenderOptions{Events: rtc.Events{OnConnected: func() { up <- struct{}{} }}})
			if err != nil {
				t.Fatal(err)
			}
			if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
				t.Fatal(err)
			}
			await(t, up, "the connection")
			b := media.NewBurst(0, 0)
			b.Append(1, true, []byte("picture"))
			g.Join(v, []*media.Burst{b})
			b.Release()
			if got := await(t, came, "a packet"); string(got) != "picture" {
				t.Errorf("%q came", got)
			}
			v.Close()
		})
	}
}

// client is a TURN client without WebRTC.
func client(t *testing.T, s *Server, name, password string) *turn.Client {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.port).String()
	quiet := &logging.DefaultLoggerFactory{Writer: io.Discard}
	k, err := turn.NewClient(&turn.ClientConfig{STUNServerAddr: at, TURNServerAddr: at, Conn: c, Username: name, Password: password, LoggerFactory: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close(); _ = c.Close() })
	if err := k.Listen(); err != nil {
		t.Fatal(err)
	}
	return k
}

// port is a UDP socket on this machine, and what it gets.
func port(t *testing.T) (net.PacketConn, netip.AddrPort, <-chan net.Addr) {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	from := make(chan net.Addr, 64)
	go func() {
		for b := make([]byte, 1500); ; {
			_, a, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			from <- a
		}
	}()
	return c, c.LocalAddr().(*net.UDPAddr).AddrPort(), from
}

func to(a netip.AddrPort) net.Addr { return net.UDPAddrFromAddrPort(a) }

func TestOnlyMediaIsReached(t *testing.T) {
	node, bound, got := port(t)
	other, elsewhere, nothing := port(t)
	told := netip.MustParseAddrPort("203.0.113.7:50000")
	s := serve(t, Config{Media: func() []Route { return []Route{{told, bound}, {bound, bound}} }})
	login := s.Logins()[0]
	relayed, err := client(t, s, login.Username, login.Password).Allocate()
	if err != nil {
		t.Fatal(err)
	}
	defer relayed.Close()
	for _, a := range []string{"192.0.2.9:50000", "127.0.0.2:53", "169.254.169.254:80"} {
		if _, err := relayed.WriteTo([]byte("x"), to(netip.MustParseAddrPort(a))); err == nil {
			t.Errorf("%s was permitted", a)
		}
	}
	// The node's address is permitted, its other ports are not.
	if _, err := relayed.WriteTo([]byte("x"), to(elsewhere)); err != nil {
		t.Fatal(err)
	}
	if _, err := relayed.WriteTo([]byte("x"), to(told)); err != nil {
		t.Fatal(err)
	}
	at := await(t, got, "what was sent to the media port")
	// An answer comes from the address that was told; what comes from elsewhere does not arrive.
	if _, err := other.WriteTo([]byte("stranger"), at); err != nil {
		t.Fatal(err)
	}
	if _, err := node.WriteTo([]byte("answer"), at); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	_ = relayed.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, from, err := relayed.ReadFrom(b)
	if err != nil || string(b[:n]) != "answer" || from.String() != told.String() && from.String() != bound.String() {
		t.Errorf("%q came from %v (%v)", b[:n], from, err)
	}
	if len(nothing) > 0 {
		t.Errorf("a port that is not media's got a packet from %v", <-nothing)
	}
}

func TestStrangers(t *testing.T) {
	_, bound, _ := port(t)
	s := serve(t, Config{Secret: "secret", Media: func() []Route { return []Route{{bound, bound}} }})
	good := s.Logins()[0]
	other := New(Config{Secret: "another", Media: s.cfg.Media}).Logins()[0]
	for _, c := range []struct {
		name, user, password string
		ok                   bool
	}{
		{"right", good.Username, good.Password, true},
		{"wrong password", good.Username, "guessed", false},
		{"another user's password", "9" + good.Username, good.Password, false},
		{"another server's", other.Username, other.Password, false},
		{"too old", "1700000000:x", s.password("1700000000:x"), false},
		{"no time", "x", s.password("x"), false},
		{"as the draft has it, without an id", "9999999999", s.password("9999999999"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			relayed, err := client(t, s, c.user, c.password).Allocate()
			if (err == nil) != c.ok {
				t.Errorf("got %v", err)
			}
			if err == nil {
				_ = relayed.Close()
			}
		})
	}
}

func TestAllocationsAreBounded(t *testing.T) {
	_, bound, _ := port(t)
	s := serve(t, Config{Media: func() []Route { return []Route{{bound, bound}} }})
	login := s.Logins()[0]
	var all []net.PacketConn
	for range maxOfUser {
		relayed, err := client(t, s, login.Username, login.Password).Allocate()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, relayed)
	}
	if _, err := client(t, s, login.Username, login.Password).Allocate(); err == nil {
		t.Errorf("allocation %d was made", maxOfUser+1)
	}
	if relayed, err := client(t, s, s.Logins()[0].Username, "").Allocate(); err == nil {
		t.Errorf("allocated %v without a password", relayed.LocalAddr())
	}
	for _, a := range all {
		_ = a.Close()
	}
	deadline := time.After(10 * time.Second)
	for {
		s.mu.Lock()
		users, n := len(s.users), s.all
		s.mu.Unlock()
		if users == 0 && n == 0 {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%d allocations of %d users are left", n, users)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestPorts(t *testing.T) {
	c, bound, _ := port(t)
	_ = c.Close() // a port that is free
	ports := Ports{bound.Port(), bound.Port()}
	s := serve(t, Config{Ports: ports, Media: func() []Route { return []Route{{bound, bound}} }})
	login := s.Logins()[0]
	relayed, err := client(t, s, login.Username, login.Password).Allocate()
	if err != nil {
		t.Fatal(err)
	}
	defer relayed.Close()
	if got := relayed.LocalAddr().(*net.UDPAddr).AddrPort().Port(); got != ports.First {
		t.Errorf("port %d, want %d", got, ports.First)
	}
	if _, err := client(t, s, login.Username, login.Password).Allocate(); err == nil {
		t.Error("a second socket was opened on a range of one")
	}
}

func TestRate(t *testing.T) {
	now := time.Unix(1, 0)
	u := &user{left: userRate, at: now}
	sent := 0
	for range 3000 { // three seconds at four times the rate
		for range 20 {
			if u.take(userRate/5000, now) {
				sent += userRate / 5000
			}
		}
		now = now.Add(time.Millisecond)
	}
	if want := 4 * userRate; sent < want*98/100 || sent > want {
		t.Errorf("%d bytes went in three seconds, want about %d", sent, want)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	s := serve(t, Config{Media: func() []Route { return nil }})
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.port).String()
	for i := range maxConnsOf + 1 {
		c, err := net.Dial("tcp4", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i == maxConnsOf {
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("connection %d: %v", i+1, err)
			}
		}
	}
}
