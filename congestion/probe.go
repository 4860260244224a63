package congestion

import "time"

// probe is a short time in which more is sent to a peer than its media, and what the peer tells of it: it shows what the path takes, which
// media alone can't as long as it is less.
type probe struct {
	number uint8   // 0: there was none
	open   bool    // what is sent belongs to it
	rate   float64 // bit/s that are to be sent, media included
	begun  time.Time
	until  time.Time

	packets, bytes      int   // sent
	firstSent, lastSent int64 // microseconds, ours
	got, lost           int
	gotBytes, first     int   // of those that came, and of the first
	firstCame, lastCame int64 // microseconds, the peer's
}

// probeFor is how long a probe lasts; it is probeLong for one of less than probeSlow bit/s: a narrow path, too, may take some packets faster than it takes many. probeWait is how
// long its last packets may be on their way.
const (
	probeFor  = 80 * time.Millisecond
	probeLong = 120 * time.Millisecond
	probeSlow = 1.5e6
	probeWait = time.Second
)

// Probe begins a probe: from now on Due says how much there is to be sent.
func (c *Control) Probe(rate float64, now time.Time) {
	long := probeFor
	if rate < probeSlow {
		long = probeLong
	}
	c.probe = probe{number: c.probe.number%255 + 1, open: true, rate: rate, begun: now, until: now.Add(long)}
}

// Probing reports whether a probe is under way, or its result.
func (c *Control) Probing(now time.Time) bool {
	p := &c.probe
	return p.number != 0 && (p.open || p.packets > p.got+p.lost && now.Sub(p.until) < probeWait)
}

// Due is how many bytes a probe lacks; false: there is none.
func (c *Control) Due(now time.Time) (int, bool) {
	p := &c.probe
	if !p.open {
		return 0, false
	}
	return int(p.rate/8*now.Sub(p.begun).Seconds()) - p.bytes, true
}

// Probed ends a probe whose time is over. It reports whether there is more to send.
func (c *Control) Probed(now time.Time) bool {
	c.probe.open = c.probe.open && now.Before(c.probe.until)
	return c.probe.open
}

func (p *probe) send(size int, at int64) {
	if p.packets == 0 {
		p.firstSent = at
	}
	p.packets, p.bytes, p.lastSent = p.packets+1, p.bytes+size, at
}

func (p *probe) part(s *sentPacket) bool { return s.probe != 0 && s.probe == p.number }

func (p *probe) lose(s *sentPacket) {
	if p.part(s) {
		p.lost++
	}
}

func (p *probe) take(s *sentPacket, at int64) {
	if !p.part(s) {
		return
	}
	if p.got == 0 {
		p.first, p.firstCame = int(s.size), at
	}
	p.got, p.gotBytes, p.lastCame = p.got+1, p.gotBytes+int(s.size), max(p.lastCame, at)
}

// result is what the path takes by the probe, in bit/s, once the peer has told of all of it. It is said once. Delay is how long a packet takes usually:
// what came later has waited in a queue. When the peer has read some late, that makes the result smaller than the truth, never greater.
func (p *probe) result(delay int64) (rate float64, ok bool) {
	if p.number == 0 || p.open || p.packets == 0 || p.got+p.lost < p.packets {
		return 0, false
	}
	sent, came := p.lastSent-p.firstSent, p.lastCame-p.firstSent-delay
	few := p.got < 5 || p.lost*10 > p.packets || sent <= 0
	rate = float64(p.gotBytes-p.first) * 8e6 / float64(max(sent, came, p.lastCame-p.firstCame))
	if came > sent+sent/5 { // the path was full: the queue that has filled must empty
		rate *= 0.95
	}
	p.packets = 0
	return rate, !few
}
