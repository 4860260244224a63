package problem

// Every code, with its HTTP status. docs/errors.md is made from this list.
var (
	BadRequest        = Code{"bad_request", 400, "The request can't be understood"}
	BadName           = Code{"bad_name", 400, "The application or stream name is not allowed"}
	BadSDP            = Code{"bad_sdp", 400, "The session description can't be used"}
	BadCandidate      = Code{"bad_candidate", 400, "The ICE candidate can't be used"}
	Unauthorized      = Code{"unauthorized", 401, "A valid token is needed"}
	BadCredentials    = Code{"bad_credentials", 401, "Name or password is wrong"}
	BadLink           = Code{"bad_link", 403, "The link can't be used"}
	BadCSRF           = Code{"bad_csrf_token", 403, "The request may come from another site"}
	UserBlocked       = Code{"user_blocked", 403, "The subscriber is blocked"}
	TooManySessions   = Code{"too_many_sessions", 403, "The subscriber has as many sessions as he may"}
	Forbidden         = Code{"forbidden", 403, "This is not allowed"}
	NotFound          = Code{"not_found", 404, "There is nothing at this address"}
	UnknownApp        = Code{"unknown_app", 404, "There is no such application"}
	StreamOffline     = Code{"stream_offline", 404, "The stream is not live"}
	NoSession         = Code{"no_session", 404, "There is no such session"}
	NoLayer           = Code{"no_layer", 404, "There is no such rendition"}
	MethodNotAllowed  = Code{"method_not_allowed", 405, "The method is not allowed here"}
	NoCodec           = Code{"no_codec", 406, "No codec in common"}
	AlreadyExists     = Code{"already_exists", 409, "There is one with that name"}
	Conflict          = Code{"conflict", 409, "Somebody else has changed this"}
	LastAdministrator = Code{"last_administrator", 409, "There must be an administrator"}
	ViewerLimit       = Code{"viewer_limit", 403, "The stream has as many viewers as it may"}
	StreamInUse       = Code{"stream_in_use", 409, "Somebody else publishes this stream"}
	WrongETag         = Code{"wrong_etag", 412, "The ICE session has changed"}
	NeedETag          = Code{"need_etag", 428, "An If-Match header is needed"}
	TooLarge          = Code{"too_large", 413, "The body is too large"}
	WrongMedia        = Code{"wrong_media_type", 415, "The content type is not accepted"}
	Invalid           = Code{"invalid", 422, "The request has a value that is not allowed"}
	WeakPassword      = Code{"weak_password", 422, "The password can't be used"}
	TooMany           = Code{"too_many_requests", 429, "Too many requests"}
	Internal          = Code{"internal", 500, "Something went wrong on the server"}
	NodeFull          = Code{"node_full", 503, "The server has no room for more"}
	Draining          = Code{"draining", 503, "The server is about to stop"}
	NoBackup          = Code{"no_backup", 503, "No other origin can take a backup publisher"}
	NoNode            = Code{"no_node", 503, "No node can take this request"}
	OriginUnreachable = Code{"origin_unreachable", 503, "The server that has the stream can't be reached"}
	RegistryAway      = Code{"registry_unavailable", 503, "The cluster's registry can't be reached"}
	HookAway          = Code{"access_hook_unavailable", 503, "The server that decides on access does not answer"}
	Timeout           = Code{"timeout", 504, "It took too long"}
)
