package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/cluster"
	"sluice/internal/auth"
	"sluice/internal/problem"
)

const tagCluster = "Cluster"

// noteKind is that of the documents with operators' notes on nodes.
const noteKind = "node-note"

const maxNote = 500 // characters

func (a *API) nodes() {
	read, write := auth.ClusterRead, auth.ClusterWrite
	register(a, operation{method: http.MethodGet, path: "/rest/v2/cluster/nodes/{offset}/{size}", id: "listNodes", tag: tagCluster, needs: read, does: "A page of the cluster's nodes",
		more: "Nodes that died are listed for a day. The header X-Total-Count says how many there are."}, a.listNodes)
	register(a, operation{method: http.MethodGet, path: "/rest/v2/cluster/node-count", id: "countNodes", tag: tagCluster, needs: read, does: "How many nodes the cluster has"}, a.countNodes)
	register(a, operation{method: http.MethodPut, path: "/rest/v2/cluster/node/{id}/note", id: "noteNode", tag: tagCluster, needs: write, does: "Write a note on a node",
		more: "For other operators. It stays with the node's id."}, a.noteNode)
	register(a, operation{method: http.MethodDelete, path: "/rest/v2/cluster/node/{id}", id: "removeNode", tag: tagCluster, needs: write, does: "Remove a node that is dead",
		more: "One that lives would come back: drain it."}, a.removeNode)
	register(a, operation{method: http.MethodGet, path: "/rest/v2/cluster-mode-status", id: "clusterModeStatus", tag: tagCluster, needs: read, does: "Whether there is more than one node"}, a.clusterMode)
}

// ClusterNode is a node as other servers' customers know it, and more.
type ClusterNode struct {
	ID     string  `json:"id"`
	IP     string  `json:"ip" doc:"Address and port of its HTTP."`
	Update int64   `json:"lastUpdateTime" doc:"Of its last heartbeat, milliseconds of Unix time."`
	Memory string  `json:"memory" doc:"Percent of what it may use."`
	CPU    int     `json:"cpu" doc:"Percent of the processors that it may use."`
	DB     int     `json:"dbQueryAveargeTimeMs" doc:"Always 0; /metrics has how long the registry takes. The member is spelt so."`
	Status string  `json:"status" enum:"alive,dead"`
	Note   string  `json:"note"`
	Role   string  `json:"role" enum:"standalone,origin,edge,transcoder"`
	State  string  `json:"state" enum:"ready,draining,dead"`
	Full   string  `json:"full,omitempty" doc:"Why it takes nobody new."`
	Region string  `json:"region"`
	Vers   string  `json:"version"`
	Host   string  `json:"host"`
	PID    int     `json:"pid"`
	Media  string  `json:"media"`
	CPUs   float64 `json:"cpuShare" doc:"0 to 1."`
	Mem    float64 `json:"memoryShare" doc:"0 to 1."`
	Load   float64 `json:"load" doc:"0 to 1: the largest share of what it has of processors and, where these have limits, of egress and viewers."`
	Egress float64 `json:"egress" doc:"bit/s"`
	Stream int     `json:"streams"`
	View   int     `json:"viewers"`
	Start  int64   `json:"started" doc:"Milliseconds of Unix time."`
	Drain  bool    `json:"drainOrdered"`
}

func nodeOf(n cluster.Node, at time.Time, note string) ClusterNode {
	out := ClusterNode{ID: n.ID, IP: n.HTTP, Update: n.LastHeartbeat.UnixMilli(), Memory: fmt.Sprintf("%.0f%%", 100*n.Memory), CPU: int(100*n.CPU + 0.5), Status: "alive", Note: note,
		Role: string(n.Role), State: string(n.State), Full: n.Full, Region: n.Region, Vers: n.Version, Host: n.Host, PID: n.PID, Media: n.Media, CPUs: n.CPU, Mem: n.Memory, Load: n.Load,
		Egress: n.Egress, Stream: len(n.Serving), View: n.Viewers(), Start: cluster.Millis(n.Started), Drain: n.Order.Drain}
	if !n.Alive(at) {
		out.Status, out.State = "dead", "dead"
		out.CPU, out.CPUs, out.Memory, out.Mem, out.Load, out.Egress, out.Stream, out.View = 0, 0, "0%", 0, 0, 0, 0, 0
	}
	return out
}

type nodesInput struct {
	Offset int    `path:"offset" minimum:"0" maximum:"100000000"`
	Size   int    `path:"size" minimum:"0" maximum:"500"`
	Search string `query:"search" maxLength:"200" doc:"Part of id, address, host, role or region."`
}

type nodesOutput struct {
	Total int `header:"X-Total-Count"`
	Body  []ClusterNode
}

