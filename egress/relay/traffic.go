package relay

import (
	"sync"

	"github.com/quic-go/quic-go"
)

// traffic knows what was sent. The connections count it themselves; nothing is done per packet.
type traffic struct {
	mu    sync.Mutex
	conns map[*quic.Conn]struct{}
	past  uint64 // by connections that have ended
}

// track counts a connection until it has ended.
func (t *traffic) track(c *quic.Conn) (ended func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns == nil {
		t.conns = map[*quic.Conn]struct{}{}
	}
	t.conns[c] = struct{}{}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.conns, c)
		t.past += c.ConnectionStats().BytesSent
	}
}

// Sent is the number of bytes sent to other nodes, with what was sent again, without headers of UDP.
func (r *Relay) Sent() uint64 {
	r.traffic.mu.Lock()
	defer r.traffic.mu.Unlock()
	sum := r.traffic.past
	for c := range r.traffic.conns {
		sum += c.ConnectionStats().BytesSent
	}
	return sum
}
