package load

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Millis is a duration that JSON has as a number of milliseconds.
type Millis time.Duration

// MarshalJSON implements json.Marshaler.
func (m Millis) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(time.Duration(m).Microseconds())/1000, 'f', -1, 64), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *Millis) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseFloat(string(b), 64)
	*m = Millis(v * float64(time.Millisecond))
	return err
}

// String is as short as is of use: "12.3 ms", "4.56 s".
func (m Millis) String() string {
	if d := time.Duration(m); d >= time.Second {
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f ms", float64(m)/float64(time.Millisecond))
}

// PlayReport is what a viewer has seen. Times to something count from the request that was answered.
type PlayReport struct {
	URL         string `json:"url"`
	Waited      Millis `json:"waitedMs"`      // for a stream that was not live, before all else
	Duration    Millis `json:"durationMs"`    // from the first packet to the end
	Answered    Millis `json:"answeredMs"`    // until media could flow: request, ICE and DTLS
	FirstPacket Millis `json:"firstPacketMs"` // 0: none came
	FirstFrame  Millis `json:"firstFrameMs"`  // until the first picture that is a key frame was complete, 0: never

	Video *TrackStats `json:"video,omitempty"`
	Audio *TrackStats `json:"audio,omitempty"`

	Reconnections    int    `json:"reconnections"` // sessions after the first, that was lost
	Moves            int    `json:"moves"`         // sessions that took another's place because the server asked
	KeyFrameRequests int    `json:"keyFrameRequests"`
	Out              string `json:"out,omitempty"` // the file that was written
}

// TrackStats are the figures of a track. Frames of sound are its packets.
type TrackStats struct {
	Codec       string  `json:"codec"`
	Width       int     `json:"width,omitempty"`
	Height      int     `json:"height,omitempty"`
	Frames      uint64  `json:"frames"`              // complete ones
	KeyFrames   uint64  `json:"keyFrames,omitempty"` // of them
	Undecodable uint64  `json:"undecodableFrames"`   // complete, but before a session's first key frame; not in Frames
	Damaged     uint64  `json:"damagedFrames"`       // with packets that never came
	FPS         float64 `json:"fps"`                 // from a quarter of a second after the first frame on, like Bitrate
	Bitrate     float64 `json:"bitrate"`             // bit/s of payload
	Packets     uint64  `json:"packets"`
	Bytes       uint64  `json:"bytes"`
	Lost        uint64  `json:"lost"`     // packets that never came, or after more than 250 ms
	Late        uint64  `json:"late"`     // packets that came after later ones: reordered, or sent again
	Repeated    uint64  `json:"repeated"` // packets that came twice, or too late
	Freezes     int     `json:"freezes"`  // pauses of more than 200 ms and of three frames
	Frozen      Millis  `json:"frozenMs"`
	LongestGap  Millis  `json:"longestGapMs"` // between complete frames
	Latency     Latency `json:"latency"`
}

// Latency is from capture to arrival of a frame's last packet, of the frames that were captured during the session.
type Latency struct {
	Frames uint64 `json:"frames"` // how many were measured; 0: the server sent no sender reports
	Min    Millis `json:"minMs"`
	P50    Millis `json:"p50Ms"`
	P95    Millis `json:"p95Ms"`
	P99    Millis `json:"p99Ms"`
	Max    Millis `json:"maxMs"`
	Cached uint64 `json:"cached"`          // frames from before the session, that are not measured
	Ahead  uint64 `json:"ahead,omitempty"` // frames that came before they were captured: the clocks disagree
}

// String is the table that `sluice play` prints.
func (r PlayReport) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name, format string, a ...any) {
		fmt.Fprintf(w, "%s\t"+format+"\n", append([]any{name}, a...)...)
	}
	row("played", "%s of %s", r.Duration, r.URL)
	if r.Waited > 0 {
		row("waited", "%s for the stream to start", r.Waited)
	}
	if r.Moves > 0 {
		row("moves", "%d", r.Moves)
	}
	if r.Reconnections > 0 {
		row("reconnections", "%d", r.Reconnections)
	}
	row("connected after", "%s", r.Answered)
	if r.FirstPacket > 0 {
		row("first packet after", "%s", r.FirstPacket)
	}
	if r.FirstFrame > 0 {
		row("first picture after", "%s", r.FirstFrame)
	}
	if v := r.Video; v != nil {
		if v.Frames > 0 {
			row("video", "%s %dx%d, %.2f frames/s, %s", v.Codec, v.Width, v.Height, v.FPS, bitrate(v.Bitrate))
		} else {
			row("video", "%s, nothing to see: no key frame came", v.Codec)
		}
		row("  frames", "%d complete, %d of them key frames, %d damaged", v.Frames, v.KeyFrames, v.Damaged)
		if v.Undecodable > 0 {
			row("  before a key frame", "%d, that can't be decoded", v.Undecodable)
		}
		v.rows(row)
		row("  key frames asked for", "%d", r.KeyFrameRequests)
	}
	if a := r.Audio; a != nil {
		row("audio", "%s, %s", a.Codec, bitrate(a.Bitrate))
		a.rows(row)
	}
	if r.Out != "" {
		row("written to", "%s", r.Out)
	}
	w.Flush() // into memory: can't fail
	return b.String()
}

func (s *TrackStats) rows(row func(name, format string, a ...any)) {
	share := 0.0
	if n := s.Packets + s.Lost; n > 0 {
		share = 100 * float64(s.Lost) / float64(n)
	}
	row("  packets", "%d, %d lost (%.2f %%), %d late", s.Packets, s.Lost, share, s.Late)
	row("  freezes", "%d, %s in all, longest gap %s", s.Freezes, s.Frozen, s.LongestGap)
	l := s.Latency
	if l.Frames == 0 {
		row("  latency", "unknown: the server sent no sender reports, or no frame from after the start")
		return
	}
	row("  latency", "p50 %s, p95 %s, p99 %s, max %s", l.P50, l.P95, l.P99, l.Max)
	if l.Ahead > l.Frames/20 {
		row("  ", "%d frames arrived before they were captured: the clocks of publisher and viewer disagree", l.Ahead)
	}
}

func bitrate(v float64) string {
	if v >= 1e6 {
		return fmt.Sprintf("%.2f Mbit/s", v/1e6)
	}
	return fmt.Sprintf("%.0f kbit/s", v/1e3)
}
