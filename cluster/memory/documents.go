package memory

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"sluice/cluster"
)

// document is the key of one.
type document struct{ kind, group, id string }

// livingLocked returns a document that is there and has not expired.
func (s *Store) livingLocked(at document) (cluster.Document, bool) {
	d, ok := s.documents[at]
	if ok && !d.Expires.IsZero() && !d.Expires.After(s.now()) {
		return cluster.Document{}, false
	}
	d.Body = bytes.Clone(d.Body)
	return d, ok
}

// Get implements cluster.Documents.
func (r *Registry) Get(ctx context.Context, kind, group, id string) (d cluster.Document, err error) {
	if err := cluster.CheckDocumentKey(kind, group, id); err != nil {
		return d, err
	}
	r.call("Get")
	found := false
	err = r.step(ctx, func() { d, found = r.store.livingLocked(document{kind, group, id}) })
	if err == nil && !found {
		return d, fmt.Errorf("read %s %q: %w", kind, id, cluster.ErrNoDocument)
	}
	return d, err
}

// Put implements cluster.Documents.
func (r *Registry) Put(ctx context.Context, d cluster.Document) (cluster.Document, error) {
	if err := d.Check(); err != nil {
		return d, err
	}
	r.call("Put")
	var refused error
	written := d
	err := r.step(ctx, func() {
		at, now := document{d.Kind, d.Group, d.ID}, r.store.now()
		before, found := r.store.livingLocked(at)
		switch {
		case d.Version == 0 && found:
			refused = cluster.ErrExists
		case d.Version != 0 && (!found || before.Version != d.Version):
			refused = cluster.ErrConflict
		default:
			written.Version = cluster.NextVersion(r.store.documents[at].Version, now)
			written.Changed = cluster.FromMillis(cluster.Millis(now))
			kept := written
			kept.Body = bytes.Clone(d.Body)
			kept.At, kept.Expires = cluster.FromMillis(cluster.Millis(d.At)), cluster.FromMillis(cluster.Millis(d.Expires))
			r.store.documents[at] = kept
		}
	})
	switch {
	case err != nil:
		return d, err
	case refused != nil:
		return d, fmt.Errorf("write %s %q: %w", d.Kind, d.ID, refused)
	}
	return written, nil
}

// Delete implements cluster.Documents.
func (r *Registry) Delete(ctx context.Context, kind, group, id string, version int64) error {
	if err := cluster.CheckDocumentKey(kind, group, id); err != nil {
		return err
	}
	r.call("Delete")
	var refused error
	err := r.step(ctx, func() {
		at := document{kind, group, id}
		switch d, found := r.store.livingLocked(at); {
		case !found:
			refused = cluster.ErrNoDocument
		case version != 0 && version != d.Version:
			refused = cluster.ErrConflict
		default:
			delete(r.store.documents, at)
		}
	})
	if err == nil && refused != nil {
		return fmt.Errorf("delete %s %q: %w", kind, id, refused)
	}
	return err
}

// Find implements cluster.Documents.
func (r *Registry) Find(ctx context.Context, q cluster.Query) (list []cluster.Document, total int, err error) {
	if err := q.Check(); err != nil {
		return nil, 0, err
	}
	r.call("Find")
	err = r.step(ctx, func() {
		for at := range r.store.documents {
			if d, found := r.store.livingLocked(at); found && matches(q, d) {
				list = append(list, d)
			}
		}
	})
	if err != nil {
		return nil, 0, err
	}
	slices.SortFunc(list, func(a, b cluster.Document) int { return compare(q, a, b) })
	total = len(list)
	if q.After != nil {
		total = -1
		list = slices.DeleteFunc(list, func(d cluster.Document) bool { return compare(q, d, *q.After) <= 0 })
	}
	list = list[min(q.Offset, len(list)):]
	return list[:min(q.Limit, len(list))], total, nil
}

func matches(q cluster.Query, d cluster.Document) bool {
	return d.Kind == q.Kind && (q.AllGroups || d.Group == q.Group) &&
		(q.IDs == nil || slices.Contains(q.IDs, d.ID)) &&
		(q.State == "" || d.State == q.State) &&
		strings.Contains(d.Haystack(), q.Needle()) &&
		(q.From.IsZero() || cluster.Millis(d.At) >= cluster.Millis(q.From)) &&
		(q.To.IsZero() || cluster.Millis(d.At) < cluster.Millis(q.To)) &&
		(q.Since.IsZero() || cluster.Millis(d.Changed) >= cluster.Millis(q.Since))
}

func compare(q cluster.Query, a, b cluster.Document) int {
	order := 0
	switch q.Sort {
	case cluster.ByName:
		order = cmp.Compare(a.SortName(), b.SortName())
	case cluster.ByState:
		order = cmp.Compare(a.State, b.State)
	case cluster.ByAt:
		order = cmp.Compare(cluster.Millis(a.At), cluster.Millis(b.At))
	}
	order = cmp.Or(order, cmp.Compare(a.Group, b.Group), cmp.Compare(a.ID, b.ID))
	if q.Desc {
		return -order
	}
	return order
}

// Sweep implements cluster.Documents.
func (r *Registry) Sweep(ctx context.Context) (deleted int, err error) {
	r.call("Sweep")
	err = r.step(ctx, func() {
		for at := range r.store.documents {
			if _, found := r.store.livingLocked(at); !found {
				delete(r.store.documents, at)
				deleted++
			}
		}
	})
	return deleted, err
}

// Notify implements cluster.Documents.
func (r *Registry) Notify(ctx context.Context, kinds ...string) error {
	r.call("Notify")
	return r.step(ctx, func() {
		for _, kind := range kinds {
			r.store.notices[kind]++
		}
		r.revisions.Noticed(kinds)
	})
}

// Revision implements cluster.Documents.
func (r *Registry) Revision(kind string) int64 { return r.revisions.Of(kind) }
