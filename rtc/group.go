package rtc

import (
	"slices"
	"sync/atomic"
	"time"

	"sluice/media"
)

// Group is a stream's way to all its viewers on this node. What is sent to it is taken once by each shard that has some of them.
// A viewer gets one rendition of the picture at a time, see Take.
type Group struct {
	endpoint *Endpoint
	tracks   []media.Track
	adaptive bool
	delays   bool    // players are told how long they may keep the picture back
	playout  uint32  // of the header extension, see packetHeader
	picture  int     // which of them is video; -1: none
	lanes    []*lane // by shard
}

// NewGroup makes a group for a stream's tracks, of which at most one is video. Bursts of tracks beyond them are of further renditions of that one:
// of the same codec, with the same clock. Adaptive means that there will be some: then viewers are asked to tell when packets arrive, which costs
// ten packets a second for each but lets the path be measured; their own estimate, if they make one, costs one.
func (e *Endpoint) NewGroup(tracks []media.Track, adaptive bool) *Group {
	g := &Group{endpoint: e, tracks: tracks, adaptive: adaptive, picture: slices.IndexFunc(tracks, func(t media.Track) bool { return t.Kind == media.Video })}
	for range e.shards {
		l := &lane{late: &e.counts.loopLate}
		for i := range l.tracks {
			l.tracks[i].video = g.picture >= 0 && (i == g.picture || i >= len(tracks))
		}
		g.lanes = append(g.lanes, l)
	}
	return g
}

// SetPlayout says how long players of the picture may keep it back at most to even out its coming, up to 40.95 s; nil: as long as they like. It is
// called before the first viewer is described.
func (g *Group) SetPlayout(most *time.Duration) {
	if g.delays = most != nil; g.delays { // the least is 0
		g.playout = uint32(min(max(*most, 0), mostPlayout) / (10 * time.Millisecond))
	}
}

// codec is that of the picture; "": there is none.
func (g *Group) codec() string {
	if g.picture < 0 {
		return ""
	}
	return g.tracks[g.picture].Codec.Name
}

// out is the index of the track, on its way to a viewer, of which a burst may be a part; -1: none.
func (g *Group) out(b *media.Burst) int {
	if b.Track < len(g.tracks) {
		return b.Track
	}
	return g.picture
}

// Tracks are those of the stream.
func (g *Group) Tracks() []media.Track { return g.tracks }

// Send gives a burst to all viewers that have joined. It never blocks; the burst is retained as long as needed.
func (g *Group) Send(b *media.Burst) {
	for i, l := range g.lanes {
		if l.joined.Load() > 0 {
			g.endpoint.shards[i].post(task{lane: l, burst: b.Retain()})
		}
	}
}

// Join begins the media for a viewer of the group that is connected: first what is cached, then what is sent to the group from now
// on. Of the picture it gets the rendition of which something is cached, which must be one. Timestamps of the past are moved together to end at the newest: a player shows the first picture at once and runs to the
// present instead of playing the past at its own speed.
func (g *Group) Join(v *Sender, cached []*media.Burst) {
	sh := v.home()
	if sh == nil {
		return
	}
	l := g.lanes[sh.index]
	l.joined.Add(1)
	items := past(cached, 0)
	sh.post(task{call: func(sh *shard) { l.join(sh, v, items) }})
}

// item is a burst that waits for one viewer, with the timestamp it gets and the first packet that was not sent.
type item struct {
	burst     *media.Burst
	timestamp uint32
	shift     uint16    // out = in + shift, when it was put here
	at        time.Time // and when that was
	next      int
}

// stampsApart are the units of the clock between two pictures of the past: a millisecond of video.
const stampsApart = 90

