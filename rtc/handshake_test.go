package rtc

import (
	"net/netip"
	"sync"
	"testing"
	"time"
)

// Sessions that end while they wait for their turn, or have it, leave none taken: else nobody could ever join again.
func TestTurnsAreGivenBack(t *testing.T) {
	all := make(chan struct{}, 1)
	from := netip.MustParseAddrPort("127.0.0.1:9")
	var work sync.WaitGroup
	for i := range 2000 {
		p := newPipe(from, 4, nil)
		p.turns = &turns{all: all}
		p.push([]byte{22}, from)
		p.push([]byte{22}, from)
		work.Go(func() {
			var b [16]byte
			for {
				if _, _, err := p.ReadFrom(b[:]); err != nil {
					return
				}
				switch i % 3 {
				case 0:
					p.turns.end()
				case 1:
					return // a handshake that fails reads no more
				}
			}
		})
		work.Go(func() { _ = p.Close() })
	}
	done := make(chan struct{})
	go func() { defer close(done); work.Wait() }()
	await(t, done, "the end of all sessions")
	select {
	case all <- struct{}{}:
	case <-time.After(time.Second):
		t.Error("a turn was not given back")
	}
}
