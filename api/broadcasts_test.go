package api

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/internal/auth"
	"sluice/internal/census"
	"sluice/media"
)

// stage puts nodes and streams into the registry: "camera" and "uncreated" are live in live, with viewers at two edges.
func (s *server) stage(t *testing.T) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	camera, uncreated := media.Key{App: "live", ID: "camera"}, media.Key{App: "live", ID: "uncreated"}
	for i, n := range []cluster.Node{
		{ID: "origin-1", Role: cluster.Origin, HTTP: "192.0.2.1:5080", Serving: []cluster.Serving{{Stream: camera}, {Stream: uncreated}}},
		{ID: "origin-2", Role: cluster.Origin, HTTP: "192.0.2.2:5080"},
		{ID: "edge-1", Role: cluster.Edge, HTTP: "192.0.2.3:5080", CPU: 0.25, Serving: []cluster.Serving{{Stream: camera, Viewers: 2}}},
		{ID: "edge-2", Role: cluster.Edge, Serving: []cluster.Serving{{Stream: camera, Viewers: 3}, {Stream: uncreated, Viewers: 1}}},
	} {
		n.Session, n.State, n.Started = int64(i+1), cluster.Ready, time.Now()
		check(s.reg.Join(t.Context(), n))
	}
	for _, l := range []cluster.Lease{{Key: camera, Node: "origin-1", Session: 1}, {Key: uncreated, Node: "origin-1", Session: 1}, {Key: camera, Backup: true, Node: "origin-2", Session: 2}} {
		l, err := s.reg.Claim(t.Context(), l)
		check(err)
		check(s.reg.Report(t.Context(), l, cluster.StreamInfo{State: cluster.Broadcasting, Codecs: []string{"H264", "opus"}}))
	}
	s.peers.details = []census.Detail{{Stream: camera, Bytes: 1000, Tracks: []census.Track{{Kind: "video", Codec: "H264", Width: 1280, Height: 720, Bitrate: 2_000_000},
		{Kind: "video", Codec: "H264", Rendition: "480p", Width: 854, Height: 480, Bitrate: 800_000, Made: true}, {Kind: "audio", Codec: "opus", Bitrate: 64_000}}}}
	s.peers.viewers = []census.Viewer{{ID: "abc", Remote: "198.51.100.1:9", Lost: 0.1, Path: 3_000_000}, {ID: "def", Lost: 0.5}}
	s.deps.Live.Forget()
}

