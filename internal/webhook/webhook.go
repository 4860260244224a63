// Package webhook tells customers' servers what happens to streams: signed, in order for each stream, and at least once. What is to be told
// waits in the registry, in the outbox, from where one process of the cluster at a time sends it. Nothing here is waited for.
//
// Imports: cluster.
package webhook

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"sluice/cluster"
)

// Actions are what is told.
const (
	LiveStreamStarted = "liveStreamStarted"
	LiveStreamEnded   = "liveStreamEnded"
	PlayStarted       = "playStarted"
	PlayStopped       = "playStopped"
	HighResourceUsage = "highResourceUsage"
)

// Event is one thing that has happened, in the form that customers of other servers know.
type Event struct {
	ID           string `json:"id"` // of the stream, or of the node
	Action       string `json:"action"`
	StreamName   string `json:"streamName,omitempty"`
	SubscriberID string `json:"subscriberId,omitempty"`
	App          string `json:"app,omitempty"`
	Metadata     string `json:"metadata,omitempty"`
	Timestamp    int64  `json:"timestamp"` // ms since 1970
	EventID      string `json:"eventId"`   // an event that comes twice has the same
}

// Target is where events of an application go.
type Target struct {
	URL     string // "": nowhere
	Secret  string // of signatures; "": none
	Form    bool   // as a form, not as JSON
	Actions []string
}

// Wants reports whether an action is sent there.
func (t Target) Wants(action string) bool {
	return t.URL != "" && (len(t.Actions) == 0 || slices.Contains(t.Actions, action))
}

// Config of a Box.
type Config struct {
	Targets func(app string) Target // "": of the server's own events; it does not block
	Any     func() bool             // whether anybody is told anything
	Client  *http.Client            // reaches nothing private
	Node    string
	Log     *slog.Logger // nil: none
}

const (
	kindEvent = "webhook-event"
	kindLease = "webhook-sender"

	mostQueued = 20_000                 // events that this process keeps while the registry is away; then the oldest are lost
	batch      = 100                    // events of one stream in a document
	flushEvery = 250 * time.Millisecond // so a flood of viewers is a few writes
	within     = 3 * time.Second        // of the registry
)

// Box is the outbox of a process. Everything may be called from any goroutine.
type Box struct {
	docs cluster.Documents
	cfg  Config
	log  *slog.Logger
	self string

	mu     sync.Mutex
	queue  []queued
	lost   int
	told   time.Time
	last   int64 // nanoseconds in the id written last
	sender sender
}

type queued struct {
	app   string
	event Event
}

// New does no I/O. Without documents nothing is told.
func New(docs cluster.Documents, cfg Config) *Box {
	return &Box{docs: docs, cfg: cfg, log: cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)), self: rand.Text(), sender: sender{blocked: map[string]time.Time{}}}
}

// Send has an event told. It does not block.
func (b *Box) Send(app string, e Event) {
	if b.docs == nil || !b.cfg.Targets(app).Wants(e.Action) {
		return
	}
	e.App, e.EventID, e.Timestamp = app, rand.Text(), b.docs.Now().UnixMilli()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) >= mostQueued {
		b.queue = b.queue[1:]
		b.lost++
	}
	b.queue = append(b.queue, queued{app, e})
}

// Run writes what is to be told, and sends it while this process is the one that does, until ctx ends.
func (b *Box) Run(ctx context.Context) error {
	if b.docs == nil {
		<-ctx.Done()
		return nil
	}
	var sending sync.WaitGroup
	sending.Go(func() { b.lead(ctx) })
	sending.Go(func() { b.send(ctx) })
	defer sending.Wait()
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
			defer cancel()
			b.flush(last)
			return nil
		case <-tick.C:
			b.flush(ctx)
		}
	}
}

// delivery is the body of a document: events of one stream, in order.
type delivery struct {
	Events   []Event   `json:"events"`
	Sent     int       `json:"sent"` // of them
	Attempts int       `json:"attempts"`
	Status   int       `json:"status,omitempty"` // of HTTP, last
	Error    string    `json:"error,omitempty"`
	Created  time.Time `json:"created"`
	Node     string    `json:"node"`
}

