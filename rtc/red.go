package rtc

import (
	"encoding/binary"
	"time"

	"github.com/pion/rtp"

	"sluice/media"
)

// Sound with redundancy (RFC 2198): a packet has the one before it too. It goes to viewers who have lost packets lately, and comes from
// publishers who prefer it.

const (
	// redFor is how long a viewer gets redundancy after he has told of a loss.
	redFor = 15 * time.Second
	// redLoss is the share of lost packets from which on, of 256.
	redLoss = 3
	// redHeader is the size of the headers of two blocks, the second of which has only a payload type (RFC 2198 §3).
	redHeader = 5
	// What the header of a block can say: 14 bits of time and 10 of length.
	redMostTime = 1<<14 - 1
	redMostSize = 1<<10 - 1
	// maxRED is how many blocks of a packet are looked at.
	maxRED = 8
)

// redWith is the payload that goes with a packet of sound for redundancy; nil: nothing does. The header of both for a peer is written.
func (t *outTrack) redWith(l *laneTrack, b *media.Burst, header *[redHeader]byte) []byte {
	was := l.latest
	if was == nil || len(b.Packets) != 1 {
		return nil
	}
	p, q := &b.Packets[0], &was.Packets[0]
	ago := b.Timestamp - was.Timestamp
	if q.Seq+1 != p.Seq || ago > redMostTime || len(q.Payload) > redMostSize || redHeader+len(q.Payload)+len(p.Payload) > media.MaxPayload {
		return nil
	}
	binary.BigEndian.PutUint32(header[:], 1<<31|uint32(t.pt)<<24|ago<<10|uint32(len(q.Payload)))
	header[4] = t.pt
	return q.Payload
}

// remember keeps a packet of sound for the redundancy of the next. The lane's.
func (t *laneTrack) remember(b *media.Burst) {
	if t.video || len(b.Packets) != 1 {
		return
	}
	if t.latest != nil {
		t.latest.Release()
	}
	t.latest = b.Retain()
}

// sendRED sends a packet of sound together with the one before, where the peer should have that; false: it is to be sent alone.
func (v *Sender) sendRED(sh *shard, t *outTrack, it *item) bool {
	if t.redPT == 0 || sh.now.UnixNano() >= v.redUntil.Load() || v.path != nil && v.path.Crowded(sh.now) || it.timestamp != it.burst.Timestamp {
		return false
	}
	before := t.redWith(&v.lane.tracks[it.burst.Track], it.burst, &sh.red)
	if before == nil {
		return false
	}
	p := &it.burst.Packets[0]
	h := packetHeader{pt: t.redPT, wideID: t.wideID, timestamp: it.timestamp + t.joint.stamp, ssrc: t.ssrc, marker: p.Marker, seq: p.Seq + it.shift + t.joint.seq}
	if int32(h.timestamp-t.stamp) > 0 || !t.begun {
		t.stamp = h.timestamp
	}
	index, ok := t.once(h.seq)
	if !ok {
		return true
	}
	h.roc = uint32(index >> 16)
	sh.room(v.host)
	at := len(sh.arena)
	size := redHeader + len(before) + len(p.Payload)
	v.stamp(sh, &h, size)
	sh.arena = v.seal.seal(sh.arena, h, sh.red[:], before, p.Payload)
	t.octets += uint32(size)
	t.packets++
	v.put(sh, at, len(sh.arena)-at)
	return true
}

// redBlock is one block of a packet.
type redBlock struct {
	ago     uint32 // units of the clock before the packet's timestamp
	payload []byte
}

// parseRED cuts a payload into its blocks, the oldest first; nil when it is malformed. It appends to blocks.
func parseRED(b []byte, blocks []redBlock) []redBlock {
	var sizes [maxRED]int
	n := 0
	for ; ; n++ {
		if n == maxRED || len(b) == 0 {
			return nil
		}
		if b[0]&0x80 == 0 { // the last, whose length is what is left
			blocks = append(blocks, redBlock{})
			b = b[1:]
			break
		}
		if len(b) < 4 {
			return nil
		}
		head := binary.BigEndian.Uint32(b)
		blocks = append(blocks, redBlock{ago: head >> 10 & redMostTime})
		sizes[n] = int(head & redMostSize)
		b = b[4:]
	}
	for i := range blocks[:n] {
		if sizes[i] > len(b) {
			return nil
		}
		blocks[i].payload, b = b[:sizes[i]], b[sizes[i]:]
	}
	blocks[n].payload = b
	return blocks
}

// takeRED takes a packet with redundancy: those before it that are missing, then itself.
func (r *Receiver) takeRED(track int, h *rtp.Header, payload []byte, now time.Time) {
	l := &r.lanes[track]
	r.blocks = parseRED(payload, r.blocks[:0])
	if len(r.blocks) == 0 {
		return
	}
	seq, timestamp := h.SequenceNumber, h.Timestamp
	l.history.expect(seq, now)
	for i, b := range r.blocks {
		behind := uint16(len(r.blocks) - 1 - i)
		h.SequenceNumber, h.Timestamp = seq-behind, timestamp-b.ago
		if behind == 0 || len(b.payload) > 0 && b.ago > 0 && l.history.misses(h.SequenceNumber) {
			r.take(track, h, b.payload, now)
		}
	}
}
