package antmedia

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/egress/webrtc"
	"sluice/ingest/relay"
	"sluice/internal/access"
	"sluice/media"
	"sluice/rtc"
	"sluice/stream"
)

// session is one publish or play of a socket, from the command to its end. What it does runs in its lane.
type session struct {
	*socket
	id      string
	key     media.Key
	publish bool // else play
	access  access.Request
	log     *slog.Logger
	ctx     context.Context // ends with the session
	cancel  context.CancelFunc
	clock   *time.Timer // until media flows, then between measurements

	// Under the socket's lock.
	lane  lane
	media bool // it flowed once
	grant *access.Grant
	over  bool // nothing is said about it any more

	// The lane's.
	leg       Session // nil before the publisher's offer or ours
	described bool    // the client's description is set
	height    int     // of the rendition that the viewer was told of last; 0: of none
	early     []rtc.Candidate
}

func newSession(s *socket, key media.Key, publish bool, r request) *session {
	x := &session{socket: s, id: key.ID, key: key, publish: publish, access: s.shows(key, publish, r),
		log: s.log.With("stream", key.String(), "publish", publish)}
	x.ctx, x.cancel = context.WithCancel(s.ctx)
	x.clock = time.AfterFunc(s.h.cfg.Limits.Start, x.late)
	return x
}

// shows is what a message shows of who asks, or in its place the socket's URL.
func (s *socket) shows(key media.Key, publish bool, r request) access.Request {
	a := s.shown
	a.Action, a.Stream, a.Remote, a.Session = access.Play, key, s.remote, s.owner
	a.Metadata = cmp.Or(string(r.MetaData), string(r.ViewerInfo), a.Metadata)
	if publish {
		a.Action, a.Metadata = access.Publish, cmp.Or(string(r.MetaData), a.Metadata)
	}
	a.Name = cmp.Or(string(r.StreamName), a.Name)
	a.Token = cmp.Or(string(r.Token), a.Token)
	if r.SubscriberID != "" {
		a.SubscriberID, a.SubscriberCode = string(r.SubscriberID), string(r.SubscriberCode)
	}
	return a
}

// doLocked runs f in the session's lane. When too much waits there, the client talks nonsense: f is dropped.
func (x *session) doLocked(f func()) {
	if !x.over && !x.socket.doLocked(&x.lane, maxWork, f) {
		x.log.Debug("too many messages for a session")
	}
}

// event runs f in the session's lane, on behalf of its leg.
func (x *session) event(f func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.over {
		x.socket.doLocked(&x.lane, 2*maxWork, f)
	}
}

// say sends a message unless the session is over: a client takes a late one for a new session.
func (x *session) say(m reply) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return false
	}
	m.StreamID, m.SubscriberID = x.id, x.access.SubscriberID
	x.sayLocked(m)
	return true
}

// begin asks for permission and makes the first step.
func (x *session) begin() {
	grant, err := x.h.cfg.Authorize(x.ctx, x.access)
	if err != nil {
		x.failed(err)
		return
	}
	x.mu.Lock()
	if x.over {
		x.mu.Unlock()
		grant.End()
		return
	}
	x.grant = grant
	x.mu.Unlock()
	grant.OnRevoked(x.revoked)
	if x.publish {
		x.say(reply{Command: "start"})
		return
	}
	leg, offer, err := x.h.cfg.Player.Offer(x.ctx, x.request())
	if errors.Is(err, stream.ErrOffline) || errors.Is(err, relay.ErrUnreachable) { // of a stream whose origin died somebody else may be the origin soon
		x.wait()
		return
	}
	if err != nil {
		x.failed(fmt.Errorf("play: %w", err))
		return
	}
	x.leg = leg
	if err := x.grant.Begin(x.ctx); err != nil {
		x.failed(fmt.Errorf("play: %w", err))
		return
	}
	if x.say(reply{Command: "takeConfiguration", Type: "offer", SDP: offer, IDMapping: idMapping(offer)}) {
		x.forget(x.id)
	}
}

func (x *session) request() Request {
	key := x.key
	if x.publish && x.backup {
		key = key.Backup()
	}
	return Request{Key: key, Session: x.owner, Remote: x.remote.String(),
		OnStarted:   func() { x.event(x.started) },
		OnRestored:  func() { x.event(x.restored) },
		OnEnded:     func(err error) { x.event(func() { x.lost(err) }) },
		OnRendition: func(q webrtc.Quality) { x.event(func() { x.rendition(q) }) }}
}

// describe takes the client's description: a publisher's offer or a viewer's answer.
func (x *session) describe(sdp string) {
	switch {
	case x.described:
		x.say(refusal{notSetRemote, "a session is negotiated once; stop it and begin anew"}.reply(x.id))
		return
	case x.publish:
		leg, answer, err := x.h.cfg.Publisher.Publish(x.ctx, x.request(), sdp)
		if err != nil {
			x.failed(fmt.Errorf("publish: %w", err))
			return
		}
		x.leg = leg
		if err := x.grant.Begin(x.ctx); err != nil {
			x.failed(fmt.Errorf("publish: %w", err))
			return
		}
		x.say(reply{Command: "takeConfiguration", Type: "answer", SDP: answer})
	default:
		leg, ok := x.leg.(PlaySession)
		if !ok {
			x.say(refusal{notSetRemote, "there is no offer to answer yet"}.reply(x.id))
			return
		}
		if err := leg.SetAnswer(sdp); err != nil {
			x.failed(fmt.Errorf("take the answer: %w", err))
			return
		}
	}
	x.described = true
	for _, c := range x.early {
		x.candidate(c)
	}
	x.early = nil
}

