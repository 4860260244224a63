package relay_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	out "sluice/egress/relay"
	in "sluice/ingest/relay"
	"sluice/media"
	wire "sluice/relay"
	"sluice/stream"
)

var (
	key   = media.Key{App: "live", ID: "s"}
	video = media.Track{Kind: media.Video, Codec: media.Codec{Name: media.H264, ClockRate: 90000, Fmtp: "packetization-mode=1"}}
	audio = media.Track{Kind: media.Audio, Codec: media.Codec{Name: media.Opus, ClockRate: 48000, Channels: 2}}
)

// until polls until why is "", which else says what is still missing.
func until(t testing.TB, within time.Duration, why func() string) {
	t.Helper()
	late := time.After(within)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		reason := why()
		if reason == "" {
			return
		}
		select {
		case <-late:
			t.Fatalf("after %v: %s", within, reason)
		case <-tick.C:
		}
	}
}

// noLeaks checks, at the end of the test, that every goroutine of ours and of QUIC has ended.
func noLeaks(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		until(t, 5*time.Second, func() string {
			buf := make([]byte, 4<<20)
			var left []string
			for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
				if (strings.Contains(g, "sluice/") || strings.Contains(g, "quic-go")) && !strings.Contains(g, "testing.tRunner") && !strings.Contains(g, "testing.(*B)") {
					left = append(left, g)
				}
			}
			if len(left) == 0 {
				return ""
			}
			return fmt.Sprintf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
		})
	})
}

// registry is what the nodes look streams up in.
type registry struct {
	mu      sync.Mutex
	nodes   map[string]bool // keys
	source  in.Source       // of key; no Node: offline
	backup  in.Source       // of its backup
	watches map[*watching]struct{}
	lookups atomic.Int64
}

type watching struct {
	key   media.Key
	fn    func(in.Source)
	epoch int64
}

func (r *registry) known(_ context.Context, k string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nodes[k]
}

func (r *registry) lookup(_ context.Context, k media.Key) (in.Source, error) {
	r.lookups.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	src := r.source
	if _, backup := k.Main(); backup {
		src = r.backup
	} else {
		src.Backup = r.backup.Node != ""
	}
	if src.Node == "" {
		return src, stream.ErrOffline
	}
	return src, nil
}

func (r *registry) set(s in.Source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.source = s
	r.tellLocked()
}

func (r *registry) setBackup(s in.Source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.backup = s
	r.tellLocked()
}

func (r *registry) watch(k media.Key, fn func(in.Source)) (cancel func()) {
	w := &watching{key: k, fn: fn}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watches == nil {
		r.watches = map[*watching]struct{}{}
	}
	r.watches[w] = struct{}{}
	r.tellLocked()
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.watches, w)
	}
}

func (r *registry) tellLocked() {
	for w := range r.watches {
		src := r.source
		if _, backup := w.key.Main(); backup {
			src = r.backup
		}
		if src.Node != "" && src.Epoch > w.epoch {
			w.epoch = src.Epoch
			w.fn(src)
		}
	}
}

// node is a whole node but for its viewers and publishers.
type node struct {
	name string
	id   *wire.Identity
	hub  *stream.Hub
	out  *out.Relay
	in   *in.Relay
	stop func() // ends it, politely; may be called twice

	mu   sync.Mutex
	addr string // at which others are told to reach it; "": where it is
}

type options struct {
	hub   stream.Config
	known func(context.Context, string) bool
	max   int
	grace time.Duration
	log   *slog.Logger // nil: none, or the test's

	region string
	fanout int
	lookup func(context.Context, media.Key) (in.Source, error) // nil: the registry's
}

func start(t testing.TB, reg *registry, name string, o options) *node {
	t.Helper()
	id, err := wire.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(t.Output(), nil)).With("on", name)
	}
	if o.log != nil {
		log = o.log
	}
	if o.known == nil {
		o.known = reg.known
	}
	reg.mu.Lock()
	if reg.nodes == nil {
		reg.nodes = map[string]bool{}
	}
	reg.nodes[id.Key()] = true
	reg.mu.Unlock()
	n := &node{name: name, id: id}
	if o.lookup == nil {
		o.lookup = reg.lookup
	}
	o.hub.Log = log
	o.hub.Pull = func(ctx context.Context, k media.Key) error { return n.in.Pull(ctx, k) }
	n.hub = stream.NewHub(o.hub)
	n.out = out.New(out.Config{Hub: n.hub, Identity: id, Listen: "127.0.0.1:0", Node: name, Known: o.known, MaxSubscriptions: o.max,
		Region: o.region, Fanout: o.fanout, Path: func(k media.Key) []string { return n.in.Path(k) }, Log: log})
	n.in = in.New(in.Config{Hub: n.hub, Identity: id, Node: name, Lookup: o.lookup, Watch: reg.watch, Grace: o.grace,
		Region: o.region, Addr: n.reach, Below: n.out.Below, Rerouted: n.out.Rerouted, Log: log})
	if err := n.out.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{n.hub.Run, n.out.Run, n.in.Run} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	n.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(n.stop)
	return n
}

