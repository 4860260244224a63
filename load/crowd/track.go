package crowd

import (
	"encoding/binary"
	"slices"
	"time"

	"sluice/codec"
)

// A missing packet is waited for as long as a retransmission may take; then it is lost, as in a player.
const (
	maxMissing = 250 * time.Millisecond
	nackAfter  = 10 * time.Millisecond // of a hole's age: packets that overtake each other are no loss
	nackEvery  = 40 * time.Millisecond
	maxHeld    = 1024 // packets behind a hole; more, and what is missing longest is lost
	maxDropout = 3000 // a larger jump is a new numbering (RFC 3550 appendix A.1)
)

// unit is what is kept of a packet.
type unit struct {
	ext    uint32 // number with its roll-overs
	ts     uint32
	at     int64 // arrival, Unix nanoseconds
	stamp  int64 // of the frame, 0: none was found
	marker bool
	key    bool // it begins a key frame
	begins bool // it is known to begin a frame
}

// hole is a packet that is missing.
type hole struct {
	ext   uint32
	since int64 // Unix nanoseconds
	asked int64
}

// track is one track as it arrives. It puts packets in order by their clear headers and decrypts the beginning of
// those that may begin a frame. It belongs to its session's loop.
type track struct {
	viewer *viewer
	format format
	pt     uint8
	ssrc   uint32

	started   bool
	base, top uint32 // first and highest number
	next      uint32 // that is due
	received  uint32 // under their own number
	holes     []hole
	held      []unit // behind a hole, in order
	againTop  uint32 // highest number of repairs
	againSet  bool

	clockRTP      uint32 // a moment of the sender's clock,
	clockWall     int64  // in Unix nanoseconds; 0: no sender report came
	report        uint32 // middle bits of its NTP time
	reported      int64  // when it came
	jitter        uint32 // RFC 3550 §6.4.1, in timestamp units, with 4 more bits
	transit       uint32
	before, extra uint32 // at the last receiver report: expected, received

	frame  frameState
	shown  bool // there was a frame before this one, with this numbering
	fresh  bool // the next packet in order begins a frame
	gap    bool // packets before it are lost
	broken bool // the decoder can't go on without a key frame
}

// frameState is the frame that is being put together.
type frameState struct {
	open, broken, key bool
	ts                uint32
	stamp, at         int64
}

// packet takes a packet of the track's own numbering.
func (t *track) packet(b []byte, at int64) {
	payload, ok := payloadOf(b)
	if !ok {
		return
	}
	seq := binary.BigEndian.Uint16(b[2:])
	ssrc := binary.BigEndian.Uint32(b[8:])
	if !t.started || t.ssrc != ssrc {
		t.restart(ssrc, uint32(seq))
	}
	ext := t.top + uint32(int32(int16(seq-uint16(t.top))))
	if int32(ext-t.base) < 0 { // from before the first one that came
		return
	}
	if d := int32(ext - t.top); d > maxDropout || d < -maxDropout {
		t.restart(ssrc, ext)
	}
	t.received++
	u := unit{ext: ext, ts: binary.BigEndian.Uint32(b[4:]), at: at, marker: b[1]&0x80 != 0}
	if t.format.video && (t.fresh || t.broken || ext != t.next || t.viewer.picture == 0) {
		t.peek(&u, t.viewer.session.keys.peek.open(payload, ssrc, ext>>16, seq))
	}
	t.arrive(u)
}

// payloadOf is the encrypted part of a packet, with the tag (RFC 3711 §3.1).
func payloadOf(b []byte) ([]byte, bool) {
	n := 12 + 4*int(b[0]&15)
	if b[0]&0x10 != 0 {
		if len(b) < n+4 {
			return nil, false
		}
		n += 4 + 4*int(binary.BigEndian.Uint16(b[n+2:]))
	}
	if len(b) < n+tagSize {
		return nil, false
	}
	return b[n : len(b)-tagSize], true
}

const tagSize = 10 // at least: AES-CM; the AEAD's 16 are told from the payload by nobody here

// repair takes a packet that was sent again (RFC 4588 §4): its payload begins with the number it had.
func (t *track) repair(b []byte, at int64) {
	payload, ok := payloadOf(b)
	if !ok || !t.started {
		return
	}
	seq := binary.BigEndian.Uint16(b[2:])
	if !t.againSet {
		t.againSet, t.againTop = true, uint32(seq)
	}
	ext := t.againTop + uint32(int32(int16(seq-uint16(t.againTop))))
	if int32(ext-t.againTop) > 0 {
		t.againTop = ext
	}
	p := t.viewer.session.keys.peek.open(payload, binary.BigEndian.Uint32(b[8:]), ext>>16, seq)
	if len(p) < 2 {
		return
	}
	original := binary.BigEndian.Uint16(p)
	u := unit{ext: t.top + uint32(int32(int16(original-uint16(t.top)))), ts: binary.BigEndian.Uint32(b[4:]), at: at, marker: b[1]&0x80 != 0}
	if int32(u.ext-t.top) > 0 {
		return // nobody has asked for it
	}
	if t.format.video {
		t.peek(&u, p[2:])
	}
	t.arrive(u)
}

