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
	"sluice/media"
)

// nodeRow is a document of the collection nodes.
type nodeRow struct {
	ID        string    `bson:"_id"`
	Session   int64     `bson:"session"`
	Heartbeat time.Time `bson:"heartbeat"` // by the server's clock
	Fenced    bool      `bson:"fenced"`
	State     string    `bson:"state"` // as in Row: change streams tell of it
	Order     orderRow  `bson:"order"`
	Process   string    `bson:"process"` // cluster.Node.Process at the Join

	Notice    int64            `bson:"notice"`    // of Notify, the last one; 0: none since the Join
	Revisions map[string]int64 `bson:"revisions"` // the last notice of each kind of documents

	// What the node says of itself.
	Role    string       `bson:"role"`
	Serving []servingRow `bson:"serving"`
	Backups []string     `bson:"backups"`
	Row     string       `bson:"row"` // the rest of cluster.Node as JSON
}

type servingRow struct {
	Stream  string `bson:"stream"`
	Viewers int    `bson:"viewers"`
}

type orderRow struct {
	Drain    bool       `bson:"drain"`
	Deadline *time.Time `bson:"deadline"`
}

// rowOf is what a node says of itself.
func rowOf(n cluster.Node) (d nodeRow, err error) {
	if err := n.Check(); err != nil {
		return d, err
	}
	d = nodeRow{ID: n.ID, Session: n.Session, State: string(n.State), Role: string(n.Role), Serving: []servingRow{}, Backups: []string{}}
	for _, s := range n.Serving {
		d.Serving = append(d.Serving, servingRow{s.Stream.String(), s.Viewers})
	}
	for _, key := range n.Backups {
		d.Backups = append(d.Backups, key.String())
	}
	n.LastHeartbeat, n.Fenced, n.Order, n.Serving, n.Backups = time.Time{}, false, cluster.Order{}, nil, nil // these are fields of their own
	row, err := json.Marshal(n)
	d.Row = string(row)
	return d, err
}

// said is what a node says of itself, to be written.
func (d nodeRow) said() bson.D {
	return bson.D{{Key: "state", Value: d.State}, {Key: "role", Value: d.Role}, {Key: "serving", Value: d.Serving},
		{Key: "backups", Value: d.Backups}, {Key: "row", Value: d.Row}}
}

func (d nodeRow) node() (n cluster.Node, err error) {
	if err = json.Unmarshal([]byte(d.Row), &n); err != nil {
		return n, err
	}
	n.LastHeartbeat, n.Fenced, n.Order = d.Heartbeat, d.Fenced, cluster.Order{Drain: d.Order.Drain}
	if at := d.Order.Deadline; at != nil {
		n.Order.Deadline = *at
	}
	for _, s := range d.Serving {
		key, err := media.ParseKey(s.Stream)
		if err != nil {
			return n, err
		}
		n.Serving = append(n.Serving, cluster.Serving{Stream: key, Viewers: s.Viewers})
	}
	for _, b := range d.Backups {
		key, err := media.ParseKey(b)
		if err != nil {
			return n, err
		}
		n.Backups = append(n.Backups, key)
	}
	return n, nil
}

// Join implements cluster.Registry. It is not tried again after an error: a request that was late
// would bring a session to life that has been fenced.
func (r *Registry) Join(ctx context.Context, n cluster.Node) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	d, err := rowOf(n)
	if err == nil {
		// This clock may be why the node was fenced: it stands while a machine is suspended.
		err = r.ask(ctx)
	}
	if err == nil {
		d.Heartbeat, d.Process, d.Revisions = r.stamp(), n.Process(), map[string]int64{}
		again := false
		if again, err = r.rejoin(ctx, d); err == nil && !again {
			_, err = r.nodes.ReplaceOne(ctx, id(n.ID), d, options.Replace().SetUpsert(true))
		}
		if err == nil {
			r.revisions.Joined()
			r.noticed(n.ID, 0)
			_ = r.forget(ctx) // the next who joins does it
		}
	}
	return r.wrap(err, "join as node %q", n.ID)
}

// rejoin writes the row if it is the same process's already: then an order to it stays.
func (r *Registry) rejoin(ctx context.Context, d nodeRow) (done bool, err error) {
	if d.Process == "" {
		return false, nil
	}
	res, err := r.nodes.UpdateOne(ctx, bson.D{{Key: "_id", Value: d.ID}, {Key: "process", Value: d.Process}}, set(append(d.said(),
		bson.E{Key: "session", Value: d.Session}, bson.E{Key: "heartbeat", Value: d.Heartbeat}, bson.E{Key: "fenced", Value: false})))
	return err == nil && res.MatchedCount > 0, err
}

