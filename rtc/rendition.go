package rtc

import (
	"encoding/binary"
	"slices"

	"sluice/codec"
	"sluice/media"
)

// joint is where a track on its way to a peer went over to another rendition of the picture: numbers and timestamps go on without a gap.
type joint struct {
	index  uint64        // of the first packet after it
	source int           // the stream's track that is sent from here on
	seq    uint16        // out = the lane's + seq
	stamp  uint32        // and the same for timestamps
	pics   codec.Numbers // and for those of pictures
	hasty  bool          // the path was full: what is missing of the rendition before is not sent again
}

// How says how a viewer goes over to another rendition.
type How int

const (
	Seamless How = iota // at its next key frame
	AtOnce              // with what is cached of it; what is missing of the one before is not sent again
	Paused              // at its next key frame, and nothing of the one before is sent until then
)

// String names it.
func (h How) String() string { return [...]string{"seamless", "at once", "paused"}[h] }

// Take changes the rendition of the picture that a viewer gets to another track of the stream. The last call counts. Sender.Rendition says when
// it has happened. What is cached must be told under the same lock as what is sent to the group afterwards.
func (g *Group) Take(v *Sender, track int, how How, cached []*media.Burst) {
	sh := v.home()
	if sh == nil || track >= media.MaxTracks || g.picture < 0 || track < len(g.tracks) && track != g.picture {
		return
	}
	cached = slices.DeleteFunc(slices.Clone(cached), func(b *media.Burst) bool { return b.Track != track })
	for _, b := range cached {
		b.Retain()
	}
	sh.post(task{call: func(sh *shard) { v.take(sh, track, how, cached) }})
}

// Rendition is the track of which the viewer gets the picture.
func (v *Sender) Rendition() int { return int(v.picture.Load()) }

// take is Take in the shard's loop; the bursts' references are its own.
func (v *Sender) take(sh *shard, track int, how How, cached []*media.Burst) {
	release := func() {
		for _, b := range cached {
			b.Release()
		}
	}
	if v.gone || v.lane == nil {
		release()
		return
	}
	out := &v.tracks[v.group.picture]
	out.next = track
	if out.off { // resume will find it
		release()
		return
	}
	out.paused = false
	if track == out.joint.source || !out.begun || !out.wanted {
		release()
		return
	}
	if how == Paused {
		v.drop(out)
		out.paused = true
	}
	if how != AtOnce {
		release()
		return
	}
	v.change(sh, out, cached)
}

// change begins with what is cached of the rendition that is to come next, if that can be. The bursts' references are its own.
func (v *Sender) change(sh *shard, out *outTrack, cached []*media.Burst) {
	defer func() {
		for _, b := range cached {
			b.Release()
		}
	}()
	if len(cached) == 0 || v.lane == nil {
		return
	}
	items := v.begin(sh, past(cached, out.stamp))
	for len(items) > 0 && items[0].next == len(items[0].burst.Packets) { // others have got other packets under these numbers
		releaseItems(items[:1])
		items = items[1:]
	}
	if len(items) == 0 || !items[0].burst.Key {
		releaseItems(items)
		return // at the next key frame, then
	}
	first := &items[0]
	out.paused = true
	v.goOver(out, first.burst, first.shift, first.timestamp)
	v.waiting = append(v.waiting, items...)
	sh.fallBehind(v)
}

// picks decides whether a burst is of what the peer gets; at the key frame of a rendition that it is to get, it goes over to that one.
func (v *Sender) picks(out *outTrack, t *laneTrack, b *media.Burst) bool {
	if b.Track == out.joint.source && (!out.paused || b.Track != out.next) {
		return !out.paused
	}
	if b.Track != out.next || t.video && !b.Key {
		return false
	}
	v.goOver(out, b, t.shift, b.Timestamp)
	return true
}

// drop forgets what waits of a track.
func (v *Sender) drop(out *outTrack) {
	kept := v.waiting[:0]
	for _, it := range v.waiting {
		if it.burst.Track == out.joint.source {
			it.burst.Release()
		} else {
			kept = append(kept, it)
		}
	}
	clear(v.waiting[len(kept):])
	v.waiting = kept
}

// goOver continues a track with another rendition, whose first burst is given, with the shift of its numbers and its timestamp. What waits of the one before is dropped.
func (v *Sender) goOver(out *outTrack, b *media.Burst, shift uint16, timestamp uint32) {
	v.drop(out)
	was := out.joint
	out.next, out.joint = b.Track, joint{source: b.Track, hasty: out.paused}
	out.paused = false
	if v.group.picture >= 0 && out == &v.tracks[v.group.picture] {
		v.cut = false
		v.picture.Store(int32(b.Track))
	}
	if !out.begun {
		return
	}
	out.before = append(out.before, was)
	out.joint.index = out.sent.top + 1
	out.joint.seq = uint16(out.joint.index) - b.Packets[0].Seq - shift
	out.joint.pics = v.follow(out, was, b)
	if ahead := int32(timestamp - out.stamp); ahead <= 0 { // it was captured a little before what has been shown
		out.joint.stamp = uint32(stampsApart - ahead)
	}
}

// follow is by how much the numbers of pictures of what begins with a burst are shifted so that they follow those that were sent.
func (v *Sender) follow(out *outTrack, was joint, b *media.Burst) codec.Numbers {
	if v.group.picture < 0 || out != &v.tracks[v.group.picture] {
		return codec.Numbers{}
	}
	first, ok := v.group.numbers(&b.Packets[0])
	if !ok {
		return codec.Numbers{}
	}
	before := &v.lane.tracks[was.source]
	if before.ring == nil {
		return was.pics
	}
	sent, i := before.ring.get(uint16(out.sent.top) - was.seq)
	if sent == nil { // it is so long ago that others have got more since: what follows that follows this too
		sent, i = before.ring.get(before.last)
	}
	if sent == nil {
		return was.pics
	}
	last, ok := v.group.numbers(&sent.Packets[i])
	if !ok {
		return was.pics
	}
	return first.Until(last.Plus(was.pics))
}

// numbers are those of a packet of the picture: its descriptor's frame number, or what its payload has.
func (g *Group) numbers(p *media.Packet) (codec.Numbers, bool) {
	if len(p.Descriptor) >= 3 {
		return codec.Numbers{Picture: binary.BigEndian.Uint16(p.Descriptor[1:])}, true
	}
	return codec.ReadNumbers(g.codec(), p.Payload)
}

// renumber makes the head of a payload anew, if a player must see other numbers in it than its publisher wrote; it returns what to send, which is valid until the next call.
func (g *Group) renumber(sh *shard, payload []byte, pics codec.Numbers) (head, rest []byte) {
	n := codec.Renumber(sh.head[:], g.codec(), payload, pics)
	return sh.head[:n], payload[n:]
}

// jointOf is the part of a track of which a packet was.
func (t *outTrack) jointOf(index uint64) joint {
	if index >= t.joint.index {
		return t.joint
	}
	for i := len(t.before) - 1; i >= 0; i-- {
		if index >= t.before[i].index {
			return t.before[i]
		}
	}
	return t.joint
}

// forgetJoints drops those whose packets can't be asked for any more.
func (t *outTrack) forgetJoints() {
	for len(t.before) > 0 {
		end := t.joint.index // of the oldest
		if len(t.before) > 1 {
			end = t.before[1].index
		}
		if t.sent.top-min(end, t.sent.top) < ringSize {
			return
		}
		t.before = t.before[1:]
	}
	t.before = nil
}
