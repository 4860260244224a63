package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"sluice/media"
	wire "sluice/relay"
	"sluice/stream"
)

var (
	key   = media.Key{App: "live", ID: "s"}
	video = media.Track{Kind: media.Video, Codec: media.Codec{Name: media.H264, ClockRate: 90000}}
	audio = media.Track{Kind: media.Audio, Codec: media.Codec{Name: media.Opus, ClockRate: 48000, Channels: 2}}
)

// until polls until why is "", which else says what is still missing.
func until(t testing.TB, within time.Duration, why func() string) {
	t.Helper()
	late := time.After(within)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		reason := why()
		if reason == "" {
			return
		}
		select {
		case <-late:
			t.Fatalf("after %v: %s", within, reason)
		case <-tick.C:
		}
	}
}

// noLeaks checks, at the end of the test, that every goroutine of ours and of QUIC has ended.
func noLeaks(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		until(t, 5*time.Second, func() string {
			buf := make([]byte, 4<<20)
			for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
				if (strings.Contains(g, "sluice/") || strings.Contains(g, "quic-go")) && !strings.Contains(g, "testing.tRunner") {
					return "a goroutine is left:\n" + g
				}
			}
			return ""
		})
	})
}

// serve runs a hub and a relay that lets one identity in.
func serve(t *testing.T, cfg Config) (*Relay, *stream.Hub, *wire.Identity) {
	t.Helper()
	peer, id := identity(t), identity(t)
	log := slog.New(slog.DiscardHandler)
	hub := stream.NewHub(stream.Config{Log: log, Pull: func(context.Context, media.Key) error {
		t.Error("a peer made this node pull")
		return stream.ErrOffline
	}})
	cfg.Hub, cfg.Identity, cfg.Listen, cfg.Node, cfg.Log = hub, id, "127.0.0.1:0", "o", log
	if cfg.Known == nil {
		cfg.Known = func(_ context.Context, k string) bool { return k == peer.Key() }
	}
	r := New(cfg)
	if err := r.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = hub.Run(ctx) })
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return r, hub, peer
}

func identity(t *testing.T) *wire.Identity {
	t.Helper()
	id, err := wire.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func dial(t *testing.T, r *Relay, id *wire.Identity, cfg *quic.Config) (*quic.Conn, error) {
	t.Helper()
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: udp}
	t.Cleanup(func() { _ = tr.Close(); _ = udp.Close() })
	conn, err := tr.Dial(t.Context(), r.Addr(), id.ClientTLS(r.cfg.Identity.Key()), cfg)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
	return conn, nil
}

