package api

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/cluster"
	"sluice/internal/auth"
	"sluice/internal/problem"
	"sluice/media"
)

const tagLive = "Cluster, live"

// registry is what the cluster's view is read from, and by what its nodes are told.
type registry interface {
	Nodes(ctx context.Context) ([]cluster.Node, error)
	Streams(ctx context.Context) ([]cluster.Stream, error)
	Order(ctx context.Context, id string, o cluster.Order) error
	Leave(ctx context.Context, id string, session int64) error
	Now() time.Time
}

// LiveNode is a node as it described itself at its last heartbeat.
type LiveNode struct {
	ID            string    `json:"id"`
	Role          string    `json:"role"`
	Region        string    `json:"region"`
	State         string    `json:"state" enum:"ready,full,draining,dead" doc:"full: ready, but takes nobody new; dead: no heartbeat comes."`
	Full          string    `json:"full,omitempty" doc:"Why it takes nobody new."`
	Host          string    `json:"host"`
	PID           int       `json:"pid"`
	Version       string    `json:"version"`
	HTTP          string    `json:"http" doc:"Address of its signalling and REST."`
	Media         string    `json:"media" doc:"Address of its WebRTC media."`
	CPU           float64   `json:"cpu" doc:"Of the processors that it may use, 0 to 1."`
	Memory        float64   `json:"memory" doc:"Of the memory that it may use, 0 to 1."`
	Egress        float64   `json:"egress" doc:"Bits a second, to viewers and nodes."`
	Load          float64   `json:"load" doc:"The largest of its shares, 0 to 1: placement and scaling go by it."`
	Streams       int       `json:"streams"`
	Viewers       int       `json:"viewers"`
	Started       time.Time `json:"started,omitzero"`
	LastHeartbeat time.Time `json:"lastHeartbeat" doc:"By the registry's clock, as at."`
	Drain         bool      `json:"drain" doc:"An operator has ordered it to drain."`
	DrainUntil    time.Time `json:"drainUntil,omitzero" doc:"When it ends at the latest."`
}

// LiveStream is a stream that flows, or whose publisher is expected back.
type LiveStream struct {
	App     string      `json:"app"`
	ID      string      `json:"id"`
	State   string      `json:"state" enum:"broadcasting,interrupted"`
	Origin  string      `json:"origin"`
	Backup  string      `json:"backup,omitempty" doc:"The node of its backup publisher."`
	Epoch   int64       `json:"epoch"`
	Started time.Time   `json:"started,omitzero"`
	Codecs  []string    `json:"codecs"`
	Viewers int         `json:"viewers" doc:"On all nodes."`
	Nodes   []ServingAt `json:"nodes" doc:"Nodes that can serve it, the origin included."`
}

// ServingAt is a node that has a stream.
type ServingAt struct {
	Node    string `json:"node"`
	Viewers int    `json:"viewers"`
}

// LiveGroup is what the scaling signal says of the nodes of a role in a region.
type LiveGroup struct {
	Role     string  `json:"role"`
	Region   string  `json:"region"`
	Nodes    int     `json:"nodes" doc:"Alive and ready."`
	Draining int     `json:"draining"`
	Full     int     `json:"full" doc:"Of nodes: those that take nobody new."`
	Viewers  int     `json:"viewers"`
	CPU      float64 `json:"cpu" doc:"Mean, 0 to 1."`
	Load     float64 `json:"load" doc:"What all carry for each ready node, 0 to 1."`
	Target   float64 `json:"target" doc:"The load at which the group is to grow."`
	Desired  int     `json:"desired" doc:"Nodes that should be ready, by what this node has seen lately."`
	Reason   string  `json:"reason" doc:"Why, in words."`
}

// LiveTotals add up the nodes that live.
type LiveTotals struct {
	Nodes   int     `json:"nodes"`
	Dead    int     `json:"dead"`
	Streams int     `json:"streams"`
	Viewers int     `json:"viewers"`
	Egress  float64 `json:"egress" doc:"Bits a second, to viewers and nodes."`
	CPU     float64 `json:"cpu" doc:"Mean of the nodes, 0 to 1."`
}

// LiveCluster is what the registry says of the cluster.
type LiveCluster struct {
	At     time.Time   `json:"at" doc:"By the registry's clock. While the registry is away it stands still."`
	Away   bool        `json:"away" doc:"The registry can't be reached: this is what it said last."`
	Nodes  []LiveNode  `json:"nodes"`
	Groups []LiveGroup `json:"groups"`
	Totals LiveTotals  `json:"totals"`
}

// snapshot is one look at the registry. It is immutable.
type snapshot struct {
	LiveCluster
	streams  []LiveStream
	revision int64 // of streams: changes with them
}

