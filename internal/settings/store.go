package settings

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/cluster"
)

// Kind of the documents.
const Kind = "settings"

const (
	appDocument     = "application" // in the application's group
	clusterDocument = "cluster"
	deleted         = "deleted" // State of an application that was there
	attempts        = 8         // of compare-and-swap
	within          = 3 * time.Second
)

// Config of a Store.
type Config struct {
	Apps     []string // that exist from the start
	Defaults App      // of applications, where nothing else was said
	// Check refuses values that those who use them can't; nil: none. Its text is for people.
	Check func(App) error
	Log   *slog.Logger // default slog.Default()
}

// Version is one state of settings: of an App or of the Cluster.
type Version[T any] struct {
	Number   int       `json:"version" doc:"0: as sluice.yaml has it, nobody has changed it."`
	At       time.Time `json:"at,omitzero"`
	By       string    `json:"by,omitempty"`
	Note     string    `json:"note,omitempty" doc:"Such as: roll-back to version 3."`
	Settings T         `json:"settings"`
}

// Store holds the settings. Reading costs nothing and never waits.
type Store struct {
	docs     cluster.Documents
	cfg      Config
	defaults json.RawMessage // of an application
	state    atomic.Pointer[state]

	loading sync.Mutex // held by Load
	changed []func()   // see OnChange
}

// state is what was read last. It is immutable, and so are the settings in it.
type state struct {
	apps    map[string]App
	names   []string // sorted
	cluster Cluster
	seen    map[string]int64 // versions of documents by group and id
}

// body is a document's: all that is kept of the versions, the newest last.
type body struct {
	Versions []Version[json.RawMessage] `json:"versions"`
}

func (b body) last() Version[json.RawMessage] {
	if len(b.Versions) == 0 {
		return Version[json.RawMessage]{}
	}
	return b.Versions[len(b.Versions)-1]
}

// New does no I/O: Load reads. Until then all is as the configuration says.
func New(docs cluster.Documents, cfg Config) (*Store, error) {
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	if cfg.Check == nil {
		cfg.Check = func(App) error { return nil }
	}
	defaults, err := json.Marshal(cfg.Defaults)
	if err != nil {
		return nil, fmt.Errorf("write the default settings: %w", err)
	}
	s := &Store{docs: docs, cfg: cfg, defaults: defaults}
	first, err := s.build(nil)
	if err != nil {
		return nil, err
	}
	s.state.Store(first)
	return s, nil
}

// Apps are the names of the applications, sorted. The list is not to be changed.
func (s *Store) Apps() []string { return s.state.Load().names }

// App is what holds for an application; false: there is none. Its lists are not to be changed.
func (s *Store) App(name string) (App, bool) {
	a, ok := s.state.Load().apps[name]
	return a, ok
}

// Cluster is what holds for the cluster.
func (s *Store) Cluster() Cluster { return s.state.Load().cluster }

// OnChange has fn called after something has changed, by one goroutine at a time. It is called before Load is.
func (s *Store) OnChange(fn func()) { s.changed = append(s.changed, fn) }

// Load reads the registry: at the start, and when it has told of a change (cluster.Watch).
func (s *Store) Load(ctx context.Context) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	var docs []cluster.Document
	err := cluster.EachDocument(ctx, s.docs, cluster.Query{Kind: Kind, AllGroups: true}, func(d cluster.Document) error {
		docs = append(docs, d)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the settings: %w", err)
	}
	next, err := s.build(docs)
	if err != nil {
		return err
	}
	if maps.Equal(next.seen, s.state.Load().seen) {
		return nil
	}
	s.state.Store(next)
	s.cfg.Log.Info("settings were changed", "applications", len(next.names))
	for _, fn := range s.changed {
		fn()
	}
	return nil
}

// build makes a state of documents. One that can't be read, as of a later version of the program, leaves what was known.
func (s *Store) build(docs []cluster.Document) (*state, error) {
	next := &state{apps: map[string]App{}, seen: map[string]int64{}}
	for _, name := range s.cfg.Apps {
		a, err := s.app(nil)
		if err != nil {
			return nil, err
		}
		next.apps[name] = a
	}
	for _, d := range docs {
		next.seen[d.Group+"/"+d.ID] = d.Version
		var b body
		err := json.Unmarshal(d.Body, &b)
		switch {
		case err != nil:
		case d.ID == clusterDocument && d.Group == "":
			next.cluster, err = decode[Cluster](nil, b.last().Settings)
		case d.ID == appDocument && d.State == deleted:
			delete(next.apps, d.Group)
		case d.ID == appDocument && d.Group != "":
			next.apps[d.Group], err = s.app(b.last().Settings)
		}
		if err != nil {
			s.cfg.Log.Error("settings in the registry can't be read: those from before hold", "application", d.Group, "error", err)
			s.keep(next, d.Group)
		}
	}
	next.names = slices.Sorted(maps.Keys(next.apps))
	return next, nil
}

