package access

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

const (
	clockSkew    = 10 * time.Second // how far the clock of whoever signs may be off
	keysFresh    = 10 * time.Minute // a key set is asked for again then
	keysAgain    = 30 * time.Second // at the earliest, for a key that it does not have or when it failed
	maxKeySet    = 256 << 10        // bytes
	minRSA       = 2048             // bits
	signedFor    = time.Hour        // by SignJWT, if nothing is said
	maxSignedFor = 10 * 365 * 24 * time.Hour
)

// claims of a JWT for a stream.
type claims struct {
	StreamID     string `json:"streamId"`
	Type         Action `json:"type"`
	SubscriberID string `json:"subscriberId,omitempty"`
	jwt.RegisteredClaims
}

// byHash admits with hex(sha256(stream id + role + secret)).
func byHash(rule Rule, r Request) (proof, error) {
	if rule.HashSecret == "" {
		return proof{}, fmt.Errorf("%w: there is no secret for hashes", ErrForbidden)
	}
	want := HashOf(rule, r.Stream.ID, r.Action)
	if subtle.ConstantTimeCompare([]byte(want), []byte(strings.ToLower(r.Token))) != 1 {
		return proof{}, fmt.Errorf("%w: the hash is not that of this stream", ErrUnauthorized)
	}
	return proof{method: Hash, jwt: r.Token}, nil
}

// HashOf is the token by which Hash admits.
func HashOf(rule Rule, id string, do Action) string {
	sum := sha256.Sum256([]byte(id + string(do) + rule.HashSecret))
	return hex.EncodeToString(sum[:])
}

func (g *Guard) byJWT(ctx context.Context, rule Rule, r Request) (proof, error) {
	c, err := g.verify(ctx, rule, r.Token, jwt.WithExpirationRequired(), jwt.WithLeeway(clockSkew), jwt.WithTimeFunc(g.now))
	if err != nil {
		return proof{}, err
	}
	if c.StreamID != r.Stream.ID || c.Type != r.Action {
		return proof{}, fmt.Errorf("%w: the token is to %.10s stream %.40q", ErrForbidden, c.Type, c.StreamID)
	}
	if !plain(c.SubscriberID, maxSubscriber) {
		return proof{}, fmt.Errorf("%w: the claim subscriberId is too long", ErrUnauthorized)
	}
	return proof{method: JWT, jwt: r.Token, jwtID: c.ID, subscriber: c.SubscriberID}, nil
}

// verify parses a token signed by one of the rule's keys.
func (g *Guard) verify(ctx context.Context, rule Rule, token string, options ...jwt.ParserOption) (c claims, err error) {
	var away error
	options = append(options, jwt.WithValidMethods([]string{"HS256", "RS256", "ES256"}))
	_, err = jwt.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		if t.Method.Alg() == "HS256" {
			if rule.JWTSecret == "" {
				return nil, errors.New("HS256 is not taken here")
			}
			return []byte(rule.JWTSecret), nil
		}
		if rule.JWKS == "" {
			return publicKey(rule.JWTKey)
		}
		key, err := g.keys.find(ctx, g.cfg.Client, rule.JWKS, t)
		if errors.Is(err, ErrNoAnswer) {
			if rule.JWTKey != "" {
				return publicKey(rule.JWTKey)
			}
			away = err
		}
		return key, err
	}, options...)
	switch {
	case away != nil:
		return c, away
	case errors.Is(err, jwt.ErrTokenExpired):
		return c, fmt.Errorf("%w: the token has expired", ErrUnauthorized)
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return c, fmt.Errorf("%w: the token is not valid yet", ErrUnauthorized)
	case err != nil:
		return c, fmt.Errorf("%w: the JWT is not valid here", ErrUnauthorized)
	}
	return c, nil
}

// publicKey reads a PEM; "" is no key.
func publicKey(text string) (any, error) {
	if text == "" {
		return nil, nil
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("the JWT key is no PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the JWT key is no public key (PEM, PKIX): %w", err)
	}
	return key, goodKey(key)
}

