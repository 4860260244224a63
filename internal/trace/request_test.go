package trace

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestRequestID: an id that is sane goes on, any other is replaced; it is in the answer and in the log.
func TestRequestID(t *testing.T) {
	for _, tc := range []struct {
		name, id string
		taken    bool
	}{
		{"none", "", false},
		{"a word", "order-7.b_3:x", true},
		{"64 letters", strings.Repeat("a", 64), true},
		{"65 letters", strings.Repeat("a", 65), false},
		{"a space", "a b", false},
		{"a new line", "a\nlevel=ERROR", false},
		{"a quote", `a"b`, false},
		{"not ASCII", "é", false},
		{"an equals sign", "a=b", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var log strings.Builder
			inside := ""
			h := Door{Route: func(*http.Request) string { return "x" }, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}.
				Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { inside = RequestOf(r.Context()) }))
			r := httptest.NewRequest("GET", "/", nil)
			r.Header[RequestHeader] = []string{tc.id}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			got := w.Header().Get(RequestHeader)
			if (got == tc.id) != tc.taken || CleanRequest(got) == "" || inside != got || !strings.Contains(log.String(), "request="+got+" ") {
				t.Errorf("answered %q, inside %q, logged %s", got, inside, log.String())
			}
		})
	}
}

// TestDoor: what a handler does is told once, a WebSocket and a stream of events when they begin.
func TestDoor(t *testing.T) {
	for _, tc := range []struct {
		name   string
		method string
		serve  http.HandlerFunc
		status int
		early  bool // told before the handler ends
		want   string
	}{
		{"nothing said", "GET", func(http.ResponseWriter, *http.Request) {}, 200, false, "GET"},
		{"an error", "PATCH", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, 404, false, "PATCH"},
		{"twice", "GET", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("a")); w.WriteHeader(500) }, 200, false, "GET"},
		{"after a hint", "GET", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(103); w.WriteHeader(201) }, 201, false, "GET"},
		{"events", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(200)
		}, 200, true, "GET"},
		{"a socket", "GET", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(101) }, 101, true, "GET"},
		{"a method that somebody made up", "BREW", func(http.ResponseWriter, *http.Request) {}, 200, false, "other"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			told, early := 0, false
			d := Door{Route: func(r *http.Request) string { return r.Pattern }, Log: slog.New(slog.DiscardHandler),
				Done: func(route, method string, status int, took time.Duration) {
					told++
					if route != "/{x}" || method != tc.want || status != tc.status || took < 0 {
						t.Errorf("told %s %s %d %v", route, method, status, took)
					}
				}}
			mux := http.NewServeMux()
			mux.HandleFunc("/{x}", func(w http.ResponseWriter, r *http.Request) { tc.serve(w, r); early = told > 0 })
			d.Wrap(mux).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(tc.method, "/y", nil))
			if told != 1 || early != tc.early {
				t.Errorf("told %d times, early: %v", told, early)
			}
		})
	}
}

// TestStrangersDoNotDecide: who is not trusted can name a trace, but not have it sent; who is trusted decides alone.
func TestStrangersDoNotDecide(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"
	for _, tc := range []struct {
		name    string
		ratio   float64
		flag    string
		trusted bool
		sampled bool
	}{
		{"a stranger asks for it", 0, "1", false, false},
		{"a stranger asks for none", 1, "0", false, true},
		{"the gateway traces", 0, "1", true, true},
		{"the gateway does not", 1, "0", true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr, err := New(Config{Endpoint: "http://127.0.0.1:1", Ratio: tc.ratio, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tr.provider.Shutdown(context.Background()) }()
			carried := ""
			h := Door{Tracer: tr, Route: func(*http.Request) string { return "x" }, Trusted: func(*http.Request) bool { return tc.trusted }, Log: slog.New(slog.DiscardHandler)}.
				Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { carried = Carried(r.Context()) }))
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("traceparent", parent+tc.flag)
			h.ServeHTTP(httptest.NewRecorder(), r)
			if (carried != "") != tc.sampled || tc.sampled && !strings.Contains(carried, "0af7651916cd43dd8448eb211c80319c") {
				t.Errorf("goes on as %q", carried)
			}
		})
	}
}

// TestCollectorIsAway: nothing waits for a collector that is not there, what is not sent is counted, and the operator is told once.
func TestCollectorIsAway(t *testing.T) {
	var log strings.Builder
	tr, err := New(Config{Endpoint: "http://127.0.0.1:1/", Ratio: 1, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	h := Door{Tracer: tr, Route: func(*http.Request) string { return "x" }, Log: slog.New(slog.DiscardHandler)}.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	begin := time.Now()
	const n = 3 * maxQueue
	for range n {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("%d requests took %v", n, took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tr.Run(ctx); err != nil {
		t.Error(err)
	}
	if s := tr.Stats(); s.Ended != n || s.Sent != 0 || s.Failed == 0 || s.Failed > n {
		t.Errorf("%+v of %d", s, n)
	}
	if got := strings.Count(log.String(), "does not take traces"); got != 1 {
		t.Errorf("told %d times: %s", got, log.String())
	}
}
