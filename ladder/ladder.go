// Package ladder makes smaller renditions of streams: it plays a stream from the hub, has one FFmpeg decode, scale and encode it, and publishes
// what comes out beside it.
//
// Imports: codec/frame, internal/ffmpeg, media, stream.
package ladder

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"sluice/media"
	"sluice/stream"
)

// Rung is a rendition to be made.
type Rung struct {
	Name    string // "480p"
	Height  int    // pixels
	Bitrate int    // bit/s
}

// Config of a Ladder.
type Config struct {
	Hub   *stream.Hub
	Rungs []Rung
	Apps  []string // applications whose streams get renditions; none: all
	// OnDemand makes only those that somebody watches.
	OnDemand bool
	Encoders map[string]string // FFmpeg's encoder by codec; default libx264, libvpx, libvpx-vp9
	Preset   string            // of libx264; default superfast
	// Busy says that the node is short of processors: then fewer are made. nil: never.
	Busy func() bool
	Log  *slog.Logger // default slog.Default()
}

// Ladder makes renditions of all streams that are published on this node.
type Ladder struct {
	cfg Config

	mu    sync.Mutex
	jobs  map[media.Key]*job
	ended sync.WaitGroup
}

// New returns a ladder; it does no I/O.
func New(cfg Config) *Ladder {
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	cfg.Preset = cmp.Or(cfg.Preset, "superfast")
	if cfg.Busy == nil {
		cfg.Busy = func() bool { return false }
	}
	cfg.Rungs = slices.Clone(cfg.Rungs)
	slices.SortFunc(cfg.Rungs, func(a, b Rung) int {
		return cmp.Compare(b.Height*1_000_000_000+b.Bitrate, a.Height*1_000_000_000+a.Bitrate)
	})
	return &Ladder{cfg: cfg, jobs: map[media.Key]*job{}}
}

// lookEvery is how often the hub is looked at for streams that have no renditions yet.
const lookEvery = 250 * time.Millisecond

// Run makes renditions until ctx ends.
func (l *Ladder) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	defer l.ended.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if len(l.cfg.Rungs) == 0 {
			continue
		}
		for _, info := range l.cfg.Hub.List() {
			l.consider(ctx, info)
		}
	}
}

// known is how long a stream must have run for its bitrate to be known.
const known = 1500 * time.Millisecond

// consider begins to make renditions of a stream that has none.
func (l *Ladder) consider(ctx context.Context, info stream.Info) {
	if info.Relayed || !info.Flowing || len(l.cfg.Apps) > 0 && !slices.Contains(l.cfg.Apps, info.Key.App) {
		return
	}
	tracks := make([]media.Track, len(info.Tracks))
	for i, t := range info.Tracks {
		tracks[i] = t.Track
	}
	picture := slices.IndexFunc(tracks, func(t media.Track) bool { return t.Kind == media.Video })
	if time.Since(info.Started) < known {
		return
	}
	if picture < 0 || len(media.Main(tracks)) < len(tracks) || info.Tracks[picture].Height == 0 || info.Tracks[picture].Bitrate == 0 {
		return // it has renditions of its own, or nothing is known of it yet
	}
	rungs := l.fitting(info.Tracks[picture])
	encoder, ok := l.encoder(tracks[picture].Codec.Name)
	if len(rungs) == 0 || !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.jobs[info.Key] != nil {
		return
	}
	j := &job{ladder: l, key: info.Key, log: l.cfg.Log.With("stream", info.Key), source: tracks[picture], picture: picture, rungs: rungs, encoder: encoder}
	l.jobs[info.Key] = j
	l.ended.Go(func() {
		j.run(ctx)
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.jobs, info.Key)
	})
}

// fitting are the rungs below a picture, the largest first.
func (l *Ladder) fitting(t stream.TrackInfo) (rungs []Rung) {
	for _, r := range l.cfg.Rungs {
		if r.Height < t.Height || r.Height == t.Height && float64(r.Bitrate) < 0.8*float64(t.Bitrate) {
			rungs = append(rungs, r)
		}
	}
	return rungs
}

// encoder is FFmpeg's for a codec. The renditions have the codec of the stream, so that a player needs one decoder.
func (l *Ladder) encoder(codec string) (string, bool) {
	for name, encoder := range map[string]string{media.H264: "libx264", media.VP8: "libvpx", media.VP9: "libvpx-vp9"} {
		if (media.Codec{Name: name}).Is(codec) {
			return cmp.Or(l.cfg.Encoders[name], encoder), true
		}
	}
	return "", false
}
