// Package gateway is the front door: it ends TLS on the publish port and the play port, picks
// the node for each request and each WebSocket, and passes over nodes that don't answer.
// Media never goes through it.
//
// One mutex each in Gateway, pool (health) and placer. The placer's is locked before the pool's; else they don't nest.
//
// Imports: cluster, internal/clientip, internal/metrics, internal/problem, internal/trace, media.
package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/cluster"
	"sluice/internal/clientip"
	"sluice/internal/metrics"
	"sluice/internal/trace"
)

// Config is what an operator may set. A zero value of a duration or a limit
// means its default, in brackets.
type Config struct {
	PublishListen  string // host:port with TLS, to the origins [:443]
	PlayListen     string // host:port with TLS, to the edges [:5443]
	RedirectListen string // host:port without TLS that sends browsers to the publish port; empty: none

	CertFile, KeyFile string // PEM; read again when they change
	// GetCertificate is used instead of the files when set.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	Region string // nodes of this region come first; empty: all are equally near

	TrustedProxies []netip.Prefix // whose X-Forwarded-For and Forwarded are believed

	HealthInterval time.Duration // between two probes of a node [300ms]
	HealthTimeout  time.Duration // of one probe; two in a row make a node dead [600ms]
	FirstMessage   time.Duration // how long a new socket may take to name its stream [300ms]
	SocketPing     time.Duration // between two checks of a socket and its node [5s]
	SocketIdle     time.Duration // a client silent for that long is closed [60s]
	BodyTimeout    time.Duration // for the whole body of a WHIP or WHEP request [10s]
	StopTimeout    time.Duration // for requests that run when the gateway stops [5s]

	MaxSockets int   // WebSockets at a time; fewer where the process may open few files [20000]
	MaxMessage int64 // bytes of one WebSocket message [1 MiB]
}

func (c Config) withDefaults() Config {
	orDefault(&c.PublishListen, ":443")
	orDefault(&c.PlayListen, ":5443")
	orDefault(&c.HealthInterval, 300*time.Millisecond)
	orDefault(&c.HealthTimeout, 600*time.Millisecond)
	orDefault(&c.FirstMessage, 300*time.Millisecond)
	orDefault(&c.SocketPing, 5*time.Second)
	orDefault(&c.SocketIdle, 60*time.Second)
	orDefault(&c.BodyTimeout, 10*time.Second)
	orDefault(&c.StopTimeout, 5*time.Second)
	orDefault(&c.MaxSockets, 20000)
	orDefault(&c.MaxMessage, 1<<20)
	return c
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// directory is the gateway's view of the cluster, as old as its last look at the registry.
// It is asked for each request and must not wait. cluster.Directory is one.
type directory interface {
	View() cluster.View
}

// Deps is what the gateway works with.
type Deps struct {
	Directory directory
	Metrics   *metrics.Set  // nil: none
	Tracer    *trace.Tracer // nil: requests are not traced
	Log       *slog.Logger
}

// Gateway is one front door.
type Gateway struct {
	cfg    Config
	log    *slog.Logger
	client *clientip.Resolver
	tracer *trace.Tracer
	meters *meters
	pool   *pool
	placer *placer

	transport *http.Transport // to the nodes
	doors     []*door
	redirect  *door

	stopping context.Context // the life of the sockets
	stop     context.CancelFunc
	sockets  atomic.Int64 // at this moment

	maxSockets int // what MaxSockets and the open files allow

	mu      sync.Mutex
	closed  bool           // requests are refused
	running sync.WaitGroup // requests, those of sockets too; added to under mu while not closed
}

// door is one port.
type door struct {
	name     string
	listener net.Listener
	server   *http.Server
	refused  atomic.Int64 // requests without a node since the last report
}

// New returns a gateway; it does no I/O.
func New(cfg Config, deps Deps) *Gateway {
	cfg = cfg.withDefaults()
	g := &Gateway{
		cfg:    cfg,
		log:    deps.Log,
		client: clientip.New(cfg.TrustedProxies),
		tracer: deps.Tracer,
		pool:   newPool(deps.Directory, cfg.HealthInterval, cfg.HealthTimeout, deps.Log),
		transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: time.Second, KeepAlive: 15 * time.Second}).DialContext,
			MaxIdleConnsPerHost:    64,
			IdleConnTimeout:        30 * time.Second,
			ResponseHeaderTimeout:  30 * time.Second, // LL-HLS and WHIP may wait for seconds
			DisableCompression:     true,             // bodies pass as they are
			MaxResponseHeaderBytes: 64 << 10,
		},
	}
	g.maxSockets = socketLimit(cfg.MaxSockets, maxFiles())
	g.stopping, g.stop = context.WithCancel(context.Background())
	g.placer = newPlacer(g.pool, cfg.Region)
	g.meters = newMeters(deps.Metrics, g)
	return g
}

