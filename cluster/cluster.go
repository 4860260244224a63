// Package cluster says who is there, who holds what, and which node takes the
// next client: nodes with their heartbeats, streams with their lease, and the
// Registry in which both are written down.
//
// Imports: media.
package cluster

import (
	"context"
	"errors"
	"time"

	"sluice/media"
)

// Errors that a Registry returns; test for them with errors.Is.
var (
	// ErrStreamInUse: another node's publisher holds a live lease on the stream.
	ErrStreamInUse = errors.New("stream is published by another node")
	// ErrLeaseLost: the lease has been taken over with a higher epoch, or has been
	// released; its holder must end its publisher and must not write again.
	ErrLeaseLost = errors.New("stream lease was taken over")
)

// Role is what a node opens: a row in the node's table of ways in and out.
type Role string

const (
	Standalone Role = "standalone" // every way in and out, no relay
	Origin     Role = "origin"     // takes publishers
	Edge       Role = "edge"       // serves viewers; its way in is the relay
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
	Full    string    // why it takes nobody new, in words; "": it does
	Serving []Serving // streams that it can serve at this moment

	Started       time.Time
	LastHeartbeat time.Time // stamped by the Registry
}

// Serving is one stream a node holds, with the viewers it serves it to.
type Serving struct {
	Stream  media.Key
	Viewers int
}

// StreamState is the state of a stream's lease.
type StreamState string

const (
	Broadcasting StreamState = "broadcasting" // media flows
	Interrupted  StreamState = "interrupted"  // the publisher is silent; anyone may take over
	Finished     StreamState = "finished"     // released, or its lease ran out
)

// Stream is a stream and the lease under which its origin holds it.
type Stream struct {
	Key        media.Key
	State      StreamState
	Origin     string    // node id
	Epoch      int64     // grows with every claim, never goes back
	Codecs     []string  // as last reported; empty from a Claim to the first Renew
	Started    time.Time // when this broadcast began; a takeover of a lease that still ran keeps it
	LeaseUntil time.Time
}

// Lease is the right to publish a stream until it is lost or released.
type Lease struct {
	Key   media.Key
	Node  string
	Epoch int64
}

// StreamInfo is what the holder of a lease reports with each renewal.
type StreamInfo struct {
	State  StreamState // Broadcasting or Interrupted
	Codecs []string    // names as in media.Codec, video first
}

// Registry is the only state that nodes share. All methods may be called from
// any goroutine; each is one or two round trips and obeys its context. Names
// that media.NewKey refuses are refused with media.ErrBadKey where they would be
// written. Other errors than these and the sentinels above mean that the registry
// can't be reached: callers go on with what they know. Times are exact to a millisecond.
type Registry interface {
	// Heartbeat writes the node's row and stamps LastHeartbeat. Called by each
	// node every second or two.
	Heartbeat(ctx context.Context, n Node) error
	// RemoveNode deletes a node's row; no error when there is none.
	RemoveNode(ctx context.Context, id string) error
	// Nodes returns every row, dead ones included, ordered by ID.
	Nodes(ctx context.Context) ([]Node, error)

	// Claim takes the lease on a stream for a node for ttl, with an epoch higher than any
	// before. It succeeds when nobody holds a live lease, when the holder is the
	// same node, or when the holder said Interrupted; else ErrStreamInUse.
	// When several claim at once, exactly one wins. The stream is Broadcasting from here on.
	Claim(ctx context.Context, key media.Key, node string, ttl time.Duration) (Lease, error)
	// Renew extends a lease and reports the stream; ErrLeaseLost when it was taken over or released.
	// A lease that ran out and that nobody took is renewed: so holders catch up after an outage.
	Renew(ctx context.Context, l Lease, info StreamInfo, ttl time.Duration) error
	// Release ends a lease; the row stays with its epoch, as Finished.
	// Releasing a lost lease is ErrLeaseLost and changes nothing.
	Release(ctx context.Context, l Lease) error
	// Lookup returns the streams among keys that are known, in any order. A
	// lease that ran out reads as Finished. One query, however many keys.
	Lookup(ctx context.Context, keys ...media.Key) ([]Stream, error)
	// Streams returns every stream that is not Finished, ordered by Key.String.
	Streams(ctx context.Context) ([]Stream, error)

	Close() error
}
