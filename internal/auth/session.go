package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"time"

	"sluice/cluster"
)

const (
	mostSessions = 50              // of an account; the oldest ends
	mostKeys     = 50              // of an account
	touchEvery   = 5 * time.Minute // how exactly the last use is written
	// believeFor is how long a session or key that this process has read is taken for true without news of it.
	believeFor = time.Minute
	mostKnown  = 20000
)

// session is the body of a document whose ID is the hash of what its bearer shows.
type session struct {
	Name    string     `json:"name"` // of the account
	Created time.Time  `json:"created"`
	Ends    time.Time  `json:"ends"` // whatever happens
	Used    time.Time  `json:"used"`
	From    netip.Addr `json:"from"`
	Agent   string     `json:"agent,omitempty"`
}

// cached is what this process knows of a session or a key.
type cached struct {
	id           Identity
	doc          cluster.Document
	used         time.Time // as written
	read         time.Time // by the local clock; zero: the registry was away when it was asked again
	revision     int64     // of the documents' kind, and of users, when it was read
	userRevision int64
}

// secret makes 256 random bits.
func secret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

func hashOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// csrf is the token that belongs to a session: who can't read the session's cookie can't know it.
func csrf(token string) string {
	sum := sha256.Sum256([]byte("csrf:" + token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// LogIn begins a session and returns what its bearer shows. ErrBadCredentials, ErrTooMany, ErrUnavailable.
func (a *Accounts) LogIn(ctx context.Context, name, password string, from netip.Addr, agent string) (token string, id Identity, err error) {
	shown := name
	name, err = CleanName(name)
	if err != nil {
		name = "\x00" // nobody; it costs as much
	}
	address := addressKey(from)
	if err := a.addresses.take(address); err != nil {
		a.refuse()
		return "", id, err
	}
	if err := a.accounts.take(name); err != nil {
		a.refuse()
		return "", id, err
	}
	u, _, err := a.read(ctx, name)
	if errors.Is(err, ErrNoAccount) {
		u, err = Account{}, nil
	}
	ok := false
	if err == nil {
		ok, err = a.hasher.verify(ctx, password, u.Hash)
	}
	if err != nil || ok {
		a.addresses.giveBack(address)
		a.accounts.giveBack(name)
	}
	switch {
	case err != nil:
		return "", id, err
	case !ok || u.Blocked:
		detail := ""
		if ok {
			detail = "the account is blocked"
		}
		a.Record(ctx, Entry{Who: clip(shown, maxName), Action: "log in", From: from, Result: "bad_credentials", Detail: detail})
		return "", id, ErrBadCredentials
	}
	if outdated(u.Hash) {
		a.rehash(ctx, u.Name, u.Hash, password)
	}
	if token, id, err = a.begin(ctx, u, from, agent); err == nil {
		a.Record(ctx, Entry{Who: u.Name, Kind: User, Action: "log in", From: from, Result: ResultOK})
	}
	return token, id, err
}

func clip(s string, most int) string {
	s = strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, s), "")
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// refuse tells once a minute how many log-ins came too soon: the audit log has only those that were tried.
func (a *Accounts) refuse() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refused++
	if now := time.Now(); now.Sub(a.told) > time.Minute {
		a.log.Warn("log-ins were refused because too many had failed before", "log-ins", a.refused)
		a.told, a.refused = now, 0
	}
}

// rehash keeps a password as it is kept now. If that fails the next log-in does it.
func (a *Accounts) rehash(ctx context.Context, name, before, password string) {
	hash, err := a.hasher.hash(ctx, password)
	if err != nil {
		return
	}
	_, _ = a.Edit(ctx, name, func(u *Account) error {
		if u.Hash != before {
			return ErrChanged
		}
		u.Hash = hash
		return nil
	})
}

// begin writes a new session.
func (a *Accounts) begin(ctx context.Context, u Account, from netip.Addr, agent string) (token string, id Identity, err error) {
	ctx, cancel := within(ctx)
	defer cancel()
	old, n, err := a.docs.Find(ctx, cluster.Query{Kind: kindSession, State: u.Name, Sort: cluster.ByAt, Limit: 1})
	if err != nil {
		return "", id, unavailable(err)
	}
	if n >= mostSessions {
		_ = a.docs.Delete(ctx, kindSession, "", old[0].ID, 0) // gone already, or the next log-in does it
	}
	token = secret()
	now := a.docs.Now()
	s := session{Name: u.Name, Created: now, Ends: now.Add(a.cfg.SessionLife), Used: now, From: from, Agent: clip(agent, maxWords)}
	d, err := a.sessionDocument(hashOf(token), s)
	if err == nil {
		d, err = a.docs.Put(ctx, d)
	}
	if err != nil {
		return "", id, unavailable(err)
	}
	c := a.remember(sha256.Sum256([]byte(token)), a.sessionIdentity(u, d, s, token), d, s.Used, a.docs.Revision(kindSession), a.docs.Revision(kindUser))
	return token, c.id, nil
}

func (a *Accounts) sessionDocument(id string, s session) (cluster.Document, error) {
	body, err := json.Marshal(s)
	expires := s.Used.Add(a.cfg.SessionIdle)
	if expires.After(s.Ends) {
		expires = s.Ends
	}
	return cluster.Document{Kind: kindSession, ID: id, State: s.Name, At: s.Created, Expires: expires, Body: body}, err
}

func (a *Accounts) sessionIdentity(u Account, d cluster.Document, s session, token string) Identity {
	id := u.identity()
	id.ID, id.CSRF, id.Expires = d.ID[:16], csrf(token), s.Ends
	return id
}

// BySession returns who shows a session; ErrBadCredentials, ErrTooMany, ErrUnavailable. Of what this process knows already it
// asks the registry again when there is news, and once a minute; while the registry is away it goes on with what it knows.
func (a *Accounts) BySession(ctx context.Context, token string, from netip.Addr) (Identity, error) {
	const most = 100
	if token == "" || len(token) > most {
		return Identity{}, ErrBadCredentials
	}
	return a.by(ctx, token, kindSession, from, func(ctx context.Context) (Identity, cluster.Document, time.Time, error) {
		d, err := a.docs.Get(ctx, kindSession, "", hashOf(token))
		if err != nil {
			return Identity{}, d, time.Time{}, err
		}
		var s session
		if err := json.Unmarshal(d.Body, &s); err != nil {
			return Identity{}, d, time.Time{}, ErrBadCredentials
		}
		u, _, err := a.read(ctx, s.Name)
		if err == nil && (u.Blocked || s.Created.Before(u.NotBefore)) {
			err = ErrBadCredentials
		}
		return a.sessionIdentity(u, d, s, token), d, s.Used, err
	})
}

// by answers from what is known, or reads.
func (a *Accounts) by(ctx context.Context, shown, kind string, from netip.Addr,
	read func(context.Context) (Identity, cluster.Document, time.Time, error)) (Identity, error) {
	key := sha256.Sum256([]byte(shown))
	revision, userRevision := a.docs.Revision(kind), a.docs.Revision(kindUser)
	a.mu.Lock()
	c := a.known[key]
	if c != nil && c.expired(a.docs.Now()) {
		delete(a.known, key)
		c = nil
	}
	fresh := c != nil && c.revision == revision && c.userRevision == userRevision && time.Since(c.read) < believeFor
	a.mu.Unlock()
	address := addressKey(from)
	if !fresh {
		if c == nil {
			if err := a.strangers.full(address); err != nil {
				return Identity{}, err
			}
		}
		ctx, cancel := within(ctx)
		defer cancel()
		id, d, used, err := read(ctx)
		switch {
		case err == nil:
			c = a.remember(key, id, d, used, revision, userRevision)
		case errors.Is(err, ErrBadCredentials), errors.Is(err, ErrNoAccount), errors.Is(err, cluster.ErrNoDocument), errors.Is(err, cluster.ErrBadDocument):
			a.mu.Lock()
			delete(a.known, key)
			a.mu.Unlock()
			_ = a.strangers.take(address) // the next is refused
			return Identity{}, ErrBadCredentials
		case c == nil:
			return Identity{}, unavailable(err)
		}
	}
	a.touch(ctx, key, c)
	return c.id, nil
}

// expired by what is known; c belongs to a.mu, or is not shared yet.
func (c *cached) expired(now time.Time) bool {
	return !c.doc.Expires.IsZero() && !now.Before(c.doc.Expires)
}

func (a *Accounts) remember(key [32]byte, id Identity, d cluster.Document, used time.Time, revision, userRevision int64) *cached {
	c := &cached{id: id, doc: d, used: used, read: time.Now(), revision: revision, userRevision: userRevision}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.known) >= mostKnown {
		for k := range a.known { // any: it is read again
			delete(a.known, k)
			break
		}
	}
	a.known[key] = c
	return c
}