// keep takes over what was known of an application, or of the cluster.
func (s *Store) keep(next *state, group string) {
	before := s.state.Load()
	if before == nil {
		return
	}
	if group == "" {
		next.cluster = before.cluster
	} else if a, ok := before.apps[group]; ok {
		next.apps[group] = a
	}
}

// app is what somebody said of an application, and the defaults for all else.
func (s *Store) app(said json.RawMessage) (App, error) {
	a, err := decode[App](s.defaults, said)
	a.Origins, a.Ladder.Rungs = noNull(a.Origins), noNull(a.Ladder.Rungs)
	return a, err
}

// noNull is a list that JSON has as [] when it is empty.
func noNull(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}

// decode reads settings over their defaults.
func decode[T any](defaults, said json.RawMessage) (v T, err error) {
	for _, b := range []json.RawMessage{defaults, said} {
		if len(b) > 0 && err == nil {
			err = json.Unmarshal(b, &v)
		}
	}
	return v, err
}

// Change is who changes settings, and of which version.
type Change struct {
	By      string
	Note    string
	Version int // the one that was seen; -1: whatever it is
}

// SetApp changes an application's settings, which edit gets as they are; ErrNoApp, ErrBad, ErrChanged. Every node has them within two seconds.
func (s *Store) SetApp(ctx context.Context, app string, c Change, edit func(*App) error) (Version[App], error) {
	if _, ok := s.App(app); !ok {
		return Version[App]{}, ErrNoApp
	}
	v, err := s.write(ctx, app, c, "", func(d cluster.Document, old json.RawMessage) (any, error) {
		if d.State == deleted {
			return nil, ErrNoApp
		}
		a, err := s.app(old)
		if err == nil {
			err = edit(&a)
		}
		if err == nil {
			err = s.checkApp(a)
		}
		return a, err
	})
	if err != nil {
		return Version[App]{}, err
	}
	return typed(v, s.app)
}

func (s *Store) checkApp(a App) error {
	if err := a.check(); err != nil {
		return err
	}
	if err := s.cfg.Check(a); err != nil {
		return fmt.Errorf("%w: %w", ErrBad, err)
	}
	return nil
}

// SetCluster changes the cluster's.
func (s *Store) SetCluster(ctx context.Context, c Change, edit func(*Cluster) error) (Version[Cluster], error) {
	v, err := s.write(ctx, "", c, "", func(_ cluster.Document, old json.RawMessage) (any, error) {
		next, err := decode[Cluster](nil, old)
		if err == nil {
			err = edit(&next)
		}
		if err == nil {
			err = next.check()
		}
		return next, err
	})
	if err != nil {
		return Version[Cluster]{}, err
	}
	return typed(v, clusterOf)
}

func clusterOf(said json.RawMessage) (Cluster, error) { return decode[Cluster](nil, said) }

// AddApp makes an application with the default settings. One that was deleted begins anew.
func (s *Store) AddApp(ctx context.Context, app, by string) error {
	if err := CheckName(app); err != nil {
		return err
	}
	_, err := s.write(ctx, app, Change{By: by, Note: "application made", Version: -1}, "", func(d cluster.Document, _ json.RawMessage) (any, error) {
		if d.Version == 0 && slices.Contains(s.cfg.Apps, app) || d.Version != 0 && d.State != deleted {
			return nil, ErrAppExists
		}
		return s.app(nil)
	})
	return err
}

// RemoveApp makes an application be none. What its streams do is for who asks.
func (s *Store) RemoveApp(ctx context.Context, app, by string) error {
	if _, ok := s.App(app); !ok {
		return ErrNoApp
	}
	_, err := s.write(ctx, app, Change{By: by, Note: "application deleted", Version: -1}, deleted, func(d cluster.Document, old json.RawMessage) (any, error) {
		if d.State == deleted {
			return nil, ErrNoApp
		}
		return s.app(old)
	})
	return err
}

// RollBackApp makes a new version of an application's settings that is as an older one was.
func (s *Store) RollBackApp(ctx context.Context, app, by string, to int) (Version[App], error) {
	old, err := find(s.AppVersions(ctx, app))(to)
	if err != nil {
		return old, err
	}
	return s.SetApp(ctx, app, rollBack(by, to), func(a *App) error { *a = old.Settings; return nil })
}

// RollBackCluster does so with the cluster's.
func (s *Store) RollBackCluster(ctx context.Context, by string, to int) (Version[Cluster], error) {
	old, err := find(s.ClusterVersions(ctx))(to)
	if err != nil {
		return old, err
	}
	return s.SetCluster(ctx, rollBack(by, to), func(c *Cluster) error { *c = old.Settings; return nil })
}

func rollBack(by string, to int) Change {
	return Change{By: by, Note: fmt.Sprintf("roll-back to version %d", to), Version: -1}
}

func find[T any](list []Version[T], err error) func(int) (Version[T], error) {
	return func(number int) (none Version[T], _ error) {
		for _, v := range list {
			if v.Number == number {
				return v, nil
			}
		}
		return none, cmp.Or(err, ErrNoVersion)
	}
}

