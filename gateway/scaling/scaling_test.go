package scaling

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/media"
)

// start runs a Watch of a view until the test ends.
func start(t *testing.T, cfg Config) *Watch {
	t.Helper()
	cfg.Listen, cfg.Log = "127.0.0.1:0", slog.New(slog.DiscardHandler)
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return w
}

// view has two edges in eu, of which one is full, one in us, and an origin.
func view() cluster.View {
	now := time.Now()
	n := func(id string, role cluster.Role, region string, load float64, viewers int) cluster.Node {
		return cluster.Node{ID: id, Role: role, Region: region, State: cluster.Ready, CPU: load, Load: load, LastHeartbeat: now,
			Serving: []cluster.Serving{{Stream: media.Key{App: "live", ID: "a"}, Viewers: viewers}}}
	}
	full := n("b", cluster.Edge, "eu", 0.9, 90)
	full.Full = "why"
	return cluster.View{At: now, Nodes: []cluster.Node{n("a", cluster.Edge, "eu", 0.3, 30), full, n("c", cluster.Edge, "us", 0.1, 10), n("d", cluster.Origin, "eu", 0.2, 0)}}
}

func get(t *testing.T, w *Watch, path string) (status int, kind, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	for end := time.Now().Add(5 * time.Second); ; {
		res, err := client.Get("http://" + w.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if len(w.Signals()) > 0 || time.Now().After(end) { // else it has not looked yet
			return res.StatusCode, res.Header.Get("Content-Type"), string(b)
		}
	}
}

// TestScalingIsLogged: what nobody can act on is no news.
func TestScalingIsLogged(t *testing.T) {
	for _, tc := range []struct {
		listen, level string
	}{{"127.0.0.1:0", "DEBUG"}, {"", "INFO"}, {":5081", "INFO"}} {
		t.Run(tc.listen, func(t *testing.T) {
			var log strings.Builder
			w, err := New(Config{Listen: tc.listen, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
			if err != nil {
				t.Fatal(err)
			}
			w.take([]cluster.Signal{{Role: cluster.Edge, Nodes: 2, Desired: 2}})
			w.take([]cluster.Signal{{Role: cluster.Edge, Nodes: 2, Desired: 3}})
			if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "level="+tc.level+` msg="scaling signal" role=edge region="" nodes=2 desired=3`) {
				t.Errorf("log: %s", got)
			}
		})
	}
}

func TestScalingIsShown(t *testing.T) {
	w := start(t, Config{View: view})
	get(t, w, "/scaling")
	t.Run("all", func(t *testing.T) {
		_, kind, body := get(t, w, "/scaling")
		var got struct{ Groups []group }
		if err := json.Unmarshal([]byte(body), &got); err != nil || kind != "application/json" {
			t.Fatalf("%s %s: %v", kind, body, err)
		}
		if len(got.Groups) != 3 || got.Groups[0].Role != "edge" || got.Groups[0].Region != "eu" || got.Groups[2].Role != "origin" {
			t.Errorf("groups: %s", body)
		}
	})
	t.Run("one, as KEDA reads it", func(t *testing.T) {
		status, _, body := get(t, w, "/scaling?role=edge&region=eu")
		var got struct {
			Desired, Nodes, Full, Viewers int
			Load                          float64
			Reason                        string
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 {
			t.Fatalf("%d %s: %v", status, body, err)
		}
		if got.Nodes != 2 || got.Full != 1 || got.Viewers != 120 || got.Desired < 1 || got.Load < 0.59 || got.Load > 0.61 || !strings.Contains(got.Reason, "2 ready at 60 %") {
			t.Errorf("%+v", got)
		}
	})
	for _, tc := range []struct {
		path, code string
		status     int
	}{{"/scaling?role=edge", "bad_request", 400}, {"/scaling?role=standalone", "not_found", 404}, {"/scaling?role=edge&region=asia", "not_found", 404}} {
		t.Run(tc.path, func(t *testing.T) {
			if status, kind, body := get(t, w, tc.path); status != tc.status || kind != "application/problem+json" || !strings.Contains(body, `"`+tc.code+`"`) {
				t.Errorf("%d %s %s", status, kind, body)
			}
		})
	}
	t.Run("metrics", func(t *testing.T) {
		_, kind, body := get(t, w, "/metrics")
		for _, line := range []string{
			`sluice_group_nodes{region="eu",role="edge"} 2`, `sluice_group_full_nodes{region="eu",role="edge"} 1`, `sluice_group_viewers{region="us",role="edge"} 10`,
			"# TYPE sluice_group_desired_nodes gauge", `sluice_group_desired_nodes{region="eu",role="origin"} 1`, "# TYPE go_goroutines gauge",
		} {
			if !strings.Contains(body, line+"\n") {
				t.Errorf("no line %q in %s\n%s", line, kind, body)
			}
		}
	})
}

// cloud is the part of Azure that is asked, as documented.
type cloud struct {
	t      *testing.T
	server *httptest.Server

	mu     sync.Mutex
	tokens int
	refuse bool     // the next metric
	posts  []string // path and body
	told   chan struct{}
}

func newCloud(t *testing.T) *cloud {
	c := &cloud{t: t, told: make(chan struct{}, 100)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metadata/identity/oauth2/token", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Metadata") != "true" || r.URL.Query().Get("api-version") != "2018-02-01" || r.URL.Query().Get("resource") == "" {
			t.Errorf("token: %s %v", r.URL, r.Header)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.tokens++
		fmt.Fprintf(w, `{"access_token":"token-%d","client_id":"c","expires_in":"86399","expires_on":"1586984735","ext_expires_in":"86399","not_before":"1586898035","resource":"%s","token_type":"Bearer"}`,
			c.tokens, r.URL.Query().Get("resource"))
	})
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		c.mu.Lock()
		defer c.mu.Unlock()
		if want := fmt.Sprintf("Bearer token-%d", c.tokens); r.Header.Get("Authorization") != want || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("headers %v, want %s", r.Header, want)
		}
		if c.refuse {
			c.refuse = false
			http.Error(w, `{"error":{"code":"Unauthorized"}}`, http.StatusUnauthorized)
			return
		}
		c.posts = append(c.posts, r.URL.Path+" "+string(body))
		c.told <- struct{}{}
	})
	c.server = httptest.NewServer(mux)
	t.Cleanup(c.server.Close)
	return c
}

