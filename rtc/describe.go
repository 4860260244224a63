package rtc

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/pion/sdp/v3"

	"sluice/media"
)

// line is one media line of a description of ours.
type line struct {
	mid     string
	kind    string                // "audio", "video" or "application"
	refused *sdp.MediaDescription // the offer's line that we don't take; nil: it is taken
	track   int                   // -1: the data channel
	offered bool                  // by us
	formats []format
	wideID  uint8 // as in section
}

// transport reads the transport's part of a description, which is the same for all its lines or stands at its head.
func (d *description) transport() error {
	d.active = true
	see := func(key, value string) {
		switch key {
		case "ice-ufrag":
			d.theirs.ufrag = strings.Clone(value) // the session outlives the description
		case "ice-pwd":
			d.theirs.pwd = strings.Clone(value)
		case "setup":
			d.active = value != "passive"
		case "fingerprint":
			if f, ok := parseFingerprint(value); ok && !slices.Contains(d.prints, f) {
				d.prints = append(d.prints, f)
			}
		}
	}
	for _, a := range d.sdp.Attributes {
		see(a.Key, a.Value)
	}
	for _, m := range d.sdp.MediaDescriptions {
		for _, a := range m.Attributes {
			if a.Key == "fingerprint" || d.theirs.ufrag == "" || d.theirs.pwd == "" || a.Key == "setup" {
				see(a.Key, a.Value)
			}
		}
	}
	switch {
	case !iceChars(d.theirs.ufrag, 4) || !iceChars(d.theirs.pwd, 22):
		return fmt.Errorf("%w: it has no ICE credentials, or malformed ones", ErrBadSDP)
	case len(d.prints) == 0:
		return fmt.Errorf("%w: it has no fingerprint by sha-256", ErrBadSDP)
	}
	return nil
}

// iceChars checks a string of ice-chars (RFC 8839 §5.4) of at least least and at most 256.
func iceChars(s string, least int) bool {
	if len(s) < least || len(s) > 256 {
		return false
	}
	for _, c := range s {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '+', c == '/':
		default:
			return false
		}
	}
	return true
}

// Answer opens a session from the peer's offer. Media begins with Join.
func (g *Group) Answer(offer string, o SenderOptions) (*Sender, string, error) {
	d, err := parseDescription(offer)
	if err != nil {
		return nil, "", err
	}
	tracks, chosen, err := g.choose(slices.DeleteFunc(d.sections, func(s section) bool { return !s.receives }))
	if err != nil {
		return nil, "", err
	}
	v := g.newSender(o, tracks)
	v.meet(d)
	if err := v.open(); err != nil {
		return nil, "", err
	}
	lines := d.answer(g.tracks, chosen, func(d direction) bool { return d.receives })
	v.mids = midsOf(lines)
	return v, v.describe(lines, d.active, false, v.describeTrack), nil
}

// choose picks a format for each track that the peer wants.
func (g *Group) choose(sections []section) (tracks []outTrack, chosen []format, err error) {
	tracks, chosen = make([]outTrack, len(g.tracks)), make([]format, len(g.tracks))
	wanted := 0
	for i, t := range g.tracks {
		s, ok := firstOf(sections, t.Kind)
		if !ok {
			continue // the peer did not ask for this kind
		}
		f, ok := chooseFor(t, s.formats)
		if !ok && t.Kind == media.Video {
			return nil, nil, fmt.Errorf("%w: the stream's %s is %s, which the peer doesn't take", ErrNoCodec, t.Kind, t.Codec.Name)
		}
		if !ok {
			continue // a picture without sound is better than none
		}
		if t.Kind == media.Audio && f.red != 0 && f.rtx == 0 {
			f.nack = false // with redundancy or without, a number has one text; what is sent again can't know which
		}
		tracks[i] = outTrack{wanted: true, pt: f.pt, rtxPT: f.rtx, redPT: f.red, nack: f.nack || t.Kind == media.Video}
		if t.Kind == media.Video && g.delays {
			tracks[i].delayID = s.delayID
		}
		if t.Kind == media.Video && f.rtx != 0 && (g.adaptive || !s.remb) {
			tracks[i].wideID = s.wideID
		}
		if t.Codec.Is(media.AV1) {
			tracks[i].described = s.described
		}
		chosen[i] = f
		wanted++
	}
	if wanted == 0 && len(g.tracks) > 0 {
		return nil, nil, fmt.Errorf("%w: the peer takes nothing of what the stream has", ErrNoCodec)
	}
	return tracks, chosen, nil
}

