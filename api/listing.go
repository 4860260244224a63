package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/cluster"
	"sluice/internal/census"
	"sluice/internal/problem"
	"sluice/media"
)

// maxSorted is how many broadcasts of an application are put into an order here that the registry can't make.
const maxSorted = 100_000

// registryWithin bounds an operation on the registry.
const registryWithin = 3 * time.Second

// away is an error of the registry, unless it is one that it has chosen.
func away(err error) error {
	if err == nil || errors.Is(err, cluster.ErrNoDocument) || errors.Is(err, cluster.ErrExists) || errors.Is(err, cluster.ErrConflict) || errors.Is(err, cluster.ErrBadDocument) || errors.Is(err, cluster.ErrNoNode) {
		return err
	}
	return fmt.Errorf("%w: %w", census.ErrUnavailable, err)
}

// listing is what is listed of an application's broadcasts.
type listing struct {
	app    string
	search string
	sort   string // name, date, status; "": by id
	desc   bool
	offset int
	size   int
}

// sorted keeps the broadcasts of an application that were read whole, for those who ask within a second.
type sorted struct {
	mu   sync.Mutex
	apps map[string]*whole
}

type whole struct {
	mu   sync.Mutex
	at   time.Time
	docs []cluster.Document

	of        *census.Snapshot // uncreated is of this
	uncreated []record
}

// app is what is kept of an application.
func (s *sorted) app(name string) *whole {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.apps[name]
	if w == nil {
		if len(s.apps) > 50 {
			clear(s.apps)
		}
		w = &whole{}
		s.apps[name] = w
	}
	return w
}

// forget has an application's read again: who writes here finds here what he wrote.
func (s *sorted) forget(app string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.apps, app)
}

// list returns a page, and how many there are on all. The registry sorts and searches what was created; streams that nobody created are sorted in here, as is
// what the registry does not know: the status.
func (a *API) list(ctx context.Context, s *census.Snapshot, q listing) (page []record, total int, err error) {
	uncreated, err := a.uncreated(ctx, s, q.app, q.search)
	if err != nil {
		return nil, 0, err
	}
	if len(uncreated) > 0 || q.sort == "status" {
		return a.listSorted(ctx, s, q, uncreated)
	}
	order := map[string]cluster.Sort{"name": cluster.ByName, "date": cluster.ByAt}[q.sort]
	ctx, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	docs, total, err := a.deps.Documents.Find(ctx, cluster.Query{Kind: broadcastKind, Group: q.app, Search: q.search, Sort: order, Desc: q.desc, Offset: q.offset, Limit: max(1, q.size)})
	if err != nil {
		return nil, 0, away(err)
	}
	for i := range docs[:min(q.size, len(docs))] {
		page = append(page, a.recordOf(s, &docs[i]))
	}
	return page, total, a.addPast(ctx, q.app, page)
}

func (a *API) recordOf(s *census.Snapshot, d *cluster.Document) record {
	return record{id: d.ID, doc: d, row: s.Streams[media.Key{App: d.Group, ID: d.ID}]}
}

// uncreated are the live streams of an application of which there is no document, as of the time when the snapshot was taken.
func (a *API) uncreated(ctx context.Context, s *census.Snapshot, app, search string) (list []record, err error) {
	w := a.sorted.app(app)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of != s {
		all, err := a.readUncreated(ctx, s.App(app), app)
		if err != nil {
			return nil, err
		}
		w.of, w.uncreated = s, all
	}
	for _, r := range w.uncreated {
		if r.matches(search) {
			list = append(list, r)
		}
	}
	return list, nil
}

func (a *API) readUncreated(ctx context.Context, rows []*census.Stream, app string) (list []record, err error) {
	ctx, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	for chunk := range slices.Chunk(rows, cluster.MaxFind) {
		ids := make([]string, len(chunk))
		for i, r := range chunk {
			ids[i] = r.Key.ID
		}
		docs, _, err := a.deps.Documents.Find(ctx, cluster.Query{Kind: broadcastKind, Group: app, IDs: ids})
		if err != nil {
			return nil, away(err)
		}
		known := make(map[string]bool, len(docs))
		for _, d := range docs {
			known[d.ID] = true
		}
		for _, row := range chunk {
			if !known[row.Key.ID] {
				list = append(list, record{id: row.Key.ID, row: row})
			}
		}
	}
	return list, nil
}