const (
	liveEvery  = 500 * time.Millisecond // between two looks, however many ask
	liveWithin = 3 * time.Second        // for one
	liveShare  = 10                     // a look that takes long is taken less often: at most a tenth of the time
)

// live looks at the registry while somebody asks.
type live struct {
	reg    registry
	scaler *cluster.Scaler

	mu     sync.Mutex
	last   *snapshot
	next   time.Time // when to look again
	steady time.Time // by the registry's clock: after an outage nobody is judged before it
	away   bool
}

func newLive(reg registry) *live {
	return &live{reg: reg, scaler: cluster.NewScaler(cluster.ScaleConfig{})}
}

// get is what the registry says now, half a second old at most if it is there. Callers share a look. While the registry is
// away it is what was known, and says so.
func (l *live) get(ctx context.Context) (*snapshot, error) {
	if l.reg == nil {
		return nil, problem.New(problem.RegistryAway, "this node has no registry")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	began := time.Now()
	if began.Before(l.next) && l.last != nil {
		return l.last, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), liveWithin) // others wait for it, too
	defer cancel()
	nodes, err := l.reg.Nodes(ctx)
	var streams []cluster.Stream
	if err == nil {
		streams, err = l.reg.Streams(ctx)
	}
	l.next = time.Now().Add(max(liveEvery, liveShare*time.Since(began)))
	switch {
	case err != nil && l.last == nil:
		return nil, auth.ErrUnavailable
	case err != nil:
		l.away = true
		was := *l.last
		was.Away = true
		l.last = &was
		return l.last, nil
	}
	now := l.reg.Now()
	if l.away {
		l.away, l.steady = false, now.Add(cluster.DeadAfter)
	}
	at := now
	if now.Before(l.steady) { // nodes need time to come back: an outage of the registry kills nobody
		at = l.last.At
	}
	l.last = l.look(cluster.View{Nodes: nodes, At: at}, streams)
	return l.last, nil
}

func (l *live) look(view cluster.View, rows []cluster.Stream) *snapshot {
	s := &snapshot{LiveCluster: LiveCluster{At: view.At, Nodes: []LiveNode{}, Groups: []LiveGroup{}}}
	for _, n := range view.Nodes {
		row := liveNode(n, view.At)
		s.Nodes = append(s.Nodes, row)
		if row.State == "dead" {
			s.Totals.Dead++
			continue
		}
		s.Totals.Nodes++
		s.Totals.Viewers += row.Viewers
		s.Totals.Egress += row.Egress
		s.Totals.CPU += row.CPU
	}
	if s.Totals.Nodes > 0 {
		s.Totals.CPU /= float64(s.Totals.Nodes)
	}
	s.streams = liveStreams(view, rows)
	s.Totals.Streams = len(s.streams)
	for _, g := range l.scaler.Observe(view) {
		s.Groups = append(s.Groups, LiveGroup{Role: string(g.Role), Region: g.Region, Nodes: g.Nodes, Draining: g.Draining, Full: g.Full,
			Viewers: g.Viewers, CPU: g.CPU, Load: g.Load, Target: l.scaler.Target(), Desired: g.Desired, Reason: g.Reason})
	}
	if l.last != nil {
		s.revision = l.last.revision
		if !slices.EqualFunc(s.streams, l.last.streams, sameStream) {
			s.revision++
		}
	}
	return s
}

func liveNode(n cluster.Node, at time.Time) LiveNode {
	row := LiveNode{ID: n.ID, Role: string(n.Role), Region: n.Region, State: string(n.State), Full: n.Full, Host: n.Host, PID: n.PID, Version: n.Version,
		HTTP: n.HTTP, Media: n.Media, CPU: n.CPU, Memory: n.Memory, Egress: n.Egress, Load: n.Load, Streams: len(n.Serving), Viewers: n.Viewers(),
		Started: n.Started, LastHeartbeat: n.LastHeartbeat, Drain: n.Order.Drain, DrainUntil: n.Order.Deadline}
	switch {
	case !n.Alive(at):
		row.State = "dead"
	case n.State == cluster.Ready && n.Full != "":
		row.State = "full"
	}
	return row
}