// answer makes a line for each media line of an offer: the first of each kind that goes our way gets the track of that kind.
func (d *description) answer(tracks []media.Track, chosen []format, ours func(direction) bool) (lines []line) {
	taken := make([]bool, len(tracks))
	data := false
	for _, m := range d.sdp.MediaDescriptions {
		mid, _ := m.Attribute("mid")
		l := line{mid: mid, kind: m.MediaName.Media, refused: m, track: -1}
		var s section
		_ = s.attributes(m)
		_, bundled := m.Attribute("bundle-only")
		switch {
		case m.MediaName.Port.Value == 0 && !bundled:
		case l.kind == "application" && !data && strings.Contains(strings.Join(m.MediaName.Protos, "/"), "SCTP"):
			l.refused, data = nil, true
		case ours(s.direction):
			for i, t := range tracks {
				if t.Kind.String() == l.kind && !taken[i] && chosen[i].codec.Name != "" {
					l.refused, l.track, l.formats, l.wideID, taken[i] = nil, i, []format{chosen[i]}, s.wideID, true
					break
				}
			}
		}
		lines = append(lines, l)
	}
	return lines
}

func midsOf(lines []line) (mids []string) {
	for _, l := range lines {
		if l.refused == nil && l.track >= 0 {
			mids = append(mids, strings.Clone(l.mid))
		}
	}
	return mids
}

// Header extensions in offers of ours.
const (
	offeredDelayID    = 1
	offeredWideID     = 2
	offeredDescriptor = 12
)

// Offer opens a session by an offer of ours; SetAnswer follows.
func (g *Group) Offer(o SenderOptions) (*Sender, string, error) {
	tracks := make([]outTrack, len(g.tracks))
	var lines []line
	next := uint8(96) // RFC 3551 §6: dynamic payload types
	for i, t := range g.tracks {
		l := line{mid: fmt.Sprint(len(lines)), kind: t.Kind.String(), track: i, offered: true}
		if t.Kind == media.Video && g.delays {
			tracks[i].delayID = offeredDelayID
		}
		if t.Kind == media.Video && g.adaptive {
			tracks[i].wideID = offeredWideID
		}
		if t.Codec.Is(media.AV1) {
			tracks[i].described = offeredDescriptor
		}
		for _, f := range offered(t, next) {
			next = max(next, f.pt+1)
			l.formats = append(l.formats, f)
		}
		for j := range l.formats {
			if t.Kind == media.Video {
				l.formats[j].rtx = next
				next++
			} else if t.Codec.Is(media.Opus) {
				l.formats[j].red = next
				next++
			}
		}
		lines = append(lines, l)
	}
	if o.Data {
		lines = append(lines, line{mid: fmt.Sprint(len(lines)), kind: "application", track: -1})
	}
	v := g.newSender(o, tracks)
	if err := v.open(); err != nil {
		return nil, "", err
	}
	v.mids = midsOf(lines)
	return v, v.describe(lines, true, true, v.describeTrack), nil
}

// SetAnswer applies the peer's answer to an offer of ours.
func (v *Sender) SetAnswer(answer string) error {
	d, err := parseDescription(answer)
	if err != nil {
		return err
	}
	for _, t := range v.group.tracks {
		s, ok := firstOf(d.sections, t.Kind)
		if t.Kind == media.Video && (!ok || len(s.formats) == 0 || !s.receives) {
			return fmt.Errorf("%w: the player takes no %s", ErrNoCodec, t.Codec.Name)
		}
	}
	tracks, _, err := v.group.choose(slices.DeleteFunc(d.sections, func(s section) bool { return !s.receives || len(s.formats) == 0 }))
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.state != stateNew || len(v.prints) > 0 {
		return fmt.Errorf("%w: there is an answer already", ErrBadSDP)
	}
	for i := range tracks { // nothing was sent yet: the loop does not know the session
		t := &v.tracks[i]
		t.delayID, t.wideID = tracks[i].delayID, tracks[i].wideID
		t.described = tracks[i].described
		t.wanted, t.pt, t.rtxPT, t.redPT, t.nack = tracks[i].wanted, tracks[i].pt, tracks[i].rtxPT, tracks[i].redPT, tracks[i].nack
	}
	v.data = v.data && d.data
	v.theirs, v.prints, v.active = d.theirs, d.prints, d.active
	return nil
}

// printer writes a line.
type printer func(format string, args ...any)

