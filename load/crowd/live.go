package crowd

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/url"
	"path"
	"runtime"
	"strings"
	"sync"
	"time"

	"sluice/load"
)

// Return says how publishers and viewers notice that their session is lost, and come back by the address they came by.
type Return struct {
	Notice time.Duration // a publisher whose server says nothing for so long tries again, at once
	Stall  time.Duration // a viewer without media for so long, and up to half as much more, asks by HTTP whether its session is there, as our player does, and leaves it when it is not
	Soon   time.Duration // a viewer comes back at a random moment within
	Pause  time.Duration // before another attempt, of either
}

// connectWithin is how long an attempt to come back may take: longer than a node waits for the lease of a stream whose owner has died.
const connectWithin = 4 * time.Second

// Life is a session of a publisher, and the way to it.
type Life struct {
	Lost  time.Time // when the one before was found to be lost, or the first attempt was made
	Tries int       // attempts
	Back  time.Time // when media could flow
	Key   time.Time // when its first key frame was sent
	Node  string    // who has it, by the session's address
}

// Watched is what a viewer has seen since the last Mark.
type Watched struct {
	Stream   int
	Node     string        // who serves it, by the session's address
	Up       bool          // it has a session, and has had a picture
	Gap      time.Duration // the longest time without a new picture; it may be one that goes on
	From, To time.Time     // its begin and end
	Picture  time.Duration // from the first request to the first picture
	Again    int           // sessions it had to make
	Jumps    int           // numbers or timestamps that did not go on within a session
	Stale    int           // pictures of an earlier moment than one that it has seen
	Lost     uint64        // packets
	Frames   uint64
}

// Live is a crowd that stays until Close, for those who do something to the server meanwhile. Its methods are for one goroutine.
type Live struct {
	crowd   *crowd
	ctx     context.Context
	cancel  context.CancelFunc
	leave   context.CancelFunc // ends the publishers
	loops   sync.WaitGroup
	keepers sync.WaitGroup // a goroutine for each viewer that comes back
	pubs    sync.WaitGroup
	ended   chan error
	kept    int // viewers that have a keeper
}

