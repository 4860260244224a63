package clustertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/cluster"
	"sluice/media"
)

// model is the simplest thing that does what the interface's comments say.
type model struct {
	now     func() time.Time
	nodes   map[string]*cluster.Node
	streams map[row]*cluster.Stream
}

type row struct {
	key    media.Key
	backup bool
}

func (m *model) join(id string, session int64) {
	m.nodes[id] = &cluster.Node{ID: id, Session: session, LastHeartbeat: m.now()}
}

func (m *model) heartbeat(id string, session int64) error {
	n := m.nodes[id]
	switch {
	case n != nil && n.Session != session:
		return cluster.ErrReplaced
	case n == nil || n.Fenced:
		return cluster.ErrFenced
	}
	n.LastHeartbeat = m.now()
	return nil
}

func (m *model) leave(id string, session int64) {
	if n := m.nodes[id]; n != nil && n.Session == session {
		delete(m.nodes, id)
	}
}

func (m *model) claim(l cluster.Lease) (cluster.Lease, error) {
	s := m.streams[row{l.Key, l.Backup}]
	if s == nil {
		s = &cluster.Stream{Key: l.Key, Backup: l.Backup}
		m.streams[row{l.Key, l.Backup}] = s
	}
	if n := m.nodes[s.Origin]; s.State == cluster.Broadcasting && s.Session != l.Session && n != nil && n.Session == s.Session && !n.Fenced {
		if m.now().Sub(n.LastHeartbeat) < ttl {
			return l, cluster.ErrStreamInUse
		}
		n.Fenced = true
	}
	s.State, s.Origin, s.Session = cluster.Broadcasting, l.Node, l.Session
	s.Epoch = cluster.NextEpoch(s.Epoch, m.now())
	l.Epoch = s.Epoch
	return l, nil
}

func (m *model) resume(l cluster.Lease, session int64) (cluster.Lease, error) {
	s := m.streams[row{l.Key, l.Backup}]
	next := l
	next.Session, next.Epoch = session, l.Epoch+1
	switch {
	case s == nil || s.Epoch < l.Epoch:
		m.streams[row{l.Key, l.Backup}] = &cluster.Stream{Key: l.Key, Backup: l.Backup, State: cluster.Broadcasting, Origin: l.Node,
			Session: next.Session, Epoch: next.Epoch}
	case s.State == cluster.Finished || s.Origin != l.Node:
		return l, cluster.ErrLeaseLost
	case s.Session == next.Session && s.Epoch == next.Epoch:
	case s.Session == l.Session && s.Epoch == l.Epoch:
		s.Session, s.Epoch = next.Session, next.Epoch
	default:
		return l, cluster.ErrLeaseLost
	}
	return next, nil
}

func (m *model) change(l cluster.Lease, state cluster.StreamState) error {
	s := m.streams[row{l.Key, l.Backup}]
	if s == nil || s.State == cluster.Finished || s.Epoch != l.Epoch || s.Origin != l.Node || s.Session != l.Session {
		return cluster.ErrLeaseLost
	}
	s.State = state
	return nil
}

