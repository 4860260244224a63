package clustertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/cluster"
)

// paper is a document with every field set that its writer sets.
func (f *fixture) paper(id string) cluster.Document {
	return cluster.Document{Kind: "broadcast", Group: "live", ID: id, Name: "Name of " + id, State: "created", At: f.clock.Now().Add(-time.Hour),
		Expires: f.clock.Now().Add(time.Hour), Body: json.RawMessage(`{"a": "ä\u0000 \n", "b": [1, null]}`)}
}

// put writes or ends the test.
func (f *fixture) put(t *testing.T, d cluster.Document) cluster.Document {
	t.Helper()
	written, err := f.Put(f.ctx, d)
	if err != nil {
		t.Fatalf("put %+v: %v", d, err)
	}
	return written
}

// wantDocument compares to the millisecond.
func wantDocument(t *testing.T, what string, got, want cluster.Document) {
	t.Helper()
	if !same(got.At, want.At) || !same(got.Expires, want.Expires) || !same(got.Changed, want.Changed) || string(got.Body) != string(want.Body) {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
	if got.Kind != want.Kind || got.Group != want.Group || got.ID != want.ID || got.Name != want.Name || got.State != want.State || got.Version != want.Version {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

func documentsRoundTrip(t *testing.T, f *fixture) {
	other := f.open(t)
	d := f.paper("s")
	written := f.put(t, d)
	if written.Version == 0 || !same(written.Changed, f.clock.Now()) {
		t.Errorf("a new document is %+v", written)
	}
	d.Version, d.Changed = written.Version, f.clock.Now()
	wantDocument(t, "written", written, d)
	for _, r := range []cluster.Store{f.Store, other} {
		got, err := r.Get(f.ctx, "broadcast", "live", "s")
		ok(t, err)
		wantDocument(t, "read", got, d)
		page, total, err := r.Find(f.ctx, cluster.Query{Kind: "broadcast", Group: "live"})
		if ok(t, err); total != 1 || len(page) != 1 {
			t.Fatalf("found %d of %d", len(page), total)
		}
		wantDocument(t, "found", page[0], d)
	}
	// The same name is another document elsewhere.
	for _, at := range [][3]string{{"broadcast", "", "s"}, {"broadcast", "live", "S"}, {"token", "live", "s"}, {"broadcast", "live2", "s"}} {
		if got, err := f.Get(f.ctx, at[0], at[1], at[2]); !errors.Is(err, cluster.ErrNoDocument) {
			t.Errorf("%v: %+v, %v", at, got, err)
		}
	}
	weird := f.put(t, cluster.Document{Kind: "user", ID: `a/b.$c'"\%_*ß漢 x@y`, Name: `$where`, Body: json.RawMessage(`null`)})
	got, err := other.Get(f.ctx, "user", "", weird.ID)
	ok(t, err)
	wantDocument(t, "weird", got, weird)
	if !got.At.IsZero() || !got.Expires.IsZero() {
		t.Errorf("times that were not set came back as %v and %v", got.At, got.Expires)
	}
}

func documentsSwap(t *testing.T, f *fixture) {
	first := f.put(t, f.paper("s"))
	if _, err := f.Put(f.ctx, f.paper("s")); !errors.Is(err, cluster.ErrExists) {
		t.Errorf("second new one: %v", err)
	}
	f.clock.Advance(time.Second)
	next := first
	next.Name, next.State, next.Body = "Other", "broadcasting", json.RawMessage(`2`)
	second := f.put(t, next)
	if second.Version <= first.Version || !same(second.Changed, f.clock.Now()) {
		t.Errorf("written again: %+v after %+v", second, first)
	}
	for what, version := range map[string]int64{"an old version": first.Version, "a version to come": second.Version + 1} {
		d := first
		d.Version = version
		if _, err := f.Put(f.ctx, d); !errors.Is(err, cluster.ErrConflict) {
			t.Errorf("put with %s: %v", what, err)
		}
		if err := f.Delete(f.ctx, d.Kind, d.Group, d.ID, version); !errors.Is(err, cluster.ErrConflict) {
			t.Errorf("delete with %s: %v", what, err)
		}
	}
	got, err := f.Get(f.ctx, "broadcast", "live", "s")
	ok(t, err)
	wantDocument(t, "after refused writes", got, second)
	ok(t, f.Delete(f.ctx, "broadcast", "live", "s", second.Version))
	if err := f.Delete(f.ctx, "broadcast", "live", "s", 0); !errors.Is(err, cluster.ErrNoDocument) {
		t.Errorf("second delete: %v", err)
	}
	if _, err := f.Put(f.ctx, second); !errors.Is(err, cluster.ErrConflict) {
		t.Errorf("put of a deleted one: %v", err)
	}
	f.clock.Advance(time.Millisecond)
	third := f.put(t, f.paper("s"))
	if third.Version <= second.Version {
		t.Errorf("the version of a new document is %d, of the deleted one it was %d", third.Version, second.Version)
	}
	ok(t, f.Delete(f.ctx, "broadcast", "live", "s", 0))
}

func documentsRefused(t *testing.T, f *fixture) {
	for what, edit := range map[string]func(*cluster.Document){
		"no kind":              func(d *cluster.Document) { d.Kind = "" },
		"kind with a slash":    func(d *cluster.Document) { d.Kind = "a/b" },
		"kind in capitals":     func(d *cluster.Document) { d.Kind = "User" },
		"kind with a dot":      func(d *cluster.Document) { d.Kind = "a.b" },
		"group with a slash":   func(d *cluster.Document) { d.Group = "a/b" },
		"no id":                func(d *cluster.Document) { d.ID = "" },
		"id with a zero":       func(d *cluster.Document) { d.ID = "a\x00" },
		"id of two lines":      func(d *cluster.Document) { d.ID = "a\nb" },
		"id that is no UTF-8":  func(d *cluster.Document) { d.ID = "a\xff" },
		"long id":              func(d *cluster.Document) { d.ID = strings.Repeat("x", 257) },
		"long name":            func(d *cluster.Document) { d.Name = strings.Repeat("x", 1025) },
		"name of two lines":    func(d *cluster.Document) { d.Name = "a\rb" },
		"long state":           func(d *cluster.Document) { d.State = strings.Repeat("x", 65) },
		"no body":              func(d *cluster.Document) { d.Body = nil },
		"body that is no JSON": func(d *cluster.Document) { d.Body = json.RawMessage(`{"a":`) },
		"large body":           func(d *cluster.Document) { d.Body = json.RawMessage(`"` + strings.Repeat("x", cluster.MaxBody) + `"`) },
		"version below 0":      func(d *cluster.Document) { d.Version = -1 },
	} {
		d := f.paper("s")
		edit(&d)
		if _, err := f.Put(f.ctx, d); !errors.Is(err, cluster.ErrBadDocument) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, q := range map[string]cluster.Query{
		"no kind":                 {},
		"no order":                {Kind: "user", Sort: 99},
		"offset":                  {Kind: "user", Offset: -1},
		"limit":                   {Kind: "user", Limit: -1},
		"after by name":           {Kind: "user", Sort: cluster.ByName, After: &cluster.Document{}},
		"too many ids":            {Kind: "user", IDs: make([]string, cluster.MaxFind+1)},
		"search of no UTF-8":      {Kind: "user", Search: "\xff"},
		"search with a zero byte": {Kind: "user", Search: "a\x00"},
	} {
		if _, _, err := f.Find(f.ctx, q); !errors.Is(err, cluster.ErrBadDocument) {
			t.Errorf("query with %s: %v", what, err)
		}
	}
	if _, total, err := f.Find(f.ctx, cluster.Query{Kind: "broadcast", AllGroups: true}); err != nil || total != 0 {
		t.Errorf("%d documents after refused writes, %v", total, err)
	}
}

// documentsOneWins: of many that write at once one does, whether the document is new, old, or has expired.
func documentsOneWins(t *testing.T, f *fixture) {
	const writers = 6
	stores := []cluster.Store{f.Store, f.open(t), f.open(t)}
	race := func(what string, refused error, d cluster.Document) {
		t.Helper()
		var won atomic.Int64
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				mine := d
				mine.Name = fmt.Sprint(i)
				_, err := stores[i%len(stores)].Put(f.ctx, mine)
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, refused) {
					t.Errorf("%s, writer %d: %v", what, i, err)
				}
			})
		}
		wg.Wait()
		if n := won.Load(); n != 1 {
			t.Errorf("%s: %d of %d writers won", what, n, writers)
		}
	}
	for i := range 5 {
		race("new", cluster.ErrExists, f.paper(fmt.Sprint(i)))
		d, err := f.Get(f.ctx, "broadcast", "live", fmt.Sprint(i))
		ok(t, err)
		race("old", cluster.ErrConflict, d)
		f.clock.Advance(2 * time.Hour)
		race("expired", cluster.ErrExists, f.paper(fmt.Sprint(i)))
	}
}