// past retains cached bursts and moves their timestamps together: each frame gets the next one, whatever the order in which its packets
// came. They begin behind after, where that is not 0, if there is room.
func past(bursts []*media.Burst, after uint32) []item {
	var stamps []uint32
	for _, b := range bursts {
		if len(stamps) == 0 || stamps[len(stamps)-1] != b.Timestamp {
			stamps = append(stamps, b.Timestamp)
		}
	}
	slices.SortFunc(stamps, func(a, b uint32) int { return int(int32(a - b)) })
	stamps = slices.Compact(stamps)
	apart := stampsApart
	if n := len(stamps); after != 0 && n > 0 {
		apart = max(1, min(apart, int(int32(stamps[n-1]-after))/n))
	}
	items := make([]item, 0, len(bursts))
	for _, b := range bursts {
		at, _ := slices.BinarySearchFunc(stamps, b.Timestamp, func(a, b uint32) int { return int(int32(a - b)) })
		items = append(items, item{burst: b.Retain(), timestamp: stamps[len(stamps)-1] - uint32((len(stamps)-1-at)*apart)})
	}
	return items
}

// lane is a group's viewers on one shard.
type lane struct {
	joined atomic.Int32          // viewers, those that are about to join included
	cut    [media.MaxTracks]bool // by track: video is dropped until a key frame; under the shard's mu
	late   *atomic.Uint64        // counts how often that began

	// The loop's.
	viewers []*Sender
	fresh   []*Sender // those of them that have not got a key frame yet; see SenderOptions.OnFirst
	tracks  [media.MaxTracks]laneTrack
}

// laneTrack is what all viewers of a track have in common.
type laneTrack struct {
	video    bool
	begun    bool
	shift    uint16 // out = in + shift
	joint    uint16 // in: what is before it had another shift
	last     uint16 // out: highest sent
	stamp    uint32 // timestamp of the newest burst
	captured int64  // and its wall clock
	nack     bool   // some viewer may ask for what is missing
	ring     *ring
	latest   *media.Burst // of sound: the last packet, for redundancy
}

// fitsLocked decides whether a burst may wait for the loop, which is full or not, and whether it is the first after some that
// might not; the shard's mu is held.
func (l *lane) fitsLocked(b *media.Burst, full bool) (fits, resync bool) {
	if b.Track >= len(l.cut) {
		return false, false
	}
	switch {
	case full:
		if !l.cut[b.Track] {
			l.late.Add(1)
		}
		l.cut[b.Track] = true
	case l.cut[b.Track] && (b.Key || !l.tracks[b.Track].video): // sound goes on anywhere
		l.cut[b.Track] = false
		return true, true
	}
	return !l.cut[b.Track], false
}

// send is the loop's main work: one burst to every viewer.
func (l *lane) send(sh *shard, b *media.Burst, resync bool) {
	if len(l.viewers) == 0 {
		return
	}
	t := &l.tracks[b.Track]
	if !t.number(b, resync, sh.now) {
		return
	}
	sh.runs = cutRuns(sh.runs[:0], b.Packets)
	for _, v := range l.viewers {
		v.send(sh, t, b)
	}
	if len(l.fresh) > 0 {
		l.fresh = slices.DeleteFunc(l.fresh, func(v *Sender) bool {
			i := v.group.out(b)
			return v.got(b.Key && i >= 0 && v.tracks[i].joint.source == b.Track, i)
		})
	}
	t.remember(b)
}

// number keeps a burst for retransmission; with resync its numbers follow those before, although some are missing. It reports
// false for one from before such a joint, whose numbers others have.
func (t *laneTrack) number(b *media.Burst, resync bool, now time.Time) bool {
	first := b.Packets[0].Seq
	switch {
	case !t.begun:
		t.begun, t.last, t.joint = true, first-1, first-1<<14
	case resync:
		t.shift, t.joint = t.last+1-first, first
	case t.before(b):
		return false
	}
	if int16(first-t.joint) > 1<<14 {
		t.joint = first - 1<<14 // it must stay comparable
	}
	t.stamp, t.captured = b.Timestamp, b.Captured
	for i := range b.Packets {
		t.keep(b, i, now)
	}
	return true
}

// before reports whether something of a burst is from before the joint.
func (t *laneTrack) before(b *media.Burst) bool {
	for i := range b.Packets {
		if int16(b.Packets[i].Seq-t.joint) < 0 {
			return true
		}
	}
	return false
}

