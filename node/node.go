// Package node is one process of the cluster that carries media: it puts the ways in, the hub and the ways out
// together as its role says, tells the registry about itself, and answers HTTP.
//
// Imports: api, cluster, egress/relay, egress/webrtc, ingest/relay, ingest/webrtc, internal/access, internal/auth, internal/census, internal/clientip, internal/cloudnotice,
// internal/config, internal/lifecycle, internal/metrics, internal/problem, internal/safehttp, internal/settings, internal/trace, internal/turn, internal/usage, internal/webhook, ladder, media, relay, rtc, signal, signal/antmedia,
// signal/whep, signal/whip, stream, web.
package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"sluice/api"
	"sluice/cluster"
	outrelay "sluice/egress/relay"
	outrtc "sluice/egress/webrtc"
	inrelay "sluice/ingest/relay"
	"sluice/internal/access"
	"sluice/internal/census"
	"sluice/internal/clientip"
	"sluice/internal/cloudnotice"
	"sluice/internal/config"
	"sluice/internal/lifecycle"
	"sluice/internal/metrics"
	"sluice/internal/settings"
	"sluice/internal/trace"
	"sluice/internal/turn"
	"sluice/internal/usage"
	"sluice/internal/webhook"
	"sluice/ladder"
	"sluice/media"
	"sluice/relay"
	"sluice/rtc"
	"sluice/signal"
	"sluice/signal/antmedia"
	"sluice/stream"
)

// ways are what a role opens. This table is all that a role is: nothing in the media path knows it.
type ways struct {
	publish bool // WebRTC comes in
	pull    bool // the relay comes in
	serve   bool // the relay goes out
	make    bool // renditions are made for other nodes
}

// roles: every node plays to viewers.
func roles() map[cluster.Role]ways {
	return map[cluster.Role]ways{
		cluster.Standalone: {publish: true},
		cluster.Origin:     {publish: true, pull: true, serve: true},
		cluster.Edge:       {pull: true, serve: true},
		cluster.Transcoder: {pull: true, serve: true, make: true},
	}
}

// Deps are what a node does not make itself.
type Deps struct {
	Registry  cluster.Registry
	Documents cluster.Documents // nil: the node has no accounts and no REST
	Tracer    *trace.Tracer     // nil: requests are not traced
	LogLevel  *slog.LevelVar    // of Log, which the cluster's settings change; nil: they don't
	Metadata  string            // where the cloud's service for its machines is; "": where Azure has it
	Version   string
	Log       *slog.Logger // nil: slog.Default()
}

// Node is a process of the cluster, or one of several in a test.
type Node struct {
	cfg  config.Node
	deps Deps
	role cluster.Role
	ways ways
	log  *slog.Logger

	identity  *relay.Identity
	hub       *stream.Hub
	rtc       *rtc.Endpoint
	turn      *turn.Server // nil: none
	out       *outrtc.Egress
	ladder    *ladder.Ladder
	relayOut  *outrelay.Relay
	relayIn   *inrelay.Relay
	directory *cluster.Directory
	member    *cluster.Member
	guard     *access.Guard
	hooks     *webhook.Box
	ruled     chan struct{}  // closed once the rules were read
	docs      *cluster.Watch // nil: no documents
	settings  *settings.Store
	logLevel  slog.Level // at the start
	api       *api.API   // nil: none
	live      *census.Cluster
	caller    *census.Caller
	calls     *census.Guard        // of other nodes
	notices   *cloudnotice.Watcher // nil: nobody announces anything
	resources []*signal.Resource
	sockets   *antmedia.Handler
	http      *http.Server
	listener  net.Listener

	transcoders *transcoders // of which the ladder has one make renditions, if it does not itself

	metrics  *metrics.Set
	load     *load
	started  time.Time
	draining atomic.Bool
}

