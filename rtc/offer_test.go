package rtc

import (
	"fmt"
	"strings"
	"testing"

	"sluice/media"
)

// All media lines share a transport, so a payload type may mean one thing only (RFC 8843 §9.1).
func TestOffersPayloadTypesAreUnique(t *testing.T) {
	pcmu := media.Track{Kind: media.Audio, Codec: media.Codec{Name: media.PCMU, ClockRate: 8000}}
	for _, c := range []struct {
		name   string
		tracks []media.Track
	}{{"H.264 and Opus", []media.Track{h264, opus}}, {"Opus and H.264", []media.Track{opus, h264}}, {"H.264 and G.711", []media.Track{h264, pcmu}}} {
		t.Run(c.name, func(t *testing.T) {
			s, offer, err := listen(t).NewGroup(c.tracks, false).Offer(SenderOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			seen := map[string]string{}
			for _, line := range strings.Split(offer, "\r\n") {
				var pt, name string
				if n, _ := fmt.Sscanf(line, "a=rtpmap:%s %s", &pt, &name); n == 2 {
					if had := seen[pt]; had != "" {
						t.Errorf("payload type %s is %s and %s", pt, had, name)
					}
					seen[pt] = name
				}
			}
			if len(seen) < 2 {
				t.Errorf("the offer has only %v", seen)
			}
		})
	}
}

// Clients that use the first candidate only, as ffmpeg does, must not get one that just this machine has.
func TestLoopbackIsTheLastAddress(t *testing.T) {
	hosts, err := New(Config{Listen: ":0"}).addresses("")
	if err != nil {
		t.Fatal(err)
	}
	loopback := false
	for _, h := range hosts {
		if loopback && !h.IsLoopback() {
			t.Fatalf("%s comes after loopback: %v", h, hosts)
		}
		loopback = h.IsLoopback()
	}
	if !loopback {
		t.Errorf("no loopback address for clients on this machine: %v", hosts)
	}
}