// touch notes now and then that a session or key is in use.
func (a *Accounts) touch(ctx context.Context, key [32]byte, c *cached) {
	now := a.docs.Now()
	a.mu.Lock()
	due := now.Sub(c.used) >= touchEvery
	if due {
		c.used = now // nobody else does it meanwhile
	}
	d := c.doc
	a.mu.Unlock()
	if !due {
		return
	}
	var err error
	switch d.Kind {
	case kindSession:
		var s session
		if err = json.Unmarshal(d.Body, &s); err == nil {
			s.Used = now
			version := d.Version
			d, err = a.sessionDocument(d.ID, s)
			d.Version = version
		}
	case kindKey:
		var k keyBody
		if err = json.Unmarshal(d.Body, &k); err == nil {
			k.Used = now
			d.Body, err = json.Marshal(k)
		}
	}
	if err != nil {
		return
	}
	ctx, cancel := within(ctx)
	defer cancel()
	d, err = a.docs.Put(ctx, d)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err == nil:
		c.doc = d
	case errors.Is(err, cluster.ErrConflict): // another node has done it, or it is gone
		delete(a.known, key)
	}
}

// LogOut ends a session, everywhere within two seconds.
func (a *Accounts) LogOut(ctx context.Context, token string) error {
	return a.end(ctx, kindSession, hashOf(token))
}