func id(id string) bson.D { return bson.D{{Key: "_id", Value: id}} }

func set(fields bson.D) bson.D { return bson.D{{Key: "$set", Value: fields}} }

// Heartbeat implements cluster.Registry.
func (r *Registry) Heartbeat(ctx context.Context, n cluster.Node) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	d, err := rowOf(n)
	if err != nil {
		return r.wrap(err, "heartbeat of node %q", n.ID)
	}
	for range beatTries {
		var res *driver.UpdateResult
		res, err = r.nodes.UpdateOne(ctx,
			bson.D{{Key: "_id", Value: n.ID}, {Key: "session", Value: n.Session}, {Key: "fenced", Value: false}, {Key: "notice", Value: r.lastNotice(n.ID)}},
			set(append(d.said(), bson.E{Key: "heartbeat", Value: r.stamp()})))
		if err == nil && res.MatchedCount == 0 {
			err = r.whyNot(ctx, n)
		}
		if !errors.Is(err, errAgain) {
			break
		}
	}
	if err == nil && r.Now().UnixNano()-r.forgotStreams.Load() >= int64(cluster.ForgetEvery) {
		_ = r.forget(ctx) // the next one does it
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

// nodeRow reads a node's row, without most of what the node says of itself.
func (r *Registry) nodeRow(ctx context.Context, node string) (d nodeRow, found bool, err error) {
	err = r.nodes.FindOne(ctx, id(node), options.FindOne().SetProjection(bson.D{{Key: "row", Value: 0}, {Key: "serving", Value: 0}, {Key: "backups", Value: 0}})).Decode(&d)
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
	return r.find(ctx, bson.D{})
}

// Peers implements cluster.Registry.
func (r *Registry) Peers(ctx context.Context, self string) ([]cluster.Node, error) {
	filter := bson.D{}
	if self != "" {
		filter = bson.D{{Key: "$or", Value: bson.A{id(self), bson.D{{Key: "role", Value: bson.D{{Key: "$ne", Value: string(cluster.Edge)}}}}}}}
	}
	return r.find(ctx, filter, "serving", "backups")
}

// find reads rows without these fields.
func (r *Registry) find(ctx context.Context, filter bson.D, without ...string) ([]cluster.Node, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	fields := bson.D{}
	for _, name := range append(without, "process", "notice", "revisions") {
		fields = append(fields, bson.E{Key: name, Value: 0})
	}
	var list []cluster.Node
	cursor, err := r.nodes.Find(ctx, filter, options.Find().SetBatchSize(batch).SetProjection(fields))
	if err == nil {
		list, err = all(ctx, r, "node", cursor, nodeRow.node)
	}
	if err != nil {
		return nil, r.wrap(err, "list nodes")
	}
	slices.SortFunc(list, func(a, b cluster.Node) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// Viewers implements cluster.Registry. The server adds up, so that not all rows are read.
func (r *Registry) Viewers(ctx context.Context, keys ...media.Key) (map[media.Key]int, error) {
	names := bson.A{}
	for _, k := range keys {
		if cluster.CheckKey(k) == nil { // else there is no such stream, and it may be no text at all
			names = append(names, k.String())
		}
	}
	viewers := map[media.Key]int{}
	if len(names) == 0 {
		return viewers, ctx.Err()
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	asked := bson.E{Key: "serving.stream", Value: bson.D{{Key: "$in", Value: names}}}
	cursor, err := r.nodes.Aggregate(ctx, driver.Pipeline{
		{{Key: "$match", Value: bson.D{asked, {Key: "fenced", Value: false}, {Key: "heartbeat", Value: bson.D{{Key: "$gt", Value: r.Now().Add(-cluster.DeadAfter)}}}}}},
		{{Key: "$unwind", Value: "$serving"}},
		{{Key: "$match", Value: bson.D{asked}}},
		{{Key: "$group", Value: bson.D{{Key: "_id", Value: "$serving.stream"}, {Key: "viewers", Value: bson.D{{Key: "$sum", Value: "$serving.viewers"}}}}}},
	})
	var sums []struct {
		Stream  string `bson:"_id"`
		Viewers int    `bson:"viewers"`
	}
	if err == nil {
		err = cursor.All(ctx, &sums)
	}
	for _, s := range sums {
		if key, bad := media.ParseKey(s.Stream); bad == nil {
			viewers[key] = s.Viewers
		}
	}
	return viewers, r.wrap(err, "count the viewers of %d streams", len(keys))
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