// New puts a node together; it does no I/O. The configuration must have passed its checks.
func New(cfg config.Node, deps Deps) (*Node, error) {
	deps.Log = cmp.Or(deps.Log, slog.Default())
	n := &Node{cfg: cfg, deps: deps, role: cluster.Role(cfg.Role), started: time.Now()}
	var ok bool
	if n.ways, ok = roles()[n.role]; !ok {
		return nil, fmt.Errorf("role %q is not standalone, origin, edge or transcoder", cfg.Role)
	}
	if cfg.Ladder.By == "transcoders" && !n.ways.pull {
		return nil, errors.New("ladder.by: transcoders make renditions for origins: a standalone node has no others")
	}
	n.cfg.ID = cmp.Or(cfg.ID, DefaultID())
	n.log = deps.Log.With("node", n.cfg.ID)
	trusted, err := config.Prefixes(cfg.TrustedProxies)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(cfg.Address); err != nil && cfg.Address != "" {
		return nil, fmt.Errorf("address of this node %q: %w", cfg.Address, err)
	}
	var announce []netip.Addr
	for _, s := range cfg.Announce {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("announced address %q: %w", s, err)
		}
		announce = append(announce, a)
	}
	if n.identity, err = relay.NewIdentity(); err != nil {
		return nil, err
	}
	n.metrics = metrics.New("node", n.cfg.ID, "role", cfg.Role, "region", cfg.Region)
	registry := cluster.Timed(deps.Registry, n.metrics.Registry())
	n.directory = cluster.NewDirectory(registry, n.cfg.ID, n.log)
	n.member = cluster.NewMember(registry, n.cfg.ID, n.describe, n.log)
	n.member.Gone = usage.Gone
	n.hub = stream.NewHub(n.hubConfig())
	if _, err := config.Playout(cfg.PlayoutDelay); err != nil {
		return nil, err
	}
	if deps.LogLevel != nil {
		n.logLevel = deps.LogLevel.Level()
	}
	if err := n.newSettings(); err != nil {
		return nil, err
	}
	n.rtc = rtc.New(rtc.Config{Listen: cfg.Media, NoTCP: !cfg.MediaTCP, Announce: announce, Log: n.log})
	if n.turn, err = n.newTURN(cfg.TURN); err != nil {
		return nil, err
	}
	n.out = outrtc.New(outrtc.Config{Hub: n.hub, RTC: n.rtc, MaxViewers: cfg.Limits.Viewers, Adaptive: n.adaptive, Playout: n.playout, Metrics: n.metrics, Log: n.log})
	if n.ladder, err = n.newLadder(cfg.Ladder); err != nil {
		return nil, err
	}
	n.transcoders = &transcoders{view: n.directory.View, chosen: map[media.Key]*choice{}}
	addr, make := n.relayAddr, n.ladder.Make
	if n.ways.make {
		addr = func() string { return "" } // nobody is to take the streams themselves from here
	} else {
		make = nil
	}
	n.relayOut = outrelay.New(outrelay.Config{Make: make, Hub: n.hub, Identity: n.identity, Listen: cfg.Relay, Node: n.cfg.ID, Seen: n.seen, Known: n.known,
		Region: cfg.Region, Fanout: cfg.RelayFanout, Busy: func() bool { return n.admit() != nil }, Path: n.Path, Metrics: n.metrics, Tracer: deps.Tracer, Log: n.log})
	n.relayIn = inrelay.New(inrelay.Config{Hub: n.hub, Identity: n.identity, Node: n.cfg.ID, Lookup: n.lookup, Watch: n.watch, Suspect: n.suspect, Grace: cfg.Publish.Grace,
		Region: cfg.Region, Addr: addr, Below: n.relayOut.Below, Rerouted: n.relayOut.Rerouted, Metrics: n.metrics, Log: n.log})
	n.load = n.newLoad()
	n.measure()
	if cfg.CloudNotice == "azure" {
		n.notices = cloudnotice.New(cloudnotice.Config{Service: deps.Metadata, Log: n.log})
	}
	clients := clientip.New(trusted)
	if err := errors.Join(n.newWebhooks(), n.newGuard()); err != nil {
		return nil, err
	}
	n.newLive()
	n.newAPI(clients)
	n.http = n.server(clients)
	for _, r := range n.resources {
		n.http.RegisterOnShutdown(r.Hush)
	}
	return n, nil
}

// DefaultID names a node after its machine and process.
func DefaultID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	id := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-':
			return r
		}
		return '-'
	}, host)
	if len(id) > 48 {
		id = id[:48]
	}
	return fmt.Sprintf("%s-%d", id, os.Getpid())
}

