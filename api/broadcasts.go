package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"sluice/cluster"
	"sluice/internal/auth"
	"sluice/internal/census"
	"sluice/internal/problem"
	"sluice/media"
)

const tagBroadcasts = "Broadcasts"

const (
	maxBulk  = 100 // ids in one request
	attempts = 5   // of compare-and-swap
)

func (a *API) broadcasts() {
	const path = "/{app}/rest/v2/broadcasts"
	read, write := auth.StreamsRead, auth.StreamsWrite
	register(a, operation{method: http.MethodPost, path: path + "/create", id: "createBroadcast", tag: tagBroadcasts, needs: write, maxBody: 128 << 10,
		does: "Create a broadcast", more: "Without streamId one is made. Members that ask for what is not done here, such as a streamUrl, are refused."}, a.create)
	register(a, operation{method: http.MethodGet, path: path + "/{id}", id: "getBroadcast", tag: tagBroadcasts, needs: read, does: "A broadcast",
		more: "Also one that nobody has created, as long as somebody publishes it."}, a.getBroadcast)
	register(a, operation{method: http.MethodPut, path: path + "/{id}", id: "changeBroadcast", tag: tagBroadcasts, needs: write, maxBody: 128 << 10, does: "Change a broadcast",
		more: "Members that are not sent stay as they are. Of a live one that nobody has created it makes one that stays. success is false when nothing has changed."}, a.change)
	register(a, operation{method: http.MethodDelete, path: path + "/{id}", id: "deleteBroadcast", tag: tagBroadcasts, needs: write, does: "Delete a broadcast, and end its publisher"}, a.deleteBroadcast)
	register(a, operation{method: http.MethodDelete, path: path, id: "deleteBroadcasts", tag: tagBroadcasts, needs: write, does: "Delete several broadcasts"}, a.deleteBroadcasts)
	register(a, operation{method: http.MethodGet, path: path + "/list/{offset}/{size}", id: "listBroadcasts", tag: tagBroadcasts, needs: read, does: "A page of the broadcasts",
		more: "Those that were created and those that are live. The header X-Total-Count says how many there are."}, a.listBroadcasts)
	register(a, operation{method: http.MethodGet, path: path + "/count", id: "countBroadcasts", tag: tagBroadcasts, needs: read, does: "How many broadcasts there are",
		more: "…/count/{search} does the same."}, a.count)
	register(a, operation{method: http.MethodGet, path: path + "/active-live-stream-count", id: "countLiveBroadcasts", tag: tagBroadcasts, needs: read, does: "How many broadcasts are live"}, a.countLive)
	register(a, operation{method: http.MethodPost, path: path + "/{id}/start", id: "startBroadcast", tag: tagBroadcasts, needs: write, does: "Start a broadcast's source",
		more: "A live stream has none: it starts when somebody publishes it, and the answer is 422."}, a.start)
	register(a, operation{method: http.MethodPost, path: path + "/{id}/stop", id: "stopBroadcast", tag: tagBroadcasts, needs: write, does: "End a broadcast's publisher",
		more: "And that of its backup, at whatever nodes they are. Whoever may publish can come back."}, a.stop)
	register(a, operation{method: http.MethodGet, path: path + "/{id}/broadcast-statistics", id: "getBroadcastStatistics", tag: tagBroadcasts, needs: read, does: "How many watch a broadcast, in the whole cluster",
		more: "-1: not by this way."}, a.statistics)
	register(a, operation{method: http.MethodGet, path: path + "/total-broadcast-statistics", id: "getTotalBroadcastStatistics", tag: tagBroadcasts, needs: read, does: "How many watch an application's broadcasts"}, a.totalStatistics)
	register(a, operation{method: http.MethodGet, path: path + "/{id}/stream-info", id: "getStreamInfo", tag: tagBroadcasts, needs: read, does: "The renditions of a live broadcast"}, a.streamInfo)
	register(a, operation{method: http.MethodGet, path: path + "/{id}/webrtc-client-stats/{offset}/{size}", id: "listViewers", tag: tagBroadcasts, needs: read, does: "A broadcast's viewers, on all nodes",
		more: "The header X-Total-Count says how many there are, X-Silent-Nodes how many nodes did not answer in time."}, a.viewers)
}

