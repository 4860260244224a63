package mongo

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"sluice/cluster"
	"sluice/cluster/mongo/mongotest"
	"sluice/media"
)

func TestEvents(t *testing.T) {
	for _, c := range []struct {
		name, json string
		want       cluster.Change
		ok         bool
	}{
		{"stream", `{"ns": {"db": "sluice", "coll": "streams"}, "documentKey": {"_id": "live/s"}}`, cluster.Change{Stream: stream("s")}, true},
		{"backup", `{"ns": {"db": "sluice", "coll": "streams"}, "documentKey": {"_id": "live/s/backup"}}`, cluster.Change{Stream: stream("s")}, true},
		{"node", `{"ns": {"db": "sluice", "coll": "nodes"}, "documentKey": {"_id": "edge-1"}}`, cluster.Change{Node: "edge-1"}, true},
		{"another program's stream", `{"ns": {"db": "sluice", "coll": "streams"}, "documentKey": {"_id": "x"}}`, cluster.Change{}, false},
		{"collection", `{"ns": {"db": "sluice", "coll": "users"}, "documentKey": {"_id": "x"}}`, cluster.Change{}, false},
		{"dropped", `{"ns": {"db": "sluice", "coll": "other"}}`, cluster.Change{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var e event
			if err := bson.UnmarshalExtJSON([]byte(c.json), false, &e); err != nil {
				t.Fatal(err)
			}
			if got, ok := e.change(); ok != c.ok || ok && got != c.want {
				t.Errorf("%+v, %v; want %+v, %v", got, ok, c.want, c.ok)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want bool
	}{
		{"lone server", driver.CommandError{Code: 40573, Message: "The $changeStream stage is only supported on replica sets"}, true},
		{"not there", driver.CommandError{Code: 238, Name: "NotImplemented"}, true},
		{"not allowed", driver.CommandError{Code: 13, Name: "Unauthorized"}, true},
		{"switched off, as in DocumentDB", driver.CommandError{Code: 136}, true},
		{"no primary", driver.CommandError{Code: 10107}, false},
		{"shutting down", driver.CommandError{Code: 91}, false},
		{"network", driver.CommandError{Labels: []string{"NetworkError"}}, false},
		{"time", context.DeadlineExceeded, false},
	} {
		if got := refused(c.err); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Who can't tell says so, and is asked no more.
func TestChangesUnsupported(t *testing.T) {
	r := open(t, mongotest.Start(t, mongotest.Options{}).Line(nil).URL("db"))
	if err := r.Changes(t.Context(), func(cluster.Change) { t.Error("a change") }); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("FerretDB has no change streams, but: %v", err)
	}
}

// TestChangesOfMongoDB needs a replica set.
func TestChangesOfMongoDB(t *testing.T) {
	url := realURL(t)
	r := open(t, url(freshDatabase(t, url)))
	ctx, cancel := context.WithCancel(t.Context())
	got, ended := make(chan cluster.Change, 100), make(chan error, 1)
	go func() { ended <- r.Changes(ctx, func(c cluster.Change) { got <- c }) }()
	n := cluster.Node{ID: "a", Session: 1, State: cluster.Ready}
	for begun := false; !begun; { // the feed tells of what happens after it has begun
		must(t, r.Join(ctx, n))
		select {
		case err := <-ended:
			if errors.Is(err, errors.ErrUnsupported) {
				t.Skipf("needs a replica set: %v", err)
			}
			t.Fatal(err)
		case <-got:
			begun = true
		case <-time.After(100 * time.Millisecond):
		}
	}
	for range 5 {
		must(t, r.Heartbeat(ctx, n)) // is not told
	}
	drained := n
	drained.State = cluster.Draining
	lease, err := r.Claim(ctx, cluster.Lease{Key: stream("s"), Node: "a", Session: 1})
	must(t, err)
	must(t, r.Report(ctx, lease, cluster.StreamInfo{State: cluster.Broadcasting, Codecs: []string{media.H264}}))
	must(t, r.Heartbeat(ctx, drained))
	must(t, r.Order(ctx, "a", cluster.Order{Drain: true}))
	must(t, r.Leave(ctx, "a", 1))
	node, key := cluster.Change{Node: "a"}, cluster.Change{Stream: stream("s")}
	var list []cluster.Change
	for want := []cluster.Change{key, key, node, node, node}; !slices.Equal(list, want); {
		select {
		case c := <-got:
			if len(list) > 0 || c != node { // joins before the loop ended may come late
				list = append(list, c)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("told of %+v, want %+v", list, want)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("at the end: %v", err)
	}
}
