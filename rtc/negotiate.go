package rtc

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pion/sdp/v3"

	"sluice/media"
)

// What an SDP may be at most.
const (
	maxSDP      = 128 << 10 // bytes
	maxSections = 32        // media lines
)

// format is one payload type of a media line.
type format struct {
	pt    uint8
	rtx   uint8  // payload type of its retransmissions (RFC 4588), 0: none
	red   uint8  // payload type of it with redundancy (RFC 2198), 0: none
	first bool   // the peer prefers that
	nack  bool   // the peer asks for what is missing of it, and is asked
	name  string // the codec's as the peer spells it
	codec media.Codec
}

// direction is that of a media line, as the peer sees it.
type direction struct {
	sends    bool // sendonly or sendrecv
	receives bool // recvonly or sendrecv
}

// section is one media line of a peer's description that carries RTP.
type section struct {
	direction
	kind      media.Kind
	formats   []format // in the peer's order of preference
	wideID    uint8    // of the header extension with transport-wide numbers; 0: none
	delayID   uint8    // and of that with the playout delay
	remb      bool     // the peer can tell its own estimate of the bandwidth
	layers    layers   // in which it sends
	described uint8    // id of the header extension with dependency descriptors; 0: none
}

// description is what a peer's session description says.
type description struct {
	sdp      sdp.SessionDescription
	sections []section
	data     bool // it has a data channel's line
	theirs   credentials
	prints   fingerprints
	active   bool // the peer begins DTLS; else we do (RFC 8842 §5)
}

// wideURI names the header extension with transport-wide sequence numbers (draft-holmer-rmcat-transport-wide-cc-extensions-01).
const wideURI = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"

// delayURI names the header extension by which a player is told how long it may keep pictures back to even out their coming.
const delayURI = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"

// mostPlayout is the longest that it can say: 12 bits of 10 ms.
const mostPlayout = (1<<12 - 1) * 10 * time.Millisecond

// descriptorURI names the header extension with dependency descriptors (RTP payload format for AV1, appendix A).
const descriptorURI = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"

// parseDescription reads an offer or an answer.
func parseDescription(text string) (*description, error) {
	if len(text) > maxSDP {
		return nil, fmt.Errorf("%w: it has more than %d bytes", ErrBadSDP, maxSDP)
	}
	d := &description{}
	if err := d.sdp.UnmarshalString(text); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadSDP, err)
	}
	if n := len(d.sdp.MediaDescriptions); n == 0 || n > maxSections {
		return nil, fmt.Errorf("%w: it has %d media lines, want 1 to %d", ErrBadSDP, n, maxSections)
	}
	for _, m := range d.sdp.MediaDescriptions {
		if m.MediaName.Port.Value == 0 && m.MediaName.Media != "application" {
			if _, bundled := m.Attribute("bundle-only"); !bundled {
				continue // RFC 8829 §5.2.2: rejected
			}
		}
		s := section{formats: formats(m)}
		switch m.MediaName.Media {
		case "audio":
			s.kind = media.Audio
		case "video":
			s.kind = media.Video
		case "application":
			d.data = true
			continue
		default:
			continue
		}
		if err := s.attributes(m); err != nil {
			return nil, err
		}
		d.sections = append(d.sections, s)
	}
	if len(d.sections) == 0 && !d.data {
		return nil, fmt.Errorf("%w: it has neither audio, video nor data", ErrBadSDP)
	}
	return d, d.transport()
}

