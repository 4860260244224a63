package auth

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"sluice/cluster"
)

// Errors of Accounts; test for them with errors.Is.
var (
	// ErrBadCredentials: name or password, session or key is none, or no longer; which of them is nobody's business.
	ErrBadCredentials = errors.New("name or password is wrong")
	// ErrTooMany comes as a *TooManyError.
	ErrTooMany = errors.New("too many attempts")
	// ErrUnavailable: the registry can't be reached.
	ErrUnavailable = errors.New("the registry can't be reached")
	// ErrBadAccount: a name, role or the like that can't be.
	ErrBadAccount = errors.New("bad account")
	// ErrWeakPassword: a password that can be guessed, or is none.
	ErrWeakPassword = errors.New("the password can't be used")
	// ErrNoAccount: there is no such account, session or key.
	ErrNoAccount = errors.New("there is no such account, session or key")
	// ErrAccountExists: the name is taken.
	ErrAccountExists = errors.New("an account with that name exists already")
	// ErrLastAdministrator: somebody must be able to do everything.
	ErrLastAdministrator = errors.New("this is the last administrator: make another one first")
	// ErrBadLink: the link for the first administrator is none, has been used, or is too old; or there are accounts already.
	ErrBadLink = errors.New("the link for the first administrator can't be used (any more)")
	// ErrChanged: somebody else has changed the same thing at the same time.
	ErrChanged = errors.New("somebody else has changed this meanwhile: look again")
)

// Kinds of documents that are kept here.
const (
	kindUser    = "user"
	kindSession = "session"
	kindKey     = "api-key"
	kindAudit   = "audit"
	kindFirst   = "first-link"
)

const (
	registryWithin = 3 * time.Second
	maxName        = 64
	maxWords       = 200 // bytes of a first name, a label and the like
	editTries      = 5
)

// Config is what an operator may set. A zero value means its default, in brackets.
type Config struct {
	SessionIdle time.Duration // a session that nobody uses for so long ends [12h]
	SessionLife time.Duration // every session ends then [168h]
	AuditKeep   time.Duration // [2160h]
	Node        string        // in the audit log
	Log         *slog.Logger
}

// Accounts are those of a cluster, as one process of it knows them. Everything may be called from any goroutine.
type Accounts struct {
	docs cluster.Documents
	cfg  Config
	log  *slog.Logger

	hasher    *hasher
	accounts  *limiter
	addresses *limiter
	strangers *limiter
	denied    *limiter

	asking  sync.Mutex // holds the next two
	asked   time.Time
	awaited bool

	mu      sync.Mutex
	known   map[[32]byte]*cached // sessions and keys by the hash of what their bearer shows
	refused int                  // log-ins since told
	told    time.Time
}

// New does no I/O.
func New(docs cluster.Documents, cfg Config) *Accounts {
	cfg.SessionIdle = cmp.Or(cfg.SessionIdle, 12*time.Hour)
	cfg.SessionLife = cmp.Or(cfg.SessionLife, 7*24*time.Hour)
	cfg.AuditKeep = cmp.Or(cfg.AuditKeep, 90*24*time.Hour)
	return &Accounts{docs: docs, cfg: cfg, log: cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)), hasher: newHasher(),
		accounts: newLimiter(accountBurst, accountPause), addresses: newLimiter(addressBurst, addressPause),
		strangers: newLimiter(strangerBurst, strangerPause), denied: newLimiter(deniedBurst, deniedPause), known: map[[32]byte]*cached{}}
}

// Account is a person, or whoever logs in.
type Account struct {
	Name      string          `json:"name"` // lower case; unique
	FirstName string          `json:"firstName,omitempty"`
	LastName  string          `json:"lastName,omitempty"`
	Picture   string          `json:"picture,omitempty"`
	Role      Role            `json:"role"`
	Apps      map[string]Role `json:"apps,omitempty"` // more than Role in these applications
	Blocked   bool            `json:"blocked,omitempty"`
	Created   time.Time       `json:"created"`

	Hash      string    `json:"hash"`      // of the password
	NotBefore time.Time `json:"notBefore"` // sessions from before are void
}

// CleanName is how names are compared and kept; ErrBadAccount.
func CleanName(name string) (string, error) {
	name = strings.ToLower(strings.TrimSpace(name))
	bad := name == "" || len(name) > maxName || strings.IndexFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune(".@_+-", r))
	}) >= 0
	if bad || strings.Trim(name, ".") == "" {
		return "", fmt.Errorf("%w: a name is 1 to %d letters, digits or . @ _ + -, such as an e-mail address", ErrBadAccount, maxName)
	}
	return name, nil
}

