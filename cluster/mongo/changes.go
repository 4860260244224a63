package mongo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"sluice/cluster"
	"sluice/media"
)

// awaitChange is how long the server keeps a question for changes that has no answer yet.
const awaitChange = 20 * time.Second

// Changes implements cluster.Notifier with a change stream of the database. The server leaves out
// heartbeats, of which there are most: every process would get those of every node.
func (r *Registry) Changes(ctx context.Context, fn func(cluster.Change)) error {
	await := awaitChange
	if r.timeout > 0 { // as long as the URL lets any call last
		await = min(await, r.timeout/2)
	}
	feed, err := r.nodes.Database().Watch(ctx, worthTelling(), options.ChangeStream().SetMaxAwaitTime(await))
	if err != nil {
		if refused(err) {
			err = fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
		}
		return r.wrap(err, "watch for changes")
	}
	defer func() { _ = feed.Close(context.WithoutCancel(ctx)) }() // the server forgets it by itself
	for feed.Next(ctx) {
		var e event
		if err := feed.Decode(&e); err != nil {
			return r.wrap(err, "watch for changes")
		}
		if c, ok := e.change(); ok {
			fn(c)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return r.wrap(feed.Err(), "watch for changes")
}

// worthTelling is the pipeline of the change stream.
func worthTelling() driver.Pipeline {
	changed := func(field string) bson.D {
		return bson.D{{Key: "updateDescription.updatedFields." + field, Value: bson.D{{Key: "$exists", Value: true}}}}
	}
	return driver.Pipeline{
		{{Key: "$match", Value: bson.D{{Key: "$or", Value: bson.A{
			bson.D{{Key: "ns.coll", Value: "streams"}},
			bson.D{{Key: "ns.coll", Value: "nodes"}, {Key: "$or", Value: bson.A{
				bson.D{{Key: "operationType", Value: bson.D{{Key: "$in", Value: bson.A{"insert", "replace", "delete"}}}}},
				changed("session"), changed("state"), changed("fenced"), changed("order"),
			}}},
		}}}}},
		{{Key: "$project", Value: bson.D{{Key: "ns", Value: 1}, {Key: "documentKey", Value: 1}}}},
	}
}

// event is what a change stream tells.
type event struct {
	NS struct {
		Coll string `bson:"coll"`
	} `bson:"ns"`
	DocumentKey struct {
		ID string `bson:"_id"`
	} `bson:"documentKey"`
}

func (e event) change() (c cluster.Change, ok bool) {
	switch e.NS.Coll {
	case "nodes":
		return cluster.Change{Node: e.DocumentKey.ID}, true
	case "streams":
		key, err := media.ParseKey(strings.TrimSuffix(e.DocumentKey.ID, "/backup"))
		return cluster.Change{Stream: key}, err == nil
	}
	return c, false
}

// passing are the errors of a server that loses or takes over the primary's part, or is overloaded; as in MongoDB's
// specification of retryable reads.
var passing = []int{6, 7, 50, 89, 91, 133, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436}

// refused reports that the server has understood a command and does not want to do it, now or later.
func refused(err error) bool {
	var e driver.CommandError
	return errors.As(err, &e) && !driver.IsNetworkError(err) && !driver.IsTimeout(err) && !slices.Contains(passing, int(e.Code))
}