// InStream is in requests about a stream.
type InStream struct {
	App string `path:"app" minLength:"1" maxLength:"64"`
	ID  string `path:"id" minLength:"1" maxLength:"200" doc:"The stream's name."`
}

// stream is where a stream of a request stands, and the cluster.
func (a *API) stream(ctx context.Context, in InStream) (media.Key, *census.Snapshot, error) {
	key, err := a.key(in.App, in.ID)
	if err != nil {
		return key, nil, err
	}
	s, err := a.deps.Live.Now(ctx)
	return key, s, err
}

type createInput struct {
	App     string `path:"app" minLength:"1" maxLength:"64"`
	Body    NewBroadcast
	RawBody []byte
}

// NewBroadcast is what a program sends to create one.
type NewBroadcast struct {
	_        struct{} `json:"-" additionalProperties:"true"`
	StreamID string   `json:"streamId" required:"false" maxLength:"128" doc:"Letters, digits, '-', '_' and '.'; empty: one is made."`
	Stored
}

type broadcastOutput struct{ Body Broadcast }

func (a *API) create(ctx context.Context, in *createInput) (*broadcastOutput, error) {
	id := in.Body.StreamID
	if id == "" {
		id = strings.ToLower(rand.Text())
	}
	b, err := a.made(ctx, in.App, id, in.RawBody)
	a.record(ctx, "create a broadcast", id, in.App, err)
	return &broadcastOutput{b}, err
}

func (a *API) made(ctx context.Context, app, id string, raw []byte) (b Broadcast, err error) {
	key, s, err := a.stream(ctx, InStream{app, id})
	if err != nil {
		return b, err
	}
	stored := Stored{PublicStream: true}
	if err := asked(raw, &stored); err != nil {
		return b, err
	}
	d, err := a.put(ctx, cluster.Document{Kind: broadcastKind, Group: key.App, ID: key.ID, At: a.deps.Documents.Now()}, stored)
	if errors.Is(err, cluster.ErrExists) {
		return b, problem.New(problem.AlreadyExists, fmt.Sprintf("there is a broadcast %s in %s", key.ID, key.App))
	}
	if err != nil {
		return b, err
	}
	return a.recordOf(s, &d).broadcast(s, census.Detail{}, a.deps.Documents.Now())
}

// put writes a broadcast's document.
func (a *API) put(ctx context.Context, d cluster.Document, stored Stored) (cluster.Document, error) {
	var err error
	if d.Body, err = json.Marshal(stored); err != nil {
		return d, fmt.Errorf("write broadcast %q: %w", d.ID, err)
	}
	d.Name = stored.Name
	ctx, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	app := d.Group
	d, err = a.deps.Documents.Put(ctx, d)
	a.sorted.forget(app)
	if errors.Is(err, cluster.ErrBadDocument) {
		return d, problem.New(problem.Invalid, "the name is at most 1000 bytes of text in one line")
	}
	return d, away(err)
}

func (a *API) getBroadcast(ctx context.Context, in *InStream) (*broadcastOutput, error) {
	key, s, err := a.stream(ctx, *in)
	if err != nil {
		return nil, err
	}
	r, err := a.find(ctx, s, key)
	if err != nil {
		return nil, err
	}
	var d census.Detail
	if r.row != nil {
		d = a.deps.Live.Details(ctx, s, key)[key]
	}
	b, err := r.broadcast(s, d, a.deps.Documents.Now())
	return &broadcastOutput{b}, err
}

type changeInput struct {
	InStream
	Body    NewBroadcast
	RawBody []byte
}

func (a *API) change(ctx context.Context, in *changeInput) (*answer, error) {
	key, s, err := a.stream(ctx, in.InStream)
	changed := false
	if err == nil {
		changed, err = a.changed(ctx, s, key, in.RawBody)
	}
	a.record(ctx, "change a broadcast", in.ID, in.App, err)
	if err == nil && !changed {
		return &answer{result{Message: "nothing has changed"}}, nil
	}
	return done("the broadcast was changed"), err
}

