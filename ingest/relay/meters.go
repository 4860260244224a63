package relay

import (
	"errors"

	"sluice/internal/metrics"
	"sluice/stream"
)

// meters are the figures of a Relay.
type meters struct {
	subscribe *metrics.Durations
	pulls     *metrics.Counts
	changes   *metrics.Counts
}

// Why a stream comes from another node than before: the labels of changes.
const (
	lostParent   = "lost"   // the node from which it came is gone; it was looked for again
	sparedParent = "spare"  // another one took over without a break
	tookBackup   = "backup" // the backup publisher's stream took over
)

func newMeters(set *metrics.Set, r *Relay) meters {
	set.Register(func(s *metrics.Sample) {
		r.mu.Lock()
		streams, peers := len(r.sessions), len(r.peers)
		r.mu.Unlock()
		s.Gauge("sluice_relay_pulled_streams", "Streams that this node takes from others.", float64(streams))
		s.Gauge("sluice_relay_parents", "Nodes from which this one takes streams.", float64(peers))
	})
	subscribe := set.Waits("sluice_relay_subscribe_duration_seconds", "Time from asking one node for a stream to its answer: ok, or no.", "result")
	subscribe.Begin("ok")
	subscribe.Begin("no")
	return meters{
		subscribe: subscribe,
		pulls: set.Counts("sluice_relay_pulls_total", "Times that somebody here wanted a stream of another node: ok, or what came of it.", "result",
			"ok", "offline", "unreachable", "canceled"),
		changes: set.Counts("sluice_relay_parent_changes_total", "Times that a stream had to come from another node: after a search, because the one before was lost; by a spare; or by the backup publisher.",
			"by", lostParent, sparedParent, tookBackup),
	}
}

// resultOf is what came of a pull, as a label.
func resultOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrUnreachable):
		return "unreachable"
	case errors.Is(err, stream.ErrOffline):
		return "offline"
	}
	return "canceled"
}
