package access

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"sync"
	"time"

	"sluice/cluster"

	"github.com/golang-jwt/jwt/v5"
)

// Grant is a permission that has been given: to one session, from before it begins until it ends. Its nil is one that nobody revokes.
type Grant struct {
	guard   *Guard
	request Request
	rule    Rule // by which it was given, or kept; the guard's lock
	proof   proof
	began   time.Time // by the registry's clock
	seat    *seat     // of a subscriber who may have only so many

	mu      sync.Mutex
	begun   bool
	ended   bool
	revoked error
	tell    func(error)
}

// Begin takes what can be had only once, such as a one-time token. It is called when the session is open, and before its client is told: a
// client that asks for a stream that is not live has not used its token. After an error the session ends.
func (gr *Grant) Begin(ctx context.Context) error {
	if gr == nil {
		return nil
	}
	if gr.proof.commit != nil {
		if err := gr.proof.commit(ctx); err != nil {
			return err
		}
		if err := gr.guard.revoked(gr); err != nil { // meanwhile
			return err
		}
	}
	gr.mu.Lock()
	first := !gr.begun && !gr.ended
	gr.begun = true
	gr.mu.Unlock()
	if first {
		gr.guard.cfg.Session(gr.request, true)
	}
	return nil
}

// OnRevoked has fn called once when the grant is revoked, also when it has been: fn ends the session. Only the last fn counts. It is called
// from any goroutine and does not block.
func (gr *Grant) OnRevoked(fn func(reason error)) {
	if gr == nil {
		return
	}
	gr.mu.Lock()
	reason := gr.revoked
	gr.tell = fn
	gr.mu.Unlock()
	if reason != nil {
		fn(reason)
	}
}

// End says that the session has ended, or did not begin. Calling it again does nothing.
func (gr *Grant) End() {
	if gr == nil {
		return
	}
	gr.mu.Lock()
	ended, begun := gr.ended, gr.begun
	gr.ended, gr.tell = true, nil
	gr.mu.Unlock()
	if ended {
		return
	}
	g := gr.guard
	if begun {
		g.cfg.Session(gr.request, false)
	}
	g.mu.Lock()
	delete(g.grants, gr)
	if gr.seat != nil {
		g.release[gr.seat.key()] = *gr.seat
	}
	g.mu.Unlock()
}

func (gr *Grant) revoke(reason error) {
	gr.mu.Lock()
	fn := gr.tell
	if gr.ended || gr.revoked != nil {
		fn = nil
	} else {
		gr.revoked = fmt.Errorf("%w: %w", ErrRevoked, reason)
		gr.guard.log.Info("a session's permission was revoked", "stream", gr.request.Stream.String(), "action", string(gr.request.Action),
			"subscriber", gr.request.SubscriberID, "method", gr.proof.method, "reason", reason)
	}
	reason = gr.revoked
	gr.mu.Unlock()
	if fn != nil {
		fn(reason)
	}
}

// KindRevocation is that of the documents that say what was revoked. Load reads them.
const KindRevocation = "revocation"

// Cuts are kept for cutsFor, so that a node that was without the registry for long learns of them too.
const cutsFor = 24 * time.Hour

// cut says that something is void.
type cut struct {
	Before  time.Time `json:"before"`         // what was granted then or earlier ends
	Until   time.Time `json:"until,omitzero"` // nothing is granted before
	Publish bool      `json:"publish"`
	Play    bool      `json:"play"`
	expires time.Time
}

func (c cut) is(a Action) bool { return a == Publish && c.Publish || a == Play && c.Play }

// What a cut is about. Ids may be long and hold anything: they are hashed.
func aboutToken(id string) string { return "token." + digest(id) }
func aboutJWT(id string) string   { return "jwt." + digest(id) }
func aboutSubscriber(stream, id string) string {
	return "subscriber." + digest(stream) + "." + digest(id)
}

// digest is 128 bits of a hash.
func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:16])
}

