package relay

import (
	"context"
	"sync"
	"time"
)

// Strangers make work: a handshake each, and a look-up. After maxLookups in vain within a second, keys that this node has
// not seen in the cluster are refused unasked for the rest of it, and addresses are verified first (RFC 9000 §8.1.2).
// Who has been seen is let in however many strangers there are.
const (
	maxLookups = 20
	askWithin  = time.Second
)

// gate decides which keys are let in.
type gate struct {
	seen  func(key string) bool
	known func(ctx context.Context, key string) bool

	mu      sync.Mutex
	second  time.Time // when the count began
	lookups int       // in vain, or under way
}

// admit is asked in the TLS handshake.
func (g *gate) admit(ctx context.Context, key string) bool {
	if g.seen(key) {
		return true
	}
	g.mu.Lock()
	shut := g.closedLocked()
	if !shut {
		g.lookups++
	}
	g.mu.Unlock()
	if shut {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	if !g.known(ctx, key) {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lookups = max(0, g.lookups-1) // it may have begun in another second
	return true
}

func (g *gate) closed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closedLocked()
}

func (g *gate) closedLocked() bool {
	if now := time.Now(); now.Sub(g.second) >= time.Second {
		g.second, g.lookups = now, 0
	}
	return g.lookups >= maxLookups
}