func documentsExpire(t *testing.T, f *fixture) {
	d := f.put(t, f.paper("s"))
	f.put(t, cluster.Document{Kind: "broadcast", Group: "live", ID: "stays", Body: json.RawMessage(`1`)})
	f.clock.Advance(time.Hour - time.Millisecond)
	_, err := f.Get(f.ctx, "broadcast", "live", "s")
	ok(t, err)
	if n, err := f.Sweep(f.ctx); err != nil || n != 0 {
		t.Errorf("a sweep before the time has deleted %d, %v", n, err)
	}
	f.clock.Advance(time.Millisecond)
	if _, err := f.Get(f.ctx, "broadcast", "live", "s"); !errors.Is(err, cluster.ErrNoDocument) {
		t.Errorf("read of an expired one: %v", err)
	}
	if _, err := f.Put(f.ctx, d); !errors.Is(err, cluster.ErrConflict) {
		t.Errorf("write of an expired one: %v", err)
	}
	if err := f.Delete(f.ctx, "broadcast", "live", "s", 0); !errors.Is(err, cluster.ErrNoDocument) {
		t.Errorf("delete of an expired one: %v", err)
	}
	if page, total, err := f.Find(f.ctx, cluster.Query{Kind: "broadcast", Group: "live"}); err != nil || total != 1 || len(page) != 1 || page[0].ID != "stays" {
		t.Errorf("found %+v of %d, %v; want what has not expired", page, total, err)
	}
	again := f.put(t, f.paper("s")) // its place is free
	if again.Version <= d.Version {
		t.Errorf("the version went from %d to %d", d.Version, again.Version)
	}
	f.clock.Advance(2 * time.Hour)
	if n, err := f.Sweep(f.ctx); err != nil || n != 1 {
		t.Errorf("the sweep has deleted %d, %v; want 1", n, err)
	}
	if n, err := f.Sweep(f.ctx); err != nil || n != 0 {
		t.Errorf("the next sweep has deleted %d, %v", n, err)
	}
}

