package config

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestShippedFile holds sluice.yaml to the code: every key is in it, with its default.
func TestShippedFile(t *testing.T) {
	src, err := os.ReadFile("../../sluice.yaml")
	if err != nil {
		t.Fatal(err)
	}
	l := newLoad()
	l.parse(src)
	for _, m := range l.mistakes {
		t.Errorf("sluice.yaml:%s", m)
	}
	if got, want := l.cfg, Default(); !reflect.DeepEqual(got, want) {
		for _, f := range fields("", got) {
			if w := want.Text(f.path); f.text() != w {
				t.Errorf("sluice.yaml says %s: %s, the default is %s", f.path, f.text(), w)
			}
		}
	}
	lines := strings.Split(string(src), "\n")
	for path := range l.byPath {
		if l.seen[path] == 0 {
			t.Errorf("sluice.yaml lacks %s", path)
			continue
		}
		at := l.seen[path] - 1
		_, key := split(path)
		explained := strings.Contains(lines[at], "#") || strings.HasPrefix(strings.TrimSpace(lines[at-1]), "#")
		if !explained && key != "origins" && key != "play-port" { // said by the line above or below
			t.Errorf("sluice.yaml:%d: %s has no reason beside or above it", at+1, path)
		}
	}
}

func TestEveryFieldHasHelp(t *testing.T) {
	for _, f := range fields("", Default()) {
		if f.tag.Get("help") == "" {
			t.Errorf("%s has no help", f.path)
		}
		if c := f.tag.Get("check"); c != "" && checks[c] == nil {
			t.Errorf("%s has check %q, which does not exist", f.path, c)
		}
	}
}