// flush writes the queue. What can't be written stays in it.
func (b *Box) flush(ctx context.Context) {
	b.mu.Lock()
	all := b.queue
	b.queue = nil
	if now := time.Now(); b.lost > 0 && now.Sub(b.told) > time.Minute {
		b.log.Error("webhook events were lost, because the registry does not take them", "events", b.lost)
		b.lost, b.told = 0, now
	}
	b.mu.Unlock()
	type stream struct{ app, id string }
	by, order := map[stream][]queued{}, []stream{}
	for _, q := range all {
		k := stream{q.app, q.event.ID}
		if by[k] == nil {
			order = append(order, k)
		}
		by[k] = append(by[k], q)
	}
	for i, k := range order {
		for list := by[k]; len(list) > 0; list = by[k] {
			n := min(len(list), batch)
			if err := b.write(ctx, list[:n]); err != nil {
				var left []queued
				for _, k := range order[i:] {
					left = append(left, by[k]...)
				}
				b.putBack(left)
				return
			}
			by[k] = list[n:]
		}
	}
}

// putBack returns what could not be written.
func (b *Box) putBack(left []queued) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queue = append(left, b.queue...)
	if over := len(b.queue) - mostQueued; over > 0 {
		b.queue = b.queue[over:]
		b.lost += over
	}
}

func (b *Box) write(ctx context.Context, events []queued) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	now := b.docs.Now()
	d := delivery{Created: now, Node: b.cfg.Node}
	for _, q := range events {
		d.Events = append(d.Events, q.event)
	}
	body, err := json.Marshal(d)
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.last = max(b.last+1, now.UnixNano())
	id := fmt.Sprintf("%s.%016x.%.6s", stem(events[0].event.ID), b.last, events[0].event.EventID)
	b.mu.Unlock()
	_, err = b.docs.Put(ctx, cluster.Document{Kind: kindEvent, Group: events[0].app, ID: id, Name: events[0].event.ID + " " + events[0].event.Action,
		State: Pending, At: now, Expires: now.Add(keepPending), Body: body})
	if errors.Is(err, cluster.ErrBadDocument) {
		b.log.Error("a webhook event can't be kept", "app", events[0].app, "error", err)
		return nil
	}
	return err
}

// stem is what the ids of one stream's documents begin with.
func stem(stream string) string {
	sum := sha256.Sum256([]byte(stream))
	return hex.EncodeToString(sum[:8])
}

// post sends one event. The error is for people.
func (b *Box) post(ctx context.Context, t Target, e Event, attempt int) (status int, err error) {
	body, contentType, err := e.encode(t.Form)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	h := req.Header
	h.Set("Content-Type", contentType)
	h.Set("User-Agent", "Sluice")
	h.Set("X-Sluice-Event-Id", e.EventID)
	h.Set("X-Sluice-Attempt", strconv.Itoa(attempt))
	if t.Secret != "" {
		at := strconv.FormatInt(time.Now().Unix(), 10)
		h.Set("X-Sluice-Timestamp", at)
		h.Set("X-Sluice-Signature", "v1="+Sign(t.Secret, at, body))
	}
	res, err := b.cfg.Client.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.CopyN(io.Discard, res.Body, 4<<10) // so that the connection may be used again
	if res.StatusCode/100 != 2 {
		return res.StatusCode, fmt.Errorf("its status was %d", res.StatusCode)
	}
	return res.StatusCode, nil
}

// Sign is hex(HMAC-SHA256(secret, timestamp + "." + body)).
func Sign(secret, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(timestamp + "."))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

func (e Event) encode(form bool) (body []byte, contentType string, err error) {
	body, err = json.Marshal(e)
	if err != nil || !form {
		return body, "application/json", err
	}
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&fields); err != nil {
		return nil, "", err
	}
	values := url.Values{}
	for k, v := range fields {
		values.Set(k, fmt.Sprint(v))
	}
	return []byte(values.Encode()), "application/x-www-form-urlencoded", nil
}
