package node

import (
	"errors"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/media"
	"sluice/stream"
)

func TestChooseTranscoder(t *testing.T) {
	at := time.Now()
	view := cluster.View{At: at}
	add := func(id string, role cluster.Role, load float64, full string) {
		view.Nodes = append(view.Nodes, cluster.Node{ID: id, Session: 1, Role: role, State: cluster.Ready, Load: load, Full: full, LastHeartbeat: at})
	}
	tc := &transcoders{view: func() cluster.View { return view }, chosen: map[media.Key]*choice{}}
	made := func(id string) media.Key { return media.Key{App: "live", ID: id}.Made("480x800000") }
	now := at
	chosen := func(because string, key media.Key, want string) {
		t.Helper()
		src, err := tc.choose(key, now)
		if src.Node != want || (want == "") != errors.Is(err, stream.ErrOffline) {
			t.Errorf("%s: %q, %v", because, src.Node, err)
		}
		now = now.Add(2 * time.Second)
	}
	add("edge", cluster.Edge, 0, "")
	chosen("there is none", made("a"), "")
	add("t1", cluster.Transcoder, 0.3, "")
	add("t2", cluster.Transcoder, 0.2, "")
	add("t3", cluster.Transcoder, 0.1, "it is full")
	chosen("the least loaded that is not full", made("a"), "t2")
	chosen("the load does not show yet", made("b"), "t1")
	view.Nodes[2].Load = 0.9
	now = now.Add(shows)
	chosen("who makes them goes on", made("a"), "t2")
	tc.suspect(made("a"), now)
	chosen("who was lost is passed over", made("a"), "t1")
	now = now.Add(-1500 * time.Millisecond)
	chosen("who gave nothing is passed over", made("a"), "t3")
	view.Nodes[1].State = cluster.Draining
	chosen("who drains is not asked", made("b"), "t2")
	view.Nodes = view.Nodes[:3]
	chosen("there is nobody else", made("a"), "t2")
}
