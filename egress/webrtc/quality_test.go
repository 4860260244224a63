package webrtc

import (
	"fmt"
	"testing"

	"sluice/media"
	"sluice/stream"
)

// A rendition that nobody watches on this node has the shape of the picture; what is not of its codec can't be played in its place.
func TestQualities(t *testing.T) {
	h264, vp8 := media.Codec{Name: media.H264}, media.Codec{Name: media.VP8}
	got := Qualities(stream.Info{Tracks: []stream.TrackInfo{
		{Track: media.Track{Kind: media.Video, Codec: h264}, Flowing: true, Wanted: true, Bitrate: 2_400_000, Width: 1280, Height: 720},
		{Track: media.Track{Kind: media.Audio, Codec: media.Codec{Name: media.Opus}}, Flowing: true, Wanted: true, Bitrate: 64_000},
		{Track: media.Track{Kind: media.Video, Codec: h264, Rendition: "240p", Height: 240, Bitrate: 400_000}},
		{Track: media.Track{Kind: media.Video, Codec: h264, Rendition: "480p", Height: 480, Bitrate: 800_000}, Flowing: true, Wanted: true, Bitrate: 700_000, Width: 854, Height: 480},
		{Track: media.Track{Kind: media.Video, Codec: vp8, Rendition: "other", Height: 480, Bitrate: 800_000}, Flowing: true},
		{Track: media.Track{Kind: media.Video, Codec: h264, Rendition: "broken", Height: 360, Bitrate: 600_000}, Wanted: true},
	}})
	want := "[{0  1280 720 2400000 true H264} {3 480p 854 480 800000 true H264} {2 240p 426 240 400000 false H264}]"
	if fmt.Sprint(got) != want {
		t.Errorf("qualities are %v, want %v", got, want)
	}
}

func TestWhatAViewerMayGet(t *testing.T) {
	all := []rung{{track: 5, rate: 100, height: 180}, {track: 4, rate: 200, height: 360}, {track: 0, rate: 300, height: 720}}
	for _, c := range []struct {
		name  string
		wish  *wish
		rungs []rung
		want  string
	}{
		{"anything", nil, all, "[5 4 0] -1"},
		{"one of them", &wish{track: 4}, all, "[5 4 0] 4"},
		{"one that has ended", &wish{track: 7}, all, "[5 4 0] -1"},
		{"at most 360 pixels", &wish{track: -1, height: 360}, all, "[5 4] -1"},
		{"at most 500 pixels", &wish{track: -1, height: 500}, all, "[5 4] -1"},
		{"less than there is", &wish{track: -1, height: 100}, all, "[5] -1"},
		{"one of nothing", &wish{track: 4}, nil, "[] -1"},
		{"little of nothing", &wish{track: -1, height: 100}, nil, "[] -1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &Session{}
			s.wish.Store(c.wish)
			rungs, pinned := s.allowed(c.rungs)
			tracks := []int{}
			for _, r := range rungs {
				tracks = append(tracks, r.track)
			}
			if got := fmt.Sprint(tracks, pinned); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
