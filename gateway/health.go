package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"sluice/cluster"
)

// A node that is down, and has not reached the registry for goneAfter either, is probably gone for good: its row stays for a
// day, and each crash may leave one. It is asked every goneEvery, and at once when a heartbeat comes.
const (
	goneAfter = 2 * time.Minute
	goneEvery = 30 * time.Second
)

// errNodeDown ends requests that wait for a node which has stopped answering.
var errNodeDown = errors.New("node does not answer")

// health is what the probes say of a node.
type health int

const (
	unknown  health = iota // not probed yet: used, a failed dial will tell
	up                     // ready
	notReady               // answers, but wants no new work
	down                   // nobody there, or two probes in a row without an answer
)

// pool is the gateway's own opinion of the nodes. A heartbeat is seconds old; a probe is not. A
// process that is gone is found at once, one that hangs within HealthInterval + 2 HealthTimeout.
type pool struct {
	dir      directory
	log      *slog.Logger
	interval time.Duration
	timeout  time.Duration
	client   *http.Client

	wg     sync.WaitGroup // the watches
	mu     sync.Mutex
	probes map[string]*probe // by node id
	round  int               // counts changes of a node's health
}

// probe is the state of one node's watch.
type probe struct {
	addr   string
	role   cluster.Role
	health health
	misses int             // probes in a row that timed out
	silent bool            // no heartbeat for goneAfter
	wake   chan struct{}   // there is one again
	alive  context.Context // ends when the node goes down; its cause says why
	kill   context.CancelCauseFunc
	stop   context.CancelFunc // ends the watch
}

func newPool(dir directory, interval, timeout time.Duration, log *slog.Logger) *pool {
	return &pool{
		dir: dir, log: log, interval: interval, timeout: timeout, probes: map[string]*probe{},
		client: &http.Client{
			Timeout:       timeout,
			Transport:     &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// run watches every node of the directory until ctx ends.
func (p *pool) run(ctx context.Context) {
	tick := time.NewTicker(p.interval)
	defer tick.Stop()
	for ctx.Err() == nil {
		p.sync(ctx, p.dir.View())
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	p.sync(ctx, cluster.View{})
	p.wg.Wait()
	p.client.CloseIdleConnections()
}

// sync starts watches of new nodes and ends those of nodes that left or moved.
func (p *pool) sync(ctx context.Context, v cluster.View) {
	p.mu.Lock()
	defer p.mu.Unlock()
	rows := map[string]cluster.Node{}
	for _, n := range newest(v.Nodes) {
		rows[n.ID] = n
	}
	for id, pr := range p.probes {
		if rows[id].HTTP != pr.addr {
			pr.stop()
			pr.kill(nil)
			delete(p.probes, id)
			p.round++
		}
	}
	for id, n := range rows {
		silent := v.At.Sub(n.LastHeartbeat) > goneAfter
		if pr := p.probes[id]; pr != nil {
			if pr.silent && !silent {
				select {
				case pr.wake <- struct{}{}:
				default:
				}
			}
			pr.silent = silent
			continue
		}
		watch, stop := context.WithCancel(ctx)
		pr := &probe{addr: n.HTTP, role: n.Role, stop: stop, silent: silent, wake: make(chan struct{}, 1)}
		pr.revive()
		p.probes[id] = pr
		p.wg.Go(func() { p.watch(watch, id, pr) })
	}
}

// newest drops rows whose address was taken over by a node that started later.
func newest(nodes []cluster.Node) []cluster.Node {
	last := make(map[string]time.Time, len(nodes))
	for _, n := range nodes {
		if t, ok := last[n.HTTP]; !ok || n.Started.After(t) {
			last[n.HTTP] = n.Started
		}
	}
	out := make([]cluster.Node, 0, len(nodes))
	for _, n := range nodes {
		if n.HTTP != "" && n.Started.Equal(last[n.HTTP]) {
			out = append(out, n)
		}
	}
	return out
}

func (pr *probe) revive() { pr.alive, pr.kill = context.WithCancelCause(context.Background()) }

// watch probes one node until ctx ends. After a probe that timed out the next follows at once, unless the node is gone.
func (p *pool) watch(ctx context.Context, id string, pr *probe) {
	for ctx.Err() == nil {
		err := p.ask(ctx, pr.addr)
		if ctx.Err() != nil {
			return
		}
		p.note(id, pr, err)
		rest := p.interval
		switch {
		case p.gone(pr):
			rest = goneEvery
		case isTimeout(err):
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(rest):
		case <-pr.wake:
		}
	}
}

func (p *pool) gone(pr *probe) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return pr.silent && pr.health == down
}

// errNotReady: the node answered, and said that it takes no work.
var errNotReady = errors.New("node is not ready")

func (p *pool) ask(ctx context.Context, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)); err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%w: /readyz says %s", errNotReady, resp.Status)
	}
	return nil
}

// note takes the outcome of a probe.
func (p *pool) note(id string, pr *probe, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.probes[id] != pr {
		return
	}
	was := pr.health
	if isTimeout(err) {
		pr.misses++
	} else {
		pr.misses = 0
	}
	switch {
	case err == nil:
		pr.health = up
	case errors.Is(err, errNotReady):
		pr.health = notReady
	case isTimeout(err) && pr.misses < 2: // a busy moment is no death
		return
	default:
		p.downLocked(id, pr, err)
		return
	}
	if was == down {
		pr.revive()
	}
	if was != pr.health {
		p.round++
		p.log.Info(map[health]string{up: "node is up", notReady: "node takes no new work"}[pr.health], "node", id, "role", pr.role, "addr", pr.addr)
	}
}

// failed says that a dial of the node failed: it is down until a probe succeeds.
func (p *pool) failed(id string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pr := p.probes[id]; pr != nil {
		p.downLocked(id, pr, err)
	}
}

func (p *pool) downLocked(id string, pr *probe, err error) {
	if pr.health == down {
		return
	}
	pr.health = down
	p.round++
	pr.kill(err)
	p.log.Warn("node is down", "node", id, "role", pr.role, "addr", pr.addr, "error", err)
}

// alive returns a context that ends when the node goes down. Its cause is what a probe or a dial got; context.Canceled when the
// node has left the registry or moved.
func (p *pool) alive(id string) context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pr := p.probes[id]; pr != nil {
		return pr.alive
	}
	return context.Background()
}

// changes counts what would make view say something else of the same rows.
func (p *pool) changes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.round
}

// view is the directory's without the nodes that are down. Nodes that are not ready
// are marked as draining. The slice is the caller's.
func (p *pool) view(v cluster.View) cluster.View {
	v.Nodes = newest(v.Nodes)
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := v.Nodes[:0]
	for _, n := range v.Nodes {
		if pr := p.probes[n.ID]; pr != nil && pr.addr == n.HTTP { // else it has just moved
			switch pr.health {
			case down:
				continue
			case notReady:
				n.State = cluster.Draining
			}
		}
		kept = append(kept, n)
	}
	v.Nodes = kept
	return v
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// isDial reports that no connection was made, so that the node has seen nothing.
func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
