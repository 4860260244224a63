package relay

import (
	"time"

	"sluice/media"
	wire "sluice/relay"
	"sluice/stream"
)

// What a lane keeps of a picture while its upstream does not publish, at most. More is dropped up to the next key frame.
const (
	heldBursts = 4096
	heldBytes  = 12 << 20
)

// seenTwice is how much of a picture that viewers have seen already may be shown again when another upstream takes over: the
// difference between two ways.
const seenTwice = int64(100 * time.Millisecond)

// give hands a burst to the hub, or keeps it. It takes the reference; false: the rest of the GOP is not wanted.
func (l *lane) give(b *media.Burst, now time.Time) bool {
	up := l.up
	l.feed.Lock()
	defer l.feed.Unlock()
	if l.pub != nil && l.video && !l.begun.Load() && b.Arrived <= up.after {
		// Viewers have seen this GOP, from the node before. Showing it again would put them behind.
		b.Release()
		l.begun.Store(true)
		l.wantKey()
		return false
	}
	l.begun.Store(true)
	up.heard(now)
	if l.pub == nil {
		l.hold(b)
		return true
	}
	l.write(b)
	return true
}

func (l *lane) write(b *media.Burst) {
	if s := l.up.session; l.video && b.Arrived > s.seen.Load() {
		s.seen.Store(b.Arrived)
	}
	l.pub.Write(b)
}

func (l *lane) wantKey() { l.up.out.Put(wire.KeyFrameRequest{Track: l.track}) }

// hold keeps a burst of the picture; sound is not waited for. The lock is held.
func (l *lane) hold(b *media.Burst) {
	if !l.video || !b.Key && len(l.held) == 0 {
		b.Release()
		return
	}
	if b.Key && (len(l.held) == 0 || l.held[0].Timestamp != b.Timestamp) {
		l.releaseHeld()
	}
	l.held = append(l.held, b)
	if l.size += b.Size(); l.size > heldBytes || len(l.held) > heldBursts {
		l.releaseHeld()
		return
	}
	if b.Key {
		select {
		case l.up.session.ready <- struct{}{}:
		default:
		}
	}
}

// skip says that something is missing before what comes next.
func (l *lane) skip() {
	l.feed.Lock()
	defer l.feed.Unlock()
	if l.pub == nil {
		l.releaseHeld()
		return
	}
	l.pub.Discontinuity(l.track)
}

// open begins to publish, with what was kept unless viewers have seen it.
func (l *lane) open(pub *stream.Publisher) {
	l.feed.Lock()
	defer l.feed.Unlock()
	l.pub = pub
	switch {
	case l.fresh():
		for _, b := range l.held {
			l.write(b)
		}
		l.held, l.size = nil, 0
	case len(l.held) > 0:
		l.releaseHeld()
		l.wantKey()
	}
}

// fresh reports whether the picture that was kept begins where that of the hub ends. The lock is held.
func (l *lane) fresh() bool {
	return len(l.held) > 0 && l.held[0].Arrived > l.up.session.seen.Load()-seenTwice
}

func (l *lane) release() {
	l.feed.Lock()
	defer l.feed.Unlock()
	l.releaseHeld()
}

func (l *lane) releaseHeld() {
	for _, b := range l.held {
		b.Release()
	}
	l.held, l.size = nil, 0
}

// primed reports whether viewers could go on with this upstream at once.
func (up *upstream) primed() bool {
	up.mu.Lock()
	lanes := up.lanes
	up.mu.Unlock()
	picture := false
	for _, l := range lanes {
		l.feed.Lock()
		fresh := l.fresh()
		l.feed.Unlock()
		if l.video && !fresh {
			return false
		}
		picture = picture || l.video
	}
	return picture || up.came.Load()
}

// refresh asks for a key frame of each picture: the cached one, which comes first, is most likely one that viewers have seen.
func (up *upstream) refresh() {
	up.mu.Lock()
	lanes := up.lanes
	up.mu.Unlock()
	for _, l := range lanes {
		if l.video {
			l.wantKey()
		}
	}
}

// silent is for how long nothing came.
func (up *upstream) silent(now time.Time) time.Duration {
	return now.Sub(time.Unix(0, up.last.Load()))
}

// quiet reports whether something is late.
func (up *upstream) quiet(now time.Time) bool { return up.silent(now) > quietFor }

// dead reports whether the node gives no sign of life. While it is quiet it is asked for one each time.
func (up *upstream) dead(now time.Time) bool {
	if !up.quiet(now) {
		up.alive = time.Time{}
		return false
	}
	up.out.Put(wire.Ping{})
	stats := up.peer.conn.ConnectionStats()
	switch {
	case up.alive.IsZero():
		up.packets, up.alive = stats.PacketsReceived, time.Unix(0, up.last.Load())
	case stats.PacketsReceived != up.packets:
		up.packets, up.alive = stats.PacketsReceived, now
	}
	return now.Sub(up.alive) > max(deadAfter, 2*stats.SmoothedRTT)
}
