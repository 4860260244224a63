package auth

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"sluice/cluster"
)

// ResultOK is the result of what was done.
const ResultOK = "ok"

// Entry is one line of the audit log.
type Entry struct {
	At     time.Time  `json:"at"` // set by Record
	Who    string     `json:"who"`
	Kind   Kind       `json:"kind"` // "": not logged in
	Key    string     `json:"key,omitempty"`
	Action string     `json:"action"` // in words
	Target string     `json:"target,omitempty"`
	App    string     `json:"app,omitempty"`
	From   netip.Addr `json:"from"`
	Node   string     `json:"node,omitempty"`
	Result string     `json:"result"` // ResultOK, or the code of the error
	Detail string     `json:"detail,omitempty"`
}

// Record writes an entry, and tells the operator if that fails: then his log has it.
func (a *Accounts) Record(ctx context.Context, e Entry) {
	const mostText = 300
	e.At, e.Node = a.docs.Now(), a.cfg.Node
	e.Who, e.Target, e.Detail = clip(e.Who, mostText), clip(e.Target, mostText), clip(e.Detail, mostText)
	body, err := json.Marshal(e)
	from := ""
	if e.From.IsValid() {
		from = e.From.String()
	}
	if err == nil {
		ctx, cancel := within(context.WithoutCancel(ctx)) // who asked may be gone: what he did is not
		defer cancel()
		_, err = a.docs.Put(ctx, cluster.Document{Kind: kindAudit, ID: fmt.Sprintf("%016x-%s", e.At.UnixNano(), rand.Text()[:8]),
			Name: strings.Join([]string{e.Who, e.Action, e.Target, e.App, from}, " "), State: e.Result, At: e.At,
			Expires: e.At.Add(a.cfg.AuditKeep), Body: body})
	}
	if err != nil {
		a.log.Warn("audit log could not be written", "who", e.Who, "action", e.Action, "target", e.Target, "app", e.App, "from", e.From, "result", e.Result, "error", err)
	}
}

// RecordDenied is Record, for what somebody may not do. Of many of an account some are left out: they would fill the registry.
func (a *Accounts) RecordDenied(ctx context.Context, e Entry) {
	if a.denied.take(e.Who) == nil {
		a.Record(ctx, e)
	}
}

// AuditQuery is what AuditLog looks for.
type AuditQuery struct {
	Search   string // part of who, action, target, application or address
	Result   string
	From, To time.Time
	Offset   int
	Limit    int
}

// AuditLog returns a page of entries, the newest first, and how many there are.
func (a *Accounts) AuditLog(ctx context.Context, q AuditQuery) (list []Entry, total int, err error) {
	ctx, cancel := within(ctx)
	defer cancel()
	page, total, err := a.docs.Find(ctx, cluster.Query{Kind: kindAudit, Search: q.Search, State: q.Result, From: q.From, To: q.To,
		Sort: cluster.ByAt, Desc: true, Offset: q.Offset, Limit: q.Limit})
	for _, d := range page {
		var e Entry
		if json.Unmarshal(d.Body, &e) == nil {
			list = append(list, e)
		}
	}
	return list, total, unavailable(err)
}
