package webrtc

import (
	"errors"

	"sluice/internal/metrics"
	"sluice/rtc"
	"sluice/stream"
)

// meters are the figures of an Ingest.
type meters struct {
	join  *metrics.Durations
	asked *metrics.Counts
}

func newMeters(set *metrics.Set) meters {
	return meters{
		join:  set.Waits("sluice_publisher_join_duration_seconds", "Time from a publisher's offer to the first media that came."),
		asked: set.Counts("sluice_publisher_requests_total", "Publishers' offers: ok, or why they were refused.", "result", "ok", "in_use", "bad_offer", "error"),
	}
}

// resultOf is what came of an offer, as a label.
func resultOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, stream.ErrInUse):
		return "in_use"
	case errors.Is(err, rtc.ErrBadSDP), errors.Is(err, rtc.ErrNoCodec):
		return "bad_offer"
	}
	return "error"
}
