package rtc

import (
	"testing"
	"time"

	"sluice/media"
)

// A picture that was paused goes on with what is cached, or at its next key frame; another rendition may have been chosen meanwhile.
func TestPauseThePicture(t *testing.T) {
	for _, c := range []struct {
		name   string
		cached []*media.Burst
		take   int
		came   int    // packets
		first  uint16 // number in its source of the first that came afterwards
	}{
		{"cached", []*media.Burst{rendition(0, 180, 30000, 8, true), rendition(0, 188, 33000, 8, false)}, 0, 5*8 + 2*8 + 8*8, 180},
		{"at a key frame", nil, 0, 5*8 + 8, 252},
		{"another one, cached", []*media.Burst{rendition(1, 40020, 30000, 2, true), rendition(1, 40022, 33000, 2, false)}, 1, 5*8 + 2*2 + 8*2, 40020},
		{"another one, at its key frame", nil, 1, 5*8 + 2, 40038},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, 97)
			s.join()
			for i := range uint32(20) {
				switch i {
				case 5:
					s.v.pause(0)
				case 7:
					s.take(c.take)
				case 12:
					s.v.resume(s.shard, 0, c.cached)
					s.later(20 * time.Millisecond)
				}
				key := i%10 == 0 || i == 19
				s.send(rendition(0, uint16(100+8*i), i*3000, 8, key), false)
				s.send(rendition(1, uint16(40000+2*i), i*3000, 2, key), false)
			}
			s.later(20 * time.Millisecond)
			all := s.frames(t)
			unbroken(t, all)
			if len(all) != c.came || s.v.Rendition() != c.take {
				t.Fatalf("%d packets came of rendition %d, want %d of %d", len(all), s.v.Rendition(), c.came, c.take)
			}
			if got := all[40].source; got != c.first {
				t.Errorf("it goes on with packet %d, want %d", got, c.first)
			}
			if all[39].timestamp != 4*3000 {
				t.Errorf("the last before the pause is of %d", all[39].timestamp)
			}
		})
	}
}

// Who is paused before he joins gets nothing until he is resumed.
func TestPausedFromTheStart(t *testing.T) {
	s := newStage(t, 97)
	s.v.pause(0)
	s.join(rendition(0, 100, 0, 8, true))
	s.send(rendition(0, 108, 3000, 8, false), false)
	s.later(20 * time.Millisecond)
	if all := s.frames(t); len(all) != 0 {
		t.Fatalf("%d packets came", len(all))
	}
	s.v.resume(s.shard, 0, []*media.Burst{rendition(0, 100, 0, 8, true), rendition(0, 108, 3000, 8, false)})
	s.later(20 * time.Millisecond)
	s.send(rendition(0, 116, 6000, 8, false), false)
	all := s.frames(t)
	unbroken(t, all)
	if len(all) != 24 {
		t.Errorf("%d packets came", len(all))
	}
	s.v.resume(s.shard, 0, []*media.Burst{rendition(0, 100, 0, 8, true)}) // what goes on goes on
	s.later(20 * time.Millisecond)
	if all := s.frames(t); len(all) != 0 {
		t.Errorf("%d packets came again", len(all))
	}
}

// Sound goes on with the next packet, and the picture does not notice.
func TestPauseTheSound(t *testing.T) {
	s := newStageOf(t, []media.Track{h264, opus}, outTrack{}, outTrack{wanted: true, pt: 111, ssrc: 3})
	s.join()
	for i := range uint32(20) {
		switch i {
		case 5:
			s.v.pause(1)
		case 15:
			s.v.resume(s.shard, 1, nil)
		}
		s.send(rendition(1, uint16(100+i), i*960, 1, false), false)
	}
	all := s.frames(t)
	unbroken(t, all)
	if len(all) != 10 || all[5].source != 115 || all[5].timestamp != 15*960 {
		t.Errorf("%d packets came: %+v", len(all), all)
	}
	if s.v.Rendition() != 0 {
		t.Errorf("the picture is of track %d", s.v.Rendition())
	}
}
