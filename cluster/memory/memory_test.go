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
		return func(*testing.T) cluster.Registry { return store.Open() }
	})
}

func TestCut(t *testing.T) {
	store := NewStore(time.Now)
	a, b := store.Open(), store.Open()
	a.Cut(true)
	if err := a.Heartbeat(t.Context(), cluster.Node{ID: "a"}); !errors.Is(err, ErrCut) {
		t.Errorf("heartbeat while cut off: %v", err)
	}
	if err := b.Heartbeat(t.Context(), cluster.Node{ID: "b"}); err != nil {
		t.Errorf("the other node is cut off too: %v", err)
	}
	a.Cut(false)
	list, err := a.Nodes(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != "b" {
		t.Errorf("nodes %+v, %v; want b alone", list, err)
	}
	if n := a.Queries("Heartbeat"); n != 1 {
		t.Errorf("%d heartbeats counted, want 1", n)
	}
}
