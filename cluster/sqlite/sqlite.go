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
	"log/slog"
	"sync/atomic"
	"time"

	"sluice/cluster"
	"sluice/media"
)

// readers is how many reads one process does at a time; with WAL they wait for no writer.
const readers = 4

// Registry is a cluster.Store. Each of its statements is a
// transaction of its own: no process can hold the file locked while it does something else, or is paused.
type Registry struct {
	now   func() time.Time
	write *sql.DB // one connection: writers of one process queue in Go, not in SQLite's polling
	read  *sql.DB
	lists *sql.DB // of documents: who looks at long lists keeps nobody waiting who looks for a stream
	log   *slog.Logger
	bad   *cluster.BadRows

	revisions cluster.Revisions

	forgot atomic.Int64 // when rows were looked for that are gone for good, in Unix nanoseconds
}

var _ cluster.Store = (*Registry)(nil)

// Option changes how Open works.
type Option func(*Registry)

// WithClock replaces time.Now. All processes that share a file must agree on the time.
func WithClock(now func() time.Time) Option { return func(r *Registry) { r.now = now } }

// WithLog says where rows are told of that can't be read.
func WithLog(log *slog.Logger) Option { return func(r *Registry) { r.log = log } }

// Open opens the registry at path, and creates it when there is no such file. The
// directory must exist and be writable: SQLite keeps two more files next to this one.
func Open(ctx context.Context, path string, options ...Option) (*Registry, error) {
	r := &Registry{now: time.Now}
	for _, o := range options {
		o(r)
	}
	r.bad = cluster.NewBadRows(r.log)
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
	if r.lists, err = connect(path, readers, "query_only(1)"); err != nil {
		return nil, errors.Join(fmt.Errorf("open registry %q: %w", path, err), r.read.Close(), r.write.Close())
	}
	return r, nil
}

// Close ends all connections; calls after it fail.
func (r *Registry) Close() error {
	return errors.Join(r.lists.Close(), r.read.Close(), r.write.Close())
}

// sameProcess is true when a process joins that has the row already: then orders stay.
const sameProcess = `?5 AND iif(json_valid(row), json_extract(row, '$.PID') = json_extract(excluded.row, '$.PID')
	AND json_extract(row, '$.Host') = json_extract(excluded.row, '$.Host')
	AND json_extract(row, '$.Started') = json_extract(excluded.row, '$.Started'), 0)`

// Join implements cluster.Registry.
func (r *Registry) Join(ctx context.Context, n cluster.Node) error {
	row, carried, err := rowOf(n)
	if err == nil {
		_, err = r.write.ExecContext(ctx, `
			INSERT INTO nodes (id, session, heartbeat, row, role, carries) VALUES (?1, ?2, ?3, ?4, ?6, ?7)
			ON CONFLICT (id) DO UPDATE SET session = excluded.session, heartbeat = excluded.heartbeat, row = excluded.row,
				role = excluded.role, carries = excluded.carries,
				fenced = 0, drain = iif(`+sameProcess+`, drain, 0), deadline = iif(`+sameProcess+`, deadline, 0)`,
			n.ID, n.Session, r.now().UnixNano(), row, n.Process() != "", string(n.Role), carried)
	}
	if err == nil {
		r.revisions.Joined()
		_ = r.forget(ctx) // the next who joins does it
	}
	return wrap(err, "join as node %q", n.ID)
}

// carries is what only gateways read of a node.
type carries struct {
	Serving []cluster.Serving `json:",omitempty"`
	Backups []media.Key       `json:",omitempty"`
}

// rowOf is what a node says of itself, as JSON, and apart from it what only gateways read.
func rowOf(n cluster.Node) (row, carried string, err error) {
	if err := n.Check(); err != nil {
		return "", "", err
	}
	c, err := json.Marshal(carries{n.Serving, n.Backups})
	if err != nil {
		return "", "", err
	}
	n.LastHeartbeat, n.Fenced, n.Order, n.Serving, n.Backups = time.Time{}, false, cluster.Order{}, nil, nil // these are columns
	b, err := json.Marshal(n)
	return string(b), string(c), err
}