// liveStreams lists streams as they truly are: one whose origin is dead has ended. A backup that sends alone stands for its stream.
func liveStreams(view cluster.View, rows []cluster.Stream) []LiveStream {
	at := map[media.Key][]ServingAt{}
	for _, n := range view.Alive() {
		for _, s := range n.Serving {
			at[s.Stream] = append(at[s.Stream], ServingAt{Node: n.ID, Viewers: s.Viewers})
		}
	}
	list := []LiveStream{}
	for _, s := range rows { // a backup's row comes after that of its stream
		state := view.State(s)
		if state == cluster.Finished {
			continue
		}
		row := LiveStream{App: s.Key.App, ID: s.Key.ID, State: string(state), Origin: s.Origin, Epoch: s.Epoch, Started: s.Started,
			Codecs: append([]string{}, s.Codecs...), Nodes: append([]ServingAt{}, at[s.Key]...)}
		for _, n := range row.Nodes {
			row.Viewers += n.Viewers
		}
		if last := len(list) - 1; s.Backup {
			row.Backup = s.Origin
			if last >= 0 && list[last].App == row.App && list[last].ID == row.ID {
				if list[last].State == string(cluster.Broadcasting) || state != cluster.Broadcasting {
					list[last].Backup = s.Origin
					continue
				}
				list = list[:last] // it is silent, and viewers have the backup
			}
		}
		list = append(list, row)
	}
	return list
}

func sameStream(a, b LiveStream) bool {
	return a.App == b.App && a.ID == b.ID && a.State == b.State && a.Origin == b.Origin && a.Backup == b.Backup && a.Epoch == b.Epoch &&
		slices.Equal(a.Codecs, b.Codecs) && slices.Equal(a.Nodes, b.Nodes)
}

func (a *API) cluster() {
	a.live = newLive(a.deps.Registry)
	register(a, operation{method: http.MethodGet, path: "/rest/v2/cluster/live", id: "getCluster", tag: tagLive, needs: auth.ClusterRead,
		does: "All nodes, groups and totals", more: "As the registry says, half a second old at most; the same at every node."},
		func(ctx context.Context, _ *struct{}) (*struct{ Body LiveCluster }, error) {
			s, err := a.live.get(ctx)
			if err != nil {
				return nil, err
			}
			return &struct{ Body LiveCluster }{s.LiveCluster}, nil
		})
	register(a, operation{method: http.MethodGet, path: "/rest/v2/cluster/streams", id: "listLiveStreams", tag: tagLive, needs: auth.StreamsRead, inSome: true,
		does: "The streams that flow now", more: "Those of the applications that one may read; the header X-Total-Count says how many there are."}, a.liveStreams)
	register(a, operation{method: http.MethodGet, path: "/rest/v2/cluster/streams/{app}/{id}", id: "getLiveStream", tag: tagLive, needs: auth.StreamsRead,
		does: "A stream that flows now"}, a.liveStream)
	register(a, operation{method: http.MethodPost, path: "/rest/v2/cluster/nodes/{id}/drain", id: "drainNode", tag: tagLive, needs: auth.ClusterWrite,
		does: "Drain a node", more: "It takes no new work, tells its clients to move, and ends when they have, or at the deadline."}, a.drainNode)
	register(a, operation{method: http.MethodDelete, path: "/rest/v2/cluster/nodes/{id}/drain", id: "undrainNode", tag: tagLive, needs: auth.ClusterWrite,
		does: "Take back the order to drain", more: "A process that was told to stop, or whose cloud has given notice, goes all the same."}, a.undrainNode)
	a.eventStream()
}

type streamsInput struct {
	Paging
	App  string `query:"app" maxLength:"128" doc:"Only of this application."`
	Node string `query:"node" maxLength:"128" doc:"Only what this node has."`
	Sort string `query:"sort" enum:"name,viewers,started,origin" default:"name"`
	Desc bool   `query:"desc" doc:"The largest first."`
}

type streamsOutput struct {
	Total int `header:"X-Total-Count"`
	Body  []LiveStream
}

func (a *API) liveStreams(ctx context.Context, in *streamsInput) (*streamsOutput, error) {
	s, err := a.live.get(ctx)
	if err != nil {
		return nil, err
	}
	id, needle := auth.Of(ctx), strings.ToLower(in.Search)
	may := map[string]bool{}
	list := make([]LiveStream, 0, len(s.streams))
	for _, row := range s.streams {
		ok, known := may[row.App]
		if !known {
			ok = auth.Can(id, auth.StreamsRead, row.App)
			may[row.App] = ok
		}
		if !ok || in.App != "" && row.App != in.App || needle != "" && !strings.Contains(strings.ToLower(row.App+"/"+row.ID), needle) ||
			in.Node != "" && !slices.ContainsFunc(row.Nodes, func(n ServingAt) bool { return n.Node == in.Node }) {
			continue
		}
		list = append(list, row)
	}
	if in.Sort != "name" || in.Desc { // they are sorted by name
		slices.SortStableFunc(list, func(a, b LiveStream) int {
			if in.Desc {
				a, b = b, a
			}
			switch in.Sort {
			case "viewers":
				return cmp.Compare(a.Viewers, b.Viewers)
			case "started":
				return a.Started.Compare(b.Started)
			case "origin":
				return cmp.Compare(a.Origin, b.Origin)
			}
			return cmp.Compare(a.App+"/"+a.ID, b.App+"/"+b.ID)
		})
	}
	out := &streamsOutput{Total: len(list), Body: []LiveStream{}}
	if in.Offset < len(list) {
		out.Body = list[in.Offset:min(in.Offset+in.Size, len(list))]
	}
	return out, nil
}

