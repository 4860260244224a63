package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/cluster/memory"
	"sluice/cluster/mongo"
	"sluice/cluster/mongo/mongotest"
	"sluice/cluster/sqlite"
	"sluice/internal/access"
	"sluice/internal/auth"
	"sluice/internal/census"
	"sluice/internal/settings"
	"sluice/internal/webhook"
)

const password = "four plain words more"

// store opens one more registry on the same store.
type store func(t *testing.T) cluster.Store

func inMemory(*testing.T) store {
	s := memory.NewStore(time.Now)
	return func(*testing.T) cluster.Store { return s.Open() }
}

func onSQLite(t *testing.T) store {
	path := filepath.Join(t.TempDir(), "sluice.db")
	return func(t *testing.T) cluster.Store { return opened(t)(sqlite.Open(t.Context(), path)) }
}

func onMongoDB(t *testing.T) store {
	line := mongotest.Start(t, mongotest.Options{}).Line(nil)
	return func(t *testing.T) cluster.Store { return opened(t)(mongo.Open(t.Context(), line.URL("db"))) }
}

func opened(t *testing.T) func(cluster.Store, error) cluster.Store {
	return func(s cluster.Store, err error) cluster.Store {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
}

// stores are where the cluster's registry may be.
var stores = []struct {
	name string
	open func(*testing.T) store
}{{"sqlite", onSQLite}, {"mongodb", onMongoDB}}

// server is a node as far as its API goes.
type server struct {
	*API
	reg      cluster.Store
	accounts *auth.Accounts
	peers    *peers
}

func newServer(t *testing.T, reg cluster.Store) *server {
	t.Helper()
	accounts := auth.New(reg, auth.Config{})
	saved, err := settings.New(reg, settings.Config{Apps: []string{"live", "WebRTCAppEE"}, Defaults: settings.App{PlayoutDelay: "100ms", ViewerLimit: -1}})
	if err != nil {
		t.Fatal(err)
	}
	asks := &peers{}
	a := New(Config{Version: "test"}, Deps{Accounts: accounts, Settings: saved, Access: access.New(reg, access.Config{}), Webhooks: webhook.New(reg, webhook.Config{}), Live: census.New(reg, asks.ask), Registry: reg, Documents: reg,
		System: func() System { return System{Node: "test", Started: time.Now()} },
		Client: func(r *http.Request) netip.Addr { return netip.MustParseAddrPort(r.RemoteAddr).Addr() },
		Secure: func(r *http.Request) bool { return r.TLS != nil }})
	return &server{API: a, reg: reg, accounts: accounts, peers: asks}
}

// peers stand for the other nodes.
type peers struct {
	mu      sync.Mutex
	details []census.Detail
	viewers []census.Viewer
	stopped []string
}

func (p *peers) ask(_ context.Context, to cluster.Node, method, path string, out any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case to.HTTP == "":
		return census.ErrNode
	case method == http.MethodPost:
		p.stopped = append(p.stopped, to.ID+" "+path)
	case path == census.StreamsPath:
		*out.(*[]census.Detail) = p.details
	default:
		*out.(*[]census.Viewer) = p.viewers
	}
	return nil
}

// member keeps the server's node in the cluster, so that it learns of notices.
func (s *server) member(t *testing.T, id string) {
	t.Helper()
	m := cluster.NewMember(s.reg, id, func() cluster.Node { return cluster.Node{} }, s.log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func (s *server) add(t *testing.T, u auth.Account) {
	t.Helper()
	if _, err := s.accounts.Add(t.Context(), u, password); err != nil {
		t.Fatalf("add %s: %v", u.Name, err)
	}
}

// visitorCard is what somebody shows.
type card struct {
	cookie, csrf, key string
}

func (s *server) logIn(t *testing.T, name string) card {
	t.Helper()
	token, id, err := s.accounts.LogIn(t.Context(), name, password, netip.MustParseAddr("192.0.2.9"), "test")
	if err != nil {
		t.Fatalf("log in as %s: %v", name, err)
	}
	return card{cookie: token, csrf: id.CSRF}
}

func (s *server) key(t *testing.T, k auth.KeyInfo) (card, string) {
	t.Helper()
	key, made, err := s.accounts.AddKey(t.Context(), k)
	if err != nil {
		t.Fatalf("make a key: %v", err)
	}
	return card{key: key}, made.ID
}

// reply is what came back.
type reply struct {
	status int
	header http.Header
	body   string
	fields map[string]any
}

func (r reply) code() string {
	c, _ := r.fields["code"].(string)
	return c
}

// ask sends a request; edit may change it.
func (s *server) ask(t *testing.T, c card, method, path, body string, edit ...func(*http.Request)) reply {
	t.Helper()
	var r *http.Request
	if body == "" {
		r = httptest.NewRequest(method, "http://node.example"+path, nil)
	} else {
		r = httptest.NewRequest(method, "http://node.example"+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
	}
	r.RemoteAddr = "192.0.2.7:1234"
	if c.cookie != "" {
		r.AddCookie(&http.Cookie{Name: CookieName, Value: c.cookie})
		r.Header.Set(CSRFHeader, c.csrf)
	}
	if c.key != "" {
		r.Header.Set("Authorization", "Bearer "+c.key)
	}
	for _, fn := range edit {
		fn(r)
	}
	if strings.HasPrefix(path, "/rest/v2/events") { // it would tell for ever
		ctx, cancel := context.WithTimeout(r.Context(), 20*time.Millisecond)
		defer cancel()
		r = r.WithContext(ctx)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	out := reply{status: w.Code, header: w.Header(), body: w.Body.String()}
	_ = json.Unmarshal(w.Body.Bytes(), &out.fields) // not every answer is an object
	if w.Code >= 400 && (out.code() == "" || w.Header().Get("Content-Type") != "application/problem+json" || out.fields["success"] != false) {
		t.Errorf("%s %s: %d with %s is no problem of ours: %s", method, path, w.Code, w.Header().Get("Content-Type"), out.body)
	}
	return out
}

// want compares status and code.
func (r reply) want(t *testing.T, what string, status int, code string) {
	t.Helper()
	if r.status != status || r.code() != code {
		t.Errorf("%s: %d %s, want %d %s: %.300s", what, r.status, r.code(), status, code, r.body)
	}
}
