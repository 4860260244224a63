package ladder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"slices"
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
	made    media.Key // under which another node takes what is made here; zero: it is published beside the stream
	log     *slog.Logger
	source  media.Track
	picture int
	rungs   []Rung // the largest first
	bitrate int    // of the source, when it began

	// Under the ladder's lock.
	of     []Rung    // by the rules, when it began
	height int       // of the source, when it began
	other  time.Time // since when the source has another; zero: it has not

	pub *stream.Publisher
	sub *stream.Subscription
	in  *input

	keyWanted atomic.Bool  // a key frame of the source, which makes one of each rendition
	came      atomic.Int64 // when something last came of the encoders, Unix nanoseconds

	changed  chan struct{} // what is wanted has changed, or the stream is over
	mu       sync.Mutex
	wanted   uint32 // by rung
	less     int    // so many of the largest are not made, for want of processors
	why      string // that, or why nothing is made
	broken   bool   // nothing can be had at present
	lacking  uint32 // what another node does not make, for want of processors
	making   uint32 // by rung
	restarts int
	encoder  encoder
	pid      int   // of the child; 0: there is none
	over     error // why the job is
}

const (
	// A child that ends is started again at once, then after a pause, which grows.
	firstPause = 200 * time.Millisecond
	lastPause  = 10 * time.Second
	// settled is how long a child must have run to be taken for a good one.
	settled = 5 * time.Second
	// badAfter is after how many children in a row that ended at once an encoder in hardware is given up: it may take no more streams.
	badAfter = 3
	// keyEvery is how often the source is to have a key frame: at each of them the renditions have one.
	keyEvery = 2 * time.Second
	// linger is how long a rendition is made that nobody watches any more.
	linger = 10 * time.Second
)

var (
	errOver  = errors.New("the stream is over")
	errOther = errors.New("the stream is to have other renditions")
)

// run publishes the renditions and makes them until the stream is over.
func (j *job) run(ctx context.Context) {
	if j.pub == nil && j.open(ctx) != nil {
		return
	}
	defer j.sub.Close()
	defer j.pub.Close(stream.ErrStopped)
	j.sub.Start()
	pause, quick := time.Duration(0), 0
	without := map[string]bool{} // encoders that don't do for this stream
	for {
		which, ok := j.choose(ctx)
		if !ok {
			return
		}
		began := time.Now()
		why := j.attempt(ctx, which, without)
		switch {
		case ctx.Err() != nil || j.isOver():
			return
		case errors.Is(why, errWanted):
			pause, quick = 0, 0
			continue
		case errors.Is(why, errSlow):
			j.ladder.tooSlow(j, which)
		}
		if time.Since(began) > settled {
			pause, quick = 0, 0
		}
		if quick++; quick == badAfter && j.encoder.hardware {
			j.log.Warn("encoder is given up for this stream: it ends again and again", "encoder", j.encoder.name)
			without[j.encoder.name], quick = true, 0
		}
		j.log.Warn("renditions are interrupted", "reason", why, "again", pause)
		if !j.rest(ctx, why, pause) {
			return
		}
		pause = min(max(2*pause, firstPause), lastPause)
	}
}

// open publishes the renditions beside the stream.
func (j *job) open(ctx context.Context) (err error) {
	if j.sub, err = j.ladder.cfg.Hub.Subscribe(ctx, j.key, stream.SubscribeOptions{Subscriber: j.in, Shared: true}); err != nil {
		return err
	}
	if j.pub, err = j.publish(ctx, j.key, stream.PublishOptions{Beside: true}); err != nil {
		j.sub.Close()
	}
	return err
}

// adopt gets the stream from its node, and publishes the renditions for another to take.
func (j *job) adopt(ctx context.Context) (err error) {
	if j.sub, err = j.ladder.cfg.Hub.Subscribe(ctx, j.key, stream.SubscribeOptions{Subscriber: j.in, Shared: true}); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			j.sub.Close()
		}
	}()
	tracks := j.sub.Tracks()
	j.picture = slices.IndexFunc(tracks, func(t media.Track) bool { return t.Kind == media.Video })
	if j.picture < 0 {
		return fmt.Errorf("make renditions of %s: it has no picture", j.key)
	}
	for i := range tracks {
		if i != j.picture {
			j.sub.Want(i, false)
		}
	}
	j.source = tracks[j.picture]
	j.in.frames.Codec = j.source.Codec.Name
	j.pub, err = j.publish(ctx, j.made, stream.PublishOptions{Relayed: true})
	return err
}

func (j *job) publish(ctx context.Context, key media.Key, o stream.PublishOptions) (*stream.Publisher, error) {
	for _, r := range j.rungs {
		o.Tracks = append(o.Tracks, media.Track{Kind: media.Video, Codec: j.source.Codec, Rendition: r.Name, Bitrate: r.Bitrate, Height: r.Height})
	}
	o.Exact, o.OnWanted, o.OnEnd = true, j.want, j.end
	o.OnKeyFrameRequest = func(int) { j.keyWanted.Store(true) }
	return j.ladder.cfg.Hub.Publish(ctx, key, o)
}

