package crowd

import (
	"context"

	"sluice/load"
)

// Signal opens a session with a server: it brings our description to an address and returns the server's, and how to say goodbye.
// WHIP and WHEP are one; Config.Signal may give another to viewers. Several goroutines call it at a time.
//
// describe makes our description: an offer when it gets nothing, otherwise the answer to the server's offer.
type Signal func(ctx context.Context, url string, describe func(theirs string) (string, error)) (theirs string, bye func(context.Context) error, err error)

// byWHIP is the signalling of WHIP and WHEP. keep gets the session's resource; it may be nil.
func byWHIP(client *load.Client, keep func(*load.Resource)) Signal {
	return func(ctx context.Context, url string, describe func(string) (string, error)) (string, func(context.Context) error, error) {
		ours, err := describe("")
		if err != nil {
			return "", nil, err
		}
		r, err := client.Offer(ctx, url, ours)
		if err != nil {
			return "", nil, err
		}
		if keep != nil {
			keep(r)
		}
		return r.Answer, r.Delete, nil
	}
}
