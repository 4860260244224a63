package gateway

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/media"
)

func edges(cpu ...float64) *fakeDirectory {
	d := &fakeDirectory{view: cluster.View{At: time.Unix(100, 0)}}
	for i, c := range cpu {
		d.view.Nodes = append(d.view.Nodes, cluster.Node{ID: fmt.Sprintf("e%d", i+1), Role: cluster.Edge, State: cluster.Ready, CPU: c,
			HTTP: fmt.Sprintf("127.0.0.1:%d", i+1), LastHeartbeat: d.view.At})
	}
	return d
}

func TestPlacementWithinOneHeartbeat(t *testing.T) {
	cases := []struct {
		name    string
		cpu     []float64
		streams int // viewers go round them; 0: sockets that name none
		viewers int
		min     int // viewers of the node that got least
		max     int // and of the one that got most
	}{
		{"50 viewers of a new stream go to one edge", []float64{0.1, 0.1}, 1, 50, 0, 50},
		{"so they do when the edges differ a little", []float64{0.12, 0.1}, 1, 40, 0, 40},
		{"500 viewers are too many for one", []float64{0.1, 0.1}, 1, 500, 150, 350},
		{"a nearly full edge gets few", []float64{0.1, 0.8}, 1, 150, 0, 150},
		{"streams spread", []float64{0.1, 0.1}, 50, 50, 15, 35},
		{"unnamed sockets spread", []float64{0.1, 0.1}, 0, 50, 24, 26},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := edges(c.cpu...)
			p := newPlacer(newPool(dir, time.Second, time.Second, slog.New(slog.DiscardHandler)), "")
			got := map[string]int{}
			for i := range c.viewers {
				var key media.Key
				if c.streams > 0 {
					key = media.Key{App: "live", ID: fmt.Sprint("s", i%c.streams)}
				}
				n, ok := p.session(cluster.Edge, key, nil)
				if !ok {
					t.Fatal("no node")
				}
				got[n.ID]++
			}
			least, most := c.viewers, 0
			for _, n := range dir.view.Nodes {
				least, most = min(least, got[n.ID]), max(most, got[n.ID])
			}
			if least < c.min || most > c.max || (c.min == 0 && least != 0) {
				t.Errorf("got %v, want each between %d and %d", got, c.min, c.max)
			}
			if len(dir.view.Nodes[0].Serving) != 0 {
				t.Error("the shared view was changed")
			}
		})
	}
}

// TestRefusedIsNotCounted: requests for streams that don't exist make no node look busy.
func TestRefusedIsNotCounted(t *testing.T) {
	e1, e2 := startNode(t, "e1", cluster.Edge), startNode(t, "e2", cluster.Edge, stream1)
	e1.row.CPU, e2.row.CPU = 0, 0.1
	r := start(t, Config{}, e1, e2)
	for i := range 40 {
		if resp, body := r.do(t, "POST", r.play(fmt.Sprint("/live/whep/none", i)), "v=0"); resp.StatusCode != 404 {
			t.Fatalf("%s %s", resp.Status, body)
		}
	}
	if n, _ := r.placer.request(cluster.Edge, media.Key{}, nil); n.ID != "e1" {
		t.Errorf("the idle edge looks busier than %q", n.ID)
	}
}

func TestBackupGoesElsewhere(t *testing.T) {
	dir := edges(0.1, 0.5)
	for i := range dir.view.Nodes {
		dir.view.Nodes[i].Role = cluster.Origin
	}
	dir.view.Nodes[0].Serving = []cluster.Serving{{Stream: stream1}}
	p := newPlacer(newPool(dir, time.Second, time.Second, slog.New(slog.DiscardHandler)), "")
	for _, c := range []struct {
		name  string
		avoid map[string]bool
		want  string
	}{
		{"not to the stream's origin, although that has less to do", nil, "e2"},
		{"to that, which says why it can't be, when there is no other", map[string]bool{"e2": true}, "e1"},
		{"nowhere when all were asked", map[string]bool{"e1": true, "e2": true}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if n, _ := p.backup(stream1, c.avoid); n.ID != c.want {
				t.Errorf("to %q, want %q", n.ID, c.want)
			}
		})
	}
}

func TestPublisherKeepsAwayFromItsBackup(t *testing.T) {
	dir := edges(0.1, 0.5)
	for i := range dir.view.Nodes {
		dir.view.Nodes[i].Role = cluster.Origin
	}
	dir.view.Nodes[0].Backups = []media.Key{stream1}
	p := newPlacer(newPool(dir, time.Second, time.Second, slog.New(slog.DiscardHandler)), "")
	if n, _ := p.session(cluster.Origin, stream1, nil); n.ID != "e2" {
		t.Errorf("to %q, where the backup is", n.ID)
	}
	if n, _ := p.session(cluster.Origin, stream1, map[string]bool{"e2": true}); n.ID != "e1" {
		t.Errorf("to %q, although there is no other", n.ID)
	}
}

func TestPublisherReturnsToItsOrigin(t *testing.T) {
	dir := edges(0.5, 0.1)
	for i := range dir.view.Nodes {
		dir.view.Nodes[i].Role = cluster.Origin
	}
	dir.view.Nodes[0].Serving = []cluster.Serving{{Stream: stream1}}
	p := newPlacer(newPool(dir, time.Second, time.Second, slog.New(slog.DiscardHandler)), "")
	if n, _ := p.session(cluster.Origin, stream1, nil); n.ID != "e1" {
		t.Errorf("publisher of a stream goes to %s, its origin is e1", n.ID)
	}
	if n, _ := p.session(cluster.Origin, media.Key{App: "live", ID: "new"}, nil); n.ID != "e2" {
		t.Errorf("new publisher goes to %s, least loaded is e2", n.ID)
	}
	if n, _ := p.session(cluster.Origin, stream1, map[string]bool{"e1": true}); n.ID != "e2" {
		t.Errorf("publisher whose origin failed goes to %s", n.ID)
	}
	if n, ok := p.session(cluster.Edge, stream1, nil); ok {
		t.Errorf("viewer goes to origin %s", n.ID)
	}
}
