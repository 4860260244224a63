package mongo

import (
	"context"
	"errors"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"sluice/cluster"
)

// forget deletes what is gone for good: nodes at each call, and streams once every ForgetEvery.
func (r *Registry) forget(ctx context.Context) error {
	now := r.Now()
	since := bson.D{{Key: "$lt", Value: now.Add(-cluster.ForgetAfter)}}
	err := r.forgetNodes(ctx, bson.E{Key: "heartbeat", Value: since})
	if now.UnixNano()-r.forgotStreams.Load() >= int64(cluster.ForgetEvery) {
		r.forgotStreams.Store(now.UnixNano())
		err = errors.Join(err, r.forgetStreams(ctx, bson.E{Key: "changed", Value: since}))
	}
	return err
}

// forgetNodes deletes the rows of nodes that were not heard of.
func (r *Registry) forgetNodes(ctx context.Context, old bson.E) error {
	cursor, err := r.nodes.Find(ctx, bson.D{old}, options.Find().SetProjection(bson.D{{Key: "session", Value: 1}}))
	if err != nil {
		return err
	}
	var rows []nodeRow
	if err := cursor.All(ctx, &rows); err != nil || len(rows) == 0 {
		return err
	}
	for _, d := range rows {
		// First its session becomes void for ever, then its streams go, then the row: so whoever ends
		// in between leaves work for the next.
		this := bson.D{{Key: "_id", Value: d.ID}, {Key: "session", Value: d.Session}, old}
		fenced, err := r.nodes.UpdateOne(ctx, this, set(bson.D{{Key: "fenced", Value: true}}))
		if err != nil {
			return err
		}
		if fenced.MatchedCount == 0 {
			continue // it is back
		}
		if _, err := r.streams.DeleteMany(ctx, bson.D{{Key: "origin", Value: d.ID}, {Key: "session", Value: d.Session}}); err != nil {
			return err
		}
		if _, err := r.nodes.DeleteOne(ctx, this); err != nil {
			return err
		}
	}
	return nil
}

// forgetStreams deletes the rows of streams that were not written, and that nobody holds.
func (r *Registry) forgetStreams(ctx context.Context, old bson.E) error {
	if _, err := r.streams.DeleteMany(ctx, bson.D{{Key: "state", Value: string(cluster.Finished)}, old}); err != nil {
		return err
	}
	// Streams first: a session that holds one has joined before, and what is void stays void.
	of := options.Find().SetProjection(bson.D{{Key: "session", Value: 1}, {Key: "epoch", Value: 1}})
	cursor, err := r.streams.Find(ctx, bson.D{notFinished, old}, of)
	if err != nil {
		return err
	}
	var rows []streamRow
	if err := cursor.All(ctx, &rows); err != nil || len(rows) == 0 {
		return err
	}
	cursor, err = r.nodes.Find(ctx, bson.D{{Key: "fenced", Value: false}}, options.Find().SetProjection(bson.D{{Key: "session", Value: 1}}))
	if err != nil {
		return err
	}
	var nodes []nodeRow
	if err := cursor.All(ctx, &nodes); err != nil {
		return err
	}
	valid := map[int64]bool{}
	for _, d := range nodes {
		valid[d.Session] = true
	}
	for _, d := range rows {
		if valid[d.Session] {
			continue
		}
		if _, err := r.streams.DeleteOne(ctx, bson.D{{Key: "_id", Value: d.ID}, {Key: "session", Value: d.Session}, {Key: "epoch", Value: d.Epoch}}); err != nil {
			return err
		}
	}
	return nil
}
