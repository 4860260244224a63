package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sluice/cluster"
	"sluice/cluster/sqlite"
	"sluice/internal/auth"
	"sluice/internal/config"
	"sluice/internal/lifecycle"
)

const (
	readyWithin = 30 * time.Second      // for the whole cluster
	readyPoll   = 25 * time.Millisecond // between two looks at who is ready
	probeWithin = 2 * time.Second       // for one answer of the gateway
	hopeless    = 3                     // deaths before the first ready that end the start
	drainIn     = 2 * time.Second       // a node of a cluster that stops as a whole: nowhere to move to
)

type upCmd struct {
	config.Up `embed:""`
	Log       config.Log        `embed:"" prefix:"log-"`
	Trace     config.Trace      `embed:"" prefix:"trace-"`
	Scale     config.ScaleRules `embed:"" prefix:"scale-"`
}

// Run runs the cluster until the first signal.
func (c *upCmd) Run(p *process) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	return c.run(p, exe, nil)
}

// run takes the program and environment of the children, for tests.
func (c *upCmd) run(p *process, exe string, env []string) (err error) {
	if err := c.Check(); err != nil {
		return usageError{err}
	}
	u := &up{cmd: c, p: p, exe: exe, env: env, began: time.Now(), home: home{dir: c.Dir}}
	if err := u.home.make(); err != nil {
		return err
	}
	unlock, err := u.home.lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := errors.Join(portFree(c.PublishPort, "--publish-port"), portFree(c.PlayPort, "--play-port")); err != nil {
		return err
	}
	if err := u.home.certificates(append(ownHosts(), c.Hosts...), time.Now()); err != nil {
		return err
	}
	if err := u.openRegistry(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.reg.Close()) }()
	if err := u.watch(); err != nil {
		return err
	}
	err = lifecycle.Run(p.ctx, slog.New(slog.DiscardHandler), stopGrace+2*time.Second, u.parts()...)
	_ = os.Remove(u.home.path(addressFile)) // nothing is there any more; a stale one is only a worse message
	u.say("stopped")
	return err
}

// up is a cluster on this machine.
type up struct {
	cmd   *upCmd
	p     *process
	exe   string
	env   []string
	began time.Time
	home  home
	reg   *sqlite.Registry

	nodes   []*child
	edges   *flock
	gateway *child
	client  *http.Client // trusts the cluster's certificate
	isReady atomic.Bool

	mu sync.Mutex // for p.out: children report from their goroutines
}

func (u *up) say(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	fmt.Fprintf(u.p.out, format+"\n", args...)
}

// portFree says what to do about a port that is taken, before anything is started.
func portFree(port int, flag string) error {
	l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("port %d is in use by another program: stop it (ss -ltnp 'sport = :%d' names it), or choose another with %s", port, port, flag)
	}
	if err != nil {
		return fmt.Errorf("open port %d (choose another with %s): %w", port, flag, err)
	}
	return l.Close()
}

// openRegistry makes the registry and forgets the nodes of an earlier run, which are gone:
// the folder is locked.
func (u *up) openRegistry() (err error) {
	ctx, cancel := context.WithTimeout(u.p.ctx, askWithin)
	defer cancel()
	if u.reg, err = sqlite.Open(ctx, u.home.path(registryFile)); err != nil {
		return err
	}
	nodes, err := u.reg.Nodes(ctx)
	for _, n := range nodes {
		err = errors.Join(err, u.reg.Leave(ctx, n.ID, n.Session))
	}
	if err != nil {
		return errors.Join(err, u.reg.Close())
	}
	return nil
}

// watch prepares what asks the gateway whether it is there.
func (u *up) watch() error {
	pool, err := trust(u.home.path(caFile))
	if err != nil {
		return err
	}
	u.client = &http.Client{Timeout: probeWithin, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		DisableKeepAlives: true,
	}}
	return nil
}