// listSorted sorts all that there is.
func (a *API) listSorted(ctx context.Context, s *census.Snapshot, q listing, uncreated []record) (page []record, total int, err error) {
	docs, err := a.whole(ctx, q.app)
	if err != nil {
		return nil, 0, err
	}
	var all []record
	needle := cluster.Query{Search: q.search}.Needle()
	created := map[string]bool{} // since
	for i := range docs {
		created[docs[i].ID] = true
		if strings.Contains(docs[i].Haystack(), needle) {
			all = append(all, a.recordOf(s, &docs[i]))
		}
	}
	for _, r := range uncreated {
		if !created[r.id] {
			all = append(all, r)
		}
	}
	by := func(x, y record) int { return 0 }
	switch q.sort {
	case "name":
		by = func(x, y record) int { return cmp.Compare(x.name(), y.name()) }
	case "date":
		by = func(x, y record) int { return x.date().Compare(y.date()) }
	case "status":
		if err := a.addPast(ctx, q.app, all); err != nil {
			return nil, 0, err
		}
		by = func(x, y record) int { return cmp.Compare(x.status(), y.status()) }
	}
	slices.SortFunc(all, func(x, y record) int {
		c := cmp.Or(by(x, y), cmp.Compare(x.id, y.id))
		if q.desc {
			return -c
		}
		return c
	})
	from := min(q.offset, len(all))
	page = all[from:min(from+q.size, len(all))]
	if q.sort != "status" {
		err = a.addPast(ctx, q.app, page)
	}
	return page, len(all), err
}

// whole reads all documents of an application, at most once a second.
func (a *API) whole(ctx context.Context, app string) ([]cluster.Document, error) {
	w := a.sorted.app(app)
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.at) < time.Second {
		return w.docs, nil
	}
	at := time.Now()
	ctx, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	var docs []cluster.Document
	err := cluster.EachDocument(ctx, a.deps.Documents, cluster.Query{Kind: broadcastKind, Group: app}, func(d cluster.Document) error {
		if docs = append(docs, d); len(docs) > maxSorted {
			return problem.New(problem.Invalid, fmt.Sprintf("there are more than %d broadcasts, which can't be sorted so: sort them by id, name or date", maxSorted))
		}
		return nil
	})
	var p *problem.Problem
	if errors.As(err, &p) {
		return nil, err
	}
	if err != nil {
		return nil, away(err)
	}
	w.docs, w.at = docs, at
	return docs, nil
}

// addPast finds out which of those that are not live have been.
func (a *API) addPast(ctx context.Context, app string, list []record) error {
	at := map[media.Key]int{}
	var keys []media.Key
	for i, r := range list {
		if r.row == nil {
			key := media.Key{App: app, ID: r.id}
			at[key] = i
			keys = append(keys, key)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	for chunk := range slices.Chunk(keys, cluster.MaxFind) {
		rows, err := a.deps.Registry.Lookup(ctx, chunk...)
		if err != nil {
			return away(err)
		}
		for _, row := range rows {
			if i, ok := at[row.Key]; ok && !row.Backup {
				list[i].past = &row
			}
		}
	}
	return nil
}

// find gets one: not_found when nobody has created it and nobody publishes it.
func (a *API) find(ctx context.Context, s *census.Snapshot, key media.Key) (record, error) {
	ctx, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	d, err := a.deps.Documents.Get(ctx, broadcastKind, key.App, key.ID)
	r := record{id: key.ID, doc: &d, row: s.Streams[key]}
	switch {
	case errors.Is(err, cluster.ErrNoDocument) && r.row != nil:
		r.doc = nil
		return r, nil
	case errors.Is(err, cluster.ErrNoDocument):
		return r, problem.New(problem.NotFound, fmt.Sprintf("there is no broadcast %.80q in %s", key.ID, key.App))
	case err != nil:
		return r, away(err)
	}
	one := []record{r}
	err = a.addPast(ctx, key.App, one)
	return one[0], err
}
