// Package crowd loads a server with publishers and viewers by the thousand, measures what they see, and finds
// how many it carries.
//
// Imports: codec, internal/usage, load.
package crowd

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/load"
)

// Config says what to do to which server. Zero values are mistakes, but where a field says otherwise.
type Config struct {
	Publish, Play string // WHIP and WHEP addresses, one of which may be empty; %d in them is the stream's number, from 0. rtp://HOST:PORT publishes plain RTP
	Signal        Signal // how viewers ask for Play; nil: by WHEP
	Streams       int
	Viewers       int           // of each stream; with Capacity the most
	Rate          float64       // viewers that join a second
	Warm          time.Duration // from the last join to the measured time
	For           time.Duration // the measured time
	Connections   int           // HTTP connections at once, and sessions that are opened at once

	Bitrate int           // bit/s of video
	FPS     int           // frames a second
	GOP     time.Duration // between key frames
	Audio   bool
	File    string // a media file to publish instead, over and over, by FFmpeg; may be empty

	// Follow: clients open another session when the server asks for it, and go over to it without a gap; viewers also come back when
	// their session is lost.
	Follow bool

	Token    string         // bearer token, may be empty
	Insecure bool           // take any certificate
	Roots    *x509.CertPool // certificates to trust; nil: the system's
	Own      bool           // the user says that the server may be loaded; needed unless it is this machine

	PIDs       []int // the server's processes on this machine, may be empty
	Thresholds []Threshold
	Capacity   *Capacity // find out how many viewers it carries; nil: don't
	Return     *Return   // how those come back whose session is lost; nil: viewers don't. For Open

	Log      *slog.Logger
	Progress func(Sample) // once a second, from one goroutine; may be nil
	Step     func(Step)   // with Capacity: after each step; may be nil
}

// ErrNotYours: the server is not on this machine, and nobody has said that it may be loaded.
var ErrNotYours = errors.New("not loopback: a load test harms a server that isn't prepared for it; if it is yours, give --i-own-this-server")

// Check refuses what makes no sense, before anything is asked of a server.
func (c *Config) Check() error {
	switch {
	case c.Publish == "" && c.Play == "":
		return errors.New("nothing to do: give --publish URL (WHIP), --play URL (WHEP), or both")
	case c.Streams < 1 || c.Streams > 10_000:
		return fmt.Errorf("%d streams: give 1 to 10000", c.Streams)
	case c.Play != "" && (c.Viewers < 1 || c.Viewers > 100_000):
		return fmt.Errorf("%d viewers per stream: give 1 to 100000", c.Viewers)
	case c.Rate <= 0 || c.Rate > 10_000:
		return fmt.Errorf("a rate of %g/s: give more than 0 and at most 10000/s", c.Rate)
	case c.For <= 0:
		return errors.New("nothing would be measured: give --for a time, such as 10s")
	case c.Warm < 0:
		return errors.New("--warm can't be negative")
	case c.Connections < 1:
		return errors.New("without an HTTP connection nobody can join: give --connections at least 1")
	case c.FPS < 1 || c.FPS > 240:
		return fmt.Errorf("%d frames a second: give 1 to 240", c.FPS)
	case c.Bitrate < 50_000 || c.Bitrate > 200_000_000:
		return fmt.Errorf("a bitrate of %d bit/s: give 50k to 200M", c.Bitrate)
	case c.GOP < 500*time.Millisecond || c.GOP > time.Minute:
		return fmt.Errorf("%s between key frames: give 500ms to 1m", c.GOP)
	case c.Capacity != nil && c.Play == "":
		return errors.New("to find the capacity there must be viewers: give --play URL")
	case c.Capacity != nil && c.Follow:
		return errors.New("to find the capacity a session that is lost must count: leave out --follow")
	}
	for i, u := range []string{c.Publish, c.Play} {
		if err := c.checkURL(u, i == 0); u != "" && err != nil {
			return err
		}
	}
	return checkThresholds(c.Thresholds, c)
}

