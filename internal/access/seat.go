package access

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"sluice/cluster"
	"sluice/media"
)

// A subscriber who may have only so many sessions takes a seat for each: a document that one process holds. A process that holds any says
// every holdEvery that it lives; the seats of one that has been silent for holdFor are free.
const (
	kindSeat   = "seat"
	kindHolder = "seat-holder"
	holdEvery  = 3 * time.Second
	holdFor    = 10 * time.Second
	workEvery  = 200 * time.Millisecond

	letGoWithin = 8 * time.Second // of thousands of tokens
)

type seat struct {
	app, id string
	version int64
}

func (s seat) key() string { return s.app + "\x00" + s.id }

type seated struct {
	Holder string `json:"holder"`
	Node   string `json:"node"`
}

// sit takes a free seat of a subscriber's.
func (g *Guard) sit(ctx context.Context, key media.Key, subscriber string, limit int) (*seat, error) {
	ctx, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	if err := g.hold(ctx); err != nil {
		return nil, err
	}
	body, err := json.Marshal(seated{g.holder, g.cfg.Node})
	if err != nil {
		return nil, err
	}
	ids := seatsOf(key, subscriber, limit)
	for range editTries {
		taken := map[string]cluster.Document{}
		page, _, err := g.docs.Find(ctx, cluster.Query{Kind: kindSeat, Group: key.App, IDs: ids})
		if err != nil {
			return nil, unavailable(err)
		}
		for _, d := range page {
			taken[d.ID] = d
		}
		lives := map[string]bool{g.holder: true}
		raced := false
		for _, id := range ids {
			d, is := taken[id]
			if is {
				free, err := g.lapsed(ctx, d, lives)
				if err != nil {
					return nil, err
				}
				if !free {
					continue
				}
			}
			d, err = g.docs.Put(ctx, cluster.Document{Kind: kindSeat, Group: key.App, ID: id, Version: d.Version, Body: body})
			if isRace(err) {
				raced = true
				break
			}
			if err != nil {
				return nil, unavailable(err)
			}
			return &seat{key.App, id, d.Version}, nil
		}
		if !raced {
			break
		}
	}
	return nil, ErrTooManySessions
}

func seatsOf(key media.Key, subscriber string, limit int) []string {
	ids := make([]string, limit)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s.%d", subscriberDoc(key.ID, subscriber), i)
	}
	return ids
}

// Connections is how many sessions each of some subscribers has; -1: they are not counted.
func (g *Guard) Connections(ctx context.Context, key media.Key, of []Subscriber) ([]int, error) {
	count, lives := make([]int, len(of)), map[string]bool{g.holder: true}
	var ids []string
	whose := map[string]int{}
	look := func() error {
		page, _, err := g.docs.Find(ctx, cluster.Query{Kind: kindSeat, Group: key.App, IDs: ids})
		for _, d := range page {
			free, failed := g.lapsed(ctx, d, lives)
			if failed != nil {
				return failed
			}
			if !free {
				count[whose[d.ID]]++
			}
		}
		ids = ids[:0]
		return unavailable(err)
	}
	for i, s := range of {
		if s.Limit < 0 {
			count[i] = -1
			continue
		}
		for _, id := range seatsOf(key, s.ID, max(1, s.Limit)) {
			ids, whose[id] = append(ids, id), i
		}
		if len(ids)+maxSeats > cluster.MaxFind {
			if err := look(); err != nil {
				return nil, err
			}
		}
	}
	if len(ids) == 0 {
		return count, nil
	}
	return count, look()
}

// lapsed reports that whoever holds a seat is no more.
func (g *Guard) lapsed(ctx context.Context, d cluster.Document, lives map[string]bool) (bool, error) {
	var s seated
	if err := json.Unmarshal(d.Body, &s); err != nil {
		return false, err
	}
	alive, known := lives[s.Holder]
	if !known {
		_, err := g.docs.Get(ctx, kindHolder, "", s.Holder)
		if err != nil && !isNone(err) {
			return false, unavailable(err)
		}
		alive = err == nil
		lives[s.Holder] = alive
	}
	return !alive, nil
}

// hold says that this process lives, if it has not just done so.
func (g *Guard) hold(ctx context.Context) error {
	now := g.docs.Now()
	g.mu.Lock()
	fresh := now.Sub(g.seated) < holdEvery
	g.mu.Unlock()
	if fresh {
		return nil
	}
	body, err := json.Marshal(seated{g.holder, g.cfg.Node})
	if err != nil {
		return err
	}
	if err := g.put(ctx, cluster.Document{Kind: kindHolder, ID: g.holder, Expires: now.Add(holdFor), Body: body}); err != nil {
		return err
	}
	g.mu.Lock()
	g.seated = now
	g.mu.Unlock()
	return nil
}

// Run keeps the seats of this process and gives back those whose session has ended, until ctx ends.
func (g *Guard) Run(ctx context.Context) error {
	tick := time.NewTicker(workEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), registryWithin)
			defer cancel()
			g.giveBack(last) // the others lapse
			return nil
		case <-tick.C:
		}
		if g.leaving.CompareAndSwap(true, false) {
			long, done := context.WithTimeout(ctx, letGoWithin)
			g.letGo(long)
			done()
		}
		work, cancel := context.WithTimeout(ctx, registryWithin)
		if g.holds() {
			_ = g.hold(work) // the next tick tries again
		}
		g.giveBack(work)
		cancel()
	}
}

// Leave lets the clients of a node that drains come in elsewhere with what they have shown here: their tokens count as not used, and their
// places are free, although their sessions go on until they have moved. It does no I/O: Run does.
func (g *Guard) Leave() { g.leaving.Store(true) }

func (g *Guard) letGo(ctx context.Context) {
	for _, gr := range g.running() {
		if ctx.Err() != nil {
			return
		}
		g.mu.Lock()
		if gr.seat != nil {
			g.release[gr.seat.key()] = *gr.seat
			gr.seat = nil
		}
		g.mu.Unlock()
		if gr.proof.token == "" {
			continue
		}
		app := gr.request.Stream.App
		t, version, err := g.readToken(ctx, app, gr.proof.token)
		if err != nil { // deleted; or the registry is away, and nobody comes in with tokens anyway
			continue
		}
		t.Session = ""
		if d, err := t.document(app, version); err == nil {
			_, _ = g.docs.Put(ctx, d) // the same
		}
	}
}

func (g *Guard) holds() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.seated.IsZero() {
		return false
	}
	for gr := range g.grants {
		if gr.seat != nil {
			return true
		}
	}
	return false
}

// giveBack deletes seats. Those that could not be are tried again.
func (g *Guard) giveBack(ctx context.Context) {
	for ctx.Err() == nil {
		g.mu.Lock()
		var next seat
		for _, next = range g.release {
			break
		}
		g.mu.Unlock()
		if next.id == "" {
			return
		}
		if err := g.docs.Delete(ctx, kindSeat, next.app, next.id, next.version); err != nil && !isNone(err) && !isRace(err) {
			return
		}
		g.mu.Lock()
		delete(g.release, next.key())
		g.mu.Unlock()
	}
}
