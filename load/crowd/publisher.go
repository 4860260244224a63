package crowd

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"sluice/load"
)

// How long to wait until a publisher that was lost comes again.
const publishAgain = 500 * time.Millisecond

// publisher sends one synthetic stream: H.264 and, if there is sound, Opus.
type publisher struct {
	crowd  *crowd
	url    func() string
	stream int

	mu       sync.Mutex // guards all below
	lives    []Life     // with Config.Return only, the last one last
	live     bool
	sent     uint64 // packets
	requests uint64 // for key frames
}

// outTrack is a track in one session.
type outTrack struct {
	ssrc          uint32
	pt            uint8
	seq           uint16
	rate          int64
	start         time.Time // timestamp 0
	packets, size uint32

	rtxSSRC uint32
	rtxPT   uint8 // 0: repairs under their own number
	rtxSeq  uint16
	ring    []sentPacket // by number
}

type sentPacket struct {
	seq     uint16
	ts      uint32
	marker  bool
	payload []byte
}

const videoRate = 90_000 // of timestamps

const ringSize = 512 // packets that can be sent again; more than a second of most streams

func newOutTrack(rate int64, pt uint8, start time.Time) *outTrack {
	return &outTrack{ssrc: rand.Uint32() | 1, rtxSSRC: rand.Uint32() | 1, pt: pt, rate: rate, start: start, seq: uint16(rand.IntN(1 << 15))}
}

// outgoing is a publisher's session.
type outgoing struct {
	*publisher
	carrier carrier
	video   *outTrack
	audio   *outTrack // nil: no sound

	life    int           // its number among the publisher's lives; 0: they are not counted
	keyed   chan struct{} // closed with the first key frame
	mu      sync.Mutex    // guards the tracks, the keys and what follows; comes before the publisher's
	ready   bool
	buf     [][]byte
	wantKey bool
	lastKey time.Time
}

// run publishes until ctx ends, again and again if need be. The first attempt's error goes to up.
func (p *publisher) run(ctx context.Context, up chan<- error) {
	for first := true; ; first = false {
		o, err := p.connect(ctx)
		if first {
			up <- err
			if err != nil {
				return
			}
		}
		if err == nil {
			p.keep(ctx, o)
		}
		wait := time.NewTimer(p.pause(err == nil))
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
		p.crowd.log.Warn("publishing again", "to", p.url(), "lost", err == nil)
	}
}

// pause is how long to wait before the next attempt.
func (p *publisher) pause(lost bool) time.Duration {
	r := p.crowd.cfg.Return
	switch {
	case r == nil:
		return publishAgain/2 + rand.N(publishAgain)
	case lost:
		return 0
	}
	return r.Pause
}

// leave says goodbye. Who comes back does not wait for the answer of a server that may be gone.
func (p *publisher) leave(ctx context.Context, o *outgoing) {
	p.mu.Lock()
	p.live = false
	p.mu.Unlock()
	if p.crowd.cfg.Return == nil || ctx.Err() != nil {
		o.carrier.leave(ctx)
		return
	}
	p.crowd.goodbyes.Go(func() { o.carrier.leave(ctx) })
}

func (p *publisher) connect(ctx context.Context) (_ *outgoing, err error) {
	now := time.Now()
	p.tries(now)
	if p.crowd.cfg.Return != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, connectWithin)
		defer cancel()
	}
	o := &outgoing{publisher: p, video: newOutTrack(videoRate, ptH264, now), keyed: make(chan struct{})}
	if p.crowd.cfg.Audio {
		o.audio = newOutTrack(48_000, ptOpus, now)
	}
	o.video.ring = make([]sentPacket, ringSize)
	if url := p.url(); strings.HasPrefix(url, plainScheme+":") {
		o.carrier, err = dialPlain(ctx, url, func(r []rtcp.Packet) { o.rtcp(r, 0) })
	} else {
		err = o.open(ctx)
	}
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	o.ready = true
	o.mu.Unlock()
	p.mu.Lock()
	p.live = true
	if n := len(p.lives); n > 0 {
		p.lives[n-1].Back = time.Now()
		o.life = n
		if s, ok := o.carrier.(sealed); ok {
			p.lives[n-1].Node = nodeOf(s.at)
		}
	}
	p.mu.Unlock()
	return o, nil
}

