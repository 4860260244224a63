package antmedia

import (
	"context"
	"errors"

	"sluice/cluster"
	"sluice/egress/webrtc"
	"sluice/ingest/relay"
	"sluice/internal/access"
	"sluice/rtc"
	"sluice/stream"
)

// Definitions of errors that clients know.
const (
	noStreamExist    = "no_stream_exist"
	unauthorized     = "unauthorized_access"
	userBlocked      = "user_blocked"
	noStore          = "data_store_not_available"
	highResource     = "highResourceUsage"
	idInUse          = "streamIdInUse"
	alreadyPublish   = "already_publishing"
	alreadyPlay      = "already_playing"
	noStreamName     = "noStreamNameSpecified"
	invalidName      = "invalidStreamName"
	notSetRemote     = "notSetRemoteDescription"
	publishTimeout   = "publishTimeoutError"
	noCodec          = "no_codec_enabled_in_the_server"
	viewerLimit      = "viewerLimitReached"
	serverError      = "server_error_check_logs"
	notStreaming     = "stream_not_exist_or_not_streaming" // information of noStreamExist
	webRTCNotEnabled = "webrtc_not_enabled"                // information of noStreamExist
)

// Definitions of our own, for what the protocol has no word for.
const (
	badRequest     = "bad_request"      // not JSON, a field of the wrong type, a binary frame
	unknownCommand = "unknown_command"  // nobody has such a command
	notSupported   = "not_supported"    // a command of the protocol that we don't do
	badCandidate   = "bad_candidate"    // an ICE candidate that can't be read
	tooMany        = "too_many_streams" // more at once than one socket may have
	noTrack        = "no_such_track"    // a stream is its own one track
	noQuality      = "no_such_quality"  // the stream has no rendition of that height
	noBackup       = "no_backup"        // no other origin can take a backup publisher
)

// refusal is an error as the client is told it.
type refusal struct {
	definition  string
	information string
}

func (r refusal) reply(id string) reply {
	out := reply{Command: "error", Definition: r.definition, StreamID: id, Information: r.information}
	if r.definition == noStreamExist {
		out.ErrorCode = "404"
	}
	return out
}

// refuse says what went wrong with a publish or play. known is false for what only the log can explain.
func refuse(err error) (r refusal, known bool) {
	switch {
	case errors.Is(err, stream.ErrOffline):
		return refusal{noStreamExist, notStreaming}, true
	case errors.Is(err, access.ErrBlocked):
		return refusal{userBlocked, ""}, true
	case errors.Is(err, access.ErrUnauthorized), errors.Is(err, access.ErrForbidden), errors.Is(err, access.ErrTooMany), errors.Is(err, access.ErrNoAnswer):
		return refusal{unauthorized, err.Error()}, true
	case errors.Is(err, access.ErrUnavailable):
		return refusal{noStore, "ask again"}, true
	case errors.Is(err, stream.ErrInUse), errors.Is(err, cluster.ErrStreamInUse):
		return refusal{idInUse, ""}, true
	case errors.Is(err, stream.ErrNoBackup):
		return refusal{noBackup, err.Error()}, true
	case errors.Is(err, rtc.ErrNoCodec):
		return refusal{noCodec, err.Error()}, true
	case errors.Is(err, rtc.ErrBadSDP):
		return refusal{notSetRemote, err.Error()}, true
	case errors.Is(err, webrtc.ErrViewers):
		return refusal{viewerLimit, ""}, true
	case errors.Is(err, webrtc.ErrFull), errors.Is(err, stream.ErrClosing), errors.Is(err, rtc.ErrClosed):
		return refusal{highResource, "this server takes no more; connect again"}, true
	case errors.Is(err, relay.ErrUnreachable):
		return refusal{highResource, "the stream's origin can't be reached; connect again"}, true
	case errors.Is(err, context.DeadlineExceeded):
		return refusal{publishTimeout, "it took too long"}, true
	}
	return refusal{serverError, ""}, false
}
