// Package whep lets players watch by HTTP (draft-ietf-wish-whep).
//
// Imports: egress/webrtc, media, internal/access, signal.
package whep

import (
	"context"

	egress "sluice/egress/webrtc"
	"sluice/internal/access"
	"sluice/media"
	"sluice/signal"
)

// New returns the resource /{app}/whep/{id}.
func New(out *egress.Egress, cfg signal.Config) *signal.Resource {
	cfg.Protocol, cfg.Action = "whep", access.Play
	cfg.Open = func(ctx context.Context, key media.Key, remote, offer string, ended func(error)) (signal.Session, string, error) {
		s, answer, err := out.Play(ctx, egress.Request{Key: key, Remote: remote, OnEnded: ended}, offer)
		if err != nil {
			return nil, "", err
		}
		return s, answer, nil
	}
	return signal.New(cfg)
}
