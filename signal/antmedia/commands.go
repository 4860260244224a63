package antmedia

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/media"
	"sluice/rtc"
	"sluice/signal"
	"sluice/stream"
)

// handle does one command. It is called by the read loop and does not block.
func (s *socket) handle(r request) {
	switch r.Command {
	case "ping":
		s.sayAll(reply{Command: "pong"})
	case "getIceServerConfig":
		s.sayAll(s.h.iceServers())
	case "publish":
		s.open(r, true)
	case "play":
		s.open(r, false)
	case "takeConfiguration":
		s.configuration(r)
	case "takeCandidate":
		s.candidate(r)
	case "stop":
		s.stop(r)
	case "getStreamInfo", "getBroadcastObject", "getTrackList", "getSubscriberCount", "getSubtracks", "getSubtracksCount":
		s.ask(r)
	case "forceStreamQuality":
		s.quality(r)
	case "toggleVideo":
		s.toggle(r, media.Video)
	case "toggleAudio":
		s.toggle(r, media.Audio)
	case "enableTrack":
		s.toggle(r, media.Video, media.Audio)
	case "join", "leave", "peerMessageCommand", "startNewP2PConnection":
		s.fail(echo(r.StreamID), notSupported, "there are no peer-to-peer calls; publish and play instead")
	case "joinRoom", "leaveFromRoom", "getRoomInfo", "getVideoTrackAssignmentsCommand", "assignVideoTrackCommand",
		"updateVideoTrackAssignmentsCommand", "setMaxVideoTrackCountCommand":
		s.fail(echo(r.StreamID), notSupported, "there are no rooms; publish and play single streams")
	case "getSubscribers", "updateStreamMetaData", "getDebugInfo", "registerPushNotificationToken", "sendPushNotification":
		s.fail(echo(r.StreamID), notSupported, "this server does not have "+string(r.Command))
	default:
		s.fail(echo(r.StreamID), unknownCommand, "there is no such command")
	}
}

// iceServers answers with the one server that the protocol has room for: TURN before STUN.
func (h *Handler) iceServers() reply {
	var best signal.ICEServer
	for _, i := range slices.Concat(h.cfg.ICEServers, h.cfg.Relays()) {
		if best.URL == "" || strings.HasPrefix(i.URL, "turn:") && !strings.HasPrefix(best.URL, "turn:") {
			best = i
		}
	}
	return reply{Command: "iceServerConfig", StunServerURI: &best.URL, TurnServerUsername: &best.Username, TurnServerCredential: &best.Credential}
}

