package sqlite

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

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
		`INSERT INTO streams VALUES ('no key', 0, 'broadcasting', 'a', 1, 1, '[]', 1)`)
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
