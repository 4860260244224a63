package cloudnotice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// service is Azure's metadata service, as far as it matters here.
type service struct {
	*httptest.Server
	mu      sync.Mutex
	events  string // JSON of the list
	down    bool
	started []string // events that were acknowledged
}

func newService(t *testing.T) *service {
	s := &service{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metadata/instance/compute/name", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "edge_7\n")
	})
	mux.HandleFunc("/metadata/scheduledevents", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.Method == http.MethodPost {
			var b struct{ StartRequests []struct{ EventId string } }
			if err := json.NewDecoder(r.Body).Decode(&b); err != nil || len(b.StartRequests) != 1 {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			s.started = append(s.started, b.StartRequests[0].EventId)
			return
		}
		_, _ = fmt.Fprintf(w, `{"DocumentIncarnation":1,"Events":[%s]}`, s.events)
	})
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		down := s.down
		s.mu.Unlock()
		switch {
		case down:
			w.WriteHeader(http.StatusInternalServerError)
		case r.Header.Get("Metadata") != "true" || r.URL.Query().Get("api-version") == "":
			w.WriteHeader(http.StatusBadRequest)
		default:
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *service) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func scheduledEvent(id, kind, machine string, seconds int, notBefore string) string {
	return fmt.Sprintf(`{"EventId":%q,"EventStatus":"Scheduled","EventType":%q,"ResourceType":"VirtualMachine","Resources":["other_1",%q],"NotBefore":%q,"Description":"","EventSource":"Platform","DurationInSeconds":%d}`,
		id, kind, machine, notBefore, seconds)
}

func TestNotices(t *testing.T) {
	const soon, later = "Mon, 19 Sep 2022 18:29:47 GMT", "Mon, 19 Sep 2022 18:40:00 GMT"
	at := time.Date(2022, 9, 19, 18, 29, 47, 0, time.UTC)
	for _, c := range []struct {
		name, events string
		want         *Notice
	}{
		{"none", "", nil},
		{"another machine's", scheduledEvent("a", "Terminate", "edge_8", -1, soon), nil},
		{"terminate", scheduledEvent("a", "Terminate", "EDGE_7", -1, soon), &Notice{ID: "a", Kind: "Terminate", Deadline: at}},
		{"preempt", scheduledEvent("a", "Preempt", "edge_7", -1, soon), &Notice{ID: "a", Kind: "Preempt", Deadline: at}},
		{"reboot", scheduledEvent("a", "Reboot", "edge_7", -1, soon), &Notice{ID: "a", Kind: "Reboot", Deadline: at}},
		{"redeploy", scheduledEvent("a", "Redeploy", "edge_7", -1, soon), &Notice{ID: "a", Kind: "Redeploy", Deadline: at}},
		{"started", scheduledEvent("a", "Reboot", "edge_7", -1, ""), &Notice{ID: "a", Kind: "Reboot"}},
		{"a short freeze is got over", scheduledEvent("a", "Freeze", "edge_7", 9, soon), nil},
		{"a long freeze", scheduledEvent("a", "Freeze", "edge_7", 30, soon), &Notice{ID: "a", Kind: "Freeze", Deadline: at, Stays: true}},
		{"a freeze of nobody knows how long", scheduledEvent("a", "Freeze", "edge_7", -1, soon), &Notice{ID: "a", Kind: "Freeze", Deadline: at, Stays: true}},
		{"of two the first", scheduledEvent("b", "Reboot", "edge_7", -1, later) + "," + scheduledEvent("a", "Terminate", "edge_7", -1, soon), &Notice{ID: "a", Kind: "Terminate", Deadline: at}},
		{"a freeze before the end", scheduledEvent("b", "Freeze", "edge_7", 30, soon) + "," + scheduledEvent("a", "Terminate", "edge_7", -1, later), &Notice{ID: "a", Kind: "Terminate", Deadline: at.Add(10*time.Minute + 13*time.Second)}},
		{"the end before a freeze", scheduledEvent("a", "Terminate", "edge_7", -1, later) + "," + scheduledEvent("b", "Freeze", "edge_7", 30, soon), &Notice{ID: "a", Kind: "Terminate", Deadline: at.Add(10*time.Minute + 13*time.Second)}},
		{"a kind that is new", scheduledEvent("a", "Upgrade", "edge_7", -1, soon), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newService(t)
			s.events = c.events
			w := New(Config{Service: s.URL, Log: slog.New(slog.DiscardHandler)})
			if err := w.look(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := w.Notice()
			if (got == nil) != (c.want == nil) || got != nil && (got.ID != c.want.ID || got.Kind != c.want.Kind || !got.Deadline.Equal(c.want.Deadline) || got.Stays != c.want.Stays) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// TestLife: a notice comes, stays while the service is away, is acknowledged, and goes.
func TestLife(t *testing.T) {
	s := newService(t)
	w := New(Config{Service: s.URL, Every: 5 * time.Millisecond, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	s.set(func() { s.events = scheduledEvent("a", "Terminate", "edge_7", -1, "Mon, 19 Sep 2022 18:29:47 GMT") })
	until(t, func() error { return known(w, true) })
	s.set(func() { s.down = true })
	if err := w.Acknowledge(t.Context(), w.Notice()); err == nil {
		t.Error("a service that is away has heard it")
	}
	if err := known(w, true); err != nil {
		t.Error(err)
	}
	s.set(func() { s.down = false })
	if err := w.Acknowledge(t.Context(), w.Notice()); err != nil {
		t.Error(err)
	}
	s.set(func() {
		if len(s.started) != 1 || s.started[0] != "a" {
			t.Errorf("acknowledged: %v", s.started)
		}
		s.events = ""
	})
	until(t, func() error { return known(w, false) })
}

func known(w *Watcher, want bool) error {
	if (w.Notice() != nil) != want {
		return errors.New(fmt.Sprintf("the notice is %+v", w.Notice()))
	}
	return nil
}

// until waits until f returns nil.
func until(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
