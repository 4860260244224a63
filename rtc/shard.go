package rtc

import (
	"sync"
	"sync/atomic"
	"time"

	"sluice/codec"
	"sluice/media"
	"sluice/udp"
)

// shard is a part of the endpoint's viewers with one loop that sends to them: it takes a stream's burst once, and
// for each of its viewers writes the RTP headers, seals the packets and hands the frame to the kernel as one message,
// many messages to a system call. Viewers are entries in slices; only the loop touches them.
type shard struct {
	index    int
	endpoint *Endpoint
	sockets  []*udp.Socket // by host
	wake     chan struct{}
	viewers  atomic.Int32
	pending  atomic.Bool // there is something in the inbox

	mu     sync.Mutex
	inbox  []task
	queued int       // packets in the inbox
	since  time.Time // when its first task came
	warned time.Time // when it was last said that video is dropped
	closed bool

	// The loop's own, or of whoever helps it: turn is held by the one who does.
	turn    sync.Mutex
	tasks   []task
	batches []*udp.Batch // by host
	arena   []byte       // sealed packets that are not sent yet
	runs    []run
	head    [codec.MaxHead]byte // of a payload that is written anew
	red     [redHeader]byte     // of the packet that is being sealed
	behind  []*Sender           // those that have packets waiting, because of pacing
	now     time.Time
	due     time.Time // when those that are behind get more
}

// task is something for the loop to do, in the order in which it came. One of burst, call is set.
type task struct {
	lane   *lane
	burst  *media.Burst
	resync bool // bursts before this one were dropped
	call   func(*shard)
}

// run is a part of a burst that goes as one message: packets of one size, the last of which may be smaller.
type run struct {
	from, to int
	size     int // of the payloads, but for the last
}

const (
	// warnEvery is how often it is said at most that video is left out.
	warnEvery = 10 * time.Second
	// shardQueue is how many packets wait for a loop at most. Then video is dropped up to the next key frame: the
	// processor is too slow for its viewers.
	shardQueue = 8192
	// arenaSize is how much is sealed before it is sent: more system calls with less, more misses of the cache with more.
	arenaSize = 128 << 10
	// largest is what one message can add to the arena.
	largest = udp.MaxSegments * (headerSize + media.MaxPayload + codec.MaxDescriptor + 64)
	// queueMost is how long something waits for the loop at most, for the same reason.
	queueMost = time.Second
	// paceAfter is how many packets a path is given at once, and paceFor how long it gets to take them. When the loop comes late, it gets as
	// many more, but not more than paceLate times as many.
	paceAfter = 32
	paceFor   = 2 * time.Millisecond
	paceLate  = 4
)

func newShard(e *Endpoint, index int, sockets []*udp.Socket) *shard {
	sh := &shard{endpoint: e, index: index, sockets: sockets, wake: make(chan struct{}, 1), arena: make([]byte, 0, arenaSize+largest)}
	for _, s := range sockets {
		sh.batches = append(sh.batches, s.NewBatch())
	}
	return sh
}

// post gives the loop something to do. It never blocks.
func (sh *shard) post(t task) {
	sh.mu.Lock()
	if sh.closed {
		sh.mu.Unlock()
		if t.burst != nil {
			t.burst.Release()
		}
		return
	}
	now := time.Now()
	if len(sh.inbox) == 0 {
		sh.since = now
	}
	if b := t.burst; b != nil {
		var fits bool
		if fits, t.resync = t.lane.fitsLocked(b, sh.queued > shardQueue || now.Sub(sh.since) > queueMost); !fits {
			waited := now.Sub(sh.since)
			sh.mu.Unlock()
			b.Release()
			sh.warn("video is left out for all viewers up to the next key frame: this machine is too slow for them", waited)
			return
		}
		sh.queued += len(b.Packets)
	}
	sh.inbox = append(sh.inbox, t)
	sh.pending.Store(true)
	sh.mu.Unlock()
	if sh.endpoint.receiving.Load() == 0 { // else settle comes
		sh.signal()
	}
}