// parts are what is started, in order.
func (u *up) parts() []lifecycle.Part {
	store, err := filepath.Abs(u.home.path(registryFile))
	if err != nil {
		store = u.home.path(registryFile) // the children's working folder is ours
	}
	common := []string{"--store=sqlite:" + store, "--log-level=" + u.cmd.Log.Level, "--log-format=" + u.cmd.Log.Format,
		"--trace-endpoint=" + u.cmd.Trace.Endpoint, fmt.Sprint("--trace-ratio=", u.cmd.Trace.Ratio)}
	if u.p.configFile != "" {
		common = append(common, "--config="+u.p.configFile)
	}
	node := func(role cluster.Role, i int, more ...string) *child {
		name := fmt.Sprintf("%s-%d", role, i)
		// Port 0: the node finds one and registers it, so that clusters fit side by side.
		return u.child(name, slices.Concat([]string{"serve", "--role=" + string(role), "--id=" + name,
			"--http=127.0.0.1:0", "--media=:0", "--relay=127.0.0.1:0", "--trusted-proxies=127.0.0.0/8,::1/128",
			fmt.Sprint("--publish-url=:", u.cmd.PublishPort), fmt.Sprint("--play-url=:", u.cmd.PlayPort), // They share the machine: each measures what it does itself, and none has room that another lacks.
			fmt.Sprint("--limits-cores=", u.cores(role)), "--limits-cpu=1", "--limits-memory=1", "--no-accounts-first-link"},
			more, common))
	}
	short := "--drain-deadline=" + drainIn.String()
	var origins []*child
	for i := range u.cmd.Origins {
		origins = append(origins, node(cluster.Origin, i+1, short))
	}
	u.edges = &flock{u: u, going: map[*child]cluster.Order{}, make: func(i int) *child { return node(cluster.Edge, i, short) }}
	u.nodes = slices.Concat(origins, u.edges.begin())
	u.gateway = u.child("gateway", append([]string{"gateway", "--publish=:" + strconv.Itoa(u.cmd.PublishPort),
		"--play=:" + strconv.Itoa(u.cmd.PlayPort), "--redirect=", "--operators=127.0.0.1:0", fmt.Sprint("--scale-cpu=", u.cmd.Scale.CPU), fmt.Sprint("--scale-window=", u.cmd.Scale.Window), "--certificate=" + u.home.path(certFile),
		"--key=" + u.home.path(certKeyFile)}, common...))
	return []lifecycle.Part{
		{Name: "origins", Run: all(origins)},
		{Name: "edges", Run: u.edges.run},
		{Name: "gateway", Run: all([]*child{u.gateway})},
		{Name: "orders", Run: u.orders},
		{Name: "cluster", Run: u.picture},
	}
}

func (u *up) child(name string, args []string) *child {
	return &child{name: name, exe: u.exe, args: args, env: u.env, log: u.home.logPath(name), logSize: int64(u.cmd.LogSize), say: u.say}
}

// all runs the children of a group side by side.
func all(list []*child) func(context.Context) error {
	return func(ctx context.Context) error {
		var group sync.WaitGroup
		errs := make([]error, len(list))
		for i, c := range list {
			group.Go(func() { errs[i] = c.Run(ctx) })
		}
		group.Wait()
		<-ctx.Done() // even if all have left by order
		return errors.Join(errs...)
	}
}

// picture waits until all is ready, says so with the URLs, and stays until ctx ends.
func (u *up) picture(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	if err := u.ready(wait); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	base := func(port int) string { return "https://localhost:" + strconv.Itoa(port) }
	ca, err := filepath.Abs(u.home.path(caFile))
	if err != nil {
		return err
	}
	publish, play := base(u.cmd.PublishPort), base(u.cmd.PlayPort)
	if err := u.home.writeAddress(address{Publish: publish, Play: play, CA: ca, PID: os.Getpid()}); err != nil {
		return err
	}
	app := u.app()
	u.say("ready in %.1fs", time.Since(u.began).Seconds())
	u.say("  publish  %s/%s/", publish, app)
	u.say("  play     %s/%s/player.html", play, app)
	if u.scales() {
		u.say("  edges    %s, as the load is over %s; an edge counts %.3g processors as its own", u.cmd.Autoscale, u.cmd.Scale.Window, u.cores(cluster.Edge))
	}
	if token, err := auth.New(u.reg, auth.Config{}).FirstLink(ctx); err != nil {
		u.say("  log in   no link for the first administrator could be made: %v; try: sluice users link", err)
	} else if token != "" {
		u.say("  log in   %s", linkOf(publish, token))
	}
	u.say("  stop     Ctrl-C")
	u.isReady.Store(true)
	<-ctx.Done()
	u.say("stopping (Ctrl-C again ends it at once)")
	return nil
}

