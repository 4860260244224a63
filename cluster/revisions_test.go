package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/cluster"
	"sluice/cluster/memory"
)

// A change that was notified of is read by every node within two seconds; one whose notice got lost within a minute;
// an outage delays it and is told once.
func TestWatchDocuments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		writer := store.Open()
		var log story
		reg := store.Open()
		member := cluster.NewMember(reg, "a", func() cluster.Node { return cluster.Node{} }, log.log())
		watch := cluster.NewWatch(reg, log.log())
		var users, tokens atomic.Int64
		watch.On("user", func(ctx context.Context) error {
			page, _, err := reg.Find(ctx, cluster.Query{Kind: "user"})
			if err == nil {
				users.Store(int64(len(page)))
			}
			return err
		})
		watch.On("token", func(ctx context.Context) error {
			tokens.Add(1)
			_, _, err := reg.Find(ctx, cluster.Query{Kind: "token"})
			return err
		})
		defer start(t, member.Run)()
		defer start(t, watch.Run)()
		pass(5 * time.Second)
		quiet := tokens.Load()

		add := func(i int) {
			t.Helper()
			if _, err := writer.Put(t.Context(), cluster.Document{Kind: "user", ID: fmt.Sprint(i), Body: []byte("{}")}); err != nil {
				t.Fatal(err)
			}
		}
		want := func(when string, n int64) {
			t.Helper()
			if got := users.Load(); got != n {
				t.Errorf("%s the node knows of %d users, want %d", when, got, n)
			}
		}
		notify := func() {
			t.Helper()
			if err := writer.Notify(t.Context(), "user"); err != nil {
				t.Fatal(err)
			}
		}
		add(1)
		notify()
		pass(2 * time.Second)
		want("two seconds after a notice", 1)
		add(2)
		pass(2 * time.Second)
		want("without a notice", 1)
		pass(time.Minute)
		want("a minute later", 2)
		if got := tokens.Load(); got > quiet+2 {
			t.Errorf("another kind was read %d times in a minute", got-quiet)
		}

		reg.Cut(true)
		add(3)
		notify()
		pass(time.Minute)
		want("while the registry is away", 2)
		reg.Cut(false)
		pass(2 * time.Second)
		want("two seconds after an outage", 3)
		if n := strings.Count(strings.Join(log.lines(), "\n"), `doing="read documents"`); n != 2 {
			t.Errorf("the outage is told in %d lines, want its begin and its end:\n%s", n, strings.Join(log.lines(), "\n"))
		}
	})
}

func TestEachDocument(t *testing.T) {
	reg := memory.NewStore(time.Now).Open()
	const n = 2*cluster.MaxFind + 5
	for i := range n {
		if _, err := reg.Put(t.Context(), cluster.Document{Kind: "token", Group: fmt.Sprint("app", i%3), ID: fmt.Sprint(i), Body: []byte("1")}); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	q := cluster.Query{Kind: "token", AllGroups: true}
	if err := cluster.EachDocument(t.Context(), reg, q, func(d cluster.Document) error { seen[d.ID] = true; return nil }); err != nil || len(seen) != n {
		t.Errorf("%d of %d documents were seen, %v", len(seen), n, err)
	}
	enough := errors.New("enough")
	if err := cluster.EachDocument(t.Context(), reg, q, func(cluster.Document) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("an error of the callback came back as %v", err)
	}
}
