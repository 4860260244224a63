package mongo

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"sluice/cluster"
	"sluice/media"
)

// streamRow is a document of the collection streams.
type streamRow struct {
	ID      string    `bson:"_id"` // see rowID
	Key     string    `bson:"key"` // app/id
	Backup  bool      `bson:"backup"`
	State   string    `bson:"state"`
	Origin  string    `bson:"origin"`
	Session int64     `bson:"session"`
	Epoch   int64     `bson:"epoch"` // never goes back
	Codecs  []string  `bson:"codecs"`
	Started time.Time `bson:"started"`
	Changed time.Time `bson:"changed"` // when the row was written last
}

// notFinished is written so that the index on state can be used: it finds equal values, not unequal ones.
var notFinished = bson.E{Key: "state", Value: bson.D{{Key: "$in", Value: bson.A{string(cluster.Broadcasting), string(cluster.Interrupted), string(cluster.Leaving)}}}}

// rowID is the unique id of a stream's row; no name has a second slash.
func rowID(key media.Key, backup bool) string {
	if backup {
		return key.String() + "/backup"
	}
	return key.String()
}

func (d streamRow) stream() (s cluster.Stream, err error) {
	s = cluster.Stream{Backup: d.Backup, State: cluster.StreamState(d.State), Origin: d.Origin, Session: d.Session,
		Epoch: d.Epoch, Codecs: d.Codecs, Started: d.Started}
	s.Key, err = media.ParseKey(d.Key)
	return s, err
}

// batch is how many rows come with one answer.
const batch = 10000

// errAgain: a row has changed since it was read.
var errAgain = errors.New("the row has changed")

