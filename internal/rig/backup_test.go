package rig

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/media"
)

func (c *Cluster) publishBackup(key media.Key) *Publisher {
	c.t.Helper()
	p, err := c.PublishBackup(key)
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// holder is the origin that a publisher is on; "" none.
func (c *Cluster) holder(key media.Key, origins ...string) string {
	for _, id := range origins {
		if i, ok := c.Node(id).Hub().Info(key); ok && !i.Relayed && i.Flowing {
			return id
		}
	}
	return ""
}

// backedUp starts a stream with both publishers, and a viewer at each edge that has it.
func (c *Cluster) backedUp(origins ...string) (main *Publisher, backup *Publisher, v *Viewer, holder string) {
	c.t.Helper()
	main = c.publish(stream1)
	v = c.watch(stream1)
	c.More(10, v)
	backup = c.publishBackup(stream1)
	c.Poll(5*time.Second, func() error {
		if holder = c.holder(stream1, origins...); holder == "" {
			return errors.New("no origin has the stream")
		}
		at := c.holder(stream1.Backup(), origins...)
		if at == "" {
			return errors.New("no origin has the backup")
		}
		if at == holder {
			c.t.Fatalf("%s has both", at)
		}
		if i, ok := c.Node(c.serving(stream1)).Hub().Info(stream1.Backup()); !ok || !i.Flowing {
			return errors.New("the edge does not have the backup")
		}
		return nil
	})
	return main, backup, v, holder
}

func TestBackupPublisher(t *testing.T) {
	for _, x := range []struct {
		name string
		do   func(c *Cluster, main *Publisher, holder string)
		most time.Duration
	}{
		{"the publisher's cable is pulled", func(_ *Cluster, main *Publisher, _ string) { main.Vanish() }, time.Second},
		{"the publisher falls silent", func(_ *Cluster, main *Publisher, _ string) { main.Quiet(true) }, time.Second},
		{"its origin dies", func(c *Cluster, main *Publisher, holder string) { c.Kill(holder); main.Vanish() }, time.Second},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := Start(t, Options{Origins: 2, Edges: 1})
			main, _, v, holder := c.backedUp("origin-1", "origin-2")
			c.More(15, v)
			v.ResetGap()
			x.do(c, main, holder)
			c.More(45, v)
			if err := v.Whole(); err != nil {
				t.Error(err)
			}
			if gap := v.Gap(); gap > slower*x.most {
				t.Errorf("the viewer saw nothing for %v", gap)
			} else {
				t.Logf("the viewer saw nothing for %v", gap)
			}
		})
	}
}

// Only the backup sends: who comes to another edge, or to its origin, gets it; and when the publisher is back, nobody notices.
func TestBackupAlone(t *testing.T) {
	c := Start(t, Options{Origins: 3, Edges: 1})
	main, backup, v, _ := c.backedUp("origin-1", "origin-2", "origin-3")
	if err := main.Leave(); err != nil {
		t.Fatal(err)
	}
	c.More(30, v)
	c.Poll(15*time.Second, func() error {
		if id := c.holder(stream1, "origin-1", "origin-2", "origin-3"); id != "" {
			return fmt.Errorf("%s has the stream still", id)
		}
		return nil
	})
	c.Run("edge", "edge-2")
	var late *Viewer
	for _, id := range []string{"edge-2", c.holder(stream1.Backup(), "origin-1", "origin-2", "origin-3")} {
		late = c.watchAt(id)
		c.More(15, late)
	}
	again := c.publish(stream1)
	c.More(60, v, late)
	if err := backup.Leave(); err != nil {
		t.Fatal(err)
	}
	c.More(60, v, late)
	for _, v := range []*Viewer{v, late} {
		if err := v.Whole(); err != nil {
			t.Error(err)
		}
	}
	_ = again
}

func TestBackupsThatAreRefused(t *testing.T) {
	for _, x := range []struct {
		name    string
		origins int
		before  int // backups that are there already
		code    string
	}{
		{"no second origin", 1, 0, "no_backup"},
		{"a second backup", 2, 1, "stream_in_use"},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := Start(t, Options{Origins: x.origins, Edges: 1})
			p := c.publish(stream1)
			c.Poll(5*time.Second, func() error {
				if p.Frames() < 10 {
					return errors.New("the publisher does not send")
				}
				return nil
			})
			for range x.before {
				c.publishBackup(stream1)
			}
			if _, err := c.PublishBackup(stream1); err == nil || !strings.Contains(err.Error(), x.code) {
				t.Errorf("error %v, want %s", err, x.code)
			}
		})
	}
}
