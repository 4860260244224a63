package config

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestWriteEverySetting: what YAML writes, Parse reads, whatever is set.
func TestWriteEverySetting(t *testing.T) {
	examples := map[string]string{ // for values that must be of a kind
		"store": "mongodb://u:p%40w@h1,h2:27017/sluice?tls=true&x=y#", "ip-or-none": "10.0.0.1", "announce": "auto", "id": "edge-7",
		"listen": "127.0.0.1:81", "listen-or-off": ":82", "name": "live,two", "origin": "https://h:5443", "prefix": "10.0.0.0/8,::1/128",
		"ice": "stun:h:3478", "ports": "40000-40100", "rung": "720p:1500k", "rule": "live/stage=480p:800k", "fraction": "0.5", "count": "7", "some": "3", "positive": "7s",
		"collector": "https://h:4318/x", "playout": "50ms", "port": "1234", "host": "a.example,b", "range": "2-5", "path": "/x: y \"z\"\n#",
	}
	all := Default()
	for _, f := range fields("", all) {
		text := examples[f.tag.Get("check")]
		if enum := f.tag.Get("enum"); enum != "" {
			list := strings.Split(enum, ",")
			text = list[len(list)-1]
		}
		if _, isSize := f.value.Addr().Interface().(*Size); isSize {
			text = "3MB"
		}
		switch f.value.Interface().(type) {
		case bool:
			text = map[bool]string{true: "false", false: "true"}[f.value.Bool()]
		case time.Duration:
			text = "7s"
		}
		if text == "" {
			text = "off: 'x' é"
		}
		t.Run(f.path, func(t *testing.T) {
			for _, c := range []*Config{Default(), all} {
				if err := c.Set(f.path, text); err != nil {
					t.Fatal(err)
				}
				if c.Text(f.path) == Default().Text(f.path) {
					t.Fatalf("%q is the default; this test needs another value", text)
				}
				got, mistakes := Parse(c.YAML())
				if len(mistakes) > 0 || !reflect.DeepEqual(got, c) {
					t.Errorf("written as\n%s\nand read as %q: %v", c.YAML(), got.Text(f.path), mistakes)
				}
			}
		})
	}
	if y := Default().YAML(); len(y) > 0 {
		t.Errorf("defaults are written: %s", y)
	}
}

func TestSetRefuses(t *testing.T) {
	for _, tc := range []struct{ path, text, err string }{
		{"node.rol", "edge", `there is no setting "node.rol"; did you mean "node.role"?`},
		{"node", "edge", `there is no setting "node"`},
		{"node.role", "egde", `node.role: "egde" is not one of standalone, origin, edge, transcoder; did you mean "edge"?`},
		{"node.announce", "stun:3478", `node.announce: "stun:3478" is not a STUN server such as stun:stun.example.org:3478`},
		{"node.announce", "1.2.3.4,here", `node.announce: "here" is not an IP address, auto, or stun:HOST:PORT`},
	} {
		c := Default()
		if err := c.Set(tc.path, tc.text); err == nil || !strings.HasPrefix(err.Error(), tc.err) {
			t.Errorf("%s = %s: %v, want %s", tc.path, tc.text, err, tc.err)
		}
		if !reflect.DeepEqual(c, Default()) {
			t.Errorf("%s = %s was refused, and done", tc.path, tc.text)
		}
	}
}
