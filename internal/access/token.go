package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sluice/cluster"
	"sluice/media"
)

// Errors of those who manage tokens and subscribers.
var (
	// ErrNone: there is no such token or subscriber.
	ErrNone = errors.New("there is no such token or subscriber")
	// ErrBad: a value that is not allowed.
	ErrBad = errors.New("a value is not allowed")
)

const (
	kindToken = "token"
	editTries = 5
	// maxTokenLife of a one-time token.
	maxTokenLife = 5 * 365 * 24 * time.Hour
	// usedTokens are listed for so long after they have expired.
	usedTokens = time.Hour
)

// OneTime is a token that admits one session.
type OneTime struct {
	ID      string    `json:"id"`
	Stream  string    `json:"stream"` // id
	Type    Action    `json:"type"`
	Room    string    `json:"room,omitempty"`
	Expires time.Time `json:"expires"`
	Session string    `json:"session,omitempty"` // to which it is bound; "": not used yet
}

func isNone(err error) bool {
	return errors.Is(err, cluster.ErrNoDocument) || errors.Is(err, cluster.ErrBadDocument)
}

func isRace(err error) bool {
	return errors.Is(err, cluster.ErrConflict) || errors.Is(err, cluster.ErrExists)
}

// unavailable tells an outage from an answer.
func unavailable(err error) error {
	if err == nil || isNone(err) || isRace(err) || errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

func (t OneTime) document(app string, version int64) (cluster.Document, error) {
	body, err := json.Marshal(t)
	return cluster.Document{Kind: kindToken, Group: app, ID: t.ID, Name: t.Stream, State: digest(t.Stream), At: t.Expires, Expires: t.Expires.Add(usedTokens),
		Version: version, Body: body}, err
}

func (g *Guard) readToken(ctx context.Context, app, id string) (t OneTime, version int64, err error) {
	if g.docs == nil {
		return t, 0, fmt.Errorf("%w: this node has no documents", ErrUnavailable)
	}
	d, err := g.docs.Get(ctx, kindToken, app, id)
	if isNone(err) {
		return t, 0, ErrNone
	}
	if err != nil {
		return t, 0, unavailable(err)
	}
	return t, d.Version, json.Unmarshal(d.Body, &t)
}

// byToken admits with a token that nobody has used, or that is bound to the same session.
func (g *Guard) byToken(ctx context.Context, gr *Grant) (proof, error) {
	ctx, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	r := gr.request
	session := r.Session
	if session == "" {
		session = newID()
	}
	t, version, err := g.goodToken(ctx, r, session)
	if err != nil {
		return proof{}, err
	}
	commit := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, registryWithin)
		defer cancel()
		if t.Session == session {
			return nil
		}
		t.Session = session
		d, err := t.document(r.Stream.App, version)
		if err != nil {
			return err
		}
		_, err = g.docs.Put(ctx, d)
		if isRace(err) { // deleted, or used by another
			_, _, err = g.goodToken(ctx, r, session)
			if err == nil && t.Session != session {
				err = ErrUnauthorized
			}
		}
		return unavailable(err)
	}
	return proof{method: Token, token: t.ID, commit: commit}, nil
}

func (g *Guard) goodToken(ctx context.Context, r Request, session string) (t OneTime, version int64, err error) {
	t, version, err = g.readToken(ctx, r.Stream.App, r.Token)
	switch {
	case errors.Is(err, ErrNone):
		return t, 0, fmt.Errorf("%w: there is no such token", ErrUnauthorized)
	case err != nil:
		return t, 0, err
	case !t.Expires.After(g.now()):
		return t, 0, fmt.Errorf("%w: the token has expired", ErrUnauthorized)
	case t.Stream != r.Stream.ID || t.Type != r.Action:
		return t, 0, fmt.Errorf("%w: the token is to %s stream %.40q", ErrForbidden, t.Type, t.Stream)
	case t.Session != "" && t.Session != session:
		return t, 0, fmt.Errorf("%w: the token has been used", ErrUnauthorized)
	}
	return t, version, nil
}

