// Package cluster says who is there, who holds what, and which node takes the
// next client: nodes with their sessions, streams with the session that holds them, and the
// Registry in which both are written down. docs/cluster.md tells how it works.
//
// Imports: media.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/media"
)

// Errors that a Registry returns; test for them with errors.Is.
var (
	// ErrStreamInUse: another node's publisher holds the stream, and that node's session lives. It comes
	// as an *InUse, which says until when.
	ErrStreamInUse = errors.New("stream is published by another node")
	// ErrLeaseLost: the stream has been taken over with a higher epoch, or has been
	// released; its holder must end its publisher and must not write again. Only a Resume tells for certain: the row
	// of a registry that was emptied is not there either, and a Resume writes it again.
	ErrLeaseLost = errors.New("stream lease was taken over")
	// ErrFenced: the node's session is void, because another node found its heartbeat too old and wanted one of its
	// streams, or because its row is gone. The node joins again, with a new session, and resumes its streams.
	ErrFenced = errors.New("node was fenced")
	// ErrReplaced: the node's row has another session: another process has joined under its id.
	ErrReplaced = errors.New("another process has joined under this node's id")
	// ErrIDInUse: another process runs under the id that this one was given.
	ErrIDInUse = errors.New("another process runs under this id")
	// ErrNoNode: there is no row of that node.
	ErrNoNode = errors.New("no such node in the cluster")
)

// SessionTTL is the age of a heartbeat, by the registry's clock, from which on another node may fence the node and take its
// streams: two missed beats and a half.
const SessionTTL = 2500 * time.Millisecond

// Role is what a node opens: a row in the node's table of ways in and out.
type Role string

const (
	Standalone Role = "standalone" // every way in and out, no relay
	Origin     Role = "origin"     // takes publishers
	Edge       Role = "edge"       // serves viewers; its way in is the relay
	Transcoder Role = "transcoder" // makes renditions for origins
)

// NodeState is what a node says of itself; whether it is alive is judged by
// the age of its heartbeat (Node.Alive).
type NodeState string

const (
	Ready    NodeState = "ready"    // takes work
	Draining NodeState = "draining" // serves what it has, takes nothing new
)

// Node is one process of the cluster as it described itself at its last heartbeat.
type Node struct {
	ID      string // unique, letters digits and '-', chosen by the node
	Session int64  // of this Join; random, over 0, never used twice
	Role    Role
	State   NodeState
	PID     int
	Host    string // host name, for people
	Region  string
	Version string

	HTTP     string // host:port of its signalling and API, plain HTTP
	Media    string // host:port of its WebRTC media, for people
	Relay    string // host:port of its relay (QUIC)
	RelayKey string // base64 SHA-256 of its relay certificate's SubjectPublicKeyInfo

	CPU    float64 // of the processors that it may use, 0 to 1, averaged over a few seconds
	Memory float64 // of the memory that it may use, 0 to 1
	Egress float64 // bits a second, to viewers and nodes
	// Load is the largest of its shares, 0 to 1, of what grows with its clients: CPU, and of their limits, if it has some, egress
	// and viewers. Placement and scaling go by it.
	Load    float64
	Full    string      // why it takes nobody new, in words; "": it does
	Serving []Serving   `json:",omitempty"` // streams that it can serve at this moment
	Backups []media.Key `json:",omitempty"` // streams whose backup publisher is here

	Started time.Time

	// These are written by the Registry alone; Join and Heartbeat take no notice of them.
	LastHeartbeat time.Time // by the registry's clock
	Fenced        bool      // its session is void
	Order         Order     // what an operator wants of it; ends with the process
}

// Order is what an operator wants of a node.
type Order struct {
	Drain    bool      // take no new work, tell clients to move, and end
	Deadline time.Time // by the registry's clock: when to end at the latest; zero: the node's own setting
}

// Serving is one stream a node holds, with the viewers it serves it to.
type Serving struct {
	Stream  media.Key
	Viewers int
}

// StreamState is what a stream's holder said last. It says nothing when the holder is gone: View.State does.
type StreamState string

const (
	Broadcasting StreamState = "broadcasting" // media flows
	Interrupted  StreamState = "interrupted"  // the publisher is silent; anyone may take over
	Leaving      StreamState = "leaving"      // media flows, but the node is about to go: anyone may take over
	Finished     StreamState = "finished"     // released
)

// Stream is the row of a stream: who holds it, and under which session. A stream has a second row
// for its backup publisher, with a holder and epochs of its own.
type Stream struct {
	Key     media.Key
	Backup  bool
	State   StreamState
	Origin  string    // node id
	Session int64     // of the origin; the stream is held while the origin's row has this session and is not fenced
	Epoch   int64     // grows with every Claim and Resume, never goes back (NextEpoch)
	Codecs  []string  // as last reported; empty from a Claim to the first Report
	Started time.Time // of this broadcast: of the Claim, unless that took over an Interrupted or Leaving stream
}

// Lease is the right of a node's session to publish a stream, until it is lost or released.
type Lease struct {
	Key     media.Key
	Backup  bool // as the stream's backup publisher
	Node    string
	Session int64
	Epoch   int64
}

// StreamInfo is what the holder of a lease reports.
type StreamInfo struct {
	State  StreamState // Broadcasting, Interrupted or Leaving
	Codecs []string    // names as in media.Codec, video first
}

// InUse is the error of a Claim that was refused. It is an ErrStreamInUse.
type InUse struct {
	Key    media.Key
	Origin string    // who holds it
	Until  time.Time // by the registry's clock: when its heartbeat will be SessionTTL old, if none comes
}

