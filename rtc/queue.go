package rtc

import (
	"sync"

	"sluice/media"
)

// What waits for one peer at most, in packets: about two seconds of 2.5 Mbit/s beyond a cached GOP.
const queuePackets = 4096

// item is a burst with the timestamp it gets for this peer.
type item struct {
	burst     *media.Burst
	timestamp uint32
	past      bool // comes from the cache and was moved in time
}

// queue holds what is to be sent to one peer. When it is full, it drops video from
// the oldest up to the next key frame, or all of it and then waits for one; sound is kept as long as it fits.
type queue struct {
	mu      sync.Mutex
	items   []item
	packets int
	starved int // track whose next burst must be a key frame; -1: none
	cut     int // track from which something was dropped before the item popped last; -1: none
	cutNext int // the same for items not popped yet
	ask     int // track for which a key frame is to be requested; -1: none
	dropped uint64
	closed  bool
	ready   chan struct{}
}

func (q *queue) init() {
	q.ready = make(chan struct{}, 1)
	q.starved, q.cut, q.cutNext, q.ask = -1, -1, -1, -1
}

// push adds items, whose references it takes.
func (q *queue) push(items ...item) {
	q.mu.Lock()
	for _, it := range items {
		if q.closed {
			it.burst.Release()
			continue
		}
		if q.starved == it.burst.Track {
			if !it.burst.Key {
				q.dropped++
				it.burst.Release()
				continue
			}
			q.starved = -1
		}
		q.items = append(q.items, it)
		q.packets += len(it.burst.Packets)
		if q.packets > queuePackets && len(items) == 1 {
			q.cutLocked(it.burst.Track)
		}
	}
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// cutLocked makes room by dropping a track's bursts up to its newest key frame, or
// all of them when nothing is older than that.
func (q *queue) cutLocked(track int) {
	first, key := -1, -1
	for i, it := range q.items {
		if it.burst.Track != track {
			continue
		}
		if first < 0 {
			first = i
		}
		if it.burst.Key {
			key = i
		}
	}
	if key <= first {
		key = len(q.items)
		q.starved, q.ask = track, track
	}
	kept := q.items[:0]
	for i, it := range q.items {
		if i >= key || it.burst.Track != track {
			kept = append(kept, it)
			continue
		}
		q.dropped++
		q.packets -= len(it.burst.Packets)
		it.burst.Release()
	}
	clear(q.items[len(kept):])
	q.items = kept
	q.cutNext = track
}

// pop waits for the next item; waited says that the queue was empty. When a key frame is needed to go on, it calls ask.
func (q *queue) pop(done <-chan struct{}, ask func(track int)) (it item, waited, ok bool) {
	for {
		q.mu.Lock()
		if track := q.ask; track >= 0 {
			q.ask = -1
			q.mu.Unlock()
			ask(track)
			continue
		}
		if len(q.items) > 0 {
			it = q.items[0]
			q.items[0] = item{}
			q.items = q.items[1:]
			q.packets -= len(it.burst.Packets)
			q.cut = -1
			if q.cutNext == it.burst.Track {
				q.cut, q.cutNext = q.cutNext, -1
			}
			q.mu.Unlock()
			return it, waited, true
		}
		q.items = nil
		q.mu.Unlock()
		waited = true
		select {
		case <-q.ready:
		case <-done:
			return item{}, waited, false
		}
	}
}

// cutTrack is the track from which something was dropped just before the item popped last.
func (q *queue) cutTrack() int { return q.cut }

// drain gives back what was not sent, and whatever comes later.
func (q *queue) drain() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range q.items {
		it.burst.Release()
	}
	q.items, q.packets, q.closed = nil, 0, true
}
