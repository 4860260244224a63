package mongo

import (
	"context"
	"errors"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/cluster/mongo/mongotest"
)

// However many look at documents, heartbeats find a connection; who looks waits no longer than his context.
func TestDocumentsLeaveConnections(t *testing.T) {
	r := open(t, mongotest.Start(t, mongotest.Options{}).Line(nil).URL("db"))
	n := join(t, r, "a", 1)
	if free := connections - cap(r.turns); free < 3 {
		t.Errorf("documents leave %d connections", free)
	}
	for range cap(r.turns) {
		r.turns <- struct{}{}
	}
	for name, call := range map[string]func(context.Context) error{
		"get": func(ctx context.Context) error { _, err := r.Get(ctx, "user", "", "a"); return err },
		"put": func(ctx context.Context) error {
			_, err := r.Put(ctx, cluster.Document{Kind: "user", ID: "a", Body: []byte("1")})
			return err
		},
		"delete": func(ctx context.Context) error { return r.Delete(ctx, "user", "", "a", 0) },
		"find":   func(ctx context.Context) error { _, _, err := r.Find(ctx, cluster.Query{Kind: "user"}); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s while all turns are taken: %v", name, err)
		}
		cancel()
	}
	must(t, r.Heartbeat(t.Context(), n))
	for range cap(r.turns) {
		<-r.turns
	}
	if _, err := r.Get(t.Context(), "user", "", "a"); !errors.Is(err, cluster.ErrNoDocument) {
		t.Errorf("afterwards: %v", err)
	}
	if len(r.turns) != 0 {
		t.Errorf("%d turns were kept", len(r.turns))
	}
}
