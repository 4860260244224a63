package impair

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

func addrOf(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(n))
}

func listen(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(addrOf(0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// target is an echo that knows whom it has heard.
type target struct {
	conn *net.UDPConn
	mu   sync.Mutex
	from map[netip.AddrPort]int // packets
}

func echo(t *testing.T) *target {
	e := &target{conn: listen(t), from: map[netip.AddrPort]int{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1<<16)
		for {
			n, from, err := e.conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			e.mu.Lock()
			e.from[from]++
			e.mu.Unlock()
			_, _ = e.conn.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	t.Cleanup(func() { _ = e.conn.Close(); <-done })
	return e
}

func (e *target) heard() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.from)
}

// start runs a relay to a target until the test ends, and then checks that nothing of it is left.
func start(t *testing.T, e *target, cfg Config) *Relay {
	t.Helper()
	before := runtime.NumGoroutine()
	r, err := Listen(t.Context(), e.conn.LocalAddr().(*net.UDPAddr).AddrPort(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the relay ended with %v", err)
		}
		for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; {
			if time.Now().After(deadline) {
				t.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
			}
			<-time.After(time.Millisecond)
		}
	})
	return r
}

// ask sends a number by a relay; answer waits for one.
func ask(t *testing.T, c *net.UDPConn, r *Relay, n int) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort(binary.BigEndian.AppendUint32(nil, uint32(n)), r.Addr()); err != nil {
		t.Fatal(err)
	}
}

func answer(t *testing.T, c *net.UDPConn, within time.Duration) (int, bool) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 16)
	n, _, err := c.ReadFromUDPAddrPort(b)
	if os.IsTimeout(err) {
		return 0, false
	}
	if err != nil || n != 4 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	return int(binary.BigEndian.Uint32(b)), true
}

func TestRelay(t *testing.T) {
	e := echo(t)
	r := start(t, e, Config{})
	clients := []*net.UDPConn{listen(t), listen(t), listen(t)}
	for n := range 100 {
		for i, c := range clients {
			ask(t, c, r, 1000*i+n)
		}
	}
	for i, c := range clients {
		for n := range 100 {
			if got, ok := answer(t, c, 5*time.Second); !ok || got != 1000*i+n {
				t.Fatalf("client %d got %d, %v instead of %d", i, got, ok, 1000*i+n)
			}
		}
	}
	if e.heard() != len(clients) {
		t.Errorf("the target heard %d clients, want %d", e.heard(), len(clients))
	}
	for _, d := range []Direction{Up, Down} {
		if s := r.Stats(d); s != (Stats{Packets: 300, Bytes: 1200}) {
			t.Errorf("direction %d: %+v", d, s)
		}
	}
}

func TestDelayOfEachDirection(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		want time.Duration
	}{
		{"up", Config{Up: Path{Delay: 80 * time.Millisecond}}, 80 * time.Millisecond},
		{"down", Config{Down: Path{Delay: 80 * time.Millisecond}}, 80 * time.Millisecond},
		{"both", Config{Up: Path{Delay: 40 * time.Millisecond}, Down: Path{Delay: 60 * time.Millisecond}}, 100 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, client := start(t, echo(t), c.cfg), listen(t)
			begin := time.Now()
			ask(t, client, r, 1)
			if _, ok := answer(t, client, 5*time.Second); !ok {
				t.Fatal("no answer")
			}
			if took := time.Since(begin); took < c.want || took > c.want+500*time.Millisecond {
				t.Errorf("it took %v, want %v", took, c.want)
			}
		})
	}
}

func TestTapSeesWhatIsLost(t *testing.T) {
	lost := map[int]bool{}
	var mu sync.Mutex
	cfg := Config{Down: Path{Loss: 0.3}, Seed: 5, Tap: func(d Direction, b []byte, f Fate) {
		if d == Down && f.Dropped {
			mu.Lock()
			defer mu.Unlock()
			lost[int(binary.BigEndian.Uint32(b))] = true
		}
	}}
	r, client := start(t, echo(t), cfg), listen(t)
	const n = 200
	for i := range n {
		ask(t, client, r, i)
	}
	deadline := time.Now().Add(5 * time.Second)
	for r.Stats(Down).Packets < n {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", r.Stats(Down))
		}
		<-time.After(time.Millisecond)
	}
	mu.Lock()
	defer mu.Unlock()
	for i := range n {
		if lost[i] {
			continue
		}
		if got, ok := answer(t, client, 5*time.Second); !ok || got != i {
			t.Fatalf("got %d, %v instead of %d", got, ok, i)
		}
	}
	if got := int(r.Stats(Down).Dropped); got != len(lost) || got < n/5 || got > n/2 {
		t.Errorf("%d were dropped, %d were seen to be", got, len(lost))
	}
}

func TestBreakAndMend(t *testing.T) {
	r, client := start(t, echo(t), Config{}), listen(t)
	ask(t, client, r, 1)
	if _, ok := answer(t, client, 5*time.Second); !ok {
		t.Fatal("no answer")
	}
	for _, d := range []Direction{Up, Down} {
		if err := r.Set(d, Path{Loss: 1}); err != nil {
			t.Fatal(err)
		}
		before := r.Stats(d).Dropped
		ask(t, client, r, 2)
		deadline := time.Now().Add(5 * time.Second)
		for r.Stats(d).Dropped == before {
			if time.Now().After(deadline) {
				t.Fatalf("direction %d is broken, and nothing was dropped", d)
			}
			<-time.After(time.Millisecond)
		}
		if err := r.Set(d, Path{}); err != nil {
			t.Fatal(err)
		}
		ask(t, client, r, 3)
		if got, ok := answer(t, client, 5*time.Second); !ok || got != 3 {
			t.Errorf("after mending: %d, %v", got, ok)
		}
	}
	if err := r.Set(Up, Path{Loss: 2}); err == nil {
		t.Error("a loss of 200 % was taken")
	}
}

func TestRebind(t *testing.T) {
	e := echo(t)
	r, client := start(t, e, Config{}), listen(t)
	for i := range 3 {
		ask(t, client, r, i)
		if got, ok := answer(t, client, 5*time.Second); !ok || got != i {
			t.Fatalf("got %d, %v instead of %d", got, ok, i)
		}
		if e.heard() != i+1 {
			t.Errorf("the target heard from %d addresses after %d rebinds", e.heard(), i)
		}
		if err := r.Rebind(); err != nil {
			t.Fatal(err)
		}
	}
	// What goes to an old address is lost.
	e.mu.Lock()
	for from := range e.from {
		_, _ = e.conn.WriteToUDPAddrPort([]byte{0, 0, 0, 9}, from)
	}
	e.mu.Unlock()
	if got, ok := answer(t, client, 50*time.Millisecond); ok {
		t.Errorf("%d came by an address that is no more", got)
	}
}

func TestRoomIsBounded(t *testing.T) {
	e := echo(t)
	r := start(t, e, Config{Up: Path{Delay: time.Hour}})
	client := listen(t)
	for i := range maxWaiting + 500 {
		r.take(Up, client.LocalAddr().(*net.UDPAddr).AddrPort(), nil, []byte{byte(i)})
	}
	for i := range 2 * maxClients {
		r.take(Up, addrOf(1+i), nil, []byte{1})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if held := r.waiting.held[Up]; held > maxWaiting {
		t.Errorf("%d packets are held", held)
	}
	if n := len(r.clients); n > maxClients {
		t.Errorf("%d clients are kept", n)
	}
	if r.lines[Up].stats.Dropped < 500 {
		t.Errorf("%d packets were dropped", r.lines[Up].stats.Dropped)
	}
}