func mustDial(t *testing.T, r *Relay, id *wire.Identity, cfg *quic.Config) *quic.Conn {
	t.Helper()
	conn, err := dial(t, r, id, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func request(version uint64) []byte {
	b := wire.AppendFrame(nil, wire.Hello{Version: version, Node: "e"})
	return wire.AppendFrame(b, wire.Subscribe{Key: key})
}

// subscribe asks for the stream and returns the first frame that is neither Hello nor Path.
func subscribe(t *testing.T, conn *quic.Conn) (*quic.Stream, wire.Frame) {
	t.Helper()
	return subscribeIn(t, conn, wire.Version)
}

func subscribeIn(t *testing.T, conn *quic.Conn, version uint64) (*quic.Stream, wire.Frame) {
	t.Helper()
	ctl, err := conn.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ctl.Write(request(version)); err != nil {
		t.Fatal(err)
	}
	rd := wire.NewReader(ctl, wire.MaxControl)
	if hello, err := next[wire.Hello](rd); err != nil || hello.Node != "o" || hello.Version != version {
		t.Fatalf("hello %+v: %v", hello, err)
	}
	if version > 1 {
		if path, err := next[wire.Path](rd); err != nil || len(path.Nodes) != 1 || path.Nodes[0] != "o" {
			t.Fatalf("path %+v: %v", path, err)
		}
	}
	b, err := rd.Next()
	if err != nil {
		t.Fatal(err)
	}
	f, err := wire.ParseFrame(b)
	if err != nil {
		t.Fatal(err)
	}
	return ctl, f
}

// camera publishes frames of n packets of 1,200 bytes.
type camera struct {
	pub *stream.Publisher
	seq [2]uint16
	ts  uint32
}

func publish(t *testing.T, hub *stream.Hub, tracks ...media.Track) *camera {
	t.Helper()
	pub, err := hub.Publish(t.Context(), key, stream.PublishOptions{Tracks: tracks})
	if err != nil {
		t.Fatal(err)
	}
	return &camera{pub: pub}
}

func (c *camera) frame(track int, isKey bool, n int) {
	c.ts += 3000
	b := media.NewBurst(track, c.ts)
	b.Arrived = time.Now().UnixNano()
	p := make([]byte, 1200)
	p[0] = 0x41
	if isKey {
		p[0] = 0x65
	}
	for i := range n {
		b.Append(c.seq[track], i == n-1, p)
		c.seq[track]++
	}
	c.pub.Write(b)
}

// TestPausedReaderLosesTheRestOfItsGOP: a peer that reads nothing of the picture, but its sound.
func TestPausedReaderLosesTheRestOfItsGOP(t *testing.T) {
	noLeaks(t)
	r, hub, id := serve(t, Config{})
	cam := publish(t, hub, video, audio)
	cam.frame(0, true, 1)
	cfg := wire.ClientQUIC()
	cfg.InitialStreamReceiveWindow, cfg.MaxStreamReceiveWindow = 32<<10, 32<<10
	conn := mustDial(t, r, id, cfg)
	if _, f := subscribe(t, conn); len(f.(wire.Tracks).Tracks) != 2 {
		t.Fatalf("answer %+v", f)
	}

	type media struct {
		h  wire.Header
		st *quic.ReceiveStream
		rd *wire.Reader
	}
	accept := func() media {
		st, err := conn.AcceptUniStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m := media{st: st, rd: wire.NewReader(st, wire.MaxBurst)}
		b, err := m.rd.Next()
		if err != nil {
			t.Fatal(err)
		}
		if m.h, err = wire.ParseHeader(b); err != nil {
			t.Fatal(err)
		}
		return m
	}
	picture := accept()
	cam.frame(1, false, 1)
	sound := accept()
	if picture.h.Track != 0 || picture.h.GOP != 0 || picture.h.Gap || sound.h.Track != 1 {
		t.Fatalf("headers %+v %+v", picture.h, sound.h)
	}

	// The picture goes on, and nobody reads it.
	heard := 0
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); r.Stats().Cuts == 0; <-tick.C {
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("never cut: %+v", r.Stats())
		}
		cam.frame(0, false, 3)
		cam.frame(1, false, 1)
		if _, err := sound.rd.Next(); err != nil {
			t.Fatalf("sound after %d packets: %v", heard, err)
		}
		heard++
	}
	// What the peer finds of the old GOP ends with a reset, and the next begins with a key frame and says that something is missing.
	var err error
	for err == nil {
		_, err = picture.rd.Next()
	}
	if reset, ok := errors.AsType[*quic.StreamError](err); !ok || reset.ErrorCode != wire.StreamCut {
		t.Errorf("the old GOP ended with %v", err)
	}
	cam.frame(0, false, 1) // belongs to the GOP that was cut
	cam.frame(0, true, 2)
	again := accept()
	if again.h.Track != 0 || again.h.GOP != 1 || !again.h.Gap {
		t.Errorf("header %+v", again.h)
	}
	b, err := again.rd.Next()
	if err != nil {
		t.Fatal(err)
	}
	f, _, err := wire.ParseBurst(0, b)
	if err != nil || !f.Key || len(f.Packets) != 2 {
		t.Errorf("first burst %+v: %v", f, err)
	}
	if s := r.Stats(); s.Cuts != 1 || s.DroppedBursts < 2 {
		t.Errorf("%+v", s)
	}
}