func (c *Config) checkURL(s string, publish bool) error {
	if c.Streams > 1 && !strings.Contains(s, "%d") {
		return fmt.Errorf("address %q: with several streams it needs a %%d, which becomes the stream's number", s)
	}
	u, err := url.Parse(expand(s, 0))
	if err == nil && publish && u.Scheme == plainScheme {
		if _, err := plainPort(u); err != nil {
			return err
		}
		if c.Streams > 1 || c.File != "" {
			return fmt.Errorf("address %q: plain RTP is for one synthetic stream", s)
		}
	} else if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fmt.Errorf("address %q: give one that begins with http:// or https://, such as http://127.0.0.1:5080/live/whep/stream1", s)
	}
	return c.allow(u)
}

// allow refuses what is not on this machine, unless the user has said that it may be loaded.
func (c *Config) allow(u *url.URL) error {
	if !c.Own && !hostAddr(u.Hostname()).IsLoopback() {
		return fmt.Errorf("%s is %w", u.Hostname(), ErrNotYours)
	}
	return nil
}

// local makes a test of addresses that media may go to: those of this machine, unless the server may be loaded anyway; then nil.
// A server on this machine names its interfaces' addresses, too.
func (c *Config) local() (func(netip.Addr) bool, error) {
	if c.Own {
		return nil, nil
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list this machine's addresses: %w", err)
	}
	return func(a netip.Addr) bool {
		return a.IsLoopback() || slices.ContainsFunc(all, func(own net.Addr) bool {
			p, err := netip.ParsePrefix(own.String())
			return err == nil && p.Addr().Unmap() == a.WithZone("")
		})
	}, nil
}

// expand puts the stream's number into an address.
func expand(s string, n int) string { return strings.ReplaceAll(s, "%d", fmt.Sprint(n)) }

// crowd is a run.
type crowd struct {
	cfg      Config
	log      *slog.Logger
	identity *identity
	client   *load.Client
	local    func(netip.Addr) bool // where media may go; nil: anywhere
	loops    []*loop
	silence  []byte
	start    time.Time
	slots    chan struct{} // sessions that are opened at once
	goodbyes sync.WaitGroup
	keeping  context.Context // of the keepers of viewers that follow; Run's
	keepers  sync.WaitGroup

	mu         sync.Mutex // guards all below
	opened     int        // sessions, to spread them over the loops
	publishers []*publisher
	viewers    []*viewer // that have joined and not left
	failed     int       // joins
	moves      int       // of viewers and publishers, because the server asked
	returns    int       // of viewers, with another session after one that was lost
	reasons    map[string]int
	joins      []time.Duration
	joined     int   // viewers, in the whole run
	why        error // the first that could not
	phase      string
	samples    []Sample
}

// Run loads the server and reports. When ctx ends early it reports what there is. An error means that there is nothing to report.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	c, err := newCrowd(cfg)
	if err != nil {
		return nil, err
	}
	defer c.client.Close()
	var loops sync.WaitGroup
	ended := make(chan error, runtime.GOMAXPROCS(0))
	if err := c.startLoops(&loops, ended); err != nil {
		return nil, err
	}
	run, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := make(chan struct{})
	go func() { // a loop that can't wait any more ends all; it is over when the loops are
		defer close(watch)
		for range c.loops {
			if err := <-ended; err != nil {
				cancel(err)
			}
		}
	}()
	report, err := c.run(run)
	stopped := c.stopLoops(&loops)
	<-watch
	if cause := context.Cause(run); err == nil && cause != nil && ctx.Err() == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return report, errors.Join(err, stopped)
}

func newCrowd(cfg Config) (*crowd, error) {
	c := &crowd{cfg: cfg, log: cfg.Log, start: time.Now(), silence: silence(soundBytes), slots: make(chan struct{}, cfg.Connections), reasons: map[string]int{}}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if c.identity, err = newIdentity(c.start); err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	if c.local, err = cfg.local(); err != nil {
		return nil, err
	}
	c.client = load.NewClient(cfg.Token, cfg.Roots, cfg.Insecure)
	c.client.Allow(cfg.allow)
	c.client.Limit(cfg.Connections)
	return c, nil
}

