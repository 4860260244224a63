package antmedia

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// request is a client's message: the fields of all commands that we read. Hand-written clients send numbers and
// booleans as strings, and null where nothing is meant.
type request struct {
	Command        text    `json:"command"`
	StreamID       text    `json:"streamId"`
	Token          text    `json:"token"`
	SubscriberID   text    `json:"subscriberId"`
	SubscriberCode text    `json:"subscriberCode"`
	StreamName     text    `json:"streamName"`
	MetaData       text    `json:"metaData"`
	ViewerInfo     text    `json:"viewerInfo"`
	MainTrack      text    `json:"mainTrack"`
	Type           text    `json:"type"`
	SDP            text    `json:"sdp"`
	Label          integer `json:"label"`
	ID             text    `json:"id"`
	Candidate      *text   `json:"candidate"`
	Enabled        *flag   `json:"enabled"`
	StreamHeight   text    `json:"streamHeight"`
	TrackID        text    `json:"trackId"`
}

// text is a string; null reads as "", a number or boolean as it is written.
type text string

// UnmarshalJSON implements json.Unmarshaler.
func (t *text) UnmarshalJSON(b []byte) error {
	switch b[0] {
	case '"':
		return json.Unmarshal(b, (*string)(t))
	case '{', '[':
		return errors.New("want a string")
	case 'n':
		*t = ""
	default:
		*t = text(b)
	}
	return nil
}

// integer is a number, also as a string; null and "" read as 0.
type integer int

// UnmarshalJSON implements json.Unmarshaler.
func (i *integer) UnmarshalJSON(b []byte) error {
	var t text
	if err := t.UnmarshalJSON(b); err != nil {
		return errors.New("want a number")
	}
	if t == "" {
		*i = 0
		return nil
	}
	n, err := strconv.ParseInt(string(t), 10, 32)
	*i = integer(n)
	return err
}

// flag is a boolean, also as a string.
type flag bool

// UnmarshalJSON implements json.Unmarshaler.
func (f *flag) UnmarshalJSON(b []byte) error {
	var t text
	if err := t.UnmarshalJSON(b); err != nil {
		return errors.New("want true or false")
	}
	v, err := strconv.ParseBool(string(t))
	*f = flag(v)
	return err
}

// decode reads one message. It keeps no part of b.
func decode(b []byte) (request, error) {
	var r request
	b = bytes.TrimSpace(b)
	if len(b) == 0 || b[0] != '{' {
		return r, errors.New("a message is one JSON object")
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return request{StreamID: r.StreamID}, fmt.Errorf("the message is not understood: %w", err)
	}
	if r.Command == "" {
		return r, errors.New("a message needs a command")
	}
	return r, nil
}

// reply is a message to the client: the fields of all that we send.
type reply struct {
	Command      string            `json:"command"`
	Definition   string            `json:"definition,omitempty"`
	StreamID     string            `json:"streamId,omitempty"`
	SubscriberID string            `json:"subscriberId,omitempty"`
	ErrorCode    string            `json:"error_code,omitempty"`
	Information  string            `json:"information,omitempty"`
	Type         string            `json:"type,omitempty"`
	SDP          string            `json:"sdp,omitempty"`
	IDMapping    map[string]string `json:"idMapping,omitempty"` // mid → track id

	StunServerURI        *string      `json:"stunServerUri,omitempty"`
	TurnServerUsername   *string      `json:"turnServerUsername,omitempty"`
	TurnServerCredential *string      `json:"turnServerCredential,omitempty"`
	StreamInfo           *[]rendition `json:"streamInfo,omitempty"`
	TrackList            *[]string    `json:"trackList,omitempty"`
	Broadcast            string       `json:"broadcast,omitempty"` // JSON within the string
	SubtrackList         *[]string    `json:"subtrackList,omitempty"`
	Count                *int         `json:"count,omitempty"`
	StreamHeight         int          `json:"streamHeight,omitempty"`
	*measurement
}

// measurement is what a viewer's path takes and what he gets, in bit/s.
type measurement struct {
	TargetBitrate int `json:"targetBitrate"`
	VideoBitrate  int `json:"videoBitrate"`
	AudioBitrate  int `json:"audioBitrate"`
}

// rendition is one entry of streamInfo. Numbers that are not known are 0.
type rendition struct {
	StreamWidth  int    `json:"streamWidth"`
	StreamHeight int    `json:"streamHeight"`
	VideoBitrate int    `json:"videoBitrate"` // bit/s
	AudioBitrate int    `json:"audioBitrate"` // bit/s
	VideoCodec   string `json:"videoCodec"`
}