// reach is where others are told that the node is.
func (n *node) reach() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return cmp.Or(n.addr, n.out.Addr().String())
}

// behind puts a cable in front of the node, for those who are told of it from now on.
func (n *node) behind(t testing.TB) *cable {
	c := lay(t, n.out.Addr())
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addr = c.addr()
	return c
}

// source is how the registry describes the node, reached at addr ("": directly).
func (n *node) source(addr string, epoch int64) in.Source {
	if addr == "" {
		addr = n.out.Addr().String()
	}
	return in.Source{Addr: addr, Key: n.id.Key(), Node: n.name, Epoch: epoch}
}

// camera is a publisher with numbers of its own.
type camera struct {
	pub   *stream.Publisher
	asked atomic.Int64
	got   chan media.Message
	ended chan error

	mu    sync.Mutex
	seq   [2]uint16
	ts    uint32
	stamp time.Time
}

func publish(t testing.TB, n *node, first uint16, tracks ...media.Track) *camera {
	t.Helper()
	return publishAs(t, n, key, first, tracks...)
}

func publishAs(t testing.TB, n *node, key media.Key, first uint16, tracks ...media.Track) *camera {
	t.Helper()
	c := &camera{seq: [2]uint16{first, first}, ts: uint32(first) * 7, got: make(chan media.Message, 100), ended: make(chan error, 1)}
	var err error
	c.pub, err = n.hub.Publish(t.Context(), key, stream.PublishOptions{Tracks: tracks,
		OnKeyFrameRequest: func(int) { c.asked.Add(1) },
		OnMessage:         func(m media.Message) { c.got <- m },
		OnEnd:             func(err error) { c.ended <- err }})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// frame sends a frame of n packets of size bytes; on track 0 a key frame when asked to.
func (c *camera) frame(track int, isKey bool, n, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ts += 3000
	b := media.NewBurst(track, c.ts)
	b.Arrived = time.Now().UnixNano()
	b.Captured = b.Arrived
	p := make([]byte, max(size, 2))
	p[0] = 0x41
	if isKey {
		p[0] = 0x65
	}
	for i := range n {
		b.Append(c.seq[track], i == n-1, p)
		c.seq[track]++
	}
	c.pub.Write(b)
}

// roll sends frames of 2 packets each interval, with a key frame first and every gop frames, and a
// packet of sound when there is an audio track, until the returned function is called.
func (c *camera) roll(t testing.TB, every time.Duration, gop, packets, size int, sound bool) (stop func()) {
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		asked := c.asked.Load()
		for i := 0; ; i++ {
			now := c.asked.Load()
			c.frame(0, i%gop == 0 || now != asked, packets, size)
			asked = now
			if sound {
				c.frame(1, false, 1, 100)
			}
			select {
			case <-end:
				return
			case <-tick.C:
			}
		}
	})
	stop = sync.OnceFunc(func() { close(end); wg.Wait() })
	t.Cleanup(stop)
	return stop
}

// viewer is a subscriber that checks what a player would stumble over.
type viewer struct {
	sub *stream.Subscription

	mu       sync.Mutex
	seqs     [2][]uint16
	stamps   [2][]uint32
	arrived  []time.Time // of video
	keys     []int       // indices into stamps of video
	broken   []string
	tracks   []media.Track
	messages []media.Message
	ended    error
	over     bool
}

func (v *viewer) GOP(bs []*media.Burst) {
	for _, b := range bs {
		v.Burst(b)
	}
}