// AddToken makes a one-time token.
func (g *Guard) AddToken(ctx context.Context, key media.Key, do Action, room string, expires time.Time) (OneTime, error) {
	if g.docs == nil {
		return OneTime{}, ErrUnavailable
	}
	now := g.now()
	if do != Publish && do != Play {
		return OneTime{}, fmt.Errorf("%w: type is play or publish", ErrBad)
	}
	if !expires.After(now) || expires.After(now.Add(maxTokenLife)) {
		return OneTime{}, fmt.Errorf("%w: expireDate is a time to come, in seconds since 1970, within five years", ErrBad)
	}
	if !plain(room, maxSubscriber) {
		return OneTime{}, fmt.Errorf("%w: roomId has at most %d bytes of text", ErrBad, maxSubscriber)
	}
	t := OneTime{ID: newID(), Stream: key.ID, Type: do, Room: room, Expires: expires}
	d, err := t.document(key.App, 0)
	if err == nil {
		_, err = g.docs.Put(ctx, d)
	}
	return t, unavailable(err)
}

// CheckToken reports whether a token would admit somebody now. It does not use it.
func (g *Guard) CheckToken(ctx context.Context, key media.Key, do Action, id string) (OneTime, error) {
	t, _, err := g.goodToken(ctx, Request{Stream: key, Action: do, Token: id}, "")
	return t, err
}

// Tokens is a page of a stream's tokens.
func (g *Guard) Tokens(ctx context.Context, key media.Key, offset, limit int) (list []OneTime, total int, err error) {
	page, total, err := g.find(ctx, kindToken, key, offset, limit)
	for _, d := range page {
		var t OneTime
		if err := json.Unmarshal(d.Body, &t); err != nil {
			return nil, 0, err
		}
		list = append(list, t)
	}
	return list, total, err
}

func (g *Guard) find(ctx context.Context, kind string, key media.Key, offset, limit int) ([]cluster.Document, int, error) {
	if g.docs == nil {
		return nil, 0, ErrUnavailable
	}
	page, total, err := g.docs.Find(ctx, cluster.Query{Kind: kind, Group: key.App, State: digest(key.ID), Offset: offset, Limit: limit})
	return page, total, unavailable(err)
}

// DeleteToken deletes one of a stream and ends the session that it has admitted.
func (g *Guard) DeleteToken(ctx context.Context, key media.Key, id string) error {
	t, _, err := g.readToken(ctx, key.App, id)
	if err == nil && t.Stream != key.ID {
		err = ErrNone
	}
	if err != nil {
		return err
	}
	// First void, then gone: what happens in between finds one of the two.
	if err := g.cut(ctx, key.App, aboutToken(id), cut{Publish: true, Play: true}); err != nil {
		return err
	}
	if err := g.docs.Delete(ctx, kindToken, key.App, id, 0); err != nil && !isNone(err) {
		return unavailable(err)
	}
	return nil
}

// DeleteTokens deletes all of a stream.
func (g *Guard) DeleteTokens(ctx context.Context, key media.Key) (n int, err error) {
	for {
		list, _, err := g.Tokens(ctx, key, 0, 0)
		if err != nil || len(list) == 0 {
			return n, err
		}
		for _, t := range list {
			if err := g.DeleteToken(ctx, key, t.ID); err != nil && !errors.Is(err, ErrNone) {
				return n, err
			}
			n++
		}
	}
}

// DenyJWT makes a JWT void by its claim jti, until it expires at the latest, and ends its sessions.
func (g *Guard) DenyJWT(ctx context.Context, app, id string, until time.Time) error {
	if id == "" || len(id) > MaxToken || !until.After(g.now()) || until.After(g.now().Add(maxSignedFor)) {
		return fmt.Errorf("%w: a JWT is named by its claim jti, and void until a time to come", ErrBad)
	}
	return g.cut(ctx, app, aboutJWT(id), cut{Until: until, Publish: true, Play: true})
}
