package antmedia

import (
	"context"

	in "sluice/ingest/webrtc"

	out "sluice/egress/webrtc"
)

// Publishing makes a Config's Publisher of the WebRTC way in.
type Publishing struct{ Ingest *in.Ingest }

// Publish opens a publisher's session.
func (p Publishing) Publish(ctx context.Context, r Request, offer string) (Session, string, error) {
	s, answer, err := p.Ingest.Publish(ctx, in.Request{Key: r.Key, Session: r.Session, Remote: r.Remote,
		OnStarted: r.OnStarted, OnRestored: r.OnRestored, OnEnded: r.OnEnded}, offer)
	if err != nil {
		return nil, "", err // not a nil *in.Session in an interface
	}
	return s, answer, nil
}

// Playing makes a Config's Player of the WebRTC way out.
type Playing struct{ Egress *out.Egress }

// Offer opens a viewer's session with a data channel of ours.
func (p Playing) Offer(ctx context.Context, r Request) (PlaySession, string, error) {
	s, offer, err := p.Egress.Offer(ctx, out.Request{Key: r.Key, Remote: r.Remote, Data: true,
		OnStarted: r.OnStarted, OnRestored: r.OnRestored, OnEnded: r.OnEnded, OnRendition: r.OnRendition})
	if err != nil {
		return nil, "", err
	}
	return s, offer, nil
}
