package api

import (
	"cmp"
	"context"
	"net/http"
	"strings"
	"time"

	"sluice/internal/auth"
	"sluice/internal/problem"
)

const tagUsers = "Accounts"

// User is an account as other servers' customers know it. The name is called email.
type User struct {
	_         struct{}          `json:"-" additionalProperties:"true"`
	Email     string            `json:"email" maxLength:"200" doc:"The account's name: letters, digits and . @ _ + -"`
	UserType  string            `json:"userType,omitempty" enum:"ADMIN,USER,READ_ONLY" doc:"Administrator, operator or read-only."`
	Scope     string            `json:"scope,omitempty" maxLength:"64" doc:"system, or the one application to which userType is limited."`
	AppRoles  map[string]string `json:"appNameUserType,omitempty" doc:"More than that in these applications: ADMIN, USER or READ_ONLY for each."`
	FirstName string            `json:"firstName,omitempty" maxLength:"200"`
	LastName  string            `json:"lastName,omitempty" maxLength:"200"`
	FullName  string            `json:"fullName,omitempty" readOnly:"true"`
	Picture   string            `json:"picture,omitempty" maxLength:"200"`
	Blocked   bool              `json:"blocked,omitempty" doc:"The account can't be used."`
	Created   time.Time         `json:"created,omitzero" readOnly:"true"`
}

func userOf(u auth.Account) User {
	out := User{Email: u.Name, UserType: typeOfRole(u.Role), Scope: "system", FirstName: u.FirstName, LastName: u.LastName,
		FullName: strings.TrimSpace(u.FirstName + " " + u.LastName), Picture: u.Picture, Blocked: u.Blocked, Created: u.Created}
	for app, role := range u.Apps {
		if out.AppRoles == nil {
			out.AppRoles = map[string]string{}
		}
		out.AppRoles[app] = typeOfRole(role)
		if u.Role == auth.NoRole && len(u.Apps) == 1 {
			out.Scope, out.UserType = app, typeOfRole(role)
		}
	}
	return out
}

// to writes what the user says into an account.
func (u User) to(a *auth.Account) error {
	role, err := roleOf(u.UserType)
	if err != nil {
		return err
	}
	a.FirstName, a.LastName, a.Picture, a.Blocked = u.FirstName, u.LastName, u.Picture, u.Blocked
	a.Role, a.Apps = role, map[string]auth.Role{}
	for app, t := range u.AppRoles {
		if a.Apps[app], err = roleOf(t); err != nil {
			return err
		}
	}
	if u.Scope != "" && u.Scope != "system" {
		a.Role, a.Apps[u.Scope] = auth.NoRole, role
	}
	return nil
}

func roleOf(userType string) (auth.Role, error) {
	switch userType {
	case typeAdmin:
		return auth.Administrator, nil
	case typeUser:
		return auth.Operator, nil
	case typeReadOnly:
		return auth.ReadOnly, nil
	case "":
		return auth.NoRole, nil
	}
	return auth.NoRole, problem.New(problem.Invalid, "a userType is ADMIN, USER or READ_ONLY")
}

func (a *API) users() {
	register(a, operation{method: http.MethodGet, path: "/rest/v2/user-list", id: "listUsers", tag: tagUsers, needs: auth.UsersRead,
		does: "All accounts", more: "A page of them, sorted by name; the header X-Total-Count says how many there are."}, a.listUsers)
	register(a, operation{method: http.MethodGet, path: "/rest/v2/users/{name}", id: "getUser", tag: tagUsers, needs: auth.UsersRead, does: "One account"}, a.getUser)
	register(a, operation{method: http.MethodPost, path: "/rest/v2/users", id: "addUser", tag: tagUsers, needs: auth.UsersWrite, does: "Make an account"}, a.addUser)
	register(a, operation{method: http.MethodPut, path: "/rest/v2/users", id: "changeUser", tag: tagUsers, needs: auth.UsersWrite,
		does: "Change an account", more: "Not the own one. With a password that one is set, and the account's sessions end."}, a.changeUser)
	register(a, operation{method: http.MethodDelete, path: "/rest/v2/users/{name}", id: "removeUser", tag: tagUsers, needs: auth.UsersWrite,
		does: "Remove an account, with its sessions and keys", more: "Not the own one."}, a.removeUser)
	register(a, operation{method: http.MethodGet, path: "/rest/v2/users/{name}/blocked", id: "isUserBlocked", tag: tagUsers, needs: auth.UsersRead,
		does: "Whether an account is blocked"}, a.isBlocked)
}

type usersOutput struct {
	Total int `header:"X-Total-Count"`
	Body  []User
}

func (a *API) listUsers(ctx context.Context, in *Paging) (*usersOutput, error) {
	list, total, err := a.deps.Accounts.List(ctx, in.Search, in.Offset, in.Size)
	out := &usersOutput{Total: total, Body: []User{}}
	for _, u := range list {
		out.Body = append(out.Body, userOf(u))
	}
	return out, err
}

type nameInput struct {
	Name string `path:"name" maxLength:"200"`
}

type userOutput struct{ Body User }

func (a *API) getUser(ctx context.Context, in *nameInput) (*userOutput, error) {
	u, err := a.deps.Accounts.Account(ctx, in.Name)
	return &userOutput{userOf(u)}, err
}

type userInput struct {
	Body struct {
		User
		Password    string `json:"password,omitempty" maxLength:"256"`
		NewPassword string `json:"newPassword,omitempty" maxLength:"256" doc:"Of a change; password means the same."`
	}
}

func (a *API) addUser(ctx context.Context, in *userInput) (*answer, error) {
	u := auth.Account{Name: in.Body.Email}
	err := in.Body.to(&u)
	if err == nil {
		u, err = a.deps.Accounts.Add(ctx, u, in.Body.Password)
	}
	a.record(ctx, "add an account", in.Body.Email, "", err)
	return done("the account was made"), err
}

func (a *API) changeUser(ctx context.Context, in *userInput) (*answer, error) {
	name, err := a.other(ctx, in.Body.Email)
	password := cmp.Or(in.Body.NewPassword, in.Body.Password)
	if err == nil && password != "" {
		err = auth.CheckPassword(name, password)
	}
	if err == nil {
		_, err = a.deps.Accounts.Edit(ctx, name, in.Body.to)
	}
	if err == nil && password != "" {
		err = a.deps.Accounts.SetPassword(ctx, name, password)
	}
	a.record(ctx, "change an account", in.Body.Email, "", err)
	return done("the account was changed"), err
}

// other refuses the own account: who locks himself out, or gives himself more, does so by mistake or has taken over a session.
func (a *API) other(ctx context.Context, name string) (string, error) {
	clean, err := auth.CleanName(name)
	if err != nil {
		return "", auth.ErrNoAccount
	}
	if clean == auth.Of(ctx).Name {
		return "", problem.New(problem.Conflict, "nobody changes or removes his own account: ask another administrator")
	}
	return clean, nil
}

func (a *API) removeUser(ctx context.Context, in *nameInput) (*answer, error) {
	name, err := a.other(ctx, in.Name)
	if err == nil {
		err = a.deps.Accounts.Remove(ctx, name)
	}
	a.record(ctx, "remove an account", in.Name, "", err)
	return done("the account was removed"), err
}

func (a *API) isBlocked(ctx context.Context, in *nameInput) (*answer, error) {
	u, err := a.deps.Accounts.Account(ctx, in.Name)
	return &answer{result{Success: u.Blocked}}, err
}