func TestParse(t *testing.T) {
	c, mistakes := Parse([]byte(`
store: mongodb://db/sluice
node:
  role: edge
  announce: [192.0.2.7, "2001:db8::1"]
  media-tcp: false
  edge-idle: 1m30s
  limits: {viewers: 500, cpu: 0.5}
  ice:
    credential: "file:/run/secrets/turn"
up:
  log-size: 2MiB
gateway:
`))
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	want := Default()
	want.Store = "mongodb://db/sluice"
	want.Node.Role = "edge"
	want.Node.Announce = []string{"192.0.2.7", "2001:db8::1"}
	want.Node.MediaTCP = false
	want.Node.EdgeIdle = 90 * time.Second
	want.Node.Limits.Viewers, want.Node.Limits.CPU = 500, 0.5
	want.Node.ICE.Credential = "file:/run/secrets/turn"
	want.Up.LogSize = 2 << 20
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

var mistakeCases = []struct {
	name, src string
	want      []string
}{
	{"nothing", "", nil},
	{"only a comment", "# nothing\n", nil},
	{"empty section", "node:\nlog:\n", nil},
	{"unknown key", "node:\n  rol: edge\n", []string{`2: "node" has no key "rol"; did you mean "role"?`}},
	{"unknown section", "nod:\n  role: edge\n", []string{`1: the file has no key "nod"; did you mean "node"?`}},
	{"key of another section", "role: edge\n", []string{`1: the file has no key "role"; did you mean "node.role"?`}},
	{"unlike anything", "xylophone: 1\n", []string{`1: the file has no key "xylophone"`}},
	{"dotted key", "node.role: edge\n", []string{`1: the file has no key "node.role"`}},
	{"set twice", "store: sqlite:a\nstore: sqlite:b\n", []string{`2: "store" is set twice, first in line 1`}},
	{"no unit", "node:\n  edge-idle: 5\n", []string{`2: node.edge-idle: "5" is not a duration with its unit, such as 300ms, 5s or 2m`}},
	{"zero duration", "node:\n  edge-idle: 0s\n", []string{`2: node.edge-idle: 0s is too short: it must be more than zero`}},
	{"size without unit", "up:\n  log-size: 5\n", []string{`2: up.log-size: "5" is not a size with its unit, such as 16MB`}},
	{"no number", "up:\n  edges: many\n", []string{`2: up.edges: "many" is not a whole number`}},
	{"neither true nor false", "node:\n  media-tcp: off\n", []string{`2: node.media-tcp: "off" is not true or false`}},
	{"out of range", "node:\n  limits:\n    cpu: 85\n", []string{`3: node.limits.cpu: 85 is not between 0.01 and 1`}},
	{"no role", "node:\n  role: egde\n", []string{`2: node.role: "egde" is not one of standalone, origin, edge, transcoder; did you mean "edge"?`}},
	{"list wanted", "node:\n  apps: live\n", []string{`2: node.apps takes a list, such as [a, b]`}},
	{"value wanted", "node:\n  role: [edge]\n", []string{`2: node.role takes one value, not a list`}},
	{"section wanted", "node: edge\n", []string{`1: "node" must hold settings, one to a line, such as "role: …"`}},
	{"value where a map is", "node:\n  role:\n    a: b\n", []string{`3: node.role: takes a plain value, not keys with values; a value with a colon may need quotes, such as "stun:host:3478"`}},
	{"colons in flow style", "node: {ice: {servers: [stun:stun.example.com:3478]}}\n", []string{
		`1: node.ice.servers: takes a plain value, not keys with values; a value with a colon may need quotes, such as "stun:host:3478"`}},
	{"quoted colons in flow style", "node: {ice: {servers: [\"stun:stun.example.com:3478\"]}}\n", nil},
	{"file is a list", "- a\n- b\n", []string{`1: the file must hold settings, one to a line, such as "store: …"`}},
	{"no value", "node:\n  id:\n", []string{`2: node.id: has no value; write "" for none, or leave the line out for the default`}},
	{"bad items", "node:\n  announce:\n    - 192.0.2.1\n    - here\n    - there\n", []string{
		`4: node.announce: "here" is not an IP address, auto, or stun:HOST:PORT`, `5: node.announce: "there" is not an IP address, auto, or stun:HOST:PORT`}},
	{"bad port", "node:\n  http: \":99999\"\n", []string{`2: node.http: port "99999" of ":99999" is not between 0 and 65535`}},
	{"turn", "node:\n  turn:\n    ports: 6000-5000\n    public: here\n    listen: \"3478\"\n", []string{`3: node.turn.ports: "6000-5000" is not a range of ports, such as 49152-65535`,
		`4: node.turn.public: "here" is not an IP address`, `5: node.turn.listen: "3478" is not an address to listen on, such as :5080 or 127.0.0.1:5080`}},
	{"turn is right", "node:\n  turn:\n    ports: 5000-6000\n    public: 2001:db8::1\n    listen: \":3478\"\n    secret: file:/run/secrets/turn\n", nil},
	{"dot in id", "node:\n  id: a.b\n", []string{`2: node.id: "a.b" is not 1 to 64 letters, digits and '-'`}},
	{"ice", "node:\n  ice:\n    servers: [\"http://x\"]\n", []string{
		`3: node.ice.servers: "http://x" is not a STUN or TURN URL, such as stun:host:3478 or turn:host:3478?transport=udp`}},
	{"store", "store: postgres://x\n", []string{`1: store: unknown kind of store "postgres": a store is sqlite:PATH, mongodb://…, mongodb+srv://… or the address of a MongoDB server`}},
	{"origin with a path", "node:\n  play-url: https://x/live\n", []string{`2: node.play-url: "https://x/live" is not an origin such as https://live.example.org:5443, or a port such as :5443`}},
	{"origins", "node:\n  play-url: https://x:5443\n  publish-url: \":8443\"\n", nil},
	{"two documents", "store: sqlite:a\n---\nstore: sqlite:b\n", []string{`3: a second document; there can be only one`}},
	{"all at once", "up:\n  edges: 0\n  edgs: 1\nlog:\n  level: loud\n  format: xml\n", []string{
		`2: up.edges: 0 is not between 1 and 100`,
		`3: "up" has no key "edgs"; did you mean "edges"?`,
		`5: log.level: "loud" is not one of debug, info, warn, error`,
		`6: log.format: "xml" is not one of text, json`}},
}

func TestMistakes(t *testing.T) {
	for _, tc := range mistakeCases {
		t.Run(tc.name, func(t *testing.T) {
			_, mistakes := Parse([]byte(tc.src))
			var got []string
			for _, m := range mistakes {
				got = append(got, m.String())
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(tc.want, "\n\t"))
			}
		})
	}
}

func TestSyntaxErrorHasLine(t *testing.T) {
	_, mistakes := Parse([]byte("node:\n  role: edge\n  http: \"unclosed\n"))
	if len(mistakes) != 1 || mistakes[0].Line < 3 || !strings.HasPrefix(mistakes[0].Text, "this is not YAML: ") {
		t.Errorf("got %v", mistakes)
	}
}

// TestWrongValuesAreNotKept: beside its mistakes, what is read is allowed.
func TestWrongValuesAreNotKept(t *testing.T) {
	for _, tc := range mistakeCases {
		t.Run(tc.name, func(t *testing.T) {
			c, _ := Parse([]byte(tc.src))
			for _, f := range fields("", c) {
				if err := (Setting{f: f}).Check(); err != nil {
					t.Errorf("%s: %v", f.path, err)
				}
			}
		})
	}
}