// startLoops starts a loop for each processor, whose ends come to ended.
func (c *crowd) startLoops(wg *sync.WaitGroup, ended chan<- error) error {
	for range runtime.GOMAXPROCS(0) {
		l, err := newLoop()
		if err != nil {
			return errors.Join(err, c.stopLoops(wg))
		}
		c.loops = append(c.loops, l)
		wg.Go(func() { ended <- l.run() })
	}
	return nil
}

func (c *crowd) stopLoops(wg *sync.WaitGroup) error {
	var all error
	for _, l := range c.loops {
		l.stop()
	}
	wg.Wait()
	for _, l := range c.loops {
		all = errors.Join(all, l.poller.close())
	}
	return all
}

// settle is how long the server may take to calm down after the publishers have come, so that the viewers' costs can be told from theirs.
const settle = 2 * time.Second

func (c *crowd) run(ctx context.Context) (*Report, error) {
	ticking, stopTicking := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { c.sampling(ticking) })
	publishing, stopPublishing := context.WithCancel(ctx)
	var stopKeeping context.CancelFunc
	c.keeping, stopKeeping = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		stopTicking()
		stopKeeping()
		c.keepers.Wait()
		c.goodbyes.Wait()
		c.leave(ctx, 0)
		stopPublishing()
		wg.Wait()
	}()
	r := &Report{Began: c.start, Config: c.cfg.summary()}
	if c.cfg.Publish != "" {
		c.say("publishing")
		if err := c.publish(publishing, &wg); err != nil {
			return nil, err
		}
		if c.cfg.Play != "" && !pause(ctx, settle) {
			return r, c.conclude(r, nil, "stopped before anybody joined")
		}
	}
	before := c.look()
	switch {
	case c.cfg.Capacity != nil:
		return r, c.conclude(r, c.findCapacity(ctx, r, before), "")
	case c.cfg.Play != "":
		c.say("joining")
		began := time.Now()
		c.grow(ctx, c.cfg.Streams*c.cfg.Viewers)
		before.ramp = time.Since(began)
		c.say("warming up")
		if ctx.Err() != nil || !pause(ctx, c.cfg.Warm) {
			return r, c.conclude(r, c.measured(c.everything(before)), "stopped before the measured time: the figures are of all there was")
		}
	}
	c.say("measuring")
	w := c.begin(before)
	stopped := ""
	if began := time.Now(); !pause(ctx, c.cfg.For) {
		stopped = fmt.Sprintf("stopped after %s of %s of measuring", time.Since(began).Round(100*time.Millisecond), c.cfg.For)
	}
	return r, c.conclude(r, c.measured(w), stopped)
}

// door is the address for who comes now.
func (c *crowd) door(publish bool) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if publish {
		return c.cfg.Publish
	}
	return c.cfg.Play
}

// pause waits; it says whether the time has passed.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *crowd) say(phase string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.phase = phase
}

// newSession makes a session in one of the loops.
func (c *crowd) newSession() *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened++
	return &session{loop: c.loops[c.opened%len(c.loops)], local: c.local, ours: newCredentials(), up: make(chan struct{}), over: make(chan struct{})}
}

