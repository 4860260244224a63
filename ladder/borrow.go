package ladder

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluice/media"
	"sluice/stream"
)

// name says which renditions are wanted of another node, as a part of a stream's name: 720x1500000-480x800000.
func name(rungs []Rung) string {
	var parts []string
	for _, r := range rungs {
		parts = append(parts, fmt.Sprintf("%dx%d", r.Height, r.Bitrate))
	}
	return strings.Join(parts, "-")
}

// maxRungs bounds what another node may want of one stream.
const maxRungs = 8

// parse reads what name wrote.
func parse(s string) (rungs []Rung, err error) {
	for part := range strings.SplitSeq(s, "-") {
		h, r, _ := strings.Cut(part, "x")
		height, err := strconv.Atoi(h)
		rate, err2 := strconv.Atoi(r)
		if err != nil || err2 != nil || height < 16 || height > 4320 || height%2 != 0 || rate < 10_000 || rate > 200_000_000 || len(rungs) == maxRungs {
			return nil, fmt.Errorf("%.80q says no renditions", s)
		}
		rungs = append(rungs, Rung{h + "p", height, rate})
	}
	return rungs, nil
}

var (
	errElsewhere = errors.New("the transcoder gives nothing")
	errNobody    = errors.New("no transcoder can be reached")
)

const (
	// waiting is how many bursts of another node's wait at most; then they are left out up to a key frame.
	waiting = 512
	// missedAfter: renditions that are wanted and don't come for so long are told off.
	missedAfter = 1500 * time.Millisecond
)

// borrowed are renditions that another node makes. It is a stream.Subscriber of those.
type borrowed struct {
	job   *job
	queue chan *media.Burst

	mu   sync.Mutex
	skip uint32 // tracks that are left out up to their next key frames, because the queue was full
	cut  uint32 // tracks of which something was left out
	end  error
}

// borrow has renditions made by another node until ctx ends or others are to be made, and says why.
func (j *job) borrow(ctx context.Context, which uint32) error {
	b := &borrowed{job: j, queue: make(chan *media.Burst, waiting)}
	defer b.drain()
	sub, err := j.ladder.cfg.Hub.Subscribe(ctx, j.key.Made(name(j.rungs)), stream.SubscribeOptions{Subscriber: b, Shared: true})
	if err != nil {
		return fmt.Errorf("%w: %w", errNobody, err)
	}
	defer sub.Close()
	b.Tracks(sub.Tracks())
	for i := range j.rungs {
		j.pub.Discontinuity(i)
	}
	wanted := uint32(0)
	want := func(due uint32) {
		for i := range j.rungs {
			if (wanted^due)>>i&1 == 1 {
				sub.Want(i, due>>i&1 == 1)
			}
		}
		wanted = due
	}
	sub.Start()
	want(which)
	j.log.Info("renditions are made by another node", "renditions", j.names(which))
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	j.came.Store(time.Now().UnixNano())
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case burst := <-b.queue:
			b.give(burst)
			continue
		case <-tick.C:
		}
		b.mu.Lock()
		end := b.end
		b.mu.Unlock()
		if end != nil {
			return fmt.Errorf("%w: %w", errElsewhere, end)
		}
		if j.isOver() {
			return errOver
		}
		due, _ := j.due()
		want(due)
		now := time.Now()
		if j.keyWanted.Swap(false) || due != 0 && now.Sub(j.in.keyed()) > keyEvery {
			j.sub.RequestKeyFrame(j.picture)
		}
		missed := due != 0 && now.Sub(j.in.fed()) < time.Second && now.Sub(time.Unix(0, j.came.Load())) > missedAfter
		j.miss(due, missed)
	}
}

// miss notes whether renditions come that should.
func (j *job) miss(due uint32, missed bool) {
	j.mu.Lock()
	changed := missed != j.broken
	j.broken, j.making = missed, due&^j.lacking
	switch {
	case missed:
		j.why = errElsewhere.Error()
	case j.lacking != 0:
		j.why = "the transcoder does not make " + strings.Join(j.names(j.lacking), ", ")
	case j.less == 0:
		j.why = ""
	}
	j.mu.Unlock()
	if changed && missed {
		j.log.Warn("renditions are interrupted", "reason", errElsewhere)
	}
	if changed {
		j.offer()
	}
}

// give publishes what the other node made of a frame, with the timestamp that the frame has here.
func (b *borrowed) give(burst *media.Burst) {
	defer burst.Release()
	b.job.came.Store(time.Now().UnixNano())
	b.mu.Lock()
	cut := burst.Key && b.cut>>burst.Track&1 == 1
	if cut {
		b.cut &^= 1 << burst.Track
	}
	b.mu.Unlock()
	if cut {
		b.job.pub.Discontinuity(burst.Track)
	}
	c := burst.Clone()
	c.Timestamp = b.job.in.stamp(burst)
	b.job.pub.Write(c)
}

func (b *borrowed) drain() {
	for len(b.queue) > 0 {
		(<-b.queue).Release()
	}
}

// GOP implements stream.Subscriber: what was made for others before is of no use.
func (b *borrowed) GOP([]*media.Burst) {}

// Burst implements stream.Subscriber.
func (b *borrowed) Burst(burst *media.Burst) {
	if burst.Track >= len(b.job.rungs) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.skip>>burst.Track&1 == 1 && !burst.Key {
		return
	}
	select {
	case b.queue <- burst.Retain():
		if b.skip>>burst.Track&1 == 1 {
			b.skip &^= 1 << burst.Track
		}
	default:
		burst.Release()
		b.skip |= 1 << burst.Track
		b.cut |= 1 << burst.Track
	}
}

// Tracks implements stream.Subscriber: a transcoder that is short of processors makes fewer.
func (b *borrowed) Tracks(tracks []media.Track) {
	j := b.job
	j.mu.Lock()
	j.lacking = 0
	for i := range j.rungs {
		if i < len(tracks) && tracks[i].Bitrate == 0 {
			j.lacking |= 1 << i
		}
	}
	j.mu.Unlock()
	j.wake()
}

// Message implements stream.Subscriber.
func (b *borrowed) Message(media.Message) {}

// End implements stream.Subscriber.
func (b *borrowed) End(reason error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end = reason
}

// Make makes renditions of a stream for another node, which takes them by a name that media.Key.Made has made: it gets the stream, and publishes them
// for as long as they are taken. ctx bounds the time until then.
func (l *Ladder) Make(ctx context.Context, made media.Key) error {
	source, what := made.Source()
	rungs, err := parse(what)
	if err != nil {
		return err
	}
	j := &job{ladder: l, key: source, log: l.cfg.Log.With("stream", source), rungs: rungs, made: made, changed: make(chan struct{}, 1)}
	j.in = newInput(j)
	l.mu.Lock()
	running, there := l.running != nil, l.jobs[made] != nil
	if running && !there {
		l.jobs[made] = j
	}
	l.mu.Unlock()
	switch {
	case !running:
		return stream.ErrClosing
	case there:
		return nil
	}
	err = j.adopt(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && l.running == nil {
		j.pub.Close(stream.ErrClosing)
		j.sub.Close()
		err = stream.ErrClosing
	}
	if err != nil {
		delete(l.jobs, made)
		return err
	}
	l.beginLocked(made, j)
	return nil
}