// documentsFound tries every part of a query on the same documents.
func documentsFound(t *testing.T, f *fixture) {
	base := f.clock.Now()
	for i, c := range []struct{ group, id, name, state string }{
		{"live", "d", "Äpfel 100%", "created"},
		{"live", "a", "zoo", "broadcasting"},
		{"live", "c", "Birnen", "broadcasting"},
		{"live", "B", "apfel (a.b)", "finished"},
		{"live-2", "a", "äpfel", "created"},
		{"", "a", "Server", "created"},
	} {
		f.put(t, cluster.Document{Kind: "broadcast", Group: c.group, ID: c.id, Name: c.name, State: c.state, At: base.Add(time.Duration(-i) * time.Second), Body: json.RawMessage(`{}`)})
		f.clock.Advance(time.Second)
	}
	f.put(t, cluster.Document{Kind: "user", Group: "live", ID: "a", Body: json.RawMessage(`{}`)})
	after := &cluster.Document{Group: "live", ID: "a"}
	for _, c := range []struct {
		name  string
		q     cluster.Query
		want  string
		total int
	}{
		{"a group", cluster.Query{Group: "live"}, "live/B live/a live/c live/d", 4},
		{"the server's own", cluster.Query{}, "/a", 1},
		{"all groups", cluster.Query{AllGroups: true}, "/a live/B live/a live/c live/d live-2/a", 6},
		{"backwards", cluster.Query{AllGroups: true, Desc: true}, "live-2/a live/d live/c live/a live/B /a", 6},
		{"by name", cluster.Query{Group: "live", Sort: cluster.ByName}, "live/B live/c live/a live/d", 4},
		{"by name backwards", cluster.Query{Group: "live", Sort: cluster.ByName, Desc: true}, "live/d live/a live/c live/B", 4},
		{"by state", cluster.Query{Group: "live", Sort: cluster.ByState}, "live/a live/c live/d live/B", 4},
		{"by state backwards", cluster.Query{Group: "live", Sort: cluster.ByState, Desc: true}, "live/B live/d live/c live/a", 4},
		{"by time", cluster.Query{Group: "live", Sort: cluster.ByAt}, "live/B live/c live/a live/d", 4},
		{"by time backwards", cluster.Query{AllGroups: true, Sort: cluster.ByAt, Desc: true, Limit: 2}, "live/d live/a", 6},
		{"first page", cluster.Query{Group: "live", Limit: 3}, "live/B live/a live/c", 4},
		{"last page", cluster.Query{Group: "live", Limit: 3, Offset: 3}, "live/d", 4},
		{"beyond", cluster.Query{Group: "live", Limit: 3, Offset: 300}, "", 4},
		{"after", cluster.Query{Group: "live", After: after}, "live/c live/d", -1},
		{"after over groups", cluster.Query{AllGroups: true, After: after, Limit: 3}, "live/c live/d live-2/a", -1},
		{"after backwards", cluster.Query{AllGroups: true, After: after, Desc: true}, "live/B /a", -1},
		{"a state", cluster.Query{Group: "live", State: "broadcasting"}, "live/a live/c", 2},
		{"no such state", cluster.Query{Group: "live", State: "broad"}, "", 0},
		{"ids", cluster.Query{Group: "live", IDs: []string{"a", "d", "x", "$"}}, "live/a live/d", 2},
		{"no ids", cluster.Query{Group: "live", IDs: []string{}}, "", 0},
		{"search of a name", cluster.Query{AllGroups: true, Search: "ÄPF"}, "live/d live-2/a", 2},
		{"search of an id", cluster.Query{Group: "live", Search: "b"}, "live/B live/c", 2},
		{"search is no pattern", cluster.Query{Group: "live", Search: "(a.b)"}, "live/B", 1},
		{"search is no pattern either", cluster.Query{Group: "live", Search: "0%"}, "live/d", 1},
		{"search is not of lines", cluster.Query{Group: "live", Search: "^a"}, "", 0},
		{"times", cluster.Query{Group: "live", From: base.Add(-2 * time.Second), To: base}, "live/a live/c", 2},
		{"changed since", cluster.Query{AllGroups: true, Since: base.Add(3 * time.Second)}, "/a live/B live-2/a", 3},
		{"all at once", cluster.Query{Group: "live", State: "broadcasting", Search: "O", Sort: cluster.ByName, IDs: []string{"a", "c"}, From: base.Add(-time.Hour)}, "live/a", 1},
	} {
		c.q.Kind = "broadcast"
		page, total, err := f.Find(f.ctx, c.q)
		var got []string
		for _, d := range page {
			got = append(got, d.Group+"/"+d.ID)
		}
		if err != nil || strings.Join(got, " ") != c.want || total != c.total {
			t.Errorf("%s: %v of %d, %v; want %s of %d", c.name, got, total, err, c.want, c.total)
		}
	}
}

