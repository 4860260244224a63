package rtc

import (
	"errors"
	"sync/atomic"
)

// Stats are what an endpoint has and has done since the start.
type Stats struct {
	Sessions       int
	Viewers        []int  // connected, by shard
	Waiting        []int  // packets that wait for the shard's loop
	Sent           uint64 // bytes; see Sent
	Failed         uint64 // messages that could not be sent
	Again          uint64 // packets sent again
	NeverConnected uint64 // sessions that did not connect in time
	Disconnected   uint64 // sessions whose peer fell silent
	LoopLate       uint64 // times that video was left out up to a key frame for all viewers of a shard and stream: the machine is too slow
	PathLate       uint64 // the same for one viewer, whose path takes less than what comes
	Segments       bool   // the kernel cuts messages (GSO)
}

// counts are what happens rarely enough to be counted when it does.
type counts struct {
	again, neverConnected, disconnected, loopLate, pathLate atomic.Uint64
}

// gone notes a session that ended by itself.
func (c *counts) gone(why error) {
	if errors.Is(why, ErrTimeout) {
		c.neverConnected.Add(1)
	} else {
		c.disconnected.Add(1)
	}
}

// Stats may be called from any goroutine, after Listen.
func (e *Endpoint) Stats() Stats {
	s := Stats{Sessions: e.Sessions(), Sent: e.Sent(), Failed: e.Failed(), Again: e.counts.again.Load(), NeverConnected: e.counts.neverConnected.Load(),
		Disconnected: e.counts.disconnected.Load(), LoopLate: e.counts.loopLate.Load(), PathLate: e.counts.pathLate.Load(), Segments: e.segments()}
	for _, sh := range e.shards {
		sh.mu.Lock()
		waiting := sh.queued
		sh.mu.Unlock()
		s.Viewers, s.Waiting = append(s.Viewers, int(sh.viewers.Load())), append(s.Waiting, waiting)
	}
	return s
}
