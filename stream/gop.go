package stream

import (
	"time"

	"sluice/media"
)

// What a GOP cache holds at most. A publisher that sends no key frame for longer has its cache dropped,
// and new subscribers wait for the next key frame.
const (
	gopBytes  = 12 << 20
	gopBursts = 4096
)

// gop keeps the bursts of a video track since the last key frame.
type gop struct {
	bursts []*media.Burst
	size   int
	since  time.Time // when the last key frame came, or the first burst
}

// continues reports whether a burst that looks like the start of a key frame is another part of the one that began the cache.
func (g *gop) continues(b *media.Burst) bool {
	return len(g.bursts) > 0 && g.bursts[0].Timestamp == b.Timestamp
}

// add keeps a burst; one with Key set begins anew.
func (g *gop) add(b *media.Burst) {
	if g.since.IsZero() {
		g.since = time.Now()
	}
	switch {
	case b.Key:
		g.reset()
		g.since = time.Now()
	case len(g.bursts) == 0:
		return // nothing to add to
	case g.size+b.Size() > gopBytes || len(g.bursts) >= gopBursts:
		since := g.since
		g.reset()
		g.since = since
		return
	}
	g.bursts = append(g.bursts, b.Retain())
	g.size += b.Size()
}

// reset lets go of everything.
func (g *gop) reset() {
	for _, b := range g.bursts {
		b.Release()
	}
	clear(g.bursts)
	*g = gop{bursts: g.bursts[:0]}
}
