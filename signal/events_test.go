package signal_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/pion/webrtc/v4"

	"sluice/internal/access"
	"sluice/media"
	"sluice/signal"
	"sluice/stream"
)

// published is the URL of a session that publishes, and the answer's links.
func (s *server) published(t *testing.T, id string) (session, links string) {
	t.Helper()
	publish, _ := offer(t, webrtc.RTPTransceiverDirectionSendonly)
	res, _, code := s.do(t, "POST", "/live/whip/"+id, sdp, publish)
	if res.StatusCode != 201 {
		t.Fatalf("publish: %s %s", res.Status, code)
	}
	return res.Header.Get("Location"), strings.Join(res.Header.Values("Link"), "\n")
}

// events opens an event stream, whose lines come until it ends.
func (s *server) events(t *testing.T, session string, only ...string) <-chan string {
	t.Helper()
	url := s.URL + session + "/events"
	if len(only) > 0 {
		url += "?only=" + strings.Join(only, ",")
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" || res.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Fatalf("events: %s %v", res.Status, res.Header)
	}
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		defer res.Body.Close()
		for sc := bufio.NewScanner(res.Body); sc.Scan(); {
			lines <- sc.Text()
		}
	}()
	if first := <-lines; first != "retry: 1000" {
		t.Fatalf("the first line is %q", first)
	}
	return lines
}

// event is the next one's name; "" at the end.
func event(lines <-chan string) string {
	for line := range lines {
		if name, ok := strings.CutPrefix(line, "event: "); ok {
			return name
		}
	}
	return ""
}

func TestClientsAreToldToMove(t *testing.T) {
	s := serve(t)
	session, links := s.published(t, "one")
	want := fmt.Sprintf(`<%s/events>; rel="urn:ietf:params:whip:ext:core:server-sent-events"; events="reconnect"`, session)
	if !strings.Contains(links, want) {
		t.Errorf("no link %s in\n%s", want, links)
	}
	deaf, _ := s.published(t, "two")
	if n := s.whip.Listening(); n != 0 {
		t.Fatalf("%d listen before anybody does", n)
	}
	lines := s.events(t, session)
	poll(t, func() error { return is(s.whip.Listening(), 1) })
	s.whip.Move(10)
	if got := event(lines); got != "reconnect" {
		t.Fatalf("the event is %q", got)
	}
	if n := s.whip.Listening(); n != 0 {
		t.Errorf("%d are still to be told", n)
	}
	again := s.events(t, session)
	if got := event(again); got != "reconnect" {
		t.Errorf("who listens later hears %q", got)
	}
	if res, _, code := s.do(t, "GET", session+"/events", "", ""); res.StatusCode != 429 || code != "too_many_requests" {
		t.Errorf("a third listener: %s %s", res.Status, code)
	}
	s.whip.Stay()
	if n := s.whip.Listening(); n != 1 {
		t.Errorf("%d can be told when the node drains again", n)
	}
	if res, _, _ := s.do(t, "DELETE", session, "", ""); res.StatusCode != 200 {
		t.Error(res.Status)
	}
	if got := event(lines) + event(again); got != "" {
		t.Errorf("after the end: %q", got)
	}
	if res, _, code := s.do(t, "GET", session+"/events", "", ""); res.StatusCode != 404 || code != "no_session" {
		t.Errorf("events of a session that has ended: %s %s", res.Status, code)
	}
	s.whip.Shed(5, stream.ErrClosing)
	if res, _, _ := s.do(t, "GET", deaf, "", ""); res.StatusCode != 404 {
		t.Errorf("a session that was shed: %s", res.Status)
	}
}

func TestEventsEndWithTheServer(t *testing.T) {
	s := serve(t)
	session, _ := s.published(t, "one")
	lines := s.events(t, session)
	s.whip.Hush()
	if got := event(lines); got != "" {
		t.Errorf("the event %q", got)
	}
}

