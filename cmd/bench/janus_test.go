package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeJanus answers as Janus does, and notes what it was asked.
type fakeJanus struct {
	mu     sync.Mutex
	asked  []string
	refuse string // a request
}

func (f *fakeJanus) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var m struct {
		Janus, Plugin, Transaction string
		Body                       struct{ Request string }
		JSEP                       struct{ Type, SDP string }
	}
	if r.Method == http.MethodPost && json.NewDecoder(r.Body).Decode(&m) != nil {
		http.Error(w, "no JSON", http.StatusBadRequest)
		return
	}
	what := m.Janus + m.Body.Request
	if r.Method == http.MethodGet {
		what = "poll"
	}
	f.asked = append(f.asked, strings.TrimSpace(r.URL.Path+" "+what+" "+m.JSEP.SDP))
	switch {
	case what == f.refuse && what == "poll":
		fmt.Fprint(w, `{"janus":"event","plugindata":{"data":{"error_code":455,"error":"No such mountpoint"}}}`)
	case what == f.refuse:
		fmt.Fprint(w, `{"janus":"error","error":{"code":1,"reason":"not today"}}`)
	case what == "create":
		fmt.Fprint(w, `{"janus":"success","data":{"id":9007199254740991}}`)
	case what == "attach":
		fmt.Fprint(w, `{"janus":"success","data":{"id":22}}`)
	case what == "poll" && len(f.asked) == 4:
		fmt.Fprint(w, `{"janus":"keepalive"}`)
	case what == "poll":
		fmt.Fprint(w, `{"janus":"event","jsep":{"type":"offer","sdp":"their offer"}}`)
	default:
		fmt.Fprint(w, `{"janus":"ack"}`)
	}
}

func TestJanusWatch(t *testing.T) {
	const s = "/janus/9007199254740991"
	begin := []string{"/janus create", s + " attach", s + "/22 messagewatch", s + " poll"}
	for _, tc := range []struct {
		name, refuse string
		bad          error // of describe
		want         string
		asked        []string
	}{
		{"good", "", nil, "", append(begin[:4:4], s+" poll", s+"/22 messagestart our answer")},
		{"no session", "create", nil, "not today", begin[:1]},
		{"no plugin", "attach", nil, "not today", append(begin[:2:2], s+" destroy")},
		{"no stream", "poll", nil, "No such mountpoint", append(begin[:4:4], s+" destroy")},
		{"an offer that isn't understood", "", errors.New("what?"), "what?", append(begin[:4:4], s+" poll", s+" destroy")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fakeJanus{refuse: tc.refuse}
			web := httptest.NewServer(f)
			defer web.Close()
			c := &janusClient{http: web.Client()}
			theirs, bye, err := c.watch(t.Context(), web.URL+"/janus", func(offer string) (string, error) {
				if offer != "their offer" {
					t.Errorf("asked to answer %q", offer)
				}
				return "our answer", tc.bad
			})
			if tc.want == "" {
				if err != nil || theirs != "their offer" {
					t.Fatalf("%q, %v", theirs, err)
				}
				if err := bye(t.Context()); err != nil {
					t.Error(err)
				}
				tc.asked = append(tc.asked, s+" destroy")
			} else if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
			if got := strings.Join(f.asked, "\n"); got != strings.Join(tc.asked, "\n") {
				t.Errorf("asked\n%s\nwant\n%s", got, strings.Join(tc.asked, "\n"))
			}
		})
	}
}

// TestJanus measures the real one, where it is installed.
func TestJanus(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds")
	}
	j, version, err := findJanus(t.Context(), janusName)
	if err != nil {
		t.Skip(err)
	}
	if !strings.Contains(version, ".") {
		t.Errorf("version %q", version)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	f, _, err := measureServer(ctx, scenario{viewers: 2, bitrate: 300_000, rate: 100, warm: time.Second}, time.Second, j.start)
	if err != nil {
		t.Fatal(err)
	}
	if f["loss"] != 0 || f["fps"] < 25 || f["undecryptable"] != 0 || f["latency_p50"] <= 0 || f["latency_p50"] > 200 || f[cpuPerPacket] <= 0 {
		t.Errorf("%v", f)
	}
}

func TestJanusIsMissing(t *testing.T) {
	if _, _, err := findJanus(t.Context(), filepath.Join(t.TempDir(), "janus")); !errors.Is(err, errNoJanus) {
		t.Errorf("%v", err)
	}
	r := &result{Versions: map[string]string{}}
	c := cli{Only: []string{janusName}, Janus: filepath.Join(t.TempDir(), "janus")}
	if found, err := c.subjects(t.Context(), r); err != nil || len(found) != 0 || len(r.Notes) != 1 || !strings.Contains(r.String(), "apt-get install janus") {
		t.Errorf("%v, %v, %s", found, err, r)
	}
}

func TestJanusConfiguration(t *testing.T) {
	dir := t.TempDir()
	j := &janus{plugin: "/x/plugin.so", transports: "/x/http.so"}
	if err := j.configure(dir, 1111, 2220); err != nil {
		t.Fatal(err)
	}
	for name, parts := range map[string][]string{
		"janus.jcfg":                  {"event_loops = 2", `plugins_folder = "` + dir + `/plugins"`, `cert_key = "` + dir + `/key.pem"`},
		"janus.transport.http.jcfg":   {"port = 1111", `ip = "127.0.0.1"`, "admin_http = false"},
		"janus.plugin.streaming.jcfg": {"videoport = 2220\n", "videortcpport = 2221\n", "audioport = 2222\n", "audiortcpport = 2223\n"},
	} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			if !strings.Contains(string(b), p) {
				t.Errorf("%s lacks %q", name, p)
			}
		}
	}
	if to, err := os.Readlink(filepath.Join(dir, "plugins", "libjanus_streaming.so")); err != nil || to != j.plugin {
		t.Errorf("%s, %v", to, err)
	}
}
