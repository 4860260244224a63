package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/cluster/memory"
)

const password = "four plain words more"

var here = netip.MustParseAddr("192.0.2.1")

// clock stands still until it is moved.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func newStore() (*memory.Store, *clock) {
	c := &clock{at: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}
	return memory.NewStore(c.now), c
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCan(t *testing.T) {
	admin := Identity{Name: "a", Kind: User, Role: Administrator}
	operator := Identity{Name: "o", Kind: User, Role: Operator}
	reader := Identity{Name: "r", Kind: User, Role: ReadOnly}
	inLive := Identity{Name: "l", Kind: User, Role: ReadOnly, Apps: map[string]Role{"live": Administrator, "other": NoRole}}
	onlyLive := Identity{Name: "l", Kind: User, Apps: map[string]Role{"live": Operator}}
	key := Identity{Name: "a", Kind: Key, Role: Administrator}
	scoped := Identity{Name: "a", Kind: Key, Role: Administrator, Scopes: []Action{StreamsWrite}}
	readerKey := Identity{Name: "r", Kind: Key, Role: ReadOnly, Scopes: []Action{StreamsWrite, StreamsRead}}
	liveKey := Identity{Name: "a", Kind: Key, Role: Administrator, OnlyApps: []string{"live"}}
	for _, c := range []struct {
		name   string
		who    Identity
		do     Action
		app    string
		can    bool
		inSome bool
	}{
		{"nobody reads", Identity{}, StreamsRead, "live", false, false},
		{"nobody, with a role by mistake", Identity{Role: Administrator}, StreamsRead, "live", false, false},
		{"nobody on what is open", Identity{}, Public, "", true, true},
		{"an action that is none", admin, "everything", "", false, false},
		{"administrator", admin, UsersWrite, "", true, true},
		{"operator on accounts", operator, UsersRead, "", false, false},
		{"operator on streams", operator, StreamsWrite, "live", true, true},
		{"operator on settings", operator, SettingsWrite, "live", false, false},
		{"operator on nodes", operator, ClusterWrite, "", true, true},
		{"reader on streams", reader, StreamsWrite, "live", false, false},
		{"reader on tokens", reader, AccessRead, "live", false, false},
		{"administrator of an application, there", inLive, SettingsWrite, "live", true, true},
		{"elsewhere", inLive, SettingsWrite, "x", false, true},
		{"everywhere", inLive, SettingsWrite, "", false, true},
		{"reads everywhere", inLive, StreamsRead, "x", true, true},
		{"not the cluster", inLive, ClusterWrite, "live", false, false},
		{"not accounts", inLive, UsersRead, "live", false, false},
		{"of one application alone, elsewhere", onlyLive, StreamsRead, "x", false, true},
		{"of one application alone, there", onlyLive, StreamsWrite, "live", true, true},
		{"of one application alone, the cluster", onlyLive, ClusterRead, "", false, false},
		{"key", key, UsersWrite, "", true, true},
		{"key on the account itself", key, Self, "", false, false},
		{"person on the account itself", reader, Self, "", true, true},
		{"within a scope", scoped, StreamsWrite, "live", true, true},
		{"beyond a scope", scoped, StreamsRead, "live", false, false},
		{"a scope gives nothing that its account has not", readerKey, StreamsWrite, "live", false, false},
		{"a scope within what its account has", readerKey, StreamsRead, "live", true, true},
		{"limited to an application, there", liveKey, StreamsWrite, "live", true, true},
		{"limited to an application, elsewhere", liveKey, StreamsWrite, "x", false, true},
		{"limited to an application, the server", liveKey, UsersRead, "", false, false},
		{"limited to an application, the server by its name", liveKey, UsersRead, "live", false, false},
	} {
		if got := Can(c.who, c.do, c.app); got != c.can {
			t.Errorf("%s: Can %s in %q is %v", c.name, c.do, c.app, got)
		}
		if got := InSome(c.who, c.do); got != c.inSome && c.do != Self {
			t.Errorf("%s: InSome %s is %v", c.name, c.do, got)
		}
	}
}

