package webrtc

import (
	"container/heap"
	"math/rand/v2"
	"time"

	"github.com/pion/interceptor/pkg/twcc"

	"sluice/congestion"
	"sluice/rtc"
)

// world is a viewer behind a link, in virtual time: what the loop of rtc does for him, the link, and what his player shows. It sends as rtc does, 32 packets of a frame at
// once and 32 each 2 ms, asks for what is lost as a player does, and chooses as a session does.
type world struct {
	link  link
	rungs []rung
	rand  *rand.Rand

	now    time.Time
	events events
	order  int

	// The server.
	path    congestion.Control
	choice  choice
	at      int // rung that is sent
	next    int // and that is to be sent from its next key frame on
	paused  bool
	key     time.Time   // the next key frame of all rungs
	cached  [][]float64 // bytes of the frames since the last one, by rung
	waiting []datagram
	budget  float64 // bytes that may be given to the link at once
	paced   time.Time
	again   float64   // bytes that may be sent again
	red     time.Time // until then sound goes with redundancy
	frame   int
	sends   int
	learned time.Time // when the peer told of something last
	looked  time.Time // when the path was looked at last

	// The link and the peer.
	free     time.Time
	out      time.Time // when the last comes out
	reading  time.Time // the peer reads nothing before
	recorder *twcc.Recorder
	player   player

	log []moment
}

// link is what a path takes, second by second.
type link struct {
	rate    func(at float64) float64 // bit/s
	queue   time.Duration            // that it holds at that rate
	delay   time.Duration
	loss    func(at float64) float64
	jitter  time.Duration                  // of each packet, in order
	stalls  float64                        // times a second at which the peer reads nothing for a while
	stalled time.Duration                  // at most
	late    time.Duration                  // by which the sender's loop comes late at most
	drift   float64                        // of the peer's clock
	cross   func(at float64) (bit float64) // what another takes of it, bit/s
}

// moment is what can be seen at a time.
type moment struct {
	at       float64 // seconds
	link     float64
	estimate int
	rung     int
	frozen   float64 // seconds so far
}

// datagram is a packet of a frame.
type datagram struct {
	frame int // when it is due
	n, of int // the how manyth that is sent, and of how many packets
	key   bool
	rung  int
	id    int // the packet's own
	size  int
	at    time.Time
}

// event is something that happens at a time.
type event struct {
	at    time.Time
	order int
	do    func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	x := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return x
}

var epoch = time.Unix(1_000_000, 0)

const keyEvery = 2 * time.Second

// simulate lets a viewer watch for so many seconds.
func simulate(l link, rungs []rung, seconds float64, seed uint64) []moment {
	w := &world{link: l, rungs: rungs, rand: rand.New(rand.NewPCG(seed, 1)), now: epoch, recorder: twcc.NewRecorder(1), cached: make([][]float64, len(rungs))}
	w.budget, w.paced, w.looked = 64<<10, epoch, epoch
	w.at = fits(w.rungs, firstRate)
	w.next = w.at
	w.key = epoch
	w.player.have, w.player.came = map[int]int{}, map[int]bool{}
	w.every(time.Second/30, w.picture)
	w.every(20*time.Millisecond, w.sound)
	w.every(50*time.Millisecond, w.survey)
	w.every(100*time.Millisecond, w.tell)
	w.every(2*time.Millisecond, w.pace)
	w.every(10*time.Millisecond, w.player.look(w))
	if l.stalls > 0 {
		w.stall()
	}
	for end := epoch.Add(time.Duration(seconds * float64(time.Second))); w.now.Before(end); {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
	return w.log
}

func (w *world) seconds() float64 { return w.now.Sub(epoch).Seconds() }

func (w *world) after(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.events, event{w.now.Add(d), w.order, do})
}

func (w *world) every(d time.Duration, do func()) {
	var again func()
	again = func() {
		do()
		w.after(d, again)
	}
	w.after(d, again)
}

func (w *world) upTo(d time.Duration) time.Duration {
	return time.Duration(w.rand.Float64() * float64(d))
}

// stall stops the peer's reading for a while, again and again.
func (w *world) stall() {
	w.after(time.Duration(w.rand.ExpFloat64()/w.link.stalls*float64(time.Second)), func() {
		w.reading = w.now.Add(w.upTo(w.link.stalled))
		w.stall()
	})
}

