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

// Same reports whether a decoder that was made for one codec takes the other: name, clock rate and profile agree.
func (c Codec) Same(o Codec) bool {
	return c.Is(o.Name) && c.ClockRate == o.ClockRate && c.profile() == o.profile()
}

// profile is the part of the format parameters that says which decoder is needed.
func (c Codec) profile() string {
	switch {
	case c.Is(H264): // RFC 6184 §8.1: profile_idc and constraints; the level may differ
		if p := strings.ToLower(c.Param("profile-level-id")); len(p) == 6 {
			return p[:4]
		}
		return "42e0"
	case c.Is(VP9): // RFC 9628 §6.1
		if p := c.Param("profile-id"); p != "" {
			return p
		}
		return "0"
	}
	return ""
}

// MaxTracks is how many tracks a stream has at most, renditions included.
const MaxTracks = 16

// Track is one kind of medium in a stream. A stream names its tracks by index.
type Track struct {
	Kind  Kind
	Codec Codec
	// Rendition names a track that shows the same as the stream's picture, for narrower networks: "480p". Such tracks come after all others;
	// a player gets one of them instead of the picture itself, whose name is "".
	Rendition string
	Bitrate   int // of a rendition, bit/s, as it was asked for; 0: not known
	Height    int // of a rendition's picture, pixels; 0: not known
}

// Main are a stream's tracks without the renditions.
func Main(tracks []Track) []Track {
	for i, t := range tracks {
		if t.Rendition != "" {
			return tracks[:i]
		}
	}
	return tracks
}

// CodecNames lists the codecs of the tracks, video first, without the renditions.
func CodecNames(tracks []Track) []string {
	names := []string{}
	for _, kind := range []Kind{Video, Audio} {
		for _, t := range Main(tracks) {
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
