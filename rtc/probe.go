package rtc

// Probe sends more than the media for a moment, up to rate bit/s, by sending packets again that the peer has. The estimate rises to what came of
// it. It does nothing for a peer that tells no arrival times, or whose path is busy already.
func (v *Sender) Probe(rate int) {
	if sh := v.home(); sh != nil {
		sh.post(task{call: func(sh *shard) { v.probe(sh, float64(rate)) }})
	}
}

// Full says that the viewer's path is full, and takes about so many bit/s.
func (v *Sender) Full(rate int) {
	if sh := v.home(); sh != nil {
		sh.post(task{call: func(sh *shard) {
			if v.path != nil {
				v.path.Full(float64(rate), sh.now)
				v.budget = min(v.budget, 0)
			}
		}})
	}
}

func (v *Sender) probe(sh *shard, rate float64) {
	if v.gone || v.lane == nil || v.path == nil || v.tcp != nil || len(v.waiting) > 0 || len(v.again) > 0 || v.path.Probing(sh.now) {
		return
	}
	v.path.Probe(rate, sh.now)
	sh.fallBehind(v)
}

// sendProbe sends what is due of a probe; it reports whether there will be more.
func (v *Sender) sendProbe(sh *shard) bool {
	if v.path == nil {
		return false
	}
	due, open := v.path.Due(sh.now)
	if !open {
		return false
	}
	t := &v.tracks[v.group.picture]
	for seq, n := uint16(t.sent.top), 0; due > 0 && n < paceAfter; seq, n = seq-1, n+1 {
		v.resendOne(sh, asked{v.group.picture, seq})
		due, _ = v.path.Due(sh.now)
	}
	return v.path.Probed(sh.now)
}
