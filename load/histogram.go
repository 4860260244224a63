package load

import (
	"math/bits"
	"time"
)

// Histogram counts durations with a resolution of 1.6 % and bounded memory, so that the histograms
// of thousands of viewers can be added up. Its zero value is empty. Values under zero (clocks that
// disagree) count as zero.
type Histogram struct {
	counts   []uint32 // by index(µs)
	n        uint64
	min, max time.Duration
}

// Up to 2^32 µs = 71 minutes; longer ones count as that.
const (
	subBits  = 6
	maxIndex = (32-subBits)<<subBits + 1<<subBits
)

// index is linear up to 64 µs; above, 64 steps for each power of two.
func index(us uint64) int {
	shift := max(0, bits.Len64(us)-1-subBits)
	return min(shift<<subBits+int(us>>shift), maxIndex-1)
}

// value is the middle of what has that index.
func value(i int) time.Duration {
	shift := max(0, i>>subBits-1)
	low := uint64(i-shift<<subBits) << shift
	return time.Duration(low+(uint64(1)<<shift)/2) * time.Microsecond
}

// Add counts a duration.
func (h *Histogram) Add(d time.Duration) {
	d = max(0, d)
	i := index(uint64(d / time.Microsecond))
	if i >= len(h.counts) {
		h.counts = append(h.counts, make([]uint32, i+1-len(h.counts))...)
	}
	h.counts[i]++
	if h.n == 0 || d < h.min {
		h.min = d
	}
	h.max = max(h.max, d)
	h.n++
}

// Merge adds the other's counts.
func (h *Histogram) Merge(o *Histogram) {
	if o.n == 0 {
		return
	}
	if len(o.counts) > len(h.counts) {
		h.counts = append(h.counts, make([]uint32, len(o.counts)-len(h.counts))...)
	}
	for i, c := range o.counts {
		h.counts[i] += c
	}
	if h.n == 0 || o.min < h.min {
		h.min = o.min
	}
	h.max = max(h.max, o.max)
	h.n += o.n
}

// Count is how many durations were added.
func (h *Histogram) Count() uint64 { return h.n }

// Quantile is the smallest duration that the share q of all does not exceed (nearest rank),
// 0 when there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := uint64(q*float64(h.n) + 0.9999999)
	rank = min(max(rank, 1), h.n)
	var seen uint64
	for i, c := range h.counts {
		if seen += uint64(c); seen >= rank {
			return min(max(value(i), h.min), h.max)
		}
	}
	return h.max
}
