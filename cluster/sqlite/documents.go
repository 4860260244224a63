package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"sluice/cluster"
)

// documentColumns of a document, as scanDocument reads them.
const documentColumns = `kind, grp, id, name, state, at, version, changed, expires, body`

// living is the condition of documents that have not expired; ?1 is now.
const living = `(expires = 0 OR expires > ?1)`

func scanDocument(row interface{ Scan(...any) error }) (d cluster.Document, err error) {
	var at, changed, expires int64
	var body []byte
	err = row.Scan(&d.Kind, &d.Group, &d.ID, &d.Name, &d.State, &at, &d.Version, &changed, &expires, &body)
	d.At, d.Changed, d.Expires = cluster.FromMillis(at), cluster.FromMillis(changed), cluster.FromMillis(expires)
	d.Body = body
	return d, err
}

// Get implements cluster.Documents.
func (r *Registry) Get(ctx context.Context, kind, group, id string) (cluster.Document, error) {
	err := cluster.CheckDocumentKey(kind, group, id)
	var d cluster.Document
	if err == nil {
		d, err = scanDocument(r.lists.QueryRowContext(ctx, `SELECT `+documentColumns+` FROM documents
			WHERE `+living+` AND kind = ?2 AND grp = ?3 AND id = ?4`, cluster.Millis(r.now()), kind, group, id))
	}
	if errors.Is(err, sql.ErrNoRows) {
		err = cluster.ErrNoDocument
	}
	return d, wrap(err, "read %s %q", kind, id)
}

// create takes the place of a document that has expired.
const create = `
	INSERT INTO documents (kind, grp, id, name, sortname, haystack, state, at, version, changed, expires, body)
	VALUES (?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?1, ?11, ?12)
	ON CONFLICT (kind, grp, id) DO UPDATE SET name = excluded.name, sortname = excluded.sortname, haystack = excluded.haystack,
		state = excluded.state, at = excluded.at, version = max(version + 1, excluded.version), changed = excluded.changed,
		expires = excluded.expires, body = excluded.body
	WHERE NOT ` + living + `
	RETURNING version`

const replace = `
	UPDATE documents SET name = ?5, sortname = ?6, haystack = ?7, state = ?8, at = ?9, version = max(version + 1, ?10), changed = ?1,
		expires = ?11, body = ?12
	WHERE kind = ?2 AND grp = ?3 AND id = ?4 AND version = ?13 AND ` + living + `
	RETURNING version`

// Put implements cluster.Documents.
func (r *Registry) Put(ctx context.Context, d cluster.Document) (cluster.Document, error) {
	if err := d.Check(); err != nil {
		return d, wrap(err, "write %s %q", d.Kind, d.ID)
	}
	now := r.now()
	args := []any{cluster.Millis(now), d.Kind, d.Group, d.ID, d.Name, d.SortName(), d.Haystack(), d.State, cluster.Millis(d.At),
		cluster.NextVersion(0, now), cluster.Millis(d.Expires), string(d.Body)}
	text, refused := create, cluster.ErrExists
	if d.Version != 0 {
		text, refused, args = replace, cluster.ErrConflict, append(args, d.Version)
	}
	var version int64
	err := r.write.QueryRowContext(ctx, text, args...).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		err = refused
	}
	if err != nil {
		return d, wrap(err, "write %s %q", d.Kind, d.ID)
	}
	d.Version, d.Changed = version, cluster.FromMillis(cluster.Millis(now))
	return d, nil
}

// Delete implements cluster.Documents.
func (r *Registry) Delete(ctx context.Context, kind, group, id string, version int64) error {
	err := cluster.CheckDocumentKey(kind, group, id)
	deleted := false
	if err == nil {
		deleted, err = r.exec(ctx, `DELETE FROM documents WHERE `+living+` AND kind = ?2 AND grp = ?3 AND id = ?4 AND (?5 = 0 OR version = ?5)`,
			cluster.Millis(r.now()), kind, group, id, version)
	}
	if err == nil && !deleted {
		if _, err = r.Get(ctx, kind, group, id); err == nil {
			err = cluster.ErrConflict
		}
		return err
	}
	return wrap(err, "delete %s %q", kind, id)
}