func checkWords(what, s string) error {
	if len(s) > maxWords || !utf8.ValidString(s) || strings.IndexFunc(s, unicode.IsControl) >= 0 {
		return fmt.Errorf("%w: the %s is at most %d bytes of text in one line", ErrBadAccount, what, maxWords)
	}
	return nil
}

// check refuses what can't be an account.
func (u Account) check() error {
	if name, err := CleanName(u.Name); err != nil || name != u.Name {
		return cmp.Or(err, fmt.Errorf("%w: the name is not in lower case", ErrBadAccount))
	}
	if _, err := ParseRole(string(u.Role)); err != nil {
		return err
	}
	const mostApps = 100
	if len(u.Apps) > mostApps {
		return fmt.Errorf("%w: roles in more than %d applications", ErrBadAccount, mostApps)
	}
	for app, role := range u.Apps {
		if cluster.CheckDocumentKey(kindUser, app, "x") != nil || app == "" {
			return fmt.Errorf("%w: application %.40q", ErrBadAccount, app)
		}
		if _, err := ParseRole(string(role)); err != nil {
			return err
		}
	}
	return errors.Join(checkWords("first name", u.FirstName), checkWords("last name", u.LastName), checkWords("picture", u.Picture))
}

// identity is what the account may do.
func (u Account) identity() Identity {
	return Identity{Name: u.Name, Kind: User, Role: u.Role, Apps: u.Apps}
}

// document is how an account is kept: its state is its role, so that administrators can be counted.
func (u Account) document(version int64) (cluster.Document, error) {
	body, err := json.Marshal(u)
	state := string(u.Role)
	if u.Blocked {
		state = "blocked"
	}
	return cluster.Document{Kind: kindUser, ID: u.Name, Name: strings.TrimSpace(u.FirstName + " " + u.LastName), State: state, At: u.Created,
		Version: version, Body: body}, err
}

// unavailable tells an outage from an answer.
func unavailable(err error) error {
	for _, answer := range []error{cluster.ErrNoDocument, cluster.ErrExists, cluster.ErrConflict, cluster.ErrBadDocument} {
		if err == nil || errors.Is(err, answer) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

func within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, registryWithin)
}

// read reads an account.
func (a *Accounts) read(ctx context.Context, name string) (u Account, version int64, err error) {
	ctx, cancel := within(ctx)
	defer cancel()
	d, err := a.docs.Get(ctx, kindUser, "", name)
	if errors.Is(err, cluster.ErrNoDocument) || errors.Is(err, cluster.ErrBadDocument) {
		return u, 0, fmt.Errorf("account %.80q: %w", name, ErrNoAccount)
	}
	if err != nil {
		return u, 0, unavailable(err)
	}
	if err := json.Unmarshal(d.Body, &u); err != nil {
		return u, 0, fmt.Errorf("read account %q: %w", name, err)
	}
	return u, d.Version, nil
}

// Account returns one; ErrNoAccount.
func (a *Accounts) Account(ctx context.Context, name string) (Account, error) {
	name, err := CleanName(name)
	if err != nil {
		return Account{}, fmt.Errorf("%w", ErrNoAccount)
	}
	u, _, err := a.read(ctx, name)
	return u, err
}

// List returns a page of accounts by name, and how many there are.
func (a *Accounts) List(ctx context.Context, search string, offset, limit int) (list []Account, total int, err error) {
	ctx, cancel := within(ctx)
	defer cancel()
	page, total, err := a.docs.Find(ctx, cluster.Query{Kind: kindUser, Search: search, Offset: offset, Limit: limit})
	if err != nil {
		return nil, 0, unavailable(err)
	}
	for _, d := range page {
		var u Account
		if err := json.Unmarshal(d.Body, &u); err != nil {
			return nil, 0, fmt.Errorf("read account %q: %w", d.ID, err)
		}
		list = append(list, u)
	}
	return list, total, nil
}

// count is how many accounts have a state; "": any.
func (a *Accounts) count(ctx context.Context, state string) (int, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	_, n, err := a.docs.Find(ctx, cluster.Query{Kind: kindUser, State: state, Limit: 1})
	return n, unavailable(err)
}

