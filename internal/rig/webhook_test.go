package rig

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/internal/config"
	"sluice/internal/settings"
	"sluice/internal/webhook"
	"sluice/media"
)

// TestWebhooks: a customer's server is told of a stream on the origin and its viewers on the edges, once each and in order; and of one inside the
// operator's network that is not allowed nothing is told.
func TestWebhooks(t *testing.T) {
	var mu sync.Mutex
	var got []string
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var e webhook.Event
		_ = json.NewDecoder(r.Body).Decode(&e)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, e.App+"/"+e.ID+" "+e.Action)
	}))
	defer s.Close()
	c := Start(t, Options{Configure: func(n *config.Node) {
		n.Access.PrivateHosts = []string{"127.0.0.0/8"}
		n.Publish.Farewell = 100 * time.Millisecond
	}})
	reg := c.options.Store.Open(t)
	t.Cleanup(func() { _ = reg.Close() })
	store, err := settings.New(reg, settings.Config{Apps: []string{"live", "WebRTCAppEE"}})
	if err != nil {
		t.Fatal(err)
	}
	for app, url := range map[string]string{"live": s.URL, "WebRTCAppEE": strings.Replace(s.URL, "127.0.0.1", "[::1]", 1)} {
		if _, err := store.SetApp(t.Context(), app, settings.Change{By: "t", Version: -1}, func(a *settings.App) error {
			a.ViewerLimit, a.PlayoutDelay, a.Webhooks.URL, a.Origins = -1, "100ms", url, []string{"https://ours.example"}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	box := webhook.New(reg, webhook.Config{})
	c.Poll(5*time.Second, func() error { // every node knows where to
		for _, id := range []string{"origin-1", "edge-1", "edge-2"} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+c.Node(id).HTTPAddr()+"/live/whep/stage", strings.NewReader(""))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Origin", "https://other.example") // whose pages the same settings refuse
			r.Header.Set("Content-Type", "application/sdp")
			res, err := s.Client().Do(r)
			if err != nil {
				return err
			}
			_ = res.Body.Close()
			if res.StatusCode != http.StatusForbidden {
				return fmt.Errorf("%s knows nothing yet: %d", id, res.StatusCode)
			}
		}
		return nil
	})
	refused, err := c.Publish(media.Key{App: "WebRTCAppEE", ID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Publish(media.Key{App: "live", ID: "stage"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"live/stage liveStreamStarted"}
	told := func() error {
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(got, want) {
			return fmt.Errorf("told %q, want %q", got, want)
		}
		return nil
	}
	c.Poll(10*time.Second, told)
	for _, id := range []string{"edge-1", "edge-2"} {
		var v *Viewer
		c.Poll(10*time.Second, func() (err error) {
			v, err = c.WatchAt(id, media.Key{App: "live", ID: "stage"})
			return err
		})
		want = append(want, "live/stage playStarted")
		c.Poll(10*time.Second, told)
		if err := v.Leave(); err != nil {
			t.Fatal(err)
		}
		want = append(want, "live/stage playStopped")
		c.Poll(10*time.Second, told)
	}
	if err := p.Leave(); err != nil {
		t.Fatal(err)
	}
	want = append(want, "live/stage liveStreamEnded")
	c.Poll(10*time.Second, told)
	c.Poll(10*time.Second, func() error {
		list, _, err := box.Deliveries(t.Context(), "WebRTCAppEE", webhook.Waiting, 0, 10)
		if err != nil || len(list) != 1 || !strings.Contains(list[0].Error, "private or reserved") {
			return fmt.Errorf("the private address: %+v %v", list, err)
		}
		return nil
	})
	if err := refused.Leave(); err != nil {
		t.Fatal(err)
	}
}
