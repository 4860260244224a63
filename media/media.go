// Package media is what travels on the road: tracks, bursts of RTP packets and
// data messages, and the names of streams.
//
// Imports: nothing.
package media

import (
	"fmt"
	"strings"
)

// Kind is what a track carries.
type Kind uint8

const (
	Audio Kind = iota + 1
	Video
)

// String returns "audio" or "video", as in an SDP media line (RFC 8866 §5.14).
func (k Kind) String() string {
	switch k {
	case Audio:
		return "audio"
	case Video:
		return "video"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Codec names, as registered for RTP (the encoding names of an SDP rtpmap).
const (
	H264 = "H264"
	H265 = "H265"
	VP8  = "VP8"
	VP9  = "VP9"
	AV1  = "AV1"
	Opus = "opus"
	PCMU = "PCMU"
	PCMA = "PCMA"
)

// Codec is how a track is encoded, in the terms of an SDP rtpmap and fmtp line.
type Codec struct {
	Name      string // one of the names above
	ClockRate uint32 // RTP timestamp units a second
	Channels  uint16 // audio only
	Fmtp      string // format parameters without the payload type, such as "packetization-mode=1"
}

// Is reports whether the codec has that encoding name (RFC 4855: case does not matter).
func (c Codec) Is(name string) bool { return strings.EqualFold(c.Name, name) }

// Param returns a format parameter's value, "" when it is absent.
func (c Codec) Param(name string) string {
	for p := range strings.SplitSeq(c.Fmtp, ";") {
		k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(k, name) {
			return v
		}
	}
	return ""
}

// Track is one kind of medium in a stream. A stream names its tracks by index.
type Track struct {
	Kind  Kind
	Codec Codec
}

// CodecNames lists the tracks' codecs, video first.
func CodecNames(tracks []Track) []string {
	names := []string{}
	for _, kind := range []Kind{Video, Audio} {
		for _, t := range tracks {
			if t.Kind == kind {
				names = append(names, t.Codec.Name)
			}
		}
	}
	return names
}

// Message is one message of a stream's data channel. Whoever hands it on no longer changes its data.
type Message struct {
	Binary bool // binary, else UTF-8 text (RFC 8831 §8)
	Data   []byte
}
