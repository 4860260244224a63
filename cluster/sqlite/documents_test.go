package sqlite

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"sluice/cluster"
)

// BenchmarkFind: a page of 50 out of 5,000 broadcasts of 1 kB, among as many of another application.
func BenchmarkFind(b *testing.B) {
	r, err := Open(b.Context(), filepath.Join(b.TempDir(), "sluice.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = r.Close() })
	body := fmt.Appendf(nil, `"%01000d"`, 1)
	for i := range 10000 {
		app := [...]string{"live", "other"}[i%2]
		if _, err := r.Put(b.Context(), cluster.Document{Kind: "broadcast", Group: app, ID: fmt.Sprintf("stream%06d", i), Name: fmt.Sprintf("Camera %d", i*7919%10000), At: time.Now(), Body: body}); err != nil {
			b.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		q    cluster.Query
	}{
		{"first", cluster.Query{}},
		{"last", cluster.Query{Offset: 4950}},
		{"by name", cluster.Query{Sort: cluster.ByName, Offset: 2500}},
		{"by state", cluster.Query{Sort: cluster.ByState, Offset: 2500}},
		{"newest", cluster.Query{Sort: cluster.ByAt, Desc: true}},
		{"search", cluster.Query{Search: "CAMERA 77"}},
	} {
		c.q.Kind, c.q.Group, c.q.Limit = "broadcast", "live", 50
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if page, _, err := r.Find(b.Context(), c.q); err != nil || len(page) == 0 {
					b.Fatal(len(page), err)
				}
			}
		})
	}
}