// Claim implements cluster.Registry: it reads, judges, and swaps the row as it was read, until the row stood still in
// between. When an answer gets lost it does that once more: if the claim was done, the row is l.Session's now, and it
// gets the next epoch. So a claim that was written is never taken for somebody else's.
func (r *Registry) Claim(ctx context.Context, l cluster.Lease) (cluster.Lease, error) {
	if err := cluster.CheckClaim(l); err != nil {
		return cluster.Lease{}, err
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	for lost := false; ; {
		got, err := r.claim(ctx, l)
		var inUse *cluster.InUse
		switch {
		case err == nil:
			return got, nil
		case errors.As(err, &inUse):
			return cluster.Lease{}, inUse
		case errors.Is(err, errAgain) && ctx.Err() == nil:
		case driver.IsNetworkError(err) && !lost && ctx.Err() == nil:
			lost = true
		default:
			return cluster.Lease{}, r.wrap(err, "claim stream %q", l.Key)
		}
	}
}

// claim is one attempt.
func (r *Registry) claim(ctx context.Context, l cluster.Lease) (cluster.Lease, error) {
	next := streamRow{ID: rowID(l.Key, l.Backup), Key: l.Key.String(), Backup: l.Backup, State: string(cluster.Broadcasting),
		Origin: l.Node, Session: l.Session, Codecs: []string{}, Started: r.Now()}
	next.Epoch, next.Changed = cluster.NextEpoch(0, next.Started), next.Started
	var now streamRow
	switch err := r.streams.FindOne(ctx, id(next.ID)).Decode(&now); {
	case errors.Is(err, driver.ErrNoDocuments):
		if _, err := r.streams.InsertOne(ctx, next); driver.IsDuplicateKeyError(err) {
			return l, errAgain
		} else if err != nil {
			return l, err
		}
		l.Epoch = next.Epoch
		return l, nil
	case err != nil:
		return l, err
	}
	if now.State == string(cluster.Broadcasting) && now.Session != l.Session {
		if err := r.end(ctx, l.Key, now.Origin, now.Session); err != nil {
			return l, err
		}
	}
	if now.State == string(cluster.Interrupted) || now.State == string(cluster.Leaving) {
		next.Started = now.Started
	}
	next.Epoch = max(now.Epoch+1, next.Epoch)
	// The epoch tells every holder from any other; the state may change under it.
	res, err := r.streams.ReplaceOne(ctx,
		bson.D{{Key: "_id", Value: now.ID}, {Key: "epoch", Value: now.Epoch}, {Key: "state", Value: now.State}}, next)
	if err == nil && res.MatchedCount == 0 {
		err = errAgain
	}
	l.Epoch = next.Epoch
	return l, err
}

// end returns nil when a node's session is void, and fences it if its heartbeat is old; an *InUse when it lives. What it finds void stays
// void, so the stream's row can be swapped afterwards.
func (r *Registry) end(ctx context.Context, key media.Key, node string, session int64) error {
	d, found, err := r.nodeRow(ctx, node)
	if err != nil || !found || d.Session != session || d.Fenced {
		return err
	}
	if until := d.Heartbeat.Add(cluster.SessionTTL); r.Now().Before(until) {
		return &cluster.InUse{Key: key, Origin: node, Until: until}
	}
	res, err := r.nodes.UpdateOne(ctx, bson.D{{Key: "_id", Value: node}, {Key: "session", Value: session},
		{Key: "heartbeat", Value: d.Heartbeat}, {Key: "fenced", Value: false}}, set(bson.D{{Key: "fenced", Value: true}}))
	if err == nil && res.MatchedCount == 0 {
		err = errAgain
	}
	return err
}

// held is the filter for the row of a lease.
func held(l cluster.Lease) bson.D {
	return bson.D{{Key: "_id", Value: rowID(l.Key, l.Backup)}, {Key: "origin", Value: l.Node},
		{Key: "session", Value: l.Session}, {Key: "epoch", Value: l.Epoch}, notFinished}
}

// Resume implements cluster.Registry.
func (r *Registry) Resume(ctx context.Context, l cluster.Lease, session int64) (cluster.Lease, error) {
	next := l
	next.Session, next.Epoch = session, l.Epoch+1
	if err := cluster.CheckClaim(next); err != nil {
		return cluster.Lease{}, err
	}
	filter := bson.D{{Key: "_id", Value: rowID(l.Key, l.Backup)}, {Key: "origin", Value: l.Node}, notFinished,
		{Key: "$or", Value: bson.A{ // the second: it was done, and the answer got lost
			bson.D{{Key: "session", Value: l.Session}, {Key: "epoch", Value: l.Epoch}},
			bson.D{{Key: "session", Value: next.Session}, {Key: "epoch", Value: next.Epoch}},
		}}}
	ctx, cancel := bound(ctx)
	defer cancel()
	err := r.change(ctx, "resume", l, filter, bson.D{{Key: "session", Value: next.Session}, {Key: "epoch", Value: next.Epoch}})
	if errors.Is(err, cluster.ErrLeaseLost) {
		err = r.restore(ctx, next, l.Epoch)
	}
	if err != nil {
		return cluster.Lease{}, err
	}
	return next, nil
}

// restore writes a row anew that is not there, or that has an epoch below the lease's.
func (r *Registry) restore(ctx context.Context, next cluster.Lease, epoch int64) error {
	row := streamRow{ID: rowID(next.Key, next.Backup), Key: next.Key.String(), Backup: next.Backup, State: string(cluster.Broadcasting),
		Origin: next.Node, Session: next.Session, Epoch: next.Epoch, Codecs: []string{}, Started: r.Now(), Changed: r.Now()}
	older := bson.D{{Key: "_id", Value: row.ID}, {Key: "epoch", Value: bson.D{{Key: "$lt", Value: epoch}}}}
	_, err := r.streams.ReplaceOne(ctx, older, row, options.Replace().SetUpsert(true))
	if driver.IsDuplicateKeyError(err) { // there is a row, and it is not older
		err = cluster.ErrLeaseLost
	}
	return r.wrap(err, "resume stream %q, epoch %d", next.Key, epoch)
}

// Report implements cluster.Registry.
func (r *Registry) Report(ctx context.Context, l cluster.Lease, info cluster.StreamInfo) error {
	if err := cluster.CheckReport(l, info); err != nil {
		return err
	}
	codecs := append([]string{}, info.Codecs...)
	return r.change(ctx, "report", l, held(l), bson.D{{Key: "state", Value: string(info.State)}, {Key: "codecs", Value: codecs}})
}

// Release implements cluster.Registry.
func (r *Registry) Release(ctx context.Context, l cluster.Lease) error {
	return r.change(ctx, "release", l, held(l), bson.D{{Key: "state", Value: string(cluster.Finished)}})
}

// change sets fields of a stream whose lease is held.
func (r *Registry) change(ctx context.Context, verb string, l cluster.Lease, filter, fields bson.D) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	res, err := r.streams.UpdateOne(ctx, filter, set(append(fields, bson.E{Key: "changed", Value: r.Now()})))
	if err == nil && res.MatchedCount == 0 {
		err = cluster.ErrLeaseLost
	}
	return r.wrap(err, "%s stream %q, epoch %d", verb, l.Key, l.Epoch)
}

// Lookup implements cluster.Registry.
func (r *Registry) Lookup(ctx context.Context, keys ...media.Key) ([]cluster.Stream, error) {
	ids := bson.A{}
	for _, k := range keys {
		if cluster.CheckKey(k) == nil { // else there is no such row, and it may be no text at all
			ids = append(ids, rowID(k, false), rowID(k, true))
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	list, err := r.list(ctx, bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: ids}}}})
	return list, r.wrap(err, "look up %d streams", len(keys))
}

// Streams implements cluster.Registry.
func (r *Registry) Streams(ctx context.Context) ([]cluster.Stream, error) {
	list, err := r.list(ctx, bson.D{notFinished})
	slices.SortFunc(list, func(a, b cluster.Stream) int {
		return cmp.Or(cmp.Compare(a.Key.String(), b.Key.String()), cmp.Compare(rowID(a.Key, a.Backup), rowID(b.Key, b.Backup)))
	})
	return list, r.wrap(err, "list streams")
}

func (r *Registry) list(ctx context.Context, filter bson.D) ([]cluster.Stream, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	cursor, err := r.streams.Find(ctx, filter, options.Find().SetBatchSize(batch))
	if err != nil {
		return nil, err
	}
	return all(ctx, r, "stream", cursor, streamRow.stream)
}
