package rtc

import "time"

// history is which packets of a track have come, and which are missing: it says what to ask for again (RFC 4585 §6.2.1), and keeps
// what came twice away from those behind.
type history struct {
	begun   bool
	top     uint16 // highest number that came
	seen    [historySize / 64]uint64
	missing []missing
	repair  time.Duration // how long it takes until a packet that was asked for comes, smoothed
}

// missing is a packet that has not come.
type missing struct {
	seq   uint16
	asked time.Time // for the last time; zero: not yet
	since time.Time
	tries int
}

const (
	historySize = 2048 // packets; a power of 2
	// maxMissing is how many packets are asked for; when more are missing, only a key frame helps.
	maxMissing = 512
	// reordering is how long a packet may be late before it is asked for.
	reordering = 10 * time.Millisecond
	// How often a packet is asked for, and how long.
	maxTries = 10
	giveUp   = time.Second
	// What stands for the repair time before one was seen, and its bounds.
	firstRepair = 50 * time.Millisecond
	leastRepair = 20 * time.Millisecond
	mostRepair  = 300 * time.Millisecond
)

// add notes a packet. It reports whether it is the first with its number, and whether so much was lost that the stream begins anew.
func (h *history) add(seq uint16, now time.Time) (fresh, torn bool) {
	if !h.begun {
		h.begun, h.top, h.repair = true, seq, firstRepair
		h.mark(seq)
		return true, false
	}
	switch d := int16(seq - h.top); {
	case d > maxMissing || d < -historySize:
		*h = history{}
		h.add(seq, now)
		return true, true
	case d > 0:
		for s := h.top + 1; s != seq; s++ {
			h.seen[s%historySize/64] &^= 1 << (s % 64)
			h.missing = append(h.missing, missing{seq: s, since: now})
		}
		h.top = seq
		h.mark(seq)
		if over := len(h.missing) - maxMissing; over > 0 {
			h.missing = append(h.missing[:0], h.missing[over:]...)
			torn = true
		}
		return true, torn
	case h.seen[seq%historySize/64]>>(seq%64)&1 == 1:
		return false, false
	default:
		h.mark(seq)
		h.found(seq, now)
		return true, false
	}
}

// expect notes as missing what comes before a packet that is about to be added.
func (h *history) expect(seq uint16, now time.Time) {
	if d := int16(seq - h.top); h.begun && d > 1 && d <= maxMissing {
		for s := h.top + 1; s != seq; s++ {
			h.seen[s%historySize/64] &^= 1 << (s % 64)
			h.missing = append(h.missing, missing{seq: s, since: now})
		}
		h.top = seq - 1
	}
}

// misses reports whether a packet is still waited for. Only then may one that was sent again take its number: else the same number
// could be handed on with another content.
func (h *history) misses(seq uint16) bool {
	for i := range h.missing {
		if h.missing[i].seq == seq {
			return true
		}
	}
	return false
}

func (h *history) mark(seq uint16) { h.seen[seq%historySize/64] |= 1 << (seq % 64) }

// found takes a packet off the list.
func (h *history) found(seq uint16, now time.Time) {
	for i := range h.missing {
		if m := h.missing[i]; m.seq == seq {
			if m.tries == 1 { // which of several was answered can't be told
				h.repair += (now.Sub(m.asked) - h.repair) / 8
			}
			h.missing = append(h.missing[:i], h.missing[i+1:]...)
			return
		}
	}
}

// ask lists the packets to be asked for now; lost reports that some will never come.
func (h *history) ask(now time.Time) (seqs []uint16, lost bool) {
	pause := min(max(h.repair*3/2, leastRepair), mostRepair)
	kept := h.missing[:0]
	for _, m := range h.missing {
		if m.tries == maxTries || now.Sub(m.since) > giveUp {
			lost = true
			continue
		}
		if m.asked.IsZero() && now.Sub(m.since) >= reordering || !m.asked.IsZero() && now.Sub(m.asked) >= pause {
			m.asked = now
			m.tries++
			seqs = append(seqs, m.seq)
		}
		kept = append(kept, m)
	}
	h.missing = kept
	return seqs, lost
}
