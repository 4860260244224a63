package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/internal/auth"
	"sluice/media"
)

// join puts a node into the registry as if it ran.
func join(t *testing.T, reg cluster.Store, n cluster.Node) {
	t.Helper()
	n.Session = int64(len(n.ID)) + 1
	n.State = cluster.Ready
	if err := reg.Join(t.Context(), n); err != nil {
		t.Fatal(err)
	}
}

// played has an origin with a stream that two nodes serve.
func played(t *testing.T, s *server) {
	t.Helper()
	key, other := media.Key{App: "live", ID: "a"}, media.Key{App: "WebRTCAppEE", ID: "b"}
	join(t, s.reg, cluster.Node{ID: "edge-1", Role: cluster.Edge, CPU: .5, Egress: 3e6, Serving: []cluster.Serving{{Stream: key, Viewers: 7}}})
	join(t, s.reg, cluster.Node{ID: "origin-1", Role: cluster.Origin, Load: .3, Serving: []cluster.Serving{{Stream: key, Viewers: 1}, {Stream: other}}})
	for _, k := range []media.Key{key, other} {
		if _, err := s.reg.Claim(t.Context(), cluster.Lease{Key: k, Node: "origin-1", Session: int64(len("origin-1")) + 1}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLive(t *testing.T) {
	for _, st := range stores {
		t.Run(st.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, st.open(t)(t))
			s.add(t, auth.Account{Name: "op", Role: auth.Operator})
			s.add(t, auth.Account{Name: "reader", Role: auth.ReadOnly})
			s.add(t, auth.Account{Name: "one-app", Apps: map[string]auth.Role{"live": auth.Operator}})
			played(t, s)
			op, reader, oneApp := s.logIn(t, "op"), s.logIn(t, "reader"), s.logIn(t, "one-app")

			got := s.ask(t, op, "GET", "/rest/v2/cluster/live", "")
			got.want(t, "cluster", 200, "")
			var all LiveCluster
			if err := json.Unmarshal([]byte(got.body), &all); err != nil {
				t.Fatal(err)
			}
			if len(all.Nodes) != 2 || all.Nodes[0].ID != "edge-1" || all.Nodes[0].Viewers != 7 || all.Nodes[0].State != "ready" ||
				all.Totals.Viewers != 8 || all.Totals.Streams != 2 || all.Totals.Egress != 3e6 || len(all.Groups) != 2 || all.Groups[0].Target != .6 {
				t.Errorf("the cluster is %s", got.body)
			}
			for _, tc := range []struct {
				name, path string
				who        card
				total      string
				first      string
			}{
				{"all", "", op, "2", "WebRTCAppEE/b"},
				{"by viewers", "?sort=viewers&desc=true", reader, "2", "live/a"},
				{"found", "?search=VE/A", op, "1", "live/a"},
				{"of a node", "?node=edge-1", op, "1", "live/a"},
				{"one application's", "", oneApp, "1", "live/a"},
				{"behind the end", "?offset=9", op, "2", ""},
			} {
				got := s.ask(t, tc.who, "GET", "/rest/v2/cluster/streams"+tc.path, "")
				got.want(t, tc.name, 200, "")
				var list []LiveStream
				if err := json.Unmarshal([]byte(got.body), &list); err != nil {
					t.Fatal(err)
				}
				first := ""
				if len(list) > 0 {
					first = list[0].App + "/" + list[0].ID
				}
				if got.header.Get("X-Total-Count") != tc.total || first != tc.first {
					t.Errorf("%s: %s, the first of %s; want %s of %s", tc.name, first, got.header.Get("X-Total-Count"), tc.first, tc.total)
				}
			}
			s.ask(t, oneApp, "GET", "/rest/v2/cluster/streams/live/a", "").want(t, "a stream", 200, "")
			s.ask(t, oneApp, "GET", "/rest/v2/cluster/streams/WebRTCAppEE/b", "").want(t, "another's stream", 403, "forbidden")
			s.ask(t, op, "GET", "/rest/v2/cluster/streams/live/none", "").want(t, "no stream", 404, "stream_offline")
			s.ask(t, oneApp, "GET", "/rest/v2/cluster/live", "").want(t, "cluster, in one application", 403, "forbidden")
		})
	}
}

func TestDrain(t *testing.T) {
	s := newServer(t, inMemory(t)(t))
	s.add(t, auth.Account{Name: "boss", Role: auth.Administrator})
	s.add(t, auth.Account{Name: "reader", Role: auth.ReadOnly})
	played(t, s)
	boss := s.logIn(t, "boss")
	s.ask(t, s.logIn(t, "reader"), "POST", "/rest/v2/cluster/nodes/edge-1/drain", "{}").want(t, "a reader", 403, "forbidden")
	s.ask(t, boss, "POST", "/rest/v2/cluster/nodes/edge-9/drain", "{}").want(t, "unknown", 404, "not_found")
	s.ask(t, boss, "POST", "/rest/v2/cluster/nodes/edge-1/drain", `{"seconds":0}`).want(t, "no time", 422, "invalid")
	order := func() cluster.Order {
		nodes, err := s.reg.Nodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return nodes[0].Order
	}
	s.ask(t, boss, "POST", "/rest/v2/cluster/nodes/edge-1/drain", `{"seconds":60}`).want(t, "drain", 200, "")
	if o := order(); !o.Drain || o.Deadline.Sub(s.reg.Now()) > time.Minute || o.Deadline.Sub(s.reg.Now()) < 30*time.Second {
		t.Errorf("the order is %+v", o)
	}
	s.ask(t, boss, "DELETE", "/rest/v2/cluster/nodes/edge-1/drain", "").want(t, "undrain", 200, "")
	if o := order(); o.Drain {
		t.Errorf("the order is %+v", o)
	}
}

// broken is a registry that goes away.
type broken struct {
	cluster.Store
	err error
	at  time.Time
}

func (b *broken) Nodes(ctx context.Context) ([]cluster.Node, error) {
	if b.err != nil {
		return nil, b.err
	}
	return b.Store.Nodes(ctx)
}

func (b *broken) Now() time.Time {
	if !b.at.IsZero() {
		return b.at
	}
	return b.Store.Now()
}

// TestLiveOutage: while the registry is away, and just after, nobody is dead.
func TestLiveOutage(t *testing.T) {
	s := newServer(t, inMemory(t)(t))
	played(t, s)
	reg := &broken{Store: s.reg, err: errors.New("away")}
	l := newLive(reg)
	look := func() (*snapshot, error) { l.next = time.Time{}; return l.get(t.Context()) }
	if _, err := look(); !errors.Is(err, auth.ErrUnavailable) {
		t.Errorf("nothing is known: %v", err)
	}
	reg.err = nil
	if got, err := look(); err != nil || got.Away || got.Totals.Nodes != 2 {
		t.Fatalf("at first: %+v, %v", got, err)
	}
	reg.err = errors.New("away")
	if got, err := look(); err != nil || !got.Away || got.Totals.Nodes != 2 {
		t.Errorf("away: %+v, %v", got, err)
	}
	reg.err, reg.at = nil, s.reg.Now().Add(time.Minute)
	if got, err := look(); err != nil || got.Away || got.Totals.Dead != 0 {
		t.Errorf("just after: %+v, %v", got, err)
	}
	reg.at = reg.at.Add(cluster.DeadAfter)
	if got, err := look(); err != nil || got.Totals.Dead != 2 {
		t.Errorf("when they had time to come back: %+v, %v", got, err)
	}
}

// TestEvents: what a listener is told, and that it ends with his session.
func TestEvents(t *testing.T) {
	s := newServer(t, inMemory(t)(t))
	s.member(t, "self")
	s.add(t, auth.Account{Name: "op", Role: auth.Operator})
	op := s.logIn(t, "op")
	srv := httptest.NewServer(s)
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/rest/v2/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.AddCookie(&http.Cookie{Name: CookieName, Value: op.cookie})
	res, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	next := func(event string, is func(clusterEvent) bool) {
		t.Helper()
		last := ""
		for lines.Scan() {
			name, ok := strings.CutPrefix(lines.Text(), "event: ")
			if !ok || !lines.Scan() || name != event {
				continue
			}
			last = strings.TrimPrefix(lines.Text(), "data: ")
			var e clusterEvent
			if err := json.Unmarshal([]byte(last), &e); err != nil {
				t.Fatal(err)
			}
			if is(e) {
				return
			}
		}
		t.Fatalf("no more %s; the last was %s", event, last)
	}
	next("cluster", func(e clusterEvent) bool { return e.Reset })
	next("streams", func(clusterEvent) bool { return true })
	played(t, s)
	next("cluster", func(e clusterEvent) bool { return !e.Reset && len(e.Nodes) > 0 && e.Nodes[0].ID == "edge-1" })
	next("streams", func(clusterEvent) bool { return true })
	if err := s.reg.Leave(t.Context(), "edge-1", int64(len("edge-1"))+1); err != nil {
		t.Fatal(err)
	}
	next("cluster", func(e clusterEvent) bool { return len(e.Gone) == 1 && e.Gone[0] == "edge-1" })
	s.ask(t, op, "DELETE", "/rest/v2/users/logout", "").want(t, "log out", 200, "")
	for lines.Scan() { // until it ends
	}
}
