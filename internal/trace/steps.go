package trace

import (
	"context"
	"sync"
)

// Steps are spans of which each ends where the next begins, such as those of a session, which go on in callbacks. nil does nothing.
type Steps struct {
	from context.Context // nothing but what it belongs to

	mu   sync.Mutex
	span *Span // nil: over
}

// Follow begins the first step of what ctx belongs to; nil when that is not traced.
func Follow(ctx context.Context, name string, attributes ...string) *Steps {
	s := &Steps{from: Adopt(context.Background(), ctx)}
	if _, s.span = Start(s.from, name, attributes...); s.span == nil {
		return nil
	}
	return s
}

// Next ends the present step and begins another, unless all is over.
func (s *Steps) Next(name string, attributes ...string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.span != nil {
		s.span.End(nil)
		_, s.span = Start(s.from, name, attributes...)
	}
}

// End ends the present step, the last one. It may be called more than once.
func (s *Steps) End(err error) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.span.End(err)
	s.span = nil
}
