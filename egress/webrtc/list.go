package webrtc

import (
	"cmp"
	"slices"
	"time"

	"sluice/media"
)

// Viewer describes a session at one moment.
type Viewer struct {
	ID        string // the beginning of the session's: enough to find it in logs, not to steer it
	Remote    string // the client's address
	Since     time.Time
	Rates     Rates
	Lost      float64 // share of the packets, 0 to 1
	Jitter    time.Duration
	RoundTrip time.Duration
	Again     uint64 // packets sent again
	Quality   Quality
}

// List describes the viewers of a stream on this node, those who came first before others.
func (e *Egress) List(key media.Key) []Viewer {
	e.mu.Lock()
	var sessions []*Session
	if f := e.fans[key]; f != nil {
		for s := range f.sessions {
			sessions = append(sessions, s)
		}
	}
	e.mu.Unlock()
	list := make([]Viewer, 0, len(sessions))
	for _, s := range sessions {
		v := Viewer{ID: s.id[:6], Remote: s.request.Remote, Since: s.began}
		if sender := s.sender.Load(); sender != nil {
			stats := sender.Stats()
			v.Lost, v.Jitter, v.RoundTrip, v.Again, v.Rates.Path = stats.Lost, stats.Jitter, stats.RoundTrip, stats.Again, stats.Estimate
		}
		if q, ok := s.Playing(); ok {
			v.Quality, v.Rates.Video = q, q.Bitrate
		}
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b Viewer) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID)) })
	return list
}
