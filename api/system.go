package api

import (
	"cmp"
	"context"
	"net/http"
	"runtime"
	"time"

	"sluice/internal/auth"
)

const tagSystem = "System"

// System is what a node knows of itself.
type System struct {
	Node, Role  string
	CPU, Memory float64 // shares of what it may use, 0 to 1
	Egress      float64 // bit/s
	Streams     int     // published here
	Viewers     int     // here
	Started     time.Time
}

func (a *API) system() {
	register(a, operation{method: http.MethodGet, path: "/rest/v2/system-resources", id: "getSystemResources", tag: tagSystem, needs: auth.ClusterRead, does: "What the node that answers is busy with",
		more: "/rest/v2/cluster/nodes has all nodes."}, a.systemResources)
	register(a, operation{method: http.MethodGet, path: "/rest/v2/version", id: "getVersion", tag: tagSystem, needs: auth.Public, does: "The program's version"}, a.version)
	register(a, operation{method: http.MethodGet, path: "/{app}/rest/v2/version", id: "getAppVersion", tag: tagSystem, needs: auth.Public, does: "The program's version"}, a.appVersion)
	register(a, operation{method: http.MethodGet, path: "/rest/v2/liveness", id: "getLiveness", tag: tagSystem, needs: auth.Public, does: "That the node answers",
		more: "/readyz says whether it takes work."}, a.liveness)
	register(a, operation{method: http.MethodGet, path: "/rest/v2/server-time", id: "getServerTime", tag: tagSystem, needs: auth.ClusterRead, does: "Since when the node runs"}, a.serverTime)
	register(a, operation{method: http.MethodGet, path: "/rest/v2/live-clients-size", id: "getLiveClientsSize", tag: tagSystem, needs: auth.ClusterRead, does: "How many streams and viewers the cluster has"}, a.liveClients)
	register(a, operation{method: http.MethodGet, path: "/rest/v2/applications-info", id: "listApplicationsInfo", tag: tagSettings, needs: auth.AppsRead, inSome: true, does: "The applications and how many live streams each has"}, a.appsInfo)
}

type versionOutput struct {
	Body struct {
		Name  string `json:"versionName"`
		Type  string `json:"versionType"`
		Build string `json:"buildNumber"`
	}
}

func (a *API) version(context.Context, *struct{}) (*versionOutput, error) {
	out := new(versionOutput)
	out.Body.Name, out.Body.Type = cmp.Or(a.cfg.Version, "dev"), "Sluice"
	return out, nil
}

func (a *API) appVersion(ctx context.Context, in *InApp) (*versionOutput, error) {
	if _, err := a.app(in.App); err != nil {
		return nil, err
	}
	return a.version(ctx, nil)
}

type livenessOutput struct {
	Body struct {
		Status string `json:"status" enum:"ok"`
	}
}

func (a *API) liveness(context.Context, *struct{}) (*livenessOutput, error) {
	out := new(livenessOutput)
	out.Body.Status = "ok"
	return out, nil
}

// Timing is since when a node runs.
type Timing struct {
	Up    int64 `json:"up-time" doc:"Milliseconds."`
	Start int64 `json:"start-time" doc:"Milliseconds of Unix time."`
}

func timing(s System) Timing {
	return Timing{time.Since(s.Started).Milliseconds(), s.Started.UnixMilli()}
}

type timingOutput struct{ Body Timing }

func (a *API) serverTime(context.Context, *struct{}) (*timingOutput, error) {
	return &timingOutput{timing(a.deps.System())}, nil
}

// resources are named as those of other servers where these have the same.
type resources struct {
	Node string `json:"node"`
	Role string `json:"role"`
	CPU  struct {
		System     int `json:"systemCPULoad" doc:"Percent of the processors that the node may use."`
		Processors int `json:"processorCount" doc:"That it may run on."`
	} `json:"cpuUsage"`
	Memory struct {
		Share float64 `json:"inUseShare" doc:"Of what the node may use, 0 to 1."`
	} `json:"systemMemoryInfo"`
	Process struct {
		Heap       uint64 `json:"heapBytes"`
		Goroutines int    `json:"goroutines"`
		Go         string `json:"goVersion"`
	} `json:"process"`
	Egress    float64 `json:"egress" doc:"bit/s"`
	Streams   int     `json:"localLiveStreams"`
	WebRTC    int     `json:"localWebRTCLiveStreams"`
	Viewers   int     `json:"localWebRTCViewers"`
	HLS       int     `json:"localHLSViewers"`
	DASH      int     `json:"localDASHViewers"`
	Total     int     `json:"totalLiveStreamSize" doc:"In the whole cluster."`
	TotalView int     `json:"totalViewers" doc:"In the whole cluster."`
	Timing    Timing  `json:"server-timing"`
}

type resourcesOutput struct{ Body resources }

func (a *API) systemResources(ctx context.Context, _ *struct{}) (*resourcesOutput, error) {
	s := a.deps.System()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	out := new(resourcesOutput)
	b := &out.Body
	b.Node, b.Role, b.Egress, b.Timing = s.Node, s.Role, s.Egress, timing(s)
	b.CPU.System, b.CPU.Processors = int(100*s.CPU+0.5), runtime.NumCPU()
	b.Memory.Share = s.Memory
	b.Process.Heap, b.Process.Goroutines, b.Process.Go = m.HeapInuse, runtime.NumGoroutine(), runtime.Version()
	b.Streams, b.WebRTC, b.Viewers = s.Streams, s.Streams, s.Viewers
	var err error
	b.Total, b.TotalView, err = a.totals(ctx)
	return out, err
}

// totals are the live streams of the cluster and their viewers.
func (a *API) totals(ctx context.Context) (streams, viewers int, err error) {
	s, err := a.deps.Live.Now(ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, app := range a.deps.Settings.Apps() {
		streams += s.Live(app)
		for _, row := range s.App(app) {
			viewers += row.Viewers
		}
	}
	return streams, viewers, nil
}

type clientsOutput struct {
	Body struct {
		Streams int `json:"totalLiveStreamSize"`
		Viewers int `json:"localWebRTCViewers"`
		All     int `json:"totalViewers"`
	}
}

func (a *API) liveClients(ctx context.Context, _ *struct{}) (*clientsOutput, error) {
	out := new(clientsOutput)
	out.Body.Viewers = a.deps.System().Viewers
	var err error
	out.Body.Streams, out.Body.All, err = a.totals(ctx)
	return out, err
}

type appInfo struct {
	Name    string `json:"name"`
	Live    int    `json:"liveStreamCount"`
	Viewers int    `json:"viewerCount"`
	VoD     int    `json:"vodCount"`
	Storage int64  `json:"storage" doc:"Bytes of recordings."`
}

type appsInfoOutput struct{ Body []appInfo }

func (a *API) appsInfo(ctx context.Context, _ *struct{}) (*appsInfoOutput, error) {
	s, err := a.deps.Live.Now(ctx)
	if err != nil {
		return nil, err
	}
	out := &appsInfoOutput{[]appInfo{}}
	for _, name := range a.visible(ctx, auth.AppsRead) {
		i := appInfo{Name: name, Live: s.Live(name)}
		for _, row := range s.App(name) {
			i.Viewers += row.Viewers
		}
		out.Body = append(out.Body, i)
	}
	return out, nil
}