// tries counts an attempt.
func (p *publisher) tries(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.crowd.cfg.Return == nil {
		return
	}
	if n := len(p.lives); n == 0 || !p.lives[n-1].Back.IsZero() {
		p.lives = append(p.lives, Life{Lost: now})
	}
	p.lives[len(p.lives)-1].Tries++
}

// open publishes by WHIP.
func (o *outgoing) open(ctx context.Context) error {
	c := o.publisher.crowd
	s := c.newSession()
	if c.cfg.Return != nil {
		s.notice = c.cfg.Return.Notice
	}
	ours := offer{ours: s.ours, fingerprint: c.identity.fingerprint, publish: true, sound: o.audio != nil, video: o.video.ssrc, again: o.video.rtxSSRC}
	if o.audio != nil {
		ours.audio = o.audio.ssrc
	}
	o.carrier = sealed{s}
	if err := s.open(ctx, c.identity, byWHIP(c.client, func(r *load.Resource) { s.at = r }), o.publisher.url(), ours, func() medium { return o }); err != nil {
		s.close(ctx)
		return err
	}
	for pt, f := range s.answer.formats {
		if f.repairs == ptH264 {
			o.video.rtxPT = pt
		}
	}
	return nil
}

const (
	soundEvery  = 20 * time.Millisecond
	soundBytes  = 160 // 64 kbit/s
	keyLeast    = 500 * time.Millisecond
	reportEvery = time.Second
)

// stream sends until the session or ctx ends.
func (o *outgoing) stream(ctx context.Context) {
	cfg := &o.crowd.cfg
	paint := newPainter(o.publisher.stream)
	every := time.Second / time.Duration(cfg.FPS)
	frames := max(1, int(cfg.GOP/every)) // between key frames
	// A key frame has the size of four others, as in a picture that moves a little; the mean is the bitrate.
	size := int(float64(cfg.Bitrate) / 8 * every.Seconds() * float64(frames) / float64(frames+3))
	var payloads [][]byte
	// Streams that are published together don't send together.
	begin := time.Now().Add(rand.N(every))
	frame, sound, report := begin, begin, begin
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := frame
		if o.audio != nil && sound.Before(next) {
			next = sound
		}
		timer.Reset(time.Until(next))
		select {
		case <-ctx.Done():
			return
		case <-o.carrier.ended():
			return
		case <-timer.C:
		}
		now := time.Now()
		if !now.Before(report) {
			o.report(now)
			report = now.Add(reportEvery)
		}
		if !now.Before(frame) {
			key := o.keyNow(now, cfg.GOP)
			n := size
			if key {
				n *= 4
			}
			payloads = paint.frame(payloads[:0], n, key, now.UnixNano())
			o.send(o.video, now, payloads, true)
			frame = after(frame, every, now)
		}
		if o.audio != nil && !now.Before(sound) {
			o.send(o.audio, now, [][]byte{o.crowd.silence}, false)
			sound = after(sound, soundEvery, now)
		}
	}
}

// after is the next time; what a busy machine has missed is not made up for.
func after(t time.Time, every time.Duration, now time.Time) time.Time {
	if t = t.Add(every); t.Before(now) {
		return now
	}
	return t
}

// keyNow tells whether this frame must be a key frame. A request that comes too soon is put off, not forgotten.
func (o *outgoing) keyNow(now time.Time, gop time.Duration) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	since := now.Sub(o.lastKey)
	if since < gop-time.Millisecond && !(o.wantKey && since >= keyLeast) {
		return false
	}
	if o.lastKey.IsZero() {
		close(o.keyed)
		if o.life > 0 {
			o.publisher.mu.Lock()
			o.lives[o.life-1].Key = now
			o.publisher.mu.Unlock()
		}
	}
	o.lastKey, o.wantKey = now, false
	return true
}

