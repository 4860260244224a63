package rtc

// padding renumbers a track from which packets without a payload are left out, so that
// nobody behind takes them for lost. Late packets get the number they would have had. No number is given twice: what can't be
// told for sure stays a gap.
type padding struct {
	skipped uint16     // packets left out so far
	recent  [64]uint16 // the last of them
	n       int        // how many of recent are set
	at      int
	begun   bool
	top     uint16 // highest packet that was numbered
}

// skip leaves a packet out. One that comes after a later one was numbered stays a gap.
func (p *padding) skip(seq uint16) {
	if p.begun && int16(seq-p.top) < 0 {
		return
	}
	p.skipped++
	p.recent[p.at] = seq
	p.at = (p.at + 1) % len(p.recent)
	p.n = min(p.n+1, len(p.recent))
}

// number is the new number of a packet; false: it is from before the paddings that are remembered.
func (p *padding) number(seq uint16) (uint16, bool) {
	before := p.skipped
	for _, s := range p.recent[:p.n] {
		if int16(s-seq) > 0 {
			before--
		}
	}
	if p.n == len(p.recent) && int16(p.recent[p.at]-seq) > 0 { // the oldest is newer
		return 0, false
	}
	if !p.begun || int16(seq-p.top) > 0 {
		p.begun, p.top = true, seq
	}
	return seq - before, true
}
