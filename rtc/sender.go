package rtc

import (
	"crypto/rand"
	"encoding/binary"
	"slices"
	"time"

	"github.com/pion/rtcp"

	"sluice/media"
	"sluice/udp"
)

// SenderOptions describe a session that sends.
type SenderOptions struct {
	Label  string // the stream's id: the media stream's id and the data channel's label
	Data   bool   // open a data channel ourselves; those that the peer opens are always taken
	Events Events
	// OnKeyFrameRequest: the peer can't decode a track and asks for a key frame (RFC 4585 §6.3.1). Any goroutine.
	OnKeyFrameRequest func(track int)
}

// Sender is a session that sends a group's bursts to a peer. Its methods may be called from any goroutine.
type Sender struct {
	session
	group        *Group
	onKeyRequest func(track int)
	mids         []string // of the tracks; written before anybody else knows the session

	// Under the session's mu.
	srID  uint32 // middle 32 bits of the NTP time in the last sender report (RFC 3550 §6.4.1)
	srAt  time.Time
	stats SenderStats
	shard *shard // whose loop sends; nil before the session is connected

	// The shard loop's.
	lane    *lane
	gone    bool
	host    int
	addr    udp.Addr
	tcp     *tcpOut // nil: the peer is reached by UDP
	seal    *sealer
	wide    *wide      // nil: the peer tells no arrival times
	tracks  []outTrack // by index of the stream's tracks
	waiting []item     // packets that the path has not been given yet
	caught  []stamped  // timestamps given to the past, as long as the ring has packets of it
	report  time.Time  // when the last sender report went out
}

// stamped are packets up to a number that got a timestamp other than their burst's.
type stamped struct {
	track     int
	last      uint16 // out
	timestamp uint32
}

// outTrack is a track on its way to one peer.
type outTrack struct {
	wanted    bool // agreed on
	pt, rtxPT uint8
	wideID    uint8 // of the header extension with transport-wide numbers; 0: none
	ssrc, rtx uint32

	begun   bool
	last    uint16 // out: highest sent
	roc     uint32 // roll-overs of it (RFC 3711 §3.3.1)
	rtxSeq  uint16
	rtxROC  uint32
	packets uint32
	octets  uint32
}

// SenderStats are what the peer says of what it gets.
type SenderStats struct {
	Lost      float64       // share of the packets, 0 to 1, in the last receiver report
	Jitter    time.Duration // of arrival
	RoundTrip time.Duration
	Estimate  int    // bandwidth of the path to the peer in bit/s: by its own estimate (REMB), or ours from the arrival times it tells; 0: it has told nothing
	Again     uint64 // packets sent again
	NotKept   uint64 // packets asked for that were too old
}

func newSSRC() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint32(b[:]) | 1
}

// newSender makes a session, which is to be opened.
func (g *Group) newSender(o SenderOptions, tracks []outTrack) *Sender {
	if o.OnKeyFrameRequest == nil {
		o.OnKeyFrameRequest = func(int) {}
	}
	v := &Sender{group: g, onKeyRequest: o.OnKeyFrameRequest, tracks: tracks}
	v.endpoint, v.side, v.events, v.label, v.data = g.endpoint, v, o.Events, o.Label, o.Data
	for i := range tracks {
		t := &tracks[i]
		t.ssrc, t.rtx = newSSRC(), newSSRC()
		t.rtxSeq = uint16(newSSRC()) & 0x7fff
	}
	return v
}

// home is the shard that sends to the peer; nil before the session is connected.
func (v *Sender) home() *shard {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.shard
}

// secured implements side: the session gets a shard.
func (v *Sender) secured(k keys, at arrival) error {
	seal, err := newSealer(k)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.state == stateClosed {
		return ErrClosed
	}
	v.shard = v.endpoint.place()
	v.shard.post(task{call: func(sh *shard) {
		v.seal = seal
		v.aim(sh, at)
	}})
	return nil
}

// moved implements side.
func (v *Sender) moved(at arrival) {
	if sh := v.home(); sh != nil {
		sh.post(task{call: func(sh *shard) { v.aim(sh, at) }})
	}
}

// aim sends to an address, in the shard's loop. Any socket of the port reaches any peer.
func (v *Sender) aim(sh *shard, at arrival) {
	v.host = v.endpoint.hostIndex(at.host)
	v.addr = sh.sockets[v.host].MakeAddr(at.from)
	v.tcp = newTCPOut(at.conn, len(v.tracks))
}

// media implements side: a viewer sends none.
func (v *Sender) media([]byte) {}

// over implements side.
func (v *Sender) over(arrival) {
	if sh := v.home(); sh != nil {
		sh.viewers.Add(-1)
		sh.post(task{call: v.leave})
	}
}

