package api

import (
	"context"
	"net/http"
	"time"

	"sluice/internal/auth"
)

const tagKeys = "API keys"

// APIKey is one of somebody's keys.
type APIKey struct {
	ID      string        `json:"id"`
	Label   string        `json:"label"`
	Scopes  []auth.Action `json:"scopes" doc:"What it is limited to, of what its account may do; empty: not limited."`
	Apps    []string      `json:"apps" doc:"The applications to which it is limited; empty: not limited."`
	Created time.Time     `json:"created"`
	Used    time.Time     `json:"used,omitzero" doc:"Within five minutes; absent: never."`
	Expires time.Time     `json:"expires,omitzero" doc:"Absent: never."`
}

func (a *API) keys() {
	register(a, operation{method: http.MethodGet, path: "/rest/v2/api-keys", id: "listKeys", tag: tagKeys, needs: auth.Self, does: "The own API keys"}, a.listKeys)
	register(a, operation{method: http.MethodPost, path: "/rest/v2/api-keys", id: "addKey", tag: tagKeys, needs: auth.Self, status: http.StatusCreated,
		does: "Make an API key", more: "It is shown in this answer and never again. It may do what its account may at that moment, within its limits; never manage accounts' passwords, sessions or keys."}, a.addKey)
	register(a, operation{method: http.MethodDelete, path: "/rest/v2/api-keys/{id}", id: "removeKey", tag: tagKeys, needs: auth.Self,
		does: "Delete one of the own API keys", more: "It is refused at every node within two seconds."}, a.removeKey)
}

func keyOf(k auth.KeyInfo) APIKey {
	return APIKey{ID: k.ID, Label: k.Label, Scopes: append([]auth.Action{}, k.Scopes...), Apps: append([]string{}, k.Apps...),
		Created: k.Created, Used: k.Used, Expires: k.Expires}
}

type keysOutput struct{ Body []APIKey }

func (a *API) listKeys(ctx context.Context, _ *struct{}) (*keysOutput, error) {
	list, err := a.deps.Accounts.Keys(ctx, auth.Of(ctx).Name)
	out := &keysOutput{[]APIKey{}}
	for _, k := range list {
		out.Body = append(out.Body, keyOf(k))
	}
	return out, err
}

type addKeyInput struct {
	Body struct {
		Label   string        `json:"label" minLength:"1" maxLength:"100" doc:"What it is for."`
		Scopes  []auth.Action `json:"scopes,omitempty" maxItems:"50" doc:"Limits it to these actions, such as streams:read."`
		Apps    []string      `json:"apps,omitempty" maxItems:"100" doc:"Limits it to these applications."`
		Expires time.Time     `json:"expires,omitzero" doc:"Within five years; absent: never."`
	}
}

type addKeyOutput struct {
	Body struct {
		APIKey
		Key string `json:"key" doc:"What to show as Authorization: Bearer …"`
	}
}

func (a *API) addKey(ctx context.Context, in *addKeyInput) (*addKeyOutput, error) {
	key, made, err := a.deps.Accounts.AddKey(ctx, auth.KeyInfo{Name: auth.Of(ctx).Name, Label: in.Body.Label, Scopes: in.Body.Scopes, Apps: in.Body.Apps, Expires: in.Body.Expires})
	a.record(ctx, "make an API key", made.ID+" "+in.Body.Label, "", err)
	out := &addKeyOutput{}
	out.Body.APIKey, out.Body.Key = keyOf(made), key
	return out, err
}

func (a *API) removeKey(ctx context.Context, in *idInput) (*answer, error) {
	err := a.deps.Accounts.EndKey(ctx, auth.Of(ctx).Name, in.ID)
	a.record(ctx, "delete an API key", in.ID, "", err)
	return done("the key was deleted"), err
}
