package auth

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"time"

	"sluice/cluster"
)

const (
	// LinkLife is how long the link for the first administrator can be used.
	LinkLife = time.Hour
	// firstWithin is how long whoever uses a link has for himself.
	firstWithin = time.Minute
)

// believeFirst is how long the answer of Awaited stays: anybody may ask for it.
const believeFirst = time.Second

// First reports that there is no account yet.
func (a *Accounts) First(ctx context.Context) (bool, error) {
	n, err := a.count(ctx, "")
	return n == 0, err
}

// Awaited is First, up to a second old.
func (a *Accounts) Awaited(ctx context.Context) (bool, error) {
	a.asking.Lock() // one asks, others wait for him
	defer a.asking.Unlock()
	if time.Since(a.asked) < believeFirst {
		return a.awaited, nil
	}
	first, err := a.First(ctx)
	if err == nil {
		a.asked, a.awaited = time.Now(), first
	}
	return first, err
}

// FirstLink makes a token with which somebody may make himself the first administrator, at any node; "" when there is an account.
func (a *Accounts) FirstLink(ctx context.Context) (token string, err error) {
	first, err := a.First(ctx)
	if err != nil || !first {
		return "", err
	}
	ctx, cancel := within(ctx)
	defer cancel()
	token = secret()
	now := a.docs.Now()
	_, err = a.docs.Put(ctx, cluster.Document{Kind: kindFirst, ID: hashOf(token), At: now, Expires: now.Add(LinkLife), Body: json.RawMessage(`{}`)})
	return token, unavailable(err)
}

// UseFirstLink makes the first account, an administrator. Of several who try at once one succeeds. ErrBadLink.
func (a *Accounts) UseFirstLink(ctx context.Context, token string, u Account, password string, from netip.Addr) (Account, error) {
	address := addressKey(from)
	if err := a.addresses.take(address); err != nil {
		return u, err
	}
	get, cancel := within(ctx)
	defer cancel()
	_, err := a.docs.Get(get, kindFirst, "", hashOf(token))
	if errors.Is(err, cluster.ErrNoDocument) {
		a.Record(ctx, Entry{Action: "make the first administrator", From: from, Result: "bad_link"})
		return u, ErrBadLink
	}
	a.addresses.giveBack(address)
	if err != nil {
		return u, unavailable(err)
	}
	turn := cluster.Document{Kind: kindFirst, ID: "turn", Expires: a.docs.Now().Add(firstWithin), Body: json.RawMessage(`{}`)}
	turn, err = a.docs.Put(get, turn)
	if errors.Is(err, cluster.ErrExists) {
		return u, ErrChanged
	}
	if err != nil {
		return u, unavailable(err)
	}
	defer func() { _ = a.docs.Delete(context.WithoutCancel(get), kindFirst, "", turn.ID, turn.Version) }() // or it expires
	first, err := a.First(ctx)
	if err == nil && !first {
		err = ErrBadLink
	}
	if err != nil {
		return u, err
	}
	u.Role, u.Apps, u.Blocked = Administrator, nil, false
	if u, err = a.Add(ctx, u, password); err == nil {
		a.Record(ctx, Entry{Who: u.Name, Kind: User, Action: "make the first administrator", Target: u.Name, From: from, Result: ResultOK})
	}
	return u, err
}
