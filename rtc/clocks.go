package rtc

import "sluice/media"

// clocks tie the tracks' timestamps to the peer's wall clock, as its sender reports say (RFC 3550 §6.4.1). Until picture and
// sound have had one, the time of arrival stands for all of them, so that they never differ by the offset of
// the two machines' clocks.
type clocks struct {
	unknown map[media.Kind]bool // of no track of that kind
	ties    []tie
}

type tie struct {
	kind      media.Kind
	rate      int64
	set       bool
	timestamp uint32
	wall      int64 // Unix nanoseconds
}

func newClocks(tracks []media.Track) clocks {
	c := clocks{ties: make([]tie, len(tracks)), unknown: map[media.Kind]bool{}}
	for i, t := range tracks {
		c.ties[i].kind, c.ties[i].rate = t.Kind, int64(t.Codec.ClockRate)
		c.unknown[t.Kind] = true
	}
	return c
}

func (c *clocks) set(track int, timestamp uint32, wall int64) {
	t := &c.ties[track]
	t.set = true
	delete(c.unknown, t.kind)
	t.timestamp, t.wall = timestamp, wall
}

// captured is the wall clock of a timestamp, or arrived while that isn't known.
func (c *clocks) captured(track int, timestamp uint32, arrived int64) int64 {
	t := &c.ties[track]
	if len(c.unknown) > 0 || !t.set || t.rate == 0 {
		return arrived
	}
	return t.wall + int64(int32(timestamp-t.timestamp))*1e9/t.rate
}
