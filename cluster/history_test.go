package cluster_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/cluster"
	"sluice/cluster/clustertest"
	"sluice/media"
)

// op is a call that may have changed the registry, as its caller saw it: it was done at some time from began to ended.
type op struct {
	method       string
	began, ended time.Time
	node         string
	session      int64
	key          media.Key
	epoch        int64 // of the lease that was given or used
	info         cluster.StreamState
	err          error
}

// refused reports that the call has changed nothing, for certain.
func (o op) refused() bool {
	for _, no := range []error{cluster.ErrStreamInUse, cluster.ErrLeaseLost, cluster.ErrFenced, cluster.ErrReplaced} {
		if errors.Is(o.err, no) {
			return true
		}
	}
	return false
}

// history is what all nodes did.
type history struct {
	mu  sync.Mutex
	ops []op
}

// recorder writes a node's calls into the history.
type recorder struct {
	*clustertest.Line
	history *history
}

func (r recorder) note(o op, fn func() (epoch int64, err error)) error {
	o.began = time.Now()
	epoch, err := fn()
	o.ended, o.err = time.Now(), err
	if err == nil && epoch != 0 {
		o.epoch = epoch
	}
	r.history.mu.Lock()
	defer r.history.mu.Unlock()
	r.history.ops = append(r.history.ops, o)
	return err
}

func (r recorder) Join(ctx context.Context, n cluster.Node) error {
	return r.note(op{method: "Join", node: n.ID, session: n.Session}, func() (int64, error) { return 0, r.Line.Join(ctx, n) })
}

func (r recorder) Heartbeat(ctx context.Context, n cluster.Node) error {
	return r.note(op{method: "Heartbeat", node: n.ID, session: n.Session}, func() (int64, error) { return 0, r.Line.Heartbeat(ctx, n) })
}

func (r recorder) Leave(ctx context.Context, id string, session int64) error {
	return r.note(op{method: "Leave", node: id, session: session}, func() (int64, error) { return 0, r.Line.Leave(ctx, id, session) })
}

func (r recorder) Claim(ctx context.Context, l cluster.Lease) (got cluster.Lease, err error) {
	err = r.note(op{method: "Claim", node: l.Node, session: l.Session, key: l.Key}, func() (int64, error) {
		got, err = r.Line.Claim(ctx, l)
		return got.Epoch, err
	})
	return got, err
}

func (r recorder) Resume(ctx context.Context, l cluster.Lease, session int64) (got cluster.Lease, err error) {
	err = r.note(op{method: "Resume", node: l.Node, session: session, key: l.Key}, func() (int64, error) {
		got, err = r.Line.Resume(ctx, l, session)
		return got.Epoch, err
	})
	return got, err
}

func (r recorder) Report(ctx context.Context, l cluster.Lease, info cluster.StreamInfo) error {
	return r.note(op{method: "Report", node: l.Node, session: l.Session, key: l.Key, epoch: l.Epoch, info: info.State},
		func() (int64, error) { return 0, r.Line.Report(ctx, l, info) })
}

func (r recorder) Release(ctx context.Context, l cluster.Lease) error {
	return r.note(op{method: "Release", node: l.Node, session: l.Session, key: l.Key, epoch: l.Epoch},
		func() (int64, error) { return 0, r.Line.Release(ctx, l) })
}

// tail tells the end of a stream's story, and of a node's.
func (h *history) tail(key media.Key, node string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var lines []string
	for _, o := range h.ops {
		if o.key == key || o.node == node && o.key == (media.Key{}) && (o.method != "Heartbeat" || o.err != nil) {
			lines = append(lines, fmt.Sprintf("%s-%s %s of %s by %s/%d epoch %d %s: %v", o.began.Format("04:05.000"), o.ended.Format("05.000"), o.method, o.key, o.node, o.session, o.epoch, o.info, o.err))
		}
	}
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}

// verdict is what a check of a history found.
type verdict struct {
	wrong                             []string
	claims, resumes, takeovers, fresh int // takeovers: from another session; fresh: from one that had been heard of less than a minute before
	fences, replaced                  int // heartbeats that said so
}