func (a *API) changed(ctx context.Context, s *census.Snapshot, key media.Key, raw []byte) (bool, error) {
	for range attempts {
		r, err := a.find(ctx, s, key)
		if err != nil {
			return false, err
		}
		d := cluster.Document{Kind: broadcastKind, Group: key.App, ID: key.ID, At: a.deps.Documents.Now()}
		stored := Stored{PublicStream: true}
		if r.doc != nil {
			d = *r.doc
			if err := json.Unmarshal(d.Body, &stored); err != nil {
				return false, fmt.Errorf("read broadcast %q: %w", key, err)
			}
		}
		before := stored
		if err := asked(raw, &stored); err != nil {
			return false, err
		}
		if stored == before && r.doc != nil {
			return false, nil
		}
		_, err = a.put(ctx, d, stored)
		if errors.Is(err, cluster.ErrConflict) || errors.Is(err, cluster.ErrExists) {
			continue
		}
		return err == nil, err
	}
	return false, problem.New(problem.Conflict, "the broadcast is changed by others all the time; try again")
}

func (a *API) deleteBroadcast(ctx context.Context, in *InStream) (*answer, error) {
	err := a.end(ctx, *in)
	a.record(ctx, "delete a broadcast", in.ID, in.App, err)
	return done("the broadcast was deleted"), err
}

// end deletes a broadcast, and ends its publisher.
func (a *API) end(ctx context.Context, in InStream) error {
	key, _, err := a.stream(ctx, in)
	if err != nil {
		return err
	}
	stopped, err := a.deps.Live.Stop(ctx, key)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	err = a.deps.Documents.Delete(ctx, broadcastKind, key.App, key.ID, 0)
	a.sorted.forget(key.App)
	if !errors.Is(err, cluster.ErrNoDocument) {
		return away(err)
	}
	if !stopped {
		return problem.New(problem.NotFound, fmt.Sprintf("there is no broadcast %.80q in %s", key.ID, key.App))
	}
	return nil
}

type deleteInput struct {
	App string `path:"app" minLength:"1" maxLength:"64"`
	IDs string `query:"ids" required:"true" minLength:"1" maxLength:"4000" doc:"The streams' names, with commas; at most 100."`
}

func (a *API) deleteBroadcasts(ctx context.Context, in *deleteInput) (*answer, error) {
	ids := strings.Split(in.IDs, ",")
	if len(ids) > maxBulk {
		return nil, problem.New(problem.Invalid, fmt.Sprintf("there are %d ids, of at most %d", len(ids), maxBulk))
	}
	var missing []string
	for _, id := range ids {
		err := a.end(ctx, InStream{in.App, strings.TrimSpace(id)})
		a.record(ctx, "delete a broadcast", id, in.App, err)
		var p *problem.Problem
		switch {
		case errors.As(err, &p) && p.Code == problem.NotFound:
			missing = append(missing, id)
		case err != nil:
			return nil, err
		}
	}
	if len(missing) > 0 {
		return &answer{result{Message: "these were not there: " + strings.Join(missing, ", ")}}, nil
	}
	return done(fmt.Sprintf("%d broadcasts were deleted", len(ids))), nil
}

type listInput struct {
	App    string `path:"app" minLength:"1" maxLength:"64"`
	Offset int    `path:"offset" minimum:"0" maximum:"100000000"`
	Size   int    `path:"size" minimum:"0" maximum:"500" doc:"At most 500."`
	Type   string `query:"type_by" maxLength:"40" doc:"Only of this type; all are liveStream."`
	Sort   string `query:"sort_by" enum:"name,date,status," doc:"Empty: by streamId."`
	Order  string `query:"order_by" enum:"asc,desc," doc:"Empty: asc."`
	Search string `query:"search" maxLength:"200" doc:"Part of the streamId or the name."`
}

type listOutput struct {
	Total int `header:"X-Total-Count"`
	Body  []Broadcast
}

