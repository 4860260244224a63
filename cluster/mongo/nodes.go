package mongo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"sluice/cluster"
)

// forgetAfter is the age of a heartbeat at which a node is gone for good: its row is deleted, and its streams are Finished.
// Until then operators see that it died.
const forgetAfter = 24 * time.Hour

// nodeRow is a document of the collection nodes.
type nodeRow struct {
	ID        string    `bson:"_id"`
	Session   int64     `bson:"session"`
	Heartbeat time.Time `bson:"heartbeat"` // by the server's clock
	Fenced    bool      `bson:"fenced"`
	State     string    `bson:"state"` // as in Row: change streams tell of it
	Order     orderRow  `bson:"order"`
	Process   string    `bson:"process"` // cluster.Node.Process at the Join
	Row       string    `bson:"row"`     // the rest of cluster.Node as JSON

	Notice    int64            `bson:"notice"`    // of Notify, the last one; 0: none since the Join
	Revisions map[string]int64 `bson:"revisions"` // the last notice of each kind of documents
}

type orderRow struct {
	Drain    bool       `bson:"drain"`
	Deadline *time.Time `bson:"deadline"`
}

// rowOf is what a node says of itself, as JSON.
func rowOf(n cluster.Node) (string, error) {
	if err := n.Check(); err != nil {
		return "", err
	}
	n.LastHeartbeat, n.Fenced, n.Order = time.Time{}, false, cluster.Order{} // these are fields of their own
	row, err := json.Marshal(n)
	return string(row), err
}

func (d nodeRow) node() (n cluster.Node, err error) {
	err = json.Unmarshal([]byte(d.Row), &n)
	n.LastHeartbeat, n.Fenced, n.Order = d.Heartbeat, d.Fenced, cluster.Order{Drain: d.Order.Drain}
	if at := d.Order.Deadline; at != nil {
		n.Order.Deadline = *at
	}
	return n, err
}

// Join implements cluster.Registry. It is not tried again after an error: a request that was late
// would bring a session to life that has been fenced.
func (r *Registry) Join(ctx context.Context, n cluster.Node) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	row, err := rowOf(n)
	if err == nil {
		// This clock may be why the node was fenced: it stands while a machine is suspended.
		err = r.ask(ctx)
	}
	if err == nil {
		now := r.Now()
		d := nodeRow{ID: n.ID, Session: n.Session, Heartbeat: now, State: string(n.State), Process: n.Process(), Row: row, Revisions: map[string]int64{}}
		again := false
		if again, err = r.rejoin(ctx, d); err == nil && !again {
			_, err = r.nodes.ReplaceOne(ctx, id(n.ID), d, options.Replace().SetUpsert(true))
		}
		if err == nil {
			r.revisions.Joined()
			r.noticed(n.ID, 0)
			_ = r.forget(ctx, now.Add(-forgetAfter)) // the next who joins does it
		}
	}
	return r.wrap(err, "join as node %q", n.ID)
}

// rejoin writes the row if it is the same process's already: then an order to it stays.
func (r *Registry) rejoin(ctx context.Context, d nodeRow) (done bool, err error) {
	if d.Process == "" {
		return false, nil
	}
	res, err := r.nodes.UpdateOne(ctx, bson.D{{Key: "_id", Value: d.ID}, {Key: "process", Value: d.Process}}, set(bson.D{
		{Key: "session", Value: d.Session}, {Key: "heartbeat", Value: d.Heartbeat}, {Key: "fenced", Value: false},
		{Key: "state", Value: d.State}, {Key: "row", Value: d.Row}}))
	return err == nil && res.MatchedCount > 0, err
}

func id(id string) bson.D { return bson.D{{Key: "_id", Value: id}} }

func set(fields bson.D) bson.D { return bson.D{{Key: "$set", Value: fields}} }

