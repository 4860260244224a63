package access

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // RFC 6238 §1.2: that is what authenticators compute
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/cluster"
	"sluice/media"
)

const (
	kindSubscriber = "subscriber"
	codePeriod     = 60 * time.Second
	codeDigits     = 6
	maxSeats       = 100
	minTOTPKey     = 10 // bytes
)

// Subscriber may publish or play one stream, with codes of his own secret.
type Subscriber struct {
	ID     string        `json:"id"`
	Stream string        `json:"stream"` // id
	Name   string        `json:"name,omitempty"`
	Secret string        `json:"secret,omitempty"` // Base32; "": made of the application's
	Type   Action        `json:"type,omitempty"`   // "": both
	Limit  int           `json:"limit"`            // sessions at once; -1: no limit
	Period time.Duration `json:"period,omitempty"` // of codes; 0: 60 s

	Blocked      Blocked   `json:"blocked,omitempty"`
	BlockedUntil time.Time `json:"blockedUntil,omitzero"`
}

// Blocked is what a subscriber may not.
type Blocked string

const (
	BlockPublish Blocked = "publish"
	BlockPlay    Blocked = "play"
	BlockBoth    Blocked = "publish_play"
)

func subscriberDoc(stream, id string) string { return digest(stream) + "." + digest(id) }

func (s Subscriber) document(app string, version int64) (cluster.Document, error) {
	body, err := json.Marshal(s)
	return cluster.Document{Kind: kindSubscriber, Group: app, ID: subscriberDoc(s.Stream, s.ID), Name: s.ID + " " + s.Name, State: digest(s.Stream),
		Version: version, Body: body}, err
}

// Subscriber returns one; ErrNone.
func (g *Guard) Subscriber(ctx context.Context, key media.Key, id string) (Subscriber, error) {
	s, _, err := g.readSubscriber(ctx, key, id)
	return s, err
}

func (g *Guard) readSubscriber(ctx context.Context, key media.Key, id string) (s Subscriber, version int64, err error) {
	if g.docs == nil {
		return s, 0, fmt.Errorf("%w: this node has no documents", ErrUnavailable)
	}
	d, err := g.docs.Get(ctx, kindSubscriber, key.App, subscriberDoc(key.ID, id))
	if isNone(err) {
		return s, 0, ErrNone
	}
	if err != nil {
		return s, 0, unavailable(err)
	}
	return s, d.Version, json.Unmarshal(d.Body, &s)
}

// bySubscriber admits who has the code of this minute.
func (g *Guard) bySubscriber(ctx context.Context, rule Rule, gr *Grant) (proof, error) {
	r := gr.request
	reading, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	s, _, err := g.readSubscriber(reading, r.Stream, r.SubscriberID)
	if errors.Is(err, ErrNone) {
		s, err = Subscriber{ID: r.SubscriberID, Stream: r.Stream.ID, Limit: 1}, nil
	}
	if err != nil {
		return proof{}, err
	}
	secret, ok := s.key(rule, r.Action)
	if !ok {
		return proof{}, fmt.Errorf("%w: there is no such subscriber, or his code is wrong", ErrUnauthorized)
	}
	who := r.Stream.String() + "\x00" + s.ID
	if err := g.guesses.spend(who); err != nil { // before it is looked at: guesses at the same time count too
		return proof{}, err
	}
	if !codeIs(secret, g.now(), s.period(), r.SubscriberCode) {
		return proof{}, fmt.Errorf("%w: there is no such subscriber, or his code is wrong", ErrUnauthorized)
	}
	g.guesses.forget(who)
	switch {
	case s.Type != "" && s.Type != r.Action:
		return proof{}, fmt.Errorf("%w: the subscriber may only %s", ErrForbidden, s.Type)
	case s.blocks(r.Action) && s.BlockedUntil.After(g.now()):
		return proof{}, ErrBlocked
	}
	p := proof{method: TOTP, subscriber: s.ID}
	if s.Limit >= 0 {
		p.commit = func(ctx context.Context) error {
			taken, err := g.sit(ctx, r.Stream, s.ID, max(1, s.Limit))
			if err != nil {
				return err
			}
			g.mu.Lock()
			defer g.mu.Unlock()
			if _, runs := g.grants[gr]; !runs { // ended meanwhile
				g.release[taken.key()] = *taken
				return nil
			}
			gr.seat = taken
			return nil
		}
	}
	return p, nil
}

