package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/cluster/memory"
)

// listener is a customer's server.
type listener struct {
	*httptest.Server
	mu     sync.Mutex
	got    []string // what it has taken: stream and action
	asked  []*http.Request
	bodies []string
	status func(e Event) int // nil: 200
}

func listen(t *testing.T) *listener {
	l := &listener{}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		var e Event
		_ = json.Unmarshal(b, &e)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.asked, l.bodies = append(l.asked, r), append(l.bodies, string(b))
		status := http.StatusOK
		if l.status != nil {
			status = l.status(e)
		}
		if status == http.StatusOK {
			l.got = append(l.got, e.ID+" "+e.Action)
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *listener) want(t *testing.T, what string, want ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.got, want) {
		t.Errorf("%s: it was told %q, want %q", what, l.got, want)
	}
	l.got = nil
}

// office is a box on a clock of the test's.
type office struct {
	*Box
	docs   *memory.Registry
	target Target
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newOffice(store *memory.Store, url string) *office {
	o := &office{docs: store.Open(), target: Target{URL: url}}
	o.Box = New(o.docs, Config{Targets: func(string) Target { return o.target }, Any: func() bool { return true }, Client: &http.Client{Timeout: 5 * time.Second}})
	return o
}

// turn writes and sends what is due, as Run does.
func (o *office) turn(t *testing.T) {
	t.Helper()
	o.flush(t.Context())
	o.renew(t.Context())
	for more := true; more && o.leads(); {
		var err error
		if more, err = o.round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func (o *office) say(stream string, actions ...string) {
	for _, a := range actions {
		o.Send("live", Event{ID: stream, Action: a})
	}
}

func TestSending(t *testing.T) {
	c := &clock{now: time.Now()}
	l := listen(t)
	o := newOffice(memory.NewStore(c.Now), l.URL)
	o.target.Secret, o.target.Actions = "key", []string{LiveStreamStarted, PlayStarted}
	o.Send("live", Event{ID: "a", Action: LiveStreamStarted, StreamName: "A\r\nX-Evil: 1", Metadata: `{"x":1}`})
	o.say("a", LiveStreamEnded, PlayStarted)
	o.turn(t)
	l.want(t, "JSON", "a liveStreamStarted", "a playStarted")
	first, body := l.asked[0], l.bodies[0]
	if got, want := first.Header.Get("X-Sluice-Signature"), "v1="+Sign("key", first.Header.Get("X-Sluice-Timestamp"), []byte(body)); got != want {
		t.Errorf("the signature is %s, want %s", got, want)
	}
	var e Event
	if err := json.Unmarshal([]byte(body), &e); err != nil || e.App != "live" || e.StreamName != "A\r\nX-Evil: 1" || e.Metadata != `{"x":1}` || e.Timestamp != c.Now().UnixMilli() ||
		e.EventID == "" || e.EventID != first.Header.Get("X-Sluice-Event-Id") || first.Header.Get("X-Evil") != "" {
		t.Errorf("it was told %s %v", body, first.Header)
	}
	o.target = Target{URL: l.URL, Form: true}
	o.say("b", PlayStopped)
	o.turn(t)
	if last := l.bodies[len(l.bodies)-1]; !strings.Contains(last, "action=playStopped&app=live") || l.asked[len(l.asked)-1].Header.Get("X-Sluice-Signature") != "" {
		t.Errorf("the form is %s", last)
	}
	o.target = Target{}
	o.say("b", PlayStopped)
	if len(o.queue) != 0 {
		t.Error("an event for nobody is kept")
	}
}

// TestOrder: a stream waits behind what has failed, others do not; what failed is tried again, later and later, for a day.
func TestOrder(t *testing.T) {
	c := &clock{now: time.Now()}
	l := listen(t)
	store := memory.NewStore(c.Now)
	o := newOffice(store, l.URL)
	l.status = func(e Event) int {
		if e.ID == "a" {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	}
	o.say("a", LiveStreamStarted, PlayStarted)
	o.say("b", LiveStreamStarted)
	o.turn(t)
	o.say("a", PlayStopped)
	o.say("b", LiveStreamEnded)
	o.turn(t)
	l.want(t, "while a fails", "b liveStreamStarted", "b liveStreamEnded")
	l.status = nil
	o.turn(t)
	l.want(t, "before it is tried again")
	c.pass(retryFirst + time.Millisecond)
	o.turn(t)
	l.want(t, "after that", "a liveStreamStarted", "a playStarted", "a playStopped")

	l.status = func(Event) int { return http.StatusFound }
	o.say("a", LiveStreamEnded)
	asked := len(l.asked)
	for range 60 {
		o.turn(t)
		c.pass(retryMost)
	}
	list, total, err := o.Deliveries(t.Context(), "live", Failed, 0, 10)
	if err != nil || total != 1 || list[0].Stream != "a" || list[0].Status != http.StatusFound || list[0].Error == "" {
		t.Fatalf("failed are %+v, %v", list, err)
	}
	if n := len(l.asked) - asked; n < 20 || n > 40 || n != list[0].Attempts {
		t.Errorf("%d attempts in a day, %d by the list", n, list[0].Attempts)
	}
	l.status = nil
	l.want(t, "what failed for good")
	o.say("a", PlayStarted)
	o.turn(t)
	l.want(t, "after what has failed", "a playStarted")
	if err := o.Redeliver(t.Context(), "live", list[0].ID); err != nil {
		t.Fatal(err)
	}
	o.turn(t)
	l.want(t, "by hand", "a liveStreamEnded")
	if err := o.Redeliver(t.Context(), "live", "nothing"); err != ErrNone {
		t.Error(err)
	}
}

// TestOneSends: another process goes on where the first has ended, in order, and not before.
func TestOneSends(t *testing.T) {
	c := &clock{now: time.Now()}
	l := listen(t)
	store := memory.NewStore(c.Now)
	one, two := newOffice(store, l.URL), newOffice(store, l.URL)
	one.say("a", LiveStreamStarted)
	one.turn(t)
	l.want(t, "the first", "a liveStreamStarted")
	two.say("a", PlayStarted)
	two.turn(t)
	l.want(t, "the second has no lease")
	l.status = func(Event) int { return http.StatusBadGateway }
	one.turn(t)
	c.pass(leaseFor + time.Second) // the first has died
	l.status = nil
	two.say("a", PlayStopped)
	two.turn(t)
	l.want(t, "the second goes on", "a playStarted", "a playStopped")
	one.turn(t)
	if one.leads() || !two.leads() {
		t.Error("the first took the lease back")
	}
}

// TestFlood: many viewers are few writes, an outage of the registry is waited for, and memory is bounded.
func TestFlood(t *testing.T) {
	c := &clock{now: time.Now()}
	l := listen(t)
	o := newOffice(memory.NewStore(c.Now), l.URL)
	o.docs.Cut(true)
	for i := range mostQueued + 500 {
		o.say(fmt.Sprintf("s%d", i%2), PlayStarted)
	}
	if len(o.queue) != mostQueued || o.lost != 500 {
		t.Errorf("%d are kept, %d are lost", len(o.queue), o.lost)
	}
	o.flush(t.Context())
	if len(o.queue) != mostQueued {
		t.Errorf("%d are left when the registry is away", len(o.queue))
	}
	o.docs.Cut(false)
	o.flush(t.Context())
	_, total, err := o.docs.Find(t.Context(), cluster.Query{Kind: kindEvent, Group: "live"})
	if err != nil || total != mostQueued/batch || len(o.queue) != 0 {
		t.Errorf("%d documents, %v, %d in the queue", total, err, len(o.queue))
	}
}

// TestRun: all of it, as a node does.
func TestRun(t *testing.T) {
	l := listen(t)
	o := newOffice(memory.NewStore(time.Now), l.URL)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	o.say("a", LiveStreamStarted, LiveStreamEnded)
	deadline := time.Now().Add(10 * time.Second)
	for told := 0; told < 2; {
		l.mu.Lock()
		told = len(l.got)
		l.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatalf("it was told %q", l.got)
		}
		<-time.After(10 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
