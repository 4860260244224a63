package metrics

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestProfiles: they are for whoever is on this machine and asks it by its own name, and never tell the command line.
func TestProfiles(t *testing.T) {
	h := ProfilesHandler(Local, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	for _, tc := range []struct {
		name, method, path, peer, host string
		header                         [2]string
		want                           int
	}{
		{"here", "GET", "goroutine?debug=1", "127.0.0.1:4711", "127.0.0.1:5080", [2]string{}, 200},
		{"here, IPv6", "GET", "goroutine?debug=1", "[::1]:4711", "localhost:5080", [2]string{}, 200},
		{"the list", "GET", "", "127.0.0.1:4711", "localhost", [2]string{}, 200},
		{"another machine", "GET", "heap", "192.0.2.1:4711", "127.0.0.1:5080", [2]string{}, 403},
		{"by a proxy", "GET", "heap", "127.0.0.1:4711", "127.0.0.1:5080", [2]string{"X-Forwarded-For", "127.0.0.1"}, 403},
		{"a page of another site whose name stands for this machine", "GET", "heap", "127.0.0.1:4711", "example.org:5080", [2]string{}, 403},
		{"a page of another site", "GET", "heap", "127.0.0.1:4711", "127.0.0.1:5080", [2]string{"Origin", "https://example.org"}, 403},
		{"another method", "POST", "symbol", "127.0.0.1:4711", "127.0.0.1:5080", [2]string{}, 403},
		{"the command line", "GET", "cmdline", "127.0.0.1:4711", "127.0.0.1:5080", [2]string{}, 403},
		{"no peer", "GET", "heap", "@", "127.0.0.1:5080", [2]string{}, 403},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequest(tc.method, "http://x"+Profiles+tc.path, nil)
			r.RemoteAddr, r.Host = tc.peer, tc.host
			if tc.header[0] != "" {
				r.Header.Set(tc.header[0], tc.header[1])
			}
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, r); w.Code != tc.want {
				t.Errorf("status %d, want %d", w.Code, tc.want)
			}
			if tc.want == 200 && !strings.Contains(w.Body.String(), "goroutine") {
				t.Errorf("no profile: %.100s", w.Body)
			}
		})
	}
}

// TestNothingIsCounted: parts may be without a set.
func TestNothingIsCounted(t *testing.T) {
	var set *Set
	set.Register(func(*Sample) {})
	set.Waits("a", "b", "c").Observe(1, "d")
	set.Delays("a", "b").Observe(1)
	set.Counts("a", "b", "c", "d").Add("e")
	if set.HTTP().Done("x") != nil {
		t.Error("there is something to be told")
	}
}
