// Package whip lets WebRTC encoders and browsers publish by HTTP (RFC 9725).
//
// Imports: ingest/webrtc, media, internal/access, signal.
package whip

import (
	"context"

	ingest "sluice/ingest/webrtc"
	"sluice/internal/access"
	"sluice/media"
	"sluice/signal"
)

// New returns the resource /{app}/whip/{id}.
func New(in *ingest.Ingest, cfg signal.Config) *signal.Resource {
	cfg.Protocol, cfg.Action = "whip", access.Publish
	cfg.Open = func(ctx context.Context, key media.Key, remote, offer string, ended func(error)) (signal.Session, string, error) {
		s, answer, err := in.Publish(ctx, ingest.Request{Key: key, Remote: remote, OnEnded: ended}, offer)
		if err != nil {
			return nil, "", err
		}
		return s, answer, nil
	}
	return signal.New(cfg)
}