// AppVersions are those that are kept of an application's settings, the newest first; the last is what sluice.yaml says, as long as it is kept.
func (s *Store) AppVersions(ctx context.Context, app string) ([]Version[App], error) {
	d, b, err := s.read(ctx, app)
	if err != nil {
		return nil, err
	}
	if d.State == deleted || d.Version == 0 && !slices.Contains(s.cfg.Apps, app) {
		return nil, ErrNoApp
	}
	return list(b, s.app)
}

// ClusterVersions are the cluster's.
func (s *Store) ClusterVersions(ctx context.Context) ([]Version[Cluster], error) {
	_, b, err := s.read(ctx, "")
	if err != nil {
		return nil, err
	}
	return list(b, clusterOf)
}

func list[T any](b body, decode func(json.RawMessage) (T, error)) (all []Version[T], err error) {
	if len(b.Versions) == 0 || b.Versions[0].Number == 1 {
		b.Versions = append([]Version[json.RawMessage]{{}}, b.Versions...)
	}
	for _, v := range slices.Backward(b.Versions) {
		t, err := typed(v, decode)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

func typed[T any](v Version[json.RawMessage], decode func(json.RawMessage) (T, error)) (Version[T], error) {
	settings, err := decode(v.Settings)
	if err != nil {
		return Version[T]{}, fmt.Errorf("read version %d of the settings: %w", v.Number, err)
	}
	return Version[T]{v.Number, v.At, v.By, v.Note, settings}, nil
}

func documentOf(group string) string {
	if group == "" {
		return clusterDocument
	}
	return appDocument
}

// read gets the document of an application or the cluster; one with Version 0 where there is none.
func (s *Store) read(ctx context.Context, group string) (d cluster.Document, b body, err error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	d, err = s.docs.Get(ctx, Kind, group, documentOf(group))
	switch {
	case errors.Is(err, cluster.ErrNoDocument):
		return cluster.Document{Kind: Kind, Group: group, ID: documentOf(group)}, b, nil
	case errors.Is(err, cluster.ErrBadDocument):
		return d, b, ErrNoApp
	case err != nil:
		return d, b, fmt.Errorf("%w: read settings: %w", ErrUnavailable, err)
	}
	if err = json.Unmarshal(d.Body, &b); err != nil {
		err = fmt.Errorf("read settings of %q: %w", group, err)
	}
	return d, b, err
}

// write adds a version, which next makes of the one before, and tells all nodes.
func (s *Store) write(ctx context.Context, group string, c Change, state string, next func(cluster.Document, json.RawMessage) (any, error)) (Version[json.RawMessage], error) {
	for range attempts {
		d, b, err := s.read(ctx, group)
		if err != nil {
			return Version[json.RawMessage]{}, err
		}
		last := b.last()
		if c.Version >= 0 && c.Version != last.Number {
			return last, fmt.Errorf("%w: they have version %d now", ErrChanged, last.Number)
		}
		made, err := next(d, last.Settings)
		if err != nil {
			return last, err
		}
		raw, err := json.Marshal(made)
		if err != nil {
			return last, fmt.Errorf("write settings: %w", err)
		}
		if len(raw) > maxSettings {
			return last, fmt.Errorf("%w: they are %d bytes, of at most %d", ErrBad, len(raw), maxSettings)
		}
		if d.Version != 0 && d.State == state && bytes.Equal(raw, last.Settings) {
			return last, nil // nothing has changed
		}
		v := Version[json.RawMessage]{Number: last.Number + 1, At: s.docs.Now().UTC().Truncate(time.Millisecond), By: c.By, Note: c.Note, Settings: raw}
		done, err := s.put(ctx, d, b, v, state)
		if err != nil || done {
			return v, err
		}
	}
	return Version[json.RawMessage]{}, ErrChanged
}

// put is one attempt: false when somebody was faster.
func (s *Store) put(ctx context.Context, d cluster.Document, b body, v Version[json.RawMessage], state string) (bool, error) {
	b.Versions = append(b.Versions, v)
	b.Versions = b.Versions[max(0, len(b.Versions)-maxKept):]
	for {
		var err error
		if d.Body, err = json.Marshal(b); err != nil {
			return false, fmt.Errorf("write settings: %w", err)
		}
		if len(d.Body) <= maxDocument {
			break
		}
		b.Versions = b.Versions[1:]
	}
	d.State, d.At = state, v.At
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	_, err := s.docs.Put(ctx, d)
	switch {
	case errors.Is(err, cluster.ErrConflict), errors.Is(err, cluster.ErrExists), errors.Is(err, cluster.ErrNoDocument):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("%w: write settings: %w", ErrUnavailable, err)
	}
	if err := s.docs.Notify(ctx, Kind); err != nil {
		s.cfg.Log.Warn("settings were written, but other nodes could not be told: they have them within a minute", "error", err)
	}
	if err := s.Load(ctx); err != nil { // the registry was there a moment ago; the watch does it again
		s.cfg.Log.Warn("settings were written, and are not read yet", "error", err)
	}
	return true, nil
}