func (e *InUse) Error() string {
	return fmt.Sprintf("claim stream %q: %v: %s", e.Key, ErrStreamInUse, e.Origin)
}

// Unwrap makes it an ErrStreamInUse.
func (e *InUse) Unwrap() error { return ErrStreamInUse }

// Registry is the only state that nodes share. All methods may be called from
// any goroutine; each is one to three round trips and obeys its context. Names
// that media.NewKey refuses are refused with media.ErrBadKey where they would be
// written. Other errors than these and the sentinels above mean that the registry
// can't be reached (a write may then have been done or not): callers go on with what they know.
// Times are exact to a millisecond. A row that can't be read is left out of lists (BadRows).
//
// What is gone for good is forgotten by whoever joins, and by each process once every ForgetEvery at a heartbeat: nodes that were not heard of
// for ForgetAfter, and streams whose rows were not written for as long and that nobody holds: they are Finished, or their holder's
// session is void. Epochs grow all the same (NextEpoch), and a holder that comes back after all is known again when it joins and resumes.
//
// It needs no transactions: unique ids and compare-and-swap of one row are enough. A session that was void once is void for ever,
// since sessions are never used twice; so what was read of a void session stays true while the stream's row is swapped.
type Registry interface {
	// Join writes the node's row with its new session, replacing any row of that id: so a node that was killed is
	// back at once, and what the row's former session held is free. The caller never uses a session twice, not
	// even after an error.
	Join(ctx context.Context, n Node) error
	// Heartbeat writes the node's row and stamps LastHeartbeat, if the row still has n.Session and is not fenced; else
	// ErrFenced (fenced, or no row) or ErrReplaced (another session). Called by each node every second.
	Heartbeat(ctx context.Context, n Node) error
	// Leave deletes the node's row if it has that session; no error when it hasn't.
	Leave(ctx context.Context, id string, session int64) error
	// Nodes returns every row, dead ones included, ordered by ID. Gateways read them twice a second, and commands: a thousand
	// nodes are more than a megabyte.
	Nodes(ctx context.Context) ([]Node, error)
	// Peers returns rows as Nodes does, without Serving and Backups, which nodes don't need of each other. With self: only those of
	// nodes that can hold streams (all but edges), and of self.
	Peers(ctx context.Context, self string) ([]Node, error)
	// Viewers adds up who watches these streams, on all nodes that live (Node.Alive). Of streams that nobody has there is nothing.
	Viewers(ctx context.Context, keys ...media.Key) (map[media.Key]int, error)
	// Order sets a node's Order; heartbeats leave it as it is, and a Join of another process (Node.Process) clears it. ErrNoNode: there is no row.
	Order(ctx context.Context, id string, o Order) error

	// Claim takes the stream l.Key (its backup's row if l.Backup) for l.Node under l.Session, with the NextEpoch, higher than any
	// before; l.Epoch is not looked at. It succeeds when the stream has no row, is Interrupted, Leaving or Finished, is
	// l.Session's already, or when the holder's session is void: the holder's row is gone, has another session, or is
	// fenced. A session whose heartbeat is SessionTTL old (by the registry's clock) or older is fenced first, by
	// one compare-and-swap: id, session and heartbeat as they were read, not fenced. If that fails the holder lives. Else: an *InUse.
	// When several claim at once, exactly one wins. The stream is Broadcasting from here on.
	// Whether l.Session itself is valid is not looked at: a claim under a void session can be taken over at once.
	Claim(ctx context.Context, l Lease) (Lease, error)
	// Resume moves a lease to the node's new session, with the epoch after the lease's, and keeps all else: a compare-and-swap on the
	// lease. A row that is not there, or has an epoch below the lease's, is that of a registry which was emptied or brought
	// back from a copy: it is written anew, Broadcasting, with no codecs. ErrLeaseLost when the lease was taken over
	// or released. Doing it again with the same session gives the same lease: so a lost answer is no lost stream.
	Resume(ctx context.Context, l Lease, session int64) (Lease, error)
	// Report writes what the holder says of its stream; ErrLeaseLost when it was taken over or released. It is
	// not asked whether the lease's session is still valid. Called on each change.
	Report(ctx context.Context, l Lease, info StreamInfo) error
	// Release ends a lease; the row stays with its epoch, as Finished, for ForgetAfter.
	// Releasing a lost lease is ErrLeaseLost and changes nothing.
	Release(ctx context.Context, l Lease) error
	// Lookup returns the rows of the streams among keys that are known, backups' too, in any order, as they
	// were written: whether the holder lives is for View.State to say. One query, however many keys.
	Lookup(ctx context.Context, keys ...media.Key) ([]Stream, error)
	// Streams returns every row that is not Finished, as it was written, ordered by Key.String, backups after mains.
	Streams(ctx context.Context) ([]Stream, error)

	// Now is the registry's clock, as well as this process knows it. It does no I/O. All ages of
	// heartbeats are measured with it: the clocks of nodes may differ.
	Now() time.Time

	Close() error
}

// Change is what a Notifier says: one of the two is set.
type Change struct {
	Stream media.Key // a row of this stream was written
	Node   string    // this node joined, left, was fenced, or has another State or Order; mere heartbeats are not told
}

// Notifier is a Registry that can tell when something changed. A Directory polls all the same, as a change may get lost.
type Notifier interface {
	// Changes calls fn for each change, from one goroutine, until ctx ends or the feed breaks; then it returns, and may be
	// called again. fn does not block. An error that wraps errors.ErrUnsupported: this server can't, don't call again.
	Changes(ctx context.Context, fn func(Change)) error
}
