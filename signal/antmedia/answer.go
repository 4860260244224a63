package antmedia

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/cluster"
	"sluice/egress/webrtc"
	"sluice/media"
	"sluice/stream"
)

var errOffline = errors.New("the stream is not live")

// Stream is what is known of a stream, here or anywhere in the cluster. What is not known is zero.
type Stream struct {
	Live        bool // media flows
	Interrupted bool // the publisher is silent; it may come back
	Codecs      []string
	Origin      string // node
	Started     time.Time
	Bytes       uint64             // received by this node
	Tracks      []stream.TrackInfo // as they pass this node; none: they don't
	Viewers     int                // in the whole cluster
}

// answer answers a question about a stream.
func (s *socket) answer(r request, key media.Key) {
	ask := s.h.cfg.Directory.Stream
	if r.Command == "getStreamInfo" {
		ask = s.h.cfg.Directory.Look
	}
	info, known, err := ask(s.ctx, key)
	if err != nil {
		if s.ctx.Err() == nil {
			s.log.Warn("stream not found out about", "stream", key, "err", err)
			s.fail(key.ID, noStore, "ask again")
		}
		return
	}
	live := known && (info.Live || info.Interrupted)
	if !live && (r.Command != "getBroadcastObject" || !known) {
		s.sayAll(refusal{noStreamExist, notStreaming}.reply(key.ID))
		return
	}
	none, zero := []string{}, 0
	m := reply{Command: "notification", StreamID: key.ID}
	switch r.Command {
	case "getStreamInfo":
		all := info.renditions()
		m.Command, m.StreamInfo = "streamInformation", &all
	case "getTrackList":
		m.Command, m.TrackList = "trackList", &[]string{key.ID} // a stream is its own one track
	case "getBroadcastObject":
		b, _ := json.Marshal(info.broadcast(key, time.Now())) // strings and numbers
		m.Definition, m.Broadcast = "broadcastObject", string(b)
	case "getSubscriberCount":
		m.Definition, m.Count = "subscriberCount", &info.Viewers
	case "getSubtracks":
		m.Definition, m.SubtrackList = "subtrackList", &none
	case "getSubtracksCount":
		m.Definition, m.Count = "subtrackCount", &zero
	}
	s.sayAll(m)
}

// bitrate is that of all tracks, in bit/s.
func (i Stream) bitrate() (sum int) {
	for _, t := range i.Tracks {
		sum += t.Bitrate
	}
	return sum
}

// renditions describes each rendition of the stream, the best first. What is not known, or doesn't pass this node, has no figures.
func (i Stream) renditions() (all []rendition) {
	sound := 0
	for _, t := range i.Tracks {
		if t.Kind == media.Audio {
			sound = t.Bitrate
		}
	}
	for _, q := range webrtc.Qualities(stream.Info{Tracks: i.Tracks}) {
		all = append(all, rendition{q.Width, q.Height, q.Bitrate, sound, q.Codec})
	}
	if len(all) == 0 {
		r := rendition{AudioBitrate: sound}
		for _, name := range i.Codecs {
			if isVideo(name) {
				r.VideoCodec = name
			}
		}
		all = append(all, r)
	}
	return all
}

func isVideo(codec string) bool {
	return slices.Contains([]string{media.H264, media.H265, media.VP8, media.VP9, media.AV1}, codec)
}

// broadcast is the object that clients know a stream by, with the members whose value we know.
type broadcast struct {
	StreamID          string   `json:"streamId"`
	Status            string   `json:"status"`
	Type              string   `json:"type"`
	Date              int64    `json:"date,omitempty"`      // ms since 1970
	StartTime         int64    `json:"startTime,omitempty"` // the same
	Duration          int64    `json:"duration"`            // ms
	OriginAdress      string   `json:"originAdress,omitempty"`
	WebRTCViewerCount int      `json:"webRTCViewerCount"`
	ReceivedBytes     uint64   `json:"receivedBytes,omitempty"`
	Bitrate           int      `json:"bitrate,omitempty"` // bit/s
	Zombi             bool     `json:"zombi"`             // made by its publisher, gone with it
	Virtual           bool     `json:"virtual"`
	SubTrackStreamIDs []string `json:"subTrackStreamIds"`
}