// Listen binds the node's ports.
func (n *Node) Listen(ctx context.Context) error {
	if err := n.rtc.Listen(ctx); err != nil {
		return err
	}
	if n.turn != nil {
		if err := n.turn.Listen(ctx); err != nil {
			return err
		}
	}
	if err := n.relayOut.Listen(ctx); err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", n.cfg.HTTP)
	if err != nil {
		return fmt.Errorf("bind the HTTP port: %w (choose another with --http)", err)
	}
	n.listener = l
	return nil
}

// ID is the node's name in the cluster.
func (n *Node) ID() string { return n.cfg.ID }

// Hub is the node's hub.
func (n *Node) Hub() *stream.Hub { return n.hub }

// Path is by which nodes a stream comes here at this moment, the one that it is published to first.
func (n *Node) Path(key media.Key) []string { return n.relayIn.Path(key) }

// HTTPAddr is where the node answers, as other nodes reach it.
func (n *Node) HTTPAddr() string { return n.reachable(n.listener.Addr()) }

// reachable replaces an unspecified host by the node's own address.
func (n *Node) reachable(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if ip, e := netip.ParseAddr(host); err != nil || e != nil || !ip.IsUnspecified() {
		return a.String()
	}
	return net.JoinHostPort(n.address().String(), port)
}

// address is the address at which gateways and nodes reach this machine.
func (n *Node) address() netip.Addr {
	at := n.cfg.Address
	if at == "" && len(n.cfg.Announce) > 0 {
		at = n.cfg.Announce[0]
	}
	if at != "" {
		return netip.MustParseAddr(at) // New has parsed it
	}
	var best netip.Addr
	addrs, _ := net.InterfaceAddrs() // without any, loopback
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		if !best.IsValid() || best.Is6() && p.Addr().Is4() {
			best = p.Addr()
		}
	}
	if !best.IsValid() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return best
}

// stopWithin is how long each part may take to end.
const stopWithin = 10 * time.Second

// Run carries media until ctx ends, drains, and returns when everything has ended. lifecycle.ErrDone: it was not ctx that ended it, but
// it was told to go by the registry or by the cloud, and has gone.
func (n *Node) Run(ctx context.Context) error {
	stopped := func(reason error) func(context.Context) error {
		return func(ctx context.Context) error {
			<-ctx.Done()
			for _, r := range n.resources {
				r.Close(reason)
			}
			n.sockets.Close()
			return nil
		}
	}
	return lifecycle.Run(ctx, n.log, stopWithin+n.cfg.DrainDeadline,
		lifecycle.Part{Name: "directory", Run: n.directory.Run},
		lifecycle.Part{Name: "load", Run: n.load.run},
		lifecycle.Part{Name: "member", Run: n.member.Run},
		lifecycle.Part{Name: "documents", Run: n.runDocs},
		lifecycle.Part{Name: "webhooks", Run: n.hooks.Run},
		lifecycle.Part{Name: "access", Run: n.runGuard},
		lifecycle.Part{Name: "high resource usage", Run: n.tellFull},
		lifecycle.Part{Name: "media", Run: n.rtc.Run},
		lifecycle.Part{Name: "turn", Run: n.runTURN},
		lifecycle.Part{Name: "hub", Run: n.hub.Run},
		lifecycle.Part{Name: "ladder", Run: n.ladder.Run},
		lifecycle.Part{Name: "relay out", Run: n.relayOut.Run},
		lifecycle.Part{Name: "relay in", Run: n.relayIn.Run},
		lifecycle.Part{Name: "sessions", Run: stopped(stream.ErrClosing)},
		lifecycle.Part{Name: "http", Run: n.serve},
		lifecycle.Part{Name: "cloud notices", Run: n.watchNotices},
		lifecycle.Part{Name: "drain", Run: n.drain},
	)
}

func (n *Node) serve(ctx context.Context) error {
	defer n.caller.Close()
	n.log.Info("node is up", "role", n.role, "http", n.HTTPAddr(), "media", n.rtc.Addr(), "relay", n.relayAddr())
	served := make(chan error, 1)
	go func() { served <- n.http.Serve(n.listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := n.http.Shutdown(grace); err != nil {
		_ = n.http.Close()
	}
	<-served
	return nil
}
