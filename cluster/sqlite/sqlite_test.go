package sqlite

import (
	"path/filepath"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/cluster/clustertest"
)

func TestConformance(t *testing.T) {
	clustertest.Run(t, func(t *testing.T, now func() time.Time) clustertest.Open {
		path := filepath.Join(t.TempDir(), "sluice.db")
		return func(t *testing.T) cluster.Store { return open(t, path, WithClock(now)) }
	})
}

// open opens a registry and closes it with the test.
func open(t *testing.T, path string, options ...Option) *Registry {
	t.Helper()
	r, err := Open(t.Context(), path, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}
