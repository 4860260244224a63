package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sluice/internal/auth"
	"sluice/internal/settings"
)

// TestSettings asks one node, and then another.
func TestSettings(t *testing.T) {
	for _, st := range stores {
		t.Run(st.name, func(t *testing.T) {
			t.Parallel()
			open := st.open(t)
			s, other := newServer(t, open(t)), newServer(t, open(t))
			s.add(t, auth.Account{Name: "root", Role: auth.Administrator})
			root := s.logIn(t, "root")
			const live, server = "/rest/v2/applications/settings/live", "/rest/v2/server-settings"
			for _, c := range []struct {
				name, method, path, body string
				status                   int
				code, part               string // of the answer
			}{
				{"all", "GET", "/rest/v2/applications", "", 200, "", `{"applications":["WebRTCAppEE","live"]}`},
				{"at first", "GET", live, "", 200, "", `"playoutDelay":"100ms","webRTCViewerLimit":-1,"allowedOrigins":[]`},
				{"change", "POST", live, `{"playoutDelay":"0s","allowedOrigins":["https://a.example"]}`, 200, "", `"success":true`},
				{"is changed", "GET", live, "", 200, "", `"playoutDelay":"0s","webRTCViewerLimit":-1,"allowedOrigins":["https://a.example"]`},
				{"null is none", "POST", live, `{"allowedOrigins":[]}`, 200, "", `version 2`},
				{"an old version", "POST", live + "?version=1", `{"playoutDelay":"1s"}`, 409, "conflict", ""},
				{"the present one", "POST", live + "?version=2&note=test", `{"playoutDelay":"1s"}`, 200, "", "version 3"},
				{"unknown member", "POST", live, `{"playoutdelays":"1s"}`, 422, "invalid", ""},
				{"wrong type", "POST", live, `{"webRTCViewerLimit":"many"}`, 422, "invalid", ""},
				{"too small", "POST", live, `{"webRTCViewerLimit":-2}`, 422, "invalid", ""},
				{"no origin", "POST", live, `{"allowedOrigins":["x"]}`, 422, "invalid", ""},
				{"no JSON", "POST", live, `{`, 400, "bad_request", ""},
				{"a list", "POST", live, `[]`, 422, "invalid", ""},
				{"too large", "POST", live, `{"playoutDelay":"` + strings.Repeat("1", 70<<10) + `"}`, 413, "too_large", ""},
				{"versions", "GET", live + "/versions", "", 200, "", `"by":"root","note":"test"`},
				{"restore", "POST", live + "/versions/1/restore", "", 200, "", "version 4"},
				{"is restored", "GET", live, "", 200, "", `"allowedOrigins":["https://a.example"]`},
				{"restore none", "POST", live + "/versions/77/restore", "", 404, "not_found", ""},
				{"restore nonsense", "POST", live + "/versions/-1/restore", "", 422, "invalid", ""},
				{"of none", "GET", "/rest/v2/applications/settings/nosuch", "", 404, "unknown_app", ""},
				{"make", "POST", "/rest/v2/applications/stage", "", 200, "", ""},
				{"make it again", "POST", "/rest/v2/applications/stage", "", 409, "already_exists", ""},
				{"make a bad one", "POST", "/rest/v2/applications/st.age", "", 422, "invalid", ""},
				{"there it is", "GET", "/rest/v2/applications", "", 200, "", `"stage"`},
				{"its settings", "GET", "/rest/v2/applications/settings/stage", "", 200, "", `"playoutDelay":"100ms"`},
				{"delete", "DELETE", "/rest/v2/applications/stage", "", 200, "", ""},
				{"delete it again", "DELETE", "/rest/v2/applications/stage", "", 404, "unknown_app", ""},
				{"the cluster's", "POST", server, `{"serverName":"stage"}`, 200, "", ""},
				{"are changed", "GET", server, "", 200, "", `"serverName":"stage"`},
				{"a bad level", "POST", server, `{"logLevel":"loud"}`, 422, "invalid", ""},
				{"their versions", "GET", server + "/versions", "", 200, "", `"serverName":"stage"`},
				{"back", "POST", server + "/versions/0/restore", "", 200, "", ""},
				{"to nothing", "GET", server, "", 200, "", `"serverName":""`},
			} {
				got := s.ask(t, root, c.method, c.path, c.body)
				got.want(t, c.name, c.status, c.code)
				if !strings.Contains(got.body, c.part) {
					t.Errorf("%s: %s lacks %s", c.name, got.body, c.part)
				}
			}
			if err := other.deps.Settings.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
			var there settings.App
			got := other.ask(t, root, "GET", live, "")
			if err := json.Unmarshal([]byte(got.body), &there); err != nil || there.PlayoutDelay != "0s" || got.header.Get("X-Settings-Version") != "4" {
				t.Errorf("the other node has %s, version %s, %v", got.body, got.header.Get("X-Settings-Version"), err)
			}
			if a, ok := other.deps.Settings.App("live"); !ok || fmt.Sprint(a) != fmt.Sprint(there) {
				t.Errorf("the other node uses %+v", a)
			}
		})
	}
}
