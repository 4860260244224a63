package api

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/cluster"
	"sluice/internal/census"
	"sluice/internal/problem"
)

// States of a broadcast.
const (
	statusCreated      = "created"
	statusBroadcasting = "broadcasting"
	statusFinished     = "finished"
	statusInterrupted  = "terminated_unexpectedly" // its publisher is silent: viewers wait for it
)

const typeLive = "liveStream"

// Stored is what somebody says of a broadcast; the registry keeps it.
type Stored struct {
	Name         string `json:"name" required:"false" maxLength:"1000" doc:"For people; searched in."`
	Description  string `json:"description" required:"false" maxLength:"5000"`
	Category     string `json:"category" required:"false" maxLength:"200"`
	MetaData     string `json:"metaData" required:"false" maxLength:"20000" doc:"Whatever the program wants to keep here."`
	PublicStream bool   `json:"publicStream" required:"false"`
	Is360        bool   `json:"is360" required:"false"`
	Latitude     string `json:"latitude" required:"false" maxLength:"40"`
	Longitude    string `json:"longitude" required:"false" maxLength:"40"`
	Altitude     string `json:"altitude" required:"false" maxLength:"40"`
	PlannedStart int64  `json:"plannedStartDate" required:"false" minimum:"0" maximum:"100000000000000" doc:"Seconds of Unix time, for people; 0: none."`
	PlannedEnd   int64  `json:"plannedEndDate" required:"false" minimum:"0" maximum:"100000000000000"`
}

// Broadcast is a stream as other servers' customers know it: what was said of it, and what it does at this moment. Members that are always neutral here
// are there for programs that read them.
type Broadcast struct {
	StreamID string `json:"streamId"`
	Status   string `json:"status" enum:"created,broadcasting,finished,terminated_unexpectedly" doc:"finished becomes created a day after the end."`
	Type     string `json:"type" enum:"liveStream"`
	Zombi    bool   `json:"zombi" doc:"Nobody has created it: it is there because somebody publishes."`
	Stored
	Date       int64 `json:"date" doc:"Of creation, milliseconds of Unix time."`
	UpdateTime int64 `json:"updateTime" doc:"Of the last change by REST, milliseconds of Unix time."`

	Origin      string   `json:"originAdress" doc:"Address of the node to which it is published; the member is spelt so."`
	OriginNode  string   `json:"originNode" doc:"That node's id."`
	BackupNode  string   `json:"backupNode,omitempty" doc:"The id of the node to which its backup is published."`
	Nodes       []string `json:"nodes" nullable:"false" doc:"The ids of the nodes that serve it."`
	Codecs      []string `json:"codecs" nullable:"false"`
	PublishType string   `json:"publishType,omitempty"`
	StartTime   int64    `json:"startTime" doc:"Milliseconds of Unix time."`
	AbsStart    int64    `json:"absoluteStartTimeMs"`
	Duration    int64    `json:"duration" doc:"Milliseconds since then, of one that is live."`
	Bitrate     int64    `json:"bitrate" doc:"What the publisher sends, bit/s."`
	Received    uint64   `json:"receivedBytes"`
	Width       int      `json:"width"`
	Height      int      `json:"height"`
	Rungs       []Rung   `json:"renditions" nullable:"false" doc:"Of the picture, the published one first."`

	WebRTCViewers  int  `json:"webRTCViewerCount" doc:"In the whole cluster."`
	HLSViewers     int  `json:"hlsViewerCount"`
	DASHViewers    int  `json:"dashViewerCount"`
	RTMPViewers    int  `json:"rtmpViewerCount"`
	AnyoneWatching bool `json:"anyoneWatching"`

	Publish       bool       `json:"publish"`
	EndPoints     []struct{} `json:"endPointList" nullable:"false"`
	MP4           int        `json:"mp4Enabled"`
	WebM          int        `json:"webMEnabled"`
	WebRTCLimit   int        `json:"webRTCViewerLimit" doc:"-1: none of its own; the application's settings may have one."`
	HLSLimit      int        `json:"hlsViewerLimit"`
	DASHLimit     int        `json:"dashViewerLimit"`
	Expire        int64      `json:"expireDurationMS"`
	Virtual       bool       `json:"virtual"`
	AutoStartStop bool       `json:"autoStartStopEnabled"`
}

// Rung is a rendition of the picture.
type Rung struct {
	Name    string `json:"name" doc:"Such as 480p; empty: as it is published."`
	Codec   string `json:"codec"`
	Width   int    `json:"width"`
	Height  int    `json:"height"`
	Bitrate int    `json:"bitrate"`
}

