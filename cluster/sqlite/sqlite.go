// Package sqlite is the cluster's registry in one SQLite file, which all processes of one machine share.
//
// Imports: media, cluster.
package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sluice/cluster"
	"sluice/media"
)

// readers is how many reads one process does at a time; with WAL they wait for no writer.
const readers = 4

// Registry is a cluster.Registry. Each of its calls is one statement and one
// transaction: no process can hold the file locked while it does something else.
type Registry struct {
	now   func() time.Time
	write *sql.DB // one connection: writers of one process queue in Go, not in SQLite's polling
	read  *sql.DB
}

var _ cluster.Registry = (*Registry)(nil)

// Option changes how Open works.
type Option func(*Registry)

// WithClock replaces time.Now. All processes that share a file must agree on the time.
func WithClock(now func() time.Time) Option { return func(r *Registry) { r.now = now } }

// Open opens the registry at path, and creates it when there is no such file. The
// directory must exist and be writable: SQLite keeps two more files next to this one.
func Open(ctx context.Context, path string, options ...Option) (*Registry, error) {
	r := &Registry{now: time.Now}
	for _, o := range options {
		o(r)
	}
	if err := prepare(ctx, path); err != nil {
		return nil, fmt.Errorf("open registry %q: %w", path, err)
	}
	var err error
	if r.write, err = connect(path, 1); err != nil {
		return nil, fmt.Errorf("open registry %q: %w", path, err)
	}
	if r.read, err = connect(path, readers, "query_only(1)"); err != nil {
		return nil, errors.Join(fmt.Errorf("open registry %q: %w", path, err), r.write.Close())
	}
	return r, nil
}

// Close ends all connections; calls after it fail.
func (r *Registry) Close() error { return errors.Join(r.read.Close(), r.write.Close()) }

// Heartbeat implements cluster.Registry.
func (r *Registry) Heartbeat(ctx context.Context, n cluster.Node) error {
	if err := n.Check(); err != nil {
		return err
	}
	row, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("heartbeat of node %q: %w", n.ID, err)
	}
	_, err = r.write.ExecContext(ctx, `
		INSERT INTO nodes (id, heartbeat, row) VALUES (?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET heartbeat = excluded.heartbeat, row = excluded.row`,
		n.ID, r.now().UnixNano(), string(row))
	return wrap(err, "heartbeat of node %q", n.ID)
}

// RemoveNode implements cluster.Registry.
func (r *Registry) RemoveNode(ctx context.Context, id string) error {
	_, err := r.write.ExecContext(ctx, `DELETE FROM nodes WHERE id = ?`, id)
	return wrap(err, "remove node %q", id)
}

// Nodes implements cluster.Registry.
func (r *Registry) Nodes(ctx context.Context) ([]cluster.Node, error) {
	list, err := query(ctx, r.read, func(row *sql.Rows) (n cluster.Node, err error) {
		var heartbeat int64
		var text []byte
		if err = row.Scan(&heartbeat, &text); err == nil {
			err = json.Unmarshal(text, &n)
		}
		n.LastHeartbeat = time.Unix(0, heartbeat)
		return n, err
	}, `SELECT heartbeat, row FROM nodes ORDER BY id`)
	return list, wrap(err, "list nodes")
}

// Claim implements cluster.Registry.
func (r *Registry) Claim(ctx context.Context, key media.Key, node string, ttl time.Duration) (cluster.Lease, error) {
	if err := cluster.CheckClaim(key, node, ttl); err != nil {
		return cluster.Lease{}, err
	}
	now := r.now()
	lease := cluster.Lease{Key: key, Node: node}
	// One statement, so that of several claims exactly one sees the row as it was.
	err := r.write.QueryRowContext(ctx, `
		INSERT INTO streams (key, state, origin, epoch, codecs, started, lease_until)
		VALUES (?1, 'broadcasting', ?2, 1, '[]', ?3, ?4)
		ON CONFLICT (key) DO UPDATE SET
			state = excluded.state, origin = excluded.origin, epoch = epoch + 1, codecs = excluded.codecs,
			started = CASE WHEN state <> 'finished' AND lease_until > ?3 THEN started ELSE ?3 END,
			lease_until = excluded.lease_until
		WHERE state <> 'broadcasting' OR lease_until <= ?3 OR origin = excluded.origin
		RETURNING epoch`,
		key.String(), node, now.UnixNano(), now.Add(ttl).UnixNano()).Scan(&lease.Epoch)
	if errors.Is(err, sql.ErrNoRows) {
		err = cluster.ErrStreamInUse
	}
	if err != nil {
		return cluster.Lease{}, fmt.Errorf("claim stream %q: %w", key, err)
	}
	return lease, nil
}

