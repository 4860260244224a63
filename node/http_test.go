package node

import (
	"net/http/httptest"
	"strings"
	"testing"
)

// TestNoPublishing: a page of another origin learns why it can't publish on an edge.
func TestNoPublishing(t *testing.T) {
	for _, c := range []struct {
		method string
		status int
		body   string
	}{
		{"OPTIONS", 204, ""},
		{"POST", 403, "this node is an edge"},
	} {
		t.Run(c.method, func(t *testing.T) {
			w := httptest.NewRecorder()
			new(Node).noPublishing(w, httptest.NewRequest(c.method, "/live/whip/x", nil))
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.body) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if got := w.Header().Get("Access-Control-Allow-Origin"); got != "*" {
				t.Errorf("Access-Control-Allow-Origin is %q", got)
			}
			if allowed := w.Header().Get("Access-Control-Allow-Headers"); c.method == "OPTIONS" && !strings.Contains(allowed, "Authorization") {
				t.Errorf("Access-Control-Allow-Headers is %q", allowed)
			}
		})
	}
}
