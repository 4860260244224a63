// Package sluice has no code: its tests hold the tree to the rules of ARCHITECTURE.md and
// the pages in docs to the code.
//
// Imports: nothing of ours.
package sluice

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// ranks say who may import whom: an import only points to a lower number, and folders
// with the same number do not know each other. A name stands for its sub-folders too, unless they have a
// line of their own; a sub-folder may import its parent. ARCHITECTURE.md has the same table, a test compares.
var ranks = []struct {
	rank    int
	folders string
}{
	{0, "media"},
	{1, "codec"},
	{2, "relay udp congestion"},
	{3, "stream rtc cluster"},
	{4, "internal"},
	{5, "ingest ladder egress"},
	{6, "signal api web load"},
	{7, "node gateway"},
	{8, "internal/rig"},
	{9, "cmd e2e deploy"},
}

// fences keep a module in the few folders that exist for it, so that it can be replaced there.
// They hold for code, not for tests.
var fences = []struct{ module, folders, why string }{
	{"github.com/pion", "codec/frame rtc internal/publicip internal/turn ladder ingest/webrtc egress/webrtc load internal/rig", "sessions are opened through rtc"},
	{"github.com/quic-go", "relay ingest/relay egress/relay", "the relay's connections are made there"},
	{"go.mongodb.org", "cluster/mongo", "others use cluster.Registry"},
	{"modernc.org/sqlite", "cluster/sqlite", "others use cluster.Registry"},
	{"database/sql", "cluster/sqlite", "others use cluster.Registry"},
	{"github.com/goccy/go-yaml", "internal/config internal/plan", "settings and prices are read there"},
	{"github.com/alecthomas/kong", "cmd e2e", "the command line is read there"},
	{"github.com/prometheus", "internal/metrics", "others give it figures"},
	{"go.opentelemetry.io", "internal/trace", "others begin steps there"},
}

// onlyIn keeps what belongs to the process in the folders that speak for it, so that
// several nodes fit in one process. They hold for code, not for tests.
var onlyIn = []struct{ names, folders, why string }{
	{"os.Args os.Exit os.Stdin os.Stdout os.Stderr", "cmd e2e", "pass a reader, a writer, or return an error"},
	{"os.Getenv os.LookupEnv os.Environ os.ExpandEnv", "internal/config", "make it a setting"},
	{"signal.Notify signal.NotifyContext signal.Ignore", "internal/lifecycle", "end with the context"},
	{"log.Print log.Printf log.Println log.Fatal log.Fatalf log.Default", "", "pass a *slog.Logger"},
	{"slog.SetDefault http.Handle http.HandleFunc", "", "it changes the whole process"},
	{"http.DefaultClient http.Get http.Post http.DefaultServeMux", "", "make one of your own, with timeouts"},
}

// limits are the sizes at which something wants to leave, in lines. A table of a test may be long.
const (
	maxFile     = 800
	maxFunction = 100
)

