// Package relay is what two nodes say to each other when one takes a stream from the other: the frames on
// the wire, the bounded queue they wait in, and the keys by which nodes know each other. The protocol is
// described in docs/protocols/relay.md.
//
// Imports: media.
package relay

import (
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"

	"sluice/media"
)

// Version is the highest version of the protocol that this code speaks. A change that an older
// peer could misread makes it grow. Version 2 has the tree, version 3 renditions, version 4 dependency descriptors; older peers are served and asked as before.
const Version = 4

// alpn is the protocol's name in the TLS handshake (RFC 7301).
const alpn = "sluice-relay/1"

// Limits of what a peer may send. What is longer ends the connection.
const (
	MaxMessage = 256 << 10 // one message of the data channel, in bytes: what browsers take at most
	MaxTracks  = 32        // tracks of a stream
	MaxPath    = 64        // nodes on the way of a stream
	MaxAvoid   = 16        // nodes that an asker names
	MaxRegions = 32        // regions below a node
	MaxBelow   = 1<<31 - 1 // nodes below a node; a larger figure counts as this one

	// MaxControl is the longest frame of a control stream, MaxBurst that of a media stream, in bytes.
	MaxControl = MaxMessage + 64
	MaxBurst   = media.MaxPackets*(media.MaxPayload+5) + 64

	maxName = 256  // names and texts, in bytes
	maxFmtp = 1024 // format parameters of a codec, in bytes
)

// ErrMalformed: the peer sent what the protocol does not allow.
var ErrMalformed = errors.New("malformed relay frame")

// Code says why a subscription ended, or did not begin.
type Code uint8

const (
	Offline    Code = iota + 1 // the node does not have the stream
	Moved                      // another node publishes it now: look it up again
	BadVersion                 // the node speaks no version that the peer speaks
	Full                       // the node takes no more, and knows nobody who would
	Stopped                    // the stream is over
	Closing                    // the node stops: look the stream up again
)

// String names the code as the documentation does.
func (c Code) String() string {
	switch c {
	case Offline:
		return "offline"
	case Moved:
		return "moved"
	case BadVersion:
		return "version"
	case Full:
		return "full"
	case Stopped:
		return "stopped"
	case Closing:
		return "closing"
	}
	return fmt.Sprintf("Code(%d)", uint8(c))
}

// Error codes of QUIC: of a stream that is cancelled, and of a connection that is closed.
const (
	StreamCut          quic.StreamErrorCode = 1 // the rest of a GOP is given up
	StreamUnsubscribed quic.StreamErrorCode = 2 // nobody wants it any more
	StreamMalformed    quic.StreamErrorCode = 3

	ConnUnused    quic.ApplicationErrorCode = 0 // no subscription is left
	ConnClosing   quic.ApplicationErrorCode = 1 // the node stops
	ConnMalformed quic.ApplicationErrorCode = 2
	ConnReplaced  quic.ApplicationErrorCode = 3 // the same node has connected again
)

// How soon a node that died is noticed: a live one sends something at least every keepAlive, and after idle
// without anything the connection is lost. QUIC waits for three probe timeouts at least (RFC 9000 §10.1).
const (
	keepAlive = 400 * time.Millisecond
	idle      = 1500 * time.Millisecond
	handshake = 2 * time.Second
)

// maxStreams is how many QUIC streams a peer may have open, each way.
const maxStreams = 1 << 12

// config has what both sides share: packets begin at QUIC's 1,280 bytes and path MTU discovery makes them
// larger (without it, a path that drops larger ones would cost the handshake).
func config() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout: handshake,
		MaxIdleTimeout:       idle,
		KeepAlivePeriod:      keepAlive,
		// A cached GOP must not wait for the window to grow: 2 MB in flight at once.
		InitialStreamReceiveWindow:     2 << 20,
		InitialConnectionReceiveWindow: 4 << 20,
		MaxStreamReceiveWindow:         8 << 20,
		MaxConnectionReceiveWindow:     32 << 20,
	}
}

// ServerQUIC returns the settings of the node that serves streams: its peers open control streams.
func ServerQUIC() *quic.Config {
	c := config()
	c.MaxIncomingStreams, c.MaxIncomingUniStreams = maxStreams, -1
	return c
}

// ClientQUIC returns the settings of the node that takes streams: its peers open media streams.
func ClientQUIC() *quic.Config {
	c := config()
	c.MaxIncomingStreams, c.MaxIncomingUniStreams = -1, maxStreams
	return c
}
