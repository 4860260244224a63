package config

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sluice.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoad(t *testing.T) {
	file := write(t, "node:\n  role: origin\n  apps: [a]\n  http: \":1\"\n")
	for _, tc := range []struct {
		name, path string
		env        map[string]string
		setting    string
		want       string
	}{
		{"default", "", nil, "node.role", "standalone"},
		{"file over default", file, nil, "node.role", "origin"},
		{"variable over file", file, map[string]string{"SLUICE_NODE_ROLE": "edge"}, "node.role", "edge"},
		{"variable over default", "", map[string]string{"SLUICE_NODE_EDGE_IDLE": "7s"}, "node.edge-idle", "7s"},
		{"list", file, map[string]string{"SLUICE_NODE_APPS": "b, c"}, "node.apps", "b,c"},
		{"empty list", file, map[string]string{"SLUICE_NODE_APPS": ""}, "node.apps", ""},
		{"empty value", "", map[string]string{"SLUICE_GATEWAY_REDIRECT": ""}, "gateway.redirect", ""},
		{"secret", "", map[string]string{"SLUICE_NODE_ICE_CREDENTIAL": "x,y"}, "node.ice.credential", "x,y"},
		{"name of the file is no setting", "", map[string]string{"SLUICE_CONFIG": "x"}, "node.role", "standalone"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := Load(tc.path, tc.env)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Text(tc.setting); got != tc.want {
				t.Errorf("%s is %q, want %q", tc.setting, got, tc.want)
			}
		})
	}
}

func TestLoadFails(t *testing.T) {
	bad := write(t, "nod:\nup:\n  edges: x\n")
	for _, tc := range []struct {
		name, path string
		env        map[string]string
		want       string
	}{
		{"no file", "/nowhere/s.yaml", nil, "there is no configuration file /nowhere/s.yaml"},
		{"mistakes", bad, nil, bad + `:1: the file has no key "nod"; did you mean "node"? (and 1 more: sluice check ` + bad + ")"},
		{"variable", "", map[string]string{"SLUICE_NODE_ROLE": "x"}, `variable SLUICE_NODE_ROLE: "x" is not one of standalone, origin, edge, transcoder`},
		{"unknown variables stop nothing", "", map[string]string{"SLUICE_NODE_ROLL": "x"}, "<nil>"},
		{"list in a variable", "", map[string]string{"SLUICE_NODE_ANNOUNCE": "192.0.2.1,x"}, `variable SLUICE_NODE_ANNOUNCE: "x" is not an IP address, auto, or stun:HOST:PORT`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Load(tc.path, tc.env)
			if fmt.Sprint(err) != tc.want {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	var n Node
	list := Settings("node", &n)
	n.Limits.CPU = 3
	for _, s := range list {
		if s.Path != "node.limits.cpu" {
			continue
		}
		if s.Env != "SLUICE_NODE_LIMITS_CPU" || !s.At(reflect.ValueOf(&n.Limits.CPU).Elem()) || s.At(reflect.ValueOf(&n.Limits.Memory).Elem()) {
			t.Errorf("wrong setting %+v", s)
		}
		if err := s.Check(); err == nil {
			t.Error("3 is taken as a fraction")
		}
		return
	}
	t.Error("no setting node.limits.cpu")
}

func TestSecret(t *testing.T) {
	file := write(t, "hunter2\n")
	for name, s := range map[string]Secret{"plain": "hunter2", "file": Secret("file:" + file)} {
		t.Run(name, func(t *testing.T) {
			if v, err := s.Value(); v != "hunter2" || err != nil {
				t.Errorf("got %q, %v", v, err)
			}
			var log strings.Builder
			for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
				slog.New(h).Info("x", "credential", s, "in", ICE{Credential: s})
			}
			if strings.Contains(log.String(), "hunter2") {
				t.Errorf("in the log: %s", log.String())
			}
		})
	}
	if _, err := Secret("file:/nowhere/x").Value(); err == nil {
		t.Error("a missing file is no error")
	}
}

func TestSize(t *testing.T) {
	for _, tc := range []struct {
		text string
		want Size
		back string
	}{
		{"16MB", 16e6, "16MB"}, {"1KiB", 1024, "1KiB"}, {"1.5 kB", 1500, "1500B"}, {"0B", 0, "0B"},
		{"2GB", 2e9, "2GB"}, {"5", -1, ""}, {"MB", -1, ""}, {"-1MB", -1, ""}, {"1TB", -1, ""}, {"9e99GB", -1, ""},
	} {
		t.Run(tc.text, func(t *testing.T) {
			s := Size(-1)
			err := s.UnmarshalText([]byte(tc.text))
			if s != tc.want || (err != nil) != (tc.want < 0) {
				t.Fatalf("got %d, %v", s, err)
			}
			if err == nil && s.String() != tc.back {
				t.Errorf("written as %s, want %s", s, tc.back)
			}
		})
	}
}

func TestPrefixes(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"10.0.0.0/8", "10.0.0.0/8"}, {"192.0.2.1", "192.0.2.1/32"}, {"2001:db8::1", "2001:db8::1/128"},
		{"10.0.0.0/33", ""}, {"here", ""}, {"", ""},
	} {
		t.Run(tc.text, func(t *testing.T) {
			got, err := Prefixes([]string{tc.text})
			if (err != nil) != (tc.want == "") || err == nil && got[0].String() != tc.want {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name, src string
		env       map[string]string
		want      []string
	}{
		{"all well", "up:\n  edges: 3\n", map[string]string{"SLUICE_CONFIG": "x", "SLUICE_NODE_ROLE": "edge"}, nil},
		{"bad variable after the file's mistakes", "up:\n  edges: x\n", map[string]string{"SLUICE_NODE_ROLE": "x"}, []string{
			`2: up.edges: "x" is not a whole number`, `variable SLUICE_NODE_ROLE: "x" is not one of standalone, origin, edge, transcoder`}},
		{"unknown variables", "", map[string]string{"SLUICE_NODE_ROLL": "x", "SLUICE_CHEESE_AND_WINE": "x"}, []string{
			"variable SLUICE_CHEESE_AND_WINE is not a setting", "variable SLUICE_NODE_ROLL is not a setting; did you mean SLUICE_NODE_ROLE?"}},
		{"one port for both", "up:\n  play-port: 9000\n  publish-port: 9000\n", nil, []string{"3: publish-port and play-port of up are both 9000: they must differ"}},
		{"one is the other's default", "up:\n  publish-port: 5443\n", nil, []string{"2: publish-port and play-port of up are both 5443: they must differ"}},
		{"one port, by variable", "", map[string]string{"SLUICE_UP_PLAY_PORT": "8443"}, []string{"publish-port and play-port of up are both 8443: they must differ"}},
		{"a variable mends it", "up:\n  publish-port: 5443\n", map[string]string{"SLUICE_UP_PLAY_PORT": "5444"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, m := range Check([]byte(tc.src), tc.env) {
				got = append(got, m.String())
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}