// Find implements cluster.Documents. The page is found by what the indexes have before the bodies are read.
func (r *Registry) Find(ctx context.Context, q cluster.Query) ([]cluster.Document, int, error) {
	if err := q.Check(); err != nil {
		return nil, 0, err
	}
	where, args, err := r.where(q)
	if err != nil {
		return nil, 0, wrap(err, "find %s", q.Kind)
	}
	order := orderOf(q)
	list, err := query(ctx, r.lists, func(row *sql.Rows) (cluster.Document, bool, error) {
		d, err := scanDocument(row)
		return d, true, err
	}, `SELECT `+documentColumns+` FROM documents WHERE rowid IN (SELECT rowid FROM documents WHERE `+where+` ORDER BY `+order+
		` LIMIT ? OFFSET ?) ORDER BY `+order, append(slices.Clone(args), q.Limit, q.Offset)...)
	if err != nil {
		return nil, 0, wrap(err, "find %s", q.Kind)
	}
	total, known := q.Total(len(list))
	if !known {
		err = r.lists.QueryRowContext(ctx, `SELECT count(*) FROM documents WHERE `+where, args...).Scan(&total)
	}
	return list, total, wrap(err, "count %s", q.Kind)
}

func (r *Registry) where(q cluster.Query) (where string, args []any, err error) {
	terms, args := []string{living, `kind = ?2`}, []any{cluster.Millis(r.now()), q.Kind}
	and := func(term string, values ...any) {
		terms, args = append(terms, term), append(args, values...)
	}
	if !q.AllGroups {
		and(`grp = ?`, q.Group)
	}
	if q.IDs != nil {
		in, err := json.Marshal(q.IDs)
		if err != nil {
			return "", nil, err
		}
		and(`id IN (SELECT value FROM json_each(?))`, string(in))
	}
	if q.State != "" {
		and(`state = ?`, q.State)
	}
	if q.Search != "" {
		and(`instr(haystack, ?) > 0`, q.Needle())
	}
	if !q.From.IsZero() {
		and(`at >= ?`, cluster.Millis(q.From))
	}
	if !q.To.IsZero() {
		and(`at < ?`, cluster.Millis(q.To))
	}
	if !q.Since.IsZero() {
		and(`changed >= ?`, cluster.Millis(q.Since))
	}
	if q.After != nil {
		than := `>`
		if q.Desc {
			than = `<`
		}
		and(`(grp, id) `+than+` (?, ?)`, q.After.Group, q.After.ID)
	}
	return strings.Join(terms, ` AND `), args, nil
}

func orderOf(q cluster.Query) string {
	dir := ``
	if q.Desc {
		dir = ` DESC`
	}
	column := map[cluster.Sort]string{cluster.ByName: `sortname`, cluster.ByState: `state`, cluster.ByAt: `at`}[q.Sort]
	if column != `` {
		column += dir + `, `
	}
	return column + `grp` + dir + `, id` + dir
}

// Sweep implements cluster.Documents.
func (r *Registry) Sweep(ctx context.Context) (int, error) {
	res, err := r.write.ExecContext(ctx, `DELETE FROM documents WHERE expires > 0 AND expires <= ?`, cluster.Millis(r.now()))
	if err != nil {
		return 0, wrap(err, "delete expired documents")
	}
	n, err := res.RowsAffected()
	return int(n), err
}

// Notify implements cluster.Documents.
func (r *Registry) Notify(ctx context.Context, kinds ...string) error {
	list, err := json.Marshal(kinds)
	if err == nil {
		_, err = r.exec(ctx, `INSERT INTO revisions (kind, revision) SELECT value, 1 FROM json_each(?) WHERE true
			ON CONFLICT (kind) DO UPDATE SET revision = revision + 1`, string(list))
	}
	if err == nil {
		r.revisions.Noticed(kinds)
	}
	return wrap(err, "notify of %s", strings.Join(kinds, ", "))
}

// Revision implements cluster.Documents.
func (r *Registry) Revision(kind string) int64 { return r.revisions.Of(kind) }

// beat is a heartbeat's write, whose answer brings the notices.
func (r *Registry) beat(ctx context.Context, n cluster.Node, row, carried string) (wrote bool, err error) {
	var text []byte
	err = r.write.QueryRowContext(ctx, `UPDATE nodes SET heartbeat = ?, row = ?, role = ?, carries = ? WHERE id = ? AND session = ? AND fenced = 0
		RETURNING (SELECT json_group_object(kind, revision) FROM revisions)`, r.now().UnixNano(), row, string(n.Role), carried, n.ID, n.Session).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	revisions := map[string]int64{}
	if err == nil {
		err = json.Unmarshal(text, &revisions)
	}
	if err == nil {
		r.revisions.Learn(revisions)
	}
	return err == nil, err
}
