package mongo

import (
	"context"
	"errors"
	"math/rand/v2"
	"regexp"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"sluice/cluster"
)

// documentRow is a document of the collection documents. Times are Unix milliseconds; 0: none.
type documentRow struct {
	ID       string `bson:"_id"` // see documentID
	Kind     string `bson:"kind"`
	Group    string `bson:"group"`
	Name     string `bson:"id"` // the document's ID
	Title    string `bson:"name"`
	SortName string `bson:"sortname"`
	Haystack string `bson:"haystack"`
	State    string `bson:"state"`
	At       int64  `bson:"at"`
	Version  int64  `bson:"version"`
	Changed  int64  `bson:"changed"`
	Expires  int64  `bson:"expires"`
	Body     string `bson:"body"` // JSON
}

// documentID is the unique id of a row; neither kind nor group has a slash.
func documentID(kind, group, id string) string { return kind + "/" + group + "/" + id }

func (d documentRow) document() cluster.Document {
	return cluster.Document{Kind: d.Kind, Group: d.Group, ID: d.Name, Name: d.Title, State: d.State, At: cluster.FromMillis(d.At),
		Version: d.Version, Changed: cluster.FromMillis(d.Changed), Expires: cluster.FromMillis(d.Expires), Body: []byte(d.Body)}
}

// documentIndexes serve lists of a kind, as they are sorted, and Sweep.
func documentIndexes() (list []driver.IndexModel) {
	for _, fields := range [][]string{{"kind", "group", "id"}, {"kind", "group", "at"}, {"kind", "group", "sortname"}, {"kind", "changed"}, {"expires"}} {
		keys := bson.D{}
		for _, f := range fields {
			keys = append(keys, bson.E{Key: f, Value: 1})
		}
		list = append(list, driver.IndexModel{Keys: keys})
	}
	return list
}

func is(op string, value any) bson.D { return bson.D{{Key: op, Value: value}} }

// documentTurn bounds a call as bound does, and waits until few enough others of documents are under way: heartbeats and leases must find
// a free connection however many people look at lists.
func (r *Registry) documentTurn(ctx context.Context) (context.Context, func(), error) {
	ctx, cancel := bound(ctx)
	select {
	case r.turns <- struct{}{}:
		return ctx, func() { <-r.turns; cancel() }, nil
	case <-ctx.Done():
		cancel()
		return ctx, func() {}, ctx.Err()
	}
}

// living is the condition of documents that have not expired.
func (r *Registry) living() bson.E {
	return bson.E{Key: "$or", Value: bson.A{
		bson.D{{Key: "expires", Value: int64(0)}}, bson.D{{Key: "expires", Value: is("$gt", cluster.Millis(r.Now()))}}}}
}

// Get implements cluster.Documents.
func (r *Registry) Get(ctx context.Context, kind, group, id string) (cluster.Document, error) {
	d, err := r.get(ctx, kind, group, id)
	return d.document(), r.wrap(err, "read %s %q", kind, id)
}

func (r *Registry) get(ctx context.Context, kind, group, name string) (d documentRow, err error) {
	if err := cluster.CheckDocumentKey(kind, group, name); err != nil {
		return d, err
	}
	ctx, done, err := r.documentTurn(ctx)
	defer done()
	if err != nil {
		return d, err
	}
	err = r.documents.FindOne(ctx, id(documentID(kind, group, name))).Decode(&d)
	if errors.Is(err, driver.ErrNoDocuments) || err == nil && r.expired(d) {
		err = cluster.ErrNoDocument
	}
	return d, err
}

func (r *Registry) expired(d documentRow) bool {
	return d.Expires != 0 && d.Expires <= cluster.Millis(r.Now())
}

