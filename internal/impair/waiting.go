package impair

import (
	"container/heap"
	"net"
	"net/netip"
	"time"
)

// packet waits to come out.
type packet struct {
	at    time.Time
	order uint64 // of those with the same time, the first to come is the first to go
	buf   *[]byte
	dir   Direction
	out   *net.UDPConn   // Up: the client's socket
	to    netip.AddrPort // Down: the client
}

// waiting is a heap of packets, the next one to come out first.
type waiting struct {
	heap  packets
	order uint64
	held  [2]int // by direction
}

func (w *waiting) push(p packet) {
	w.order++
	p.order = w.order
	w.held[p.dir]++
	heap.Push(&w.heap, p)
}

// pop takes a packet whose time has come.
func (w *waiting) pop(now time.Time) (packet, bool) {
	if len(w.heap) == 0 || w.heap[0].at.After(now) {
		return packet{}, false
	}
	p := heap.Pop(&w.heap).(packet)
	w.held[p.dir]--
	return p, true
}

// next is how long until the next packet comes out; false: there is none.
func (w *waiting) next(now time.Time) (time.Duration, bool) {
	if len(w.heap) == 0 {
		return 0, false
	}
	return w.heap[0].at.Sub(now), true
}

// packets implement heap.Interface.
type packets []packet

func (p packets) Len() int { return len(p) }
func (p packets) Less(i, j int) bool {
	if p[i].at.Equal(p[j].at) {
		return p[i].order < p[j].order
	}
	return p[i].at.Before(p[j].at)
}
func (p packets) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)   { *p = append(*p, x.(packet)) }
func (p *packets) Pop() any {
	last := len(*p) - 1
	x := (*p)[last]
	(*p)[last] = packet{}
	*p = (*p)[:last]
	return x
}
