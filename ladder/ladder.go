// Package ladder makes smaller renditions of streams: it plays a stream from the hub, has one FFmpeg decode, scale and encode it, and publishes
// what comes out beside it.
//
// Locks: Ladder.mu before job.mu; input.mu nests with none.
//
// Imports: codec/frame, internal/ffmpeg, media, stream.
package ladder

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"sluice/media"
	"sluice/stream"
)

// Config of a Ladder.
type Config struct {
	Hub   *stream.Hub
	Rules []Rule // at first; see Set
	// OnDemand makes only those renditions that somebody watches.
	OnDemand bool
	Encoders []string // of FFmpeg, taken before those that work without being named: libx264, libopenh264, libvpx …
	Preset   string   // of libx264; default superfast
	// Load is how much of its processors the node uses, 0 to 1, in the mean over some seconds. Above MaxLoad fewer renditions are made;
	// default 0.85. nil: as many as are wanted.
	Load    func() float64
	MaxLoad float64
	// Elsewhere has another node make the renditions: the hub gets them under the name that media.Key.Made gives them.
	Elsewhere bool
	Log       *slog.Logger // default slog.Default()
}

// Ladder makes renditions of all streams that are published on this node.
type Ladder struct {
	cfg   Config
	bench bench

	mu       sync.Mutex
	rules    []Rule // the narrowest first
	jobs     map[media.Key]*job
	running  context.Context // Run's; nil: it does not
	governor governor
	restarts int // of jobs that are over
	lost     int
	ended    sync.WaitGroup
}

// New returns a ladder; it does no I/O.
func New(cfg Config) (*Ladder, error) {
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	cfg.Preset = cmp.Or(cfg.Preset, "superfast")
	cfg.MaxLoad = cmp.Or(cfg.MaxLoad, 0.85)
	if cfg.Load == nil {
		cfg.Load = func() float64 { return 0 }
	}
	for _, name := range cfg.Encoders {
		if err := CheckEncoder(name); err != nil {
			return nil, err
		}
	}
	l := &Ladder{cfg: cfg, jobs: map[media.Key]*job{}, bench: bench{preferred: cfg.Encoders, log: cfg.Log}, governor: governor{most: cfg.MaxLoad, settle: takesEffect, short: shortRoom}}
	for _, r := range cfg.Rules {
		if err := l.Set(r); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// lookEvery is how often the hub is looked at for streams that have no renditions yet.
const lookEvery = 250 * time.Millisecond

// Run makes renditions until ctx ends.
func (l *Ladder) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	l.mu.Lock()
	l.running = ctx
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.running = nil
		l.mu.Unlock()
		l.ended.Wait()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, info := range l.cfg.Hub.List() {
			l.consider(info)
		}
		l.govern(time.Now())
	}
}

const (
	// known is how long a stream must have run for its bitrate to be known.
	known = 1500 * time.Millisecond
	// steady is how long a stream's picture must have had another size for its renditions to be others: encoders go down and up with their network.
	steady = 3 * time.Second
)

// consider begins to make renditions of a stream that has none, and ends those that are no longer the right ones.
func (l *Ladder) consider(info stream.Info) {
	if info.Relayed || !info.Flowing || time.Since(info.Started) < known {
		return
	}
	rungs := l.rungs(info.Key)
	tracks := make([]media.Track, len(info.Tracks))
	for i, t := range info.Tracks {
		tracks[i] = t.Track
	}
	picture := slices.IndexFunc(tracks, func(t media.Track) bool { return t.Kind == media.Video })
	if picture < 0 || info.Tracks[picture].Height == 0 || info.Tracks[picture].Bitrate == 0 {
		return // nothing is known of it yet
	}
	height, bitrate := info.Tracks[picture].Height, info.Tracks[picture].Bitrate
	l.mu.Lock()
	defer l.mu.Unlock()
	if j := l.jobs[info.Key]; j != nil {
		j.review(rungs, height)
		return
	}
	if fit := fitting(rungs, height, bitrate); len(fit) > 0 && !sends(info.Tracks) {
		j := &job{ladder: l, key: info.Key, log: l.cfg.Log.With("stream", info.Key), source: tracks[picture], picture: picture,
			rungs: fit, of: rungs, height: height, bitrate: bitrate, changed: make(chan struct{}, 1)}
		j.in = newInput(j)
		l.beginLocked(info.Key, j)
	}
}

// beginLocked runs a job. The ladder's Run has not ended.
func (l *Ladder) beginLocked(key media.Key, j *job) {
	l.jobs[key] = j
	ctx := l.running
	l.ended.Go(func() {
		j.run(ctx)
		l.mu.Lock()
		defer l.mu.Unlock()
		s := j.status()
		l.restarts, l.lost = l.restarts+s.Restarts, l.lost+s.Lost
		delete(l.jobs, key)
	})
}

// sends reports whether a publisher sends renditions himself.
func sends(tracks []stream.TrackInfo) bool {
	return slices.ContainsFunc(tracks, func(t stream.TrackInfo) bool { return t.Rendition != "" && (t.Flowing || t.Track.Bitrate > 0) })
}

// govern makes fewer renditions on this node when it is short of processors, and more again when there is room.
func (l *Ladder) govern(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	load := l.cfg.Load()
	var from, to *job // of the largest that is made, and of the most that are not
	for _, j := range l.jobs {
		if top := j.top(); top > 0 && (from == nil || top > from.top()) {
			from = j
		}
		if g := j.given(); g > 0 && (to == nil || g > to.given()) {
			to = j
		}
	}
	switch l.governor.step(now, load, from != nil, to != nil) {
	case -1:
		from.fewer(from.most(), fmt.Sprintf("%.0f %% of the node's processors are busy", 100*load))
	case 1:
		to.more()
	}
}

// tooSlow is what a job says whose encoders don't keep up.
func (l *Ladder) tooSlow(j *job, which uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.governor.fewer(time.Now())
	j.fewer(which, errSlow.Error())
}
