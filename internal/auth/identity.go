package auth

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Role is how much somebody may do, everywhere or in one application.
type Role string

const (
	NoRole        Role = ""
	ReadOnly      Role = "read-only"
	Operator      Role = "operator"      // runs streams and nodes
	Administrator Role = "administrator" // everything
)

// ParseRole takes the names of roles, "" for none.
func ParseRole(s string) (Role, error) {
	if r := Role(s); r == NoRole || rank(r) > 0 {
		return r, nil
	}
	return NoRole, fmt.Errorf("%w: role %.40q is none of administrator, operator and read-only", ErrBadAccount, s)
}

// rank orders roles.
func rank(r Role) int { return slices.Index([]Role{NoRole, ReadOnly, Operator, Administrator}, r) }

// rule says what an action needs.
type rule struct {
	role  Role
	inApp bool // a role in the application is enough, for what is within it
}

// rules is the one table of who may do what. Actions that are not in it are nobody's.
var rules = map[Action]rule{
	StreamsRead:   {ReadOnly, true},
	StreamsWrite:  {Operator, true},
	AccessRead:    {Operator, true}, // tokens let their bearer in
	AccessWrite:   {Operator, true},
	SettingsRead:  {ReadOnly, true},
	SettingsWrite: {Administrator, true},
	AppsRead:      {ReadOnly, true},
	AppsWrite:     {Administrator, false},
	ClusterRead:   {ReadOnly, false},
	ClusterWrite:  {Operator, false},
	UsersRead:     {Administrator, false},
	UsersWrite:    {Administrator, false},
	AuditRead:     {Administrator, false},
	Debug:         {Administrator, false},
}

// Scopes are the actions that an API key may be limited to, sorted.
func Scopes() (list []Action) {
	for a := range rules {
		list = append(list, a)
	}
	slices.Sort(list)
	return list
}

// Kind is what an Identity is.
type Kind string

const (
	User Kind = "user" // a person, by a session
	Key  Kind = "key"  // a program, by an API key
)

// Identity is who asks. Its zero value is nobody in particular.
type Identity struct {
	Name string // of the account; "": nobody
	Kind Kind
	Role Role            // everywhere
	Apps map[string]Role // more than that in these applications

	// Of a Key: what it is limited to, of what its account may do. An empty list means no limit.
	Scopes   []Action
	OnlyApps []string

	ID      string    // of the session or the key, as in lists
	CSRF    string    // of a session: unsafe requests must bring it
	Expires time.Time // of the session or the key
}

// Can is the one place that decides whether somebody may do something: in an application, or, with app "", on the whole server.
// Where something is asked of all applications at once, a role everywhere is needed; InSome tells whether there is any at all.
func Can(id Identity, do Action, app string) bool {
	switch do {
	case Public:
		return true
	case Self:
		return id.Kind == User
	}
	need, ok := rules[do]
	if !ok || id.Name == "" {
		return false
	}
	if len(id.Scopes) > 0 && !slices.Contains(id.Scopes, do) {
		return false
	}
	if len(id.OnlyApps) > 0 && (app == "" || !need.inApp || !slices.Contains(id.OnlyApps, app)) {
		return false
	}
	role := id.Role
	if app != "" && need.inApp && rank(id.Apps[app]) > rank(role) {
		role = id.Apps[app]
	}
	return rank(role) >= rank(need.role)
}

// InSome reports that somebody may do something everywhere, or in at least one application: a list of those is then cut to
// where he may.
func InSome(id Identity, do Action) bool {
	if Can(id, do, "") {
		return true
	}
	for app := range id.Apps {
		if Can(id, do, app) {
			return true
		}
	}
	return slices.ContainsFunc(id.OnlyApps, func(app string) bool { return Can(id, do, app) })
}

// identityKey is the key of contexts.
type identityKey struct{}

// With returns a context that says who asks.
func With(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// Of says who asks: nobody, if the context does not.
func Of(ctx context.Context) Identity {
	id, _ := ctx.Value(identityKey{}).(Identity)
	return id
}