func TestArchitecture(t *testing.T) {
	found, err := inspect(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
}

// TestRanksInArchitecture: the page has the table that is enforced.
func TestRanksInArchitecture(t *testing.T) {
	page, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, r := range ranks {
		lines = append(lines, fmt.Sprintf("    %d  %s", r.rank, r.folders))
	}
	if want := strings.Join(lines, "\n"); !strings.Contains(string(page), want+"\n\n") {
		t.Errorf("ARCHITECTURE.md must have this block:\n%s", want)
	}
}

const good = `// Package a is good.
//
// Imports: media.
package a

import _ "sluice/media"
`

// doc is the beginning of a file of a package that imports nothing.
func doc(name string) string {
	return "// Package " + name + " is for the test.\n//\n// Imports: nothing.\npackage " + name + "\n\n"
}

func TestInspect(t *testing.T) {
	media := doc("media")
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  []string // parts of the messages, in order
	}{
		{"good", map[string]string{"stream/a.go": good, "media/m.go": media}, nil},
		{"upward", map[string]string{"media/m.go": strings.Replace(good, "sluice/media", "sluice/stream", 1)},
			[]string{`media/m.go:3: the comment says "Imports: media." but the package imports stream`, `media/m.go:6: media (rank 0) must not import stream (rank 3)`}},
		{"same rank", map[string]string{"gateway/g.go": strings.ReplaceAll(good, "media", "node")},
			[]string{"gateway (rank 7) must not import node (rank 7)"}},
		{"parent", map[string]string{"cluster/sqlite/s.go": strings.ReplaceAll(good, "media", "cluster")}, nil},
		{"child", map[string]string{"cluster/c.go": strings.ReplaceAll(good, "media", "cluster/sqlite")},
			[]string{"cluster (rank 3) must not import cluster/sqlite (rank 3)"}},
		{"rig is above its folder", map[string]string{"internal/rig/r.go": strings.ReplaceAll(good, "media", "node")}, nil},
		{"tests may use their own rank", map[string]string{"cluster/c.go": doc("cluster"), "cluster/c_test.go": "package cluster\nimport _ \"sluice/cluster/memory\"\n"}, nil},
		{"tests may not look up", map[string]string{"cluster/c.go": doc("cluster"), "cluster/c_test.go": "package cluster\nimport _ \"sluice/node\"\n"},
			[]string{"cluster (rank 3) must not import node (rank 7)"}},
		{"no rank", map[string]string{"common/c.go": doc("common")}, []string{"common has no rank"}},
		{"fence", map[string]string{"stream/s.go": doc("stream") + "import _ \"github.com/pion/rtp\"\n"},
			[]string{"stream/s.go:6: github.com/pion/rtp is only for codec/frame, rtc, internal/publicip, internal/turn, ladder, ingest/webrtc, egress/webrtc, load, internal/rig: sessions are opened through rtc"}},
		{"fence is open", map[string]string{"rtc/s.go": doc("rtc") + "import _ \"github.com/pion/rtp\"\n"}, nil},
		{"fence spares names alike", map[string]string{"stream/s.go": doc("stream") + "import _ \"github.com/pionx/y\"\n"}, nil},
		{"no comment", map[string]string{"media/m.go": "package media\n"}, []string{"media/m.go:1: package media has no comment"}},
		{"no line", map[string]string{"media/m.go": "// Package media is here.\npackage media\n"}, []string{`media/m.go:1: the package comment has no "Imports:" line`}},
		{"init", map[string]string{"media/m.go": media + "func init() {}\n"}, []string{"media/m.go:6: init runs before anybody asked"}},
		{"method init", map[string]string{"media/m.go": media + "type t int\nfunc (t) init() {}\n"}, nil},
		{"exit", map[string]string{"media/m.go": media + "import \"os\"\nfunc f() { os.Exit(1) }\n"}, []string{"media/m.go:7: os.Exit is only for cmd, e2e: pass a reader"}},
		{"exit in cmd", map[string]string{"cmd/x/m.go": doc("main") + "import \"os\"\nfunc main() { os.Exit(1) }\n"}, nil},
		{"environment", map[string]string{"cmd/x/m.go": doc("main") + "import \"os\"\nvar _ = os.Getenv\n"}, []string{"os.Getenv is only for internal/config: make it a setting"}},
		{"signals", map[string]string{"node/m.go": doc("node") + "import s \"os/signal\"\nfunc f() { s.Notify(nil) }\n"}, []string{"signal.Notify is only for internal/lifecycle"}},
		{"global", map[string]string{"media/m.go": media + "var count int\n"}, []string{"media/m.go:6: count can change"}},
		{"global map", map[string]string{"media/m.go": media + "var m = map[string]int{}\nfunc f() { m[\"a\"]++ }\n"}, []string{"media/m.go:7: m is written here"}},
		{"global slice", map[string]string{"media/m.go": media + "var s = []int{1}\nfunc f() { s[0] = 2 }\n"}, []string{"media/m.go:7: s is written here"}},
		{"made global", map[string]string{"media/m.go": media + "var m = make(map[string]int)\n"}, []string{"m can change"}},
		{"version", map[string]string{"cmd/x/m.go": doc("main") + "var version = \"dev\"\n"}, nil},
		{"table and sentinels", map[string]string{"media/m.go": media + `import ("errors"; "regexp"; "sync"; "io")
var (
	ErrA = errors.New("a")
	re = regexp.MustCompile("a")
	pool = sync.Pool{New: func() any { return 1 }}
	table = []int{1, 2}
	name = [...]string{"a"}
	bytes = []byte("a")
	_ io.Reader = (*r)(nil)
)
//go:embed x
var page string
type r struct{ io.Reader }
func f(table []int) int { return table[0] }
`}, nil},
		{"local of the same name", map[string]string{"media/m.go": media + "var s = []int{1}\nfunc f() { s := []int{2}; s[0] = 3 }\n"}, nil},
		{"sleep", map[string]string{"media/m.go": media, "media/m_test.go": "package media\nimport \"time\"\nfunc f() { time.Sleep(1) }\n"}, []string{"media/m_test.go:3: a test must not sleep"}},
		{"sleep in code", map[string]string{"media/m.go": media + "import \"time\"\nfunc f() { time.Sleep(1) }\n"}, nil},
		{"fixed port", map[string]string{"media/m.go": media, "media/m_test.go": "package media\nimport \"net\"\nfunc f() { net.Listen(\"tcp\", \"127.0.0.1:8080\") }\n"}, []string{`media/m_test.go:3: port of "127.0.0.1:8080"`}},
		{"fixed port in a config", map[string]string{"media/m.go": media, "media/m_test.go": "package media\nvar c = struct{ PlayListen string }{PlayListen: \":5443\"}\n"}, []string{`media/m_test.go:2: port of ":5443"`}},
		{"any port", map[string]string{"media/m.go": media, "media/m_test.go": "package media\nimport \"net\"\nfunc f() { net.Listen(\"tcp\", \"127.0.0.1:0\") }\n"}, nil},
		{"long function", map[string]string{"media/m.go": media + "func f() {\n" + strings.Repeat("\n", 100) + "}\n"}, []string{"media/m.go:6: f has 102 lines"}},
		{"long file", map[string]string{"media/m.go": media + strings.Repeat("\n", 800)}, []string{"media/m.go:4: has 805 lines"}},
		{"not ours", map[string]string{"web/node_modules/x/x.go": "package x\n", "stream/testdata/x.go": "package x\n"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tree := fstest.MapFS{}
			for path, src := range tc.files {
				tree[path] = &fstest.MapFile{Data: []byte(src)}
			}
			found, err := inspect(tree)
			if err != nil {
				t.Fatal(err)
			}
			if len(found) != len(tc.want) || slices.ContainsFunc(tc.want, func(part string) bool { return !strings.Contains(strings.Join(found, "\n"), part) }) {
				t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(found, "\n\t"), strings.Join(tc.want, "\n\t"))
			}
		})
	}
}
