package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"sluice/internal/auth"
	"sluice/internal/problem"
)

const tagSession = "Log-in"

// Names of roles in the programs of other servers' customers.
const (
	typeAdmin    = "ADMIN"
	typeUser     = "USER"
	typeReadOnly = "READ_ONLY"
)

func typeOfRole(r auth.Role) string {
	return map[auth.Role]string{auth.Administrator: typeAdmin, auth.Operator: typeUser, auth.ReadOnly: typeReadOnly}[r]
}

// scopeOf is what their log-in answers: "system/ADMIN", or a JSON object of applications.
func scopeOf(id auth.Identity) string {
	if id.Role != auth.NoRole {
		return "system/" + typeOfRole(id.Role)
	}
	apps := map[string]string{}
	for app, role := range id.Apps {
		apps[app] = typeOfRole(role)
	}
	b, err := json.Marshal(apps)
	if err != nil {
		return "{}" // can't be: strings alone
	}
	return string(b)
}

// Credentials are a name and a password. Whatever else such programs send is let pass.
type Credentials struct {
	_        struct{} `json:"-" additionalProperties:"true"`
	Email    string   `json:"email" maxLength:"200" doc:"The account's name."`
	Password string   `json:"password" maxLength:"256" doc:"The password itself. A hash of it, as other servers' panels send, is not taken."`
}

// logged is the answer to who has logged in.
type logged struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
	CSRF      string      `header:"X-Sluice-CSRF" doc:"What unsafe requests with this session must bring."`
	Body      result
}

// me is who asks.
type me struct {
	Name    string               `json:"name"`
	Kind    auth.Kind            `json:"kind" enum:"user,key"`
	Role    auth.Role            `json:"role" doc:"Everywhere; empty: none."`
	Apps    map[string]auth.Role `json:"apps" doc:"More than that in these applications."`
	Actions []auth.Action        `json:"actions" doc:"What may be done everywhere."`
	CSRF    string               `json:"csrf,omitempty"`
	Expires time.Time            `json:"expires,omitzero"`
}

func (a *API) sessions() {
	register(a, operation{method: http.MethodGet, path: "/rest/v2/first-login-status", id: "firstLoginStatus", tag: tagSession, needs: auth.Public,
		does: "Whether there is no account yet"}, a.firstLogin)
	register(a, operation{method: http.MethodPost, path: "/rest/v2/users/initial", id: "makeFirstAdministrator", tag: tagSession, needs: auth.Public,
		does: "Make the first administrator", more: "The token is in the link that `sluice up`, `sluice serve` and `sluice users link` print while there is no account. It logs in, too."}, a.initial)
	register(a, operation{method: http.MethodPost, path: "/rest/v2/users/authenticate", id: "logIn", tag: tagSession, needs: auth.Public,
		does: "Log in", more: "Sets the cookie of a session. After some failures an account, and an address, must wait (429, Retry-After)."}, a.logIn)
	register(a, operation{method: http.MethodGet, path: "/rest/v2/authentication-status", id: "authenticationStatus", tag: tagSession, needs: auth.Public,
		does: "Whether somebody is logged in"}, a.status)
	register(a, operation{method: http.MethodGet, path: "/rest/v2/admin-status", id: "adminStatus", tag: tagSession, needs: auth.Public,
		does: "Whether an administrator is logged in"}, a.adminStatus)
	register(a, operation{method: http.MethodDelete, path: "/rest/v2/users/logout", id: "logOut", tag: tagSession, needs: auth.Self,
		does: "Log out", more: "The session ends at every node within two seconds."}, a.logOut)
	register(a, operation{method: http.MethodPost, path: "/rest/v2/users/password", id: "changePassword", tag: tagSession, needs: auth.Self,
		does: "Change the own password", more: "All other sessions of the account end."}, a.changePassword)
	register(a, operation{method: http.MethodGet, path: "/rest/v2/session", id: "getSession", tag: tagSession, needs: auth.Public,
		does: "Who asks, and what he may do", more: "With a session or an API key; 401 without."}, a.me)
	register(a, operation{method: http.MethodGet, path: "/rest/v2/sessions", id: "listSessions", tag: tagSession, needs: auth.Self,
		does: "The own sessions"}, a.listSessions)
	register(a, operation{method: http.MethodDelete, path: "/rest/v2/sessions/{id}", id: "endSession", tag: tagSession, needs: auth.Self,
		does: "End one of the own sessions"}, a.endSession)
}

func (a *API) firstLogin(ctx context.Context, _ *struct{}) (*answer, error) {
	first, err := a.deps.Accounts.Awaited(ctx)
	return &answer{result{Success: first}}, err
}

type initialInput struct {
	Body struct {
		Credentials
		Token     string `json:"token" maxLength:"200" doc:"From the link."`
		FirstName string `json:"firstName,omitempty" maxLength:"200"`
		LastName  string `json:"lastName,omitempty" maxLength:"200"`
	}
	Browser
}

// Browser is what a session is remembered with.
type Browser struct {
	Agent string `header:"User-Agent" hidden:"true"`
}

func (a *API) initial(ctx context.Context, in *initialInput) (*logged, error) {
	u := auth.Account{Name: in.Body.Email, FirstName: in.Body.FirstName, LastName: in.Body.LastName}
	if _, err := a.deps.Accounts.UseFirstLink(ctx, in.Body.Token, u, in.Body.Password, visitorOf(ctx).from); err != nil {
		return nil, err
	}
	return a.begin(ctx, in.Body.Credentials, in.Browser.Agent)
}

