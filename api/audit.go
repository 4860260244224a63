package api

import (
	"context"
	"net/http"
	"time"

	"sluice/internal/auth"
)

// entry is a line of the audit log.
type entry struct {
	At     time.Time `json:"at"`
	Who    string    `json:"who" doc:"The account, or what somebody tried as one."`
	Kind   auth.Kind `json:"kind" doc:"user, key, or empty for somebody who had not logged in."`
	Key    string    `json:"key,omitempty" doc:"The API key's id."`
	Action string    `json:"action"`
	Target string    `json:"target,omitempty"`
	App    string    `json:"app,omitempty"`
	From   string    `json:"from" doc:"The client's address."`
	Node   string    `json:"node,omitempty"`
	Result string    `json:"result" doc:"ok, or the error's code."`
	Detail string    `json:"detail,omitempty"`
}

func (a *API) audit() {
	register(a, operation{method: http.MethodGet, path: "/rest/v2/audit", id: "getAuditLog", tag: tagUsers, needs: auth.AuditRead,
		does: "Who did what, when, from where, and what became of it", more: "The newest is first; the header X-Total-Count says how many there are."}, a.auditLog)
}

type auditInput struct {
	Paging
	Result string    `query:"result" maxLength:"64" doc:"Only with this result."`
	From   time.Time `query:"from" doc:"Not before."`
	To     time.Time `query:"to" doc:"Before this."`
}

type auditOutput struct {
	Total int `header:"X-Total-Count"`
	Body  []entry
}

func (a *API) auditLog(ctx context.Context, in *auditInput) (*auditOutput, error) {
	list, total, err := a.deps.Accounts.AuditLog(ctx, auth.AuditQuery{Search: in.Search, Result: in.Result, From: in.From, To: in.To, Offset: in.Offset, Limit: in.Size})
	out := &auditOutput{Total: total, Body: []entry{}}
	for _, e := range list {
		row := entry{At: e.At, Who: e.Who, Kind: e.Kind, Key: e.Key, Action: e.Action, Target: e.Target, App: e.App, Node: e.Node, Result: e.Result, Detail: e.Detail}
		if e.From.IsValid() {
			row.From = e.From.String()
		}
		out.Body = append(out.Body, row)
	}
	return out, err
}
