package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	driver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// applicationID marks the file as a Sluice registry: "SLUC" (https://sqlite.org/fileformat2.html §1.3.17).
const applicationID = 0x534c5543

// migrations brings a file from each schema version to the next; the last one is ours.
// Steps are only ever added.
var migrations = [...]string{
	`CREATE TABLE nodes (
		id        TEXT PRIMARY KEY,
		heartbeat INTEGER NOT NULL, -- Unix nanoseconds, as all times here
		row       TEXT NOT NULL     -- cluster.Node as JSON
	) WITHOUT ROWID;
	CREATE TABLE streams (
		key         TEXT PRIMARY KEY, -- app/id
		state       TEXT NOT NULL,
		origin      TEXT NOT NULL,
		epoch       INTEGER NOT NULL, -- never goes back: rows are not deleted
		codecs      TEXT NOT NULL,    -- JSON array
		started     INTEGER NOT NULL,
		lease_until INTEGER NOT NULL
	) WITHOUT ROWID;
	CREATE INDEX streams_by_lease ON streams (lease_until);`,
	// Streams are held by their node's session. Of an older file only the epochs are of use: who wrote it has
	// to be stopped before, and can't write any more.
	`DROP TABLE nodes;
	CREATE TABLE nodes (
		id        TEXT PRIMARY KEY,
		session   INTEGER NOT NULL,
		heartbeat INTEGER NOT NULL,
		fenced    INTEGER NOT NULL DEFAULT 0, -- the session is void
		drain     INTEGER NOT NULL DEFAULT 0, -- cluster.Order
		deadline  INTEGER NOT NULL DEFAULT 0, -- 0: none
		row       TEXT NOT NULL               -- the rest of cluster.Node as JSON
	) WITHOUT ROWID;
	DROP INDEX streams_by_lease;
	ALTER TABLE streams RENAME TO leases;
	CREATE TABLE streams (
		key     TEXT NOT NULL, -- app/id
		backup  INTEGER NOT NULL,
		state   TEXT NOT NULL,
		origin  TEXT NOT NULL,
		session INTEGER NOT NULL,
		epoch   INTEGER NOT NULL, -- never goes back: rows are not deleted
		codecs  TEXT NOT NULL,    -- JSON array
		started INTEGER NOT NULL,
		PRIMARY KEY (key, backup)
	) WITHOUT ROWID;
	INSERT INTO streams SELECT key, 0, 'finished', origin, 0, epoch, codecs, started FROM leases;
	DROP TABLE leases;
	CREATE INDEX streams_alive ON streams (key, backup) WHERE state <> 'finished';`,
	`CREATE TABLE documents (
		kind     TEXT NOT NULL,
		grp      TEXT NOT NULL,
		id       TEXT NOT NULL,
		name     TEXT NOT NULL,
		sortname TEXT NOT NULL,    -- cluster.Document.SortName
		haystack TEXT NOT NULL,    -- cluster.Document.Haystack
		state    TEXT NOT NULL,
		at       INTEGER NOT NULL, -- Unix milliseconds, as all times here; 0: none
		version  INTEGER NOT NULL,
		changed  INTEGER NOT NULL,
		expires  INTEGER NOT NULL, -- 0: never
		body     TEXT NOT NULL,    -- JSON
		PRIMARY KEY (kind, grp, id)
	);
	-- Pages are found in these without reading bodies.
	CREATE INDEX documents_by_id ON documents (kind, grp, id, expires, state, haystack);
	CREATE INDEX documents_by_at ON documents (kind, grp, at, id, expires);
	CREATE INDEX documents_by_name ON documents (kind, grp, sortname, id, expires);
	CREATE INDEX documents_by_state ON documents (kind, grp, state, id, expires);
	CREATE INDEX documents_by_changed ON documents (kind, changed);
	CREATE INDEX documents_by_expires ON documents (expires) WHERE expires > 0;
	CREATE TABLE revisions (
		kind     TEXT PRIMARY KEY,
		revision INTEGER NOT NULL -- of notices of documents of that kind
	) WITHOUT ROWID;`,
	// What only gateways read of a node is apart from what nodes read of each other.
	`ALTER TABLE nodes ADD COLUMN role TEXT NOT NULL DEFAULT '';
	ALTER TABLE nodes ADD COLUMN carries TEXT NOT NULL DEFAULT '{}'; -- Serving and Backups of cluster.Node as JSON`,
	// When a row was written last: rows that nobody holds go after a while. Their epochs come from the clock and grow all the same.
	`ALTER TABLE streams ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;`,
}

