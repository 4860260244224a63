package access

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sluice/cluster/memory"
	"sluice/media"
)

var key = media.Key{App: "live", ID: "stage"}

const (
	hashSecret = "sixteen bytes or more"
	jwtSecret  = "thirty-two bytes or more of a secret"
)

// door is a guard with rules that a test changes.
type door struct {
	*Guard
	docs  *memory.Registry
	rules Rules
}

func newDoor(docs *memory.Registry, rule Rule) *door {
	d := &door{docs: docs, rules: Rules{Publish: rule, Play: rule}}
	d.Guard = New(docs, Config{Rules: func(string) Rules { return d.rules }, Client: &http.Client{Timeout: 5 * time.Second}, Node: "n"})
	return d
}

func open() *memory.Registry { return memory.NewStore(time.Now).Open() }

// enter admits and begins.
func (d *door) enter(ctx context.Context, r Request) (*Grant, error) {
	gr, err := d.Admit(ctx, r)
	if err == nil {
		if err = gr.Begin(ctx); err != nil {
			gr.End()
		}
	}
	return gr, err
}

func is(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) || (want == nil) != (got == nil) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func signed(t *testing.T, method jwt.SigningMethod, key any, id string, do Action, expires time.Duration, edit ...func(*jwt.Token)) string {
	t.Helper()
	tok := jwt.NewWithClaims(method, jwt.MapClaims{"streamId": id, "type": do, "exp": time.Now().Add(expires).Unix(), "jti": "j1"})
	for _, f := range edit {
		f(tok)
	}
	s, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func pemOf(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func TestJWT(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	hs := Rule{Methods: []string{JWT}, JWTSecret: jwtSecret}
	rs := Rule{Methods: []string{JWT}, JWTKey: pemOf(t, &rsaKey.PublicKey)}
	es := Rule{Methods: []string{JWT}, JWTKey: pemOf(t, &ecKey.PublicKey)}
	without := func(claim string) func(*jwt.Token) {
		return func(t *jwt.Token) { delete(t.Claims.(jwt.MapClaims), claim) }
	}
	for _, c := range []struct {
		name  string
		rule  Rule
		token string
		want  error
	}{
		{"HS256", hs, signed(t, jwt.SigningMethodHS256, []byte(jwtSecret), "stage", Publish, time.Minute), nil},
		{"RS256", rs, signed(t, jwt.SigningMethodRS256, rsaKey, "stage", Publish, time.Minute), nil},
		{"ES256", es, signed(t, jwt.SigningMethodES256, ecKey, "stage", Publish, time.Minute), nil},
		{"none", hs, "", ErrUnauthorized},
		{"another stream", hs, signed(t, jwt.SigningMethodHS256, []byte(jwtSecret), "other", Publish, time.Minute), ErrForbidden},
		{"to play", hs, signed(t, jwt.SigningMethodHS256, []byte(jwtSecret), "stage", Play, time.Minute), ErrForbidden},
		{"another secret", hs, signed(t, jwt.SigningMethodHS256, []byte(jwtSecret+"x"), "stage", Publish, time.Minute), ErrUnauthorized},
		{"expired", hs, signed(t, jwt.SigningMethodHS256, []byte(jwtSecret), "stage", Publish, -time.Minute), ErrUnauthorized},
		{"expired by less than clocks differ", hs, signed(t, jwt.SigningMethodHS256, []byte(jwtSecret), "stage", Publish, -clockSkew/2), nil},
		{"never expires", hs, signed(t, jwt.SigningMethodHS256, []byte(jwtSecret), "stage", Publish, 0, without("exp")), ErrUnauthorized},
		{"not yet", hs, signed(t, jwt.SigningMethodHS256, []byte(jwtSecret), "stage", Publish, time.Hour, func(t *jwt.Token) {
			t.Claims.(jwt.MapClaims)["nbf"] = time.Now().Add(time.Minute).Unix()
		}), ErrUnauthorized},
		{"algorithm none", hs, signed(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "stage", Publish, time.Minute), ErrUnauthorized},
		{"HS512", hs, signed(t, jwt.SigningMethodHS512, []byte(jwtSecret), "stage", Publish, time.Minute), ErrUnauthorized},
		{"the public key as secret", rs, signed(t, jwt.SigningMethodHS256, []byte(rs.JWTKey), "stage", Publish, time.Minute), ErrUnauthorized},
		{"HS256 where RSA is", rs, signed(t, jwt.SigningMethodHS256, []byte(""), "stage", Publish, time.Minute), ErrUnauthorized},
		{"RS256 without a key", hs, signed(t, jwt.SigningMethodRS256, rsaKey, "stage", Publish, time.Minute), ErrUnauthorized},
		{"garbage", hs, "a.b.c", ErrUnauthorized},
		{"oversized", hs, "a.b." + strings.Repeat("c", MaxToken), ErrUnauthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := newDoor(open(), c.rule).enter(t.Context(), Request{Action: Publish, Stream: key, Token: c.token})
			is(t, "publish", err, c.want)
		})
	}
}

// TestKeySet: keys are read again when a token has a new one, not more often than that; those that were read hold while the server is away.
func TestKeySet(t *testing.T) {
	var asked atomic.Int32
	var keys atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if b, _ := keys.Load().(string); b != "" {
			_, _ = w.Write([]byte(b))
			return
		}
		w.WriteHeader(http.StatusBadGateway)
	}))
	defer s.Close()
	first, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set := func(kid string, k *ecdsa.PrivateKey) string {
		b64 := func(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.FillBytes(make([]byte, 32))) }
		b, err := json.Marshal(map[string]any{"keys": []map[string]string{{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": b64(k.X), "y": b64(k.Y)}}})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	token := func(kid string) string {
		return signed(t, jwt.SigningMethodES256, first, "stage", Play, time.Minute, func(t *jwt.Token) { t.Header["kid"] = kid })
	}
	rule := Rule{Methods: []string{JWT}, JWKS: s.URL}
	d := newDoor(open(), rule)
	ask := func(kid string) error {
		_, err := d.enter(t.Context(), Request{Action: Play, Stream: key, Token: token(kid)})
		return err
	}
	age := func() {
		k := d.keys.sets[s.URL]
		k.mu.Lock()
		k.tried, k.read = time.Now().Add(-time.Hour), time.Now().Add(-time.Hour)
		k.mu.Unlock()
	}
	is(t, "a server that fails", ask("k1"), ErrNoAnswer)
	keys.Store(set("k1", first))
	age()
	is(t, "the first key", ask("k1"), nil)
	n := asked.Load()
	for range 20 {
		is(t, "an unknown key", ask("k2"), ErrUnauthorized)
	}
	if asked.Load() != n {
		t.Errorf("unknown keys made %d requests", asked.Load()-n)
	}
	keys.Store(set("k2", first))
	age()
	is(t, "a new key", ask("k2"), nil)
	is(t, "one that was withdrawn", ask("k1"), ErrUnauthorized)
	keys.Store("")
	age()
	is(t, "while the server is away", ask("k2"), nil)
	keys.Store(strings.Repeat(" ", maxKeySet+1) + set("k3", first))
	age()
	is(t, "a set that is too large", ask("k3"), ErrUnauthorized)
}

func TestHash(t *testing.T) {
	rule := Rule{Methods: []string{Hash}, HashSecret: hashSecret}
	d := newDoor(open(), rule)
	good := HashOf(rule, "stage", Play)
	for _, c := range []struct {
		name, token string
		do          Action
		want        error
	}{
		{"good", good, Play, nil},
		{"in capitals", strings.ToUpper(good), Play, nil},
		{"of another role", good, Publish, ErrUnauthorized},
		{"of another stream", HashOf(rule, "other", Play), Play, ErrUnauthorized},
		{"of another secret", HashOf(Rule{HashSecret: "x" + hashSecret}, "stage", Play), Play, ErrUnauthorized},
		{"short", good[:63], Play, ErrUnauthorized},
		{"none", "", Play, ErrUnauthorized},
	} {
		_, err := d.enter(t.Context(), Request{Action: c.do, Stream: key, Token: c.token})
		is(t, c.name, err, c.want)
	}
}

func TestOneTimeTokens(t *testing.T) {
	d := newDoor(open(), Rule{Methods: []string{Token}})
	ctx := t.Context()
	add := func() string {
		tok, err := d.AddToken(ctx, key, Play, "", time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return tok.ID
	}
	id := add()
	ask := func(do Action, k media.Key, token, session string) error {
		_, err := d.enter(ctx, Request{Action: do, Stream: k, Token: token, Session: session})
		return err
	}
	is(t, "to publish", ask(Publish, key, id, ""), ErrForbidden)
	is(t, "another stream", ask(Play, media.Key{App: "live", ID: "other"}, id, ""), ErrForbidden)
	is(t, "another application", ask(Play, media.Key{App: "other", ID: "stage"}, id, ""), ErrUnauthorized)
	gr, err := d.Admit(ctx, Request{Action: Play, Stream: key, Token: id})
	is(t, "a session that does not begin", err, nil)
	gr.End()
	is(t, "its session", ask(Play, key, id, "s1"), nil)
	is(t, "its session again", ask(Play, key, id, "s1"), nil)
	is(t, "another session", ask(Play, key, id, "s2"), ErrUnauthorized)
	is(t, "a session without a name", ask(Play, key, id, ""), ErrUnauthorized)
	is(t, "one that is none", ask(Play, key, newID(), ""), ErrUnauthorized)
	is(t, "one with odd bytes", ask(Play, key, "a\r\nb", ""), ErrUnauthorized)

	id = add() // two at the same time: one of them
	a, errA := d.Admit(ctx, Request{Action: Play, Stream: key, Token: id})
	b, errB := d.Admit(ctx, Request{Action: Play, Stream: key, Token: id})
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	is(t, "the first to begin", a.Begin(ctx), nil)
	is(t, "the second", b.Begin(ctx), ErrUnauthorized)

	for _, c := range []struct {
		do      Action
		expires time.Duration
	}{{Play, -time.Second}, {Play, 10 * maxTokenLife}, {"both", time.Hour}} {
		_, err := d.AddToken(ctx, key, c.do, "", time.Now().Add(c.expires))
		is(t, fmt.Sprint(c), err, ErrBad)
	}
	old := OneTime{ID: newID(), Stream: "stage", Type: Play, Expires: time.Now().Add(-time.Second)}
	doc, err := old.document("live", 0)
	if err == nil {
		_, err = d.docs.Put(ctx, doc)
	}
	is(t, "write", err, nil)
	is(t, "expired", ask(Play, key, old.ID, ""), ErrUnauthorized)
	if n, err := d.DeleteTokens(ctx, key); n != 3 || err != nil {
		t.Errorf("%d deleted, %v", n, err)
	}
	is(t, "deleted", ask(Play, key, id, ""), ErrUnauthorized)
}

// TestCodes has the vectors of RFC 6238, appendix B.
func TestCodes(t *testing.T) {
	for at, want := range map[int64]string{59: "94287082", 1111111109: "07081804", 1234567890: "89005924", 20000000000: "65353130"} {
		if got := codeAt([]byte("12345678901234567890"), time.Unix(at, 0), 30*time.Second, 8); got != want {
			t.Errorf("%d: %s, want %s", at, got, want)
		}
	}
}

func TestSubscribers(t *testing.T) {
	rule := Rule{Methods: []string{TOTP}}
	docs := open()
	d := newDoor(docs, rule)
	ctx := t.Context()
	if err := d.AddSubscriber(ctx, key, Subscriber{ID: "ada", Secret: "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", Type: Play}); err != nil {
		t.Fatal(err)
	}
	code, err := d.Code(ctx, rule, key, "ada", Play)
	if err != nil || len(code) != codeDigits {
		t.Fatal(code, err)
	}
	ask := func(who, code string, do Action) (*Grant, error) {
		return d.enter(ctx, Request{Action: do, Stream: key, SubscriberID: who, SubscriberCode: code})
	}
	first, err := ask("ada", code, Play)
	is(t, "the first", err, nil)
	_, err = ask("ada", code, Play)
	is(t, "the second", err, ErrTooManySessions)
	first.End()
	d.giveBack(ctx)
	again, err := ask("ada", code, Play)
	is(t, "after the first", err, nil)
	again.End()
	d.giveBack(ctx)
	_, err = ask("ada", code, Publish)
	is(t, "to publish", err, ErrForbidden)
	_, err = ask("bob", code, Play)
	is(t, "somebody else", err, ErrUnauthorized)

	d.rules.Play.TOTPSecret = hashSecret
	s := Subscriber{ID: "bob", Stream: "stage"}
	secret, _ := s.key(d.rules.Play, Play)
	_, err = ask("bob", codeAt(secret, time.Now(), codePeriod, codeDigits), Play)
	is(t, "one who is not registered", err, nil)
	_, err = ask("bob2", codeAt(secret, time.Now(), codePeriod, codeDigits), Play)
	is(t, "his code for another", err, ErrUnauthorized)
	_, err = ask("ada", codeAt([]byte("12345678901234567890"), time.Now().Add(-codePeriod), codePeriod, codeDigits), Play)
	is(t, "a clock that is a minute late", err, nil)
	_, err = ask("ada", codeAt([]byte("12345678901234567890"), time.Now().Add(-5*time.Minute), codePeriod, codeDigits), Play)
	is(t, "an old code", err, ErrUnauthorized)

	for i := range 2 * guessBurst {
		_, err = d.enter(ctx, Request{Action: Play, Stream: key, SubscriberID: "ada", SubscriberCode: fmt.Sprintf("%06d", i), Remote: netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i))})
	}
	is(t, "guesses from everywhere", err, ErrTooMany)
	for _, s := range []Subscriber{{}, {ID: "x\n"}, {ID: "x", Secret: "1"}, {ID: "x", Limit: 1000}, {ID: "x", Type: "both"}, {ID: strings.Repeat("x", 200)}, {ID: "x", Period: time.Second}} {
		is(t, fmt.Sprint(s), d.AddSubscriber(ctx, key, s), ErrBad)
	}
}

// TestSeatsOfTheDead: a node that dies gives the places of its subscribers back after a while.
func TestSeatsOfTheDead(t *testing.T) {
	now := time.Now()
	store := memory.NewStore(func() time.Time { return now })
	dead, next := newDoor(store.Open(), Rule{}), newDoor(store.Open(), Rule{})
	ctx := t.Context()
	for _, limit := range []int{1, 2} {
		_, err := dead.sit(ctx, key, fmt.Sprint(limit), limit)
		is(t, "sit", err, nil)
	}
	_, err := next.sit(ctx, key, "1", 1)
	is(t, "a second of one", err, ErrTooManySessions)
	_, err = next.sit(ctx, key, "2", 2)
	is(t, "a second of two", err, nil)
	_, err = next.sit(ctx, key, "2", 2)
	is(t, "a third of two", err, ErrTooManySessions)
	now = now.Add(holdFor + time.Second)
	_, err = next.sit(ctx, key, "1", 1)
	is(t, "after the first has died", err, nil)
}

// TestLeave: clients of a node that drains come in elsewhere with the same token, and in their own place.
func TestLeave(t *testing.T) {
	store := memory.NewStore(time.Now)
	rule := Rule{Methods: []string{Token, TOTP}}
	here, there := newDoor(store.Open(), rule), newDoor(store.Open(), rule)
	ctx := t.Context()
	tok, err := here.AddToken(ctx, key, Play, "", time.Now().Add(time.Hour))
	is(t, "token", err, nil)
	is(t, "add", here.AddSubscriber(ctx, key, Subscriber{ID: "ada", Secret: "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"}), nil)
	code, err := here.Code(ctx, rule, key, "ada", Play)
	is(t, "code", err, nil)
	wishes := map[string]Request{"token": {Action: Play, Stream: key, Token: tok.ID}, "subscriber": {Action: Play, Stream: key, SubscriberID: "ada", SubscriberCode: code}}
	var grants []*Grant
	for name, r := range wishes {
		gr, err := here.enter(ctx, r)
		is(t, name, err, nil)
		grants = append(grants, gr)
	}
	for name, r := range wishes {
		if _, err := there.enter(ctx, r); err == nil {
			t.Errorf("%s admits twice", name)
		}
	}
	here.letGo(ctx)
	here.giveBack(ctx)
	for name, r := range wishes {
		_, err := there.enter(ctx, r)
		is(t, name+" elsewhere", err, nil)
	}
	for _, gr := range grants {
		gr.End()
	}
	here.giveBack(ctx)
	if n, err := there.Connections(ctx, key, []Subscriber{{ID: "ada"}}); err != nil || n[0] != 1 {
		t.Errorf("%v sessions, %v", n, err)
	}
}

func TestStrangers(t *testing.T) {
	d := newDoor(open(), Rule{Methods: []string{Token, Hash}, HashSecret: hashSecret})
	var err error
	ask := func(from string) error {
		_, err := d.Admit(t.Context(), Request{Action: Play, Stream: key, Token: newID(), Remote: netip.MustParseAddr(from)})
		return err
	}
	for i := range strangerBurst + 2 {
		err = ask(fmt.Sprintf("2001:db8::%x", i+1))
	}
	is(t, "an address that guesses", err, ErrTooMany)
	is(t, "another", ask("2001:db8:0:1::1"), ErrUnauthorized)
	_, err = d.Admit(t.Context(), Request{Action: Play, Stream: key, Token: HashOf(d.rules.Play, "stage", Play), Remote: netip.MustParseAddr("2001:db8::1")})
	is(t, "a neighbour with a good hash", err, nil)
}

func TestWebhook(t *testing.T) {
	var (
		mu     sync.Mutex // an answer that came too late may still be under way
		got    question
		status int
	)
	hang := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked question
		err := json.NewDecoder(r.Body).Decode(&asked)
		mu.Lock()
		answer := status
		if err == nil {
			got = asked
		}
		mu.Unlock()
		if answer == 0 {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
			return
		}
		w.Header().Set("Location", "http://127.0.0.1:1/")
		w.WriteHeader(answer)
	}))
	defer s.Close()
	defer close(hang)
	d := newDoor(open(), Rule{Webhook: s.URL})
	d.cfg.Client = &http.Client{Timeout: 200 * time.Millisecond, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r := Request{Action: Publish, Stream: key, Token: "t\r\nX: y", Query: "a=1&a=2", Metadata: `{"x":1}`, Remote: netip.MustParseAddr("192.0.2.1")}
	for _, c := range []struct {
		name   string
		status int
		open   bool
		want   error
	}{
		{"agrees", 200, false, nil}, {"another 2xx", 204, false, ErrForbidden}, {"refuses", 403, false, ErrForbidden}, {"refuses, open", 403, true, ErrForbidden},
		{"sends elsewhere", 302, true, ErrForbidden}, {"fails", 500, false, ErrNoAnswer}, {"fails, open", 500, true, nil}, {"is silent", 0, false, ErrNoAnswer}, {"is silent, open", 0, true, nil},
	} {
		mu.Lock()
		status = c.status
		mu.Unlock()
		d.rules.Publish.WebhookOpen = c.open
		_, err := d.Admit(t.Context(), r)
		is(t, c.name, err, c.want)
	}
	mu.Lock()
	defer mu.Unlock()
	if got.AppName != "live" || got.StreamID != "stage" || got.Mode != Publish || got.Token != r.Token || len(got.QueryParams["a"]) != 2 || got.RemoteIP != "192.0.2.1" {
		t.Errorf("it was asked %+v", got)
	}
}

