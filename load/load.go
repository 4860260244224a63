// Package load is the client side of a cluster: one publisher and one viewer as a user would run
// them, with measured latency.
//
// Imports: codec, codec/frame, internal/ffmpeg, media.
package load

import (
	"errors"
	"log/slog"
	"time"
)

var (
	// ErrNoMedia: the signalling went well, but nothing came or could be sent over UDP.
	ErrNoMedia = errors.New("no media connection")
	// ErrEnded: the server ended the session, or is gone.
	ErrEnded = errors.New("the session ended")
)

const (
	requestTimeout = 15 * time.Second // for one HTTP request; a gateway may look for a node for a few seconds
	connectTimeout = 10 * time.Second // for ICE and DTLS
	mediaTimeout   = 10 * time.Second // from the connection to the first packet
	goodbyeTimeout = 2 * time.Second  // for the DELETE when all is over
)

func orDiscard(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
