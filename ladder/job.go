package ladder

import (
	"context"
	"errors"
	"log/slog"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"sluice/media"
	"sluice/stream"
)

// job makes the renditions of one stream.
type job struct {
	ladder  *Ladder
	key     media.Key
	log     *slog.Logger
	source  media.Track
	picture int
	rungs   []Rung // the largest first
	encoder string

	pub *stream.Publisher
	sub *stream.Subscription
	in  *input

	keyWanted atomic.Bool // a key frame of the source, which makes one of each rendition

	changed chan struct{} // what is wanted has changed, or the stream is over
	mu      sync.Mutex
	wanted  uint32 // by rung
	over    error  // why the stream is over
}

const (
	// A child that ends is started again after a pause, which grows.
	firstPause = 200 * time.Millisecond
	lastPause  = 10 * time.Second
	// settled is how long a child must have run to be taken for a good one.
	settled = 5 * time.Second
	// keyEvery is how often the source is to have a key frame: at each of them the renditions have one.
	keyEvery = 2 * time.Second
	// linger is how long a rendition is made that nobody watches any more.
	linger = 10 * time.Second
)

var errOver = errors.New("the stream is over")

// run publishes the renditions and makes them until the stream is over.
func (j *job) run(ctx context.Context) {
	j.changed = make(chan struct{}, 1)
	j.in = newInput(j)
	var tracks []media.Track
	for _, r := range j.rungs {
		t := media.Track{Kind: media.Video, Codec: j.source.Codec, Rendition: r.Name, Bitrate: r.Bitrate, Height: r.Height}
		tracks = append(tracks, t)
	}
	var err error
	if j.pub, err = j.ladder.cfg.Hub.Publish(ctx, j.key, stream.PublishOptions{Beside: true, Tracks: tracks, OnWanted: j.want, OnEnd: j.end,
		OnKeyFrameRequest: func(int) { j.keyWanted.Store(true) }}); err != nil {
		return
	}
	defer j.pub.Close(stream.ErrStopped)
	if j.sub, err = j.ladder.cfg.Hub.Subscribe(ctx, j.key, stream.SubscribeOptions{Subscriber: j.in, Shared: true}); err != nil {
		return
	}
	defer j.sub.Close()
	j.sub.Start()
	fewer, pause := 0, firstPause
	for {
		which, ok := j.choose(ctx, fewer)
		if !ok {
			return
		}
		began := time.Now()
		why := j.encode(ctx, which)
		switch {
		case ctx.Err() != nil || j.isOver():
			return
		case errors.Is(why, errWanted):
			pause = firstPause
			continue
		case errors.Is(why, errSlow):
			if fewer < len(j.rungs)-1 {
				fewer++
			}
			j.log.Warn("this machine is too slow for all renditions: fewer are made", "renditions", len(j.rungs)-fewer, "of", len(j.rungs), "reason", why)
		default:
			if time.Since(began) > settled {
				pause = firstPause
			}
			j.log.Warn("renditions are interrupted", "reason", why, "again", pause)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// want is called by the hub.
func (j *job) want(track int, wanted, _ bool) {
	j.mu.Lock()
	j.wanted &^= 1 << track
	if wanted {
		j.wanted |= 1 << track
	}
	j.mu.Unlock()
	j.wake()
}

// end is called by the hub, when the stream is over or has another codec.
func (j *job) end(why error) {
	j.mu.Lock()
	j.over = why
	j.mu.Unlock()
	j.wake()
}

func (j *job) wake() {
	select {
	case j.changed <- struct{}{}:
	default:
	}
}

func (j *job) isOver() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.over != nil
}

// due are the rungs that should be made, as bits; the largest are left out when the machine is short of time.
func (j *job) due(fewer int) uint32 {
	all := uint32(1)<<len(j.rungs) - 1
	if j.ladder.cfg.OnDemand {
		j.mu.Lock()
		all = j.wanted
		j.mu.Unlock()
	}
	for ; fewer > 0 && bits.OnesCount32(all) > 1; fewer-- {
		all &^= all & -all
	}
	return all
}

// choose waits until some are due; false: the stream is over.
func (j *job) choose(ctx context.Context, fewer int) (which uint32, ok bool) {
	for {
		if j.isOver() {
			return 0, false
		}
		if which = j.due(fewer); which != 0 {
			return which, true
		}
		select {
		case <-ctx.Done():
			return 0, false
		case <-j.changed:
		}
	}
}