type streamInput struct {
	App string `path:"app" maxLength:"128"`
	ID  string `path:"id" maxLength:"128"`
}

func (a *API) liveStream(ctx context.Context, in *streamInput) (*struct{ Body LiveStream }, error) {
	s, err := a.live.get(ctx)
	if err != nil {
		return nil, err
	}
	for _, row := range s.streams {
		if row.App == in.App && row.ID == in.ID {
			return &struct{ Body LiveStream }{row}, nil
		}
	}
	return nil, problem.New(problem.StreamOffline, "nobody publishes this stream now")
}

type drainInput struct {
	ID   string `path:"id" maxLength:"128"`
	Body struct {
		Seconds int `json:"seconds,omitempty" minimum:"1" maximum:"86400" default:"300" doc:"After this time it ends, with whoever is left."`
	}
}

func (a *API) drainNode(ctx context.Context, in *drainInput) (*answer, error) {
	err := a.order(ctx, in.ID, time.Duration(cmp.Or(in.Body.Seconds, 300))*time.Second)
	a.record(ctx, "drain a node", in.ID, "", err)
	return done("the node drains"), err
}

type nodeInput struct {
	ID string `path:"id" maxLength:"128"`
}

func (a *API) undrainNode(ctx context.Context, in *nodeInput) (*answer, error) {
	err := a.order(ctx, in.ID, 0)
	a.record(ctx, "take back a drain", in.ID, "", err)
	return done("the node is told that it may stay"), err
}

// order tells a node to drain within a time; 0: not to.
func (a *API) order(ctx context.Context, node string, within time.Duration) error {
	s, err := a.live.get(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.Nodes, func(n LiveNode) bool { return n.ID == node })
	switch {
	case i < 0:
		return problem.New(problem.NotFound, "there is no node of that name")
	case s.Nodes[i].State == "dead":
		return problem.New(problem.Conflict, "the node is dead: it can't hear")
	}
	o := cluster.Order{}
	if within > 0 {
		o = cluster.Order{Drain: true, Deadline: a.deps.Registry.Now().Add(within)}
	}
	if err := a.deps.Registry.Order(ctx, node, o); err != nil {
		return auth.ErrUnavailable
	}
	return nil
}

// clusterEvent is what has changed since the event before.
type clusterEvent struct {
	At     time.Time        `json:"at"`
	Away   bool             `json:"away"`
	Reset  bool             `json:"reset" doc:"nodes are all there are."`
	Nodes  []LiveNode       `json:"nodes"`
	Gone   []string         `json:"gone"`
	Heard  map[string]int64 `json:"heard" doc:"Heartbeats since, in milliseconds of Unix time by the registry's clock."`
	Groups []LiveGroup      `json:"groups"`
	Totals LiveTotals       `json:"totals"`
}

// told is what one listener knows.
type told struct {
	nodes map[string]string // without heartbeats
	heard map[string]int64
}

// since is what a listener does not know yet.
func (t *told) since(s *snapshot) clusterEvent {
	e := clusterEvent{At: s.At, Away: s.Away, Reset: t.nodes == nil, Nodes: []LiveNode{}, Gone: []string{}, Heard: map[string]int64{}, Groups: s.Groups, Totals: s.Totals}
	nodes := make(map[string]string, len(s.Nodes))
	heard := make(map[string]int64, len(s.Nodes))
	for _, n := range s.Nodes {
		still := n
		still.LastHeartbeat = time.Time{}
		b, err := json.Marshal(still)
		if err != nil {
			continue // can't be: plain values alone
		}
		nodes[n.ID], heard[n.ID] = string(b), n.LastHeartbeat.UnixMilli()
		switch {
		case t.nodes[n.ID] != nodes[n.ID]:
			e.Nodes = append(e.Nodes, n)
		case t.heard[n.ID] != heard[n.ID]:
			e.Heard[n.ID] = heard[n.ID]
		}
	}
	for id := range t.nodes {
		if _, ok := nodes[id]; !ok {
			e.Gone = append(e.Gone, id)
		}
	}
	t.nodes, t.heard = nodes, heard
	return e
}