// open begins a publish or a play.
func (s *socket) open(r request, publish bool) {
	key, ok := s.key(r)
	if !ok {
		return
	}
	id := string(r.StreamID)
	refused := func(definition, information string) { s.fail(id, definition, information) }
	switch {
	case publish && s.h.cfg.Publisher == nil:
		refused(notSupported, "this server takes no publishers; publish through the publishing address")
		return
	case !publish && s.h.cfg.Player == nil:
		refused(noStreamExist, webRTCNotEnabled)
		return
	case publish && r.MainTrack != "":
		refused(notSupported, "there are no rooms; publish without mainTrack")
		return
	case s.h.draining.Load():
		refused(highResource, "the server is about to stop; connect again")
		return
	case s.h.cfg.Admit() != nil:
		refused(highResource, "this server has no room for more; connect again")
		return
	case !s.opens.try(time.Now()):
		refused(highResource, "too many publish and play commands on one socket; wait a second")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.sessions[id]; x != nil {
		definition := alreadyPlay
		if x.publish {
			definition = alreadyPublish
		}
		s.sayLocked(refusal{definition, ""}.reply(id))
		return
	}
	if len(s.sessions) >= s.h.cfg.Limits.Sessions {
		s.sayLocked(refusal{tooMany, "stop another stream first"}.reply(id))
		return
	}
	x := newSession(s, key, publish, r)
	s.sessions[id] = x
	if w := s.waits[id]; w != nil {
		w.missed = false // from here on, whoever starts is news
	}
	x.doLocked(x.begin)
}

func (s *socket) configuration(r request) {
	if _, ok := s.key(r); !ok {
		return
	}
	id := string(r.StreamID)
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.sessions[id]
	if x == nil {
		s.strayLocked(id, refusal{notSetRemote, "nothing is published or played under this id; send publish or play first"})
		return
	}
	want := "answer"
	if x.publish {
		want = "offer"
	}
	if string(r.Type) != want {
		s.sayLocked(refusal{notSetRemote, "type must be " + want}.reply(id))
		return
	}
	x.doLocked(func() { x.describe(string(r.SDP)) })
}

func (s *socket) candidate(r request) {
	if _, ok := s.key(r); !ok {
		return
	}
	id := string(r.StreamID)
	if r.Candidate == nil {
		s.fail(id, badCandidate, "a candidate is missing; an empty one ends them")
		return
	}
	c := rtc.Candidate{Candidate: string(*r.Candidate), MID: string(r.ID), MLine: int(r.Label)}
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.sessions[id]
	if x == nil {
		s.strayLocked(id, refusal{badCandidate, "nothing is published or played under this id"})
		return
	}
	x.doLocked(func() { x.candidate(c) })
}

// quality chooses the rendition that a viewer gets, by its height; he is told of it when he gets it.
func (s *socket) quality(r request) {
	if _, ok := s.key(r); !ok {
		return
	}
	id, height := string(r.StreamID), 0
	if r.StreamHeight != "" && !strings.EqualFold(string(r.StreamHeight), "auto") {
		n, err := strconv.ParseUint(string(r.StreamHeight), 10, 16)
		if err != nil {
			s.fail(id, badRequest, `streamHeight is a height in pixels, or "auto"`)
			return
		}
		height = int(n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.sessions[id]
	if x == nil || x.publish {
		s.strayLocked(id, refusal{noQuality, "nothing is played under this id"})
		return
	}
	x.doLocked(func() { x.choose(height) })
}

// toggle says whether a viewer gets picture or sound. There is no answer.
func (s *socket) toggle(r request, kinds ...media.Kind) {
	if _, ok := s.key(r); !ok {
		return
	}
	id := string(r.StreamID)
	track := strings.TrimPrefix(strings.TrimPrefix(string(r.TrackID), "ARDAMSv"), "ARDAMSa")
	if track != "" && track != id {
		s.fail(id, noTrack, "the stream is its own one track")
		return
	}
	if r.Enabled == nil {
		s.fail(id, badRequest, "enabled is true or false")
		return
	}
	on := bool(*r.Enabled)
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.sessions[id]
	if x == nil || x.publish {
		s.strayLocked(id, refusal{noTrack, "nothing is played under this id"})
		return
	}
	x.doLocked(func() { x.show(on, kinds) })
}

// strayLocked answers a message for a session that is not there: not at all when it was just
// stopped or refused, because then the message was under way.
func (s *socket) strayLocked(id string, r refusal) {
	for _, known := range s.stopped {
		if known == id {
			return
		}
	}
	s.sayLocked(r.reply(id))
}

// stop ends what the stream id stands for. A stop of nothing has no answer: clients send one before every new try.
func (s *socket) stop(r request) {
	if _, ok := s.key(r); !ok {
		return
	}
	id := string(r.StreamID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.waits[id]; w != nil {
		w.wanted = false
	}
	if x := s.sessions[id]; x != nil {
		x.finishLocked(stream.ErrStopped)
	}
}

// ask answers a question about a stream, which may take a round trip.
func (s *socket) ask(r request) {
	key, ok := s.key(r)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.doLocked(&s.asks, maxQuestions, func() { s.answer(r, key) }) {
		s.sayLocked(refusal{highResource, "too many questions at once"}.reply(string(r.StreamID)))
	}
}
