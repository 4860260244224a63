package rig

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/internal/auth"
	"sluice/media"
)

// asker asks nodes by REST, as an administrator's program.
type asker struct {
	c   *Cluster
	key string
}

func (c *Cluster) administrator(t *testing.T) asker {
	t.Helper()
	reg := c.options.Store.Open(t)
	t.Cleanup(func() { _ = reg.Close() })
	accounts := auth.New(reg, auth.Config{})
	if _, err := accounts.Add(t.Context(), auth.Account{Name: "ada", Role: auth.Administrator}, "four plain words"); err != nil {
		t.Fatal(err)
	}
	key, _, err := accounts.AddKey(t.Context(), auth.KeyInfo{Name: "ada"})
	if err != nil {
		t.Fatal(err)
	}
	return asker{c, key}
}

// ask reads the answer of a node into out, unless that is nil.
func (a asker) ask(t *testing.T, node, method, path, body string, out any) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+a.c.Node(node).HTTPAddr()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+a.key)
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if out != nil && res.StatusCode == http.StatusOK {
		if err := json.Unmarshal(b, out); err != nil {
			t.Fatalf("%s %s: %v: %s", method, path, err, b)
		}
	}
	return res.StatusCode
}

// lateness is what a machine with more work than processors may add.
const lateness = 4 * time.Second

var everyNode = []string{"origin-1", "edge-1", "edge-2"}

// A stream is the same by REST at any node, whoever has it, and any node ends it at its owner.
func TestRESTAtAnyNode(t *testing.T) {
	c := Start(t, Options{})
	ada := c.administrator(t)
	key := media.Key{App: "live", ID: "zoo"}
	const at = "/live/rest/v2/broadcasts"
	if status := ada.ask(t, "edge-2", "POST", at+"/create", `{"streamId":"zoo","name":"bears"}`, nil); status != 200 {
		t.Fatalf("create: %d", status)
	}
	p, err := c.Publish(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"edge-1", "edge-2", "edge-2"} {
		c.Poll(10*time.Second, func() error { // until the stream is live
			_, err := c.WatchAt(id, key)
			return err
		})
	}
	for _, id := range everyNode {
		c.Poll(10*time.Second, func() error {
			var b struct {
				Name, Status, OriginNode string
				Viewers                  int `json:"webRTCViewerCount"`
				Bitrate                  int
				Nodes                    []string
			}
			if status := ada.ask(t, id, "GET", at+"/zoo", "", &b); status != 200 || b.Name != "bears" || b.Status != "broadcasting" || b.OriginNode != "origin-1" || b.Viewers != 3 || b.Bitrate == 0 || len(b.Nodes) != 3 {
				return fmt.Errorf("%s says %d %+v", id, status, b)
			}
			var viewers []struct{ Node, ClientID, ClientIP string }
			if status := ada.ask(t, id, "GET", at+"/zoo/webrtc-client-stats/0/50", "", &viewers); status != 200 || len(viewers) != 3 {
				return fmt.Errorf("%s says %d, viewers %+v", id, status, viewers)
			}
			var info []struct{ VideoCodec string }
			if status := ada.ask(t, id, "GET", at+"/zoo/stream-info", "", &info); status != 200 || len(info) != 1 || info[0].VideoCodec == "" {
				return fmt.Errorf("%s says %d, tracks %+v", id, status, info)
			}
			var nodes []struct{ ID, Status string }
			if status := ada.ask(t, id, "GET", "/rest/v2/cluster/nodes/0/50", "", &nodes); status != 200 || len(nodes) != 3 {
				return fmt.Errorf("%s says %d, nodes %+v", id, status, nodes)
			}
			return nil
		})
	}
	for _, path := range []string{"/.node/streams", "/.node/viewers?stream=live/zoo"} {
		if status := ada.ask(t, "origin-1", "GET", path, "", nil); status != http.StatusForbidden {
			t.Errorf("somebody who is no node asks %s and gets %d", path, status)
		}
	}
	if status := ada.ask(t, "origin-1", "POST", "/.node/stop?stream=live/zoo", "", nil); status != http.StatusForbidden {
		t.Errorf("somebody who is no node stops a stream: %d", status)
	}
	began := time.Now()
	if status := ada.ask(t, "edge-1", "POST", at+"/zoo/stop", "", nil); status != 200 {
		t.Fatalf("stop: %d", status)
	}
	for _, id := range everyNode {
		c.Poll(10*time.Second, func() error {
			var b struct{ Status string }
			if status := ada.ask(t, id, "GET", at+"/zoo", "", &b); status != 200 || b.Status != "finished" {
				return fmt.Errorf("%s says %d %+v after the stop", id, status, b)
			}
			return nil
		})
	}
	t.Logf("finished at all nodes %s after the stop", time.Since(began).Round(time.Millisecond))
	p.Vanish()
}

// An application that is made at one node can be published to and played from within two seconds at all, and is nobody's after it was deleted.
func TestApplicationsEverywhere(t *testing.T) {
	c := Start(t, Options{})
	ada := c.administrator(t)
	exists := func(want int) {
		t.Helper()
		began := time.Now()
		for _, id := range everyNode {
			c.Poll(10*time.Second, func() error {
				if status := ada.ask(t, id, "GET", "/stage/whep/x", "", nil); status != want {
					return fmt.Errorf("%s answers %d", id, status)
				}
				return nil
			})
		}
		if took := time.Since(began); took > 2*time.Second+lateness {
			t.Errorf("all nodes know after %s", took)
		} else {
			t.Logf("all nodes know after %s", took.Round(time.Millisecond))
		}
	}
	exists(404)
	if status := ada.ask(t, "edge-1", "POST", "/rest/v2/applications/stage", "", nil); status != 200 {
		t.Fatalf("make: %d", status)
	}
	exists(204)
	if status := ada.ask(t, "edge-2", "POST", "/rest/v2/applications/settings/stage", `{"webRTCViewerLimit":0,"ladder":{"rungs":["240p:300k"]}}`, nil); status != 200 {
		t.Fatalf("settings: %d", status)
	}
	key := media.Key{App: "stage", ID: "x"}
	if _, err := c.Publish(key); err != nil {
		t.Fatal(err)
	}
	c.Poll(10*time.Second, func() error {
		_, err := c.WatchAt("edge-1", key)
		if err == nil || !strings.Contains(err.Error(), "viewer_limit") {
			return fmt.Errorf("a viewer beyond the limit: %v", err)
		}
		return nil
	})
	if status := ada.ask(t, "origin-1", "DELETE", "/rest/v2/applications/stage", "", nil); status != 200 {
		t.Fatalf("delete: %d", status)
	}
	exists(404)
	c.Poll(10*time.Second, func() error {
		if l := c.Node("origin-1").Hub().List(); len(l) > 0 {
			return fmt.Errorf("the deleted application still has %v", l[0].Key)
		}
		return nil
	})
}
