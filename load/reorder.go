package load

import (
	"time"

	"github.com/pion/rtp"
)

// A missing packet is waited for as long as a retransmission may take; then the
// frame is given up, as a player does.
const (
	maxMissing = 250 * time.Millisecond
	window     = 1024 // packets that are held behind a missing one; more and it counts as lost
	maxDropout = 3000 // a larger jump is a new numbering (RFC 3550 appendix A.1)
)

// reorder brings a track's packets into the order of their numbers. Its owner's goroutine only.
type reorder struct {
	out func(pkt *rtp.Packet, now time.Time, gap bool) // gap: packets before this one are lost

	started bool
	next    uint16 // the number that is due
	held    [window]*rtp.Packet
	n       int       // how many are held
	since   time.Time // since when next is missing

	lost, late, repeated uint64
}

// push takes a packet, which it may keep.
func (r *reorder) push(pkt *rtp.Packet, now time.Time) {
	seq := pkt.SequenceNumber
	if !r.started {
		r.started, r.next = true, seq
	}
	ahead := int(int16(seq - r.next))
	switch {
	case ahead < -maxDropout || ahead > maxDropout:
		r.flush(now)
		r.next, ahead = seq, 0
		r.deliver(pkt, now, true)
		return
	case ahead < 0:
		r.repeated++ // or given up before
		return
	case ahead == 0:
		if r.n > 0 {
			r.late++
		}
		r.deliver(pkt, now, false)
		r.drain(now)
		return
	}
	for ahead >= window { // make room: what is missing longest is lost
		r.skip(now)
		if ahead = int(int16(seq - r.next)); ahead == 0 {
			r.deliver(pkt, now, true)
			return
		}
	}
	if r.held[seq%window] != nil {
		r.repeated++
		return
	}
	if r.n == 0 {
		r.since = now
	}
	r.held[seq%window] = pkt
	r.n++
	r.expire(now)
}

// expire gives up what is missing for too long.
func (r *reorder) expire(now time.Time) {
	for r.n > 0 && now.Sub(r.since) > maxMissing {
		r.skip(now)
	}
}

// flush delivers all that is held.
func (r *reorder) flush(now time.Time) {
	for r.n > 0 {
		r.skip(now)
	}
}

// skip gives up the missing packets before the first one that is held; if none is, one packet.
func (r *reorder) skip(now time.Time) {
	r.lost++
	r.next++
	for r.n > 0 && r.held[r.next%window] == nil {
		r.lost++
		r.next++
	}
	if pkt := r.take(); pkt != nil {
		r.deliver(pkt, now, true)
		r.drain(now)
	}
}

func (r *reorder) take() *rtp.Packet {
	pkt := r.held[r.next%window]
	if pkt != nil {
		r.held[r.next%window] = nil
		r.n--
	}
	return pkt
}

func (r *reorder) deliver(pkt *rtp.Packet, now time.Time, gap bool) {
	r.next++
	r.out(pkt, now, gap)
}

// drain delivers what has become due, up to the next missing packet.
func (r *reorder) drain(now time.Time) {
	for r.n > 0 {
		pkt := r.take()
		if pkt == nil {
			r.since = now
			return
		}
		r.deliver(pkt, now, false)
	}
}