// documentsNotices: a notice is known where it was given at once, and elsewhere with the next heartbeat; also when it was given while
// a node had no row.
func documentsNotices(t *testing.T, f *fixture) {
	type known struct {
		store cluster.Store
		last  map[string]int64
	}
	var all []*known
	for range 3 {
		all = append(all, &known{store: f.open(t), last: map[string]int64{}})
	}
	kinds := []string{"user", "session", "settings"}
	// news says which kinds a process has learnt of since it was asked last.
	news := func(k *known) (list []string) {
		for _, kind := range kinds {
			if r := k.store.Revision(kind); r != k.last[kind] {
				k.last[kind] = r
				list = append(list, kind)
			}
		}
		return list
	}
	beat := func(i int) {
		t.Helper()
		ok(t, all[i].store.Heartbeat(f.ctx, cluster.Node{ID: nodeName(i), Session: int64(100 + i)}))
	}
	for i, k := range all {
		ok(t, k.store.Join(f.ctx, cluster.Node{ID: nodeName(i), Session: int64(100 + i)}))
		if got := news(k); !slices.Equal(got, kinds) {
			t.Errorf("node %d has joined and knows of news of %v; all may be news", i, got)
		}
		beat(i)
		news(k)
	}
	ok(t, all[0].store.Notify(f.ctx, "user", "settings"))
	want := func(when string, i int, kinds ...string) {
		t.Helper()
		if got := news(all[i]); !slices.Equal(got, kinds) {
			t.Errorf("%s, node %d knows of news of %v; want %v", when, i, got, kinds)
		}
	}
	want("after its own notice", 0, "user", "settings")
	want("before its heartbeat", 1)
	beat(1)
	want("after its heartbeat", 1, "user", "settings")
	beat(1)
	want("after another heartbeat", 1)
	ok(t, all[1].store.Notify(f.ctx, "user"))
	ok(t, all[2].store.Notify(f.ctx, "session"))
	news(all[2])
	beat(2)
	if got := news(all[2]); !slices.Contains(got, "user") || !slices.Contains(got, "settings") {
		t.Errorf("after three notices node 2 knows of %v", got)
	}
	// Who is no node notifies too: a command in a shell.
	ok(t, f.Notify(f.ctx, "settings"))
	beat(1)
	if got := news(all[1]); !slices.Contains(got, "settings") || !slices.Contains(got, "session") {
		t.Errorf("after the shell's notice node 1 knows of %v", got)
	}
	// A row that is gone takes no notice; the next Join makes up for it.
	ok(t, all[1].store.Leave(f.ctx, nodeName(1), 101))
	ok(t, all[0].store.Notify(f.ctx, "user"))
	ok(t, all[1].store.Join(f.ctx, cluster.Node{ID: nodeName(1), Session: 201}))
	want("after it joined again", 1, kinds...)
	ok(t, all[1].store.Heartbeat(f.ctx, cluster.Node{ID: nodeName(1), Session: 201}))
}

func documentsContexts(t *testing.T, f *fixture) {
	d := f.put(t, f.paper("s"))
	done, cancel := context.WithCancel(f.ctx)
	cancel()
	for name, call := range map[string]func() error{
		"Get":    func() error { _, err := f.Get(done, d.Kind, d.Group, d.ID); return err },
		"Put":    func() error { _, err := f.Put(done, d); return err },
		"Delete": func() error { return f.Delete(done, d.Kind, d.Group, d.ID, 0) },
		"Find":   func() error { _, _, err := f.Find(done, cluster.Query{Kind: d.Kind}); return err },
		"Sweep":  func() error { _, err := f.Sweep(done); return err },
		"Notify": func() error { return f.Notify(done, d.Kind) },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v", name, err)
		}
	}
	got, err := f.Get(f.ctx, d.Kind, d.Group, d.ID)
	ok(t, err)
	wantDocument(t, "after calls with a cancelled context", got, d)
}
