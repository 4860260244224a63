package ladder

import (
	"cmp"
	"slices"
	"strings"

	"sluice/media"
)

// Rung is a rendition to be made.
type Rung struct {
	Name    string // "480p"
	Height  int    // pixels
	Bitrate int    // bit/s
}

// Rule says which renditions the streams of a name get.
type Rule struct {
	Streams string // "live/camera", "live/camera*", "live/*", "*"
	Rungs   []Rung // none: they are played as they are published
}

// narrower orders rules by whom they are for, the narrowest first: a stream goes by the first that is for it.
func narrower(a, b Rule) int {
	pattern := func(r Rule) int { return strings.Count(r.Streams, "*") }
	return cmp.Or(cmp.Compare(pattern(a), pattern(b)), cmp.Compare(len(b.Streams), len(a.Streams)), cmp.Compare(a.Streams, b.Streams))
}

// Set makes a rule for the streams of a name, in the place of the one for the same name. Streams that it changes get other renditions within
// seconds; their viewers stay.
func (l *Ladder) Set(r Rule) error {
	if err := media.CheckPattern(r.Streams); err != nil {
		return err
	}
	r.Rungs = slices.Clone(r.Rungs)
	slices.SortFunc(r.Rungs, func(a, b Rung) int { return cmp.Or(cmp.Compare(b.Height, a.Height), cmp.Compare(b.Bitrate, a.Bitrate)) })
	l.Unset(r.Streams)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rules = append(l.rules, r)
	slices.SortFunc(l.rules, narrower)
	return nil
}

// Unset takes the rule for a name away.
func (l *Ladder) Unset(streams string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rules = slices.DeleteFunc(slices.Clone(l.rules), func(r Rule) bool { return r.Streams == streams })
}

// rungs are those of a stream by the rules, the largest first.
func (l *Ladder) rungs(key media.Key) []Rung {
	main, _ := key.Main() // a backup is to look like what it stands in for
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.rules {
		if main.Matches(r.Streams) {
			return r.Rungs
		}
	}
	return nil
}

// fitting are the rungs for a picture: none is larger, and one of the same height has clearly less of a bit rate.
func fitting(rungs []Rung, height, bitrate int) (fit []Rung) {
	for _, r := range rungs {
		if r.Height < height || r.Height == height && float64(r.Bitrate) < 0.8*float64(bitrate) {
			fit = append(fit, r)
		}
	}
	return fit
}