func TestWantedEvents(t *testing.T) {
	s := serve(t)
	session, _ := s.published(t, "one")
	for _, c := range []struct {
		name, method, contentType, body string
		status                          int
		code                            string
	}{
		{"a list", "POST", "application/json", `["reconnect","viewercount"]`, 201, ""},
		{"not a list", "POST", "application/json", `{"a":1}`, 400, "bad_request"},
		{"of another type", "POST", sdp, `["reconnect"]`, 415, "wrong_media_type"},
		{"too long", "POST", "application/json", `["` + strings.Repeat("x", 2000) + `"]`, 413, "too_large"},
		{"a browser asks before", "OPTIONS", "", "", 204, ""},
		{"DELETE", "DELETE", "", "", 405, "method_not_allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, _, code := s.do(t, c.method, session+"/events", c.contentType, c.body)
			if res.StatusCode != c.status || code != c.code {
				t.Errorf("%s %s", res.Status, code)
			}
			if c.status == 201 && res.Header.Get("Location") != session+"/events?only=reconnect" {
				t.Errorf("Location %q", res.Header.Get("Location"))
			}
		})
	}
}

// say is the next event of a stream of events, with its data.
func say(lines <-chan string) string {
	name := event(lines)
	return strings.TrimSpace(name + " " + strings.TrimPrefix(<-lines, "data: "))
}

// played is the URL of a session that watches.
func (s *server) played(t *testing.T, id string) (session, links string) {
	t.Helper()
	play, _ := offer(t, webrtc.RTPTransceiverDirectionRecvonly)
	res, _, code := s.do(t, "POST", "/live/whep/"+id, sdp, play)
	if res.StatusCode != 201 {
		t.Fatalf("play: %s %s", res.Status, code)
	}
	return res.Header.Get("Location"), strings.Join(res.Header.Values("Link"), "\n")
}

func is(got, want int) error {
	if got != want {
		return errors.New(fmt.Sprint("got ", got, ", want ", want))
	}
	return nil
}

// A publisher of several renditions is told which of them nobody takes; one of a single picture hears nothing of it.
func TestPublishersAreToldWhatIsPaused(t *testing.T) {
	for _, c := range []struct {
		name, events string
		l            *several
	}{
		{"three", "paused,reconnect", &several{rids: []string{}, changed: make(chan struct{})}},
		{"one", "reconnect", &several{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := signal.New(signal.Config{Protocol: "whip", Action: access.Publish, Node: "n", Apps: func() []string { return []string{"live"} }, ClientAddr: func(*http.Request) netip.Addr { return netip.Addr{} },
				Authorize: access.AllowAll,
				Open: func(context.Context, media.Key, string, string, func(error)) (signal.Session, string, error) {
					return c.l, "a=ice-ufrag:abcd\r\n", nil
				}})
			mux := http.NewServeMux()
			r.Register(mux)
			s := &server{Server: httptest.NewServer(mux)}
			defer s.Close()
			defer r.Close(nil)
			session, links := s.published(t, "one")
			if !strings.Contains(links, `events="`+c.events+`"`) {
				t.Errorf("links %s", links)
			}
			lines := s.events(t, session)
			if c.l.changed == nil {
				r.Move(1)
				if got := event(lines); got != "reconnect" {
					t.Errorf("the event is %q", got)
				}
				return
			}
			for _, next := range [][]string{{"f", "h"}, {}} {
				if got := event(lines); got != "paused" {
					t.Fatalf("the event is %q", got)
				}
				text, _ := json.Marshal(c.l.rids)
				if got := <-lines; got != `data: {"rids":`+string(text)+"}" {
					t.Errorf("%s, want %s", got, text)
				}
				c.l.set(next)
			}
		})
	}
}

// several is a publisher of several renditions.
type several struct {
	signal.Session
	mu      sync.Mutex
	rids    []string
	changed chan struct{}
}

func (l *several) ID() string  { return "several" }
func (l *several) Close(error) {}

func (l *several) Paused() ([]string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rids, l.changed
}

func (l *several) set(rids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.rids, l.changed = rids, make(chan struct{})
}