// Listen reads the certificate and binds the ports.
func (g *Gateway) Listen(ctx context.Context) error {
	get := g.cfg.GetCertificate
	if get == nil {
		cert, err := newCertificate(g.cfg.CertFile, g.cfg.KeyFile, g.log)
		if err != nil {
			return err
		}
		get = cert.get
	}
	for _, p := range []struct {
		role   cluster.Role
		name   string
		listen string
	}{{cluster.Origin, "publish", g.cfg.PublishListen}, {cluster.Edge, "play", g.cfg.PlayListen}} {
		d := &door{name: p.name}
		if err := d.bind(ctx, p.listen); err != nil {
			return errors.Join(err, g.close())
		}
		g.doors = append(g.doors, d)
		d.listener = &sniffer{d.listener}
		d.server = g.server(g.wrap(&handler{g: g, door: d, role: p.role}))
		d.server.TLSConfig = &tls.Config{GetCertificate: get, MinVersion: tls.VersionTLS12}
	}
	if g.cfg.RedirectListen != "" {
		d := &door{name: "redirect"}
		if err := d.bind(ctx, g.cfg.RedirectListen); err != nil {
			return errors.Join(err, g.close())
		}
		d.server = g.server(redirectTo(g.PublishAddr()))
		d.server.ReadTimeout = g.cfg.BodyTimeout // nobody reads a body there
		g.redirect = d
	}
	return nil
}

func (d *door) bind(ctx context.Context, addr string) (err error) {
	var lc net.ListenConfig
	if d.listener, err = lc.Listen(ctx, "tcp", addr); err != nil {
		return fmt.Errorf("open %s port (choose another with --%s, or stop what holds it): %w", d.name, d.name, err)
	}
	return nil
}

// server bounds what a client can cost before it is understood: slow headers, huge
// headers, idle connections. The TLS handshake has ReadHeaderTimeout too.
func (g *Gateway) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
}

// close closes what Listen opened.
func (g *Gateway) close() (err error) {
	for _, d := range g.all() {
		err = errors.Join(err, d.listener.Close())
	}
	return err
}

func (g *Gateway) all() []*door {
	if g.redirect == nil {
		return g.doors
	}
	return append(g.doors[:len(g.doors):len(g.doors)], g.redirect)
}

// PublishAddr, PlayAddr and RedirectAddr are the bound addresses, once Listen has returned.
func (g *Gateway) PublishAddr() net.Addr { return g.doors[0].listener.Addr() }

// PlayAddr: see PublishAddr.
func (g *Gateway) PlayAddr() net.Addr { return g.doors[1].listener.Addr() }

// RedirectAddr is nil without a redirect port.
func (g *Gateway) RedirectAddr() net.Addr {
	if g.redirect == nil {
		return nil
	}
	return g.redirect.listener.Addr()
}

// Run serves until ctx ends, then lets running requests finish for StopTimeout, sends sockets
// away with "going away", and returns when all goroutines have ended. Run it once, after Listen.
func (g *Gateway) Run(ctx context.Context) error {
	g.log.Info("gateway is open", "publish", g.PublishAddr().String(), "play", g.PlayAddr().String(), "max_sockets", g.maxSockets)
	work, ctx := errgroup.WithContext(ctx)
	pool, stopPool := context.WithCancel(context.WithoutCancel(ctx)) // outlives the requests
	defer stopPool()
	var probes sync.WaitGroup
	probes.Go(func() { g.pool.run(pool) })

	for _, d := range g.all() {
		work.Go(func() error {
			if err := d.serve(); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve %s port: %w", d.name, err)
			}
			return nil
		})
	}
	work.Go(func() error { return g.report(ctx) })
	work.Go(func() error {
		<-ctx.Done()
		g.stop()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.StopTimeout)
		defer cancel()
		var doors sync.WaitGroup
		for _, d := range g.all() {
			doors.Go(func() {
				if d.server.Shutdown(stop) != nil {
					_ = d.server.Close() // those who did not finish in time
				}
			})
		}
		doors.Wait()
		return nil
	})
	err := work.Wait()
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.running.Wait()
	stopPool()
	probes.Wait()
	g.transport.CloseIdleConnections()
	return err
}

// enter counts a request in; false: the gateway has stopped.
func (g *Gateway) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.running.Add(1)
	}
	return !g.closed
}

func (d *door) serve() error {
	if d.server.TLSConfig == nil {
		return d.server.Serve(d.listener)
	}
	return d.server.ServeTLS(d.listener, "", "")
}

// settle is how long a gateway that has just begun may know no node.
const settle = 3 * time.Second

// report says once a second how many requests found no node. A cluster that starts is asked until it answers, by sluice up at least: that
// is nothing to tell.
func (g *Gateway) report(ctx context.Context) error {
	settled := time.Now().Add(settle)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, d := range g.doors {
			if n := d.refused.Swap(0); n > 0 && time.Now().After(settled) {
				g.log.Warn("no node takes requests (is one running, and is it ready? see: sluice nodes)", "port", d.name, "requests", n)
			}
		}
	}
}
