package stream

import (
	"sluice/media"
)

// splice makes the numbering of a track continuous over changes of its publisher: subscribers
// see sequence numbers that follow each other and timestamps that grow by the time that passed
// (RFC 3550 §5.1), whatever the publishers wrote.
type splice struct {
	begun   bool // something was sent on this track
	joining bool // the next packet comes from a new publisher or after a discontinuity
	waiting bool // joining, and only a key frame will do
	anew    bool // joining, and the timestamps are another clock's

	seqShift uint16 // out = in + shift
	tsShift  uint32
	first    uint16 // in: the first packet after the joint; what is older belongs before it
	guard    int    // packets for which first is still compared

	captured int64 // of the newest burst

	lastSeq uint16 // out: highest sent
	lastTS  uint32 // out: its timestamp
	lastAt  int64  // its arrival, Unix nanoseconds
}

// stamp is a timestamp that may be known.
type stamp struct {
	at    uint32
	known bool
}

// guarded is for how many packets after a joint late ones are recognised by their number.
const guarded = 1 << 14

// restart says that the next packets come from another publisher.
func (s *splice) restart(video bool) { s.joining, s.waiting, s.anew = true, video && s.begun, true }

// skip says that packets are missing before the next ones, which come from the same publisher:
// their timestamps go on as they were, so that sound and picture stay together.
func (s *splice) skip(video bool) { s.joining, s.waiting = true, video && s.begun }

// rewrite renumbers a burst in place. When it begins anew, its timestamp becomes the aligned one, if that is known. newest says that it follows all that came before: a late one, which a publisher sent
// again, does not. ok is false when the burst must not be sent.
func (s *splice) rewrite(b *media.Burst, clockRate uint32, aligned stamp) (newest, ok bool) {
	if s.joining {
		if s.waiting && !b.Key {
			return false, false
		}
		in := b.Packets[0].Seq
		if s.begun {
			s.seqShift = s.lastSeq + 1 - in
		}
		switch {
		case !s.anew:
		case aligned.known && (!s.begun || int32(aligned.at-s.lastTS) > 0):
			s.tsShift = aligned.at - b.Timestamp
		case s.begun:
			passed := max(b.Arrived-s.lastAt, 0)
			ticks := max(uint32(passed/1e3*int64(clockRate)/1e6), 1)
			s.tsShift = s.lastTS + ticks - b.Timestamp
		}
		s.first, s.guard = in, guarded
		s.joining, s.waiting, s.anew = false, false, false
	}
	b.Timestamp += s.tsShift
	newest = !s.begun || int32(b.Timestamp-s.lastTS) > 0
	kept := b.Packets[:0]
	for _, p := range b.Packets {
		if s.guard > 0 {
			s.guard--
			if int16(p.Seq-s.first) < 0 {
				continue // sent before the joint: its number is taken
			}
		}
		p.Seq += s.seqShift
		if d := int16(p.Seq - s.lastSeq); d > 0 || !s.begun {
			s.begun, s.lastSeq, s.lastTS, s.lastAt, s.captured = true, p.Seq, b.Timestamp, b.Arrived, b.Captured
		}
		kept = append(kept, p)
	}
	b.Packets = kept
	return newest || b.Timestamp == s.lastTS, len(kept) > 0
}