// attempt finds an encoder and makes renditions with it until there is a reason not to.
func (j *job) attempt(ctx context.Context, which uint32, without map[string]bool) error {
	if j.lent() {
		return j.borrow(ctx, which)
	}
	e, err := j.ladder.bench.pick(ctx, j.source.Codec.Name, without)
	if err != nil {
		return err
	}
	j.mu.Lock()
	j.encoder, j.making = e, which
	j.mu.Unlock()
	err = j.encode(ctx, which)
	j.mu.Lock()
	j.making, j.pid = 0, 0
	j.mu.Unlock()
	return err
}

// lent reports whether another node makes the renditions.
func (j *job) lent() bool { return j.ladder.cfg.Elsewhere && j.made == (media.Key{}) }

// rest waits for so long, during which viewers don't count on renditions; false: the stream is over.
func (j *job) rest(ctx context.Context, why error, pause time.Duration) bool {
	set := func(broken bool, why string) {
		j.mu.Lock()
		j.broken = broken
		if j.less == 0 {
			j.why = why
		}
		j.mu.Unlock()
		j.offer()
	}
	j.mu.Lock()
	j.restarts++
	j.mu.Unlock()
	if pause > firstPause {
		set(true, why.Error())
		defer set(false, "")
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-j.changed:
			if j.isOver() {
				return false
			}
		}
	}
}

// offer tells viewers' nodes which renditions can be had.
func (j *job) offer() {
	j.mu.Lock()
	less, broken, lacking := j.less, j.broken, j.lacking
	j.mu.Unlock()
	for i, r := range j.rungs {
		rate := r.Bitrate
		if broken || i < less || lacking>>i&1 == 1 {
			rate = 0
		}
		j.pub.Offer(i, rate, 0)
	}
}

// review ends the job when the stream is to have other renditions. The ladder's lock is held.
func (j *job) review(rungs []Rung, height int) {
	switch {
	case !slices.Equal(rungs, j.of):
		j.end(errOther)
	case height == j.height:
		j.other = time.Time{}
	case j.other.IsZero():
		j.other = time.Now()
	case time.Since(j.other) > steady && !slices.Equal(fitting(rungs, height, j.bitrate), j.rungs):
		j.end(errOther)
	}
}

// top is the height of the largest rendition that is made, if it could be given up; 0: none could.
func (j *job) top() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	if i := bits.TrailingZeros32(j.making); j.making != 0 && i < len(j.rungs)-1 && !j.lent() {
		return j.rungs[i].Height
	}
	return 0
}

// given is how many renditions were given up.
func (j *job) given() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.less
}

// most is the largest of the renditions that are made.
func (j *job) most() uint32 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.making & -j.making
}

// fewer gives up the largest of some renditions. One is always left.
func (j *job) fewer(which uint32, why string) {
	j.mu.Lock()
	less := min(bits.TrailingZeros32(which)+1, len(j.rungs)-1)
	changed := less > j.less
	if changed {
		j.less, j.why = less, why
	}
	j.mu.Unlock()
	if changed {
		j.log.Warn("fewer renditions are made", "given up", j.names(1<<less-1), "reason", why)
		j.wake()
	}
}

// more makes one again that was given up.
func (j *job) more() {
	j.mu.Lock()
	j.less--
	name := j.rungs[j.less].Name
	if j.less == 0 {
		j.why = ""
	}
	j.mu.Unlock()
	j.log.Info("there is room for a rendition again", "rendition", name)
	j.wake()
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

// end is called by the hub, when the stream is over or has another codec, and by review.
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

// due are the rungs that should be made, as bits, and those that may be.
func (j *job) due() (due, may uint32) {
	j.mu.Lock()
	defer j.mu.Unlock()
	may = (1<<len(j.rungs) - 1) &^ (1<<j.less - 1)
	if j.ladder.cfg.OnDemand || j.made != (media.Key{}) {
		return j.wanted & may, may
	}
	return may, may
}

// choose waits until some are due; false: the stream is over.
func (j *job) choose(ctx context.Context) (which uint32, ok bool) {
	j.offer()
	for {
		if j.isOver() {
			return 0, false
		}
		if which, _ = j.due(); which != 0 {
			return which, true
		}
		select {
		case <-ctx.Done():
			return 0, false
		case <-j.changed:
		}
	}
}

// names are those of the rungs in which.
func (j *job) names(which uint32) (names []string) {
	for i, r := range j.rungs {
		if which>>i&1 == 1 {
			names = append(names, r.Name)
		}
	}
	return names
}
