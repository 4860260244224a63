package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"sluice/cluster"
	"sluice/cluster/mongo"
	"sluice/cluster/sqlite"
	"sluice/internal/config"
	"sluice/media"
)

// askWithin bounds a question to the registry from a shell.
const askWithin = 10 * time.Second

// storeFlags say which cluster is meant.
type storeFlags struct {
	Store string `help:"Registry: sqlite:PATH or mongodb://…; default: that of --dir, if no other is set ($$SLUICE_STORE)." placeholder:"URL"`
	Dir   string `help:"Folder of the cluster that sluice up runs ($$SLUICE_UP_DIR)." default:"" placeholder:".sluice"`
}

// open opens the registry that is meant. A store that the file or the environment names counts as
// meant unless it is the default, which the shipped sluice.yaml spells out.
func (f storeFlags) open(p *process, top *cli) (cluster.Store, error) {
	cfg, err := config.Load(config.File(top.Config, p.env), p.env)
	if err != nil {
		return nil, usageError{err}
	}
	store := f.Store
	if store == "" && f.Dir == "" && cfg.Store != config.Default().Store {
		store = cfg.Store
	}
	if store == "" {
		h := home{dir: cmp.Or(f.Dir, cfg.Up.Dir)}
		if !h.exists() {
			return nil, fmt.Errorf("there is no cluster in %s: start one with sluice up, or name its registry with --store", h.dir)
		}
		store = "sqlite:" + h.path(registryFile)
	}
	if kind, path, err := cluster.ParseStore(store); err == nil && kind == cluster.SQLite {
		if _, err := os.Stat(path); err != nil { // opening would make a new one
			return nil, fmt.Errorf("there is no registry %s: start a cluster, or name another with --store", path)
		}
	}
	return openStore(p.ctx, store, newLog(p.err, cfg.Log))
}

// openStore opens a registry of any kind.
func openStore(ctx context.Context, store string, log *slog.Logger) (cluster.Store, error) {
	kind, rest, err := cluster.ParseStore(store)
	if err != nil {
		return nil, usageError{err}
	}
	if kind == cluster.MongoDB {
		return mongo.Open(ctx, rest, mongo.WithLog(log))
	}
	return sqlite.Open(ctx, filepath.Clean(rest), sqlite.WithLog(log))
}

type nodesCmd struct {
	storeFlags `embed:""`
	JSON       bool `name:"json" help:"Print JSON."`
}

// nodeRow is a node as nodes --json prints it. Programs read it: fields may be added, not changed.
type nodeRow struct {
	ID            string    `json:"id"`
	Role          string    `json:"role"`
	PID           int       `json:"pid"`
	Host          string    `json:"host"`
	HTTP          string    `json:"http"`
	Media         string    `json:"media"`
	Version       string    `json:"version"`
	State         string    `json:"state"` // ready, draining or dead
	CPU           float64   `json:"cpu"`
	Memory        float64   `json:"memory"`
	Egress        float64   `json:"egress"` // bits a second
	Load          float64   `json:"load"`
	Full          string    `json:"full"` // why it takes nobody new; "": it does
	Streams       int       `json:"streams"`
	Viewers       int       `json:"viewers"`
	LastHeartbeat time.Time `json:"lastHeartbeat"`
}

// Run prints the nodes.
func (c *nodesCmd) Run(p *process, top *cli) (err error) {
	reg, err := c.open(p, top)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	ctx, cancel := context.WithTimeout(p.ctx, askWithin)
	defer cancel()
	nodes, err := reg.Nodes(ctx)
	if err != nil {
		return fmt.Errorf("read nodes: %w", err)
	}
	rows := nodeRows(nodes, reg.Now())
	if c.JSON {
		return printJSON(p.out, rows)
	}
	return printNodes(p.out, rows, reg.Now())
}

func nodeRows(nodes []cluster.Node, now time.Time) []nodeRow {
	rows := []nodeRow{}
	for _, n := range nodes {
		state := string(n.State)
		if !n.Alive(now) {
			state = "dead"
		}
		rows = append(rows, nodeRow{ID: n.ID, Role: string(n.Role), PID: n.PID, Host: n.Host, HTTP: n.HTTP, Media: n.Media,
			Version: n.Version, State: state, CPU: n.CPU, Memory: n.Memory, Egress: n.Egress, Load: n.Load, Full: n.Full, Streams: len(n.Serving), Viewers: n.Viewers(),
			LastHeartbeat: n.LastHeartbeat})
	}
	return rows
}

func printNodes(w io.Writer, rows []nodeRow, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tROLE\tSTATE\tPID\tHTTP\tCPU\tMEMORY\tSTREAMS\tVIEWERS\tHEARD")
	for _, n := range rows {
		if n.Full != "" && n.State == string(cluster.Ready) {
			n.State = "full"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%.0f%%\t%.0f%%\t%d\t%d\t%s\n", n.ID, n.Role, n.State, n.PID, n.HTTP,
			100*n.CPU, 100*n.Memory, n.Streams, n.Viewers, heard(n.LastHeartbeat, now))
	}
	return t.Flush()
}

