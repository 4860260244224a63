package auth

import (
	"container/list"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

const (
	// A person mistypes; a program guesses. For each account, and for each address, so many attempts at once and one more
	// after each pause. Those that succeed do not count.
	accountBurst = 10
	accountPause = 15 * time.Second
	addressBurst = 20
	addressPause = 6 * time.Second
	// Requests with a session or a key that is none; each may cost a look at the registry.
	strangerBurst = 60
	strangerPause = time.Second

	// What an account may not do is recorded so often.
	deniedBurst = 20
	deniedPause = 30 * time.Second

	// mostRemembered of each; who was seen longest ago is forgotten first.
	mostRemembered = 10000

	retryBusy = 2 * time.Second
)

// TooManyError says when to come back. It is an ErrTooMany.
type TooManyError struct{ After time.Duration }

func (e *TooManyError) Error() string {
	return fmt.Sprintf("%v: try again in %s", ErrTooMany, e.After.Round(time.Second))
}

// Unwrap makes it an ErrTooMany.
func (e *TooManyError) Unwrap() error { return ErrTooMany }

// limiter is a bucket of attempts for each key, of bounded number.
type limiter struct {
	burst int
	pause time.Duration

	mu    sync.Mutex
	found map[string]*list.Element // of *bucket
	order list.List                // last seen first
}

type bucket struct {
	key   string
	spent float64 // attempts that have not come back yet
	at    time.Time
}

func newLimiter(burst int, pause time.Duration) *limiter {
	return &limiter{burst: burst, pause: pause, found: map[string]*list.Element{}}
}

// take spends an attempt; its error says when there will be another.
func (l *limiter) take(key string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucketLocked(key)
	if over := b.spent + 1 - float64(l.burst); over > 0 {
		return &TooManyError{After: max(time.Second, time.Duration(over*float64(l.pause)))}
	}
	b.spent++
	return nil
}

// full reports that take would fail.
func (l *limiter) full(key string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.found[key] == nil {
		return nil
	}
	if over := l.bucketLocked(key).spent + 1 - float64(l.burst); over > 0 {
		return &TooManyError{After: max(time.Second, time.Duration(over*float64(l.pause)))}
	}
	return nil
}

// giveBack returns an attempt.
func (l *limiter) giveBack(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.found[key] != nil {
		b := l.bucketLocked(key)
		b.spent = max(0, b.spent-1)
	}
}

func (l *limiter) bucketLocked(key string) *bucket {
	now := time.Now()
	if e := l.found[key]; e != nil {
		l.order.MoveToFront(e)
		b := e.Value.(*bucket)
		b.spent = max(0, b.spent-float64(now.Sub(b.at))/float64(l.pause))
		b.at = now
		return b
	}
	if len(l.found) >= mostRemembered {
		last := l.order.Back()
		delete(l.found, last.Value.(*bucket).key)
		l.order.Remove(last)
	}
	b := &bucket{key: key, at: now}
	l.found[key] = l.order.PushFront(b)
	return b
}

// addressKey is who counts as one address: with IPv6, a household's /64.
func addressKey(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}
