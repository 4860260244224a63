package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/cluster"
)

// States of deliveries.
const (
	Pending   = "pending"
	Waiting   = "waiting" // it has failed, and is tried again; or it is behind one that has
	Delivered = "delivered"
	Failed    = "failed" // for good, unless somebody redelivers it
)

const (
	leaseFor    = 10 * time.Second
	leaseEvery  = 3 * time.Second
	lookEvery   = 500 * time.Millisecond
	page        = 500
	workers     = 16
	postWithin  = 10 * time.Second
	retryFirst  = time.Second
	retryMost   = time.Hour
	retryFor    = 24 * time.Hour
	keepPending = 14 * 24 * time.Hour // also of an application whose webhook was taken away
	keepFailed  = 30 * 24 * time.Hour
	keepDone    = 24 * time.Hour
	maxError    = 300
)

// sender is what the process that sends knows.
type sender struct {
	version int64 // of the lease; lead's own

	mu      sync.Mutex
	until   time.Time            // by the registry's clock: this process has the lease
	blocked map[string]time.Time // streams whose deliveries wait for an older one
}

// leads reports whether this process is the one that sends.
func (b *Box) leads() bool {
	b.sender.mu.Lock()
	defer b.sender.mu.Unlock()
	return b.docs.Now().Before(b.sender.until)
}

// lead takes the lease when nobody has it, and keeps it, as long as anybody is told anything.
func (b *Box) lead(ctx context.Context) {
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			if b.sender.version != 0 {
				last, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
				defer cancel()
				_ = b.docs.Delete(last, kindLease, "", "lease", b.sender.version) // else it runs out
			}
			return
		case <-next.C:
		}
		if b.cfg.Any() {
			b.renew(ctx)
			next.Reset(leaseEvery)
		} else {
			next.Reset(lookEvery)
		}
	}
}

func (b *Box) renew(ctx context.Context) {
	s := &b.sender
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	now := b.docs.Now()
	lease := cluster.Document{Kind: kindLease, ID: "lease", Name: b.cfg.Node, Expires: now.Add(leaseFor), Version: s.version, Body: json.RawMessage(`{}`)}
	got, err := b.docs.Put(ctx, lease)
	if s.version != 0 && errors.Is(err, cluster.ErrConflict) { // it has run out
		lease.Version, s.version = 0, 0
		got, err = b.docs.Put(ctx, lease)
	}
	if err != nil { // another has it, or the registry is away: until then the last one holds
		if errors.Is(err, cluster.ErrExists) {
			s.version = 0
		}
		return
	}
	if s.version == 0 {
		if err := b.recall(ctx); err != nil {
			_ = b.docs.Delete(ctx, kindLease, "", "lease", got.Version) // the next may
			return
		}
		b.log.Info("this node sends the cluster's webhooks")
	}
	s.version = got.Version
	s.mu.Lock()
	s.until = lease.Expires
	s.mu.Unlock()
}

// send looks for what is due while this process has the lease.
func (b *Box) send(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for more := true; more && b.leads() && ctx.Err() == nil; {
			more, _ = b.round(ctx) // the next look tries again
		}
	}
}

// recall learns which streams wait.
func (b *Box) recall(ctx context.Context) error {
	blocked := map[string]time.Time{}
	err := cluster.EachDocument(ctx, b.docs, cluster.Query{Kind: kindEvent, AllGroups: true, State: Waiting}, func(d cluster.Document) error {
		if k := keyOf(d); d.At.After(blocked[k]) {
			blocked[k] = d.At
		}
		return nil
	})
	b.sender.mu.Lock()
	b.sender.blocked = blocked
	b.sender.mu.Unlock()
	return err
}

// keyOf is the stream that a delivery is about.
func keyOf(d cluster.Document) string {
	stem, _, _ := strings.Cut(d.ID, ".")
	return d.Group + "/" + stem
}

// round sends what is due; more: there may be more.
func (b *Box) round(ctx context.Context) (more bool, err error) {
	look, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	now := b.docs.Now()
	due, _, err := b.docs.Find(look, cluster.Query{Kind: kindEvent, AllGroups: true, State: Waiting, To: now, Sort: cluster.ByAt, Limit: page})
	if err != nil {
		return false, err
	}
	fresh, _, err := b.docs.Find(look, cluster.Query{Kind: kindEvent, AllGroups: true, State: Pending, Sort: cluster.ByAt, Limit: page})
	if err != nil {
		return false, err
	}
	byKey := map[string][]cluster.Document{}
	for _, d := range slices.Concat(due, fresh) {
		byKey[keyOf(d)] = append(byKey[keyOf(d)], d)
	}
	var work sync.WaitGroup
	room := make(chan struct{}, workers)
	for key, list := range byKey {
		slices.SortFunc(list, func(x, y cluster.Document) int { return strings.Compare(x.ID, y.ID) })
		room <- struct{}{}
		work.Go(func() {
			defer func() { <-room }()
			b.stream(ctx, key, list)
		})
	}
	work.Wait()
	return len(due) == page || len(fresh) == page, ctx.Err()
}