func TestPasswords(t *testing.T) {
	for pw, good := range map[string]bool{
		"": false, "short": false, "123456789": false, "1234567890": false, "aaaaaaaaaaaaaa": false, "ada2026!!!": false, "Password2026!": false,
		"ada@example.com1": true, "four plain words": true, "äöü äöü ßß": true, strings.Repeat("ab cd efg ", 30): false, "bad \xff bytes here": false,
	} {
		if err := CheckPassword("ada@x", pw); (err == nil) != good || err != nil && !errors.Is(err, ErrWeakPassword) {
			t.Errorf("password %.30q: %v", pw, err)
		}
	}
	h := newHasher()
	ctx := t.Context()
	one, err := h.hash(ctx, password)
	ok(t, err)
	two, err := h.hash(ctx, password)
	ok(t, err)
	if one == two || !strings.HasPrefix(one, "$argon2id$v=19$m=19456,t=2,p=1$") || outdated(one) {
		t.Errorf("hashes %s and %s", one, two)
	}
	for _, c := range []struct {
		name, password, stored string
		ok, bad                bool
	}{
		{"right", password, one, true, false},
		{"wrong", password + "x", one, false, false},
		{"empty", "", one, false, false},
		{"no account", password, "", false, false},
		{"garbage", password, "$argon2id$x", false, true},
		{"too costly", password, strings.Replace(one, "m=19456", "m=99999999", 1), false, true},
		{"another kind", password, strings.Replace(one, "argon2id", "argon2i", 1), false, true},
		{"an empty sum", password, one[:strings.LastIndex(one, "$")+1], false, false},
	} {
		got, err := h.verify(ctx, c.password, c.stored)
		if got != c.ok || (err != nil) != c.bad {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
	if !outdated(strings.Replace(one, "t=2", "t=1", 1)) {
		t.Error("a hash with fewer passes is not outdated")
	}
}

// A flood of passwords waits in a bounded queue, and is computed few at a time.
func TestHasherIsBounded(t *testing.T) {
	h := newHasher()
	if n := cap(h.turns); n < 1 || n > mostHashes {
		t.Errorf("%d at a time", n)
	}
	release := make(chan struct{})
	started := make(chan struct{}, 1000)
	var wg sync.WaitGroup
	var refused, done int
	var mu sync.Mutex
	for range cap(h.waiting) {
		wg.Go(func() {
			err := h.do(t.Context(), func() { started <- struct{}{}; <-release })
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				done++
			}
		})
	}
	for range cap(h.turns) {
		<-started
	}
	for len(h.waiting) < cap(h.waiting) { // all others have come
		<-time.After(time.Millisecond)
	}
	for range 10 {
		if err := h.do(t.Context(), func() {}); errors.Is(err, ErrTooMany) {
			refused++
		}
	}
	if refused != 10 || len(started) != 0 {
		t.Errorf("beside a full queue %d of 10 were refused; %d more are computed than may be", refused, len(started))
	}
	close(release)
	wg.Wait()
	if done != cap(h.waiting) {
		t.Errorf("%d of %d were computed", done, cap(h.waiting))
	}
}

func TestLimiter(t *testing.T) {
	l := newLimiter(3, time.Hour)
	for i := range 3 {
		if err := l.take("a"); err != nil {
			t.Errorf("attempt %d: %v", i, err)
		}
	}
	var many *TooManyError
	if err := l.take("a"); !errors.As(err, &many) || !errors.Is(err, ErrTooMany) || many.After < 59*time.Minute {
		t.Errorf("the fourth: %v", err)
	}
	if l.full("a") == nil || l.full("b") != nil {
		t.Error("a is full, b is not")
	}
	l.giveBack("a")
	if err := l.take("a"); err != nil {
		t.Errorf("after one was given back: %v", err)
	}
	for i := range 2 * mostRemembered {
		_ = l.take(fmt.Sprint(i))
	}
	if n := len(l.found); n > mostRemembered || l.order.Len() != n {
		t.Errorf("%d are remembered, %d in order", n, l.order.Len())
	}
	for in, want := range map[string]string{"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::/64", "fe80::1%eth0": "fe80::/64"} {
		if got := addressKey(netip.MustParseAddr(in)); got != want {
			t.Errorf("%s counts as %s, want %s", in, got, want)
		}
	}
}

// A session ends after a while without use, and after its life however much it is used.
func TestLifeOfASession(t *testing.T) {
	store, clock := newStore()
	a, b := New(store.Open(), Config{SessionIdle: time.Hour, SessionLife: 10 * time.Hour}), New(store.Open(), Config{SessionIdle: time.Hour, SessionLife: 10 * time.Hour})
	_, err := a.Add(t.Context(), Account{Name: "Ada", Role: Operator}, password)
	ok(t, err)
	begin := func() string {
		t.Helper()
		token, id, err := a.LogIn(t.Context(), " ADA ", password, here, "")
		ok(t, err)
		if id.Name != "ada" || id.Role != Operator || id.Kind != User || id.CSRF == "" || strings.Contains(id.ID, token) {
			t.Errorf("who logged in is %+v", id)
		}
		return token
	}
	lives := func(when, token string, want bool) {
		t.Helper()
		for i, at := range []*Accounts{a, b} {
			if _, err := at.BySession(t.Context(), token, here); (err == nil) != want || err != nil && !errors.Is(err, ErrBadCredentials) {
				t.Errorf("%s, at node %d: %v", when, i, err)
			}
		}
	}
	idle := begin()
	lives("at first", idle, true)
	clock.advance(59 * time.Minute)
	lives("after 59 minutes", idle, true)
	clock.advance(59 * time.Minute)
	lives("used again after 59 minutes", idle, true)
	clock.advance(61 * time.Minute)
	lives("an hour without use", idle, false)

	busy := begin()
	for range 19 {
		clock.advance(30 * time.Minute)
		lives("in use", busy, true)
	}
	clock.advance(31 * time.Minute)
	lives("after its life", busy, false)

	// The oldest of too many ends.
	first := begin()
	u, err := a.Account(t.Context(), "ada")
	ok(t, err)
	for range mostSessions {
		clock.advance(time.Millisecond)
		_, _, err := a.begin(t.Context(), u, here, "")
		ok(t, err)
	}
	list, err := a.Sessions(t.Context(), "ada")
	if err != nil || len(list) != mostSessions {
		t.Errorf("%d sessions, %v", len(list), err)
	}
	fresh := New(store.Open(), Config{})
	if _, err := fresh.BySession(t.Context(), first, here); !errors.Is(err, ErrBadCredentials) {
		t.Errorf("the oldest of too many: %v", err)
	}
	if n := len(a.known); n > mostSessions+5 {
		t.Errorf("%d sessions are remembered", n)
	}
}

// What is kept is of no use to who reads the registry.
func TestNothingSecretIsKept(t *testing.T) {
	store, _ := newStore()
	reg := store.Open()
	a := New(reg, Config{})
	link, err := a.FirstLink(t.Context())
	ok(t, err)
	secrets := []string{link, password}
	for _, kind := range []string{kindFirst, kindUser, kindSession, kindKey, kindAudit} {
		if kind == kindUser {
			_, err := a.UseFirstLink(t.Context(), link, Account{Name: "root"}, password, here)
			ok(t, err)
			token, id, err := a.LogIn(t.Context(), "root", password, here, "")
			ok(t, err)
			key, _, err := a.AddKey(t.Context(), KeyInfo{Name: "root"})
			ok(t, err)
			secrets = append(secrets, token, id.CSRF, key)
		}
		n := 0
		ok(t, cluster.EachDocument(t.Context(), reg, cluster.Query{Kind: kind, AllGroups: true}, func(d cluster.Document) error {
			n++
			for _, s := range secrets {
				if strings.Contains(d.ID+d.Name+string(d.Body), s) {
					t.Errorf("%s %s has a secret: %s", kind, d.ID, d.Body)
				}
			}
			return nil
		}))
		if n == 0 {
			t.Errorf("there is no %s", kind)
		}
	}
}

// Of many who use links at once one becomes administrator.
func TestFirstAdministratorIsOne(t *testing.T) {
	store, clock := newStore()
	a := New(store.Open(), Config{})
	old, err := a.FirstLink(t.Context())
	ok(t, err)
	clock.advance(LinkLife)
	if _, err := a.UseFirstLink(t.Context(), old, Account{Name: "old"}, password, here); !errors.Is(err, ErrBadLink) {
		t.Errorf("a link after its time: %v", err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for i := range 5 {
		link, err := a.FirstLink(t.Context())
		ok(t, err)
		node := New(store.Open(), Config{})
		wg.Go(func() {
			_, err := node.UseFirstLink(context.Background(), link, Account{Name: fmt.Sprint("root", i)}, password, here)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				made++
			case !errors.Is(err, ErrBadLink) && !errors.Is(err, ErrChanged) && !errors.Is(err, ErrTooMany):
				t.Errorf("attempt %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if n, err := a.count(t.Context(), string(Administrator)); err != nil || made != 1 || n != 1 {
		t.Errorf("%d made themselves administrator, there are %d, %v", made, n, err)
	}
}

func TestLastAdministrator(t *testing.T) {
	store, _ := newStore()
	a := New(store.Open(), Config{})
	for _, name := range []string{"one", "two"} {
		_, err := a.Add(t.Context(), Account{Name: name, Role: Administrator}, password)
		ok(t, err)
	}
	block := func(u *Account) error { u.Blocked = true; return nil }
	_, err := a.Edit(t.Context(), "one", block)
	ok(t, err)
	if _, err := a.Edit(t.Context(), "two", block); !errors.Is(err, ErrLastAdministrator) {
		t.Errorf("blocking the last one: %v", err)
	}
	if _, err := a.Edit(t.Context(), "two", func(u *Account) error { u.Role = Operator; return nil }); !errors.Is(err, ErrLastAdministrator) {
		t.Errorf("taking the last one's role: %v", err)
	}
	if err := a.Remove(t.Context(), "two"); !errors.Is(err, ErrLastAdministrator) {
		t.Errorf("removing the last one: %v", err)
	}
	ok(t, a.Remove(t.Context(), "one"))
	if err := a.Remove(t.Context(), "one"); !errors.Is(err, ErrNoAccount) {
		t.Errorf("removing it again: %v", err)
	}
	for _, name := range []string{"", ".", "..", "a b", "a/b", "ä", strings.Repeat("x", 65), "a\nb", "<b>"} {
		if _, err := a.Add(t.Context(), Account{Name: name}, password); !errors.Is(err, ErrBadAccount) {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

// A blocked account learns no more than one with a wrong password; the log does.
func TestAudit(t *testing.T) {
	store, clock := newStore()
	a := New(store.Open(), Config{AuditKeep: time.Hour, Node: "n1"})
	_, err := a.Add(t.Context(), Account{Name: "root", Role: Administrator}, password)
	ok(t, err)
	_, err = a.Add(t.Context(), Account{Name: "eve", Blocked: true}, password)
	ok(t, err)
	_, _, blocked := a.LogIn(t.Context(), "eve", password, here, "")
	clock.advance(time.Millisecond)
	_, _, wrong := a.LogIn(t.Context(), "eve\x1b[31m", "wrong password", here, "")
	if !errors.Is(blocked, ErrBadCredentials) || blocked.Error() != wrong.Error() {
		t.Errorf("blocked: %v; wrong: %v", blocked, wrong)
	}
	clock.advance(time.Minute)
	a.Record(t.Context(), Entry{Who: "root", Kind: User, Action: "set", Target: "x", App: "live", From: here, Result: ResultOK})
	list, total, err := a.AuditLog(t.Context(), AuditQuery{Limit: 2})
	if err != nil || total != 3 || len(list) != 2 || list[0].Action != "set" || list[0].App != "live" || list[0].Node != "n1" || list[1].Who != "eve[31m" {
		t.Errorf("the log has %d: %+v, %v", total, list, err)
	}
	if list, _, err := a.AuditLog(t.Context(), AuditQuery{Search: "EVE", Result: "bad_credentials", To: clock.now()}); err != nil || len(list) != 2 || list[1].Detail != "the account is blocked" || list[0].Who == "eve" {
		t.Errorf("eve's entries are %+v, %v", list, err)
	}
	clock.advance(time.Hour)
	if _, total, err := a.AuditLog(t.Context(), AuditQuery{}); err != nil || total != 0 {
		t.Errorf("after its time the log has %d, %v", total, err)
	}
}

// A password that was hashed with less is hashed anew by the next log-in.
func TestRehash(t *testing.T) {
	store, _ := newStore()
	a := New(store.Open(), Config{})
	_, err := a.Add(t.Context(), Account{Name: "root", Role: Administrator}, password)
	ok(t, err)
	weak := weakHash(password)
	_, err = a.Edit(t.Context(), "root", func(u *Account) error { u.Hash = weak; return nil })
	ok(t, err)
	_, _, err = a.LogIn(t.Context(), "root", password, here, "")
	ok(t, err)
	u, err := a.Account(t.Context(), "root")
	if err != nil || u.Hash == weak || outdated(u.Hash) {
		t.Errorf("the hash is %s, %v", u.Hash, err)
	}
	_, _, err = a.LogIn(t.Context(), "root", password, here, "")
	ok(t, err)
}