// neutral are members of programs' broadcasts that ask for what is not done here, with the values that ask for nothing.
var neutral = map[string][]string{
	"type": {`"liveStream"`, `""`}, "publish": {"true"}, "streamUrl": {`""`}, "listenerHookURL": {`""`}, "ipAddr": {`""`}, "username": {`""`}, "password": {`""`},
	"mainTrackStreamId": {`""`}, "subFolder": {`""`}, "endPointList": {"[]"}, "playListItemList": {"[]"}, "subTrackStreamIds": {"[]"}, "encoderSettingsList": {"[]"},
	"mp4Enabled": {"0", "-1"}, "webMEnabled": {"0", "-1"}, "webRTCViewerLimit": {"-1", "0"}, "hlsViewerLimit": {"-1", "0"}, "dashViewerLimit": {"-1", "0"},
	"subtracksLimit": {"-1", "0"}, "expireDurationMS": {"0"}, "virtual": {"false"}, "autoStartStopEnabled": {"false"}, "playlistLoopEnabled": {"false", "true"},
}

// asked reads what a program says of a broadcast over what is stored, and refuses what would be taken and never done.
func asked(raw []byte, into *Stored) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return problem.New(problem.BadRequest, "the body is no JSON object")
	}
	for name, value := range members {
		v := string(value)
		if may, ok := neutral[name]; ok && v != "null" && !slices.Contains(may, v) {
			return problem.New(problem.Invalid, fmt.Sprintf("%s can't be %.60s: that is not done here", name, v))
		}
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return problem.New(problem.Invalid, "a member has another type than it should")
	}
	return nil
}

// broadcastKind is that of their documents.
const broadcastKind = "broadcast"

// record is a broadcast of which there may be a document, and a stream.
type record struct {
	id   string
	doc  *cluster.Document // nil: nobody has created it
	row  *census.Stream    // nil: nobody publishes it
	past *cluster.Stream   // nil: nor has, as far as is known
}

func (r record) status() string {
	switch {
	case r.row != nil && r.row.State == cluster.Broadcasting:
		return statusBroadcasting
	case r.row != nil:
		return statusInterrupted
	case r.past != nil:
		return statusFinished
	}
	return statusCreated
}

// broadcast puts together all that is known.
func (r record) broadcast(s *census.Snapshot, d census.Detail, now time.Time) (Broadcast, error) {
	b := Broadcast{StreamID: r.id, Status: r.status(), Type: typeLive, Zombi: r.doc == nil, Publish: true, Nodes: []string{}, Codecs: []string{}, Rungs: []Rung{}, EndPoints: []struct{}{},
		WebRTCLimit: -1, HLSLimit: -1, DASHLimit: -1, Stored: Stored{PublicStream: true}}
	if r.doc != nil {
		if err := json.Unmarshal(r.doc.Body, &b.Stored); err != nil {
			return b, fmt.Errorf("read broadcast %q: %w", r.id, err)
		}
		b.Date, b.UpdateTime = r.doc.At.UnixMilli(), r.doc.Changed.UnixMilli()
	}
	if r.past != nil {
		b.StartTime, b.Codecs = r.past.Started.UnixMilli(), append(b.Codecs, r.past.Codecs...)
	}
	if r.row == nil {
		return b, nil
	}
	b.StartTime, b.Codecs = r.row.Started.UnixMilli(), append(b.Codecs, r.row.Codecs...)
	b.Duration = max(0, now.Sub(r.row.Started).Milliseconds())
	b.AbsStart = b.StartTime
	if r.doc == nil {
		b.Date = b.StartTime
	}
	b.PublishType = "WebRTC"
	b.OriginNode, b.BackupNode = r.row.Origin, r.row.Backup
	b.Nodes = append(b.Nodes, r.row.Nodes...)
	if n, ok := s.View.Node(r.row.Origin); ok {
		b.Origin = n.HTTP
	}
	b.WebRTCViewers = r.row.Viewers
	b.AnyoneWatching = r.row.Viewers > 0
	b.Received = d.Bytes
	for _, t := range d.Tracks {
		if !t.Made {
			b.Bitrate += int64(t.Bitrate)
		}
		if t.Kind != "video" {
			continue
		}
		if t.Rendition == "" || t.Height > b.Height {
			b.Width, b.Height = t.Width, t.Height
		}
		b.Rungs = append(b.Rungs, Rung{t.Rendition, t.Codec, t.Width, t.Height, t.Bitrate})
	}
	return b, nil
}

// name is what it is sorted by.
func (r record) name() string {
	if r.doc == nil {
		return ""
	}
	return r.doc.SortName()
}

// date is that of its creation.
func (r record) date() time.Time {
	if r.doc == nil {
		return r.row.Started
	}
	return r.doc.At
}

// matches reports whether a search finds one that nobody has created.
func (r record) matches(search string) bool {
	return strings.Contains(strings.ToLower(r.id), strings.ToLower(search))
}
