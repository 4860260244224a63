package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"sluice/internal/auth"
	"sluice/internal/problem"
)

const (
	maxListeners = 500              // of one node
	writeWithin  = 10 * time.Second // a listener that takes longer for an event is cut off; it comes back for all
	retryAfter   = time.Second
)

// eventStream tells what happens, by server-sent events.
func (a *API) eventStream() {
	register(a, operation{method: http.MethodGet, path: "/rest/v2/events", id: "getEvents", tag: tagLive, needs: auth.StreamsRead, inSome: true,
		does: "What happens, as server-sent events",
		more: "`cluster` (for who may read the cluster): what getCluster returns, first all (reset) and then what has changed. `streams`: the list of streams has changed; ask for what is on screen. `error`: why nothing can be told."},
		func(context.Context, *struct{}) (*huma.StreamResponse, error) {
			if a.listeners.Add(1) > maxListeners {
				a.listeners.Add(-1)
				return nil, problem.New(problem.TooMany, "this node has too many listeners: ask another")
			}
			return &huma.StreamResponse{Body: func(ctx huma.Context) {
				defer a.listeners.Add(-1)
				a.listen(humago.Unwrap(ctx))
			}}, nil
		})
}

// listen tells one listener until he goes, or may no more.
func (a *API) listen(r *http.Request, w http.ResponseWriter) {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Time{}) // what the server gives a request does not hold for this one
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprintf(w, "retry: %d\n\n", retryAfter.Milliseconds())
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	var knows told
	var revision int64 = -1
	for {
		now, err := a.authenticate(r)
		id, why := auth.Of(now.Context()), visitorOf(now.Context()).why
		if err != nil || why != nil && !errors.Is(why, auth.ErrUnavailable) || !auth.InSome(id, auth.StreamsRead) {
			return
		}
		_ = c.SetWriteDeadline(time.Now().Add(writeWithin))
		s, err := a.live.get(r.Context())
		switch {
		case err != nil:
			err = send(w, "error", problemBody{Title: problem.RegistryAway.Title, Status: http.StatusServiceUnavailable, Code: problem.RegistryAway.Name})
		case auth.Can(id, auth.ClusterRead, ""):
			err = send(w, "cluster", knows.since(s))
		}
		if err == nil && s != nil && s.revision != revision {
			revision = s.revision
			err = send(w, "streams", map[string]int64{"revision": revision})
		}
		if err != nil || c.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

func send(w http.ResponseWriter, event string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, b)
	return err
}