// stream sends the deliveries of one stream, in order, up to one that fails.
func (b *Box) stream(ctx context.Context, key string, list []cluster.Document) {
	s := &b.sender
	s.mu.Lock()
	until := s.blocked[key]
	s.mu.Unlock()
	for _, d := range list {
		if ctx.Err() != nil || !b.leads() {
			return
		}
		if until.After(b.docs.Now()) { // behind one that has failed
			d.State, d.At = Waiting, until
			if _, err := b.put(ctx, d); err != nil {
				return
			}
			continue
		}
		var err error
		if until, err = b.deliver(ctx, d); err != nil {
			return
		}
		s.mu.Lock()
		if until.IsZero() {
			delete(s.blocked, key)
		} else {
			s.blocked[key] = until
		}
		s.mu.Unlock()
	}
}

// errNotOurs: somebody else goes on.
var errNotOurs = errors.New("this process no longer sends")

// deliver sends one. again: it has failed, and is tried then; the error is the registry's.
func (b *Box) deliver(ctx context.Context, d cluster.Document) (again time.Time, err error) {
	var v delivery
	if err := json.Unmarshal(d.Body, &v); err != nil {
		b.log.Error("a webhook delivery can't be read", "id", d.ID, "error", err)
		d.State, d.Expires = Failed, b.docs.Now().Add(keepFailed)
		_, err = b.put(ctx, d)
		return again, err
	}
	t := b.cfg.Targets(d.Group)
	var failed error
	v.Attempts++
	for v.Sent < len(v.Events) && failed == nil && b.leads() {
		e := v.Events[v.Sent]
		if t.Wants(e.Action) {
			call, cancel := context.WithTimeout(ctx, postWithin)
			v.Status, failed = b.post(call, t, e, v.Attempts)
			cancel()
		}
		if failed == nil {
			v.Sent++
		}
	}
	if ctx.Err() != nil || failed == nil && v.Sent < len(v.Events) {
		return again, errNotOurs
	}
	now := b.docs.Now()
	switch {
	case failed == nil:
		d.State, d.At, d.Expires, v.Error = Delivered, now, now.Add(keepDone), ""
	case now.Sub(v.Created) > retryFor:
		d.State, d.At, d.Expires, v.Error = Failed, now, now.Add(keepFailed), clip(failed)
		b.log.Warn("a webhook was given up", "app", d.Group, "about", d.Name, "attempts", v.Attempts, "error", failed)
	default:
		again = now.Add(backOff(v.Attempts))
		d.State, d.At, v.Error = Waiting, again, clip(failed)
	}
	if d.Body, err = json.Marshal(v); err != nil {
		return again, err
	}
	_, err = b.put(ctx, d)
	return again, err
}

func (b *Box) put(ctx context.Context, d cluster.Document) (cluster.Document, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return b.docs.Put(ctx, d)
}

// backOff doubles from retryFirst to retryMost.
func backOff(attempts int) time.Duration {
	return min(retryMost, retryFirst<<min(attempts-1, 12))
}

func clip(err error) string {
	s := strings.ToValidUTF8(err.Error(), "")
	return s[:min(len(s), maxError)]
}

// Delivery is one, for people.
type Delivery struct {
	ID       string
	State    string
	Stream   string
	Events   []Event
	Attempts int
	Status   int
	Error    string
	Created  time.Time
	At       time.Time // delivered or given up; of one that waits: tried again
}

// Errors of those who look after deliveries.
var (
	ErrNone        = errors.New("there is no such delivery")
	ErrUnavailable = errors.New("the registry can't be reached")
)

// Deliveries is a page of an application's, the newest first; state "": all.
func (b *Box) Deliveries(ctx context.Context, app, state string, offset, limit int) (list []Delivery, total int, err error) {
	docs, total, err := b.docs.Find(ctx, cluster.Query{Kind: kindEvent, Group: app, State: state, Sort: cluster.ByAt, Desc: true, Offset: offset, Limit: limit})
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	for _, d := range docs {
		var v delivery
		if err := json.Unmarshal(d.Body, &v); err != nil {
			return nil, 0, err
		}
		w := Delivery{ID: d.ID, State: d.State, Events: v.Events, Attempts: v.Attempts, Status: v.Status, Error: v.Error, Created: v.Created, At: d.At}
		if len(v.Events) > 0 {
			w.Stream = v.Events[0].ID
		}
		list = append(list, w)
	}
	return list, total, nil
}

// Redeliver sends one again, whatever became of it.
func (b *Box) Redeliver(ctx context.Context, app, id string) error {
	d, err := b.docs.Get(ctx, kindEvent, app, id)
	if errors.Is(err, cluster.ErrNoDocument) || errors.Is(err, cluster.ErrBadDocument) {
		return ErrNone
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	var v delivery
	if err := json.Unmarshal(d.Body, &v); err != nil {
		return err
	}
	now := b.docs.Now()
	v.Sent, v.Attempts, v.Created = 0, 0, now
	if d.Body, err = json.Marshal(v); err != nil {
		return err
	}
	d.State, d.At, d.Expires = Pending, now, now.Add(keepPending)
	if _, err = b.docs.Put(ctx, d); err != nil && !errors.Is(err, cluster.ErrConflict) { // a conflict: it is being sent
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}
