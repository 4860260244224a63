package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"sluice/media"
)

// moveAgain is between two attempts to open another session beside one that shall end.
const moveAgain = 500 * time.Millisecond

// moving is the watch over a session of which the server may want that it is left for another.
type moving struct {
	to   chan *peer // the other one, once it has taken over
	stop func()     // ends the watch; to may have one afterwards
}

// watchForMove opens another session when the server asks for it.
func (v *viewer) watchForMove(ctx context.Context, s *peer) moving {
	ctx, cancel := context.WithCancel(ctx)
	m := moving{to: make(chan *peer, 1)}
	var wg sync.WaitGroup
	m.stop = func() { cancel(); wg.Wait() }
	wg.Go(func() {
		if s.res.AwaitMove(ctx) != nil {
			return
		}
		v.cfg.Log.Info("the server asks for another session", "at", v.cfg.URL)
		for wait := time.Duration(0); ; wait = moveAgain/2 + rand.N(moveAgain) {
			select {
			case <-ctx.Done():
				return
			case <-s.lost:
				return
			case <-time.After(wait):
			}
			other, err := v.besides(ctx, s)
			if err == nil {
				m.to <- other
				return
			}
			if ctx.Err() == nil {
				v.cfg.Log.Warn("could not open another session yet", "at", v.cfg.URL, "error", err)
			}
		}
	})
	return m
}

// besides opens a session beside s, and returns when its first picture has come.
func (v *viewer) besides(ctx context.Context, s *peer) (*peer, error) {
	other, err := v.connect(ctx, true)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	took := v.took
	v.mu.Unlock()
	silence := time.NewTimer(mediaTimeout)
	defer silence.Stop()
	select {
	case <-took:
		return other, nil
	case <-other.lost:
		err = ErrEnded
	case <-silence.C:
		err = fmt.Errorf("%w: connected, but not a packet came", ErrNoMedia)
	case <-s.lost: // comeBack is next
		err = ErrEnded
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	v.mu.Lock()
	late := v.current == other // it took over in this moment
	if !late {
		v.next = nil
	}
	v.mu.Unlock()
	if late {
		return other, nil
	}
	other.close(ctx, v.cfg.Log)
	return nil, err
}

// takesOver says whether a session of which a packet came counts from now on: it is the next one, and has a picture, or the
// stream has none. The viewer's lock is held.
func (v *viewer) takesOver(s *peer, kind media.Kind) bool {
	if s != v.next || kind == media.Audio && v.hasVideo() {
		return false
	}
	now := time.Now()
	for _, r := range v.tracks {
		r.order.flush(now)
	}
	if v.rec != nil {
		v.rec.restart()
	}
	for _, r := range v.tracks {
		r.restart()
	}
	v.current, v.next = s, nil
	v.moves++
	close(v.took)
	return true
}

func (v *viewer) hasVideo() bool {
	for _, r := range v.tracks {
		if r.kind == media.Video {
			return true
		}
	}
	return false
}

// watchForMove opens another session when the server asks for it, and ends this one when the other has sent a key frame, at once: what
// viewers see of that picture by the old way they would have to see again by the new one, or wait for the next key frame. The source goes on.
func (p *publisher) watchForMove(ctx context.Context, wg *sync.WaitGroup, s *peer, to chan<- *peer) {
	wg.Go(func() {
		if s.res.AwaitMove(ctx) != nil {
			return
		}
		p.cfg.Log.Info("the server asks for another session", "at", p.cfg.URL)
		for wait := time.Duration(0); ; wait = moveAgain/2 + rand.N(moveAgain) {
			select {
			case <-ctx.Done():
				return
			case <-s.lost:
				return
			case <-time.After(wait):
			}
			other, err := p.connect(ctx)
			if err != nil {
				p.cfg.Log.Warn("could not open another session yet", "at", p.cfg.URL, "error", err)
				continue
			}
			p.mu.Lock()
			keyed := p.keyed
			p.mu.Unlock()
			select {
			case <-keyed:
			case <-time.After(mediaTimeout):
			case <-ctx.Done():
			}
			to <- other // has room: one comes at a time
			s.close(ctx, p.cfg.Log)
			return
		}
	})
}

// left says whether a session has a successor.
func (p *publisher) left(s *peer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.session != nil && p.session != s
}
