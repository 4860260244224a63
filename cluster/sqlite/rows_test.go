package sqlite

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/media"
)

// A row that can't be read, as of another version, hides no other; the log names it once.
func TestBadRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sluice.db")
	var log bytes.Buffer
	r, err := Open(t.Context(), path, WithLog(slog.New(slog.NewTextHandler(&log, nil))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	key := media.Key{App: "live", ID: "s"}
	if err := r.Join(t.Context(), cluster.Node{ID: "a", Session: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Claim(t.Context(), cluster.Lease{Key: key, Node: "a", Session: 1}); err != nil {
		t.Fatal(err)
	}
	execute(t, path,
		`INSERT INTO nodes (id, session, heartbeat, row) VALUES ('zz', 7, 1, '{"ID": "zz", "Version": "v9", "Load": "new-format"}')`,
		`INSERT INTO streams VALUES ('no key', 0, 'broadcasting', 'a', 1, 1, '[]', 1, 1)`)
	for range 3 {
		nodes, err := r.Nodes(t.Context())
		if err != nil || len(nodes) != 1 || nodes[0].ID != "a" {
			t.Errorf("nodes %+v, %v; want a", nodes, err)
		}
		streams, err := r.Streams(t.Context())
		if err != nil || len(streams) != 1 || streams[0].Key != key {
			t.Errorf("streams %+v, %v; want %s", streams, err, key)
		}
	}
	if text := log.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, `id="node zz" version=v9`) || !strings.Contains(text, `id="stream no key"`) {
		t.Errorf("the log says\n%s", text)
	}
}

// Rows of nodes that died long ago go, with whoever joins next; what they held goes with them.
func TestForget(t *testing.T) {
	now := time.Now()
	r, err := Open(t.Context(), filepath.Join(t.TempDir(), "sluice.db"), WithClock(func() time.Time { return now }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	join := func(id string, session int64) {
		if err := r.Join(t.Context(), cluster.Node{ID: id, Session: session}); err != nil {
			t.Fatal(err)
		}
	}
	join("dead", 1)
	key := media.Key{App: "live", ID: "s"}
	if _, err := r.Claim(t.Context(), cluster.Lease{Key: key, Node: "dead", Session: 1}); err != nil {
		t.Fatal(err)
	}
	now = now.Add(cluster.ForgetAfter / 2)
	join("alive", 2)
	now = now.Add(cluster.ForgetAfter/2 + time.Second)
	join("new", 3)
	nodes, err := r.Nodes(t.Context())
	if err != nil || len(nodes) != 2 || nodes[0].ID != "alive" || nodes[1].ID != "new" {
		t.Errorf("nodes %+v, %v", nodes, err)
	}
	rows, err := r.Lookup(t.Context(), key)
	if err != nil || len(rows) != 0 {
		t.Errorf("streams %+v, %v; want none", rows, err)
	}
}
