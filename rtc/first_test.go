package rtc

import (
	"fmt"
	"testing"

	"sluice/media"
)

// TestFirst: a viewer's first packet and first key frame are told once each, when they are sent.
func TestFirst(t *testing.T) {
	opus := media.Track{Kind: media.Audio, Codec: media.Codec{Name: media.Opus, ClockRate: 48000, Channels: 2}}
	sound := func() *media.Burst {
		b := picture(1, 1, 1, false)
		b.Track = 1
		return b
	}
	for _, tc := range []struct {
		name    string
		cached  []*media.Burst
		live    []*media.Burst
		without bool // video: the viewer takes sound alone
		want    string
	}{
		{name: "from the cache", cached: []*media.Burst{picture(1, 1, 3, true), picture(4, 2, 1, false)}, live: []*media.Burst{picture(5, 3, 1, true)}, want: "[false true]"},
		{name: "nothing cached", live: []*media.Burst{picture(1, 1, 3, true), picture(4, 2, 1, true)}, want: "[false true]"},
		{name: "sound first", live: []*media.Burst{sound(), picture(1, 1, 3, true)}, want: "[false true]"},
		{name: "no key frame yet", live: []*media.Burst{picture(1, 1, 1, false), picture(2, 2, 1, false)}, want: "[false]"},
		{name: "no picture wanted", live: []*media.Burst{picture(1, 1, 1, true), sound(), picture(2, 2, 1, true)}, without: true, want: "[false]"},
		{name: "nothing sent", want: "[]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStageOf(t, []media.Track{h264, opus}, outTrack{wanted: !tc.without, pt: 96, ssrc: 1}, outTrack{wanted: true, pt: 97, ssrc: 3})
			var told []bool
			s.v.onFirst = func(key bool) { told = append(told, key) }
			s.join(tc.cached...)
			for _, b := range tc.live {
				s.send(b, false)
			}
			if fmt.Sprint(told) != tc.want {
				t.Errorf("told %v, want %s", told, tc.want)
			}
			if s.lane.leave(s.v); len(s.lane.fresh) > 0 {
				t.Error("a viewer who has left is waited for")
			}
		})
	}
}