// Heartbeat implements cluster.Registry.
func (r *Registry) Heartbeat(ctx context.Context, n cluster.Node) error {
	row, carried, err := rowOf(n)
	if err != nil {
		return wrap(err, "heartbeat of node %q", n.ID)
	}
	wrote, err := r.beat(ctx, n, row, carried)
	if err == nil && !wrote {
		err = r.whyNot(ctx, n)
	}
	if err == nil && r.now().UnixNano()-r.forgot.Load() >= int64(cluster.ForgetEvery) {
		_ = r.forget(ctx) // the next one does it
	}
	return wrap(err, "heartbeat of node %q", n.ID)
}

// whyNot says why a heartbeat was refused.
func (r *Registry) whyNot(ctx context.Context, n cluster.Node) error {
	var session int64
	switch err := r.read.QueryRowContext(ctx, `SELECT session FROM nodes WHERE id = ?`, n.ID).Scan(&session); {
	case err != nil && !errors.Is(err, sql.ErrNoRows):
		return err
	case err == nil && session != n.Session:
		return cluster.ErrReplaced
	}
	return cluster.ErrFenced
}

// Leave implements cluster.Registry.
func (r *Registry) Leave(ctx context.Context, id string, session int64) error {
	_, err := r.exec(ctx, `DELETE FROM nodes WHERE id = ? AND session = ?`, id, session)
	return wrap(err, "remove node %q", id)
}

// Nodes implements cluster.Registry.
func (r *Registry) Nodes(ctx context.Context) ([]cluster.Node, error) {
	list, err := query(ctx, r.read, r.scanNode, `SELECT id, heartbeat, fenced, drain, deadline, row, carries FROM nodes ORDER BY id`)
	return list, wrap(err, "list nodes")
}

// Peers implements cluster.Registry.
func (r *Registry) Peers(ctx context.Context, self string) ([]cluster.Node, error) {
	list, err := query(ctx, r.read, r.scanNode, `SELECT id, heartbeat, fenced, drain, deadline, row, '{}' FROM nodes
		WHERE ?1 = '' OR role <> 'edge' OR id = ?1 ORDER BY id`, self)
	return list, wrap(err, "list nodes")
}

// Viewers implements cluster.Registry.
func (r *Registry) Viewers(ctx context.Context, keys ...media.Key) (map[media.Key]int, error) {
	in, err := names(keys)
	if err != nil {
		return nil, fmt.Errorf("count viewers: %w", err)
	}
	type sum struct {
		stream  string
		viewers int
	}
	sums, err := query(ctx, r.read, func(row *sql.Rows) (s sum, good bool, err error) {
		err = row.Scan(&s.stream, &s.viewers)
		return s, true, err
	}, `SELECT json_extract(s.value, '$.Stream') AS stream, sum(json_extract(s.value, '$.Viewers')) FROM nodes n, json_each(n.carries, '$.Serving') s
		WHERE n.fenced = 0 AND n.heartbeat > ?1 AND stream IN (SELECT value FROM json_each(?2)) GROUP BY stream`,
		r.now().Add(-cluster.DeadAfter).UnixNano(), in)
	viewers := map[media.Key]int{}
	for _, s := range sums {
		if key, bad := media.ParseKey(s.stream); bad == nil {
			viewers[key] = s.viewers
		}
	}
	return viewers, wrap(err, "count the viewers of %d streams", len(keys))
}

func (r *Registry) scanNode(row *sql.Rows) (n cluster.Node, good bool, err error) {
	var id string
	var heartbeat, deadline int64
	var text, carried []byte
	if err = row.Scan(&id, &heartbeat, &n.Fenced, &n.Order.Drain, &deadline, &text, &carried); err != nil {
		return n, false, err
	}
	fenced, order := n.Fenced, n.Order
	var c carries
	why := json.Unmarshal(text, &n)
	if why == nil {
		why = json.Unmarshal(carried, &c)
	}
	if why != nil {
		r.bad.Skip("node "+id, n.Version, why)
	}
	n.Fenced, n.Order, n.Serving, n.Backups = fenced, order, c.Serving, c.Backups
	n.LastHeartbeat = time.Unix(0, heartbeat)
	if deadline != 0 {
		n.Order.Deadline = time.Unix(0, deadline)
	}
	return n, why == nil, nil
}

// Order implements cluster.Registry.
func (r *Registry) Order(ctx context.Context, id string, o cluster.Order) error {
	deadline := int64(0)
	if !o.Deadline.IsZero() {
		deadline = o.Deadline.UnixNano()
	}
	found, err := r.exec(ctx, `UPDATE nodes SET drain = ?, deadline = ? WHERE id = ?`, o.Drain, deadline, id)
	if err == nil && !found {
		err = cluster.ErrNoNode
	}
	return wrap(err, "order to node %q", id)
}