// orders looks for nodes that were ordered to go (sluice drain), which are not started again.
func (u *up) orders(ctx context.Context) error {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		ask, cancel := context.WithTimeout(ctx, askWithin)
		nodes, err := u.reg.Nodes(ask)
		cancel()
		if err != nil {
			continue // the nodes' logs tell of it
		}
		for _, c := range slices.Concat(u.nodes, u.edges.list()) {
			if i := slices.IndexFunc(nodes, func(n cluster.Node) bool { return n.ID == c.name }); i >= 0 {
				c.leave(nodes[i].Order.Drain)
			}
		}
	}
}

func (u *up) app() string {
	if apps := u.p.config.Node.Apps; len(apps) > 0 {
		return apps[0]
	}
	return "live"
}

// ready waits for every node's row in the registry and for the gateway's answers on both
// ports, and says who has come.
func (u *up) ready(ctx context.Context) error {
	u.say("starting %d processes in %s (the first visit shows a certificate warning: trust %s, or go on)",
		len(u.nodes)+1, u.home.dir, u.home.path(caFile))
	waiting := append(slices.Clone(u.nodes), u.gateway)
	for {
		var why []string
		for _, c := range slices.Clone(waiting) {
			pid, deaths, last := c.state()
			if deaths >= hopeless {
				return fmt.Errorf("%s does not start (%s); see %s", c.name, last, c.log)
			}
			reason := u.lacks(ctx, c, pid, len(waiting) > 1)
			if reason == "" {
				u.say("  %-9s pid %-7d %.1fs", c.name, pid, time.Since(u.began).Seconds())
				waiting = slices.DeleteFunc(waiting, func(w *child) bool { return w == c })
				continue
			}
			why = append(why, c.name+" "+reason)
		}
		if len(waiting) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready after %s: %s; see %s", readyWithin, strings.Join(why, ", "), u.home.path(logFolder))
		case <-time.After(readyPoll):
		}
	}
}

// lacks says what a process still lacks to be ready, "" for nothing. The gateway can
// only be ready when all nodes are.
func (u *up) lacks(ctx context.Context, c *child, pid int, others bool) string {
	if pid == 0 {
		return "does not run"
	}
	if c == u.gateway {
		if others {
			return "waits for the nodes"
		}
		return u.gatewayLacks(ctx)
	}
	nodes, err := u.reg.Nodes(ctx)
	if err != nil {
		return "is unknown: " + err.Error()
	}
	i := slices.IndexFunc(nodes, func(n cluster.Node) bool { return n.ID == c.name && n.PID == pid })
	switch {
	case i < 0:
		return "has not registered"
	case nodes[i].State != cluster.Ready || !nodes[i].Alive(u.reg.Now()):
		return "is " + string(nodes[i].State)
	}
	return ""
}

func (u *up) gatewayLacks(ctx context.Context) string {
	for port, page := range map[int]string{u.cmd.PublishPort: "/", u.cmd.PlayPort: "/player.html"} {
		url := fmt.Sprintf("https://localhost:%d/%s%s", port, u.app(), page)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err.Error()
		}
		res, err := u.client.Do(req)
		if err != nil {
			return "does not answer: " + err.Error()
		}
		_ = res.Body.Close() // only the head counts
		// A page's own failure is not the gateway's: it says "no node" as a problem.
		if res.StatusCode >= 500 && res.Header.Get("Content-Type") == "application/problem+json" {
			return fmt.Sprintf("says %s to %s", res.Status, url)
		}
	}
	return ""
}
