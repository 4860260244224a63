package gateway

import (
	"net/http"
	"net/url"
	"testing"

	"sluice/media"
)

var routeCases = []struct {
	name, method, path string
	upgrade            bool
	want               route
	code               string
}{
	{"panel", "GET", "/", false, route{}, ""},
	{"publish page", "GET", "/live/", false, route{}, ""},
	{"app without slash", "GET", "/live", false, route{}, ""},
	{"player", "GET", "/live/player.html", false, route{}, ""},
	{"rest", "GET", "/live/rest/v2/broadcasts/stream1", false, route{}, ""},
	{"own health", "GET", "/gateway/healthz", false, route{kind: toSelf}, ""},
	{"figures of a node", "GET", "/metrics", false, route{kind: toNobody}, ""},
	{"load of a node", "GET", "/load", false, route{kind: toNobody}, ""},
	{"app of that name", "GET", "/load/", false, route{}, ""},
	{"new viewer", "POST", "/live/whep/stream1", false, route{kind: newSetup, key: stream1}, ""},
	{"new publisher", "POST", "/live/whip/stream1", false, route{kind: newSetup, key: stream1}, ""},
	{"get of an endpoint", "GET", "/live/whep/stream1", false, route{key: stream1}, ""},
	{"preflight of an endpoint", "OPTIONS", "/live/whep/stream1", false, route{}, ""},
	{"resource", "PATCH", "/live/whep/stream1/edge-1.f00", false, route{kind: toNode, key: stream1, node: "edge-1"}, ""},
	{"resource, random with dots", "DELETE", "/live/whip/stream1/o1.a.b", false, route{kind: toNode, key: stream1, node: "o1"}, ""},
	{"events of a resource", "GET", "/live/whep/stream1/edge-1.f00/events", false, route{kind: toNode, key: stream1, node: "edge-1", events: true}, ""},
	{"layer of a resource", "POST", "/live/whep/stream1/edge-1.f00/layer", false, route{kind: toNode, key: stream1, node: "edge-1"}, ""},
	{"preflight of a resource", "OPTIONS", "/live/whip/stream1/gone.abc", false, route{}, ""},
	{"resource without dot", "DELETE", "/live/whip/stream1/abc", false, route{}, "no_session"},
	{"resource without random", "DELETE", "/live/whip/stream1/abc.", false, route{}, "no_session"},
	{"resource with bad node", "DELETE", "/live/whip/stream1/a_b.c", false, route{}, "no_session"},
	{"deeper than a resource", "GET", "/live/whip/stream1/a.b/c", false, route{}, ""},
	{"bad stream name", "POST", "/live/whep/a b", false, route{}, "bad_name"},
	{"hidden app", "POST", "/.git/whep/a", false, route{}, "bad_name"},
	{"no stream name", "POST", "/live/whep/", false, route{}, "bad_name"},
	{"socket", "GET", "/live/websocket", true, route{kind: newSocket}, ""},
	{"socket, other address", "GET", "/live/websocket/signaling", true, route{kind: newSocket}, ""},
	{"socket address without upgrade", "GET", "/live/websocket", false, route{}, ""},
	{"upgrade elsewhere", "GET", "/rest/v2/events", true, route{}, ""},
	{"playlist", "GET", "/live/streams/stream1.m3u8", false, route{key: stream1}, ""},
	{"ladder", "GET", "/live/streams/stream1_adaptive.m3u8", false, route{key: stream1}, ""},
	{"rung", "HEAD", "/live/streams/stream1_480p1000kbps.m3u8", false, route{key: stream1}, ""},
	{"segment", "GET", "/live/streams/stream1000000012.ts", false, route{key: stream1}, ""},
	{"segment of a rung", "GET", "/live/streams/stream1_480p1000kbps000000012.ts", false, route{key: stream1}, ""},
	{"stream with underscore", "GET", "/live/streams/my_cam.m3u8", false, route{key: media.Key{App: "live", ID: "my_cam"}}, ""},
	{"odd file", "GET", "/live/streams/a b.m3u8", false, route{}, ""},
}

func parseCase(method, path string, upgrade bool) (route, string) {
	r := &http.Request{Method: method, URL: &url.URL{Path: path}, Header: http.Header{}}
	if upgrade {
		r.Header.Set("Upgrade", "WebSocket")
	}
	rt, p := parseRoute(r)
	if p != nil {
		return rt, p.Code.Name
	}
	return rt, ""
}

func TestParseRoute(t *testing.T) {
	for _, c := range routeCases {
		t.Run(c.name, func(t *testing.T) {
			got, code := parseCase(c.method, c.path, c.upgrade)
			if got != c.want || code != c.code {
				t.Errorf("got %+v %q, want %+v %q", got, code, c.want, c.code)
			}
		})
	}
}

func FuzzParseRoute(f *testing.F) {
	for _, c := range routeCases {
		f.Add(c.method, c.path, c.upgrade)
	}
	f.Fuzz(func(t *testing.T, method, path string, upgrade bool) {
		rt, code := parseCase(method, path, upgrade)
		if code != "" && rt != (route{}) {
			t.Errorf("refused and routed: %+v", rt)
		}
		if rt.signals() && (rt.key == media.Key{}) {
			t.Errorf("session without a stream: %+v", rt)
		}
		if rt.key != (media.Key{}) {
			if _, err := media.NewKey(rt.key.App, rt.key.ID); err != nil {
				t.Errorf("bad key: %v", err)
			}
		}
	})
}