// TestOutage: what needs no registry goes on.
func TestOutage(t *testing.T) {
	docs := open()
	d := newDoor(docs, Rule{Methods: []string{Token, JWT, Hash, TOTP}, JWTSecret: jwtSecret, HashSecret: hashSecret, TOTPSecret: hashSecret})
	tok, err := d.AddToken(t.Context(), key, Play, "", time.Now().Add(time.Hour))
	is(t, "token", err, nil)
	docs.Cut(true)
	for _, c := range []struct {
		name string
		r    Request
		want error
	}{
		{"token", Request{Token: tok.ID}, ErrUnavailable},
		{"JWT", Request{Token: signed(t, jwt.SigningMethodHS256, []byte(jwtSecret), "stage", Play, time.Minute)}, nil},
		{"hash", Request{Token: HashOf(d.rules.Play, "stage", Play)}, nil},
		{"subscriber", Request{SubscriberID: "x", SubscriberCode: "123456"}, ErrUnavailable},
		{"nothing", Request{}, ErrUnauthorized},
	} {
		c.r.Action, c.r.Stream = Play, key
		_, err := d.enter(t.Context(), c.r)
		is(t, c.name, err, c.want)
	}
	d.rules.Play.Methods = []string{Open}
	_, err = d.enter(t.Context(), Request{Action: Play, Stream: key})
	is(t, "open", err, nil)
	docs.Cut(false)
}