func (t *track) peek(u *unit, plain []byte) {
	if stamp, key, ok := readStamp(plain); ok {
		u.stamp, u.key, u.begins = stamp, key, true
		return
	}
	u.key = codec.StartsKeyFrame(t.format.codec, plain)
	u.begins = u.key
}

// restart begins another numbering.
func (t *track) restart(ssrc, ext uint32) {
	t.giveUp(len(t.holes))
	t.broken = t.format.video && t.started
	if t.started {
		t.viewer.jumps++
	}
	t.ssrc, t.started = ssrc, true
	t.base, t.top, t.next = ext, ext, ext
	t.held, t.holes = nil, nil
	t.received, t.before, t.extra = 0, 0, 0
	t.frame, t.shown, t.fresh, t.gap = frameState{}, false, true, false
	t.clockWall = 0
}

// arrive puts a packet where it belongs.
func (t *track) arrive(u unit) {
	v := t.viewer
	switch d := int32(u.ext - t.next); {
	case d == 0 && len(t.holes) == 0:
		t.top = u.ext
		v.seen.packets++
		t.deliver(u)
		return
	case d < 0:
		v.seen.repeated++
		return
	}
	if int32(u.ext-t.top) > 0 {
		for e := t.top + 1; e != u.ext; e++ {
			t.holes = append(t.holes, hole{ext: e, since: u.at})
		}
		t.top = u.ext
		v.session.loop.hurried[v.session] = struct{}{}
	} else {
		i, found := slices.BinarySearchFunc(t.holes, u.ext, func(h hole, e uint32) int { return int(int32(h.ext - e)) })
		if !found {
			v.seen.repeated++
			return
		}
		if t.holes[i].asked != 0 {
			v.seen.repaired++
		}
		t.holes = slices.Delete(t.holes, i, i+1)
	}
	v.seen.packets++
	i, _ := slices.BinarySearchFunc(t.held, u.ext, func(h unit, e uint32) int { return int(int32(h.ext - e)) })
	t.held = slices.Insert(t.held, i, u)
	t.drain()
	for len(t.held) > maxHeld {
		t.giveUp(1)
	}
}

// drain delivers what is due.
func (t *track) drain() {
	n := 0
	for n < len(t.held) && t.held[n].ext == t.next {
		t.deliver(t.held[n])
		n++
	}
	t.held = slices.Delete(t.held, 0, n)
	if len(t.held) == 0 && len(t.holes) == 0 {
		t.held, t.holes = nil, nil // so that thousands of viewers don't keep what they needed once
	}
}

// giveUp counts the first n holes as lost.
func (t *track) giveUp(n int) {
	for range n {
		t.viewer.seen.lost++
		h := t.holes[0]
		t.holes = t.holes[1:]
		// All before a hole has been delivered: it is what is due.
		t.next, t.gap = h.ext+1, true
		t.drain()
	}
}

// overdue gives up what is missing for too long.
func (t *track) overdue(now int64) {
	n := 0
	for n < len(t.holes) && now-t.holes[n].since > int64(maxMissing) {
		n++
	}
	t.giveUp(n)
}

// deliver has the packets in order.
func (t *track) deliver(u unit) {
	gap := t.gap
	t.next, t.gap = u.ext+1, false
	if !t.format.video {
		return
	}
	f := &t.frame
	if gap && f.open {
		f.broken = true
	}
	if f.open && f.ts != u.ts { // its sender sets no marker
		t.complete()
	}
	if !f.open {
		if t.shown && int32(u.ts-f.ts) < 0 {
			t.viewer.jumps++
		}
		t.shown = true
		*f = frameState{open: true, ts: u.ts, stamp: u.stamp, at: u.at, broken: gap && !u.begins}
		t.spread(u)
	}
	f.key = f.key || u.key
	f.at = max(f.at, u.at)
	t.fresh = u.marker
	if u.marker {
		t.complete()
	}
}

// spread is the jitter of RFC 3550 §6.4.1, of frames' first packets.
func (t *track) spread(u unit) {
	transit := uint32(u.at/1000*t.format.rate/1e6) - u.ts
	d := int32(transit - t.transit)
	if t.transit != 0 {
		t.jitter += uint32(max(d, -d)) - (t.jitter+8)>>4
	}
	t.transit = transit
}

func (t *track) complete() {
	f := t.frame
	t.frame.open, t.fresh = false, true
	if f.broken {
		t.broken = true
		t.viewer.seen.damaged++
		return
	}
	if f.key {
		t.broken = false
	}
	if f.stamp == 0 && t.clockWall != 0 {
		f.stamp = t.clockWall + int64(int32(f.ts-t.clockRTP))*1e9/t.format.rate
	}
	t.viewer.frame(f, !t.broken)
}