func (a *API) listBroadcasts(ctx context.Context, in *listInput) (*listOutput, error) {
	if _, err := a.app(in.App); err != nil {
		return nil, err
	}
	out := &listOutput{Body: []Broadcast{}}
	if in.Type != "" && in.Type != typeLive {
		return out, nil
	}
	s, err := a.deps.Live.Now(ctx)
	if err != nil {
		return nil, err
	}
	page, total, err := a.list(ctx, s, listing{app: in.App, search: in.Search, sort: in.Sort, desc: in.Order == "desc", offset: in.Offset, size: in.Size})
	if err != nil {
		return nil, err
	}
	var flowing []media.Key
	for _, r := range page {
		if r.row != nil {
			flowing = append(flowing, r.row.Key)
		}
	}
	details := a.deps.Live.Details(ctx, s, flowing...)
	now := a.deps.Documents.Now()
	for _, r := range page {
		b, err := r.broadcast(s, details[media.Key{App: in.App, ID: r.id}], now)
		if err != nil {
			return nil, err
		}
		out.Body = append(out.Body, b)
	}
	out.Total = total
	return out, nil
}

// number is a count.
type number struct {
	Body struct {
		Number int `json:"number"`
	}
}

func numberOf(n int) *number {
	out := new(number)
	out.Body.Number = n
	return out
}

type countInput struct {
	App    string `path:"app" minLength:"1" maxLength:"64"`
	Search string `query:"search" maxLength:"200"`
}

func (a *API) count(ctx context.Context, in *countInput) (*number, error) {
	if _, err := a.app(in.App); err != nil {
		return nil, err
	}
	s, err := a.deps.Live.Now(ctx)
	if err != nil {
		return nil, err
	}
	uncreated, err := a.uncreated(ctx, s, in.App, in.Search)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	_, total, err := a.deps.Documents.Find(ctx, cluster.Query{Kind: broadcastKind, Group: in.App, Search: in.Search, Limit: 1})
	return numberOf(total + len(uncreated)), away(err)
}

func (a *API) countLive(ctx context.Context, in *InApp) (*number, error) {
	if _, err := a.app(in.App); err != nil {
		return nil, err
	}
	s, err := a.deps.Live.Now(ctx)
	if err != nil {
		return nil, err
	}
	return numberOf(s.Live(in.App)), nil
}

func (a *API) start(ctx context.Context, in *InStream) (*answer, error) {
	key, s, err := a.stream(ctx, *in)
	if err == nil {
		_, err = a.find(ctx, s, key)
	}
	if err == nil {
		err = problem.New(problem.Invalid, "a live stream has no source to start: it begins when somebody publishes it")
	}
	return nil, err
}

func (a *API) stop(ctx context.Context, in *InStream) (*answer, error) {
	key, s, err := a.stream(ctx, *in)
	stopped := false
	if err == nil {
		stopped, err = a.deps.Live.Stop(ctx, key)
	}
	if err == nil && !stopped {
		if _, err = a.find(ctx, s, key); err == nil {
			err = problem.New(problem.StreamOffline, "the broadcast is not live")
		}
	}
	a.record(ctx, "stop a broadcast", in.ID, in.App, err)
	return done("the publisher was ended"), err
}

// Watchers are counts by the ways in which a broadcast can be watched.
type Watchers struct {
	RTMP   int `json:"totalRTMPWatchersCount"`
	HLS    int `json:"totalHLSWatchersCount"`
	WebRTC int `json:"totalWebRTCWatchersCount"`
	DASH   int `json:"totalDASHWatchersCount"`
}

func watchersOf(webRTC int) Watchers { return Watchers{RTMP: -1, HLS: -1, WebRTC: webRTC, DASH: -1} }

type watchersOutput struct{ Body Watchers }

func (a *API) statistics(ctx context.Context, in *InStream) (*watchersOutput, error) {
	key, s, err := a.stream(ctx, *in)
	if err != nil {
		return nil, err
	}
	if row := s.Streams[key]; row != nil {
		return &watchersOutput{watchersOf(row.Viewers)}, nil
	}
	_, err = a.find(ctx, s, key)
	return &watchersOutput{watchersOf(0)}, err
}

type totalWatchersOutput struct {
	Body struct {
		Watchers
		Live int `json:"activeLiveStreamCount"`
	}
}

func (a *API) totalStatistics(ctx context.Context, in *InApp) (*totalWatchersOutput, error) {
	if _, err := a.app(in.App); err != nil {
		return nil, err
	}
	s, err := a.deps.Live.Now(ctx)
	if err != nil {
		return nil, err
	}
	viewers := 0
	for _, row := range s.App(in.App) {
		viewers += row.Viewers
	}
	out := new(totalWatchersOutput)
	out.Body.Watchers, out.Body.Live = watchersOf(viewers), s.Live(in.App)
	return out, nil
}

