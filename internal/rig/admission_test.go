package rig

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/internal/config"
)

// loadFigures is what a node answers to GET /load.
type loadFigures struct {
	Viewers int
	Egress  float64
	Load    float64
	Full    string
}

func (c *Cluster) figures(id string) (f loadFigures, err error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + c.Node(id).HTTPAddr() + "/load")
	if err != nil {
		return f, err
	}
	defer res.Body.Close()
	return f, json.NewDecoder(res.Body).Decode(&f)
}

// TestAdmission: a full edge is passed over, the last viewer hears why, and nobody who is there notices.
func TestAdmission(t *testing.T) {
	c := Start(t, Options{Configure: func(n *config.Node) { n.Limits.Viewers, n.Limits.Egress = 3, 1000 }})
	c.publish(stream1)
	viewers := []*Viewer{c.watch(stream1)}
	for i := range 5 {
		v, err := c.Watch(stream1)
		if err != nil {
			t.Fatalf("viewer %d, while the edges have room: %v", i+2, err)
		}
		viewers = append(viewers, v)
	}
	for range 2 { // at first they refuse by themselves, then their rows say so, too
		if _, err := c.Watch(stream1); err == nil || !strings.Contains(err.Error(), "node_full") {
			t.Errorf("one too many: %v", err)
		}
		c.Poll(10*time.Second, func() error {
			for _, id := range []string{"edge-1", "edge-2"} {
				f, err := c.figures(id)
				if err != nil {
					return err
				}
				if f.Viewers != 3 || f.Full != "it has 3 viewers of 3" || f.Load != 1 || f.Egress < 1000 {
					return fmt.Errorf("%s: %+v", id, f)
				}
			}
			return nil
		})
	}
	c.Poll(10*time.Second, func() error {
		if f, err := c.figures("origin-1"); err != nil || f.Egress < 1000 || f.Full != "" {
			return fmt.Errorf("the origin, which feeds both: %+v, %v", f, err)
		}
		return nil
	})
	c.More(30, viewers...)
	for i, v := range viewers {
		if err := v.Whole(); err != nil {
			t.Errorf("viewer %d: %v", i+1, err)
		}
	}

	if err := viewers[0].Leave(); err != nil {
		t.Fatal(err)
	}
	viewers[0] = c.watch(stream1) // its place is free
	c.More(10, viewers...)
}
