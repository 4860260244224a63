package node

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"sluice/cluster"
	"sluice/internal/clientip"
	"sluice/internal/config"
	"sluice/internal/problem"
	"sluice/internal/usage"
)

const (
	measureEvery = 500 * time.Millisecond
	// release is the share of a limit below which a node that was full has room again, so that it does not change its mind with each viewer.
	release = 0.9
)

// load measures what the node does and says when that is enough. It refuses newcomers only: whoever is here stays.
type load struct {
	limits  config.Limits
	read    func() (cpu, memory float64)
	sent    func() uint64 // bytes
	viewers func() int
	log     *slog.Logger

	past []sending // run's; spans cluster.LoadOver or a little more

	mu  sync.Mutex
	now loadState
}

// loadState is what the node says of itself; see cluster.Node.
type loadState struct {
	cpu, memory, egress, load float64
	full                      string
	lacks                     string // what it is full of
}

// sending is what had been sent at one time.
type sending struct {
	at    time.Time
	bytes uint64
}

func (n *Node) newLoad() *load {
	return &load{
		limits:  n.cfg.Limits,
		read:    usage.NewMeter(cluster.LoadOver, n.cfg.Limits.Cores).Read,
		sent:    func() uint64 { return n.rtc.Sent() + n.relayOut.Sent() },
		viewers: n.out.Viewers,
		log:     n.log,
	}
}

func (l *load) state() loadState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// run measures until ctx ends.
func (l *load) run(ctx context.Context) error {
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	for {
		l.measure(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (l *load) measure(at time.Time) {
	s := loadState{egress: l.rate(sending{at, l.sent()})}
	s.cpu, s.memory = l.read()
	viewers := l.viewers()
	was := l.state()
	s.lacks, s.full = judge(l.limits, was.lacks, s, viewers)
	s.load = max(s.cpu, part(s.egress, 1e6*float64(l.limits.Egress)), part(float64(viewers), float64(l.limits.Viewers)))
	l.mu.Lock()
	l.now = s
	l.mu.Unlock()
	switch {
	case s.full != "" && was.full == "":
		l.log.Warn("node is full: it refuses newcomers", "why", s.full, "viewers", viewers)
	case s.full == "" && was.full != "":
		l.log.Info("node has room again", "viewers", viewers)
	}
}

// rate is in bits a second, over cluster.LoadOver.
func (l *load) rate(now sending) float64 {
	for len(l.past) > 1 && now.at.Sub(l.past[1].at) >= cluster.LoadOver {
		l.past = l.past[1:]
	}
	l.past = append(l.past, now)
	first := l.past[0]
	took := now.at.Sub(first.at).Seconds()
	if took <= 0 || now.bytes < first.bytes {
		return 0
	}
	return 8 * float64(now.bytes-first.bytes) / took
}

// judge says what the node has too much of, and that in words. What it lacked before must fall well below its limit.
func judge(limits config.Limits, lacked string, s loadState, viewers int) (lacks, full string) {
	for _, r := range []struct {
		name, text string
		is, most   float64 // most 0: no limit
	}{
		{"cpu", fmt.Sprintf("%.0f %% of its processors are busy", 100*s.cpu), s.cpu, limits.CPU},
		{"memory", fmt.Sprintf("%.0f %% of its memory is in use", 100*s.memory), s.memory, limits.Memory},
		{"egress", fmt.Sprintf("it sends %.0f of %d Mbit/s", s.egress/1e6, limits.Egress), s.egress, 1e6 * float64(limits.Egress)},
	} {
		if r.most > 0 && (r.is > r.most || lacked == r.name && r.is > release*r.most) {
			return r.name, r.text
		}
	}
	if limits.Viewers > 0 && viewers >= limits.Viewers {
		return "viewers", fmt.Sprintf("it has %d viewers of %d", viewers, limits.Viewers)
	}
	return "", ""
}

// part is a share of a limit, 0 to 1; 0 when there is no limit.
func part(is, most float64) float64 {
	if most <= 0 {
		return 0
	}
	return min(1, is/most)
}

// showLoad answers GET /load.
func (n *Node) showLoad(w http.ResponseWriter, _ *http.Request) {
	s := n.load.state()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]any{ // a client that went away is its own report
		"node": n.cfg.ID, "role": n.role, "region": n.cfg.Region, "cpu": s.cpu, "memory": s.memory, "egress": s.egress,
		"load": s.load, "full": s.full, "viewers": n.out.Viewers(),
	})
}

// private answers clients in this machine's and in private networks (RFC 1918, RFC 4193) only: a node's figures are nobody else's business.
func private(clients *clientip.Resolver, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a := clients.Of(r).Unmap(); !a.IsPrivate() && !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			problem.New(problem.Forbidden, "figures are shown in private networks only").Write(w)
			return
		}
		h.ServeHTTP(w, r)
	})
}
