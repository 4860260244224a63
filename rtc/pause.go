package rtc

import (
	"slices"

	"sluice/media"
)

// Pause sends no more of the picture, or of the sound, to a viewer until Resume; also to one who has not joined yet.
func (g *Group) Pause(v *Sender, kind media.Kind) {
	if sh, i := v.home(), g.of(kind); sh != nil && i >= 0 {
		sh.post(task{call: func(*shard) { v.pause(i) }})
	}
}

// Resume goes on: with what is cached of the picture, told under the same lock as what is sent to the group afterwards, or at its next key frame.
func (g *Group) Resume(v *Sender, kind media.Kind, cached []*media.Burst) {
	sh, i := v.home(), g.of(kind)
	if sh == nil || i < 0 {
		return
	}
	cached = slices.Clone(cached)
	for _, b := range cached {
		b.Retain()
	}
	sh.post(task{call: func(sh *shard) { v.resume(sh, i, cached) }})
}

// of is the index of the track of a kind; -1: there is none.
func (g *Group) of(kind media.Kind) int {
	return slices.IndexFunc(g.tracks, func(t media.Track) bool { return t.Kind == kind })
}

// pause is Pause in the shard's loop.
func (v *Sender) pause(i int) {
	out := &v.tracks[i]
	out.off = true
	v.drop(out)
}

// resume is Resume in the shard's loop; the bursts' references are its own. What the track is now follows what it was without a gap, as if it
// were another rendition.
func (v *Sender) resume(sh *shard, i int, cached []*media.Burst) {
	out := &v.tracks[i]
	if !out.off || v.gone {
		for _, b := range cached {
			b.Release()
		}
		return
	}
	out.off, out.paused = false, true
	if len(cached) > 0 {
		out.next = cached[0].Track
	}
	v.change(sh, out, cached)
}