func (v *viewer) Burst(b *media.Burst) {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := b.Track
	for _, p := range b.Packets {
		if n := len(v.seqs[t]); n > 0 && p.Seq != v.seqs[t][n-1]+1 {
			v.broken = append(v.broken, fmt.Sprintf("track %d: packet %d after %d", t, p.Seq, v.seqs[t][n-1]))
		}
		v.seqs[t] = append(v.seqs[t], p.Seq)
	}
	if n := len(v.stamps[t]); n > 0 && int32(b.Timestamp-v.stamps[t][n-1]) <= 0 {
		v.broken = append(v.broken, fmt.Sprintf("track %d: timestamp %d after %d", t, b.Timestamp, v.stamps[t][n-1]))
	}
	if t == 0 {
		if b.Key {
			v.keys = append(v.keys, len(v.stamps[0]))
		}
		v.arrived = append(v.arrived, time.Now())
	}
	v.stamps[t] = append(v.stamps[t], b.Timestamp)
}

func (v *viewer) Tracks(t []media.Track) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tracks = t
}

func (v *viewer) Message(m media.Message) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.messages = append(v.messages, m)
}

func (v *viewer) End(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ended, v.over = err, true
}

// frames is how many bursts of a track came.
func (v *viewer) frames(track int) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.stamps[track])
}

// reaches waits for so many bursts of a track.
func (v *viewer) reaches(t testing.TB, track, n int, within time.Duration) {
	t.Helper()
	until(t, within, func() string {
		if got := v.frames(track); got < n {
			return fmt.Sprintf("track %d: %d bursts of %d", track, got, n)
		}
		return ""
	})
}

// intact fails when numbers were not continuous.
func (v *viewer) intact(t testing.TB) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.broken) > 0 {
		t.Errorf("numbering broke %d times: %s", len(v.broken), strings.Join(v.broken[:min(5, len(v.broken))], "; "))
	}
}

func watch(t testing.TB, n *node) *viewer {
	t.Helper()
	v := &viewer{}
	var err error
	if v.sub, err = n.hub.Subscribe(t.Context(), key, stream.SubscribeOptions{Subscriber: v}); err != nil {
		t.Fatal(err)
	}
	v.sub.Start()
	return v
}

// wire between two nodes that can be cut and narrowed: a UDP forwarder.
type cable struct {
	t      testing.TB
	front  *net.UDPConn
	target *net.UDPAddr
	cut    atomic.Bool
	rate   atomic.Int64 // bytes a second towards the client; 0: no limit
	wg     sync.WaitGroup

	mu    sync.Mutex
	backs map[string]*net.UDPConn
}

func lay(t testing.TB, to net.Addr) *cable {
	t.Helper()
	front, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{t: t, front: front, target: to.(*net.UDPAddr), backs: map[string]*net.UDPConn{}}
	c.wg.Go(c.forth)
	t.Cleanup(func() {
		_ = front.Close()
		c.mu.Lock()
		for _, b := range c.backs {
			_ = b.Close()
		}
		c.mu.Unlock()
		c.wg.Wait()
	})
	return c
}

func (c *cable) addr() string { return c.front.LocalAddr().String() }

func (c *cable) forth() {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.front.ReadFromUDP(buf)
		if err != nil {
			return
		}
		if c.cut.Load() {
			continue
		}
		c.mu.Lock()
		b := c.backs[from.String()]
		if b == nil {
			if b, err = net.DialUDP("udp", nil, c.target); err != nil {
				c.mu.Unlock()
				c.t.Error(err)
				return
			}
			c.backs[from.String()] = b
			queue := make(chan []byte, 100) // what a router holds; it drops the newest
			c.wg.Go(func() { c.back(b, queue) })
			c.wg.Go(func() { c.deliver(queue, from) })
		}
		c.mu.Unlock()
		_, _ = b.Write(buf[:n]) // a closed port is part of the game
	}
}

func (c *cable) back(b *net.UDPConn, queue chan<- []byte) {
	defer close(queue)
	buf := make([]byte, 2048)
	for {
		n, err := b.Read(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil || c.cut.Load():
			continue
		}
		select {
		case queue <- append([]byte(nil), buf[:n]...):
		default:
		}
	}
}

func (c *cable) deliver(queue <-chan []byte, to *net.UDPAddr) {
	due := time.Now()
	for p := range queue {
		if rate := c.rate.Load(); rate > 0 {
			now := time.Now()
			if due.Before(now) {
				due = now
			}
			due = due.Add(time.Duration(len(p)) * time.Second / time.Duration(rate))
			if wait := due.Sub(now); wait > time.Millisecond {
				<-time.After(wait)
			}
		}
		_, _ = c.front.WriteToUDP(p, to)
	}
}
