package sqlite

import (
	"context"

	"sluice/cluster"
)

// forget deletes what is gone for good. First the sessions of nodes that died become void for ever, then their streams go, then
// their rows: whoever ends in between leaves work for the next.
func (r *Registry) forget(ctx context.Context) error {
	now := r.now()
	r.forgot.Store(now.UnixNano())
	for _, text := range []string{
		`UPDATE nodes SET fenced = 1 WHERE heartbeat < ?1 AND fenced = 0`,
		`DELETE FROM streams WHERE changed < ?1 AND (state = 'finished' OR NOT EXISTS
			(SELECT 1 FROM nodes n WHERE n.id = streams.origin AND n.session = streams.session AND n.fenced = 0))`,
		`DELETE FROM nodes WHERE fenced = 1 AND heartbeat < ?1`,
	} {
		if _, err := r.exec(ctx, text, now.Add(-cluster.ForgetAfter).UnixNano()); err != nil {
			return err
		}
	}
	return nil
}