// goodKey refuses keys that RS256 and ES256 don't take.
func goodKey(key any) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() >= minRSA {
			return nil
		}
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return nil
		}
	}
	return fmt.Errorf("a key is RSA of at least %d bits (RS256) or EC P-256 (ES256)", minRSA)
}

// SignJWT makes a token that a rule with a JWT secret takes.
func (g *Guard) SignJWT(rule Rule, id string, do Action, expires time.Time) (string, error) {
	now := g.now()
	if expires.IsZero() {
		expires = now.Add(signedFor)
	}
	if rule.JWTSecret == "" {
		return "", fmt.Errorf("%w: the application has no JWT secret to sign with", ErrBad)
	}
	if !expires.After(now) || expires.After(now.Add(maxSignedFor)) {
		return "", fmt.Errorf("%w: the token would have expired, or never expire", ErrBad)
	}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, claims{StreamID: id, Type: do, RegisteredClaims: jwt.RegisteredClaims{
		ID: newID(), ExpiresAt: jwt.NewNumericDate(expires), IssuedAt: jwt.NewNumericDate(now)}}).SignedString([]byte(rule.JWTSecret))
}

// keySets are the sets of public keys that rules name, as last read.
type keySets struct {
	mu   sync.Mutex
	sets map[string]*keySet
}

// mostSets bounds how many are kept: rules change at run time.
const mostSets = 256

type keySet struct {
	reading sync.Mutex // one reads; others take what there is

	mu    sync.Mutex
	keys  keyfunc.Keyfunc // nil: never read
	read  time.Time
	tried time.Time
}

// find returns the key that has signed a token. ErrNoAnswer: none was ever read.
func (s *keySets) find(ctx context.Context, client *http.Client, url string, t *jwt.Token) (any, error) {
	s.mu.Lock()
	set := s.sets[url]
	if set == nil {
		if len(s.sets) >= mostSets {
			clear(s.sets)
		}
		set = &keySet{}
		s.sets[url] = set
	}
	s.mu.Unlock()
	keys, err := set.get(ctx, client, url, keysFresh)
	if err != nil {
		return nil, err
	}
	key, err := keys.KeyfuncCtx(ctx)(t)
	if err != nil { // perhaps a new one
		if keys, err = set.get(ctx, client, url, keysAgain); err == nil {
			key, err = keys.KeyfuncCtx(ctx)(t)
		}
	}
	if err != nil {
		return nil, err
	}
	return key, goodKey(key)
}

// get returns keys that are at most so old, or the last there were.
func (s *keySet) get(ctx context.Context, client *http.Client, url string, fresh time.Duration) (keyfunc.Keyfunc, error) {
	state := func() (keyfunc.Keyfunc, bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.keys, time.Since(s.tried) < keysAgain || s.keys != nil && time.Since(s.read) < fresh
	}
	keys, enough := state()
	if !enough {
		if keys == nil {
			s.reading.Lock()
		} else if !s.reading.TryLock() {
			return keys, nil
		}
		defer s.reading.Unlock()
		if keys, enough = state(); !enough { // nobody has read it meanwhile
			got, err := fetchKeys(ctx, client, url)
			s.mu.Lock()
			if ctx.Err() == nil {
				s.tried = time.Now()
			}
			if err == nil {
				s.keys, s.read = got, time.Now()
			}
			keys = s.keys
			s.mu.Unlock()
		}
	}
	if keys == nil {
		return nil, fmt.Errorf("%w: the key set can't be read", ErrNoAnswer)
	}
	return keys, nil
}

func fetchKeys(ctx context.Context, client *http.Client, url string) (keyfunc.Keyfunc, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxKeySet+1))
	if err != nil || res.StatusCode != http.StatusOK || len(b) > maxKeySet {
		return nil, fmt.Errorf("key set: status %d, %d bytes: %w", res.StatusCode, len(b), err)
	}
	return keyfunc.NewJWKSetJSON(b)
}