// joined begins the media, in the shard's loop.
func (v *Sender) joined(sh *shard, items []item) {
	for i := range items {
		it := &items[i]
		t := &v.lane.tracks[it.burst.Track]
		if !t.begun {
			t.begun, t.last = true, it.burst.Packets[0].Seq+t.shift-1
		}
		for j := range it.burst.Packets {
			if t.ring != nil {
				if have, _ := t.ring.get(it.burst.Packets[j].Seq + t.shift); have != nil {
					continue
				}
			}
			t.keep(it.burst, j, sh.now)
		}
		if t.captured == 0 && it.timestamp == it.burst.Timestamp {
			t.stamp, t.captured = it.timestamp, it.burst.Captured
		}
		if it.timestamp != it.burst.Timestamp {
			v.caught = append(v.caught, stamped{it.burst.Track, it.burst.Packets[len(it.burst.Packets)-1].Seq + t.shift, it.timestamp})
		}
	}
	v.waiting = items
	if len(items) > 0 && v.sendWaiting(sh) {
		sh.behind = append(sh.behind, v)
	}
}

// send gives a live burst to the peer: at once as much as its path takes, the rest by and by.
func (v *Sender) send(sh *shard, t *laneTrack, b *media.Burst) {
	out := &v.tracks[b.Track]
	if !out.wanted || v.tcp != nil && !v.tcp.admits(sh, v, b) {
		return
	}
	given := 0
	for _, r := range sh.runs {
		if given >= paceAfter {
			v.waiting = append(v.waiting, item{burst: b.Retain(), timestamp: b.Timestamp, next: r.from})
			sh.behind = append(sh.behind, v)
			return
		}
		v.sendRun(sh, out, b, r, b.Timestamp, t.shift)
		given += r.to - r.from
	}
	if sh.now.Sub(v.report) > reportEvery {
		v.sendReport(sh)
	}
}

// sendRun seals a run and puts it into the batch as one message.
func (v *Sender) sendRun(sh *shard, t *outTrack, b *media.Burst, r run, timestamp uint32, shift uint16) {
	sh.room(v.host)
	at := len(sh.arena)
	h := packetHeader{pt: t.pt, wideID: t.wideID, timestamp: timestamp, ssrc: t.ssrc}
	for i := r.from; i < r.to; i++ {
		p := &b.Packets[i]
		h.marker, h.seq = p.Marker, p.Seq+shift
		h.roc = t.rollOver(h.seq)
		v.stamp(sh, &h, len(p.Payload))
		sh.arena = v.seal.seal(sh.arena, h, p.Payload)
		t.octets += uint32(len(p.Payload))
	}
	t.packets += uint32(r.to - r.from)
	v.put(sh, at, v.packetSize(t, r.size))
}

// packetSize is that of a sealed packet.
func (v *Sender) packetSize(t *outTrack, payload int) int {
	if t.wideID != 0 {
		payload += wideSize
	}
	return headerSize + payload + v.seal.overhead
}

// stamp gives a packet its transport-wide number, where that was agreed on.
func (v *Sender) stamp(sh *shard, h *packetHeader, size int) {
	if h.wideID != 0 {
		if v.wide == nil {
			v.wide = &wide{}
		}
		h.wide = v.wide.stamp(size, sh.now)
	}
}

// put sends what the arena has from at on, as packets of size bytes.
func (v *Sender) put(sh *shard, at, size int) {
	if v.tcp != nil {
		v.tcp.conn.send(sh.arena[at:], size)
		sh.arena = sh.arena[:at]
		return
	}
	sh.batches[v.host].Add(&v.addr, sh.arena[at:], size)
}

// rollOver is the roll-over counter of a sequence number (RFC 3711 §3.3.1).
func (t *outTrack) rollOver(seq uint16) uint32 {
	switch d := int16(seq - t.last); {
	case !t.begun:
		t.begun, t.last = true, seq
	case d > 0:
		if seq < t.last {
			t.roc++
		}
		t.last = seq
	case seq > t.last:
		return t.roc - 1 // a late one, from before the roll-over
	}
	return t.roc
}

// sendWaiting sends as much of what waits as the path takes at once; true: there is more.
func (v *Sender) sendWaiting(sh *shard) bool {
	if v.gone {
		return false
	}
	given := 0
	for len(v.waiting) > 0 && given < paceAfter {
		if v.tcp != nil && v.tcp.later(sh, v) {
			return len(v.waiting) > 0
		}
		it := &v.waiting[0]
		t := &v.lane.tracks[it.burst.Track]
		out := &v.tracks[it.burst.Track]
		packets := it.burst.Packets[it.next:]
		if !out.wanted {
			packets = nil
		}
		if most := paceAfter - given; len(packets) > most {
			packets = packets[:most]
		}
		sh.runs = cutRuns(sh.runs[:0], packets)
		for _, r := range sh.runs {
			v.sendRun(sh, out, it.burst, run{r.from + it.next, r.to + it.next, r.size}, it.timestamp, t.shift)
		}
		given += len(packets)
		it.next += len(packets)
		if it.next == len(it.burst.Packets) || !out.wanted {
			it.burst.Release()
			*it = item{}
			v.waiting = v.waiting[1:]
		}
	}
	if len(v.waiting) == 0 {
		v.waiting = nil
		v.sendReport(sh)
		return false
	}
	return true
}