// Open publishes the streams; viewers come with Join. Nobody is measured by time: For and Warm need not be set.
func Open(ctx context.Context, cfg Config) (*Live, error) {
	cfg.For = cmp.Or(cfg.For, time.Second)
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if cfg.Return == nil || cfg.Return.Notice <= 0 || cfg.Return.Stall <= 0 || cfg.Publish == "" {
		return nil, errors.New("a crowd that stays needs publishers, and must know how to come back")
	}
	c, err := newCrowd(cfg)
	if err != nil {
		return nil, err
	}
	l := &Live{crowd: c, ended: make(chan error, runtime.GOMAXPROCS(0))}
	l.ctx, l.cancel = context.WithCancel(ctx)
	var publishing context.Context
	publishing, l.leave = context.WithCancel(l.ctx)
	if err := c.startLoops(&l.loops, l.ended); err != nil {
		return nil, err
	}
	if err := c.publish(publishing, &l.pubs); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Doors changes the addresses for who comes from now on, as when a gateway is gone.
func (l *Live) Doors(publish, play string) {
	l.crowd.mu.Lock()
	defer l.crowd.mu.Unlock()
	l.crowd.cfg.Publish, l.crowd.cfg.Play = publish, play
}

// Join lets viewers come until there are n of each stream. Its error is of the first that could not.
func (l *Live) Join(n int) error {
	c := l.crowd
	c.mu.Lock()
	c.why = nil
	c.mu.Unlock()
	c.grow(l.ctx, n*c.cfg.Streams)
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; l.kept < len(c.viewers); l.kept++ {
		i, v := l.kept, c.viewers[l.kept]
		v.session.loop.do(func() { c.watchOver(v) })
		l.keepers.Go(func() { c.keep(l.ctx, i, v) })
	}
	return c.why
}

// watchOver makes a viewer ask for its session when nothing comes. For the loop's goroutine.
func (c *crowd) watchOver(v *viewer) {
	if c.cfg.Return == nil {
		return
	}
	v.stall = c.cfg.Return.Stall + rand.N(c.cfg.Return.Stall/2) // not all in the same moment
	v.stalled = func(v *viewer) { c.goodbyes.Go(func() { c.ask(v) }) }
}

// askWithin is how long the question may take: a gateway knows within this time that a node is gone.
const askWithin = 3 * time.Second

// hopelessAfter is how long a viewer goes without media and without an answer.
const hopelessAfter = 3 * time.Second

// ask ends a viewer's session when the server no longer has it.
func (c *crowd) ask(v *viewer) {
	ctx, cancel := context.WithTimeout(context.Background(), askWithin)
	defer cancel()
	gone, unanswered := true, false // nobody at all can tell: better to knock at the door
	if at := v.session.at; at != nil {
		var r *load.Refused
		err := at.Present(ctx)
		gone = errors.As(err, &r) && (r.Code == "no_session" || r.Status == 404)
		unanswered = err != nil
	}
	v.session.loop.do(func() {
		v.asking = false
		if gone || time.Now().UnixNano()-v.latest > int64(hopelessAfter) && unanswered {
			v.session.end()
		}
	})
}

// keep moves a viewer whenever the server asks, and brings it back when its session is lost, until ctx ends.
func (c *crowd) keep(ctx context.Context, i int, v *viewer) {
	back := cmp.Or(c.cfg.Return, &Return{Soon: comeBack, Pause: askAgain})
	for {
		moved := c.told(ctx, v.session)
		if ctx.Err() != nil {
			return
		}
		old := v
		if moved {
			if v = c.move(ctx, old); v == nil { // its session is lost meanwhile
				v = old
				continue
			}
			c.goodbyes.Go(func() { old.session.close(context.WithoutCancel(ctx)) })
			c.replace(i, v)
			continue
		}
		c.goodbyes.Go(func() { old.session.close(context.WithoutCancel(ctx)) })
		wait := rand.N(max(back.Soon, 1))
		for v = nil; v == nil; wait = back.Pause {
			if !pause(ctx, wait) {
				return
			}
			next := c.newSession()
			next.loop = old.session.loop // which owns what the viewer has seen
			attempt, cancel := context.WithTimeout(ctx, connectWithin)
			came, err := c.enter(attempt, next, old.stream, nil)
			cancel()
			if err != nil {
				c.log.Info("a viewer could not come back yet", "error", err)
				continue
			}
			v = came
		}
		v.session.loop.do(func() { v.inherit(old); old.seen, old.retired = seen{}, true })
		c.count(&c.returns)
		c.replace(i, v)
	}
}

// replace puts a viewer's new session in the place of the old one.
func (c *crowd) replace(i int, v *viewer) {
	v.session.loop.do(func() { c.watchOver(v) })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.viewers[i] = v
}

// inherit goes on with what the viewer has seen in the session before. For the loop's goroutine; pictures may have come already.
func (v *viewer) inherit(old *viewer) {
	first := v.shown
	v.from, v.longest, v.worst = old.from, old.longest, old.worst
	v.jumps, v.stale, v.again = v.jumps+old.jumps, v.stale+old.stale, old.again+1
	v.seen.add(old.seen)
	v.base, v.began = old.base, old.began
	v.picture = cmp.Or(old.picture, v.picture)
	if first == 0 {
		v.shown = old.shown
		return
	}
	if from := max(old.shown, v.from); old.shown != 0 && time.Duration(first-from) > v.longest {
		v.longest, v.worst = time.Duration(first-from), span{from, first}
	}
}

// nodeOf is the node that a session's address names: {node}.{random} is its last element.
func nodeOf(at *load.Resource) string {
	if at == nil {
		return ""
	}
	u, err := url.Parse(at.URL)
	if err != nil {
		return ""
	}
	node, _, _ := strings.Cut(path.Base(u.Path), ".")
	return node
}

// Mark begins a new measured time for all viewers.
func (l *Live) Mark() {
	now := time.Now().UnixNano()
	for _, p := range l.crowd.loops {
		p.do(func() {
			for v := range p.viewers() {
				v.measure(now)
			}
		})
	}
}

// Watched tells of all viewers, in the order in which they came.
func (l *Live) Watched() []Watched {
	l.crowd.mu.Lock()
	viewers := append([]*viewer(nil), l.crowd.viewers...)
	l.crowd.mu.Unlock()
	all := make([]Watched, len(viewers))
	for i, v := range viewers {
		v.session.loop.do(func() {
			now := time.Now().UnixNano()
			if from := max(v.shown, v.from); v.shown != 0 && time.Duration(now-from) > v.longest {
				v.longest, v.worst = time.Duration(now-from), span{from, now}
			}
			d := v.seen.sub(v.base)
			all[i] = Watched{Stream: v.stream, Node: nodeOf(v.session.at), Up: !v.session.gone && v.shown != 0,
				Gap: v.longest, From: time.Unix(0, v.worst.from), To: time.Unix(0, v.worst.to), Picture: v.picture,
				Again: v.again, Jumps: v.jumps, Stale: v.stale, Lost: d.lost, Frames: d.frames}
		})
	}
	return all
}

// Published tells of the sessions that each publisher has had; the last is the present one, or, without Back, the one that it tries to make.
func (l *Live) Published() [][]Life {
	l.crowd.mu.Lock()
	defer l.crowd.mu.Unlock()
	all := make([][]Life, len(l.crowd.publishers))
	for i, p := range l.crowd.publishers {
		p.mu.Lock()
		all[i] = append([]Life(nil), p.lives...)
		p.mu.Unlock()
	}
	return all
}

// Close ends all sessions and waits until they have ended.
func (l *Live) Close() error {
	l.cancel()
	l.keepers.Wait()
	l.crowd.leave(l.ctx, 0)
	l.leave()
	l.pubs.Wait()
	l.crowd.goodbyes.Wait()
	err := l.crowd.stopLoops(&l.loops)
	l.crowd.client.Close()
	return err
}
