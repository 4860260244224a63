package udp

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"
)

func listen(t testing.TB, address string, cfg Config) *Socket {
	t.Helper()
	s, err := Listen(context.Background(), netip.MustParseAddrPort(address), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// collect reads n datagrams.
func collect(t *testing.T, s *Socket, n int) (got [][]byte, from netip.AddrPort) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := s.NewReader()
		for len(got) < n {
			if err := r.Read(func(b []byte, a netip.AddrPort) {
				got, from = append(got, bytes.Clone(b)), a
			}); err != nil {
				return
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		_ = s.Close()
		<-done
		t.Fatalf("only %d of %d datagrams came", len(got), n)
	}
	return got, from
}

func TestBatches(t *testing.T) {
	for _, host := range []string{"127.0.0.1:0", "[::1]:0"} {
		for _, send := range []Config{{}, {NoGSO: true}} {
			for _, receive := range []Config{{}, {NoGSO: true}} {
				t.Run(fmt.Sprintf("%s send without GSO %v, receive without GRO %v", host, send.NoGSO, receive.NoGSO), func(t *testing.T) {
					to, from := listen(t, host, receive), listen(t, host, send)
					if send.NoGSO && from.Segments() {
						t.Error("GSO is on")
					}
					batch := from.NewBatch()
					addr := from.MakeAddr(to.LocalAddr())
					var want [][]byte
					for i := range 20 { // messages of 1 to 5 datagrams, the last of each shorter
						var data []byte
						for j := range 1 + i%5 {
							d := bytes.Repeat([]byte{byte(i), byte(j)}, 500)
							if j == i%5 {
								d = d[:300]
							}
							want = append(want, d)
							data = append(data, d...)
						}
						size := 1000
						if i%5 == 0 {
							size = len(data)
						}
						batch.Add(&addr, data, size)
					}
					if err := batch.Flush(); err != nil {
						t.Fatal(err)
					}
					got, sender := collect(t, to, len(want))
					for i := range want {
						if !bytes.Equal(got[i], want[i]) {
							t.Fatalf("datagram %d has %d bytes of %x…, want %d of %x…", i, len(got[i]), got[i][:2], len(want[i]), want[i][:2])
						}
					}
					if sender != from.LocalAddr() {
						t.Errorf("they came from %v, not %v", sender, from.LocalAddr())
					}
					if from.Failed() != 0 || !batch.Empty() {
						t.Errorf("%d failed, empty %v", from.Failed(), batch.Empty())
					}
				})
			}
		}
	}
}

func TestOneBadAddressCostsNobodyElse(t *testing.T) {
	to, from := listen(t, "127.0.0.1:0", Config{}), listen(t, "127.0.0.1:0", Config{})
	batch := from.NewBatch()
	good := from.MakeAddr(to.LocalAddr())
	bad := from.MakeAddr(netip.MustParseAddrPort("127.0.0.1:0")) // EINVAL
	for i := range 9 {
		a := &good
		if i%3 == 1 {
			a = &bad
		}
		batch.Add(a, []byte{byte(i)}, 1)
	}
	if err := batch.Flush(); err != nil {
		t.Fatal(err)
	}
	got, _ := collect(t, to, 6)
	if fmt.Sprint(got) != "[[0] [2] [3] [5] [6] [8]]" || from.Failed() != 3 {
		t.Errorf("got %v, %d failed", got, from.Failed())
	}
}

func TestSharedPortSpreadsPeers(t *testing.T) {
	first := listen(t, "127.0.0.1:0", Config{Shared: true})
	second := listen(t, first.LocalAddr().String(), Config{Shared: true})
	counts := make([]int, 2)
	var mu sync.Mutex
	arrived := make(chan struct{}, 128)
	for i, s := range []*Socket{first, second} {
		go func() {
			r := s.NewReader()
			for r.Read(func([]byte, netip.AddrPort) {
				mu.Lock()
				counts[i]++
				mu.Unlock()
				arrived <- struct{}{}
			}) == nil {
			}
		}()
	}
	for range 64 {
		if err := listen(t, "127.0.0.1:0", Config{}).WriteTo([]byte("hello"), first.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	for range 64 {
		select {
		case <-arrived:
		case <-time.After(10 * time.Second):
			t.Fatal("datagrams are missing")
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if counts[0] == 0 || counts[1] == 0 {
		t.Errorf("peers are spread as %v", counts)
	}
}

func BenchmarkBatch(b *testing.B) {
	for _, cfg := range []Config{{}, {NoGSO: true}} {
		b.Run(fmt.Sprintf("gso=%v", !cfg.NoGSO), func(b *testing.B) {
			to, from := listen(b, "127.0.0.1:0", Config{}), listen(b, "127.0.0.1:0", cfg)
			batch, addr := from.NewBatch(), from.MakeAddr(to.LocalAddr())
			data := make([]byte, 9*1200)
			b.ReportAllocs()
			for b.Loop() { // one operation: 64 frames of nine packets; nobody reads
				for !batch.Full() {
					batch.Add(&addr, data, 1200)
				}
				if err := batch.Flush(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*64*9), "ns/packet")
		})
	}
}

// A device that refuses to cut a message costs the socket the kernel's help for a minute, not for good.
func TestGSOIsTriedAgain(t *testing.T) {
	s := listen(t, "127.0.0.1:0", Config{})
	if !s.Segments() {
		t.Skip("the kernel has no UDP_SEGMENT")
	}
	s.refuse()
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{0, false}, {retryGSO / 2, false}, {retryGSO + time.Second, true}} {
		s.retry(time.Now().Add(c.after))
		if s.Segments() != c.want {
			t.Errorf("after %v: %v", c.after, !c.want)
		}
	}
}