func (s Subscriber) blocks(a Action) bool {
	return s.Blocked == BlockBoth || string(s.Blocked) == string(a)
}

func (s Subscriber) period() time.Duration {
	if s.Period > 0 {
		return s.Period
	}
	return codePeriod
}

// key is what codes are computed with; false: there is none.
func (s Subscriber) key(rule Rule, do Action) ([]byte, bool) {
	if s.Secret != "" {
		key, err := decode32(s.Secret)
		return key, err == nil
	}
	if rule.TOTPSecret == "" {
		return nil, false
	}
	text := rule.TOTPSecret + s.ID + s.Stream + string(do)
	return []byte(text + strings.Repeat("X", (8-len(text)%8)%8)), true
}

func decode32(s string) ([]byte, error) {
	s = strings.TrimRight(strings.ToUpper(s), "=")
	return base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(s)
}

// codeIs takes the codes of this period and its neighbours: clocks differ, and typing takes time.
func codeIs(key []byte, now time.Time, period time.Duration, code string) bool {
	ok := 0
	for _, at := range []time.Time{now.Add(-period), now, now.Add(period)} {
		ok |= subtle.ConstantTimeCompare([]byte(codeAt(key, at, period, codeDigits)), []byte(code))
	}
	return ok == 1
}

// codeAt is the TOTP of RFC 6238 §4.2, with the truncation of RFC 4226 §5.3.
func codeAt(key []byte, at time.Time, period time.Duration, digits int) string {
	var counter [8]byte
	binary.BigEndian.PutUint64(counter[:], uint64(at.Unix()/int64(period.Seconds())))
	mac := hmac.New(sha1.New, key)
	mac.Write(counter[:])
	sum := mac.Sum(nil)
	n := binary.BigEndian.Uint32(sum[sum[len(sum)-1]&0xf:]) & 0x7fffffff
	mod := uint32(1)
	for range digits {
		mod *= 10
	}
	return fmt.Sprintf("%0*d", digits, n%mod)
}

// Code is a subscriber's at this moment.
func (g *Guard) Code(ctx context.Context, rule Rule, key media.Key, id string, do Action) (string, error) {
	s, _, err := g.readSubscriber(ctx, key, id)
	if err != nil {
		return "", err
	}
	secret, ok := s.key(rule, do)
	if !ok {
		return "", fmt.Errorf("%w: the subscriber has no secret", ErrBad)
	}
	return codeAt(secret, g.now(), s.period(), codeDigits), nil
}

func (s Subscriber) check() error {
	switch {
	case s.ID == "" || !plain(s.ID, maxSubscriber):
		return fmt.Errorf("%w: subscriberId is 1 to %d bytes of text", ErrBad, maxSubscriber)
	case !plain(s.Name, 2*maxSubscriber):
		return fmt.Errorf("%w: subscriberName has at most %d bytes of text", ErrBad, 2*maxSubscriber)
	case s.Type != "" && s.Type != Publish && s.Type != Play:
		return fmt.Errorf("%w: type is publish or play", ErrBad)
	case s.Limit < -1 || s.Limit > maxSeats:
		return fmt.Errorf("%w: concurrentConnectionsLimit is at most %d, or -1 for no limit", ErrBad, maxSeats)
	case s.Period != 0 && (s.Period < 10*time.Second || s.Period > time.Hour):
		return fmt.Errorf("%w: totpExpiryPeriodSeconds is 10 to 3600", ErrBad)
	}
	if s.Secret != "" {
		if key, err := decode32(s.Secret); err != nil || len(key) < minTOTPKey || len(key) > maxSubscriber {
			return fmt.Errorf("%w: b32Secret is Base32 of %d to %d bytes", ErrBad, minTOTPKey, maxSubscriber)
		}
	}
	return nil
}

