package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/cluster/sqlite"
	"sluice/media"
)

func TestRun(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir) // no sluice.yaml
	good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")
	for path, text := range map[string]string{good: "up:\n  edges: 3\n", bad: "nod:\nup:\n  edges: x\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name, args string
		env        map[string]string
		code       int
		out, err   string // "…" at the end: only the beginning counts
	}{
		{"nothing", "", nil, 0, "Usage: sluice <command> [flags]\n…", ""},
		{"help of a command", "up --help", nil, 0, "Usage: sluice up [flags]\n…", ""},
		{"version", "version", nil, 0, "sluice dev (commit unknown, go1.…", ""},
		{"unknown command", "upp", nil, exitUsage, "", "sluice: unexpected argument upp, did you mean \"up\"? (see: sluice --help)\n"},
		{"unknown flag", "up --edgs=1", nil, exitUsage, "", "sluice: unknown flag --edgs, did you mean \"--edges\"? (see: sluice --help)\n"},
		{"flag is no number", "up --edges=x", nil, exitUsage, "", "sluice: --edges: expected…"},
		{"flag out of range", "up --edges=0", nil, exitUsage, "", "sluice: --edges: 0 is not between 1 and 100 (see: sluice --help)\n"},
		{"flag not in the list", "up --log-level=loud", nil, exitUsage, "", "sluice: --log-level must be one of…"},
		{"variable out of range", "up", map[string]string{"SLUICE_UP_EDGES": "0"}, exitUsage, "", "sluice: variable SLUICE_UP_EDGES: 0 is not between 1 and 100 (see: sluice --help)\n"},
		{"mistakes in the file", "up --config=" + bad, nil, exitUsage, "", "sluice: " + bad + ":1: the file has no key \"nod\"; did you mean \"node\"? (and 1 more: sluice check " + bad + ") (see: sluice --help)\n"},
		{"no such file", "up --config=none.yaml", nil, exitUsage, "", "sluice: there is no configuration file none.yaml (see: sluice --help)\n"},
		{"no such file, by variable", "up", map[string]string{"SLUICE_CONFIG": "none.yaml"}, exitUsage, "", "sluice: there is no configuration file none.yaml (see: sluice --help)\n"},
		{"check", "check " + good, nil, 0, good + ": no mistakes\n", ""},
		{"check finds all", "check " + bad, nil, exitFailed,
			bad + ":1: the file has no key \"nod\"; did you mean \"node\"?\n" + bad + ":3: up.edges: \"x\" is not a whole number\n", "sluice: 2 mistakes in " + bad + "\n"},
		{"check of the environment", "check " + good, map[string]string{"SLUICE_NODE_ROLE": "x", "SLUICE_NODE_ROLL": "x"}, exitFailed,
			"variable SLUICE_NODE_ROLE: \"x\" is not one of standalone, origin, edge, transcoder\nvariable SLUICE_NODE_ROLL is not a setting; did you mean SLUICE_NODE_ROLE?\n",
			"sluice: 2 mistakes in " + good + " and the environment\n"},
		{"unknown variable", "version", map[string]string{"SLUICE_NODE_ROLL": "x"}, 0, "sluice dev …",
			"sluice: warning: variable SLUICE_NODE_ROLL is not a setting; did you mean SLUICE_NODE_ROLE?\n"},
		{"one port for two", "up --play-port=9000 --publish-port=9000", nil, exitUsage, "", "sluice: publish-port and play-port of up are both 9000: they must differ\n"},
		{"check nothing", "check", nil, exitUsage, "", "sluice: there is no sluice.yaml in this folder; name a file: sluice check FILE\n"},
		{"no cluster", "nodes", nil, exitFailed, "", "sluice: there is no cluster in .sluice: start one with sluice up, or name its registry with --store\n"},
		{"no registry", "streams --store=sqlite:none.db", nil, exitFailed, "", "sluice: there is no registry none.db: start a cluster, or name another with --store\n"},
		{"gateway without a certificate", "gateway", nil, exitUsage, "", "sluice: the gateway needs a certificate: give --certificate and --key (PEM files); sluice up makes its own\n"},
		{"gateway with a bad address", "gateway --publish=here", nil, exitUsage, "", "sluice: --publish: \"here\" is not an address to listen on, such as :5080 or 127.0.0.1:5080 (see: sluice --help)\n"},
		{"gateway with one door", "gateway --publish=", nil, exitUsage, "", "sluice: publish and play of the gateway: give both an address, or none; one alone would let nobody in by the other\n"},
		{"node with no such role", "serve --role=egde", nil, exitUsage, "", "sluice: --role must be one of…"},
		{"node with no such application name", "serve --apps=live,a/b", nil, exitUsage, "", "sluice: --apps: name \"a/b\": …"},
		{"play without a cluster", "play", nil, exitFailed, "", "sluice: no cluster runs in .sluice: start one with sluice up, or give a URL\n"},
		{"publish to no name", "publish test-pattern stream1", nil, exitUsage, "", "sluice: stream \"stream1\" is not APP/ID: …"},
		{"publish nothing", "publish", nil, exitUsage, "", "sluice: expected \"<source>\" (see: sluice --help)\n"},
		{"no such store", "nodes --store=ftp://x", nil, exitUsage, "", "sluice: unknown kind of store \"ftp\": …"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out, errs output
			code := run(t.Context(), strings.Fields(tc.args), tc.env, nil, &out, &errs)
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			for _, s := range []struct{ what, got, want string }{{"standard output", out.String(), tc.out}, {"standard error", errs.String(), tc.err}} {
				want, start := strings.CutSuffix(s.want, "…")
				if !(start && strings.HasPrefix(s.got, want) || s.got == want) {
					t.Errorf("%s:\ngot  %q\nwant %q", s.what, s.got, s.want)
				}
			}
		})
	}
}