// end deletes a session or a key.
func (a *Accounts) end(ctx context.Context, kind, id string) error {
	ctx, cancel := within(ctx)
	defer cancel()
	err := a.docs.Delete(ctx, kind, "", id, 0)
	if errors.Is(err, cluster.ErrNoDocument) || errors.Is(err, cluster.ErrBadDocument) {
		return ErrNoAccount
	}
	if err == nil {
		err = a.docs.Notify(ctx, kind)
	}
	return unavailable(err)
}

// SessionInfo is a session as its owner sees it.
type SessionInfo struct {
	ID      string // a part of its hash
	Name    string
	Created time.Time
	Used    time.Time
	Expires time.Time
	From    string
	Agent   string
}

// Sessions returns those of an account, the newest first.
func (a *Accounts) Sessions(ctx context.Context, name string) (list []SessionInfo, err error) {
	ctx, cancel := within(ctx)
	defer cancel()
	page, _, err := a.docs.Find(ctx, cluster.Query{Kind: kindSession, State: name, Sort: cluster.ByAt, Desc: true, Limit: 2 * mostSessions})
	for _, d := range page {
		var s session
		if json.Unmarshal(d.Body, &s) != nil {
			continue
		}
		info := SessionInfo{ID: d.ID[:16], Name: s.Name, Created: s.Created, Used: s.Used, Expires: d.Expires, Agent: s.Agent}
		if s.From.IsValid() {
			info.From = s.From.String()
		}
		list = append(list, info)
	}
	return list, unavailable(err)
}

// EndSession ends one of an account's sessions by its SessionInfo.ID; ErrNoAccount.
func (a *Accounts) EndSession(ctx context.Context, name, id string) error {
	find, cancel := within(ctx)
	defer cancel()
	page, _, err := a.docs.Find(find, cluster.Query{Kind: kindSession, State: name, Limit: 2 * mostSessions})
	if err != nil {
		return unavailable(err)
	}
	for _, d := range page {
		if subtle.ConstantTimeCompare([]byte(d.ID[:16]), []byte(id)) == 1 {
			return a.end(ctx, kindSession, d.ID)
		}
	}
	return ErrNoAccount
}