// revoked says why a grant is void.
func (g *Guard) revoked(gr *Grant) error {
	r, now := gr.request, g.now()
	find := func(about string) (cut, bool) {
		g.mu.Lock()
		defer g.mu.Unlock()
		c, ok := g.cuts[r.Stream.App+"\x00"+about]
		return c, ok && c.is(r.Action)
	}
	if gr.proof.token != "" {
		if _, ok := find(aboutToken(gr.proof.token)); ok { // ids are never used again
			return fmt.Errorf("%w: the token was deleted", ErrUnauthorized)
		}
	}
	if gr.proof.jwtID != "" {
		if c, ok := find(aboutJWT(gr.proof.jwtID)); ok && c.Until.After(now) {
			return fmt.Errorf("%w: the token was revoked", ErrUnauthorized)
		}
	}
	if r.SubscriberID != "" {
		if c, ok := find(aboutSubscriber(r.Stream.ID, r.SubscriberID)); ok {
			if c.Until.After(now) {
				return ErrBlocked
			}
			if !gr.began.After(c.Before) {
				return fmt.Errorf("%w: the subscriber was deleted or sent away", ErrForbidden)
			}
		}
	}
	return nil
}

// cut voids something on all nodes.
func (g *Guard) cut(ctx context.Context, app, about string, c cut) error {
	if g.docs == nil {
		return ErrUnavailable
	}
	c.Before = g.docs.Now()
	c.expires = c.Before.Add(cutsFor)
	if c.Until.After(c.expires) {
		c.expires = c.Until
	}
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	err = g.put(ctx, cluster.Document{Kind: KindRevocation, Group: app, ID: about, Expires: c.expires, Body: body})
	if err != nil {
		return err
	}
	g.learn(app, about, c)
	g.review()
	return unavailable(g.docs.Notify(ctx, KindRevocation))
}

func (g *Guard) learn(app, about string, c cut) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cuts[app+"\x00"+about] = c
}

// put writes a document whatever version there is.
func (g *Guard) put(ctx context.Context, d cluster.Document) error {
	for range editTries {
		old, err := g.docs.Get(ctx, d.Kind, d.Group, d.ID)
		if err != nil && !isNone(err) {
			return unavailable(err)
		}
		d.Version = old.Version
		if isNone(err) {
			d.Version = 0
		}
		if _, err = g.docs.Put(ctx, d); !isRace(err) {
			return unavailable(err)
		}
	}
	return fmt.Errorf("%w: others write the same thing", ErrUnavailable)
}

// Load reads what was revoked since it was called last, and ends the sessions that it is about. It is called when documents of KindRevocation
// have changed.
func (g *Guard) Load(ctx context.Context) error {
	g.mu.Lock()
	since := g.loaded
	g.mu.Unlock()
	now := g.docs.Now()
	const overlap = 10 * time.Second // writes that were under way then
	q := cluster.Query{Kind: KindRevocation, AllGroups: true}
	if !since.IsZero() {
		q.Since = since.Add(-overlap)
	}
	err := cluster.EachDocument(ctx, g.docs, q, func(d cluster.Document) error {
		var c cut
		if err := json.Unmarshal(d.Body, &c); err != nil {
			return fmt.Errorf("read revocation %q: %w", d.ID, err)
		}
		c.expires = d.Expires
		g.learn(d.Group, d.ID, c)
		return nil
	})
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.loaded = now
	maps.DeleteFunc(g.cuts, func(_ string, c cut) bool { return c.expires.Before(now) })
	g.mu.Unlock()
	g.review()
	return nil
}

// review ends the sessions whose grant is void.
func (g *Guard) review() {
	for _, gr := range g.running() {
		if err := g.revoked(gr); err != nil {
			gr.revoke(err)
		}
	}
}

// Recheck holds what runs to the rules that have changed: sessions end that would not be admitted by them. Whoever was admitted once stays if
// what he showed is still good but for its age.
func (g *Guard) Recheck(ctx context.Context) {
	for _, gr := range g.running() {
		rule := g.cfg.Rules(gr.request.Stream.App).Of(gr.request.Action)
		g.mu.Lock()
		same := reflect.DeepEqual(rule, gr.rule)
		gr.rule = rule
		g.mu.Unlock()
		if !same {
			if err := g.stillGood(ctx, rule, gr); err != nil {
				gr.revoke(err)
			}
		}
	}
}

func (g *Guard) stillGood(ctx context.Context, rule Rule, gr *Grant) error {
	switch {
	case rule.has(Open):
		return nil
	case !rule.has(gr.proof.method):
		return fmt.Errorf("%w: the application no longer takes %s", ErrForbidden, gr.proof.method)
	case gr.proof.method == JWT:
		if _, err := g.verify(ctx, rule, gr.proof.jwt, jwt.WithoutClaimsValidation()); err != nil && severity(err) < severity(ErrNoAnswer) {
			return err
		}
	case gr.proof.method == Hash:
		_, err := byHash(rule, Request{Stream: gr.request.Stream, Action: gr.request.Action, Token: gr.proof.jwt})
		return err
	}
	return nil
}