const scaleSet = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/sluice/providers/Microsoft.Compute/virtualMachineScaleSets/edges"

// TestAzureBody: path and body are exactly as documented for custom metrics.
func TestAzureBody(t *testing.T) {
	c := newCloud(t)
	a, err := newAzure(Azure{Endpoint: c.server.URL, Edges: scaleSet, Region: "eu", metadata: c.server.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer a.client.CloseIdleConnections()
	signals := []cluster.Signal{
		{Role: cluster.Edge, Region: "eu", Nodes: 2, Desired: 5, Recent: 0.725},
		{Role: cluster.Edge, Region: "us", Nodes: 9, Desired: 9},
		{Role: cluster.Origin, Region: "eu", Nodes: 1, Desired: 1},
	}
	at := time.Date(2026, 9, 13, 18, 34, 20, 5e8, time.FixedZone("", 2*3600))
	c.refuse = true
	if err := a.push(t.Context(), signals, at); err == nil || !strings.Contains(err.Error(), "Monitoring Metrics Publisher") || !strings.Contains(err.Error(), "401") {
		t.Errorf("refused: %v", err)
	}
	for range 2 {
		if err := a.push(t.Context(), signals, at); err != nil {
			t.Fatal(err)
		}
	}
	body := func(name string, value string) string {
		return scaleSet + "/metrics " + `{"time":"2026-09-13T16:34:20Z","data":{"baseData":{"metric":"` + name + `","namespace":"Sluice","dimNames":["Role"],"series":[{"dimValues":["edge"],"min":` + value + `,"max":` + value + `,"sum":` + value + `,"count":1}]}}}`
	}
	want := []string{body("Load", "72.5"), body("Desired", "5"), body("Missing", "3")}
	if len(c.posts) != 6 || c.posts[0] != want[0] || c.posts[1] != want[1] || c.posts[2] != want[2] {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(c.posts, "\n\t"), strings.Join(want, "\n\t"))
	}
	if c.tokens != 2 { // one was refused, one is used for both
		t.Errorf("%d tokens", c.tokens)
	}
}

func TestAzureAudience(t *testing.T) {
	for endpoint, want := range map[string]string{
		"https://westeurope.monitoring.azure.com": "https://monitoring.azure.com/", "https://usgovvirginia.monitoring.azure.us": "https://monitoring.azure.us/",
	} {
		if a, err := newAzure(Azure{Endpoint: endpoint}); err != nil || a.audience != want {
			t.Errorf("%s: %+v, %v", endpoint, a, err)
		}
	}
	if a, err := newAzure(Azure{}); a != nil || err != nil {
		t.Errorf("%v, %v", a, err)
	}
	if _, err := newAzure(Azure{Endpoint: "westeurope"}); err == nil {
		t.Error("a name is taken for an address")
	}
}

// TestAzureIsTold: a running Watch sends by itself.
func TestAzureIsTold(t *testing.T) {
	c := newCloud(t)
	start(t, Config{View: view, Azure: Azure{Endpoint: c.server.URL, Edges: scaleSet, Origins: scaleSet + "-o", Region: "eu", metadata: c.server.URL, every: 10 * time.Millisecond}})
	for range 6 {
		select {
		case <-c.told:
		case <-time.After(10 * time.Second):
			t.Fatal("nothing is sent")
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if all := strings.Join(c.posts, "\n"); !strings.Contains(all, `["origin"]`) || !strings.Contains(all, `["edge"]`) || strings.Contains(all, `"sum":9`) {
		t.Errorf("sent: %s", all)
	}
}