// forget deletes the rows of nodes that were not heard of since then. Rows come with a Join, so this keeps
// them few. A node that comes back after all joins again.
func (r *Registry) forget(ctx context.Context, since time.Time) error {
	old := bson.E{Key: "heartbeat", Value: bson.D{{Key: "$lt", Value: since}}}
	cursor, err := r.nodes.Find(ctx, bson.D{old}, options.Find().SetProjection(bson.D{{Key: "session", Value: 1}}))
	if err != nil {
		return err
	}
	var rows []nodeRow
	if err := cursor.All(ctx, &rows); err != nil || len(rows) == 0 {
		return err
	}
	for _, d := range rows {
		// First its session becomes void for ever, then its streams end, then the row goes: so whoever ends
		// in between leaves work for the next, and no stream whose holder is unknown.
		this := bson.D{{Key: "_id", Value: d.ID}, {Key: "session", Value: d.Session}, old}
		fenced, err := r.nodes.UpdateOne(ctx, this, set(bson.D{{Key: "fenced", Value: true}}))
		if err != nil {
			return err
		}
		if fenced.MatchedCount == 0 {
			continue // it is back
		}
		held := bson.D{{Key: "origin", Value: d.ID}, {Key: "session", Value: d.Session}, notFinished}
		if _, err := r.streams.UpdateMany(ctx, held, set(bson.D{{Key: "state", Value: string(cluster.Finished)}})); err != nil {
			return err
		}
		if _, err := r.nodes.DeleteOne(ctx, this); err != nil {
			return err
		}
	}
	return nil
}

// Heartbeat implements cluster.Registry.
func (r *Registry) Heartbeat(ctx context.Context, n cluster.Node) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	row, err := rowOf(n)
	if err != nil {
		return r.wrap(err, "heartbeat of node %q", n.ID)
	}
	for range beatTries {
		var res *driver.UpdateResult
		res, err = r.nodes.UpdateOne(ctx,
			bson.D{{Key: "_id", Value: n.ID}, {Key: "session", Value: n.Session}, {Key: "fenced", Value: false}, {Key: "notice", Value: r.lastNotice(n.ID)}},
			set(bson.D{{Key: "heartbeat", Value: r.Now()}, {Key: "state", Value: string(n.State)}, {Key: "row", Value: row}}))
		if err == nil && res.MatchedCount == 0 {
			err = r.whyNot(ctx, n)
		}
		if !errors.Is(err, errAgain) {
			break
		}
	}
	return r.wrap(err, "heartbeat of node %q", n.ID)
}

// beatTries is how many notices may come during one heartbeat.
const beatTries = 5

// whyNot says why a heartbeat was refused; errAgain: a notice was in its way, which is known now.
func (r *Registry) whyNot(ctx context.Context, n cluster.Node) error {
	d, found, err := r.nodeRow(ctx, n.ID)
	switch {
	case err != nil:
		return err
	case found && d.Session != n.Session:
		return cluster.ErrReplaced
	case !found || d.Fenced:
		return cluster.ErrFenced
	}
	r.revisions.Learn(d.Revisions)
	r.noticed(n.ID, d.Notice)
	return errAgain
}

// nodeRow reads a node's row, without what the node says of itself.
func (r *Registry) nodeRow(ctx context.Context, node string) (d nodeRow, found bool, err error) {
	err = r.nodes.FindOne(ctx, id(node), options.FindOne().SetProjection(bson.D{{Key: "row", Value: 0}})).Decode(&d)
	if errors.Is(err, driver.ErrNoDocuments) {
		return d, false, nil
	}
	return d, err == nil, err
}

// Leave implements cluster.Registry.
func (r *Registry) Leave(ctx context.Context, node string, session int64) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	_, err := r.nodes.DeleteOne(ctx, bson.D{{Key: "_id", Value: node}, {Key: "session", Value: session}})
	return r.wrap(err, "remove node %q", node)
}

// Nodes implements cluster.Registry.
func (r *Registry) Nodes(ctx context.Context) ([]cluster.Node, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	var list []cluster.Node
	cursor, err := r.nodes.Find(ctx, bson.D{}, options.Find().SetBatchSize(batch))
	if err == nil {
		list, err = all(ctx, r, "node", cursor, nodeRow.node)
	}
	if err != nil {
		return nil, r.wrap(err, "list nodes")
	}
	slices.SortFunc(list, func(a, b cluster.Node) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// Order implements cluster.Registry.
func (r *Registry) Order(ctx context.Context, node string, o cluster.Order) error {
	order := orderRow{Drain: o.Drain}
	if !o.Deadline.IsZero() {
		order.Deadline = &o.Deadline
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	res, err := r.nodes.UpdateOne(ctx, id(node), set(bson.D{{Key: "order", Value: order}}))
	if err == nil && res.MatchedCount == 0 {
		err = cluster.ErrNoNode
	}
	return r.wrap(err, "order to node %q", node)
}