// TestStrangersAreRefused: the handshake fails, and the registry is not asked without end.
func TestStrangersAreRefused(t *testing.T) {
	noLeaks(t)
	good := identity(t)
	var mu sync.Mutex
	asked := 0
	r, _, _ := serve(t, Config{Known: func(ctx context.Context, k string) bool {
		mu.Lock()
		defer mu.Unlock()
		asked++
		if _, ok := ctx.Deadline(); !ok {
			t.Error("no deadline for the look-up")
		}
		return k == good.Key()
	}})
	mustDial(t, r, good, wire.ClientQUIC())
	conn, err := dial(t, r, identity(t), wire.ClientQUIC())
	if err == nil { // TLS 1.3: the client learns of it after its own handshake
		select {
		case <-conn.Context().Done():
		case <-time.After(3 * time.Second):
			t.Error("a stranger is still connected")
		}
	}
	other := identity(t)
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: udp}
	defer func() { _ = tr.Close(); _ = udp.Close() }()
	if _, err := tr.Dial(t.Context(), r.Addr(), other.ClientTLS(other.Key()), wire.ClientQUIC()); !errors.Is(err, wire.ErrUnknownPeer) {
		t.Errorf("a server with another key than expected: %v", err)
	}

	g := gate{seen: func(k string) bool { return k == "seen" }, known: func(_ context.Context, k string) bool { asked++; return strings.HasPrefix(k, "new") }}
	asked = 0
	for i := range 2 * maxLookups {
		if !g.admit(t.Context(), fmt.Sprint("new", i)) {
			t.Fatal("new nodes were refused without any stranger")
		}
	}
	asked = 0
	for i := range 1000 {
		if g.admit(t.Context(), fmt.Sprint("bad", i)) {
			t.Error("a stranger was let in")
		}
		if !g.admit(t.Context(), "seen") {
			t.Fatalf("%d strangers shut a node out that this one has seen", i)
		}
	}
	if asked > 2*maxLookups { // a second may have passed in between
		t.Errorf("1,000 strangers cost %d look-ups", asked)
	}
}

// TestPassedOverOnPurpose: what follows of a GOP that the peer does not want is not lost, and the peer is not slow.
func TestPassedOverOnPurpose(t *testing.T) {
	for _, c := range []struct {
		name string
		slow bool
		want uint64
	}{
		{"the peer does not want the rest", false, 0},
		{"the peer is too slow", true, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &subscription{relay: New(Config{})}
			l := &lane{sub: s, wake: make(chan struct{}, 1)}
			l.mu.Lock()
			l.cutLocked(c.slow)
			l.mu.Unlock()
			for i := range uint16(3) {
				b := media.NewBurst(0, 0)
				b.Append(i, true, []byte{0x41, 1})
				l.push(b)
				b.Release()
			}
			if got := s.bursts.Load(); got != c.want {
				t.Errorf("%d bursts count as lost, want %d", got, c.want)
			}
		})
	}
}

// TestBadFigureBelow: a child that says too much does not make this node's own parent close the connection.
func TestBadFigureBelow(t *testing.T) {
	r := New(Config{Node: "o"})
	s := &subscription{relay: r, key: key, addr: "a"}
	r.children[key] = []*subscription{s}
	for _, said := range []uint64{math.MaxInt32, math.MaxInt32 + 1, math.MaxUint64} {
		f, err := wire.ParseFrame(wire.AppendFrame(nil, wire.Below{Nodes: said})[4:])
		if err != nil {
			t.Fatalf("%d: %v", said, err)
		}
		r.report(s, f.(wire.Below))
		f, err = wire.ParseFrame(wire.AppendFrame(nil, r.Below(key))[4:])
		if b, ok := f.(wire.Below); err != nil || !ok || b.Nodes != wire.MaxBelow {
			t.Errorf("%d: the parent reads %+v, %v", said, f, err)
		}
	}
}

// TestSentOnesCount: what a child said before it knew of those that were sent to it does not send all others there too.
func TestSentOnesCount(t *testing.T) {
	r := New(Config{Node: "o", Fanout: 2, Busy: func() bool { return false }, Path: func(media.Key) []string { return nil }})
	for _, id := range []string{"a", "b"} {
		r.children[key] = append(r.children[key], &subscription{relay: r, key: key, node: id, addr: id, version: wire.Version})
	}
	a, b := r.children[key][0], r.children[key][1]
	for i, want := range []string{"a", "b", "a", "b"} {
		_, to := r.admit(&subscription{relay: r, key: key, node: fmt.Sprint("asker", i), version: wire.Version}, false)
		if to == nil || to.Node != want {
			t.Fatalf("asker %d is sent to %+v, want %s", i, to, want)
		}
		r.report(a, wire.Below{})
		r.report(b, wire.Below{})
	}
	a.sent = time.Now().Add(-arriveWithin)
	if r.report(a, wire.Below{}); a.below.Nodes != 0 {
		t.Errorf("%d nodes count as below the child long after they should have arrived", a.below.Nodes)
	}
}

