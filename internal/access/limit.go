package access

import (
	"container/list"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

const (
	// A mistaken page tries the same wrong token every few seconds; a guesser tries others all the time. So many failures of an address at
	// once and one more after each pause.
	strangerBurst = 100
	strangerPause = time.Second
	// Codes have 6 digits, of which 3 are right at any time: with a guess every 30 s it takes 100 days for one chance in one.
	guessBurst = 5
	guessPause = 30 * time.Second

	mostRemembered = 20000 // of each; who was seen longest ago is forgotten first
)

// limiter counts failures by key, of bounded number, and forgets one after each pause.
type limiter struct {
	burst int
	pause time.Duration

	mu    sync.Mutex
	found map[string]*list.Element // of *failures
	order list.List                // last seen first
}

type failures struct {
	key   string
	count float64
	at    time.Time
}

func newLimiter(burst int, pause time.Duration) *limiter {
	return &limiter{burst: burst, pause: pause, found: map[string]*list.Element{}}
}

// full reports that there were too many.
func (l *limiter) full(key string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.found[key]; e != nil {
		f := e.Value.(*failures)
		if left := f.count - float64(time.Since(f.at))/float64(l.pause); left > float64(l.burst)-1 {
			return fmt.Errorf("%w: wait %s", ErrTooMany, time.Duration((left-float64(l.burst)+1)*float64(l.pause)).Round(time.Second))
		}
	}
	return nil
}

// spend counts one; the error is full's, of the moment before.
func (l *limiter) spend(key string) error {
	if err := l.full(key); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if e := l.found[key]; e != nil {
		f := e.Value.(*failures)
		f.count = max(0, f.count-float64(now.Sub(f.at))/float64(l.pause)) + 1
		f.at = now
		l.order.MoveToFront(e)
		return nil
	}
	if len(l.found) >= mostRemembered {
		last := l.order.Back()
		delete(l.found, last.Value.(*failures).key)
		l.order.Remove(last)
	}
	l.found[key] = l.order.PushFront(&failures{key: key, count: 1, at: now})
	return nil
}

// forget takes one back.
func (l *limiter) forget(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.found[key]; e != nil {
		f := e.Value.(*failures)
		f.count = max(0, f.count-1)
	}
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

// newID is 128 random bits.
func newID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
