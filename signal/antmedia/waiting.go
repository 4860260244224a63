package antmedia

// wait is a stream that the client wants and that was not live. It stays after a stop, because clients stop and
// ask again every few seconds: so each start of the stream is told once, however often they ask.
type wait struct {
	wanted bool   // the last play found nothing and was not stopped
	missed bool   // the stream started while a play was under way
	cancel func() // nil until the directory knows of it
}

// wait refuses a play because the stream is not live, and remembers the client.
func (x *session) wait() {
	x.mu.Lock()
	if x.over {
		x.mu.Unlock()
		return
	}
	x.sayLocked(refusal{noStreamExist, notStreaming}.reply(x.id))
	x.endLocked(errOffline)
	w := x.waits[x.id]
	var evicted func()
	if w == nil {
		w, evicted = x.rememberLocked(x.id)
	}
	fresh := w != nil && w.cancel == nil
	if w != nil {
		w.wanted = true
		x.toldLocked(x.id, w)
	}
	x.mu.Unlock()
	if evicted != nil {
		evicted()
	}
	if !fresh {
		return
	}
	cancel := x.h.cfg.Directory.Watch(x.key, func() { x.starts(x.id, w) })
	x.mu.Lock()
	kept := x.waits[x.id] == w
	if kept {
		w.cancel = cancel
	}
	x.mu.Unlock()
	if !kept {
		cancel()
	}
}

// rememberLocked makes room for one more; nil when the client waits for too many.
func (s *socket) rememberLocked(id string) (w *wait, evicted func()) {
	if len(s.waits) >= s.h.cfg.Limits.Waiting {
		for other, o := range s.waits {
			if !o.wanted && o.cancel != nil && s.sessions[other] == nil {
				evicted = o.cancel
				delete(s.waits, other)
				break
			}
		}
		if evicted == nil {
			s.sayLocked(refusal{tooMany, "this socket waits for too many streams"}.reply(id))
			return nil, nil
		}
	}
	w = &wait{}
	s.waits[id] = w
	return w, evicted
}

// starts is told by the directory that a stream is live.
func (s *socket) starts(id string, w *wait) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.missed = true
	s.toldLocked(id, w)
}

func (s *socket) toldLocked(id string, w *wait) {
	if w.wanted && w.missed && s.waits[id] == w {
		w.missed = false
		s.sayLocked(reply{Command: "notification", Definition: "streaming_started", StreamID: id})
	}
}

// forget ends the wait for a stream that plays.
func (s *socket) forget(id string) {
	s.mu.Lock()
	w := s.waits[id]
	var cancel func()
	if w != nil {
		cancel = w.cancel
		delete(s.waits, id)
	}
	s.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}