// warn says that video is left out, but not too often.
func (sh *shard) warn(what string, waited time.Duration) {
	sh.mu.Lock()
	now := time.Now()
	due := now.Sub(sh.warned) > warnEvery
	if due {
		sh.warned = now
	}
	sh.mu.Unlock()
	if due {
		sh.endpoint.cfg.Log.Warn(what, "waited", waited.Round(time.Millisecond), "viewers", sh.viewers.Load())
	}
}

// signal wakes the loop.
func (sh *shard) signal() {
	select {
	case sh.wake <- struct{}{}:
	default:
	}
}

// run is the loop; it ends when done is closed.
func (sh *shard) run(done <-chan struct{}) {
	defer sh.close()
	pace := time.NewTimer(time.Hour)
	defer pace.Stop()
	for {
		select {
		case <-done:
			return
		case <-sh.wake:
		case <-pace.C:
		}
		sh.turn.Lock()
		sh.work()
		behind, due := len(sh.behind) > 0, sh.due
		sh.turn.Unlock()
		if behind {
			pace.Reset(max(time.Until(due), 0))
		}
	}
}

// help does the loop's work instead of it, if it is not at it.
func (sh *shard) help() {
	if !sh.turn.TryLock() {
		sh.signal() // who has the turn may have looked already
		return
	}
	sh.work()
	behind := len(sh.behind) > 0
	sh.turn.Unlock()
	if behind {
		sh.signal() // it has the timer
	}
}

// work does what is in the inbox, and what is due.
func (sh *shard) work() {
	sh.mu.Lock()
	sh.tasks, sh.inbox = sh.inbox, sh.tasks[:0]
	sh.queued = 0
	sh.pending.Store(false)
	sh.mu.Unlock()
	sh.now = time.Now()
	for i := range sh.tasks {
		t := &sh.tasks[i]
		if t.burst != nil {
			t.lane.send(sh, t.burst, t.resync)
			t.burst.Release()
		} else {
			t.call(sh)
		}
		*t = task{}
	}
	if len(sh.behind) > 0 && !sh.now.Before(sh.due) {
		sh.catchUp(paceAfter * min(1+int(sh.now.Sub(sh.due)/paceFor), paceLate))
		sh.due = sh.now.Add(paceFor)
	}
	sh.flush()
}

func (sh *shard) close() {
	sh.turn.Lock()
	defer sh.turn.Unlock()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.closed = true
	for _, t := range append(sh.inbox, sh.tasks...) {
		if t.burst != nil {
			t.burst.Release()
		}
	}
	sh.inbox, sh.tasks = nil, nil
}

// flush hands everything that was sealed to the kernel.
func (sh *shard) flush() {
	for _, b := range sh.batches {
		if !b.Empty() {
			_ = b.Flush() // the socket is closed: so is the shard
		}
	}
	sh.arena = sh.arena[:0]
}

// room makes sure that another message fits into the arena and the batch.
func (sh *shard) room(host int) {
	if len(sh.arena) > arenaSize || sh.batches[host].Full() {
		sh.flush()
	}
}

// cutRuns splits packets into runs.
func cutRuns(runs []run, packets []media.Packet) []run {
	for i := 0; i < len(packets); {
		size, described := len(packets[i].Payload), len(packets[i].Descriptor)
		most := min(udp.MaxSegments, (udp.MaxMessage-1024)/(size+described+64))
		j := i + 1
		for j < len(packets) && j-i < most && len(packets[j].Payload) == size && len(packets[j].Descriptor) == described {
			j++
		}
		if j < len(packets) && j-i < most && len(packets[j].Payload) < size && len(packets[j].Descriptor) == described {
			j++
		}
		runs = append(runs, run{i, j, size})
		i = j
	}
	return runs
}

// fallBehind gives a viewer more later.
func (sh *shard) fallBehind(v *Sender) {
	if v.behind {
		return
	}
	if len(sh.behind) == 0 {
		sh.due = sh.now.Add(paceFor)
	}
	v.behind = true
	sh.behind = append(sh.behind, v)
}

// catchUp sends the next packets, so many of each, to those that have some waiting.
func (sh *shard) catchUp(most int) {
	still := sh.behind[:0]
	for _, v := range sh.behind {
		if v.behind = v.sendWaiting(sh, most); v.behind {
			still = append(still, v)
		}
	}
	clear(sh.behind[len(still):])
	sh.behind = still
}
