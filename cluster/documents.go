package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Errors of Documents; test for them with errors.Is.
var (
	// ErrNoDocument: there is none, or it has expired.
	ErrNoDocument = errors.New("no such document")
	// ErrExists: a document that should be new is there already.
	ErrExists = errors.New("the document exists already")
	// ErrConflict: the document has been written or deleted since it was read.
	ErrConflict = errors.New("the document was changed meanwhile")
	// ErrBadDocument: no registry can keep that; also a Query that makes no sense.
	ErrBadDocument = errors.New("bad document")
)

const (
	// MaxFind is how many documents a Find returns at most.
	MaxFind = 1000
	// MaxBody bounds a document's body, in bytes.
	MaxBody = 512 << 10

	maxDocumentKind  = 32
	maxDocumentID    = 256
	maxDocumentGroup = 64
	maxDocumentName  = 1024
	maxDocumentState = 64
)

// Document is one of the small things that nodes share: an account, a session, a broadcast, a setting.
type Document struct {
	Kind  string // of what it is: "user", "broadcast"; lower-case letters, digits and '-'
	Group string // an application; "": the server's own
	ID    string // unique within Kind and Group

	// What lists are sorted by and searched in, beside the ID. Whatever else there is to know is in Body.
	Name  string
	State string
	At    time.Time

	Version int64     // of compare-and-swap: changes with each write, and never comes twice for an ID; 0: not written yet
	Changed time.Time // by the registry's clock, when it was last written; Put sets it
	Expires time.Time // by the registry's clock: from then on it is not found, and a Sweep deletes it; zero: never
	Body    json.RawMessage
}

// Sort is what a Find sorts by. Equal ones are sorted by Group and ID.
type Sort int

const (
	ByID    Sort = iota // Group and ID
	ByName              // without regard to case
	ByState             // as text
	ByAt
)

// Query is what a Find looks for. Zero values ask for nothing.
type Query struct {
	Kind      string // must be given
	Group     string
	AllGroups bool // instead of Group

	IDs      []string  // only these; at most MaxFind
	State    string    // only this
	Search   string    // part of ID or Name, without regard to case
	From, To time.Time // At is From or later, and before To
	Since    time.Time // Changed then or later

	Sort   Sort
	Desc   bool
	Offset int
	Limit  int // 0, and at most: MaxFind

	// After goes on behind a document that was the last of the page before, however many there are: with Sort
	// ByID only. There is no total then.
	After *Document
}

// Documents are kept by every Registry, beside nodes and streams. All methods may be called from any goroutine; each is one or
// two round trips and obeys its context. Other errors than the sentinels mean that the registry can't be reached: a write may
// then have been done or not. Times are exact to a millisecond.
type Documents interface {
	// Get returns a document; ErrNoDocument.
	Get(ctx context.Context, kind, group, id string) (Document, error)
	// Put writes a document and returns it with its new Version and Changed. With Version 0 it must not be there yet (ErrExists), else it
	// must be there with that Version (ErrConflict). ErrBadDocument: see Document.Check.
	Put(ctx context.Context, d Document) (Document, error)
	// Delete deletes a document that has that version; 0: any. ErrNoDocument, ErrConflict.
	Delete(ctx context.Context, kind, group, id string, version int64) error
	// Find returns a page, and how many there are on all pages; -1 with After.
	Find(ctx context.Context, q Query) (page []Document, total int, err error)
	// Sweep deletes what has expired. Every node calls it now and then (Watch).
	Sweep(ctx context.Context) (deleted int, err error)

	// Notify tells every node that documents of these kinds were written or deleted: with its next heartbeat, so within about a
	// second. It is called after the write, for what nodes must know of at once, as it costs a write of all nodes' rows.
	Notify(ctx context.Context, kinds ...string) error
	// Revision changes when this process has learnt of a Notify of that kind, by one of its own or by a Heartbeat. It does no I/O. After a
	// Join, with which notices may have been missed, all revisions change.
	Revision(kind string) int64

	// Now is Registry.Now.
	Now() time.Time
}

// Store is all that a database keeps for a cluster.
type Store interface {
	Registry
	Documents
}