// randomHistories plays random calls on the registry and on the model, which must agree.
func randomHistories(t *testing.T, f *fixture) {
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 0))
	handles := f.handles(t, 3)
	m := &model{now: f.clock.Now, nodes: map[string]*cluster.Node{}, streams: map[row]*cluster.Stream{}}
	sessions := []cluster.Node{{ID: nodeName(0), Session: 1}} // that were ever used
	ok(t, f.Join(f.ctx, sessions[0]))
	m.join(sessions[0].ID, 1)
	leases := []cluster.Lease{{Key: stream("0"), Node: nodeName(0), Session: 1, Epoch: 1}}
	for step := range 600 {
		r := handles[rnd.IntN(len(handles))]
		n := sessions[max(0, len(sessions)-1-rnd.IntN(6))] // an old one at times
		l := leases[max(0, len(leases)-1-rnd.IntN(5))]
		var what string
		var got, want error
		switch op := rnd.IntN(20); {
		case op < 2:
			n = cluster.Node{ID: nodeName(rnd.IntN(3)), Session: int64(len(sessions) + 1)}
			sessions = append(sessions, n)
			what, got = fmt.Sprintf("join %+v", n), r.Join(f.ctx, n)
			m.join(n.ID, n.Session)
		case op < 7:
			what, got = fmt.Sprintf("heartbeat %+v", n), r.Heartbeat(f.ctx, n)
			want = m.heartbeat(n.ID, n.Session)
		case op < 8:
			what, got = fmt.Sprintf("leave %+v", n), r.Leave(f.ctx, n.ID, n.Session)
			m.leave(n.ID, n.Session)
		case op < 13:
			asked := cluster.Lease{Key: stream(fmt.Sprint(rnd.IntN(3))), Backup: rnd.IntN(4) == 0, Node: n.ID, Session: n.Session}
			what = fmt.Sprintf("claim %+v", asked)
			var is, must cluster.Lease
			is, got = r.Claim(f.ctx, asked)
			if must, want = m.claim(asked); want == nil {
				leases = append(leases, must)
				if is != must {
					t.Fatalf("seed %d, step %d: %s gives %+v, want %+v", seed, step, what, is, must)
				}
			}
		case op < 15:
			what = fmt.Sprintf("resume %+v as %d", l, n.Session)
			var is, must cluster.Lease
			is, got = r.Resume(f.ctx, l, n.Session)
			if must, want = m.resume(l, n.Session); want == nil {
				leases = append(leases, must)
				if is != must {
					t.Fatalf("seed %d, step %d: %s gives %+v, want %+v", seed, step, what, is, must)
				}
			}
		case op < 17:
			info := []cluster.StreamInfo{broadcasting, broadcasting, interrupted}[rnd.IntN(3)]
			what = fmt.Sprintf("report %+v as %s", l, info.State)
			got, want = r.Report(f.ctx, l, info), m.change(l, info.State)
		case op < 18:
			what = fmt.Sprintf("release %+v", l)
			got, want = r.Release(f.ctx, l), m.change(l, cluster.Finished)
		default:
			what = "wait"
			f.clock.Advance((time.Duration(rnd.IntN(4)) * ttl / 3).Truncate(time.Millisecond)) // registries are exact to one
		}
		if (got == nil) != (want == nil) || !errors.Is(got, want) {
			t.Fatalf("seed %d, step %d: %s says %v, want %v", seed, step, what, got, want)
		}
		f.agree(t, m, fmt.Sprintf("seed %d, step %d, after %s", seed, step, what))
	}
}

// agree compares all nodes and streams with the model.
func (f *fixture) agree(t *testing.T, m *model, when string) {
	t.Helper()
	var want, got []string
	for at, s := range m.streams {
		if s.State != cluster.Finished {
			want = append(want, fmt.Sprintf("%s %v %s %s %d %d", at.key, at.backup, s.State, s.Origin, s.Session, s.Epoch))
		}
	}
	for id, n := range m.nodes {
		want = append(want, fmt.Sprintf("node %s %d %v %v", id, n.Session, n.Fenced, n.LastHeartbeat.UnixMilli()))
	}
	list, err := f.Streams(f.ctx)
	ok(t, err)
	for _, s := range list {
		got = append(got, fmt.Sprintf("%s %v %s %s %d %d", s.Key, s.Backup, s.State, s.Origin, s.Session, s.Epoch))
	}
	nodes, err := f.Nodes(f.ctx)
	ok(t, err)
	for _, n := range nodes {
		got = append(got, fmt.Sprintf("node %s %d %v %v", n.ID, n.Session, n.Fenced, n.LastHeartbeat.UnixMilli()))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Fatalf("%s: the registry has\n%s, want\n%s", when, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
