package webrtc

import (
	"errors"
	"time"

	"sluice/internal/metrics"
	"sluice/rtc"
	"sluice/stream"
)

// meters are the figures of an Egress.
type meters struct {
	join, packet, key *metrics.Durations
	asked, ended      *metrics.Counts
	changes           *metrics.Counts
}

// outcome is an error as a label, for a bounded list of them.
type outcome struct {
	err  error
	name string
}

// refusals are why there is no session, ends why there is none any more.
var (
	refusals = []outcome{{ErrFull, "full"}, {stream.ErrOffline, "offline"}, {rtc.ErrBadSDP, "bad_offer"}, {rtc.ErrNoCodec, "bad_offer"}}
	ends     = []outcome{{stream.ErrStopped, "left"}, {rtc.ErrLeft, "left"}, {rtc.ErrDisconnected, "lost"}, {rtc.ErrTimeout, "never_connected"},
		{stream.ErrLost, "stream_ended"}, {ErrCodecsChanged, "codecs_changed"}, {stream.ErrClosing, "node_stops"}}
)

func newMeters(set *metrics.Set, e *Egress) meters {
	set.Register(func(s *metrics.Sample) { s.Gauge("sluice_viewers", "Viewers' WebRTC sessions.", float64(e.Viewers())) })
	return meters{
		join:   set.Waits("sluice_viewer_join_duration_seconds", "Time from a viewer's request to ICE and DTLS being done."),
		packet: set.Waits("sluice_viewer_first_packet_seconds", "Time from a viewer's request to the first packet of media that was sent."),
		key:    set.Waits("sluice_viewer_first_key_frame_seconds", "Time from a viewer's request to the first key frame that was sent: what the server adds to the time to the first picture."),
		asked: set.Counts("sluice_viewer_requests_total", "Requests for a stream: ok, or why there is no session.", "result",
			"ok", "full", "offline", "bad_offer", "error"),
		ended: set.Counts("sluice_viewer_ends_total", "Viewers' sessions that have ended, by the reason.", "reason",
			"left", "lost", "never_connected", "stream_ended", "codecs_changed", "node_stops", "other"),
		changes: set.Counts("sluice_viewer_rendition_changes_total", "Times that a viewer was given another rendition.", "direction", "up", "down"),
	}
}

// label is what an error is called among some outcomes.
func label(err error, of []outcome, otherwise string) string {
	for _, o := range of {
		if errors.Is(err, o.err) {
			return o.name
		}
	}
	return otherwise
}

// opened counts a request that took from begun until now.
func (m *meters) opened(err error) {
	if err == nil {
		m.asked.Add("ok")
		return
	}
	m.asked.Add(label(err, refusals, "error"))
}

// first is called by the loop that sends to the viewer.
func (s *Session) first(key bool) {
	took := time.Since(s.began).Seconds()
	if key {
		s.egress.meters.key.Observe(took)
	} else {
		s.egress.meters.packet.Observe(took)
	}
	if key || s.fan.ladder.first(s.fan.group.Tracks()) < 0 {
		s.steps.End(nil)
	}
}
