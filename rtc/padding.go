package rtc

// padding renumbers a track from which packets without a payload are left out, so that
// nobody behind takes them for lost. Late packets get the number they would have had.
type padding struct {
	skipped uint16     // packets left out so far
	recent  [64]uint16 // the last of them
	n       int        // how many of recent are set
	at      int
}

// skip leaves a packet out.
func (p *padding) skip(seq uint16) {
	p.skipped++
	p.recent[p.at] = seq
	p.at = (p.at + 1) % len(p.recent)
	p.n = min(p.n+1, len(p.recent))
}

// number is the new number of a packet.
func (p *padding) number(seq uint16) uint16 {
	before := p.skipped
	for _, s := range p.recent[:p.n] {
		if int16(s-seq) > 0 {
			before--
		}
	}
	return seq - before
}
