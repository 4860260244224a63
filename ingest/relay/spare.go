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

// unseen reports whether viewers could go on with a picture that begins with that burst.
func (s *session) unseen(b *media.Burst) bool { return b.Arrived > s.seen.Load()-seenTwice }

// give hands a burst to the hub, or keeps it. It takes the reference; false: the rest of the GOP is not wanted.
func (l *lane) give(b *media.Burst, now time.Time) bool {
	up := l.up
	l.feed.Lock()
	defer l.feed.Unlock()
	if l.pub != nil && l.video && !l.begun.Load() && b.Arrived+seenTwice <= up.after {
		// Viewers have seen this GOP, from the node before. Showing it again would put them behind. A little of it does not: a publisher who
		// moves sends both ways for a moment.
		b.Release()
		l.begun.Store(true)
		l.wantKey()
		return false
	}
	l.begun.Store(true)
	l.pace.beat(now)
	up.heard(now)
	if l.pub == nil {
		l.hold(b)
		return true
	}
	l.write(b)
	return true
}

func (l *lane) write(b *media.Burst) {
	l.up.session.show(b, l.video)
	l.pub.Write(b)
}

// show notes what viewers have seen.
func (s *session) show(b *media.Burst, video bool) {
	if video && b.Arrived > s.seen.Load() {
		s.seen.Store(b.Arrived)
	}
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

// retire begins to keep what comes.
func (l *lane) retire() {
	l.feed.Lock()
	defer l.feed.Unlock()
	l.pub = nil
}

// fresh reports whether the picture that was kept begins where that of the hub ends. The lock is held.
func (l *lane) fresh() bool {
	return len(l.held) > 0 && l.up.session.unseen(l.held[0])
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
	lanes, wanted := up.sent()
	picture := false
	for i, l := range lanes {
		if wanted>>i&1 == 0 || !l.video {
			continue
		}
		l.feed.Lock()
		fresh := l.fresh()
		l.feed.Unlock()
		if !fresh {
			return false
		}
		picture = true
	}
	return picture || wanted == 0 || up.came.Load()
}

// sent are the lanes, and which of them the node was told to send.
func (up *upstream) sent() ([]*lane, uint32) {
	up.mu.Lock()
	defer up.mu.Unlock()
	return up.lanes, up.wanted
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

// late reports whether a track that flowed does no more.
func (up *upstream) late(now time.Time, after time.Duration) bool {
	up.mu.Lock()
	lanes, wanted, since := up.lanes, up.wanted, up.since
	up.mu.Unlock()
	for i, l := range lanes {
		if wanted>>i&1 == 0 {
			continue
		}
		l.feed.Lock()
		late := l.pace.last.After(since[i]) && l.pace.late(now, after)
		l.feed.Unlock()
		if late {
			return true
		}
	}
	return false
}

// pace is how regularly the bursts of a track come.
type pace struct {
	last time.Time
	gap  time.Duration // the longest lately
}

// lateAfter: a track without a burst for so long, or for twice its longest gap of lately, has fallen silent.
const lateAfter = 300 * time.Millisecond

func (p *pace) beat(now time.Time) {
	if !p.last.IsZero() {
		p.gap = max(now.Sub(p.last), p.gap-p.gap/16)
	}
	p.last = now
}

func (p *pace) late(now time.Time, after time.Duration) bool {
	return !p.last.IsZero() && now.Sub(p.last) > max(after, 2*min(p.gap, silence))
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