// claim is one statement, so that of several claims exactly one sees the row as it was.
const claim = `
	INSERT INTO streams (key, backup, state, origin, session, epoch, codecs, started, changed)
	VALUES (?1, ?2, 'broadcasting', ?3, ?4, ?6, '[]', ?5, ?5)
	ON CONFLICT (key, backup) DO UPDATE SET
		changed = excluded.changed, state = excluded.state, origin = excluded.origin, session = excluded.session, epoch = max(epoch + 1, excluded.epoch), codecs = excluded.codecs,
		started = CASE WHEN state IN ('interrupted', 'leaving') THEN started ELSE excluded.started END
	WHERE state <> 'broadcasting' OR session = excluded.session
		OR NOT EXISTS (SELECT 1 FROM nodes n WHERE n.id = streams.origin AND n.session = streams.session AND n.fenced = 0)
	RETURNING epoch`

// fence makes the session void that holds a stream, if its heartbeat is old.
const fence = `
	UPDATE nodes SET fenced = 1 WHERE fenced = 0 AND heartbeat <= ?3
		AND (id, session) IN (SELECT origin, session FROM streams WHERE key = ?1 AND backup = ?2 AND state = 'broadcasting')`

// Claim implements cluster.Registry. Its statements need no transaction: a session that is void stays void.
func (r *Registry) Claim(ctx context.Context, l cluster.Lease) (cluster.Lease, error) {
	if err := cluster.CheckClaim(l); err != nil {
		return cluster.Lease{}, err
	}
	key, now := l.Key.String(), r.now()
	take := func() error {
		return r.write.QueryRowContext(ctx, claim, key, l.Backup, l.Node, l.Session, now.UnixNano(), cluster.NextEpoch(0, now)).Scan(&l.Epoch)
	}
	err := take()
	if errors.Is(err, sql.ErrNoRows) {
		var fenced bool
		if fenced, err = r.exec(ctx, fence, key, l.Backup, now.Add(-cluster.SessionTTL).UnixNano()); err == nil && fenced {
			err = take()
		} else if err == nil {
			err = sql.ErrNoRows
		}
	}
	if errors.Is(err, sql.ErrNoRows) {
		return cluster.Lease{}, r.inUse(ctx, l)
	}
	if err != nil {
		return cluster.Lease{}, fmt.Errorf("claim stream %q: %w", l.Key, err)
	}
	return l, nil
}

// inUse says who holds a stream; nobody any more is no news, as the next claim tells.
func (r *Registry) inUse(ctx context.Context, l cluster.Lease) error {
	e := &cluster.InUse{Key: l.Key}
	var heartbeat int64
	err := r.read.QueryRowContext(ctx, `
		SELECT s.origin, n.heartbeat FROM streams s JOIN nodes n ON n.id = s.origin AND n.session = s.session
		WHERE s.key = ? AND s.backup = ?`, l.Key.String(), l.Backup).Scan(&e.Origin, &heartbeat)
	switch {
	case err == nil:
		e.Until = time.Unix(0, heartbeat).Add(cluster.SessionTTL)
	case !errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("claim stream %q: %w", l.Key, err)
	}
	return e
}

// resume writes a row anew that is not there or is older than the lease.
const resume = `
	INSERT INTO streams (key, backup, state, origin, session, epoch, codecs, started, changed)
	VALUES (?1, ?2, 'broadcasting', ?3, ?4, ?5, '[]', ?6, ?6)
	ON CONFLICT (key, backup) DO UPDATE SET
		state = iif(epoch < ?8, excluded.state, state), codecs = iif(epoch < ?8, excluded.codecs, codecs),
		started = iif(epoch < ?8, excluded.started, started),
		origin = excluded.origin, session = excluded.session, epoch = excluded.epoch, changed = excluded.changed
	WHERE epoch < ?8 OR state <> 'finished' AND origin = excluded.origin
		AND (session = ?7 AND epoch = ?8 OR session = excluded.session AND epoch = excluded.epoch)`

