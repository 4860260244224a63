package relay

import (
	"context"
	"sync"
	"time"
)

// Strangers make work: a handshake each, and perhaps a look-up. After maxRefused of them within a
// second, new keys are refused unasked for the rest of it, and addresses are verified first (RFC 9000 §8.1.2). Nodes
// that were let in before are not affected.
const (
	maxRefused  = 20
	askWithin   = time.Second
	maxAdmitted = 4096
)

// gate decides which keys are let in.
type gate struct {
	known func(ctx context.Context, key string) bool

	mu       sync.Mutex
	second   time.Time // when the count began
	refused  int
	admitted map[string]struct{}
}

// admit is asked in the TLS handshake.
func (g *gate) admit(ctx context.Context, key string) bool {
	g.mu.Lock()
	_, before := g.admitted[key]
	shut := g.closedLocked()
	g.mu.Unlock()
	if shut && !before {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	ok := g.known(ctx, key)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !ok:
		delete(g.admitted, key)
		g.refused++
	case g.admitted == nil || len(g.admitted) >= maxAdmitted: // many restarts: begin anew
		g.admitted = map[string]struct{}{key: {}}
	default:
		g.admitted[key] = struct{}{}
	}
	return ok
}

func (g *gate) closed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closedLocked()
}

func (g *gate) closedLocked() bool {
	if now := time.Now(); now.Sub(g.second) >= time.Second {
		g.second, g.refused = now, 0
	}
	return g.refused >= maxRefused
}
