package rig

import (
	"errors"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/cluster/memory"
	"sluice/cluster/mongo"
	"sluice/cluster/mongo/mongotest"
)

// Store is what the registry of a cluster is kept in.
type Store interface {
	// Open opens one process's line to it.
	Open(t testing.TB) Line
}

// Line is one process's way to the registry.
type Line interface {
	cluster.Store
	Cut(off bool) // nothing gets through while it is off
}

// Memory is a store in this process.
func Memory() Store { return inMemory{memory.NewStore(time.Now)} }

type inMemory struct{ *memory.Store }

func (s inMemory) Open(testing.TB) Line { return s.Store.Open() }

// MongoDB is a database of a server; each process has a connection of its own.
func MongoDB(server *mongotest.Server, database string) *OnMongoDB {
	return &OnMongoDB{server: server, database: database}
}

// OnMongoDB is a Store.
type OnMongoDB struct {
	server   *mongotest.Server
	database string
	Lines    []*mongotest.Line // those that were opened, in order
}

// Open implements Store.
func (s *OnMongoDB) Open(t testing.TB) Line {
	t.Helper()
	line := s.server.Line(nil)
	r, err := mongo.Open(t.Context(), line.URL(s.database))
	if err != nil {
		t.Fatal(err)
	}
	s.Lines = append(s.Lines, line)
	return &mongoLine{Registry: r, line: line}
}

// mongoLine is a registry with what it comes through.
type mongoLine struct {
	*mongo.Registry
	line *mongotest.Line
}

func (w *mongoLine) Cut(off bool) { w.line.Cut(off) }

func (w *mongoLine) Close() error { return errors.Join(w.Registry.Close(), w.line.Close()) }