// Put implements cluster.Documents.
func (r *Registry) Put(ctx context.Context, d cluster.Document) (cluster.Document, error) {
	err := d.Check()
	if err != nil {
		return d, r.wrap(err, "write %s %q", d.Kind, d.ID)
	}
	ctx, done, err := r.documentTurn(ctx)
	defer done()
	now := r.Now()
	row := documentRow{ID: documentID(d.Kind, d.Group, d.ID), Kind: d.Kind, Group: d.Group, Name: d.ID, Title: d.Name,
		SortName: d.SortName(), Haystack: d.Haystack(), State: d.State, At: cluster.Millis(d.At),
		Version: cluster.NextVersion(d.Version, now), Changed: cluster.Millis(now), Expires: cluster.Millis(d.Expires), Body: string(d.Body)}
	switch {
	case err != nil:
	case d.Version == 0:
		err = r.create(ctx, &row)
	default:
		err = r.replace(ctx, row, d.Version)
		if errors.Is(err, cluster.ErrNoDocument) {
			err = cluster.ErrConflict
		}
	}
	if err != nil {
		return d, r.wrap(err, "write %s %q", d.Kind, d.ID)
	}
	d.Version, d.Changed = row.Version, cluster.FromMillis(row.Changed)
	return d, nil
}

// create takes the place of a document that has expired.
func (r *Registry) create(ctx context.Context, row *documentRow) error {
	_, err := r.documents.InsertOne(ctx, *row)
	if !driver.IsDuplicateKeyError(err) {
		return err
	}
	var before documentRow
	err = r.documents.FindOne(ctx, id(row.ID)).Decode(&before)
	switch {
	case errors.Is(err, driver.ErrNoDocuments): // deleted just now
		return cluster.ErrExists
	case err != nil:
		return err
	case !r.expired(before):
		return cluster.ErrExists
	}
	row.Version = cluster.NextVersion(before.Version, r.Now())
	res, err := r.documents.ReplaceOne(ctx, bson.D{{Key: "_id", Value: row.ID}, {Key: "version", Value: before.Version}}, *row)
	if err == nil && res.MatchedCount == 0 {
		err = cluster.ErrExists
	}
	return err
}

func (r *Registry) replace(ctx context.Context, row documentRow, version int64) error {
	res, err := r.documents.ReplaceOne(ctx, bson.D{{Key: "_id", Value: row.ID}, {Key: "version", Value: version}, r.living()}, row)
	if err == nil && res.MatchedCount == 0 {
		err = cluster.ErrNoDocument
	}
	return err
}

// Delete implements cluster.Documents.
func (r *Registry) Delete(ctx context.Context, kind, group, name string, version int64) error {
	err := cluster.CheckDocumentKey(kind, group, name)
	if err == nil {
		err = r.delete(ctx, kind, group, name, version)
	}
	if errors.Is(err, errAgain) {
		if _, err = r.get(ctx, kind, group, name); err == nil {
			err = cluster.ErrConflict
		}
	}
	return r.wrap(err, "delete %s %q", kind, name)
}

// delete returns errAgain when there is no such document with that version.
func (r *Registry) delete(ctx context.Context, kind, group, name string, version int64) error {
	ctx, done, err := r.documentTurn(ctx)
	defer done()
	if err != nil {
		return err
	}
	filter := bson.D{{Key: "_id", Value: documentID(kind, group, name)}, r.living()}
	if version != 0 {
		filter = append(filter, bson.E{Key: "version", Value: version})
	}
	res, err := r.documents.DeleteOne(ctx, filter)
	if err == nil && res.DeletedCount == 0 {
		err = errAgain
	}
	return err
}

// Find implements cluster.Documents.
func (r *Registry) Find(ctx context.Context, q cluster.Query) (list []cluster.Document, total int, err error) {
	if err := q.Check(); err != nil {
		return nil, 0, err
	}
	ctx, done, err := r.documentTurn(ctx)
	defer done()
	if err != nil {
		return nil, 0, r.wrap(err, "find %s", q.Kind)
	}
	filter := r.filter(q)
	cursor, err := r.documents.Find(ctx, filter, options.Find().SetSort(order(q)).SetSkip(int64(q.Offset)).SetLimit(int64(q.Limit)).SetBatchSize(int32(q.Limit)))
	if err == nil {
		list, err = all(ctx, r, q.Kind, cursor, func(d documentRow) (cluster.Document, error) { return d.document(), nil })
	}
	if err != nil {
		return nil, 0, r.wrap(err, "find %s", q.Kind)
	}
	total, known := q.Total(len(list))
	if !known {
		var count int64
		count, err = r.documents.CountDocuments(ctx, filter)
		total = int(count)
	}
	return list, total, r.wrap(err, "count %s", q.Kind)
}

