package gateway

import (
	"context"
	"net/http"

	"sluice/cluster"
	"sluice/internal/metrics"
	"sluice/internal/trace"
)

// meters are the figures of a gateway.
type meters struct {
	http   *metrics.HTTP
	tries  *metrics.Counts
	noNode *metrics.Counts
}

// What came of asking a node, as labels.
const (
	tryTaken   = "answered"
	tryFull    = "full"   // it has no room; another one is asked
	tryFailed  = "failed" // it did not answer
	tryRefused = "refused"
)

func newMeters(set *metrics.Set, g *Gateway) *meters {
	set.Register(func(s *metrics.Sample) {
		s.Gauge("sluice_gateway_sockets", "WebSockets and streams of events that are open.", float64(g.sockets.Load()))
		s.Gauge("sluice_gateway_sockets_limit", "How many of them may be open: fewer where the process may open few files.", float64(g.maxSockets))
		for state, n := range g.pool.count() {
			s.Gauge("sluice_gateway_nodes", "Nodes by what the gateway's own probes say of them: up, not_ready (draining), down, unknown (not asked yet).", float64(n), "state", state)
		}
	})
	return &meters{
		http: set.HTTP(),
		tries: set.Counts("sluice_gateway_tries_total", "Times that a node was asked for a request or a socket, by what came of it: answered; full, refused or failed, after which another may be asked.",
			"result", tryTaken, tryFull, tryRefused, tryFailed),
		noNode: set.Counts("sluice_gateway_no_node_total", "Requests and sockets for which no node was ready, by port.", "port", "publish", "play"),
	}
}

// routeKey is where a request's context keeps what the handler has found out of it.
type routeKey struct{}

// wrap gives each request an id, a span and its place in the figures.
func (g *Gateway) wrap(h *handler) http.Handler {
	door := trace.Door{
		Tracer:  g.tracer,
		Route:   func(r *http.Request) string { return r.Context().Value(routeKey{}).(*routeName).name },
		Trusted: g.client.Trusted,
		Quiet:   func(r *http.Request) bool { return r.URL.Path == "/gateway/healthz" },
		Done:    g.meters.http.Done(h.door.name),
		Log:     g.log.With("port", h.door.name),
	}
	next := door.Wrap(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), routeKey{}, &routeName{"refused"})))
	})
}

// routeName is what a request wants, by one of a few names.
type routeName struct{ name string }

// note notes the route of a request for the figures.
func (rt route) note(r *http.Request) {
	n, ok := r.Context().Value(routeKey{}).(*routeName)
	if !ok {
		return
	}
	switch rt.kind {
	case toAny:
		n.name = "any"
		if rt.key.ID != "" {
			n.name = "stream"
		}
	case toNode:
		n.name = "session"
	case newSetup:
		n.name = "setup"
	case newSocket:
		n.name = "socket"
	case toSelf:
		n.name = "self"
	case toNobody:
		n.name = "refused"
	}
}

// count counts the nodes by health.
func (p *pool) count() map[string]int {
	names := map[health]string{unknown: "unknown", up: "up", notReady: "not_ready", down: "down"}
	count := map[string]int{}
	for _, name := range names {
		count[name] = 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pr := range p.probes {
		count[names[pr.health]]++
	}
	return count
}

// asked counts what came of asking a node and ends the span of it.
func (m *meters) asked(span *trace.Span, result string, err error) {
	m.tries.Add(result)
	span.Set("result", result)
	span.End(err)
}

// Measure registers the figures of a gateway's process that are nobody's part: the version, the cluster as it sees it, traces.
func Measure(set *metrics.Set, d *cluster.Directory, t *trace.Tracer, version string) {
	set.Register(func(s *metrics.Sample) {
		s.Build(version)
		s.Cluster(d)
		st := t.Stats()
		s.Spans(st.Ended, st.Sent, st.Failed)
	})
}