// reportEvery is how often sender reports are sent.
const reportEvery = 2 * time.Second

// sendReport sends sender reports (RFC 3550 §6.4.1): they tie each track's clock to the publisher's, so that picture
// and sound stay together and latency can be measured.
func (v *Sender) sendReport(sh *shard) {
	v.forgetPast()
	var reports []rtcp.Packet
	for i := range v.tracks {
		t, l := &v.tracks[i], &v.lane.tracks[i]
		if t.begun && l.captured != 0 {
			reports = append(reports, &rtcp.SenderReport{SSRC: t.ssrc, NTPTime: toNTP(l.captured), RTPTime: l.stamp, PacketCount: t.packets, OctetCount: t.octets})
		}
	}
	if len(reports) == 0 {
		return
	}
	v.report = sh.now
	plain, err := rtcp.Marshal(reports)
	if err != nil {
		return
	}
	sh.room(v.host)
	at := len(sh.arena)
	v.mu.Lock()
	v.srID, v.srAt = uint32(toNTP(v.lane.tracks[0].captured)>>16), sh.now
	sealed, err := v.rtcp.seal(sh.arena, plain)
	v.mu.Unlock()
	if err != nil {
		return
	}
	sh.arena = sealed
	v.put(sh, at, len(sh.arena)-at)
}

// sendAgain answers a NACK, in the shard's loop: as RTX where that was agreed on (RFC 4588 §4), else the same packet. What is missing
// at a viewer over TCP that is slow was left out.
func (v *Sender) sendAgain(sh *shard, track int, lost []uint16) {
	if v.gone || v.lane == nil || v.seal == nil || v.tcp != nil && !v.tcp.conn.idle() {
		return
	}
	t, l := &v.tracks[track], &v.lane.tracks[track]
	if l.ring == nil {
		return
	}
	again, missing := 0, 0
	for _, seq := range lost {
		b, i := l.ring.get(seq)
		if b == nil || int16(seq-t.last) > 0 {
			missing++
			continue
		}
		again++
		p := &b.Packets[i]
		sh.room(v.host)
		at := len(sh.arena)
		h := packetHeader{marker: p.Marker, timestamp: v.timestampOf(track, seq, b), wideID: t.wideID}
		if t.rtxPT != 0 {
			t.rtxSeq++
			if t.rtxSeq == 0 {
				t.rtxROC++
			}
			original := [2]byte{byte(seq >> 8), byte(seq)}
			h.pt, h.seq, h.roc, h.ssrc = t.rtxPT, t.rtxSeq, t.rtxROC, t.rtx
			v.stamp(sh, &h, len(p.Payload))
			sh.arena = v.seal.seal(sh.arena, h, original[:], p.Payload)
		} else { // the very same: AES-GCM must not see a nonce twice with other bytes, so there is no transport-wide number
			h.pt, h.seq, h.roc, h.ssrc = t.pt, seq, t.rollOver(seq), t.ssrc
			sh.arena = v.seal.seal(sh.arena, h, p.Payload)
		}
		v.put(sh, at, len(sh.arena)-at)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stats.Again += uint64(again)
	v.stats.NotKept += uint64(missing)
}

// forgetPast drops the timestamps of packets that can't be asked for any more. It must be called well within
// the time that a sequence number takes to come round.
func (v *Sender) forgetPast() {
	v.caught = slices.DeleteFunc(v.caught, func(c stamped) bool {
		return int16(v.lane.tracks[c.track].last-c.last) >= ringSize
	})
}

// timestampOf is the timestamp under which the peer got a packet.
func (v *Sender) timestampOf(track int, seq uint16, b *media.Burst) uint32 {
	for _, c := range v.caught {
		if c.track == track && int16(seq-c.last) <= 0 {
			return c.timestamp
		}
	}
	return b.Timestamp
}

// leave is the session's end in the shard's loop.
func (v *Sender) leave(*shard) {
	v.gone = true
	releaseItems(v.waiting)
	v.waiting = nil
	if v.lane != nil {
		v.lane.leave(v)
	}
}

// Stats are what the peer has said last.
func (v *Sender) Stats() SenderStats {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.stats
}

// NTP counts from 1900, Unix time from 1970 (RFC 3550 §4).
const ntpEpoch = 2208988800

func toNTP(unixNano int64) uint64 {
	sec, frac := unixNano/1e9, unixNano%1e9
	return uint64(sec+ntpEpoch)<<32 | uint64(frac)<<32/1e9
}

func fromNTP(ntp uint64) (unixNano int64) {
	return (int64(ntp>>32)-ntpEpoch)*1e9 + int64((ntp&0xffffffff)*1e9>>32)
}
