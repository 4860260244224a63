package rtc

import "sluice/media"

// clocks tie the tracks' timestamps to the peer's wall clock, as its sender reports say (RFC 3550 §6.4.1). Until every track
// has had one, the time of arrival stands for all of them, so that they never differ by the offset of
// the two machines' clocks.
type clocks struct {
	known int
	ties  []tie
}

type tie struct {
	rate      int64
	set       bool
	timestamp uint32
	wall      int64 // Unix nanoseconds
}

func newClocks(tracks []media.Track) clocks {
	c := clocks{ties: make([]tie, len(tracks))}
	for i, t := range tracks {
		c.ties[i].rate = int64(t.Codec.ClockRate)
	}
	return c
}

func (c *clocks) set(track int, timestamp uint32, wall int64) {
	t := &c.ties[track]
	if !t.set {
		t.set = true
		c.known++
	}
	t.timestamp, t.wall = timestamp, wall
}

// captured is the wall clock of a timestamp, or arrived while that isn't known.
func (c *clocks) captured(track int, timestamp uint32, arrived int64) int64 {
	t := &c.ties[track]
	if c.known < len(c.ties) || t.rate == 0 {
		return arrived
	}
	return t.wall + int64(int32(timestamp-t.timestamp))*1e9/t.rate
}