// TestRevoking: what is revoked on one node ends sessions on another, once that has read the news, and only those that it is about.
func TestRevoking(t *testing.T) {
	store := memory.NewStore(time.Now)
	rule := Rule{Methods: []string{Token, JWT, Hash, TOTP}, JWTSecret: jwtSecret, HashSecret: hashSecret}
	here, there := newDoor(store.Open(), rule), newDoor(store.Open(), rule)
	ctx := t.Context()
	is(t, "load", there.Load(ctx), nil)
	is(t, "add", here.AddSubscriber(ctx, key, Subscriber{ID: "ada", Secret: "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", Limit: -1}), nil)
	code, err := here.Code(ctx, rule, key, "ada", Play)
	is(t, "code", err, nil)
	token, err := here.AddToken(ctx, key, Play, "", time.Now().Add(time.Hour))
	is(t, "token", err, nil)
	ended := map[string]error{}
	begin := func(name string, r Request) error {
		r.Action, r.Stream = Play, key
		gr, err := there.enter(ctx, r)
		if err == nil {
			gr.OnRevoked(func(reason error) { ended[name] = reason })
		}
		return err
	}
	jwtA := signed(t, jwt.SigningMethodHS256, []byte(jwtSecret), "stage", Play, time.Minute)
	hash := Request{Token: HashOf(rule, "stage", Play)}
	for name, r := range map[string]Request{"token": {Token: token.ID}, "jwt": {Token: jwtA}, "hash": hash, "totp": {SubscriberID: "ada", SubscriberCode: code}} {
		is(t, name, begin(name, r), nil)
	}
	want := func(what string, names ...string) {
		t.Helper()
		is(t, "load", there.Load(ctx), nil)
		if len(ended) != len(names) {
			t.Errorf("after %s: %v ended, want %v", what, ended, names)
		}
		for _, n := range names {
			is(t, n+" after "+what, ended[n], ErrRevoked)
		}
	}
	want("nothing")
	is(t, "delete", here.DeleteToken(ctx, key, token.ID), nil)
	want("a token was deleted", "token")
	is(t, "deny", here.DenyJWT(ctx, "live", "j1", time.Now().Add(time.Hour)), nil)
	want("a JWT was denied", "token", "jwt")
	is(t, "the JWT again", begin("x", Request{Token: jwtA}), ErrUnauthorized)
	is(t, "block", here.Block(ctx, key, "ada", BlockPublish, time.Hour), nil)
	want("another action was blocked", "token", "jwt")
	is(t, "block", here.Block(ctx, key, "ada", BlockPlay, time.Hour), nil)
	want("the subscriber was blocked", "token", "jwt", "totp")
	is(t, "blocked", begin("x", Request{SubscriberID: "ada", SubscriberCode: code}), ErrBlocked)
	is(t, "blocked, with a hash", begin("x", Request{SubscriberID: "ada", Token: hash.Token}), ErrBlocked)
	is(t, "unblock", here.Block(ctx, key, "ada", BlockBoth, 0), nil)
	want("the subscriber was unblocked", "token", "jwt", "totp")
	is(t, "unblocked", begin("later", Request{SubscriberID: "ada", SubscriberCode: code}), nil)

	there.rules.Play.JWTSecret += "x"
	there.Recheck(ctx)
	want("a secret of others changed", "token", "jwt", "totp")
	there.rules.Play.HashSecret += "x"
	there.Recheck(ctx)
	want("the secret changed", "token", "jwt", "totp", "hash")
	there.rules.Play.Methods = []string{JWT}
	there.Recheck(ctx)
	want("the rule was tightened", "token", "jwt", "totp", "hash", "later")
	if n := there.Running(); n != 5 {
		t.Errorf("%d grants run, until their sessions end", n)
	}
}

func TestRuleCheck(t *testing.T) {
	ok := func(string) error { return nil }
	for _, c := range []struct {
		name string
		rule Rule
		good bool
	}{
		{"nothing", Rule{}, true},
		{"all", Rule{Methods: []string{Open, Token, JWT, Hash, TOTP}, JWTSecret: jwtSecret, HashSecret: hashSecret}, true},
		{"jwt without a key", Rule{Methods: []string{JWT}}, false},
		{"short secret", Rule{Methods: []string{JWT}, JWTSecret: "short"}, false},
		{"no PEM", Rule{Methods: []string{JWT}, JWTKey: "x"}, false},
		{"hash without a secret", Rule{Methods: []string{Hash}}, false},
		{"unknown", Rule{Methods: []string{"magic"}}, false},
	} {
		if err := c.rule.Check(ok); (err == nil) != c.good {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if (Rule{Webhook: "x"}).Check(func(string) error { return errors.New("bad") }) == nil {
		t.Error("a bad address is taken")
	}
}