// Check reports what no registry can keep. Its error wraps ErrBadDocument.
func (d Document) Check() error {
	if err := CheckDocumentKey(d.Kind, d.Group, d.ID); err != nil {
		return err
	}
	switch {
	case len(d.Name) > maxDocumentName || !plain(d.Name):
		return fmt.Errorf("%w: the name is at most %d bytes of text in one line", ErrBadDocument, maxDocumentName)
	case len(d.State) > maxDocumentState || !plain(d.State):
		return fmt.Errorf("%w: the state is at most %d bytes of text in one line", ErrBadDocument, maxDocumentState)
	case len(d.Body) > MaxBody:
		return fmt.Errorf("%w: the body has %d bytes, of at most %d", ErrBadDocument, len(d.Body), MaxBody)
	case !json.Valid(d.Body):
		return fmt.Errorf("%w: the body is no JSON", ErrBadDocument)
	case !utf8.Valid(d.Body):
		return fmt.Errorf("%w: the body is no UTF-8", ErrBadDocument)
	case d.Version < 0:
		return fmt.Errorf("%w: version %d", ErrBadDocument, d.Version)
	}
	return nil
}

// CheckDocumentKey refuses names that no document can have.
func CheckDocumentKey(kind, group, id string) error {
	if !goodKind(kind) {
		return fmt.Errorf("%w: kind %.40q: it is 1 to %d lower-case letters, digits and '-'", ErrBadDocument, kind, maxDocumentKind)
	}
	if len(group) > maxDocumentGroup || !plain(group) || strings.Contains(group, "/") {
		return fmt.Errorf("%w: group %.80q: it is at most %d bytes of text without '/'", ErrBadDocument, group, maxDocumentGroup)
	}
	if id == "" || len(id) > maxDocumentID || !plain(id) {
		return fmt.Errorf("%w: id %.80q: it is 1 to %d bytes of text in one line", ErrBadDocument, id, maxDocumentID)
	}
	return nil
}

func goodKind(kind string) bool {
	for i := range len(kind) {
		if c := kind[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return kind != "" && len(kind) <= maxDocumentKind
}

// plain reports text without control characters.
func plain(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
}

// Check reports a query that makes no sense, and fills in its limit.
func (q *Query) Check() error {
	group := q.Group
	if q.AllGroups {
		group = ""
	}
	if err := CheckDocumentKey(q.Kind, group, "any"); err != nil {
		return err
	}
	switch {
	case q.Sort < ByID || q.Sort > ByAt:
		return fmt.Errorf("%w: sort %d", ErrBadDocument, q.Sort)
	case q.Offset < 0 || q.Limit < 0:
		return fmt.Errorf("%w: offset %d, limit %d", ErrBadDocument, q.Offset, q.Limit)
	case q.After != nil && (q.Sort != ByID || q.Offset != 0):
		return fmt.Errorf("%w: After goes with the order of ids and without an offset", ErrBadDocument)
	case len(q.IDs) > MaxFind:
		return fmt.Errorf("%w: %d ids, of at most %d", ErrBadDocument, len(q.IDs), MaxFind)
	case !plain(q.Search) || !plain(q.State):
		return fmt.Errorf("%w: a search is UTF-8 text in one line", ErrBadDocument)
	}
	for _, id := range q.IDs {
		if !plain(id) {
			return fmt.Errorf("%w: an id is UTF-8 text in one line", ErrBadDocument)
		}
	}
	if q.Limit == 0 || q.Limit > MaxFind {
		q.Limit = MaxFind
	}
	return nil
}

// Total is how many a query finds, if a page of that many says so: the last one does. There is none with After: -1.
func (q Query) Total(page int) (total int, known bool) {
	if q.After != nil {
		return -1, true
	}
	return q.Offset + page, page < q.Limit && (page > 0 || q.Offset == 0)
}

// Haystack is what a Search looks in for Needle: so all registries agree on letters' cases.
func (d Document) Haystack() string { return fold(d.ID) + "\n" + fold(d.Name) }

// Needle is what Haystack must have.
func (q Query) Needle() string { return fold(q.Search) }

// SortName is what ByName compares.
func (d Document) SortName() string { return fold(d.Name) }

func fold(s string) string { return strings.ToLower(s) }

// NextVersion is that of a document which is written now: higher than the last, also when the document was deleted in between.
func NextVersion(last int64, now time.Time) int64 { return max(last+1, now.UnixMicro()) }

// Millis is how registries keep a time; 0 is the zero time.
func Millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// FromMillis is the time of Millis.
func FromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// EachDocument calls fn for every document that a query finds, a page at a time in the order of ids, however many there are.
func EachDocument(ctx context.Context, docs Documents, q Query, fn func(Document) error) error {
	q.Sort, q.Desc, q.Offset, q.Limit = ByID, false, 0, MaxFind
	for {
		page, _, err := docs.Find(ctx, q)
		if err != nil {
			return err
		}
		for _, d := range page {
			if err := fn(d); err != nil {
				return err
			}
		}
		if len(page) < MaxFind {
			return nil
		}
		q.After = &page[len(page)-1]
	}
}