// TestBroadcasts is the table of requests and answers.
func TestBroadcasts(t *testing.T) {
	for _, st := range stores {
		t.Run(st.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, st.open(t)(t))
			s.add(t, auth.Account{Name: "root", Role: auth.Administrator})
			root := s.logIn(t, "root")
			s.stage(t)
			const at = "/live/rest/v2/broadcasts"
			for _, c := range []struct {
				name, method, path, body string
				status                   int
				code, part               string // of the answer
			}{
				{"create", "POST", at + "/create", `{"streamId":"camera","name":"Zoo","type":"liveStream","unknownMember":1,"mp4Enabled":0}`, 200, "", `"streamId":"camera","status":"broadcasting"`},
				{"create without an id", "POST", at + "/create", `{"name":"aquarium"}`, 200, "", `"status":"created"`},
				{"create again", "POST", at + "/create", `{"streamId":"camera"}`, 409, "already_exists", ""},
				{"create later", "POST", at + "/create", `{"streamId":"later"}`, 200, "", `"streamId":"later"`},
				{"a bad id", "POST", at + "/create", `{"streamId":"a/b"}`, 400, "bad_name", ""},
				{"a name in lines", "POST", at + "/create", `{"streamId":"lines","name":"a\nb"}`, 422, "invalid", ""},
				{"what is not done", "POST", at + "/create", `{"streamId":"pull","streamUrl":"rtsp://x"}`, 422, "invalid", "streamUrl"},
				{"another type", "POST", at + "/create", `{"type":"ipCamera"}`, 422, "invalid", "type"},
				{"no object", "POST", at + "/create", `7`, 422, "invalid", ""},
				{"wrong type", "POST", at + "/create", `{"name":7}`, 422, "invalid", ""},
				{"in no application", "POST", "/nosuch/rest/v2/broadcasts/create", `{}`, 404, "unknown_app", ""},
				{"get", "GET", at + "/camera", "", 200, "", `"name":"Zoo"`},
				{"its viewers", "GET", at + "/camera", "", 200, "", `"webRTCViewerCount":5`},
				{"its origin", "GET", at + "/camera", "", 200, "", `"originAdress":"192.0.2.1:5080","originNode":"origin-1","backupNode":"origin-2","nodes":["edge-1","edge-2","origin-1"]`},
				{"what it sends", "GET", at + "/camera", "", 200, "", `"bitrate":2064000,"receivedBytes":1000,"width":1280,"height":720`},
				{"one that nobody created", "GET", at + "/uncreated", "", 200, "", `"zombi":true`},
				{"none", "GET", at + "/nosuch", "", 404, "not_found", ""},
				{"change", "PUT", at + "/camera", `{"description":"bears"}`, 200, "", `"success":true`},
				{"change nothing", "PUT", at + "/camera", `{"description":"bears"}`, 200, "", `"success":false`},
				{"is changed", "GET", at + "/camera", "", 200, "", `"name":"Zoo","description":"bears"`},
				{"change none", "PUT", at + "/nosuch", `{"name":"x"}`, 404, "not_found", ""},
				{"list", "GET", at + "/list/0/10", "", 200, "", `"streamId":"uncreated"`},
				{"a search", "GET", at + "/list/0/10?search=ZOO", "", 200, "", `[{"streamId":"camera"`},
				{"by status", "GET", at + "/list/0/1?sort_by=status&order_by=desc", "", 200, "", `"status":"created"`},
				{"a type that is none", "GET", at + "/list/0/10?type_by=VoD", "", 200, "", "[]"},
				{"too large a page", "GET", at + "/list/0/501", "", 422, "invalid", ""},
				{"a negative page", "GET", at + "/list/-1/5", "", 422, "invalid", ""},
				{"a page of words", "GET", at + "/list/a/b", "", 422, "invalid", ""},
				{"an unknown order", "GET", at + "/list/0/5?sort_by=size", "", 422, "invalid", ""},
				{"count", "GET", at + "/count", "", 200, "", `"number":4`},
				{"count some", "GET", at + "/count/cam", "", 200, "", `"number":1`},
				{"count live ones", "GET", at + "/active-live-stream-count", "", 200, "", `"number":2`},
				{"statistics", "GET", at + "/camera/broadcast-statistics", "", 200, "", `{"totalRTMPWatchersCount":-1,"totalHLSWatchersCount":-1,"totalWebRTCWatchersCount":5,"totalDASHWatchersCount":-1}`},
				{"statistics of none", "GET", at + "/nosuch/broadcast-statistics", "", 404, "not_found", ""},
				{"all statistics", "GET", at + "/total-broadcast-statistics", "", 200, "", `"totalWebRTCWatchersCount":6,"totalDASHWatchersCount":-1,"activeLiveStreamCount":2`},
				{"stream-info", "GET", at + "/camera/stream-info", "", 200, "", `[{"videoHeight":720,"videoWidth":1280,"videoBitrate":2000000,"audioBitrate":64000,"videoCodec":"H264"`},
				{"viewers", "GET", at + "/camera/webrtc-client-stats/0/1?sort_by=worst", "", 200, "", `[{"clientId":"def"`},
				{"start", "POST", at + "/camera/start", "", 422, "invalid", ""},
				{"stop one that is not live", "POST", at + "/later/stop", "", 404, "stream_offline", ""},
				{"stop none", "POST", at + "/nosuch/stop", "", 404, "not_found", ""},
				{"stop", "POST", at + "/camera/stop", "", 200, "", `"success":true`},
				{"delete", "DELETE", at + "/later", "", 200, "", `"success":true`},
				{"delete it again", "DELETE", at + "/later", "", 404, "not_found", ""},
				{"delete several", "DELETE", at + "/?ids=camera,nosuch", "", 200, "", `"success":false,"message":"these were not there: nosuch"`},
				{"delete too many", "DELETE", at + "?ids=" + strings.Repeat("a,", 200), "", 422, "invalid", ""},
				{"nodes", "GET", "/rest/v2/cluster/nodes/0/2", "", 200, "", `"id":"edge-1","ip":"192.0.2.3:5080"`},
				{"their members", "GET", "/rest/v2/cluster/nodes/0/1", "", 200, "", `"memory":"0%","cpu":25,"dbQueryAveargeTimeMs":0,"status":"alive"`},
				{"count nodes", "GET", "/rest/v2/cluster/node-count", "", 200, "", `"number":4`},
				{"note", "PUT", "/rest/v2/cluster/node/edge-1/note?note=old+fan", "", 200, "", ""},
				{"is noted", "GET", "/rest/v2/cluster/nodes/0/50?search=edge-1", "", 200, "", `"note":"old fan"`},
				{"too long a note", "PUT", "/rest/v2/cluster/node/edge-1/note?note=" + strings.Repeat("x", 501), "", 422, "invalid", ""},
				{"note on none", "PUT", "/rest/v2/cluster/node/nosuch/note?note=x", "", 404, "not_found", ""},
				{"drain", "POST", "/rest/v2/cluster/nodes/edge-1/drain", `{"seconds":30}`, 200, "", ""},
				{"is ordered", "GET", "/rest/v2/cluster/nodes/0/50?search=edge-1", "", 200, "", `"drainOrdered":true`},
				{"undrain", "DELETE", "/rest/v2/cluster/nodes/edge-1/drain", "", 200, "", ""},
				{"remove one that lives", "DELETE", "/rest/v2/cluster/node/edge-1", "", 409, "conflict", ""},
				{"is it a cluster", "GET", "/rest/v2/cluster-mode-status", "", 200, "", `"success":true`},
				{"resources", "GET", "/rest/v2/system-resources", "", 200, "", `"totalViewers":6`},
				{"version", "GET", "/rest/v2/version", "", 200, "", `"versionName":"test"`},
				{"version of an application", "GET", "/live/rest/v2/version", "", 200, "", `"versionName":"test"`},
				{"liveness", "GET", "/rest/v2/liveness", "", 200, "", `"status":"ok"`},
				{"server time", "GET", "/rest/v2/server-time", "", 200, "", `"up-time"`},
				{"clients", "GET", "/rest/v2/live-clients-size", "", 200, "", `"totalLiveStreamSize":2`},
				{"applications", "GET", "/rest/v2/applications-info", "", 200, "", `{"name":"live","liveStreamCount":2,"viewerCount":6`},
			} {
				s.deps.Live.Forget() // else a node that does not beat would be judged by an old view
				got := s.ask(t, root, c.method, c.path, c.body)
				got.want(t, c.name, c.status, c.code)
				if !strings.Contains(got.body, c.part) {
					t.Errorf("%s: %s lacks %s", c.name, got.body, c.part)
				}
				s.beat(t)
			}
			const query = "/.node/stop?stream=live%2Fcamera"
			if want := []string{"origin-2 " + query + "&backup=1", "origin-1 " + query}; len(s.peers.stopped) < 2 || !slices.Equal(s.peers.stopped[:2], want) {
				t.Errorf("the nodes were asked %q, want %q first", s.peers.stopped, want)
			}
		})
	}
}