// attributes reads the lines of a section that say where its media goes, and what is told of it.
func (s *section) attributes(m *sdp.MediaDescription) error {
	has := func(name string) bool { _, ok := m.Attribute(name); return ok }
	s.sends, s.receives = has("sendonly") || has("sendrecv"), has("recvonly") || has("sendrecv")
	if !s.sends && !s.receives && !has("inactive") {
		return fmt.Errorf("%w: the %s has no direction, such as sendonly", ErrBadSDP, s.kind)
	}
	var id, delay uint64
	told := false
	s.layers = simulcast(m)
	for _, a := range m.Attributes {
		number, value, _ := strings.Cut(a.Value, " ")
		switch {
		case a.Key == "extmap" && strings.TrimSpace(value) == wideURI:
			number, _, _ = strings.Cut(number, "/") // RFC 8285 §5: a direction may follow
			id, _ = strconv.ParseUint(number, 10, 8)
		case a.Key == "extmap" && strings.TrimSpace(value) == delayURI:
			number, _, _ = strings.Cut(number, "/")
			delay, _ = strconv.ParseUint(number, 10, 8)
		case a.Key == "extmap" && strings.TrimSpace(value) == descriptorURI:
			number, _, _ = strings.Cut(number, "/")
			if id, err := strconv.ParseUint(number, 10, 8); err == nil && id >= 1 && id <= 14 {
				s.described = uint8(id)
			}
		case a.Key == "rtcp-fb" && value == "transport-cc":
			told = true
		case a.Key == "rtcp-fb" && value == "goog-remb":
			s.remb = true
		}
	}
	if told && id >= 1 && id <= 14 { // what a one-byte header can say (RFC 8285 §4.2)
		s.wideID = uint8(id)
	}
	if delay >= 1 && delay <= 14 {
		s.delayID = uint8(delay)
	}
	return nil
}

// formats reads the rtpmap, fmtp and rtx lines of a media line (RFC 8866 §6.6, §6.15).
func formats(m *sdp.MediaDescription) []format {
	fmtp := map[string]string{}
	names := map[string]string{"0": "PCMU/8000", "8": "PCMA/8000"} // static: RFC 3551 §6
	for _, a := range m.Attributes {
		pt, value, _ := strings.Cut(a.Value, " ")
		switch a.Key {
		case "rtpmap":
			names[pt] = value
		case "fmtp":
			fmtp[pt] = value
		}
	}
	red, nack := extras(m, names, fmtp)
	rtx := map[string]uint8{}
	for pt, name := range names {
		if strings.HasPrefix(strings.ToLower(name), "rtx/") {
			if n, err := strconv.ParseUint(pt, 10, 7); err == nil {
				rtx[media.Codec{Fmtp: fmtp[pt]}.Param("apt")] = uint8(n)
			}
		}
	}
	var all []format
	for _, pt := range m.MediaName.Formats {
		n, err := strconv.ParseUint(pt, 10, 7)
		parts := strings.Split(names[pt], "/")
		if err != nil || len(parts) < 2 {
			continue
		}
		rate, err := strconv.ParseUint(parts[1], 10, 32)
		name := known(parts[0])
		if err != nil || name == "" {
			continue
		}
		c := media.Codec{Name: name, ClockRate: uint32(rate), Fmtp: fmtp[pt]}
		if len(parts) > 2 {
			ch, _ := strconv.ParseUint(parts[2], 10, 8)
			c.Channels = uint16(ch)
		}
		f := format{pt: uint8(n), rtx: rtx[pt], red: red[pt], name: parts[0], codec: c, nack: nack[pt] || nack["*"]}
		f.first = f.red != 0 && slices.Index(m.MediaName.Formats, fmt.Sprint(f.red)) < slices.Index(m.MediaName.Formats, pt)
		all = append(all, f)
	}
	return all
}

// extras are the payload types of Opus with redundancy, by that of Opus, and what a peer sends again.
func extras(m *sdp.MediaDescription, names, fmtp map[string]string) (red map[string]uint8, nack map[string]bool) {
	red, nack = map[string]uint8{}, map[string]bool{}
	for pt, name := range names {
		if n, err := strconv.ParseUint(pt, 10, 7); err == nil && strings.EqualFold(name, "red/48000/2") && slices.Contains(m.MediaName.Formats, pt) {
			inner, _, _ := strings.Cut(fmtp[pt], "/") // 111/111: both blocks are Opus
			if strings.EqualFold(names[inner], "opus/48000/2") {
				red[inner] = uint8(n)
			}
		}
	}
	for _, a := range m.Attributes {
		if pt, what, _ := strings.Cut(a.Value, " "); a.Key == "rtcp-fb" && strings.TrimSpace(what) == "nack" {
			nack[pt] = true
		}
	}
	return red, nack
}

// known returns the codec name in our spelling, "" for one that we don't carry.
func known(name string) string {
	for _, n := range []string{media.H264, media.H265, media.VP8, media.VP9, media.AV1, media.Opus, media.PCMU, media.PCMA} {
		if strings.EqualFold(n, name) {
			return n
		}
	}
	return ""
}

