package ladder

import "time"

const (
	// takesEffect is how long the node's load needs to show what was changed: it is a mean over some seconds.
	takesEffect = 5 * time.Second
	// roomy is the share of the most that the node may use below which there is room for one more rendition.
	roomy = 0.75
	// There must have been room for shortRoom; twice as long each time that it was too much within relapse, up to longRoom.
	shortRoom = 15 * time.Second
	longRoom  = 10 * time.Minute
	relapse   = time.Minute
)

// governor decides by the node's load when fewer renditions are made, and when more again.
type governor struct {
	most     float64       // of the processors, 0 to 1
	settle   time.Duration // takesEffect
	short    time.Duration // shortRoom
	patience time.Duration
	changed  time.Time // when fewer or more were last made
	more     time.Time // when more were
	room     time.Time // since when there is room; zero: there is none
}

// step is how many more renditions should be made on this node: -1, 0 or 1; or 0 where that can't be.
func (g *governor) step(now time.Time, busy float64, canLess, canMore bool) int {
	if busy > g.most*roomy {
		g.room = time.Time{}
	} else if g.room.IsZero() {
		g.room = now
	}
	switch {
	case now.Sub(g.changed) < g.settle:
		return 0
	case busy > g.most && canLess:
		g.fewer(now)
		return -1
	case canMore && !g.room.IsZero() && now.Sub(g.room) >= max(g.patience, g.short):
		g.changed, g.more, g.room = now, now, now
		return 1
	}
	return 0
}

// fewer notes that fewer are made now.
func (g *governor) fewer(now time.Time) {
	switch since := now.Sub(g.more); {
	case since < relapse:
		g.patience = min(2*max(g.patience, g.short), longRoom)
	case since > longRoom:
		g.patience = g.short
	}
	g.changed, g.room = now, time.Time{}
}