// check looks for what may never happen.
func (h *history) check() (v verdict) {
	h.mu.Lock()
	defer h.mu.Unlock()
	grants := map[media.Key][]op{}
	sessions := map[int64][]op{} // Join, Heartbeat
	ends := map[string][]op{}    // by node: Join, Leave
	breaks := map[string][]op{}  // by lease: Release, Report of what anyone may take
	for _, o := range h.ops {
		switch {
		case o.method == "Heartbeat" && errors.Is(o.err, cluster.ErrFenced):
			v.fences++
			for _, b := range sessions[o.session] {
				if o.ended.Sub(b.began) < cluster.SessionTTL {
					v.wrong = append(v.wrong, fmt.Sprintf("%s was fenced %v after it had been heard of", o.node, o.ended.Sub(b.began)))
				}
			}
		case o.method == "Heartbeat" && errors.Is(o.err, cluster.ErrReplaced):
			v.replaced++
		case (o.method == "Join" || o.method == "Heartbeat") && o.err == nil:
			sessions[o.session] = append(sessions[o.session], o)
		case (o.method == "Claim" || o.method == "Resume") && o.err == nil:
			grants[o.key] = append(grants[o.key], o)
		}
		if o.refused() {
			continue
		}
		switch {
		case o.method == "Join" || o.method == "Leave":
			ends[o.node] = append(ends[o.node], o)
		case o.method == "Release" || o.method == "Report" && o.info != cluster.Broadcasting:
			breaks[lease(o)] = append(breaks[lease(o)], o)
		}
	}
	for key, list := range grants {
		v.wrong = append(v.wrong, orderOf(key, list)...)
		winner := map[int64]op{}
		for _, g := range list {
			winner[g.epoch] = g
			if g.method == "Claim" {
				v.claims++
			} else {
				v.resumes++
			}
		}
		epochs := slices.Sorted(maps.Keys(winner))
		for _, c := range list {
			i, _ := slices.BinarySearch(epochs, c.epoch)
			g, known := winner[epochs[max(0, i-1)]], i > 0
			if c.method != "Claim" || !known || g.session == c.session {
				continue
			}
			v.takeovers++
			heard, early := lastHeard(sessions[g.session], c)
			if !early.IsZero() && c.began.Sub(early) < time.Minute {
				v.fresh++
			}
			if heard != "" && !ended(ends[g.node], g.session, c) && len(before(breaks[lease(g)], c)) == 0 {
				v.wrong = append(v.wrong, fmt.Sprintf("%s: epoch %d was given to %s from %s, which was well: %s", key, c.epoch, c.node, g.node, heard))
			}
		}
	}
	return v
}

func lease(o op) string { return fmt.Sprint(o.key, o.session, o.epoch) }

// orderOf checks that each epoch has one winner, and that epochs grow with time.
func orderOf(key media.Key, list []op) (wrong []string) {
	slices.SortFunc(list, func(a, b op) int { return cmp.Or(cmp.Compare(a.epoch, b.epoch), a.ended.Compare(b.ended)) })
	var latest op // of those before in the list the one that began last
	for i, g := range list {
		if i > 0 {
			p := list[i-1]
			if p.epoch == g.epoch && (p.session != g.session || p.method != "Resume" || g.method != "Resume") { // a Resume may be done again
				wrong = append(wrong, fmt.Sprintf("%s: epoch %d has two winners, %s by %s and %s by %s", key, g.epoch, p.method, p.node, g.method, g.node))
			}
			if latest.epoch < g.epoch && latest.began.After(g.ended) {
				wrong = append(wrong, fmt.Sprintf("%s: epoch %d was given after epoch %d", key, latest.epoch, g.epoch))
			}
		}
		if g.began.After(latest.began) {
			latest = g
		}
	}
	return wrong
}

// lastHeard says whether the session was renewed within SessionTTL before the claim, for certain, and when it was renewed last.
func lastHeard(beats []op, c op) (heard string, last time.Time) {
	for _, b := range beats {
		if b.ended.Before(c.began) && b.ended.After(last) {
			last = b.ended
		}
		if b.ended.Before(c.began) && c.ended.Sub(b.began) < cluster.SessionTTL {
			heard = fmt.Sprintf("%s from %v to %v before the claim's end", b.method, c.ended.Sub(b.began), c.ended.Sub(b.ended))
		}
	}
	return heard, last
}

// ended reports that the session may have been void by its node's own doing.
func ended(ops []op, session int64, c op) bool {
	return slices.ContainsFunc(before(ops, c), func(o op) bool { return (o.method == "Leave") == (o.session == session) })
}

// before returns the calls that may have been done before the claim was.
func before(ops []op, c op) (list []op) {
	for _, o := range ops {
		if o.began.Before(c.ended) {
			list = append(list, o)
		}
	}
	return list
}