// TestPrecedence: file, then environment, then flag.
func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte("up:\n  dir: "+filepath.Join(t.TempDir(), "from-file")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, want string
		env        map[string]string
		args       []string
	}{
		{"file", "from-file", nil, nil},
		{"variable", "from-env", map[string]string{"SLUICE_UP_DIR": "from-env"}, nil},
		{"flag", "from-flag", map[string]string{"SLUICE_UP_DIR": "from-env"}, []string{"--dir=from-flag"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out, errs output
			run(t.Context(), append([]string{"nodes", "--config=" + file}, tc.args...), tc.env, nil, &out, &errs)
			if !strings.Contains(errs.String(), tc.want+": start one") {
				t.Errorf("got %q, want it to look in %s", errs.String(), tc.want)
			}
		})
	}
}

// store fills a registry as a small cluster does.
func store(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), registryFile)
	reg, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	key := media.Key{App: "live", ID: "stream1"}
	for _, n := range []cluster.Node{
		{ID: "origin-1", Session: 1, Role: cluster.Origin, State: cluster.Ready, PID: 11, Host: "h", HTTP: "127.0.0.1:1", Media: "192.0.2.1:2", Version: "v1",
			CPU: 0.25, Memory: 0.5, Egress: 2e6, Load: 0.75, Full: "why", Serving: []cluster.Serving{{Stream: key, Viewers: 1}}},
		{ID: "edge-1", Session: 2, Role: cluster.Edge, State: cluster.Draining, PID: 12, Serving: []cluster.Serving{{Stream: key, Viewers: 2}}},
	} {
		if err := reg.Join(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	l, err := reg.Claim(t.Context(), cluster.Lease{Key: key, Node: "origin-1", Session: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := reg.Report(t.Context(), l, cluster.StreamInfo{State: cluster.Broadcasting, Codecs: []string{media.H264, media.Opus}}); err != nil {
		t.Fatal(err)
	}
	if _, err := reg.Claim(t.Context(), cluster.Lease{Key: media.Key{App: "live", ID: "zombie"}, Node: "gone", Session: 3}); err != nil {
		t.Fatal(err)
	}
	return "--store=sqlite:" + path
}

func ask(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs output
	if code := run(t.Context(), args, nil, nil, &out, &errs); code != 0 {
		t.Fatalf("%v: %d, %s", args, code, errs.String())
	}
	return out.String()
}

func TestNodesAndStreams(t *testing.T) {
	s := store(t)
	var nodes, streams []map[string]any
	for into, out := range map[*[]map[string]any]string{&nodes: ask(t, "nodes", s, "--json"), &streams: ask(t, "streams", s, "--json")} {
		if err := json.Unmarshal([]byte(out), into); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
	}
	if len(nodes) != 2 || len(streams) != 1 {
		t.Fatalf("got %v and %v", nodes, streams)
	}
	beat, err := time.Parse(time.RFC3339, fmt.Sprint(nodes[1]["lastHeartbeat"]))
	if err != nil || time.Since(beat) > time.Minute {
		t.Errorf("lastHeartbeat %v: %v", nodes[1]["lastHeartbeat"], err)
	}
	delete(nodes[1], "lastHeartbeat")
	wantNode := map[string]any{"id": "origin-1", "role": "origin", "pid": 11.0, "host": "h", "http": "127.0.0.1:1", "media": "192.0.2.1:2", "version": "v1",
		"state": "ready", "cpu": 0.25, "memory": 0.5, "egress": 2e6, "load": 0.75, "full": "why", "streams": 1.0, "viewers": 1.0}
	if !reflect.DeepEqual(nodes[1], wantNode) {
		t.Errorf("got  %v\nwant %v", nodes[1], wantNode)
	}
	wantStream := map[string]any{"app": "live", "id": "stream1", "state": "broadcasting", "origin": "origin-1", "epoch": streams[0]["epoch"],
		"edges": []any{"edge-1"}, "viewers": 3.0, "codecs": []any{"H264", "opus"}}
	if epoch, _ := streams[0]["epoch"].(float64); epoch < 1 {
		t.Errorf("epoch %v", streams[0]["epoch"])
	}
	if !reflect.DeepEqual(streams[0], wantStream) {
		t.Errorf("got  %v\nwant %v", streams[0], wantStream)
	}
	for what, lines := range map[string][]string{
		"nodes":   {"NODE      ROLE    STATE     PID  HTTP", "edge-1    edge    draining  12 ", "origin-1  origin  full      11   127.0.0.1:1  25%  50%     1        1 "},
		"streams": {"STREAM        STATE         ORIGIN    BACKUP  EPOCH          EDGES   VIEWERS  CODECS", fmt.Sprintf("live/stream1  broadcasting  origin-1  -       %.0f  edge-1  3        H264,opus", streams[0]["epoch"])},
	} {
		table := ask(t, what, s)
		for _, line := range lines {
			if !strings.Contains(table, line) {
				t.Errorf("no %q in\n%s", line, table)
			}
		}
	}
}

func TestDeadNode(t *testing.T) {
	now := time.Now()
	rows := nodeRows([]cluster.Node{{ID: "a", State: cluster.Ready, LastHeartbeat: now.Add(-time.Minute)}}, now)
	if rows[0].State != "dead" {
		t.Errorf("a node that is silent for a minute is %s", rows[0].State)
	}
	if got := printed(t, nodeRows(nil, now)); got != "[]\n" {
		t.Errorf("no nodes are %q", got)
	}
	if got := printed(t, streamRows(nil, cluster.View{})); got != "[]\n" {
		t.Errorf("no streams are %q", got)
	}
}

func printed(t *testing.T, v any) string {
	t.Helper()
	var o output
	if err := printJSON(&o, v); err != nil {
		t.Fatal(err)
	}
	return o.String()
}

// A backup publisher is part of its stream, and stands for it when nobody else sends.
func TestBackupsInTheList(t *testing.T) {
	now := time.Now()
	view := cluster.View{At: now, Nodes: []cluster.Node{{ID: "o1", Session: 1, LastHeartbeat: now}, {ID: "o2", Session: 2, LastHeartbeat: now}}}
	key := media.Key{App: "live", ID: "s"}
	main := cluster.Stream{Key: key, State: cluster.Broadcasting, Origin: "o1", Session: 1, Epoch: 7}
	backup := cluster.Stream{Key: key, Backup: true, State: cluster.Broadcasting, Origin: "o2", Session: 2, Epoch: 3}
	silent, void := main, main
	silent.State, void.Session = cluster.Interrupted, 9
	for _, c := range []struct {
		name    string
		streams []cluster.Stream
		origin  string
		backup  string
		alone   bool
	}{
		{"both", []cluster.Stream{main, backup}, "o1", "o2", false},
		{"no backup", []cluster.Stream{main}, "o1", "", false},
		{"the main one is silent", []cluster.Stream{silent, backup}, "o2", "o2", true},
		{"the main one's node is gone", []cluster.Stream{void, backup}, "o2", "o2", true},
		{"the backup alone", []cluster.Stream{backup}, "o2", "o2", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			rows := streamRows(c.streams, view)
			if len(rows) != 1 {
				t.Fatalf("%d rows: %+v", len(rows), rows)
			}
			r := rows[0]
			if r.Origin != c.origin || r.State != "broadcasting" || (r.Backup == nil) != (c.backup == "") {
				t.Errorf("%+v", r)
			}
			if r.Backup != nil && (r.Backup.Origin != c.backup || r.Backup.Alone != c.alone || r.Backup.Epoch != 3) {
				t.Errorf("backup %+v", *r.Backup)
			}
		})
	}
}