// DefaultCodecs is the order in which a publisher's codecs are chosen: first what every player takes.
func DefaultCodecs() []string {
	return []string{media.H264, media.VP8, media.VP9, media.AV1, media.H265, media.Opus, media.PCMU, media.PCMA}
}

// choosePublished picks one format for what a publisher sends, by our order of codecs.
func choosePublished(formats []format, order []string) (format, bool) {
	for _, name := range order {
		best, score := format{}, 0
		for _, f := range formats {
			if s := publishScore(f); f.codec.Is(name) && s > score {
				best, score = f, s
			}
		}
		if score > 0 {
			return best, true
		}
	}
	return format{}, false
}

// publishScore ranks the variants of one codec; 0 is unusable, the first of the best is taken.
func publishScore(f format) int {
	switch f.codec.Name {
	case media.H264:
		score := 1
		if f.codec.Param("packetization-mode") == "1" { // RFC 6184 §6.2: slices larger than a packet need it. Mode 0 is a part of it
			score += 2
		}
		if strings.HasPrefix(strings.ToLower(f.codec.Param("profile-level-id")), "42e0") {
			score++ // constrained baseline: what every player decodes
		}
		return score
	case media.VP9:
		if p := f.codec.Param("profile-id"); p != "" && p != "0" {
			return 0
		}
	}
	return 1
}

// chooseFor picks the format in which a viewer takes a track.
func chooseFor(track media.Track, formats []format) (format, bool) {
	best, score := format{}, 0
	for _, f := range formats {
		if !f.codec.Is(track.Codec.Name) || f.codec.ClockRate != track.Codec.ClockRate {
			continue
		}
		if s := playScore(track.Codec, f.codec); s > score {
			best, score = f, s
		}
	}
	return best, score > 0
}

func playScore(have, want media.Codec) int {
	switch have.Name {
	case media.H264:
		if want.Param("packetization-mode") != "1" {
			return 0
		}
		profile := func(c media.Codec) string { return strings.ToLower(c.Param("profile-level-id") + "42e0")[:4] }
		switch h, w := profile(have), profile(want); {
		case h == w:
			return 3
		case h[:2] == w[:2]:
			return 2
		}
	case media.VP9:
		profile := func(c media.Codec) string {
			if p := c.Param("profile-id"); p != "" {
				return p
			}
			return "0"
		}
		if profile(have) != profile(want) {
			return 0
		}
	}
	return 1
}

// offered are the formats in which the server offers a track: as it is, and for H.264 also as
// constrained baseline, because a browser that decodes every profile may list only some.
func offered(t media.Track, next uint8) []format {
	own := format{pt: next, codec: t.Codec}
	switch t.Codec.Name {
	case media.PCMU:
		own.pt = 0
	case media.PCMA:
		own.pt = 8
	case media.H264:
		if !strings.Contains(t.Codec.Fmtp, "packetization-mode=1") {
			own.codec.Fmtp = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
		}
		formats := []format{own}
		for i, profile := range []string{"42e01f", "42001f", "4d001f", "64001f"} {
			if !strings.HasPrefix(strings.ToLower(own.codec.Param("profile-level-id")), profile[:4]) {
				c := t.Codec
				c.Fmtp = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=" + profile
				formats = append(formats, format{pt: next + 1 + uint8(i), codec: c})
			}
		}
		return formats
	}
	return []format{own}
}

// sent are the sections that the peer sends. A stream has one of each kind at most (RFC 9725 §4.4.2).
func sent(sections []section) ([]section, error) {
	var all []section
	for _, s := range sections {
		if !s.sends {
			continue
		}
		if _, had := firstOf(all, s.kind); had {
			return nil, fmt.Errorf("%w: it sends more than one %s, a stream has one", ErrBadSDP, s.kind)
		}
		all = append(all, s)
	}
	return all, nil
}

// firstOf returns the first section of a kind.
func firstOf(sections []section, kind media.Kind) (section, bool) {
	i := slices.IndexFunc(sections, func(s section) bool { return s.kind == kind })
	if i < 0 {
		return section{}, false
	}
	return sections[i], true
}
