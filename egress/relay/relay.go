// Package relay serves this node's streams to other nodes, over QUIC (docs/protocols/relay.md). Those are the node's children
// in the stream's tree; it takes a few, and sends more on to them.
//
// Locks: the hub's stream lock before subscription.mu before lane.mu; Relay.mu before what Config.Path takes.
//
// Imports: cluster, internal/metrics, internal/trace, media, relay, stream.
package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"sluice/internal/metrics"
	"sluice/internal/trace"
	"sluice/media"
	wire "sluice/relay"
	"sluice/stream"
)

// Config of a Relay.
type Config struct {
	Hub      *stream.Hub
	Identity *wire.Identity
	Listen   string // UDP host:port; port 0 takes a free one
	Node     string // id of this node

	// Seen says whether a key is that of a node which this one knows already. It is asked in each handshake, from many
	// goroutines, and answers at once; nil: nobody has been seen.
	Seen func(key string) bool
	// Known looks a key that was not seen up in the registry, within its context, which ends after a second. After many
	// look-ups in vain within a second it is not asked any more.
	Known func(ctx context.Context, key string) bool

	// Make publishes to the hub what it has not, when another node asks for it: renditions of a stream (media.Key.Made). nil: there is nobody to
	// make any.
	Make func(ctx context.Context, key media.Key) error

	MaxSubscriptions int // of all peers together; default 10,000

	Region string      // of this node
	Fanout int         // children of one stream; default 16
	Busy   func() bool // the node is near its limits; nil: never
	// Path is by which nodes a stream has come here, the one that it is published to first; nil: to this one.
	Path func(key media.Key) []string

	Metrics *metrics.Set  // nil: none
	Tracer  *trace.Tracer // nil: subscriptions are not traced
	Log     *slog.Logger  // default slog.Default()
}

// Relay is the way out to other nodes.
type Relay struct {
	cfg  Config
	gate gate

	udp       net.PacketConn
	transport *quic.Transport
	listener  *quic.Listener

	wg sync.WaitGroup

	mu       sync.Mutex
	peers    map[string]*quic.Conn // by key: a node has one connection, its newest
	pulses   map[*quic.Conn]*pulse
	children map[media.Key][]*subscription
	count    int // of all children
	draining bool

	traffic traffic
	stats   struct{ subscriptions, redirects, cuts, bursts, messages atomic.Uint64 }
}

// Stats counts since the start.
type Stats struct {
	Subscriptions   uint64 // served
	Redirects       uint64 // sent on to a child
	Cuts            uint64 // GOPs (or runs of sound) of which a slow peer lost the rest
	DroppedBursts   uint64
	DroppedMessages uint64
}

// New returns a relay that does nothing until Listen and Run.
func New(cfg Config) *Relay {
	cfg.MaxSubscriptions = cmp.Or(cfg.MaxSubscriptions, 10_000)
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	cfg.Fanout = cmp.Or(cfg.Fanout, 16)
	if cfg.Busy == nil {
		cfg.Busy = func() bool { return false }
	}
	if cfg.Seen == nil {
		cfg.Seen = func(string) bool { return false }
	}
	if cfg.Path == nil {
		cfg.Path = func(media.Key) []string { return nil }
	}
	r := &Relay{cfg: cfg, gate: gate{seen: cfg.Seen, known: cfg.Known}, peers: map[string]*quic.Conn{}, pulses: map[*quic.Conn]*pulse{}, children: map[media.Key][]*subscription{}}
	cfg.Metrics.Register(r.measure)
	return r
}

// measure shows what the relay does.
func (r *Relay) measure(s *metrics.Sample) {
	r.mu.Lock()
	children, peers := r.count, len(r.peers)
	r.mu.Unlock()
	st := r.Stats()
	s.Gauge("sluice_relay_children", "Streams that other nodes take from this one, each node counted.", float64(children))
	s.Gauge("sluice_relay_peers", "Nodes that take streams from this one.", float64(peers))
	s.Counter("sluice_relay_sent_bytes_total", "Bytes sent to other nodes, without headers of UDP.", float64(r.Sent()))
	s.Counter("sluice_relay_subscriptions_total", "Requests of other nodes for a stream that were served.", float64(st.Subscriptions))
	s.Counter("sluice_relay_redirects_total", "Requests of other nodes that were sent on to a node below this one.", float64(st.Redirects))
	s.Counter("sluice_relay_cut_gops_total", "GOPs, or runs of sound, of which a slow node lost the rest.", float64(st.Cuts))
	s.Counter("sluice_relay_dropped_bursts_total", "Frames that slow nodes lost.", float64(st.DroppedBursts))
	s.Counter("sluice_relay_dropped_messages_total", "Messages of data channels that slow nodes lost.", float64(st.DroppedMessages))
}