// picture is a frame of all rungs.
func (w *world) picture() {
	w.frame++
	key := !w.now.Before(w.key)
	if key {
		w.key = w.now.Add(keyEvery)
	}
	// A key frame has as much as six others; the others vary.
	share := 6.0
	if !key {
		share = 0.5 + w.rand.Float64()
	}
	frame := w.frame
	sizes := make([]float64, len(w.rungs))
	for i, r := range w.rungs {
		sizes[i] = float64(r.rate) / 8 / 30 * share * 60 / 65
		if key {
			w.cached[i] = nil
		}
		w.cached[i] = append(w.cached[i], sizes[i])
	}
	w.after(w.upTo(w.link.late), func() {
		if key && w.next != w.at {
			w.at, w.waiting = w.next, nil
			w.paused = false
		}
		if w.paused && !key {
			return
		}
		w.paused = false
		w.send(frame, key, w.at, sizes[w.at])
	})
}

// send sends a frame.
func (w *world) send(frame int, key bool, rung int, bytes float64) {
	n := int(bytes/1100) + 1
	w.sends++
	for i := range n {
		w.waiting = append(w.waiting, datagram{frame: frame, n: w.sends, of: n, key: key, rung: rung, id: w.sends<<12 | i, size: int(bytes) / n, at: w.now})
	}
	w.pace()
}

func (w *world) pace() {
	rate := w.path.Pace(w.now)
	if full := max(4800, rate/8*0.02); w.budget < full {
		w.budget = min(w.budget+rate/8*w.now.Sub(w.paced).Seconds(), full)
	}
	w.paced = w.now
	for n := 0; n < 32 && len(w.waiting) > 0 && w.budget > 0; n++ {
		w.give(w.waiting[0], true)
		w.budget -= float64(w.waiting[0].size)
		w.waiting = w.waiting[1:]
	}
	for range 32 {
		due, open := w.path.Due(w.now)
		if !open || due <= 0 {
			break
		}
		w.give(datagram{size: 1100}, false)
	}
	w.path.Probed(w.now)
}

// sound is a packet of 64 kbit/s, with the one before if the peer loses some.
func (w *world) sound() {
	size := 160
	if w.now.Before(w.red) && !w.path.Crowded(w.now) {
		size *= 2
	}
	w.budget -= float64(size)
	w.give(datagram{size: size}, false)
}

// headers are the bytes of a packet that are not its payload: IP, UDP, RTP with an extension, and the tag.
const headers = 28 + 12 + 8 + 16

// give gives a packet to the link.
func (w *world) give(d datagram, media bool) {
	number := w.path.Send(d.size, w.now)
	at := w.seconds()
	if w.link.loss != nil && w.rand.Float64() < w.link.loss(at) {
		if media {
			w.lost(d)
		}
		return
	}
	rate := w.link.rate(at)
	if w.link.cross != nil {
		rate -= w.link.cross(at)
	}
	if w.free.Before(w.now) {
		w.free = w.now
	}
	if w.free.Sub(w.now) > w.link.queue {
		if media {
			w.lost(d)
		}
		return
	}
	w.free = w.free.Add(time.Duration(float64(d.size+headers) * 8 / rate * float64(time.Second)))
	out := w.free.Add(w.link.delay + w.upTo(w.link.jitter))
	if out.Before(w.out) {
		out = w.out
	}
	w.out = out
	w.after(out.Sub(w.now), func() { w.arrive(number, d, media) })
}

// lost asks for a packet again, as soon as a player would.
func (w *world) lost(d datagram) {
	w.red = w.now.Add(15 * time.Second)
	w.after(max(0, w.free.Sub(w.now))+2*w.link.delay+15*time.Millisecond, func() {
		if w.again < float64(d.size) || d.rung != w.at || w.paused {
			w.after(100*time.Millisecond, func() {
				if d.rung == w.at && !w.paused && d.frame > w.frame-45 {
					w.lost(d)
				}
			})
			return
		}
		for range w.path.Again(w.now) {
			w.again -= float64(d.size)
			w.give(d, true)
		}
	})
}

// arrive has a packet at the peer, who may not be reading.
func (w *world) arrive(number uint16, d datagram, media bool) {
	if w.now.Before(w.reading) {
		w.after(w.reading.Sub(w.now), func() { w.arrive(number, d, media) })
		return
	}
	came := w.now.UnixMicro() + int64(float64(w.now.Sub(epoch).Microseconds())*w.link.drift)
	w.recorder.Record(1, number, came)
	if media {
		w.player.take(w, d)
	}
}

// tell is the peer's message about arrival times.
func (w *world) tell() {
	if w.now.Before(w.reading) {
		w.after(w.reading.Sub(w.now), w.tell)
		return
	}
	for _, p := range w.recorder.BuildFeedbackPacket() {
		b, err := p.Marshal()
		if err != nil {
			panic(err)
		}
		w.after(w.link.delay, func() {
			w.learned = w.now
			w.path.Feedback(b[12:], w.now)
			w.look()
		})
	}
}

