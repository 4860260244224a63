package node

import (
	"context"
	"encoding/json"
	"net/http"

	"sluice/api"
	"sluice/internal/census"
	"sluice/internal/problem"
	"sluice/media"
	"sluice/stream"
)

// newLive makes what REST asks about the cluster, and what other nodes ask of this one.
func (n *Node) newLive() {
	caller := census.NewCaller(n.identity, n.deps.Registry.Now)
	n.caller = caller
	n.live = census.New(n.deps.Registry, caller.Ask)
	n.calls = census.NewGuard(n.cfg.ID, n.deps.Registry.Now, func(ctx context.Context, key string) bool { return n.seen(key) || n.known(ctx, key) })
}

// registerPeers adds what nodes answer each other.
func (n *Node) registerPeers(mux *http.ServeMux) {
	for path, f := range map[string]http.HandlerFunc{"GET " + census.StreamsPath: n.showStreams, "GET " + census.ViewersPath: n.showViewers, "POST " + census.StopPath: n.stopStream} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if !n.calls.Allows(r) {
				problem.New(problem.Forbidden, "only nodes of the cluster ask this").Write(w)
				return
			}
			f(w, r)
		})
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // a node that went away is its own report
}

// showStreams tells of what is published here.
func (n *Node) showStreams(w http.ResponseWriter, _ *http.Request) {
	all := []census.Detail{}
	for _, i := range n.hub.List() {
		_, made := i.Key.Source()
		_, backup := i.Key.Main()
		if !i.Relayed && made == "" && !backup {
			all = append(all, detail(i, n.makes(i.Key)))
		}
	}
	answer(w, all)
}

// makes are the names of the renditions that the ladder makes of a stream.
func (n *Node) makes(key media.Key) map[string]bool {
	names := map[string]bool{}
	for _, s := range n.ladder.Status() {
		for _, r := range s.Renditions {
			if s.Stream == key {
				names[r.Name] = true
			}
		}
	}
	return names
}

func detail(i stream.Info, made map[string]bool) census.Detail {
	d := census.Detail{Stream: i.Key, Started: i.Started, Bytes: i.Bytes}
	for _, t := range i.Tracks {
		if !t.Flowing {
			continue
		}
		track := census.Track{Kind: t.Kind.String(), Codec: t.Codec.Name, Rendition: t.Rendition, Width: t.Width, Height: t.Height, Bitrate: t.Bitrate,
			KeyDistance: t.KeyDistance, Made: t.Rendition != "" && made[t.Rendition]}
		if !track.Made {
			d.Bitrate += t.Bitrate
		}
		d.Tracks = append(d.Tracks, track)
	}
	return d
}

// showViewers tells of those who watch a stream here.
func (n *Node) showViewers(w http.ResponseWriter, r *http.Request) {
	key, err := media.ParseKey(r.URL.Query().Get("stream"))
	if err != nil {
		problem.New(problem.BadName, err.Error()).Write(w)
		return
	}
	all := []census.Viewer{}
	for _, v := range n.out.List(key) {
		all = append(all, census.Viewer{ID: v.ID, Remote: v.Remote, Since: v.Since, Path: v.Rates.Path, Video: v.Rates.Video, Rendition: v.Quality.Name,
			Lost: v.Lost, Jitter: v.Jitter, RoundTrip: v.RoundTrip, Again: v.Again})
	}
	answer(w, all)
}

// stopStream ends a publisher. That he is not here any more is no error.
func (n *Node) stopStream(w http.ResponseWriter, r *http.Request) {
	key, err := media.ParseKey(r.URL.Query().Get("stream"))
	if err != nil {
		problem.New(problem.BadName, err.Error()).Write(w)
		return
	}
	if r.URL.Query().Get("backup") == "1" {
		key = key.Backup()
	}
	stopped := n.hub.Stop(key, stream.ErrStopped)
	n.log.Info("stream is stopped by order", "stream", key, "here", stopped)
	answer(w, map[string]bool{"stopped": stopped})
}

// system is what REST tells of this node.
func (n *Node) system() api.System {
	l := n.load.state()
	return api.System{Node: n.cfg.ID, Role: string(n.role), CPU: l.cpu, Memory: l.memory, Egress: l.egress, Streams: n.member.Holds(), Viewers: n.out.Viewers(), Started: n.started}
}