// busyWait is how long SQLite waits for another process's write, in milliseconds. Each
// write takes well under one; the driver ends the wait when the context does.
const busyWait = 5000

// dsn names the file to the driver; synchronous=NORMAL is safe against dying processes, and
// after a power failure all leases are void anyway.
func dsn(path string, pragmas ...string) string {
	q := url.Values{"_pragma": {fmt.Sprintf("busy_timeout(%d)", busyWait), "synchronous(NORMAL)"}}
	q["_pragma"] = append(q["_pragma"], pragmas...)
	escape := strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23")
	return "file:" + escape.Replace(filepath.Clean(path)) + "?" + q.Encode()
}

func connect(path string, connections int, pragmas ...string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", dsn(path, pragmas...))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// prepare makes sure that the file is a registry of our schema, in WAL mode.
func prepare(ctx context.Context, path string) (err error) {
	if path == "" || path == ":memory:" {
		return errors.New("a registry is a file that processes share: give its path")
	}
	db, err := connect(path, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return explain(err, path)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := migrate(ctx, conn); err != nil {
		return explain(err, path)
	}
	return explain(walMode(ctx, conn), path)
}

// migrate checks whose file it is before anything in it is changed.
func migrate(ctx context.Context, conn *sql.Conn) (err error) {
	// IMMEDIATE: of several processes that find no schema, one creates it and the others wait.
	if _, err = conn.ExecContext(ctx, `BEGIN IMMEDIATE`); err != nil {
		return err
	}
	end := `ROLLBACK`
	defer func() {
		_, endErr := conn.ExecContext(context.WithoutCancel(ctx), end)
		err = errors.Join(err, endErr)
	}()
	var id, version, tables int
	for what, into := range map[string]*int{
		`PRAGMA application_id`:              &id,
		`PRAGMA user_version`:                &version,
		`SELECT count(*) FROM sqlite_schema`: &tables,
	} {
		if err := conn.QueryRowContext(ctx, what).Scan(into); err != nil {
			return err
		}
	}
	switch {
	case id != applicationID && (tables > 0 || id != 0 || version != 0):
		return errors.New("this is another program's SQLite file: give another path")
	case version > len(migrations):
		return fmt.Errorf("a newer Sluice wrote it (schema %d, this one knows %d): use that version or another path", version, len(migrations))
	case version == len(migrations):
		return nil
	}
	for _, step := range migrations[version:] {
		if _, err := conn.ExecContext(ctx, step); err != nil {
			return fmt.Errorf("migrate from schema %d: %w", version, err)
		}
	}
	mark := fmt.Sprintf(`PRAGMA application_id = %d; PRAGMA user_version = %d`, applicationID, len(migrations))
	if _, err := conn.ExecContext(ctx, mark); err != nil {
		return err
	}
	end = `COMMIT`
	return nil
}

// walMode switches the file to a write-ahead log, once for its life. For that SQLite needs the file alone for a
// moment, and does not wait for it, so we do.
func walMode(ctx context.Context, conn *sql.Conn) error {
	deadline := time.Now().Add(busyWait * time.Millisecond)
	for {
		var mode string
		err := conn.QueryRowContext(ctx, `PRAGMA journal_mode = WAL`).Scan(&mode)
		switch {
		case err == nil && mode == "wal":
			return nil
		case err == nil:
			return fmt.Errorf("no write-ahead log here (journal mode %q): put the file on a local disk", mode)
		case code(err) != sqlite3.SQLITE_BUSY || time.Now().After(deadline):
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// code is SQLite's primary result code of an error, or 0.
func code(err error) int {
	var e *driver.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff // the rest is detail: https://sqlite.org/rescode.html §2
	}
	return 0
}

// explain adds what the operator can do.
func explain(err error, path string) error {
	switch code(err) {
	case sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("this is no SQLite file, give another path: %w", err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		return fmt.Errorf("the file or its directory is not writable, change its permissions or give another path: %w", err)
	case sqlite3.SQLITE_BUSY:
		return fmt.Errorf("another program keeps the file locked, end it or give another path: %w", err)
	case sqlite3.SQLITE_CANTOPEN:
		hint := "the file or its directory is not writable, change its permissions or give another path"
		dir := filepath.Dir(path)
		if st, statErr := os.Stat(dir); statErr != nil || !st.IsDir() {
			hint = fmt.Sprintf("there is no directory %q, create it or give another path", dir)
		} else if st, statErr := os.Stat(path); statErr == nil && st.IsDir() {
			hint = "this is a directory, give a file in it"
		}
		return fmt.Errorf("%s: %w", hint, err)
	}
	return err
}