// heard says when a node was heard last.
func heard(at, now time.Time) string {
	switch age := now.Sub(at); {
	case at.Unix() <= 0: // its row never had a heartbeat
		return "never"
	case age < time.Minute:
		return fmt.Sprintf("%s ago", age.Round(100*time.Millisecond))
	case age < 48*time.Hour:
		return fmt.Sprintf("%s ago", age.Round(time.Second))
	default:
		return fmt.Sprintf("%d days ago", age/(24*time.Hour))
	}
}

type streamsCmd struct {
	storeFlags `embed:""`
	JSON       bool `name:"json" help:"Print JSON."`
}

// streamRow is a stream as streams --json prints it. Programs read it: fields may be added, not changed.
type streamRow struct {
	App     string   `json:"app"`
	ID      string   `json:"id"`
	State   string   `json:"state"`
	Origin  string   `json:"origin"`
	Epoch   int64    `json:"epoch"`
	Edges   []string `json:"edges"` // nodes other than the origin that have it
	Viewers int      `json:"viewers"`
	Codecs  []string `json:"codecs"`
	// Backup is the stream's backup publisher, if it has one. When nobody else sends, the rest is that one's too.
	Backup *backupRow `json:"backup,omitempty"`
}

// backupRow is the backup publisher of a stream.
type backupRow struct {
	State  string   `json:"state"`
	Origin string   `json:"origin"`
	Epoch  int64    `json:"epoch"`
	Alone  bool     `json:"alone"` // nobody else sends
	Codecs []string `json:"codecs"`
}

// Run prints the streams.
func (c *streamsCmd) Run(p *process, top *cli) (err error) {
	reg, err := c.open(p, top)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	ctx, cancel := context.WithTimeout(p.ctx, askWithin)
	defer cancel()
	streams, err := reg.Streams(ctx)
	if err != nil {
		return fmt.Errorf("read streams: %w", err)
	}
	nodes, err := reg.Nodes(ctx)
	if err != nil {
		return fmt.Errorf("read nodes: %w", err)
	}
	rows := streamRows(streams, cluster.View{Nodes: nodes, At: reg.Now()})
	if c.JSON {
		return printJSON(p.out, rows)
	}
	return printStreams(p.out, rows)
}

// streamRows lists streams as they truly are: one whose origin is dead has ended.
func streamRows(streams []cluster.Stream, view cluster.View) []streamRow {
	edges, viewers := map[media.Key][]string{}, map[media.Key]int{}
	for _, n := range view.Alive() {
		for _, s := range n.Serving {
			viewers[s.Stream] += s.Viewers
			if n.Role != cluster.Transcoder {
				edges[s.Stream] = append(edges[s.Stream], n.ID)
			}
		}
	}
	rows := []streamRow{}
	for _, s := range streams { // a backup's row comes after that of its stream
		state := view.State(s)
		if state == cluster.Finished {
			continue
		}
		codecs := append([]string{}, s.Codecs...)
		row := streamRow{App: s.Key.App, ID: s.Key.ID, State: string(state), Origin: s.Origin, Epoch: s.Epoch, Viewers: viewers[s.Key], Codecs: codecs}
		if s.Backup {
			row.Backup = &backupRow{State: string(state), Origin: s.Origin, Epoch: s.Epoch, Codecs: codecs, Alone: true}
			if last := len(rows) - 1; last >= 0 && rows[last].App == row.App && rows[last].ID == row.ID {
				if rows[last].State == string(cluster.Broadcasting) || state != cluster.Broadcasting {
					row.Backup.Alone = false
					rows[last].Backup = row.Backup
					continue
				}
				rows = rows[:last] // it is silent, and viewers have the backup
			}
		}
		row.Edges = slices.DeleteFunc(append([]string{}, edges[s.Key]...), func(id string) bool { return id == s.Origin })
		rows = append(rows, row)
	}
	return rows
}

func printStreams(w io.Writer, rows []streamRow) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "STREAM\tSTATE\tORIGIN\tBACKUP\tEPOCH\tEDGES\tVIEWERS\tCODECS")
	for _, s := range rows {
		origin, backup := s.Origin, "-"
		if s.Backup != nil {
			backup = s.Backup.Origin
			if s.Backup.Alone {
				origin = "-"
			}
		}
		fmt.Fprintf(t, "%s/%s\t%s\t%s\t%s\t%d\t%s\t%d\t%s\n", s.App, s.ID, s.State, origin, backup, s.Epoch,
			cmp.Or(strings.Join(s.Edges, ","), "-"), s.Viewers, strings.Join(s.Codecs, ","))
	}
	return t.Flush()
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