// AddSubscriber writes one, also in the place of another with the same id.
func (g *Guard) AddSubscriber(ctx context.Context, key media.Key, s Subscriber) error {
	s.Stream = key.ID
	if s.Limit == 0 {
		s.Limit = 1
	}
	if err := s.check(); err != nil {
		return err
	}
	return g.editSubscriber(ctx, key, s.ID, true, func(old Subscriber) Subscriber {
		s.Blocked, s.BlockedUntil = old.Blocked, old.BlockedUntil
		return s
	})
}

func (g *Guard) editSubscriber(ctx context.Context, key media.Key, id string, add bool, edit func(Subscriber) Subscriber) error {
	for range editTries {
		old, version, err := g.readSubscriber(ctx, key, id)
		if err != nil && !(add && errors.Is(err, ErrNone)) {
			return err
		}
		d, err := edit(old).document(key.App, version)
		if err == nil {
			_, err = g.docs.Put(ctx, d)
		}
		if !isRace(err) {
			return unavailable(err)
		}
	}
	return fmt.Errorf("%w: others write the same subscriber", ErrUnavailable)
}

// Subscribers is a page of a stream's.
func (g *Guard) Subscribers(ctx context.Context, key media.Key, offset, limit int) (list []Subscriber, total int, err error) {
	page, total, err := g.find(ctx, kindSubscriber, key, offset, limit)
	for _, d := range page {
		var s Subscriber
		if err := json.Unmarshal(d.Body, &s); err != nil {
			return nil, 0, err
		}
		list = append(list, s)
	}
	return list, total, err
}

// DeleteSubscriber deletes one and ends his sessions.
func (g *Guard) DeleteSubscriber(ctx context.Context, key media.Key, id string) error {
	if _, _, err := g.readSubscriber(ctx, key, id); err != nil {
		return err
	}
	if err := g.docs.Delete(ctx, kindSubscriber, key.App, subscriberDoc(key.ID, id), 0); err != nil && !isNone(err) {
		return unavailable(err)
	}
	return g.cut(ctx, key.App, aboutSubscriber(key.ID, id), cut{Publish: true, Play: true})
}

// DeleteSubscribers deletes all of a stream.
func (g *Guard) DeleteSubscribers(ctx context.Context, key media.Key) (n int, err error) {
	for {
		list, _, err := g.Subscribers(ctx, key, 0, 0)
		if err != nil || len(list) == 0 {
			return n, err
		}
		for _, s := range list {
			if err := g.DeleteSubscriber(ctx, key, s.ID); err != nil && !errors.Is(err, ErrNone) {
				return n, err
			}
			n++
		}
	}
}

// Block sends a subscriber away for a while, by whatever method he has come; 0: he may come again at once. He need not be registered.
func (g *Guard) Block(ctx context.Context, key media.Key, id string, what Blocked, lasts time.Duration) error {
	if id == "" || !plain(id, maxSubscriber) || what != BlockPublish && what != BlockPlay && what != BlockBoth || lasts < 0 || lasts > maxTokenLife {
		return fmt.Errorf("%w: publish, play or publish_play is blocked for 0 s to five years", ErrBad)
	}
	until := g.now().Add(lasts)
	err := g.editSubscriber(ctx, key, id, false, func(s Subscriber) Subscriber {
		s.Blocked, s.BlockedUntil = what, until
		return s
	})
	if err != nil && !errors.Is(err, ErrNone) {
		return err
	}
	return g.cut(ctx, key.App, aboutSubscriber(key.ID, id), cut{Until: until, Publish: what != BlockPlay, Play: what != BlockPublish})
}
