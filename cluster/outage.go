package cluster

import (
	"log/slog"
	"time"
)

// outage tells the operator once that the registry went away and once that it is
// back, with how long that lasted. One failure is no outage, nor are several at once: a busy machine has those. It belongs to one goroutine.
type outage struct {
	log   *slog.Logger
	doing string    // what fails meanwhile: "heartbeat"
	since time.Time // of the first failure in a row
	told  bool      // there were more
}

// note takes the result of an attempt.
func (o *outage) note(err error) {
	switch {
	case err != nil && o.since.IsZero():
		o.since = time.Now()
		o.log.Debug("registry did not answer once", "doing", o.doing, "error", err)
	case err != nil && !o.told && time.Since(o.since) >= HeartbeatEvery/2:
		o.told = true
		o.log.Warn("registry can't be reached, going on without it", "doing", o.doing, "error", err)
	case err == nil:
		if o.told {
			o.log.Info("registry is back", "doing", o.doing, "outage", time.Since(o.since).Round(time.Millisecond))
		}
		o.since, o.told = time.Time{}, false
	}
}

// end is called when the attempts end: an outage that still lasts is told too.
func (o *outage) end() {
	if o.told {
		o.log.Warn("registry was still away at the end", "doing", o.doing, "outage", time.Since(o.since).Round(time.Millisecond))
	}
}