// survey looks at the path if nothing was told of it just now, or something waits.
func (w *world) survey() {
	if len(w.waiting) > 0 || w.now.Sub(w.learned) > 100*time.Millisecond {
		w.look()
	}
	w.log = append(w.log, moment{w.seconds(), w.link.rate(w.seconds()), w.path.Estimate(), w.player.rung, w.player.total(w.now).Seconds()})
}

// look looks at the path, and does what is chosen.
func (w *world) look() {
	p := rtc.Path{At: w.now, Rendition: w.rungs[w.at].track, Estimate: w.path.Estimate(), Late: w.path.Late(w.now), Queue: w.path.Queue(), Probing: w.path.Probing(w.now)}
	if len(w.waiting) > 0 {
		p.Waiting = w.now.Sub(w.waiting[0].at)
	}
	w.again = min(w.again+0.25*float64(p.Estimate)/8*w.now.Sub(w.looked).Seconds(), 0.25*float64(p.Estimate)/8)
	w.looked = w.now
	m := w.choice.step(p, w.rungs, -1)
	if m.probe > 0 && len(w.waiting) == 0 {
		w.path.Probe(float64(m.probe), w.now)
	}
	if m.take < 0 || m.take == w.rungs[w.next].track && !m.down {
		return
	}
	for i, r := range w.rungs {
		if r.track == m.take {
			w.next = i
		}
	}
	if !m.down || w.next == w.at {
		return
	}
	if m.full {
		w.path.Full(float64(m.rate), w.now)
		w.budget = min(w.budget, 0)
	}
	bytes := 0.0
	for _, b := range w.cached[w.next] {
		bytes += b
	}
	switch how := goDown(int(bytes), w.key.Sub(w.now), m.rate, p.Estimate, m.full); {
	case how == rtc.AtOnce:
		w.at, w.waiting = w.next, nil
		for i, bytes := range w.cached[w.at] {
			w.send(w.frame, i == 0, w.at, bytes)
		}
	case how == rtc.Paused:
		w.paused, w.waiting = true, nil
		fallthrough
	default:
		if w.key.Sub(w.now) > mostWait {
			w.key = w.now.Add(100 * time.Millisecond)
		}
	}
}

// player shows frames in order, each when all of it has come, and not before it is due: its delay is that of the latest of the last seconds.
type player struct {
	came   map[int]bool // packets
	have   map[int]int  // how many of them, by frame
	ready  []datagram   // the first of each frame that is complete
	shown  int          // frame
	rung   int
	at     time.Time // when that was
	delay  time.Duration
	last   []time.Duration
	frozen time.Duration
}

func (p *player) take(w *world, d datagram) {
	if p.came[d.id] {
		return
	}
	p.came[d.id] = true
	if p.have[d.n]++; p.have[d.n] == d.of {
		delete(p.have, d.n)
		p.ready = append(p.ready, d)
		p.look(w)()
	}
}

// look shows what can be shown: the next frame, or a key frame.
func (p *player) look(w *world) func() {
	return func() {
		for i := 0; i < len(p.ready); i++ {
			d := p.ready[i]
			switch {
			case d.n <= p.shown:
			case d.n != p.shown+1 && !d.key:
				continue
			case !p.show(w, d):
				return
			}
			p.ready = append(p.ready[:i], p.ready[i+1:]...)
			i = -1
		}
	}
}

// show shows a frame if it is due.
func (p *player) show(w *world, d datagram) bool {
	late := w.now.Sub(epoch.Add(time.Duration(d.frame) * time.Second / 30))
	if late < p.delay {
		return false
	}
	p.delay = min(max(p.delay-time.Millisecond/2, late), time.Second)
	if !p.at.IsZero() {
		gap := w.now.Sub(p.at)
		if p.isFreeze(gap) {
			p.frozen += gap
		}
		p.last = append(p.last, gap)
		p.last = p.last[max(0, len(p.last)-30):]
	}
	p.shown, p.rung, p.at = d.n, d.rung, w.now
	return true
}

// isFreeze is the definition of freezeCount (W3C webrtc-stats).
func (p *player) isFreeze(gap time.Duration) bool {
	if len(p.last) < 5 {
		return false
	}
	var sum time.Duration
	for _, d := range p.last {
		sum += d
	}
	mean := sum / time.Duration(len(p.last))
	return gap >= max(3*mean, mean+150*time.Millisecond)
}

// total is the time frozen so far, the picture that stands now included.
func (p *player) total(now time.Time) time.Duration {
	if gap := now.Sub(p.at); !p.at.IsZero() && p.isFreeze(gap) {
		return p.frozen + gap
	}
	return p.frozen
}