// streamInfo is a rendition as other servers' customers know it.
type streamInfo struct {
	Height int    `json:"videoHeight"`
	Width  int    `json:"videoWidth"`
	Video  int    `json:"videoBitrate" doc:"bit/s"`
	Audio  int    `json:"audioBitrate" doc:"bit/s"`
	Codec  string `json:"videoCodec"`
	Name   string `json:"name" doc:"Such as 480p; empty: as it is published."`
}

type streamInfoOutput struct{ Body []streamInfo }

func (a *API) streamInfo(ctx context.Context, in *InStream) (*streamInfoOutput, error) {
	key, s, err := a.stream(ctx, *in)
	if err != nil {
		return nil, err
	}
	out := &streamInfoOutput{[]streamInfo{}}
	if s.Streams[key] == nil {
		_, err := a.find(ctx, s, key)
		return out, err
	}
	d := a.deps.Live.Details(ctx, s, key)[key]
	audio := 0
	for _, t := range d.Tracks {
		if t.Kind == "audio" {
			audio = t.Bitrate
		}
	}
	for _, t := range d.Tracks {
		if t.Kind == "video" {
			out.Body = append(out.Body, streamInfo{t.Height, t.Width, t.Bitrate, audio, t.Codec, t.Rendition})
		}
	}
	return out, nil
}

// viewer is one who watches, as other servers' customers know it.
type viewer struct {
	ID        string  `json:"clientId" doc:"The beginning of the session's id, as in logs."`
	Measured  int     `json:"measuredBitrate" doc:"What the path takes by the last estimate, bit/s; 0: not known."`
	Send      int     `json:"sendBitrate" doc:"Of the picture that is sent, bit/s."`
	IP        string  `json:"clientIp"`
	Node      string  `json:"node"`
	Since     int64   `json:"since" doc:"Milliseconds of Unix time."`
	Rendition string  `json:"rendition" doc:"Empty: as it is published."`
	Lost      float64 `json:"packetLostRatio" doc:"0 to 1, by the last report."`
	Jitter    float64 `json:"jitterMs"`
	RoundTrip float64 `json:"rttMs"`
	Again     uint64  `json:"packetsSentAgain"`
}

type viewersInput struct {
	InStream
	Offset int    `path:"offset" minimum:"0" maximum:"100000000"`
	Size   int    `path:"size" minimum:"0" maximum:"500"`
	Sort   string `query:"sort_by" enum:"worst,since," doc:"worst: those who lose most packets first; empty: since."`
}

type viewersOutput struct {
	Total  int `header:"X-Total-Count"`
	Silent int `header:"X-Silent-Nodes"`
	Body   []viewer
}

func (a *API) viewers(ctx context.Context, in *viewersInput) (*viewersOutput, error) {
	key, s, err := a.stream(ctx, in.InStream)
	if err != nil {
		return nil, err
	}
	out := &viewersOutput{Body: []viewer{}}
	if s.Streams[key] == nil {
		_, err := a.find(ctx, s, key)
		return out, err
	}
	list, silent := a.deps.Live.Viewers(ctx, s, key)
	if in.Sort == "worst" {
		slices.SortStableFunc(list, worse)
	}
	out.Total, out.Silent = len(list), silent
	from := min(in.Offset, len(list))
	for _, v := range list[from:min(from+in.Size, len(list))] {
		out.Body = append(out.Body, viewer{v.ID, v.Path, v.Video, v.Remote, v.Node, v.Since.UnixMilli(), v.Rendition, v.Lost, v.Jitter.Seconds() * 1000, v.RoundTrip.Seconds() * 1000, v.Again})
	}
	return out, nil
}

// worse orders viewers: who loses most first, then who is farthest away.
func worse(x, y census.Viewer) int {
	switch {
	case x.Lost > y.Lost || x.Lost == y.Lost && x.RoundTrip > y.RoundTrip:
		return -1
	case x.Lost == y.Lost && x.RoundTrip == y.RoundTrip:
		return 0
	}
	return 1
}