// describe writes our description: all media on one transport, of which we are the ICE-lite side.
func (s *session) describe(lines []line, peerActive, offer bool, track func(printer, line)) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	p("v=0")
	p("o=- %d 2 IN IP4 0.0.0.0", s.opened.UnixNano())
	p("s=-")
	p("t=0 0")
	var mids []string
	for _, l := range lines {
		if l.refused == nil {
			mids = append(mids, l.mid)
		}
	}
	if len(mids) > 0 {
		p("a=group:BUNDLE %s", strings.Join(mids, " "))
	}
	p("a=ice-lite")
	if s.label != "" {
		p("a=msid-semantic: WMS %s", s.label)
	}
	setup := "passive"
	if offer {
		setup = "actpass"
	} else if !peerActive {
		setup = "active"
	}
	first := true
	for _, l := range lines {
		if m := l.refused; m != nil { // RFC 3264 §6
			p("m=%s 0 %s %s", l.kind, strings.Join(m.MediaName.Protos, "/"), strings.Join(m.MediaName.Formats, " "))
			p("c=IN IP4 0.0.0.0")
			if l.mid != "" {
				p("a=mid:%s", l.mid)
			}
			p("a=inactive")
			continue
		}
		if l.track < 0 {
			p("m=application 9 UDP/DTLS/SCTP webrtc-datachannel")
		} else {
			p("m=%s 9 UDP/TLS/RTP/SAVPF %s", l.kind, payloadTypes(l.formats))
		}
		p("c=IN IP4 0.0.0.0")
		if l.mid != "" {
			p("a=mid:%s", l.mid)
		}
		p("a=ice-ufrag:%s", s.ours.ufrag)
		p("a=ice-pwd:%s", s.ours.pwd)
		p("a=fingerprint:%s", s.endpoint.print)
		p("a=setup:%s", setup)
		if l.track < 0 {
			p("a=sctp-port:5000") // RFC 8841 §5
			p("a=max-message-size:%d", maxMessage)
		} else {
			track(p, l)
		}
		if first { // the others are bundled with it
			first = false
			for _, c := range s.endpoint.candidates() {
				p("a=candidate:%s", c)
			}
			p("a=end-of-candidates")
		}
	}
	return b.String()
}

func payloadTypes(formats []format) string {
	var all []string
	for _, f := range formats {
		if f.first {
			all = append(all, fmt.Sprint(f.red))
		}
		all = append(all, fmt.Sprint(f.pt))
		if f.red != 0 && !f.first {
			all = append(all, fmt.Sprint(f.red))
		}
		if f.rtx != 0 {
			all = append(all, fmt.Sprint(f.rtx))
		}
	}
	return strings.Join(all, " ")
}

// describeFormats writes what a media line's payload types mean, and which feedback goes with them.
func describeFormats(p printer, formats []format, feedback []string) {
	for _, f := range formats {
		name := fmt.Sprintf("%s/%d", cmp.Or(f.name, f.codec.Name), f.codec.ClockRate)
		if f.codec.Channels > 1 {
			name += fmt.Sprintf("/%d", f.codec.Channels)
		}
		p("a=rtpmap:%d %s", f.pt, name)
		if f.codec.Fmtp != "" {
			p("a=fmtp:%d %s", f.pt, f.codec.Fmtp)
		}
		for _, fb := range feedback {
			p("a=rtcp-fb:%d %s", f.pt, fb)
		}
		if f.red != 0 {
			p("a=rtpmap:%d red/%d/%d", f.red, f.codec.ClockRate, f.codec.Channels)
			p("a=fmtp:%d %d/%d", f.red, f.pt, f.pt)
		}
		if f.rtx != 0 {
			p("a=rtpmap:%d rtx/%d", f.rtx, f.codec.ClockRate)
			p("a=fmtp:%d apt=%d", f.rtx, f.pt)
		}
	}
}

// describeDescriptor writes the lines of a track whose packets have dependency descriptors, which may be longer than a header of one byte can say (RFC 8285 §4.2).
func describeDescriptor(p printer, id uint8) {
	if id != 0 {
		p("a=extmap-allow-mixed")
		p("a=extmap:%d %s", id, descriptorURI)
	}
}

// describeTrack writes the lines of a track that is sent.
func (v *Sender) describeTrack(p printer, l line) {
	t := &v.tracks[l.track]
	p("a=sendonly")
	p("a=rtcp-mux")
	p("a=rtcp-rsize")
	id, feedback := "ARDAMSa"+v.label, soundFeedback(l.formats) // players cut the first seven characters to get the stream's id
	if l.kind == "video" {
		id, feedback = "ARDAMSv"+v.label, []string{"nack", "nack pli", "ccm fir", "goog-remb"}
	}
	if t.delayID != 0 {
		p("a=extmap:%d %s", t.delayID, delayURI)
	}
	if l.kind == "video" {
		describeDescriptor(p, t.described)
	}
	if t.wideID != 0 {
		p("a=extmap:%d %s", t.wideID, wideURI)
		if l.offered { // a peer that tells no arrival times may make an estimate of its own
			feedback = append(feedback, "transport-cc")
		} else {
			feedback[3] = "transport-cc"
		}
	}
	describeFormats(p, l.formats, feedback)
	p("a=msid:%s %s", v.label, id)
	if slices.ContainsFunc(l.formats, func(f format) bool { return f.rtx != 0 }) {
		p("a=ssrc-group:FID %d %d", t.ssrc, t.rtx)
		p("a=ssrc:%d cname:%s", t.ssrc, v.label)
		p("a=ssrc:%d cname:%s", t.rtx, v.label)
		return
	}
	p("a=ssrc:%d cname:%s", t.ssrc, v.label)
}

// soundFeedback is what goes with sound: what is missing is sent again only if the peer asks for that.
func soundFeedback(formats []format) []string {
	if slices.ContainsFunc(formats, func(f format) bool { return f.nack }) {
		return []string{"nack"}
	}
	return nil
}

// MIDs are the media identifications (RFC 5888) of the tracks that are sent.
func (v *Sender) MIDs() []string { return v.mids }
