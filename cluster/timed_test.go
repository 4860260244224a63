package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/cluster/memory"
	"sluice/media"
)

// TestTimed: every operation is told by its own name, and only what could not be asked has failed.
func TestTimed(t *testing.T) {
	line := memory.NewStore(time.Now).Open()
	var told []string
	reg := cluster.Timed(line, func(operation string, took time.Duration, failed bool) {
		if took < 0 || took > time.Minute {
			t.Errorf("%s took %v", operation, took)
		}
		told = append(told, fmt.Sprint(operation, " ", failed))
	})
	ctx, key := t.Context(), media.Key{App: "live", ID: "a"}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(reg.Join(ctx, cluster.Node{ID: "a", Session: 1}))
	must(reg.Heartbeat(ctx, cluster.Node{ID: "a", Session: 1}))
	must(reg.Order(ctx, "a", cluster.Order{}))
	lease, err := reg.Claim(ctx, cluster.Lease{Key: key, Node: "a", Session: 1})
	must(err)
	lease, err = reg.Resume(ctx, lease, 2)
	must(err)
	must(reg.Report(ctx, lease, cluster.StreamInfo{State: cluster.Broadcasting}))
	_, err = reg.Lookup(ctx, key)
	must(err)
	_, err = reg.Streams(ctx)
	must(err)
	_, err = reg.Nodes(ctx)
	must(err)
	_, err = reg.Peers(ctx, "a")
	must(err)
	_, err = reg.Viewers(ctx, key)
	must(err)
	must(reg.Release(ctx, lease))
	must(reg.Leave(ctx, "a", 1))
	if err := reg.Release(ctx, lease); !errors.Is(err, cluster.ErrLeaseLost) {
		t.Errorf("released twice: %v", err)
	}
	line.Cut(true)
	if _, err := reg.Nodes(ctx); err == nil {
		t.Error("a registry that can't be reached has answered")
	}
	want := []string{"join false", "heartbeat false", "order false", "claim false", "resume false", "report false", "lookup false", "streams false",
		"nodes false", "peers false", "viewers false", "release false", "leave false", "release false", "nodes true"}
	if !slices.Equal(told, want) {
		t.Errorf("told %q\nwant %q", told, want)
	}
	all := reflect.TypeFor[cluster.Registry]()
	for m := range all.Methods() {
		if name := strings.ToLower(m.Name); m.Type.NumIn() > 0 && m.Type.In(0) == reflect.TypeFor[context.Context]() && !slices.Contains(cluster.Operations(), name) {
			t.Errorf("%s is not told", name)
		}
	}
	for _, name := range cluster.Operations() {
		if !slices.Contains(told, name+" false") {
			t.Errorf("%s is never told", name)
		}
	}
}