type logInInput struct {
	Body Credentials
	Browser
}

func (a *API) logIn(ctx context.Context, in *logInInput) (*logged, error) {
	return a.begin(ctx, in.Body, in.Browser.Agent)
}

func (a *API) begin(ctx context.Context, c Credentials, agent string) (*logged, error) {
	token, id, err := a.deps.Accounts.LogIn(ctx, c.Email, c.Password, visitorOf(ctx).from, agent)
	if err != nil {
		return nil, err
	}
	return &logged{SetCookie: cookie(ctx, token, time.Until(id.Expires)), CSRF: id.CSRF, Body: result{Success: true, Message: scopeOf(id)}}, nil
}

// cookie is a session's; without a life it ends one.
func cookie(ctx context.Context, token string, life time.Duration) http.Cookie {
	c := http.Cookie{Name: CookieName, Value: token, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: visitorOf(ctx).secure, MaxAge: int(life.Seconds())}
	if token == "" {
		c.MaxAge = -1
	}
	return c
}

type statusOutput struct {
	CSRF string `header:"X-Sluice-CSRF"`
	Body result
}

func (a *API) status(ctx context.Context, _ *struct{}) (*statusOutput, error) {
	id, err := known(ctx)
	if err != nil {
		return nil, err
	}
	out := &statusOutput{CSRF: id.CSRF}
	if out.Body.Success = id.Name != ""; out.Body.Success {
		out.Body.Message = scopeOf(id)
	}
	return out, nil
}

// known is who asks; an error only when that can't be told at this moment.
func known(ctx context.Context) (auth.Identity, error) {
	id, why := auth.Of(ctx), visitorOf(ctx).why
	if why != nil {
		if p, _ := asProblem(why); p.Code.Status != http.StatusUnauthorized {
			return id, why
		}
	}
	return id, nil
}

func (a *API) adminStatus(ctx context.Context, _ *struct{}) (*answer, error) {
	id, err := known(ctx)
	return &answer{result{Success: id.Role == auth.Administrator}}, err
}

type loggedOut struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
	Body      result
}

func (a *API) logOut(ctx context.Context, _ *struct{}) (*loggedOut, error) {
	err := a.deps.Accounts.LogOut(ctx, visitorOf(ctx).token)
	a.record(ctx, "log out", "", "", err)
	return &loggedOut{SetCookie: cookie(ctx, "", 0), Body: result{Success: true}}, err
}

type passwordInput struct {
	Body struct {
		_           struct{} `json:"-" additionalProperties:"true"`
		Password    string   `json:"password" maxLength:"256" doc:"The present one."`
		NewPassword string   `json:"newPassword" maxLength:"256"`
	}
	Browser
}

func (a *API) changePassword(ctx context.Context, in *passwordInput) (*logged, error) {
	name := auth.Of(ctx).Name
	err := a.deps.Accounts.CheckPassword(ctx, name, in.Body.Password)
	if err == nil {
		err = a.deps.Accounts.SetPassword(ctx, name, in.Body.NewPassword)
	}
	a.record(ctx, "change the own password", name, "", err)
	if err != nil {
		return nil, err
	}
	return a.begin(ctx, Credentials{Email: name, Password: in.Body.NewPassword}, in.Browser.Agent)
}

type meOutput struct{ Body me }

func (a *API) me(ctx context.Context, _ *struct{}) (*meOutput, error) {
	id, err := known(ctx)
	if err != nil {
		return nil, err
	}
	if id.Name == "" {
		return nil, problem.New(problem.Unauthorized, "log in, or show an API key")
	}
	out := &meOutput{me{Name: id.Name, Kind: id.Kind, Role: id.Role, Apps: id.Apps, CSRF: id.CSRF, Expires: id.Expires, Actions: []auth.Action{}}}
	for _, do := range auth.Scopes() {
		if auth.Can(id, do, "") {
			out.Body.Actions = append(out.Body.Actions, do)
		}
	}
	if out.Body.Apps == nil {
		out.Body.Apps = map[string]auth.Role{}
	}
	return out, nil
}

// sessionInfo is one of somebody's sessions.
type sessionInfo struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Used    time.Time `json:"used" doc:"Within five minutes."`
	Expires time.Time `json:"expires"`
	From    string    `json:"from" doc:"The address of the log-in."`
	Agent   string    `json:"agent"`
	Current bool      `json:"current" doc:"This one."`
}

type sessionsOutput struct{ Body []sessionInfo }

func (a *API) listSessions(ctx context.Context, _ *struct{}) (*sessionsOutput, error) {
	id := auth.Of(ctx)
	list, err := a.deps.Accounts.Sessions(ctx, id.Name)
	out := &sessionsOutput{[]sessionInfo{}}
	for _, s := range list {
		out.Body = append(out.Body, sessionInfo{ID: s.ID, Created: s.Created, Used: s.Used, Expires: s.Expires, From: s.From, Agent: s.Agent, Current: s.ID == id.ID})
	}
	return out, err
}

type idInput struct {
	ID string `path:"id" maxLength:"64"`
}

func (a *API) endSession(ctx context.Context, in *idInput) (*answer, error) {
	err := a.deps.Accounts.EndSession(ctx, auth.Of(ctx).Name, in.ID)
	a.record(ctx, "end a session", in.ID, "", err)
	return done("the session has ended"), err
}
