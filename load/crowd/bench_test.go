//go:build linux

package crowd

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/udp"
)

// BenchmarkReaders compares the two ways to read many sockets: our poller, and a goroutine blocked in each. A round is a frame of nine
// packets for each of 300 viewers, and one of sound. cpu-µs/packet has the sending in it, which is the same for both.
func BenchmarkReaders(b *testing.B) {
	const viewers, burst = 300, 9
	for _, way := range []string{"poller", "goroutines"} {
		b.Run(way, func(b *testing.B) {
			var got atomic.Int64
			addrs := make([]netip.AddrPort, viewers)
			stop := pollerReaders(b, addrs, &got)
			if way == "goroutines" {
				stop()
				stop = goroutineReaders(b, addrs, &got)
			}
			defer stop()
			out, err := udp.Listen(b.Context(), netip.MustParseAddrPort("127.0.0.1:0"), udp.Config{})
			if err != nil {
				b.Fatal(err)
			}
			defer out.Close()
			batch, to := out.NewBatch(), make([]udp.Addr, viewers)
			for i, a := range addrs {
				to[i] = out.MakeAddr(a)
			}
			frame, sound := make([]byte, burst*1200), make([]byte, 200)
			began, sent := cpuTime(), int64(0)
			got.Store(0)
			round := time.NewTicker(20 * time.Millisecond) // as a server does: sound each 20 ms, and about as many frames
			defer round.Stop()
			for b.Loop() {
				<-round.C
				for i := range to {
					for _, m := range [][]byte{frame, sound} {
						if batch.Full() {
							_ = batch.Flush()
						}
						batch.Add(&to[i], m, 1200)
					}
					sent += burst + 1
				}
				_ = batch.Flush()
			}
			for end := time.Now().Add(time.Second); got.Load() < sent && time.Now().Before(end); {
				<-time.After(time.Millisecond)
			}
			b.ReportMetric(float64((cpuTime()-began).Microseconds())/float64(sent), "cpu-µs/packet")
			b.ReportMetric(100*float64(sent-got.Load())/float64(sent), "%lost")
		})
	}
}

func cpuTime() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func pollerReaders(b *testing.B, addrs []netip.AddrPort, got *atomic.Int64) (stop func()) {
	p, err := newPoller()
	if err != nil {
		b.Fatal(err)
	}
	var sockets []*socket
	for i := range addrs {
		k, err := p.open(&session{}, false)
		if err != nil {
			b.Fatal(err)
		}
		if err := syscall.Bind(k.fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			b.Fatal(err)
		}
		a, err := syscall.Getsockname(k.fd)
		if err != nil {
			b.Fatal(err)
		}
		addrs[i] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(a.(*syscall.SockaddrInet4).Port))
		sockets = append(sockets, k)
	}
	var wg sync.WaitGroup
	var over atomic.Bool
	wg.Go(func() {
		for !over.Load() {
			_ = p.wait(20*time.Millisecond, func(*session, []byte, int64) { got.Add(1) }, func() {})
		}
	})
	return func() {
		over.Store(true)
		wg.Wait()
		for _, k := range sockets {
			p.remove(k)
		}
		_ = p.close()
	}
}

func goroutineReaders(b *testing.B, addrs []netip.AddrPort, got *atomic.Int64) (stop func()) {
	var wg sync.WaitGroup
	var all []*net.UDPConn
	for i := range addrs {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			b.Fatal(err)
		}
		_ = c.SetReadBuffer(receiveBuffer)
		addrs[i] = c.LocalAddr().(*net.UDPAddr).AddrPort()
		all = append(all, c)
		wg.Go(func() {
			buf := make([]byte, readSize)
			for {
				if _, _, err := c.ReadFromUDPAddrPort(buf); err != nil {
					return
				}
				got.Add(1)
			}
		})
	}
	return func() {
		for _, c := range all {
			_ = c.Close()
		}
		wg.Wait()
	}
}