// TestRudePeers: whatever a known node sends, it costs a bounded time and memory, and others are served.
func TestRudePeers(t *testing.T) {
	noLeaks(t)
	for _, c := range []struct {
		name   string
		say    []byte
		closed bool // the whole connection is
		answer wire.Code
	}{
		{"silence", nil, false, 0},
		{"half a frame", request(1)[:9], false, 0},
		{"garbage", bytes.Repeat([]byte{0xa5}, 5000), true, 0},
		{"a frame that is too long", []byte{0, 0x50, 0, 0}, true, 0},
		{"a frame of nothing", []byte{0, 0, 0, 0}, true, 0},
		{"subscribe without hello", wire.AppendFrame(nil, wire.Subscribe{Key: key}), true, 0},
		{"a version that never was", request(0), false, wire.BadVersion},
		{"garbage after the subscription", append(request(1), 0, 0, 0, 2, 6, 0x80), true, 0},
		{"a later version", request(7), false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, hub, id := serve(t, Config{})
			publish(t, hub, video).frame(0, true, 1)
			conn := mustDial(t, r, id, wire.ClientQUIC())
			ctl, err := conn.OpenStream()
			if err != nil {
				t.Fatal(err)
			}
			_, _ = ctl.Write(append([]byte{}, c.say...))
			if c.say == nil {
				_, _ = ctl.Write([]byte{0}) // a stream without a byte is none
			}
			if c.answer != 0 {
				rd := wire.NewReader(ctl, wire.MaxControl)
				if _, err := next[wire.Hello](rd); err != nil {
					t.Fatal(err)
				}
				if end, err := next[wire.End](rd); err != nil || end.Code != c.answer {
					t.Errorf("answer %+v: %v", end, err)
				}
				return
			}
			if c.closed {
				select {
				case <-conn.Context().Done():
					if e, ok := errors.AsType[*quic.ApplicationError](context.Cause(conn.Context())); !ok || e.ErrorCode != wire.ConnMalformed {
						t.Errorf("closed with %v", context.Cause(conn.Context()))
					}
				case <-time.After(5 * time.Second):
					t.Error("still connected")
				}
				return
			}
			if c.name == "a later version" {
				if _, err := next[wire.Hello](wire.NewReader(ctl, wire.MaxControl)); err != nil {
					t.Error(err)
				}
				return
			}
			_ = ctl.SetReadDeadline(time.Now().Add(2 * greetWithin))
			if _, err := io.ReadAll(ctl); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the stream was not ended: %v", err)
			}
			if _, f := subscribe(t, conn); f.(wire.Tracks).Generation != 1 {
				t.Errorf("another stream of the same peer got %+v", f)
			}
		})
	}
}

// Nodes of version 1 know neither paths nor redirects: they are served, whatever the fanout.
func TestVersionOne(t *testing.T) {
	noLeaks(t)
	other := identity(t)
	r, hub, id := serve(t, Config{Fanout: 1, Known: func(context.Context, string) bool { return true }})
	publish(t, hub, video)
	for _, id := range []*wire.Identity{id, other} {
		if _, f := subscribeIn(t, mustDial(t, r, id, wire.ClientQUIC()), 1); f.(wire.Tracks).Generation != 1 {
			t.Errorf("answer %+v", f)
		}
	}
	r.Rerouted(key) // tells them nothing
	r.Drain()
	if n := r.Movable(); n != 0 {
		t.Errorf("%d children are expected to move", n)
	}
}

func TestANodeHasOneConnection(t *testing.T) {
	noLeaks(t)
	r, hub, id := serve(t, Config{})
	publish(t, hub, video)
	old := mustDial(t, r, id, wire.ClientQUIC())
	subscribe(t, old)
	now := mustDial(t, r, id, wire.ClientQUIC())
	subscribe(t, now)
	select {
	case <-old.Context().Done():
	case <-time.After(3 * time.Second):
		t.Error("the old connection stayed")
	}
	until(t, 3*time.Second, func() string {
		if info, _ := hub.Info(key); info.Relays != 1 {
			return fmt.Sprintf("%d subscriptions", info.Relays)
		}
		return ""
	})
}
