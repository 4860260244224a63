// Package mongo is the cluster's registry on a MongoDB server, or on one that speaks its protocol: a cluster of many
// machines shares it. It asks for unique ids and for the compare-and-swap of one document, and for nothing else, so that it is right on a
// lone server, a replica set, and the services that clouds offer.
//
// Imports: media, cluster.
package mongo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	neturl "net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	monitor "go.mongodb.org/mongo-driver/v2/event"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"sluice/cluster"
)

const (
	defaultDatabase = "sluice"

	// What the URL does not say. callWithin bounds calls whose context has no end, and is long enough for an election.
	selectWithin  = 3 * time.Second
	connectWithin = 3 * time.Second
	callWithin    = 5 * time.Second
	// connections of one process: it has a few calls under way, and a change stream waits in one.
	connections = 8

	openWithin  = 10 * time.Second
	closeWithin = 2 * time.Second
)

// Registry is a cluster.Store and a cluster.Notifier.
type Registry struct {
	client        *driver.Client
	nodes         *driver.Collection
	streams       *driver.Collection
	documents     *driver.Collection
	where         string        // hosts and database, for errors; never a password
	timeout       time.Duration // of every call, if the URL has one
	clock         clock
	doubt         chan struct{}    // the clock must be measured at once
	forgotStreams atomic.Int64     // when streams were looked for that are gone for good, in Unix nanoseconds
	fixed         func() time.Time // a test's clock
	log           *slog.Logger
	bad           *cluster.BadRows

	turns     chan struct{} // of calls on documents
	revisions cluster.Revisions
	mu        sync.Mutex
	notices   map[string]int64 // of nodes' rows, as last seen

	stop    context.CancelFunc
	running sync.WaitGroup
}

var (
	_ cluster.Store    = (*Registry)(nil)
	_ cluster.Notifier = (*Registry)(nil)
)

// Option changes how Open works.
type Option func(*Registry)

// WithClock replaces the server's clock.
func WithClock(now func() time.Time) Option { return func(r *Registry) { r.fixed = now } }

// WithLog says where rows are told of that can't be read.
func WithLog(log *slog.Logger) Option { return func(r *Registry) { r.log = log } }

// Open connects to the server that a mongodb:// or mongodb+srv:// URL names, and makes the collections' indexes. The
// database is that of the URL's path, or "sluice". Errors say what to do, and never repeat the URL: it may hold a password.
func Open(ctx context.Context, url string, opts ...Option) (*Registry, error) {
	o, database, err := parse(url)
	if err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	r := &Registry{where: fmt.Sprintf("%s, database %s", hosts(o.Hosts), database)}
	pool := *o.MaxPoolSize
	if pool == 0 { // as many as it likes
		pool = connections
	}
	r.turns = make(chan struct{}, max(1, pool/2))
	if o.Timeout != nil {
		r.timeout = *o.Timeout
	}
	for _, opt := range opts {
		opt(r)
	}
	r.bad = cluster.NewBadRows(r.log)
	r.doubt = make(chan struct{}, 1)
	o.SetServerMonitor(&monitor.ServerMonitor{TopologyDescriptionChanged: r.elected})
	if r.client, err = driver.Connect(o); err != nil {
		return nil, fmt.Errorf("open registry: %w", badURL(err))
	}
	db := r.client.Database(database)
	r.nodes, r.streams, r.documents = db.Collection("nodes"), db.Collection("streams"), db.Collection("documents")
	if err := r.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open registry: %w", err), r.disconnect())
	}
	ctx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	r.running.Go(func() { r.keepTime(ctx) })
	return r, nil
}

// parse reads a URL and adds what a registry needs.
func parse(url string) (o *options.ClientOptions, database string, err error) {
	_, rest, _ := strings.Cut(url, "://")
	rest, _, _ = strings.Cut(rest, "?")
	_, name, _ := strings.Cut(rest, "/")
	if database, err = neturl.PathUnescape(name); err != nil || database == "" {
		database = defaultDatabase
	}
	o = options.Client().ApplyURI(url) // looks mongodb+srv up in DNS
	if err := o.Validate(); err != nil {
		return nil, "", badURL(err)
	}
	if o.AppName == nil {
		o.SetAppName("sluice")
	}
	if o.ServerSelectionTimeout == nil {
		o.SetServerSelectionTimeout(selectWithin)
	}
	if o.ConnectTimeout == nil {
		o.SetConnectTimeout(connectWithin)
	}
	if o.MaxPoolSize == nil {
		o.SetMaxPoolSize(connections)
	}
	// What is not known by the majority can be lost with the primary, and a lease with it; whatever the URL says.
	o.SetWriteConcern(writeconcern.Majority()).SetReadConcern(readconcern.Majority()).SetReadPreference(readpref.Primary())
	return o, database, nil
}

// prepare finds out whether the server can be used.
func (r *Registry) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	if err := r.measure(ctx); err != nil {
		return r.explain(err)
	}
	// Streams that were published once and are not now stay as rows: this index finds the others.
	_, err := r.streams.Indexes().CreateOne(ctx, driver.IndexModel{Keys: bson.D{{Key: "state", Value: 1}, {Key: "changed", Value: 1}}})
	for _, index := range documentIndexes() { // FerretDB breaks off when it is asked for many that it has
		if err == nil {
			_, err = r.documents.Indexes().CreateOne(ctx, index)
		}
	}
	return r.explain(err)
}

// Close ends all connections; calls after it fail.
func (r *Registry) Close() error {
	r.stop()
	r.running.Wait()
	if err := r.disconnect(); err != nil && !errors.Is(err, driver.ErrClientDisconnected) {
		return fmt.Errorf("close registry: %w", err)
	}
	return nil
}

func (r *Registry) disconnect() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	return r.client.Disconnect(ctx)
}

// all reads the documents of a cursor as D, and passes over those that are none.
func all[D, T any](ctx context.Context, r *Registry, kind string, cursor *driver.Cursor, read func(D) (T, error)) (list []T, err error) {
	defer func() { _ = cursor.Close(context.WithoutCancel(ctx)) }() // the server forgets it by itself
	for cursor.Next(ctx) {
		var d D
		var v T
		why := cursor.Decode(&d)
		if why == nil {
			v, why = read(d)
		}
		if why == nil {
			list = append(list, v)
			continue
		}
		id, _ := cursor.Current.Lookup("_id").StringValueOK()
		row, _ := cursor.Current.Lookup("row").StringValueOK()
		var by struct{ Version string }
		_ = json.Unmarshal([]byte(row), &by) // a stream's row has none
		r.bad.Skip(kind+" "+id, by.Version, why)
	}
	return list, cursor.Err()
}

// bound ends a call that nobody else would end.
func bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, callWithin)
}

// wrap says what failed.
func (r *Registry) wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	err = r.explain(err)
	var f *failure
	if errors.As(err, &f) {
		r.doubtClock() // whoever answers next may have another
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}