func (r *Registry) filter(q cluster.Query) bson.D {
	terms := bson.A{bson.D{r.living()}}
	filter := bson.D{{Key: "kind", Value: q.Kind}}
	and := func(key string, value any) { filter = append(filter, bson.E{Key: key, Value: value}) }
	if !q.AllGroups {
		and("group", q.Group)
	}
	if q.IDs != nil {
		and("id", is("$in", q.IDs))
	}
	if q.State != "" {
		and("state", q.State)
	}
	if q.Search != "" {
		and("haystack", bson.Regex{Pattern: regexp.QuoteMeta(q.Needle())})
	}
	at := bson.D{}
	if !q.From.IsZero() {
		at = append(at, bson.E{Key: "$gte", Value: cluster.Millis(q.From)})
	}
	if !q.To.IsZero() {
		at = append(at, bson.E{Key: "$lt", Value: cluster.Millis(q.To)})
	}
	if len(at) > 0 {
		and("at", at)
	}
	if !q.Since.IsZero() {
		and("changed", is("$gte", cluster.Millis(q.Since)))
	}
	if q.After != nil {
		than := "$gt"
		if q.Desc {
			than = "$lt"
		}
		terms = append(terms, bson.D{{Key: "$or", Value: bson.A{
			bson.D{{Key: "group", Value: is(than, q.After.Group)}},
			bson.D{{Key: "group", Value: q.After.Group}, {Key: "id", Value: is(than, q.After.ID)}},
		}}})
	}
	and("$and", terms)
	return filter
}

func order(q cluster.Query) (fields bson.D) {
	dir := 1
	if q.Desc {
		dir = -1
	}
	if f := map[cluster.Sort]string{cluster.ByName: "sortname", cluster.ByState: "state", cluster.ByAt: "at"}[q.Sort]; f != "" {
		fields = append(fields, bson.E{Key: f, Value: dir})
	}
	return append(fields, bson.E{Key: "group", Value: dir}, bson.E{Key: "id", Value: dir})
}

// Sweep implements cluster.Documents. It is no index of the server's that deletes what has expired, as not every server has those.
func (r *Registry) Sweep(ctx context.Context) (int, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	res, err := r.documents.DeleteMany(ctx, bson.D{{Key: "expires", Value: bson.D{{Key: "$gt", Value: int64(0)}, {Key: "$lte", Value: cluster.Millis(r.Now())}}}})
	if err != nil {
		return 0, r.wrap(err, "delete expired documents")
	}
	return int(res.DeletedCount), nil
}

// Notify implements cluster.Documents: it writes into the row of each node, which finds it with its next heartbeat. Any other number
// is news, so that of two who notify at once none must wait for the other.
func (r *Registry) Notify(ctx context.Context, kinds ...string) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	notice := 1 + rand.Int64N(1<<62)
	fields := bson.D{{Key: "notice", Value: notice}}
	for _, kind := range kinds {
		fields = append(fields, bson.E{Key: "revisions." + kind, Value: notice})
	}
	_, err := r.nodes.UpdateMany(ctx, bson.D{}, set(fields))
	if err == nil {
		r.revisions.Noticed(kinds)
	}
	return r.wrap(err, "notify of %s", strings.Join(kinds, ", "))
}

// Revision implements cluster.Documents.
func (r *Registry) Revision(kind string) int64 { return r.revisions.Of(kind) }

// noticed remembers the notice that a node's row has: a heartbeat looks for no other.
func (r *Registry) noticed(node string, notice int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.notices == nil {
		r.notices = map[string]int64{}
	}
	r.notices[node] = notice
}

func (r *Registry) lastNotice(node string) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.notices[node]
}