// Renew implements cluster.Registry.
func (r *Registry) Renew(ctx context.Context, l cluster.Lease, info cluster.StreamInfo, ttl time.Duration) error {
	if err := cluster.CheckRenew(l, info, ttl); err != nil {
		return err
	}
	codecs, err := json.Marshal(info.Codecs)
	if err != nil {
		return fmt.Errorf("renew stream %q: %w", l.Key, err)
	}
	return r.change(ctx, "renew", l, `state = ?, codecs = ?, lease_until = ?`,
		string(info.State), string(codecs), r.now().Add(ttl).UnixNano())
}

// Release implements cluster.Registry.
func (r *Registry) Release(ctx context.Context, l cluster.Lease) error {
	return r.change(ctx, "release", l, `state = 'finished', lease_until = ?`, r.now().UnixNano())
}

// change sets columns of a stream whose lease is held.
func (r *Registry) change(ctx context.Context, verb string, l cluster.Lease, set string, args ...any) error {
	res, err := r.write.ExecContext(ctx,
		`UPDATE streams SET `+set+` WHERE key = ? AND epoch = ? AND origin = ? AND state <> 'finished'`,
		append(args, l.Key.String(), l.Epoch, l.Node)...)
	var n int64
	if err == nil {
		n, err = res.RowsAffected()
	}
	if err == nil && n == 0 {
		err = cluster.ErrLeaseLost
	}
	return wrap(err, "%s stream %q, epoch %d", verb, l.Key, l.Epoch)
}

// columns of a stream, as scanStream reads them. A lease that ran out reads as finished.
const columns = `key, CASE WHEN lease_until > ? THEN state ELSE 'finished' END, origin, epoch, codecs, started, lease_until`

func scanStream(row *sql.Rows) (s cluster.Stream, err error) {
	var key string
	var codecs []byte
	var started, until int64
	if err = row.Scan(&key, &s.State, &s.Origin, &s.Epoch, &codecs, &started, &until); err != nil {
		return s, err
	}
	s.Started, s.LeaseUntil = time.Unix(0, started), time.Unix(0, until)
	if s.Key, err = media.ParseKey(key); err != nil {
		return s, err
	}
	return s, json.Unmarshal(codecs, &s.Codecs)
}

// Lookup implements cluster.Registry.
func (r *Registry) Lookup(ctx context.Context, keys ...media.Key) ([]cluster.Stream, error) {
	names := make([]string, len(keys)) // not key's own JSON: that refuses what no stream can be called
	for i, k := range keys {
		names[i] = k.String()
	}
	in, err := json.Marshal(names)
	if err != nil {
		return nil, fmt.Errorf("look up streams: %w", err)
	}
	// One parameter for all keys: a list of parameters has a limit.
	list, err := query(ctx, r.read, scanStream,
		`SELECT `+columns+` FROM streams WHERE key IN (SELECT value FROM json_each(?))`, r.now().UnixNano(), string(in))
	return list, wrap(err, "look up %d streams", len(keys))
}

// Streams implements cluster.Registry.
func (r *Registry) Streams(ctx context.Context) ([]cluster.Stream, error) {
	now := r.now().UnixNano()
	list, err := query(ctx, r.read, scanStream,
		`SELECT `+columns+` FROM streams WHERE lease_until > ? AND state <> 'finished' ORDER BY key`, now, now)
	return list, wrap(err, "list streams")
}

// query reads all rows.
func query[T any](ctx context.Context, db *sql.DB, scan func(*sql.Rows) (T, error), text string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // rows.Err has said it already
	var list []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}

// wrap says what failed.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}
