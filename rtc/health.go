package rtc

import "time"

// health is what the endpoint's sweep has said of its sockets.
type health struct {
	failed uint64    // messages that could not be sent
	told   time.Time // and when that was said
	cut    bool      // the kernel cuts messages
}

// tellFailedEvery is how often messages that could not be sent are told of at most.
const tellFailedEvery = 10 * time.Second

// segments reports whether the kernel cuts messages for all sockets.
func (e *Endpoint) segments() bool {
	for _, h := range e.hosts {
		for _, s := range h.sockets {
			if !s.Segments() {
				return false
			}
		}
	}
	return true
}

// Failed is the number of messages that could not be sent.
func (e *Endpoint) Failed() (n uint64) {
	for _, h := range e.hosts {
		for _, s := range h.sockets {
			n += s.Failed()
		}
	}
	return n
}

// opened says what there is.
func (e *Endpoint) opened() {
	e.health.cut = e.segments()
	e.cfg.Log.Info("media port is open", "address", e.Addr(), "addresses", len(e.hosts), "shards", e.cfg.Shards, "gso", e.health.cut, "tcp", !e.cfg.NoTCP)
}

// observe says what has changed. It is called once a second.
func (e *Endpoint) observe(now time.Time) {
	h := &e.health
	if cut := e.segments(); cut != h.cut {
		h.cut = cut
		if cut {
			e.cfg.Log.Info("the kernel cuts messages again (GSO)")
		} else {
			e.cfg.Log.Warn("a network device refuses cut messages: sending takes more processor time (GSO is tried again in a minute)")
		}
	}
	if n := e.Failed(); n != h.failed && now.Sub(h.told) >= tellFailedEvery {
		e.cfg.Log.Warn("messages could not be sent", "messages", n-h.failed, "all", n)
		h.failed, h.told = n, now
	}
}
