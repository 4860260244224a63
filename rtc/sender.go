package rtc

import (
	"crypto/rand"
	"encoding/binary"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"

	"sluice/codec"
	"sluice/congestion"
	"sluice/media"
	"sluice/udp"
)

// SenderOptions describe a session that sends.
type SenderOptions struct {
	Label  string // the stream's id: the media stream's id and the data channel's label
	Data   bool   // open a data channel ourselves; those that the peer opens are always taken
	Events Events
	// OnKeyFrameRequest: the peer can't decode a track of the stream and asks for a key frame (RFC 4585 §6.3.1). Any goroutine.
	OnKeyFrameRequest func(track int)
	// OnPath is called by the loop when the peer has told when packets came, and, if it does not, for each Survey of the group. It must not block.
	OnPath func(Path)
	// OnFirst is called by the loop when the first packet was sent, and with true when the first key frame was. It must not block.
	OnFirst func(key bool)
}

// Sender is a session that sends a group's bursts to a peer. Its methods may be called from any goroutine.
type Sender struct {
	session
	group        *Group
	onKeyRequest func(track int)
	onPath       func(Path)
	onFirst      func(key bool)
	mids         []string     // of the tracks; written before anybody else knows the session
	redUntil     atomic.Int64 // Unix nanoseconds: until then sound goes with redundancy, because the peer has told of a loss
	picture      atomic.Int32 // the stream's track of which the peer gets the picture

	// Under the session's mu.
	srID    uint32 // middle 32 bits of the NTP time in the last sender report (RFC 3550 §6.4.1)
	srAt    time.Time
	stats   SenderStats
	asked   []asked // what the loop has not seen yet
	arrived []byte  // and what the peer has told of arrival times: messages, each behind its length
	shard   *shard  // whose loop sends; nil before the session is connected

	// The shard loop's.
	lane     *lane
	gone     bool
	started  bool // the first packet was sent
	keyFirst bool // it is that of a key frame
	host     int
	addr     udp.Addr
	tcp      *tcpOut // nil: the peer is reached by UDP
	seal     *sealer
	path     *congestion.Control // nil: the peer tells no arrival times
	learned  time.Time           // when it told of some last
	tracks   []outTrack          // by index of the stream's tracks
	waiting  []item              // packets that the path has not been given yet
	again    []asked             // and those to be sent again
	behind   bool                // the shard has the session in its list of those
	cut      bool                // video is left out up to the next key frame
	budget   float64             // bytes that the path may be given at once
	paced    time.Time           // when that was reckoned
	credit   float64             // packets that the peer may ask for
	credited time.Time           // when that was reckoned
	caught   []stamped           // timestamps given to the past, as long as the ring has packets of it
	report   time.Time           // when the last sender report went out

	takeArrivals func(*shard) // learn, made once
}

// stamped are packets that got another timestamp than their burst's.
type stamped struct {
	track       int
	first, last uint64 // index
	timestamp   uint32
}

// outTrack is a track on its way to one peer.
type outTrack struct {
	wanted    bool // agreed on
	pt, rtxPT uint8
	redPT     uint8 // of the payload with redundancy; 0: none
	nack      bool  // the peer may ask for what is missing
	delayID   uint8 // of the header extension with the playout delay; 0: none
	wideID    uint8 // of the header extension with transport-wide numbers; 0: none
	described uint8 // of the one with dependency descriptors; 0: none
	ssrc, rtx uint32

	begun   bool
	sent    source  // what was sealed
	joint   joint   // what is sent now
	before  []joint // and was before, the newest last, as long as it may be asked for
	next    int     // the stream's track that is to be sent from its next key frame on
	paused  bool    // nothing is sent before that
	off     bool    // nothing is sent before it is resumed
	stamp   uint32  // highest timestamp of a live burst
	rtxSeq  uint16
	rtxROC  uint32
	packets uint32
	octets  uint32
}

