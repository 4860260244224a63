package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/cluster"
)

// HTTP counts requests, for nodes and gateways alike.
type HTTP struct {
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
}

// HTTP registers the figures of requests. A set has them once.
func (s *Set) HTTP() *HTTP {
	if s == nil {
		return nil
	}
	h := &HTTP{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sluice_http_requests_total",
			Help: "HTTP requests that were answered; a WebSocket, and a stream of events, when it began."}, []string{"port", "route", "method", "code"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "sluice_http_request_duration_seconds",
			Help: "Time to the end of the answer; of a WebSocket and of a stream of events, to its begin.", Buckets: delays[:]}, []string{"port", "route"}),
	}
	s.ours.MustRegister(h.requests, h.took)
	return h
}

// Done is what is told of each request on a port. route must be one of a few names, never a path.
func (h *HTTP) Done(port string) func(route, method string, status int, took time.Duration) {
	if h == nil {
		return nil
	}
	return func(route, method string, status int, took time.Duration) {
		h.requests.WithLabelValues(port, route, method, strconv.Itoa(status)).Inc()
		h.took.WithLabelValues(port, route).Observe(took.Seconds())
	}
}

// Registry registers the figures of operations on the registry, and returns what is told of each.
func (s *Set) Registry() func(operation string, took time.Duration, failed bool) {
	took := s.durations("sluice_registry_operation_duration_seconds", "Time that an operation on the registry took, those that failed too.", delays[:], []string{"operation"})
	for _, name := range cluster.Operations() {
		took.Begin(name)
	}
	failures := s.Counts("sluice_registry_failures_total", "Operations that the registry did not answer, or not in time. A refusal is an answer.", "operation", cluster.Operations()...)
	return func(operation string, d time.Duration, failed bool) {
		took.Observe(d.Seconds(), operation)
		if failed {
			failures.Add(operation)
		}
	}
}

// Cluster shows the cluster as a directory sees it.
func (s *Sample) Cluster(d *cluster.Directory) {
	const ready, draining, full, dead = "ready", "draining", "full", "dead"
	count := map[cluster.Role]map[string]int{}
	for _, role := range []cluster.Role{cluster.Standalone, cluster.Origin, cluster.Edge, cluster.Transcoder} {
		count[role] = map[string]int{ready: 0, draining: 0, full: 0, dead: 0}
	}
	v := d.View()
	for _, n := range v.Nodes {
		of := count[n.Role]
		switch {
		case of == nil: // of a later version
		case !n.Alive(v.At):
			of[dead]++
		case n.State != cluster.Ready:
			of[draining]++
		case n.Full != "":
			of[full]++
		default:
			of[ready]++
		}
	}
	for role, states := range count {
		for state, n := range states {
			s.Gauge("sluice_cluster_nodes", "Nodes in the registry, as this process has read it; by kind (role) and state; full ones and draining ones take nobody new.", float64(n), "kind", string(role), "state", state)
		}
	}
	if age, ok := d.Age(); ok {
		s.Gauge("sluice_cluster_view_age_seconds", "How old this process' view of the cluster is; it grows while the registry is away.", age.Seconds())
	}
}

// Spans shows what became of the spans of traces.
func (s *Sample) Spans(ended, sent, failed uint64) {
	const help = "Spans of traces that have ended, and of these those that the collector took (sent) and did not take (failed); the rest waits, or was dropped because too many did."
	s.Counter("sluice_trace_spans_total", help, float64(ended), "state", "ended")
	s.Counter("sluice_trace_spans_total", help, float64(sent), "state", "sent")
	s.Counter("sluice_trace_spans_total", help, float64(failed), "state", "failed")
}

// Build shows what runs.
func (s *Sample) Build(version string) {
	s.Gauge("sluice_build_info", "1; its labels say what runs.", 1, "version", version)
}