func (i Stream) broadcast(key media.Key, now time.Time) broadcast {
	b := broadcast{StreamID: key.ID, Status: "finished", Type: "liveStream", OriginAdress: i.Origin, WebRTCViewerCount: i.Viewers,
		ReceivedBytes: i.Bytes, Bitrate: i.bitrate(), Zombi: true, SubTrackStreamIDs: []string{}}
	if !i.Started.IsZero() {
		b.Date = i.Started.UnixMilli()
		b.StartTime = b.Date
	}
	switch {
	case i.Live:
		b.Status = "broadcasting"
	case i.Interrupted:
		b.Status = "terminated_unexpectedly"
	}
	if (i.Live || i.Interrupted) && !i.Started.IsZero() {
		b.Duration = now.Sub(i.Started).Milliseconds()
	}
	return b
}

// Known is the directory of a node: its hub, then the cluster's directory.
type Known struct {
	Hub       *stream.Hub
	Directory *cluster.Directory
}

// Stream implements the directory of a Config.
func (k Known) Stream(ctx context.Context, key media.Key) (Stream, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	here, local := k.Hub.Info(key)
	there, backup, err := k.Directory.LookupBoth(ctx, key)
	if err != nil && !local { // what is here is served without the registry too
		return Stream{}, false, fmt.Errorf("look up %s: %w", key, err)
	}
	if there.State == cluster.Finished && backup.State != cluster.Finished {
		there = backup // which is all there is
	}
	s := Stream{Origin: there.Origin, Started: there.Started, Codecs: there.Codecs, Live: there.State == cluster.Broadcasting,
		Interrupted: there.State == cluster.Interrupted}
	if local {
		s.Codecs, s.Bytes, s.Tracks = here.Codecs(), here.Bytes, here.Tracks
		s.Live = here.Flowing
		s.Interrupted = !here.Flowing
		if s.Started.IsZero() {
			s.Started = here.Started
		}
	}
	if s.Live || s.Interrupted { // who waits for one that is offline asks again and again
		n, _ := k.Directory.Viewers(ctx, key) // without the registry those of this node are known at least
		s.Viewers = max(n, here.Viewers)
	}
	return s, local || there.Epoch > 0, nil
}

// lookFor is how long a stream is looked at until its renditions are known: rates are measured for a second.
const lookFor = 2 * time.Second

// Look implements the directory of a Config. A stream that this node does not have is taken for a moment, as for a viewer.
func (k Known) Look(ctx context.Context, key media.Key) (Stream, bool, error) {
	s, known, err := k.Stream(ctx, key)
	if err != nil || !s.Live || s.measured() {
		return s, known, err
	}
	looking, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	sub, err := k.Hub.Subscribe(looking, key, stream.SubscribeOptions{Subscriber: glance{}, Shared: true})
	if err != nil {
		return s, known, nil // what the cluster knows will do
	}
	defer sub.Close()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if here, ok := k.Hub.Info(key); ok {
			s.Codecs, s.Tracks = here.Codecs(), here.Tracks
		}
		if s.measured() {
			return s, known, nil
		}
		select {
		case <-tick.C:
		case <-looking.Done():
			return s, known, nil
		}
	}
}

const lookEvery = 50 * time.Millisecond

// measured reports whether the size and rate of all that flows is known. What has no tracks is data alone.
func (i Stream) measured() bool {
	for _, t := range i.Tracks {
		if t.Rendition == "" && (t.Bitrate == 0 || t.Kind == media.Video && t.Height == 0) {
			return false
		}
	}
	return len(i.Tracks) > 0 || len(i.Codecs) == 0
}

// glance is a subscriber who takes nothing.
type glance struct{}

func (glance) GOP([]*media.Burst)    {}
func (glance) Burst(*media.Burst)    {}
func (glance) Tracks([]media.Track)  {}
func (glance) Message(media.Message) {}
func (glance) End(error)             {}

// Watch implements the directory of a Config.
func (k Known) Watch(key media.Key, f func()) (cancel func()) {
	return k.Directory.Watch(key, func(cluster.Stream) { f() })
}