// candidate passes one on, or keeps it until the description is there.
func (x *session) candidate(c rtc.Candidate) {
	if !x.described {
		if len(x.early) < maxEarly {
			x.early = append(x.early, c)
		}
		return
	}
	if err := x.leg.AddCandidate(c); err != nil {
		x.say(refusal{badCandidate, err.Error()}.reply(x.id))
	}
}

// started is told once media flows.
func (x *session) started() {
	x.clock.Stop()
	x.mu.Lock()
	x.media = true
	if !x.publish && !x.over {
		x.clock = time.AfterFunc(x.h.cfg.Limits.Measure, func() { x.event(x.measure) })
	}
	x.mu.Unlock()
	definition := "play_started"
	if x.publish {
		definition = "publish_started"
	}
	x.say(reply{Command: "notification", Definition: definition})
}

func (x *session) restored() { x.say(reply{Command: "notification", Definition: "session_restored"}) }

// choose gives the viewer the best rendition of a height in any case; 0: what his path takes.
func (x *session) choose(height int) {
	leg, ok := x.leg.(PlaySession)
	if !ok {
		x.say(refusal{noQuality, "there is no offer yet; choose after play_started"}.reply(x.id))
		return
	}
	if height == 0 {
		leg.Adapt(0, 0)
		return
	}
	var heights []string
	for _, q := range leg.Qualities() {
		if q.Height == height && leg.Pin(q.Track) {
			return
		}
		heights = append(heights, strconv.Itoa(q.Height))
	}
	x.say(refusal{noQuality, "there are: " + strings.Join(heights, ", ")}.reply(x.id))
}

// show switches picture or sound on or off.
func (x *session) show(on bool, kinds []media.Kind) {
	leg, ok := x.leg.(PlaySession)
	if !ok {
		x.say(refusal{noTrack, "there is no offer yet; switch after play_started"}.reply(x.id))
		return
	}
	for _, k := range kinds {
		leg.Show(k, on)
	}
}

// rendition tells the viewer that the picture has another height now; not with which it begins.
func (x *session) rendition(q webrtc.Quality) {
	if x.height != 0 && x.height != q.Height {
		x.say(reply{Command: "notification", Definition: "resolutionChangeInfo", StreamHeight: q.Height})
	}
	x.height = q.Height
}

// measure tells the viewer of a stream with renditions what his path takes.
func (x *session) measure() {
	if leg := x.leg.(PlaySession); len(leg.Qualities()) > 1 {
		if r := leg.Rates(); r.Path > 0 {
			x.say(reply{Command: "notification", Definition: "bitrateMeasurement", measurement: &measurement{r.Path, r.Video, r.Audio}})
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.over {
		x.clock.Reset(x.h.cfg.Limits.Measure)
	}
}

// late ends a session whose media did not come.
func (x *session) late() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over || x.media {
		return
	}
	if x.publish {
		x.sayLocked(refusal{publishTimeout, "no media came"}.reply(x.id))
	}
	x.finishLocked(rtc.ErrTimeout)
}

// lost is told when the session ended by itself.
func (x *session) lost(err error) {
	x.log.Debug("session ended", "reason", err)
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.over {
		x.finishLocked(err)
	}
}

// revoked is told when the session's permission was withdrawn. A publisher's stream ends at once: nobody waits for him.
func (x *session) revoked(reason error) {
	r, _ := refuse(reason)
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.over {
		x.sayLocked(r.reply(x.id))
		x.finishLocked(fmt.Errorf("%w: %w", stream.ErrStopped, reason))
	}
}

// failed refuses a session for an error of those who carry it out.
func (x *session) failed(err error) {
	if x.ctx.Err() != nil { // stopped meanwhile: nobody wants to know
		return
	}
	r, known := refuse(err)
	if !known {
		x.log.Error("session failed", "err", err)
	}
	x.refuse(r)
}

// refuse ends a session with an error in place of a notification.
func (x *session) refuse(r refusal) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.over {
		x.sayLocked(r.reply(x.id))
		x.endLocked(errors.New(r.definition))
	}
}

// finishLocked ends a session with its notification.
func (x *session) finishLocked(reason error) {
	definition := "play_finished"
	if x.publish {
		definition = "publish_finished"
	}
	x.sayLocked(reply{Command: "notification", Definition: definition, StreamID: x.id, SubscriberID: x.access.SubscriberID})
	x.endLocked(reason)
}

// endLocked ends a session without a word. Its leg is closed by the lane, after the step under way, which
// is cut short.
func (x *session) endLocked(reason error) {
	x.over = true
	x.clock.Stop()
	x.grant.End()
	x.cancel()
	delete(x.sessions, x.id)
	x.stopped = append(x.stopped, x.id)
	if len(x.stopped) > remembered {
		x.stopped = slices.Delete(x.stopped, 0, 1)
	}
	x.lane.queue = nil
	x.socket.doLocked(&x.lane, maxWork, func() {
		if x.leg != nil {
			x.leg.Close(reason)
		}
	})
}

// idMapping reads which track each media line of an offer carries: mid → msid's track id (RFC 8830 §2). Clients
// look their tracks up in it.
func idMapping(sdp string) map[string]string {
	ids := map[string]string{}
	var mid, track string
	add := func() {
		if mid != "" && track != "" {
			ids[mid] = track
		}
		mid, track = "", ""
	}
	for line := range strings.Lines(sdp) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(line, "m=") {
			add()
		} else if v, ok := strings.CutPrefix(line, "a=mid:"); ok {
			mid = v
		} else if v, ok := strings.CutPrefix(line, "a=msid:"); ok {
			_, track, _ = strings.Cut(v, " ")
		}
	}
	add()
	return ids
}