func (t *outTrack) stamp(now time.Time) uint32 {
	return uint32(int64(now.Sub(t.start)) / 1000 * t.rate / 1e6)
}

// send sends the packets of a frame at once.
func (o *outgoing) send(t *outTrack, now time.Time, payloads [][]byte, marks bool) {
	ts := t.stamp(now)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = o.buf[:0]
	for i, payload := range payloads {
		p := sentPacket{t.seq, ts, marks && i == len(payloads)-1, payload}
		if t.ring != nil {
			t.ring[t.seq%ringSize] = p
		}
		o.seal(t.pt, t.seq, t.ssrc, p, nil)
		t.seq++
		t.packets++
		t.size += uint32(len(payload))
	}
	o.carrier.send(t, o.buf)
	o.publisher.mu.Lock()
	o.sent += uint64(len(payloads))
	o.publisher.mu.Unlock()
}

// seal puts a packet into the buffer; before goes before its payload.
func (o *outgoing) seal(pt uint8, seq uint16, ssrc uint32, p sentPacket, before []byte) {
	h := rtp.Header{Version: 2, PayloadType: pt, SequenceNumber: seq, Timestamp: p.ts, SSRC: ssrc, Marker: p.marker}
	plain := make([]byte, 12, 12+len(before)+len(p.payload))
	if _, err := h.MarshalTo(plain); err != nil {
		return
	}
	plain = append(append(plain, before...), p.payload...)
	if sealed, err := o.carrier.seal(plain, &h); err == nil {
		o.buf = append(o.buf, sealed)
	}
}

// report says which moment the timestamps stand for (RFC 3550 §6.4.1).
func (o *outgoing) report(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range []*outTrack{o.video, o.audio} {
		if t != nil {
			o.carrier.report(t, &rtcp.SenderReport{SSRC: t.ssrc, NTPTime: toNTP(now.UnixNano()), RTPTime: t.stamp(now), PacketCount: t.packets, OctetCount: t.size})
		}
	}
}

// rtp implements medium: nobody sends us any.
func (o *outgoing) rtp([]byte, int64) {}

// rtcp implements medium.
func (o *outgoing) rtcp(packets []rtcp.Packet, _ int64) {
	for _, p := range packets {
		switch p := p.(type) {
		case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
			o.mu.Lock()
			o.wantKey = true
			o.mu.Unlock()
			o.publisher.mu.Lock()
			o.requests++
			o.publisher.mu.Unlock()
		case *rtcp.TransportLayerNack:
			o.again(p)
		}
	}
}

// again sends what the server misses (RFC 4588 §4).
func (o *outgoing) again(n *rtcp.TransportLayerNack) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t := o.video
	if !o.ready || n.MediaSSRC != t.ssrc {
		return
	}
	o.buf = o.buf[:0]
	for _, pair := range n.Nacks {
		for _, seq := range pair.PacketList() {
			p := t.ring[seq%ringSize]
			switch {
			case p.payload == nil || p.seq != seq:
			case t.rtxPT == 0:
				o.seal(t.pt, seq, t.ssrc, p, nil)
			default:
				o.seal(t.rtxPT, t.rtxSeq, t.rtxSSRC, p, []byte{byte(seq >> 8), byte(seq)})
				t.rtxSeq++
			}
		}
	}
	o.carrier.send(t, o.buf)
}

// hurry implements medium.
func (o *outgoing) hurry(time.Time) bool { return false }

// beat implements medium.
func (o *outgoing) beat(time.Time) {}

// publishFile publishes a media file again and again, with FFmpeg, for one stream. The first error goes to up, or
// nil when it has begun.
func publishFile(ctx context.Context, cfg load.PublishConfig, up chan<- error) {
	var once sync.Once
	told := func(err error) { once.Do(func() { up <- err }) }
	cfg.Progress = func(load.PublishStats) { told(nil) }
	err := load.Publish(ctx, cfg)
	if err == nil && ctx.Err() == nil {
		err = errors.New("the file is over")
	}
	told(err)
}
