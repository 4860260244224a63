package api

import (
	"context"
	"reflect"

	"sluice/internal/auth"
)

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

// result is the answer of operations that the programs of other servers' customers know.
type result struct {
	Success bool   `json:"success"`
	Message string `json:"message"`
	DataID  string `json:"dataId,omitempty"`
	ErrorID int    `json:"errorId"`
}

// answer is a result as huma wants it.
type answer struct{ Body result }

func done(message string) *answer { return &answer{result{Success: true, Message: message}} }

// Paging is what lists take.
type Paging struct {
	Offset int    `query:"offset" minimum:"0" maximum:"100000000" default:"0" doc:"How many to leave out."`
	Size   int    `query:"size" minimum:"1" maximum:"500" default:"50" doc:"How many to return at most."`
	Search string `query:"search" maxLength:"200" doc:"Part of what is shown, without regard to case."`
}

// record writes what somebody did, or could not do, into the audit log. Reading is not recorded.
func (a *API) record(ctx context.Context, action, target, app string, err error) {
	a.deps.Accounts.Record(ctx, a.entry(ctx, action, target, app, err))
}

func (a *API) entry(ctx context.Context, action, target, app string, err error) auth.Entry {
	id := auth.Of(ctx)
	e := auth.Entry{Who: id.Name, Kind: id.Kind, Action: action, Target: target, App: app, From: visitorOf(ctx).from, Result: auth.ResultOK}
	if id.Kind == auth.Key {
		e.Key = id.ID
	}
	if err != nil {
		p, _ := asProblem(err)
		e.Result, e.Detail = p.Code.Name, p.Detail
	}
	return e
}