// keep notes a packet as sent. Those of video are kept for retransmission, and those of sound if a viewer asks for it: to most it would come too late.
func (t *laneTrack) keep(b *media.Burst, i int, now time.Time) {
	out := b.Packets[i].Seq + t.shift
	if (t.video || t.nack) && int16(t.last-out) < ringSize {
		if t.ring == nil {
			t.ring = &ring{oldest: out}
		}
		t.ring.add(out, b, i, now)
	}
	if int16(out-t.last) > 0 {
		t.last = out
	}
}

func (l *lane) join(sh *shard, v *Sender, items []item) {
	if v.gone {
		l.joined.Add(-1)
		releaseItems(items)
		return
	}
	v.lane = l
	l.viewers = append(l.viewers, v)
	v.keyFirst = len(items) > 0 && items[0].burst.Key
	for i := range v.tracks {
		l.tracks[i].nack = l.tracks[i].nack || v.tracks[i].nack
	}
	v.joined(sh, items)
	if v.onFirst != nil && !v.got(v.keyFirst, max(v.group.picture, 0)) {
		l.fresh = append(l.fresh, v)
	}
}

// got tells of the first packet that a peer is sent, and of the first key frame; true: there is nothing more to tell. It is called when something of
// a track may have been sent, which is the begin of a key frame or not.
func (v *Sender) got(key bool, track int) bool {
	if v.gone || track < 0 || v.tracks[track].packets == 0 {
		return v.gone
	}
	if !v.started {
		v.started = true
		v.onFirst(false)
	}
	if key = key || v.keyFirst && track == v.group.picture; key {
		v.onFirst(true)
	}
	picture := v.group.picture
	return key || picture < 0 || !v.tracks[picture].wanted
}

func (l *lane) leave(v *Sender) {
	for i, have := range l.viewers {
		if have == v {
			last := len(l.viewers) - 1
			l.viewers[i], l.viewers[last] = l.viewers[last], nil
			l.viewers = l.viewers[:last]
			l.joined.Add(-1)
			break
		}
	}
	if len(l.viewers) == 0 { // who comes next begins anew: nothing was numbered meanwhile, so nothing before can be compared
		l.fresh = nil
		for i := range l.tracks {
			t := &l.tracks[i]
			if t.ring != nil {
				t.ring.reset()
			}
			if t.latest != nil {
				t.latest.Release()
			}
			*t = laneTrack{video: t.video}
		}
	}
}

func releaseItems(items []item) {
	for i := range items {
		items[i].burst.Release()
		items[i] = item{}
	}
}

// ring keeps the packets sent last, so that any viewer of the lane can have one again (RFC 4585 §6.2.1).
type ring struct {
	packets [ringSize]kept
	oldest  uint16 // before it nothing is kept but what came late
}

const (
	ringSize = 1024            // packets that are kept at most
	ringAge  = 2 * time.Second // and how long
)

type kept struct {
	burst *media.Burst // nil: nothing
	index int32
	seq   uint16 // out
	at    int64  // Unix nanoseconds
}

func (r *ring) add(seq uint16, b *media.Burst, index int, now time.Time) {
	if have := &r.packets[seq%ringSize]; have.burst != nil && have.seq == seq {
		return // the first is what viewers have got
	}
	r.put(seq, kept{b.Retain(), int32(index), seq, now.UnixNano()})
	ahead := int16(seq - r.oldest)
	if ahead >= ringSize {
		r.oldest = seq - ringSize + 1
	}
	for ; ahead > 0 && r.oldest != seq; r.oldest++ {
		k := &r.packets[r.oldest%ringSize]
		if k.burst != nil && k.seq == r.oldest && now.UnixNano()-k.at <= int64(ringAge) {
			break
		}
		if k.seq == r.oldest {
			r.put(r.oldest, kept{})
		}
	}
}

func (r *ring) put(seq uint16, k kept) {
	place := &r.packets[seq%ringSize]
	if place.burst != nil {
		place.burst.Release()
	}
	*place = k
}

func (r *ring) get(seq uint16) (*media.Burst, int) {
	k := &r.packets[seq%ringSize]
	if k.burst == nil || k.seq != seq {
		return nil, 0
	}
	return k.burst, int(k.index)
}

func (r *ring) reset() {
	for i := range r.packets {
		r.put(uint16(i), kept{})
	}
}
