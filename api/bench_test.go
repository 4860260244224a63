package api

import (
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/cluster/sqlite"
	"sluice/internal/auth"
	"sluice/internal/census"
	"sluice/internal/settings"
	"sluice/media"

	"context"
	"net/http"
	"net/netip"
	"path/filepath"
)

// BenchmarkReads: a large cluster (500 nodes, 5,000 live streams, 100,000 viewers, 5,000 broadcasts) on SQLite.
func BenchmarkReads(b *testing.B) {
	ctx := b.Context()
	reg, err := sqlite.Open(ctx, filepath.Join(b.TempDir(), "b.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = reg.Close() })
	large := &largeCluster{Registry: reg}
	large.fill()
	for i := range 5000 {
		if _, err := reg.Put(ctx, cluster.Document{Kind: broadcastKind, Group: "live", ID: fmt.Sprintf("s%04d", i), Name: fmt.Sprintf("camera %d", i%777), At: time.Now(), Body: []byte(`{"name":"camera"}`)}); err != nil {
			b.Fatal(err)
		}
	}
	accounts := auth.New(reg, auth.Config{})
	if _, err := accounts.Add(ctx, auth.Account{Name: "root", Role: auth.Administrator}, password); err != nil {
		b.Fatal(err)
	}
	key, _, err := accounts.AddKey(ctx, auth.KeyInfo{Name: "root"})
	if err != nil {
		b.Fatal(err)
	}
	saved, err := settings.New(reg, settings.Config{Apps: []string{"live"}})
	if err != nil {
		b.Fatal(err)
	}
	silent := func(context.Context, cluster.Node, string, string, any) error { return census.ErrNode }
	a := New(Config{}, Deps{Accounts: accounts, Settings: saved, Live: census.New(large, silent), Registry: reg, Documents: reg, System: func() System { return System{} },
		Client: func(*http.Request) netip.Addr { return netip.MustParseAddr("192.0.2.1") }, Secure: func(*http.Request) bool { return true }})
	const at = "/live/rest/v2/broadcasts"
	for _, c := range []struct{ name, path string }{
		{"broadcast", at + "/s0042"}, {"statistics", at + "/s0042/broadcast-statistics"}, {"live-count", at + "/active-live-stream-count"}, {"nodes", "/rest/v2/cluster/nodes/0/50"},
		{"list", at + "/list/0/50"}, {"list-search", at + "/list/0/50?search=camera+7"}, {"list-status", at + "/list/0/50?sort_by=status"},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				r := httptest.NewRequest("GET", c.path, nil)
				r.Header.Set("Authorization", "Bearer "+key)
				w := httptest.NewRecorder()
				if a.ServeHTTP(w, r); w.Code != 200 {
					b.Fatal(w.Body)
				}
			}
		})
	}
}

// largeCluster has the rows of one, whose nodes never die.
type largeCluster struct {
	cluster.Registry
	nodes   []cluster.Node
	streams []cluster.Stream
}

func (l *largeCluster) fill() {
	for i := range 5000 {
		l.streams = append(l.streams, cluster.Stream{Key: media.Key{App: "live", ID: fmt.Sprintf("s%04d", i)}, State: cluster.Broadcasting, Origin: fmt.Sprintf("node-%03d", i%50), Session: 1, Started: time.Now(), Codecs: []string{"H264", "opus"}})
	}
	for n := range 500 {
		row := cluster.Node{ID: fmt.Sprintf("node-%03d", n), Role: cluster.Edge, HTTP: "192.0.2.1:5080", Session: 1}
		for s := range 100 {
			row.Serving = append(row.Serving, cluster.Serving{Stream: l.streams[(n*10+s)%5000].Key, Viewers: 2})
		}
		l.nodes = append(l.nodes, row)
	}
}

func (l *largeCluster) Nodes(context.Context) ([]cluster.Node, error) {
	rows := append([]cluster.Node{}, l.nodes...)
	for i := range rows {
		rows[i].LastHeartbeat = time.Now()
	}
	return rows, nil
}

func (l *largeCluster) Streams(context.Context) ([]cluster.Stream, error) { return l.streams, nil }