// Listen binds the UDP port.
func (r *Relay) Listen(ctx context.Context) error {
	udp, err := new(net.ListenConfig).ListenPacket(ctx, "udp", r.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen for relays: %w: is another node running on this port?", err)
	}
	tr := &quic.Transport{Conn: udp, VerifySourceAddress: func(net.Addr) bool { return r.gate.closed() }}
	l, err := tr.Listen(r.cfg.Identity.ServerTLS(r.gate.admit), wire.ServerQUIC())
	if err != nil {
		_ = udp.Close()
		return fmt.Errorf("listen for relays on %s: %w", udp.LocalAddr(), err)
	}
	r.udp, r.transport, r.listener = udp, tr, l
	return nil
}

// Addr is the address that Listen bound.
func (r *Relay) Addr() net.Addr { return r.udp.LocalAddr() }

// Stats returns the counters.
func (r *Relay) Stats() Stats {
	return Stats{r.stats.subscriptions.Load(), r.stats.redirects.Load(), r.stats.cuts.Load(), r.stats.bursts.Load(), r.stats.messages.Load()}
}

// Run serves peers until ctx ends, then closes their connections. Listen comes first.
func (r *Relay) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer r.wg.Wait()
	r.wg.Go(func() { r.complain(ctx) })
	r.wg.Go(func() { r.listen(ctx) })
	for {
		conn, err := r.listener.Accept(ctx)
		if err != nil {
			cancel()
			r.close()
			if errors.Is(err, context.Canceled) || errors.Is(err, quic.ErrServerClosed) {
				return nil
			}
			return fmt.Errorf("accept relays: %w", err)
		}
		r.greet(conn)
		r.wg.Go(func() { r.serve(ctx, conn) })
	}
}

// close says goodbye to every peer, so that it need not wait for a timeout, and unbinds.
func (r *Relay) close() {
	_ = r.listener.Close()
	r.mu.Lock()
	conns := make([]*quic.Conn, 0, len(r.peers))
	for _, c := range r.peers {
		conns = append(conns, c)
	}
	r.mu.Unlock()
	for _, c := range conns {
		_ = c.CloseWithError(wire.ConnClosing, "the node stops")
	}
	_ = r.transport.Close()
	_ = r.udp.Close()
}

// greet makes a connection that of its node.
func (r *Relay) greet(conn *quic.Conn) {
	key := wire.PeerKey(conn.ConnectionState().TLS)
	r.mu.Lock()
	old := r.peers[key]
	r.peers[key] = conn
	r.pulses[conn] = &pulse{heard: time.Now()}
	r.mu.Unlock()
	if old != nil {
		_ = old.CloseWithError(wire.ConnReplaced, "the node has connected again")
	}
}

// serve answers the subscriptions of one peer until its connection ends.
func (r *Relay) serve(ctx context.Context, conn *quic.Conn) {
	defer r.traffic.track(conn)()
	var wg sync.WaitGroup
	defer func() {
		_ = conn.CloseWithError(wire.ConnClosing, "")
		wg.Wait()
		key := wire.PeerKey(conn.ConnectionState().TLS)
		r.mu.Lock()
		if r.peers[key] == conn {
			delete(r.peers, key)
		}
		delete(r.pulses, conn)
		r.mu.Unlock()
	}()
	for {
		ctl, err := conn.AcceptStream(ctx)
		if err != nil {
			return // the peer left, or we do
		}
		wg.Go(func() {
			s := &subscription{relay: r, conn: conn, ctl: ctl, out: wire.NewOutbox(), ended: make(chan wire.Code, 1)}
			if err := s.serve(ctx); err != nil {
				s.logger().Warn("relay subscription failed", "peer", s.node, "addr", conn.RemoteAddr(), "stream", s.key, "err", err)
				if errors.Is(err, wire.ErrMalformed) {
					_ = conn.CloseWithError(wire.ConnMalformed, err.Error())
				}
			}
		})
	}
}

// complain logs what slow peers lost, once a second.
func (r *Relay) complain(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		subs := r.all()
		for _, s := range subs {
			cuts, bursts, messages := s.cuts.Swap(0), s.bursts.Swap(0), s.messages.Swap(0)
			if cuts+bursts+messages > 0 {
				r.cfg.Log.Warn("relay peer is too slow", "peer", s.node, "stream", s.key, "gops", cuts, "bursts", bursts, "messages", messages)
			}
		}
	}
}
