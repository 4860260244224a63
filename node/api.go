package node

import (
	"context"

	"sluice/api"
	"sluice/internal/auth"
	"sluice/internal/clientip"
)

// newAPI puts together what people and programs ask by REST, if there are documents to keep it in.
func (n *Node) newAPI(clients *clientip.Resolver) {
	if n.deps.Documents == nil {
		return
	}
	accounts := auth.New(n.deps.Documents, auth.Config{SessionIdle: n.cfg.Accounts.SessionIdle, SessionLife: n.cfg.Accounts.SessionLife,
		AuditKeep: n.cfg.Accounts.AuditKeep, Node: n.cfg.ID, Log: n.log})
	n.api = api.New(api.Config{Version: n.deps.Version}, api.Deps{Accounts: accounts, Settings: n.settings, Access: n.guard, Webhooks: n.hooks, Live: n.live, Registry: n.deps.Registry,
		Documents: n.deps.Documents, System: n.system, Client: clients.Of, Secure: clients.Secure, Log: n.log})
}

// runDocs reads what changes of documents.
func (n *Node) runDocs(ctx context.Context) error {
	if n.docs == nil {
		<-ctx.Done()
		return nil
	}
	return n.docs.Run(ctx)
}