// once takes a packet's number for sealing, and returns its index: roll-over counter and sequence number (RFC 3711 §3.3.1). It reports
// false for a number that was sealed already, or may have been: AES-GCM must never see a nonce with two texts (RFC 7714 §9.1).
func (t *outTrack) once(seq uint16) (index uint64, ok bool) {
	if !t.begun {
		t.begun, t.sent.top = true, uint64(seq)
		t.sent.note(uint64(seq))
		return uint64(seq), true
	}
	i := int64(t.sent.top) + int64(int16(seq-uint16(t.sent.top)))
	if i < 0 || t.sent.had(uint64(i)) {
		return 0, false
	}
	t.sent.note(uint64(i))
	return uint64(i), true
}

// again is the index of a packet that was sealed lately; false: it was not.
func (t *outTrack) again(seq uint16) (index uint64, ok bool) {
	i := int64(t.sent.top) + int64(int16(seq-uint16(t.sent.top)))
	if !t.begun || i < 0 || uint64(i) > t.sent.top || t.sent.top-uint64(i) >= ringSize {
		return 0, false
	}
	return uint64(i), t.sent.had(uint64(i))
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
	v := &Sender{group: g, onKeyRequest: o.OnKeyFrameRequest, onPath: o.OnPath, onFirst: o.OnFirst, tracks: tracks}
	v.takeArrivals = v.learn
	v.picture.Store(int32(max(g.picture, 0)))
	v.endpoint, v.side, v.events, v.label, v.data = g.endpoint, v, o.Events, o.Label, o.Data
	for i := range tracks {
		t := &tracks[i]
		t.ssrc, t.rtx = newSSRC(), newSSRC()
		t.joint.source, t.next = i, i
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
	sh.flush() // what waits in a batch has the address by reference
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
	v.credit, v.credited, v.paced = againBurst, sh.now, sh.now
	if slices.ContainsFunc(v.tracks, func(t outTrack) bool { return t.wideID != 0 }) {
		v.path, v.budget = &congestion.Control{}, paceBegin
	}
	if len(items) > 0 {
		if i := v.group.out(items[0].burst); i >= 0 {
			v.tracks[i].joint.source, v.tracks[i].next = items[0].burst.Track, items[0].burst.Track
			v.picture.Store(int32(items[0].burst.Track))
			if v.tracks[i].off {
				releaseItems(items)
				items = nil
			}
		}
	}
	v.waiting = v.begin(sh, items)
	if len(items) > 0 && v.sendWaiting(sh, paceAfter) {
		sh.fallBehind(v)
	}
}

// begin gives what was cached the numbers that others have got it with, or will.
func (v *Sender) begin(sh *shard, items []item) []item {
	for i := range items {
		it := &items[i]
		t := &v.lane.tracks[it.burst.Track]
		if !t.begun {
			first := it.burst.Packets[0].Seq
			t.begun, t.last, t.joint = true, first+t.shift-1, first-1<<14
		}
		it.shift, it.at = t.shift, sh.now
		if t.before(it.burst) { // others have got other packets under these numbers
			it.next = len(it.burst.Packets)
			continue
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
	}
	return items
}

// send gives a live burst to the peer: at once as much as its path takes, the rest by and by.
func (v *Sender) send(sh *shard, t *laneTrack, b *media.Burst) {
	i := v.group.out(b)
	if i < 0 {
		return
	}
	out := &v.tracks[i]
	if !out.wanted || out.off || !v.picks(out, t, b) {
		return
	}
	most := paceAfter
	if !t.video && v.tcp == nil && !v.keepsWaiting(b.Track) {
		// sound does not wait for the picture
	} else if most = v.allowed(sh, min(len(b.Packets), paceAfter)); len(v.waiting) > 0 || most == 0 {
		v.wait(sh, item{burst: b, timestamp: b.Timestamp, shift: t.shift, at: sh.now})
		return
	}
	if v.leftOut(t, b) || v.tcp != nil && !v.tcp.admits(sh, v, b, i) {
		return
	}
	given := 0
	for _, r := range sh.runs {
		r.to = min(r.to, r.from+most-given)
		v.sendRun(sh, out, &item{burst: b, timestamp: b.Timestamp, shift: t.shift}, r)
		if given += r.to - r.from; given >= most {
			if r.to < len(b.Packets) {
				v.wait(sh, item{burst: b, timestamp: b.Timestamp, shift: t.shift, at: sh.now, next: r.to})
			}
			break
		}
	}
	v.maybeReport(sh)
}

// What a path may be given at once: what it is sent in paceSpan, but some packets in any case. A larger frame would overflow its queue, or look as if it was full.
const (
	paceSpan  = 20 * time.Millisecond
	paceLeast = 4 * 1200 // bytes
	paceBegin = 64 << 10 // bytes, for the first picture of a viewer of whose path nothing is known
)

// allowed is how many packets may be sent at once, at most so many.
func (v *Sender) allowed(sh *shard, most int) int {
	if v.path == nil || v.tcp != nil {
		return most
	}
	if v.budget >= float64(most*1200) { // as it mostly is
		return most
	}
	rate := v.path.Pace(sh.now) / 8
	if full := max(paceLeast, rate*paceSpan.Seconds()); v.budget < full {
		v.budget = min(v.budget+rate*sh.now.Sub(v.paced).Seconds(), full)
	}
	v.paced = sh.now
	return min(most, max(0, int(v.budget+1199)/1200))
}

// keepsWaiting reports whether something of a track waits for the path.
func (v *Sender) keepsWaiting(track int) bool {
	return slices.ContainsFunc(v.waiting, func(it item) bool { return it.burst.Track == track })
}

// waitMost is how long packets wait for a path at most.
const waitMost = time.Second

// wait keeps a burst until the path takes it. When that takes too long, video is left out up to the next key frame.
func (v *Sender) wait(sh *shard, it item) {
	t := &v.lane.tracks[it.burst.Track]
	if v.leftOut(t, it.burst) {
		return
	}
	if len(v.waiting) > 0 && sh.now.Sub(v.waiting[0].at) > waitMost {
		sh.warn("video is left out for a viewer up to the next key frame: more comes than its path takes, or than this machine sends", sh.now.Sub(v.waiting[0].at))
		releaseItems(v.waiting)
		v.waiting = nil
		v.cut = true
		v.endpoint.counts.pathLate.Add(1)
		v.onKeyRequest(int(v.picture.Load()))
		return
	}
	it.burst.Retain()
	v.waiting = append(v.waiting, it)
	sh.fallBehind(v)
}

// leftOut reports whether a burst is left out, because something before it was.
func (v *Sender) leftOut(t *laneTrack, b *media.Burst) bool {
	if v.cut && t.video && b.Key {
		v.cut = false
	}
	return v.cut && t.video
}

// sendRun seals a run of an item's packets and puts it into the batch as one message.
func (v *Sender) sendRun(sh *shard, t *outTrack, it *item, r run) {
	if v.sendRED(sh, t, it) {
		return
	}
	sh.room(v.host)
	at := len(sh.arena)
	h := packetHeader{pt: t.pt, wideID: t.wideID, timestamp: it.timestamp + t.joint.stamp, ssrc: t.ssrc}
	if it.burst.Key { // the player keeps to it from then on
		h.delayID, h.delay = t.delayID, v.group.playout
	}
	shift := it.shift + t.joint.seq
	if int32(h.timestamp-t.stamp) > 0 || !t.begun {
		t.stamp = h.timestamp
	}
	for i := r.from; i < r.to; i++ {
		p := &it.burst.Packets[i]
		h.marker, h.seq = p.Marker, p.Seq+shift
		index, ok := t.once(h.seq)
		if !ok {
			continue
		}
		h.roc = uint32(index >> 16)
		t.describe(&h, p, t.joint.pics)
		if it.timestamp != it.burst.Timestamp {
			v.moveStamp(v.group.out(it.burst), index, h.timestamp)
		}
		v.stamp(sh, &h, len(p.Payload))
		if t.joint.pics == (codec.Numbers{}) {
			sh.arena = v.seal.seal(sh.arena, h, p.Payload)
		} else {
			head, rest := v.group.renumber(sh, p.Payload, t.joint.pics)
			sh.arena = v.seal.seal(sh.arena, h, head, rest)
		}
		t.octets += uint32(len(p.Payload))
		t.packets++
	}
	if len(sh.arena) > at {
		v.put(sh, at, headerSize+h.extension()+r.size+v.seal.overhead) // descriptors in a run are of one size too
	}
}

// describe gives a packet its dependency descriptor, where that was agreed on.
func (t *outTrack) describe(h *packetHeader, p *media.Packet, pics codec.Numbers) {
	if t.described != 0 {
		h.described, h.descriptor, h.frames = t.described, p.Descriptor, pics.Picture
	}
}

// stamp gives a packet its transport-wide number, where that was agreed on.
func (v *Sender) stamp(sh *shard, h *packetHeader, size int) {
	if h.wideID != 0 {
		h.wide = v.path.Send(size, sh.now)
		v.budget -= float64(size)
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

// sendWaiting sends as many packets of what waits, those that were asked for again first; true: there is more.
func (v *Sender) sendWaiting(sh *shard, most int) bool {
	if v.gone {
		return false
	}
	most = v.allowed(sh, most)
	n := min(len(v.again), most)
	v.resend(sh, v.again[:n])
	v.again = v.again[n:]
	for most -= n; len(v.waiting) > 0 && most > 0; {
		if v.tcp != nil && v.tcp.later(sh, v) {
			break
		}
		it := &v.waiting[0]
		out := &v.tracks[v.group.out(it.burst)]
		packets := it.burst.Packets[it.next:]
		if !out.wanted {
			packets = nil
		}
		packets = packets[:min(len(packets), most)]
		sh.runs = cutRuns(sh.runs[:0], packets)
		for _, r := range sh.runs {
			v.sendRun(sh, out, it, run{r.from + it.next, r.to + it.next, r.size})
		}
		most -= len(packets)
		it.next += len(packets)
		if it.next == len(it.burst.Packets) || !out.wanted {
			it.burst.Release()
			*it = item{}
			if len(v.waiting) == 1 {
				v.waiting = v.waiting[:0] // its memory serves the next frame
			} else {
				v.waiting = v.waiting[1:]
			}
		}
	}
	if len(v.again) == 0 {
		v.again = nil
	}
	if len(v.waiting) == 0 {
		if cap(v.waiting) > 4 {
			v.waiting = nil
		}
		v.maybeReport(sh)
	}
	more := len(v.waiting) > 0 || len(v.again) > 0
	return v.sendProbe(sh) || more
}

// reportEvery is how often sender reports are sent.
const reportEvery = 2 * time.Second

func (v *Sender) maybeReport(sh *shard) {
	if sh.now.Sub(v.report) > reportEvery {
		v.sendReport(sh)
	}
}

// sendReport sends sender reports (RFC 3550 §6.4.1): they tie each track's clock to the publisher's, so that picture
// and sound stay together and latency can be measured.
func (v *Sender) sendReport(sh *shard) {
	v.forgetPast()
	var reports []rtcp.Packet
	for i := range v.tracks {
		t := &v.tracks[i]
		t.forgetJoints()
		if l := &v.lane.tracks[t.joint.source]; t.begun && l.captured != 0 {
			reports = append(reports, &rtcp.SenderReport{SSRC: t.ssrc, NTPTime: toNTP(l.captured), RTPTime: l.stamp + t.joint.stamp, PacketCount: t.packets, OctetCount: t.octets})
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
	v.srID, v.srAt = uint32(toNTP(v.lane.tracks[v.tracks[0].joint.source].captured)>>16), sh.now
	sealed, err := v.rtcp.seal(sh.arena, plain)
	v.mu.Unlock()
	if err != nil {
		return
	}
	sh.arena = sealed
	v.put(sh, at, len(sh.arena)-at)
}

// What a peer may ask for again: so many packets at once, and so many a second.
const (
	againBurst = 1024
	againRate  = 1000
	againShare = 0.25 // of what a path takes by the estimate; twice that where packets are sent again more than once
)

// sendAgain takes what the peer has asked for, in the shard's loop. What is missing at a viewer over TCP that is slow was left out.
func (v *Sender) sendAgain(sh *shard) {
	v.mu.Lock()
	wanted := v.asked
	v.asked = nil
	v.mu.Unlock()
	if v.gone || v.lane == nil || v.seal == nil || v.tcp != nil && !v.tcp.conn.idle() {
		return
	}
	rate, copies := float64(againRate), 1
	if v.path != nil && v.path.Estimate() > 0 { // what is sent again must not be what fills the path
		copies = v.path.Again(sh.now)
		rate = min(rate, againShare*float64(min(copies, 2)*v.path.Estimate())/8/1200)
		v.credit = min(v.credit, rate)
	}
	v.credit = min(v.credit+rate*sh.now.Sub(v.credited).Seconds(), againBurst)
	v.credited = sh.now
	for _, a := range wanted {
		if v.credit < 1 {
			break
		}
		if slices.Contains(v.again, a) || !v.has(a) {
			continue
		}
		for range copies {
			v.credit--
			v.again = append(v.again, a)
		}
	}
	if len(v.again) > 0 && !v.behind {
		n := min(len(v.again), v.allowed(sh, paceAfter))
		v.resend(sh, v.again[:n])
		v.again = v.again[n:]
		if len(v.again) > 0 {
			sh.fallBehind(v)
		}
	}
}

// resend sends packets again: as RTX where that was agreed on (RFC 4588 §4), else the very same ones.
func (v *Sender) resend(sh *shard, wanted []asked) {
	if len(wanted) == 0 {
		return
	}
	sent := 0
	for _, a := range wanted {
		if v.resendOne(sh, a) {
			sent++
		}
	}
	v.endpoint.counts.again.Add(uint64(sent))
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stats.Again += uint64(sent)
	v.stats.NotKept += uint64(len(wanted) - sent)
}

// has reports whether a packet may be sent again. Those of a rendition that was given up because the path was full may not: a peer asks for all of them again and again.
func (v *Sender) has(a asked) bool {
	t := &v.tracks[a.track]
	index, ok := t.again(a.seq)
	return ok && t.nack && !t.paused && !(t.joint.hasty && index < t.joint.index)
}

func (v *Sender) resendOne(sh *shard, a asked) bool {
	if !v.has(a) {
		return false
	}
	t := &v.tracks[a.track]
	index, _ := t.again(a.seq)
	from := t.jointOf(index)
	ring := v.lane.tracks[from.source].ring
	if ring == nil {
		return false
	}
	b, i := ring.get(a.seq - from.seq)
	if b == nil {
		return false
	}
	p := &b.Packets[i]
	sh.room(v.host)
	at := len(sh.arena)
	h := packetHeader{marker: p.Marker, timestamp: v.timestampOf(a.track, index, b.Timestamp+from.stamp)}
	t.describe(&h, p, from.pics)
	if t.rtxPT != 0 {
		t.rtxSeq++
		if t.rtxSeq == 0 {
			t.rtxROC++
		}
		original := [2]byte{byte(a.seq >> 8), byte(a.seq)}
		h.pt, h.seq, h.roc, h.ssrc, h.wideID = t.rtxPT, t.rtxSeq, t.rtxROC, t.rtx, t.wideID
		v.stamp(sh, &h, len(p.Payload))
		head, rest := v.group.renumber(sh, p.Payload, from.pics)
		sh.arena = v.seal.seal(sh.arena, h, original[:], head, rest)
	} else { // transport-wide numbers, which would differ, are not agreed on without RTX
		h.pt, h.seq, h.roc, h.ssrc = t.pt, a.seq, uint32(index>>16), t.ssrc
		head, rest := v.group.renumber(sh, p.Payload, from.pics)
		sh.arena = v.seal.seal(sh.arena, h, head, rest)
	}
	v.put(sh, at, len(sh.arena)-at)
	return true
}

// moveStamp notes that a packet got another timestamp than its burst's.
func (v *Sender) moveStamp(track int, index uint64, timestamp uint32) {
	if n := len(v.caught); n > 0 {
		if c := &v.caught[n-1]; c.track == track && c.timestamp == timestamp && c.last+1 == index {
			c.last = index
			return
		}
	}
	v.caught = append(v.caught, stamped{track, index, index, timestamp})
}

// forgetPast drops the timestamps of packets that can't be asked for any more.
func (v *Sender) forgetPast() {
	v.caught = slices.DeleteFunc(v.caught, func(c stamped) bool { return v.tracks[c.track].sent.top-c.last >= ringSize })
}

// timestampOf is the timestamp under which the peer got a packet.
func (v *Sender) timestampOf(track int, index uint64, otherwise uint32) uint32 {
	for _, c := range v.caught {
		if c.track == track && c.first <= index && index <= c.last {
			return c.timestamp
		}
	}
	return otherwise
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
