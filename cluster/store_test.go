package cluster_test

import (
	"errors"
	"strings"
	"testing"

	"sluice/cluster"
)

var storeTests = []struct {
	name, url string
	kind      cluster.StoreKind // "" is an error
	rest      string
}{
	{"relative file", "sqlite:sluice.db", cluster.SQLite, "sluice.db"},
	{"absolute file", "sqlite:/var/lib/sluice/a b.db", cluster.SQLite, "/var/lib/sluice/a b.db"},
	{"absolute file as a URL", "sqlite:///var/lib/sluice.db", cluster.SQLite, "/var/lib/sluice.db"},
	{"file with a colon", "sqlite:a:b", cluster.SQLite, "a:b"},
	{"mongodb", "mongodb://u:p@a,b:27018/x?replicaSet=r", cluster.MongoDB, "mongodb://u:p@a,b:27018/x?replicaSet=r"},
	{"mongodb by SRV", "mongodb+srv://c.example/x", cluster.MongoDB, "mongodb+srv://c.example/x"},
	{"bare host", "db.example", cluster.MongoDB, "mongodb://db.example/sluice"},
	{"bare v4 and port", "10.0.0.4:27017", cluster.MongoDB, "mongodb://10.0.0.4:27017/sluice"},
	{"bare v6", "[2001:db8::1]", cluster.MongoDB, "mongodb://[2001:db8::1]/sluice"},
	{"bare v6 and port", "[2001:db8::1]:27017", cluster.MongoDB, "mongodb://[2001:db8::1]:27017/sluice"},
	{"bare replica set", "a:1,b:2,c", cluster.MongoDB, "mongodb://a:1,b:2,c/sluice"},
	{"empty", "", "", ""},
	{"no path", "sqlite:", "", ""},
	{"no path in URL", "sqlite://", "", ""},
	{"no mongodb host", "mongodb://", "", ""},
	{"mongodb without slashes", "mongodb:host", "", ""},
	{"another database", "postgres://u:secret@h/x", "", ""},
	{"a file name", "sluice.db", "", ""},
	{"a path", "/var/lib/sluice", "", ""},
	{"a password without a scheme", "u:secret@host", "", ""},
	{"port 0", "host:0", "", ""},
	{"port too large", "host:65536", "", ""},
	{"port missing", "host:", "", ""},
	{"host missing", ":27017", "", ""},
	{"naked v6", "2001:db8::1", "", ""},
	{"open bracket", "[2001:db8::1", "", ""},
	{"no v6 in brackets", "[host]", "", ""},
	{"space", "my host", "", ""},
	{"empty member", "a,,b", "", ""},
}

func TestParseStore(t *testing.T) {
	for _, c := range storeTests {
		t.Run(c.name, func(t *testing.T) {
			kind, rest, err := cluster.ParseStore(c.url)
			if kind != c.kind || rest != c.rest || (err == nil) != (c.kind != "") {
				t.Errorf("ParseStore(%q) = %q, %q, %v; want %q, %q", c.url, kind, rest, err, c.kind, c.rest)
			}
			if err != nil && (!errors.Is(err, cluster.ErrBadStore) || strings.Contains(err.Error(), "secret")) {
				t.Errorf("error %q; want ErrBadStore and no secret", err)
			}
		})
	}
}

func FuzzParseStore(f *testing.F) {
	for _, c := range storeTests {
		f.Add(c.url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		kind, rest, err := cluster.ParseStore(url)
		if err != nil {
			return
		}
		if again, same, err := cluster.ParseStore(map[cluster.StoreKind]string{cluster.SQLite: "sqlite:"}[kind] + rest); kind == cluster.MongoDB && (err != nil || again != kind || same != rest) {
			t.Errorf("ParseStore(%q) = %q, which reads as %q, %q, %v", url, rest, again, same, err)
		}
	})
}