// beat keeps the nodes of stage alive.
func (s *server) beat(t *testing.T) {
	t.Helper()
	nodes, err := s.reg.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if err := s.reg.Heartbeat(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
}

// TestListing: pages of all orders, with streams that nobody has created among them.
func TestListing(t *testing.T) {
	for _, st := range stores {
		t.Run(st.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, st.open(t)(t))
			s.add(t, auth.Account{Name: "root", Role: auth.Administrator})
			root := s.logIn(t, "root")
			make := func(id, name string) {
				t.Helper()
				s.ask(t, root, "POST", "/live/rest/v2/broadcasts/create", fmt.Sprintf(`{"streamId":%q,"name":%q}`, id, name)).want(t, id, 200, "")
			}
			for i, name := range []string{"delta", "Alpha", "charlie", "bravo", "echo"} {
				make(fmt.Sprintf("s%d", i), name)
			}
			ids := func(query string, size int) (all []string) {
				t.Helper()
				for offset := 0; ; offset += size {
					got := s.ask(t, root, "GET", fmt.Sprintf("/live/rest/v2/broadcasts/list/%d/%d?%s", offset, size, query), "")
					var page []Broadcast
					if err := json.Unmarshal([]byte(got.body), &page); err != nil {
						t.Fatalf("%s: %v", got.body, err)
					}
					if len(page) == 0 {
						if total := got.header.Get("X-Total-Count"); total != fmt.Sprint(len(all)) {
							t.Errorf("%s: the total is %s of %d", query, total, len(all))
						}
						return all
					}
					for _, b := range page {
						all = append(all, b.StreamID)
					}
				}
			}
			check := func(query string, want ...string) {
				t.Helper()
				if got := ids(query, 2); !slices.Equal(got, want) {
					t.Errorf("%q lists %q, want %q", query, got, want)
				}
			}
			check("", "s0", "s1", "s2", "s3", "s4")
			check("sort_by=name", "s1", "s3", "s2", "s0", "s4")
			check("sort_by=name&order_by=desc", "s4", "s0", "s2", "s3", "s1")
			check("search=ch", "s2", "s4")
			s.stage(t) // camera and uncreated
			make("camera", "aaa")
			check("", "camera", "s0", "s1", "s2", "s3", "s4", "uncreated")
			check("order_by=desc", "uncreated", "s4", "s3", "s2", "s1", "s0", "camera")
			s.beat(t)
			check("sort_by=name", "uncreated", "camera", "s1", "s3", "s2", "s0", "s4")
			check("sort_by=status", "camera", "uncreated", "s0", "s1", "s2", "s3", "s4")
			check("search=C", "camera", "s2", "s4", "uncreated")
		})
	}
}
