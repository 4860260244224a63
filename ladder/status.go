package ladder

import (
	"cmp"
	"slices"

	"sluice/media"
)

// Status is what is done for one stream.
type Status struct {
	Stream     media.Key   `json:"stream"`
	Renditions []Rendition `json:"renditions"` // the largest first
	Encoder    string      `json:"encoder"`
	PID        int         `json:"pid,omitempty"`       // of FFmpeg
	Reason     string      `json:"reason,omitempty"`    // why some are not made that could be
	Restarts   int         `json:"restarts"`            // of the encoders, because they had ended
	Lost       int         `json:"lostFrames"`          // of the source, because the encoders were too slow
	Elsewhere  bool        `json:"elsewhere,omitempty"` // another node makes them
}

// Rendition is one of a stream's, and what is done about it.
type Rendition struct {
	Name    string `json:"name"`
	Height  int    `json:"height"`
	Bitrate int    `json:"bitrate"`
	State   State  `json:"state"`
}

// State of a rendition.
type State string

// What is done about a rendition.
const (
	Made    State = "made"
	Unasked State = "nobody watches"
	Given   State = "given up"    // for want of processors
	Broken  State = "interrupted" // the encoder has ended, and is tried again
)

// Status lists what is done for all streams, ordered by name.
func (l *Ladder) Status() []Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]Status, 0, len(l.jobs))
	for _, j := range l.jobs {
		all = append(all, j.status())
	}
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(a.Stream.String(), b.Stream.String()) })
	return all
}

// Counts are what has happened since the start: encoders that ended and were started again, and frames that were left out.
func (l *Ladder) Counts() (restarts, lost int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	restarts, lost = l.restarts, l.lost
	for _, j := range l.jobs {
		s := j.status()
		restarts, lost = restarts+s.Restarts, lost+s.Lost
	}
	return restarts, lost
}

func (j *job) status() Status {
	j.in.mu.Lock()
	lost := j.in.lost
	j.in.mu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	s := Status{Stream: j.key, Encoder: j.encoder.name, PID: j.pid, Reason: j.why, Restarts: j.restarts, Lost: lost, Elsewhere: j.lent()}
	for i, r := range j.rungs {
		state := Unasked
		switch {
		case i < j.less, j.lacking>>i&1 == 1:
			state = Given
		case j.broken:
			state = Broken
		case j.making>>i&1 == 1:
			state = Made
		}
		s.Renditions = append(s.Renditions, Rendition{r.Name, r.Height, r.Bitrate, state})
	}
	return s
}
