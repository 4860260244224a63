package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/media"
)

// execute runs statements on any SQLite file.
func execute(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, content string) string {
		if err := os.WriteFile(in(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return in(name)
	}
	foreign := in("foreign.db")
	execute(t, foreign, `CREATE TABLE mine (x)`)
	marked := in("marked.db")
	execute(t, marked, `PRAGMA application_id = 77`)
	newer := in("newer.db")
	open(t, newer)
	execute(t, newer, `PRAGMA user_version = 1000`)
	text := write("text.db", strings.Repeat("this is a letter to my aunt\n", 1000))
	short := write("short.db", "hello")

	for _, c := range []struct{ name, path, want string }{
		{"no path", "", "give its path"},
		{"in memory", ":memory:", "give its path"},
		{"no directory", in("no/such/sluice.db"), "there is no directory"},
		{"under a file", filepath.Join(text, "sluice.db"), "there is no directory"},
		{"a directory", dir, "this is a directory"},
		{"not SQLite", text, "this is no SQLite file"},
		{"not SQLite, short", short, "this is no SQLite file"},
		{"another program's", foreign, "another program's"},
		{"marked by another program", marked, "another program's"},
		{"newer schema", newer, "a newer Sluice wrote it (schema 1000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, _ := os.ReadFile(c.path)
			r, err := Open(t.Context(), c.path)
			if err == nil {
				t.Fatalf("opened it, %v", r.Close())
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "open registry") {
				t.Errorf("error %q does not say %q", err, c.want)
			}
			if after, _ := os.ReadFile(c.path); string(after) != string(before) {
				t.Error("the file has changed")
			}
		})
	}
}

func TestOpenReadOnly(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	path := filepath.Join(t.TempDir(), "sluice.db")
	if err := os.WriteFile(path, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path); err == nil || !strings.Contains(err.Error(), "not writable") {
		t.Errorf("read-only file: %v", err)
	}
}

// Names that mean something in a URL are file names like others.
func TestOddPaths(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a b.db", "what?.db", "50%25.db", "a#b.db", "ä&c=d.db", "'x'.db"} {
		path := filepath.Join(dir, name)
		r := open(t, path)
		if err := r.Join(t.Context(), cluster.Node{ID: "a", Session: 1}); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	t.Chdir(dir)
	list, err := open(t, "./a b.db").Nodes(t.Context())
	if err != nil || len(list) != 1 {
		t.Errorf("relative path: nodes %+v, %v", list, err)
	}
}

// A file of an older version is brought to ours: its epochs count on, nobody holds anything.
func TestOldSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sluice.db")
	execute(t, path, migrations[0],
		`INSERT INTO nodes VALUES ('a', 1, '{"ID": "a"}')`,
		`INSERT INTO streams VALUES ('live/s', 'broadcasting', 'a', 41, '["H264"]', 1, 9000000000000000000)`,
		fmt.Sprintf(`PRAGMA application_id = %d`, applicationID), `PRAGMA user_version = 1`)
	for range 2 { // the second time nothing is left to do
		r := open(t, path)
		if list, err := r.Nodes(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("nodes %+v, %v; want none", list, err)
		}
		if list, err := r.Streams(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("streams %+v, %v; want none", list, err)
		}
	}
	r, err := Open(t.Context(), path, WithClock(func() time.Time { return time.UnixMilli(9) })) // before the row's epoch
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	l, err := r.Claim(t.Context(), cluster.Lease{Key: media.Key{App: "live", ID: "s"}, Node: "b", Session: 1})
	if err != nil || l.Epoch != 42 {
		t.Errorf("claim: epoch %d, %v; want 42", l.Epoch, err)
	}
}

// What was written is there when the file is opened again.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sluice.db")
	key := media.Key{App: "live", ID: "s"}
	for want := range int64(3) {
		r, err := Open(t.Context(), path, WithClock(func() time.Time { return time.UnixMilli(1) }))
		if err != nil {
			t.Fatal(err)
		}
		l, err := r.Claim(t.Context(), cluster.Lease{Key: key, Node: "a", Session: 1})
		if err != nil || l.Epoch != want+1 {
			t.Errorf("claim: epoch %d, %v; want %d", l.Epoch, err, want+1)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Many that open a new file at once agree on one schema.
func TestOpenTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sluice.db")
	var wg sync.WaitGroup
	first := func() time.Time { return time.UnixMilli(1) }
	for range 16 {
		wg.Go(func() {
			r, err := Open(t.Context(), path, WithClock(first))
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := r.Claim(t.Context(), cluster.Lease{Key: media.Key{App: "live", ID: "s"}, Node: "a", Session: 1}); err != nil {
				t.Error(err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r, err := Open(t.Context(), path, WithClock(first))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	l, err := r.Claim(t.Context(), cluster.Lease{Key: media.Key{App: "live", ID: "s"}, Node: "a", Session: 1})
	if err != nil || l.Epoch != 17 {
		t.Errorf("epoch %d, %v; want 17 after 16 claims", l.Epoch, err)
	}
}

// A program that keeps the file locked makes writes fail when their context ends, not
// five seconds later; reads go on.
func TestContextWhileLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sluice.db")
	r := open(t, path)
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), `BEGIN IMMEDIATE`); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	err = r.Join(ctx, cluster.Node{ID: "a", Session: 1})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("heartbeat while locked: %v", err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("heartbeat obeyed its context of 100ms after %v", took)
	}
	if _, err := r.Nodes(t.Context()); err != nil {
		t.Errorf("read while locked: %v", err)
	}

	wait := make(chan error, 1)
	go func() { wait <- r.Join(t.Context(), cluster.Node{ID: "a", Session: 1}) }()
	if _, err := conn.ExecContext(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if err := <-wait; err != nil {
		t.Errorf("heartbeat that waited for the lock: %v", err)
	}
}

// An open registry and its calls leave no goroutine behind.
func TestNoGoroutineLeaks(t *testing.T) {
	before := runtime.NumGoroutine()
	path := filepath.Join(t.TempDir(), "sluice.db")
	for range 5 {
		r, err := Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if _, err := r.Streams(ctx); err != nil {
			t.Error(err)
		}
		if err := r.Join(ctx, cluster.Node{ID: "a", Session: 1}); err != nil {
			t.Error(err)
		}
		cancel()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