// Add makes an account. Its name is cleaned.
func (a *Accounts) Add(ctx context.Context, u Account, password string) (Account, error) {
	name, err := CleanName(u.Name)
	if err != nil {
		return u, err
	}
	u.Name, u.Created = name, a.docs.Now().Truncate(time.Millisecond)
	u.NotBefore = u.Created
	if err := errors.Join(u.check(), CheckPassword(name, password)); err != nil {
		return u, err
	}
	if u.Hash, err = a.hasher.hash(ctx, password); err != nil {
		return u, err
	}
	d, err := u.document(0)
	if err != nil {
		return u, err
	}
	ctx, cancel := within(ctx)
	defer cancel()
	if _, err = a.docs.Put(ctx, d); errors.Is(err, cluster.ErrExists) {
		return u, ErrAccountExists
	}
	return u, unavailable(err)
}

// Edit changes an account; what it is called and when it was made stays. Nodes notice within two seconds.
func (a *Accounts) Edit(ctx context.Context, name string, edit func(*Account) error) (Account, error) {
	for range editTries {
		u, version, err := a.read(ctx, name)
		if err != nil {
			return u, err
		}
		before := u
		if err := edit(&u); err != nil {
			return u, err
		}
		u.Name, u.Created = before.Name, before.Created
		if err := u.check(); err != nil {
			return u, err
		}
		if active(before) && !active(u) {
			if err := a.anotherAdministrator(ctx); err != nil {
				return u, err
			}
		}
		d, err := u.document(version)
		if err != nil {
			return u, err
		}
		if err = a.put(ctx, d); !errors.Is(err, cluster.ErrConflict) {
			return u, err
		}
	}
	return Account{}, ErrChanged
}

// put writes an account, and tells nodes.
func (a *Accounts) put(ctx context.Context, d cluster.Document) error {
	ctx, cancel := within(ctx)
	defer cancel()
	_, err := a.docs.Put(ctx, d)
	if err == nil {
		err = a.docs.Notify(ctx, d.Kind)
	}
	return unavailable(err)
}

func active(u Account) bool { return u.Role == Administrator && !u.Blocked }

func (a *Accounts) anotherAdministrator(ctx context.Context) error {
	if n, err := a.count(ctx, string(Administrator)); err != nil || n < 2 {
		return cmp.Or(err, ErrLastAdministrator)
	}
	return nil
}

// SetPassword gives an account another password: its sessions end everywhere.
func (a *Accounts) SetPassword(ctx context.Context, name, password string) error {
	if err := CheckPassword(name, password); err != nil {
		return err
	}
	if _, err := a.Account(ctx, name); err != nil {
		return err
	}
	hash, err := a.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	name, err = CleanName(name)
	if err != nil {
		return err
	}
	_, err = a.Edit(ctx, name, func(u *Account) error {
		u.Hash, u.NotBefore = hash, a.docs.Now()
		return nil
	})
	return err
}

// CheckPassword tells whether that is the account's password: ErrBadCredentials, ErrTooMany.
func (a *Accounts) CheckPassword(ctx context.Context, name, password string) error {
	if err := a.accounts.take(name); err != nil {
		return err
	}
	u, _, err := a.read(ctx, name)
	if err != nil {
		return err
	}
	ok, err := a.hasher.verify(ctx, password, u.Hash)
	if err == nil && !ok {
		return ErrBadCredentials
	}
	a.accounts.giveBack(name)
	return err
}

// Remove deletes an account; its sessions and keys are void.
func (a *Accounts) Remove(ctx context.Context, name string) error {
	u, version, err := a.read(ctx, name)
	if err != nil {
		return err
	}
	if active(u) {
		if err := a.anotherAdministrator(ctx); err != nil {
			return err
		}
	}
	for _, kind := range []string{kindSession, kindKey} {
		if err := a.removeOf(ctx, kind, u.Name); err != nil {
			return err
		}
	}
	ctx, cancel := within(ctx)
	defer cancel()
	err = a.docs.Delete(ctx, kindUser, "", u.Name, version)
	switch {
	case errors.Is(err, cluster.ErrConflict):
		return ErrChanged
	case errors.Is(err, cluster.ErrNoDocument):
		return ErrNoAccount
	case err == nil:
		err = a.docs.Notify(ctx, kindUser, kindSession, kindKey)
	}
	return unavailable(err)
}

// removeOf deletes what an account has of a kind.
func (a *Accounts) removeOf(ctx context.Context, kind, name string) error {
	ctx, cancel := within(ctx)
	defer cancel()
	err := cluster.EachDocument(ctx, a.docs, cluster.Query{Kind: kind, State: name}, func(d cluster.Document) error {
		if err := a.docs.Delete(ctx, kind, "", d.ID, 0); !errors.Is(err, cluster.ErrNoDocument) {
			return err
		}
		return nil
	})
	return unavailable(err)
}
