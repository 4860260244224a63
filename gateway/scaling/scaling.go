// Package scaling tells whoever starts and stops machines how many nodes a cluster should have: as JSON, for Prometheus, and
// to Azure Monitor.
//
// Imports: cluster, internal/metrics, internal/problem.
package scaling

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"sluice/cluster"
	"sluice/internal/metrics"
	"sluice/internal/problem"
)

// lookEvery is how often the view is looked at: heartbeats are a second apart.
const lookEvery = time.Second

// Config of a Watch.
type Config struct {
	Rules   cluster.ScaleConfig
	Listen  string // host:port of plain HTTP for operators; "": none
	Azure   Azure
	View    func() cluster.View
	Metrics *metrics.Set // shown to operators; nil: the signals alone
	Log     *slog.Logger // default slog.Default()
}

// Watch looks at a cluster and says what it should become. It changes nothing.
type Watch struct {
	cfg      Config
	azure    *azure // nil: not told
	listener net.Listener
	server   *http.Server

	mu   sync.Mutex
	last []cluster.Signal
}

// New does no I/O.
func New(cfg Config) (*Watch, error) {
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	w := &Watch{cfg: cfg}
	if cfg.Metrics == nil {
		cfg.Metrics = metrics.New()
	}
	cfg.Metrics.Register(w.measure)
	var err error
	if w.azure, err = newAzure(cfg.Azure); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /scaling", w.show)
	mux.Handle("GET /metrics", cfg.Metrics.Handler())
	mux.Handle(metrics.Profiles, metrics.ProfilesHandler(metrics.Local, func(out http.ResponseWriter, _ *http.Request) {
		problem.New(problem.Forbidden, "profiles are for people on this machine, who ask 127.0.0.1 itself").Write(out)
	}))
	w.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	return w, nil
}

// Listen binds the port for operators.
func (w *Watch) Listen(ctx context.Context) (err error) {
	if w.cfg.Listen == "" {
		return nil
	}
	if w.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", w.cfg.Listen); err != nil {
		return fmt.Errorf("open the port for operators (choose another with --operators, or none with --operators=): %w", err)
	}
	return nil
}

// Addr is where operators ask; nil: nowhere.
func (w *Watch) Addr() net.Addr {
	if w.listener == nil {
		return nil
	}
	return w.listener.Addr()
}

// Run watches until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	failed := make(chan error, 1)
	if w.listener != nil {
		w.cfg.Log.Info("operators may ask for /scaling and /metrics", "addr", w.listener.Addr().String())
		wg.Go(func() {
			if err := w.server.Serve(w.listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		})
		defer func() { _ = w.server.Close() }()
	}
	if w.azure != nil {
		wg.Go(func() { w.azure.run(ctx, w.Signals, w.cfg.Log) })
	}
	scaler := cluster.NewScaler(w.cfg.Rules)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		w.take(scaler.Observe(w.cfg.View()))
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-tick.C:
		}
	}
}

// take keeps the new signals, and tells of a group that should change.
func (w *Watch) take(now []cluster.Signal) {
	w.mu.Lock()
	was := w.last
	w.last = now
	w.mu.Unlock()
	level := slog.LevelDebug
	if w.told() {
		level = slog.LevelInfo
	}
	for _, s := range now {
		before := s.Nodes
		for _, b := range was {
			if b.Role == s.Role && b.Region == s.Region {
				before = b.Desired
			}
		}
		if s.Desired != before {
			w.cfg.Log.Log(context.Background(), level, "scaling signal", "role", s.Role, "region", s.Region, "nodes", s.Nodes, "desired", s.Desired, "why", s.Reason)
		}
	}
}

// told reports whether somebody may act on the signals: a port that was found by chance, as in sluice up, is in nobody's rules.
func (w *Watch) told() bool {
	_, port, _ := net.SplitHostPort(w.cfg.Listen) // "": people read the log
	return w.azure != nil || port != "0"
}

// Signals are those of the last look.
func (w *Watch) Signals() []cluster.Signal {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// group is a signal as JSON.
type group struct {
	Role      string    `json:"role"`
	Region    string    `json:"region"`
	Nodes     int       `json:"nodes"`
	Draining  int       `json:"draining"`
	Full      int       `json:"full"`
	Viewers   int       `json:"viewers"`
	Predicted int       `json:"predicted"`
	CPU       float64   `json:"cpu"`
	Load      float64   `json:"load"`
	Mean      float64   `json:"mean"`
	Recent    float64   `json:"recent"`
	PerViewer float64   `json:"perViewer"`
	Desired   int       `json:"desired"`
	Reason    string    `json:"reason"`
	At        time.Time `json:"at"`
}

// show answers GET /scaling with all groups, and with ?role=edge, and ?region= if there are several, with that one.
func (w *Watch) show(out http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	groups := []group{}
	for _, s := range w.Signals() {
		if matches(q, "role", string(s.Role)) && matches(q, "region", s.Region) {
			groups = append(groups, group{string(s.Role), s.Region, s.Nodes, s.Draining, s.Full, s.Viewers, s.Predicted, s.CPU, s.Load, s.Mean, s.Recent, s.PerViewer, s.Desired, s.Reason, s.At})
		}
	}
	out.Header().Set("Cache-Control", "no-store")
	var answer any = map[string]any{"groups": groups}
	if q.Has("role") {
		switch len(groups) {
		case 0: // not 0 nodes: whoever acts on it must leave the group as it is
			problem.New(problem.NotFound, "no node of this role and region was seen").Write(out)
			return
		case 1:
			answer = groups[0]
		default:
			problem.New(problem.BadRequest, "there are several regions: name one with region=").Write(out)
			return
		}
	}
	out.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(out).Encode(answer) // a client that went away is its own report
}

func matches(q url.Values, name, value string) bool {
	return !q.Has(name) || q.Get(name) == value
}

// measure shows the signals to Prometheus.
func (w *Watch) measure(to *metrics.Sample) {
	for _, s := range w.Signals() {
		add := func(name, help string, value float64) {
			to.Gauge("sluice_group_"+name, help, value, "role", string(s.Role), "region", s.Region)
		}
		add("nodes", "Nodes of the group that are ready.", float64(s.Nodes))
		add("desired_nodes", "Nodes that the group should have.", float64(s.Desired))
		add("draining_nodes", "Nodes of the group that take nobody new and leave when they are empty.", float64(s.Draining))
		add("full_nodes", "Ready nodes that take nobody new because they are at a limit.", float64(s.Full))
		add("cpu_ratio", "Mean share of the processors in use, 0 to 1.", s.CPU)
		add("load_ratio", "Load for each ready node: the largest share in use of processors, egress and viewers, 0 to 1.", s.Load)
		add("load_mean_ratio", "Mean of the load over the window, 0 to 1; at gateway.scale.cpu the group grows.", s.Mean)
		add("viewers", "Viewers on the group.", float64(s.Viewers))
		add("viewers_predicted", "Viewers by the time that a node which is started now is ready.", float64(s.Predicted))
	}
}
