package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/cluster"
)

// keyPrefix begins every API key, so that one that leaked can be found by programs that look for such.
const keyPrefix = "sluice_"

// maxKeyLife bounds what may be asked for.
const maxKeyLife = 5 * 365 * 24 * time.Hour

// keyBody is the body of a key's document, whose ID is the key's.
type keyBody struct {
	Hash    string    `json:"hash"` // of the whole key
	Name    string    `json:"name"` // of the account
	Label   string    `json:"label"`
	Scopes  []Action  `json:"scopes,omitempty"`
	Apps    []string  `json:"apps,omitempty"`
	Created time.Time `json:"created"`
	Used    time.Time `json:"used"`
}

// KeyInfo is an API key as its owner sees it; the key itself is shown once, when it is made.
type KeyInfo struct {
	ID      string
	Name    string // of the account
	Label   string
	Scopes  []Action // of what the account may do; empty: all
	Apps    []string // only in these; empty: everywhere
	Created time.Time
	Used    time.Time // within five minutes; zero: never
	Expires time.Time // zero: never
}

// AddKey makes an API key for an account and returns it, which nobody can do later. It may do what the account may, at each
// moment, and no more than its scopes.
func (a *Accounts) AddKey(ctx context.Context, k KeyInfo) (key string, made KeyInfo, err error) {
	now := a.docs.Now()
	if err := checkWords("label", k.Label); err != nil {
		return "", k, err
	}
	for _, s := range k.Scopes {
		if _, ok := rules[s]; !ok {
			return "", k, fmt.Errorf("%w: there is no scope %.40q", ErrBadAccount, s)
		}
	}
	const mostApps = 100
	if len(k.Apps) > mostApps || slices.ContainsFunc(k.Apps, func(app string) bool { return app == "" || cluster.CheckDocumentKey(kindKey, app, "x") != nil }) {
		return "", k, fmt.Errorf("%w: at most %d applications, by their names", ErrBadAccount, mostApps)
	}
	if !k.Expires.IsZero() && (!k.Expires.After(now) || k.Expires.After(now.Add(maxKeyLife))) {
		return "", k, fmt.Errorf("%w: a key expires in the future, within five years, or never", ErrBadAccount)
	}
	find, cancel := within(ctx)
	defer cancel()
	_, n, err := a.docs.Find(find, cluster.Query{Kind: kindKey, State: k.Name, Limit: 1})
	if err != nil {
		return "", k, unavailable(err)
	}
	if n >= mostKeys {
		return "", k, fmt.Errorf("%w: an account has at most %d keys: delete one", ErrBadAccount, mostKeys)
	}
	k.ID = strings.ToLower(rand.Text()[:16])
	key = keyPrefix + k.ID + "_" + secret()
	k.Created = now
	body, err := json.Marshal(keyBody{Hash: hashOf(key), Name: k.Name, Label: k.Label, Scopes: k.Scopes, Apps: k.Apps, Created: now})
	if err != nil {
		return "", k, err
	}
	_, err = a.docs.Put(find, cluster.Document{Kind: kindKey, ID: k.ID, State: k.Name, Name: k.Label, At: now, Expires: k.Expires, Body: body})
	return key, k, unavailable(err)
}

// ByKey returns who shows an API key: see BySession.
func (a *Accounts) ByKey(ctx context.Context, key string, from netip.Addr) (Identity, error) {
	const most = 120
	id, _, ok := strings.Cut(strings.TrimPrefix(key, keyPrefix), "_")
	if !ok || !strings.HasPrefix(key, keyPrefix) || len(key) > most {
		_ = a.strangers.take(addressKey(from))
		return Identity{}, ErrBadCredentials
	}
	return a.by(ctx, key, kindKey, from, func(ctx context.Context) (Identity, cluster.Document, time.Time, error) {
		d, err := a.docs.Get(ctx, kindKey, "", id)
		if err != nil {
			return Identity{}, d, time.Time{}, err
		}
		var k keyBody
		if json.Unmarshal(d.Body, &k) != nil || subtle.ConstantTimeCompare([]byte(k.Hash), []byte(hashOf(key))) != 1 {
			return Identity{}, d, time.Time{}, ErrBadCredentials
		}
		u, _, err := a.read(ctx, k.Name)
		if err == nil && (u.Blocked || k.Created.Before(u.Created)) {
			err = ErrBadCredentials
		}
		who := u.identity()
		who.Kind, who.ID, who.Scopes, who.OnlyApps, who.Expires = Key, d.ID, k.Scopes, k.Apps, d.Expires
		return who, d, k.Used, err
	})
}

// Keys returns those of an account, the newest first.
func (a *Accounts) Keys(ctx context.Context, name string) (list []KeyInfo, err error) {
	ctx, cancel := within(ctx)
	defer cancel()
	page, _, err := a.docs.Find(ctx, cluster.Query{Kind: kindKey, State: name, Sort: cluster.ByAt, Desc: true, Limit: 2 * mostKeys})
	for _, d := range page {
		var k keyBody
		if json.Unmarshal(d.Body, &k) == nil {
			list = append(list, KeyInfo{ID: d.ID, Name: k.Name, Label: k.Label, Scopes: k.Scopes, Apps: k.Apps, Created: k.Created, Used: k.Used, Expires: d.Expires})
		}
	}
	return list, unavailable(err)
}

// EndKey deletes one of an account's keys: it is refused everywhere within two seconds. ErrNoAccount.
func (a *Accounts) EndKey(ctx context.Context, name, id string) error {
	get, cancel := within(ctx)
	defer cancel()
	d, err := a.docs.Get(get, kindKey, "", id)
	if err = unavailable(err); errors.Is(err, ErrUnavailable) {
		return err
	}
	if err != nil || d.State != name {
		return ErrNoAccount
	}
	return a.end(ctx, kindKey, id)
}