// Resume implements cluster.Registry.
func (r *Registry) Resume(ctx context.Context, l cluster.Lease, session int64) (cluster.Lease, error) {
	next := l
	next.Session, next.Epoch = session, l.Epoch+1
	if err := cluster.CheckClaim(next); err != nil {
		return cluster.Lease{}, err
	}
	resumed, err := r.exec(ctx, resume, l.Key.String(), l.Backup, l.Node, next.Session, next.Epoch, r.now().UnixNano(), l.Session, l.Epoch)
	if err == nil && !resumed {
		err = cluster.ErrLeaseLost
	}
	if err != nil {
		return cluster.Lease{}, fmt.Errorf("resume stream %q, epoch %d: %w", l.Key, l.Epoch, err)
	}
	return next, nil
}

// Report implements cluster.Registry.
func (r *Registry) Report(ctx context.Context, l cluster.Lease, info cluster.StreamInfo) error {
	if err := cluster.CheckReport(l, info); err != nil {
		return err
	}
	codecs, err := json.Marshal(info.Codecs)
	if err != nil {
		return fmt.Errorf("report stream %q: %w", l.Key, err)
	}
	return r.change(ctx, "report", l, `state = ?, codecs = ?`, string(info.State), string(codecs))
}

// Release implements cluster.Registry.
func (r *Registry) Release(ctx context.Context, l cluster.Lease) error {
	return r.change(ctx, "release", l, `state = 'finished'`)
}

// change sets columns of a stream whose lease is held.
func (r *Registry) change(ctx context.Context, verb string, l cluster.Lease, set string, args ...any) error {
	held, err := r.exec(ctx,
		`UPDATE streams SET `+set+`, changed = ? WHERE key = ? AND backup = ? AND epoch = ? AND origin = ? AND session = ? AND state <> 'finished'`,
		append(args, r.now().UnixNano(), l.Key.String(), l.Backup, l.Epoch, l.Node, l.Session)...)
	if err == nil && !held {
		err = cluster.ErrLeaseLost
	}
	return wrap(err, "%s stream %q, epoch %d", verb, l.Key, l.Epoch)
}

// exec reports whether a statement has changed anything.
func (r *Registry) exec(ctx context.Context, text string, args ...any) (changed bool, err error) {
	res, err := r.write.ExecContext(ctx, text, args...)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// columns of a stream, as scanStream reads them.
const columns = `key, backup, state, origin, session, epoch, codecs, started`

func (r *Registry) scanStream(row *sql.Rows) (s cluster.Stream, good bool, err error) {
	var key string
	var codecs []byte
	var started int64
	if err = row.Scan(&key, &s.Backup, &s.State, &s.Origin, &s.Session, &s.Epoch, &codecs, &started); err != nil {
		return s, false, err
	}
	s.Started = time.Unix(0, started)
	var why error
	if s.Key, why = media.ParseKey(key); why == nil {
		why = json.Unmarshal(codecs, &s.Codecs)
	}
	if why != nil {
		r.bad.Skip("stream "+key, "", why)
	}
	return s, why == nil, nil
}

// Lookup implements cluster.Registry.
func (r *Registry) Lookup(ctx context.Context, keys ...media.Key) ([]cluster.Stream, error) {
	in, err := names(keys)
	if err != nil {
		return nil, fmt.Errorf("look up streams: %w", err)
	}
	list, err := query(ctx, r.read, r.scanStream,
		`SELECT `+columns+` FROM streams WHERE key IN (SELECT value FROM json_each(?))`, in)
	return list, wrap(err, "look up %d streams", len(keys))
}

// names is one parameter for all keys: a list of parameters has a limit.
func names(keys []media.Key) (string, error) {
	list := make([]string, len(keys)) // not key's own JSON: that refuses what no stream can be called
	for i, k := range keys {
		list[i] = k.String()
	}
	b, err := json.Marshal(list)
	return string(b), err
}

// Streams implements cluster.Registry.
func (r *Registry) Streams(ctx context.Context) ([]cluster.Stream, error) {
	list, err := query(ctx, r.read, r.scanStream, `SELECT `+columns+` FROM streams WHERE state <> 'finished' ORDER BY key, backup`)
	return list, wrap(err, "list streams")
}

// Now implements cluster.Registry: the machine's clock.
func (r *Registry) Now() time.Time { return r.now() }

// query reads all rows; scan says which of them are good.
func query[T any](ctx context.Context, db *sql.DB, scan func(*sql.Rows) (T, bool, error), text string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // rows.Err has said it already
	var list []T
	for rows.Next() {
		v, good, err := scan(rows)
		if err != nil {
			return nil, err
		}
		if good {
			list = append(list, v)
		}
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