// publish starts all publishers and waits until they have begun.
func (c *crowd) publish(ctx context.Context, wg *sync.WaitGroup) error {
	up := make(chan error, c.cfg.Streams)
	for i := range c.cfg.Streams {
		url := func() string { return expand(c.door(true), i) }
		if c.cfg.File != "" {
			wg.Go(func() {
				publishFile(ctx, load.PublishConfig{URL: url(), Source: c.cfg.File, Loop: true, Bitrate: c.cfg.Bitrate,
					Token: c.cfg.Token, Insecure: c.cfg.Insecure, Roots: c.cfg.Roots, Allow: c.cfg.allow, Log: c.log}, up)
			})
			continue
		}
		p := &publisher{crowd: c, url: url, stream: i}
		c.mu.Lock()
		c.publishers = append(c.publishers, p)
		c.mu.Unlock()
		c.slots <- struct{}{}
		first := make(chan error, 1)
		wg.Go(func() { p.run(ctx, first) })
		wg.Go(func() {
			err := <-first
			<-c.slots
			up <- err
		})
	}
	for range c.cfg.Streams {
		if err := <-up; err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	return nil
}

// grow lets viewers join until there are n, at the rate that was asked for. It returns when all have joined or failed.
func (c *crowd) grow(ctx context.Context, n int) {
	c.mu.Lock()
	have := len(c.viewers)
	c.mu.Unlock()
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range max(0, n-have) {
		due := begin.Add(time.Duration(float64(i) / c.cfg.Rate * float64(time.Second)))
		if ctx.Err() != nil || !pause(ctx, time.Until(due)) || c.hopeless(n) {
			break
		}
		c.slots <- struct{}{}
		wg.Go(func() {
			c.join(ctx, (have+i)%c.cfg.Streams)
			<-c.slots
		})
	}
	wg.Wait()
}

// hopeless tells that so many could not join that a step of the search for the capacity has failed already.
func (c *crowd) hopeless(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cfg.Capacity != nil && c.failed > max(2, n/50)
}

func (c *crowd) join(ctx context.Context, stream int) {
	v, err := c.enter(ctx, c.newSession(), stream, nil)
	if err != nil {
		if ctx.Err() == nil {
			c.failure(err)
		}
		return
	}
	// By the clock of all arrivals: this goroutine's turn comes later, often after the first picture.
	var took time.Duration
	v.session.loop.do(func() { took = time.Duration(v.session.heard - v.began.UnixNano()) })
	c.mu.Lock()
	defer c.mu.Unlock()
	i := len(c.viewers)
	c.viewers = append(c.viewers, v)
	if c.cfg.Follow && c.keeping != nil {
		c.keepers.Go(func() { c.keep(c.keeping, i, v) })
	}
	c.joins = append(c.joins, took)
	c.joined++
}

// enter makes a session of a viewer of a stream. It takes the place of another one, if any, with its first picture.
func (c *crowd) enter(ctx context.Context, s *session, stream int, before *viewer) (*viewer, error) {
	began := time.Now()
	var v *viewer
	ours := offer{ours: s.ours, fingerprint: c.identity.fingerprint, sound: c.cfg.Audio}
	signal := c.cfg.Signal
	if signal == nil {
		signal = byWHIP(c.client, func(r *load.Resource) { s.at = r })
	}
	err := s.open(ctx, c.identity, signal, expand(c.door(false), stream), ours, func() medium {
		v = newViewer(s, began)
		v.stream, v.before, v.took, v.follows = stream, before, make(chan struct{}), c.cfg.Follow
		return v
	})
	if err != nil {
		s.close(ctx)
		return nil, err
	}
	return v, nil
}

func (c *crowd) failure(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed++
	if c.why == nil {
		c.why = err
	}
	if len(c.reasons) < 10 || c.reasons[err.Error()] > 0 {
		c.reasons[err.Error()]++
	}
	c.log.Info("a viewer could not join", "error", err)
}

// leave lets viewers go until there are n. Some of each stream, and not the first ones only.
func (c *crowd) leave(ctx context.Context, n int) {
	c.mu.Lock()
	rand.Shuffle(len(c.viewers), func(i, j int) { c.viewers[i], c.viewers[j] = c.viewers[j], c.viewers[i] })
	all := c.viewers[min(n, len(c.viewers)):]
	c.viewers = c.viewers[:len(c.viewers)-len(all)]
	c.mu.Unlock()
	var wg sync.WaitGroup
	for _, v := range all {
		c.slots <- struct{}{}
		wg.Go(func() {
			v.session.close(ctx)
			<-c.slots
		})
	}
	wg.Wait()
}