func (a *API) listNodes(ctx context.Context, in *nodesInput) (*nodesOutput, error) {
	s, err := a.deps.Live.Now(ctx)
	if err != nil {
		return nil, err
	}
	needle := strings.ToLower(in.Search)
	var found []cluster.Node
	for _, n := range s.View.Nodes {
		if needle == "" || strings.Contains(strings.ToLower(strings.Join([]string{n.ID, n.HTTP, n.Host, string(n.Role), n.Region}, "\n")), needle) {
			found = append(found, n)
		}
	}
	from := min(in.Offset, len(found))
	page := found[from:min(from+in.Size, len(found))]
	notes, err := a.notes(ctx, page)
	if err != nil {
		return nil, err
	}
	out := &nodesOutput{Total: len(found), Body: make([]ClusterNode, 0, len(page))}
	for _, n := range page {
		out.Body = append(out.Body, nodeOf(n, s.View.At, notes[n.ID]))
	}
	return out, nil
}

// note is a document's body.
type note struct {
	Text string `json:"text"`
}

func (a *API) notes(ctx context.Context, nodes []cluster.Node) (map[string]string, error) {
	ids := make([]string, len(nodes))
	for i, n := range nodes {
		ids[i] = n.ID
	}
	if len(ids) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	docs, _, err := a.deps.Documents.Find(ctx, cluster.Query{Kind: noteKind, IDs: ids})
	if err != nil {
		return nil, away(err)
	}
	notes := map[string]string{}
	for _, d := range docs {
		var n note
		if err := json.Unmarshal(d.Body, &n); err != nil {
			return nil, fmt.Errorf("read the note on %q: %w", d.ID, err)
		}
		notes[d.ID] = n.Text
	}
	return notes, nil
}

func (a *API) countNodes(ctx context.Context, _ *struct{}) (*number, error) {
	s, err := a.deps.Live.Now(ctx)
	if err != nil {
		return nil, err
	}
	return numberOf(len(s.View.Nodes)), nil
}

// InNode is in requests about a node.
type InNode struct {
	ID string `path:"id" minLength:"1" maxLength:"64"`
}

func (a *API) node(ctx context.Context, id string) (n cluster.Node, alive bool, err error) {
	a.deps.Live.Forget() // what is done to it goes by what it is now
	s, err := a.deps.Live.Now(ctx)
	if err != nil {
		return n, false, err
	}
	n, ok := s.View.Node(id)
	if !ok {
		return n, false, problem.New(problem.NotFound, fmt.Sprintf("there is no node %.64q", id))
	}
	return n, n.Alive(s.View.At), nil
}

type noteInput struct {
	InNode
	Note string `query:"note" maxLength:"500" doc:"Empty: none any more."`
}

func (a *API) noteNode(ctx context.Context, in *noteInput) (*answer, error) {
	_, _, err := a.node(ctx, in.ID)
	if err == nil {
		err = a.writeNote(ctx, in.ID, in.Note)
	}
	a.record(ctx, "note a node", in.ID, "", err)
	return done("the note was written"), err
}

func (a *API) writeNote(ctx context.Context, id, text string) error {
	body, err := json.Marshal(note{text})
	if err != nil {
		return fmt.Errorf("write the note on %q: %w", id, err)
	}
	ctx, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	for range attempts {
		d, err := a.deps.Documents.Get(ctx, noteKind, "", id)
		if errors.Is(err, cluster.ErrNoDocument) {
			d, err = cluster.Document{Kind: noteKind, ID: id}, nil
		}
		if err != nil {
			return away(err)
		}
		d.Body = body
		_, err = a.deps.Documents.Put(ctx, d)
		if !errors.Is(err, cluster.ErrConflict) && !errors.Is(err, cluster.ErrExists) {
			return away(err)
		}
	}
	return problem.New(problem.Conflict, "others write the note at this moment; try again")
}

func (a *API) removeNode(ctx context.Context, in *InNode) (*answer, error) {
	n, alive, err := a.node(ctx, in.ID)
	switch {
	case err != nil:
	case alive:
		err = problem.New(problem.Conflict, "the node lives: drain it, or stop it, before it is removed")
	default:
		ctx, cancel := context.WithTimeout(ctx, registryWithin)
		defer cancel()
		err = away(a.deps.Registry.Leave(ctx, n.ID, n.Session))
		a.deps.Live.Forget()
	}
	a.record(ctx, "remove a node", in.ID, "", err)
	return done("the node was removed"), err
}

func (a *API) clusterMode(ctx context.Context, _ *struct{}) (*answer, error) {
	s, err := a.deps.Live.Now(ctx)
	if err != nil {
		return nil, err
	}
	many := slices.ContainsFunc(s.View.Nodes, func(n cluster.Node) bool { return n.Role != cluster.Standalone })
	return &answer{result{Success: many}}, nil
}
