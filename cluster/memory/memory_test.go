package memory

import (
	"errors"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/cluster/clustertest"
)

func TestConformance(t *testing.T) {
	clustertest.Run(t, func(_ *testing.T, now func() time.Time) clustertest.Open {
		store := NewStore(now)
		return func(*testing.T) cluster.Store { return store.Open() }
	})
}

func TestCut(t *testing.T) {
	store := NewStore(time.Now)
	a, b := store.Open(), store.Open()
	a.Cut(true)
	if err := a.Join(t.Context(), cluster.Node{ID: "a", Session: 1}); !errors.Is(err, ErrCut) {
		t.Errorf("heartbeat while cut off: %v", err)
	}
	if err := b.Join(t.Context(), cluster.Node{ID: "b", Session: 2}); err != nil {
		t.Errorf("the other node is cut off too: %v", err)
	}
	a.Cut(false)
	list, err := a.Nodes(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != "b" {
		t.Errorf("nodes %+v, %v; want b alone", list, err)
	}
	if n := a.Queries("Join"); n != 1 {
		t.Errorf("%d joins counted, want 1", n)
	}
}
