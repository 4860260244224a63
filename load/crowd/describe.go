package crowd

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"

	"sluice/load"
)

// wideID is the header extension with transport-wide numbers that we offer, as Chromium numbers it; wideURI is its name.
const (
	wideID  = 3
	wideURI = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
)

// credentials are the ICE credentials of one side (RFC 8445 §5.3).
type credentials struct{ ufrag, pwd string }

func newCredentials() credentials { return credentials{rand.Text()[:8], rand.Text()} }

// Payload types that we offer, as Chromium numbers them.
const (
	ptVP8, ptVP8RTX   = 96, 97
	ptH264, ptH264RTX = 102, 103
	ptOpus            = 111
)

// offer describes a session: as a browser that watches does, or one that sends H.264 and Opus from the given sources.
type offer struct {
	ours         credentials
	fingerprint  string
	publish      bool
	sound        bool
	video, again uint32 // SSRCs, when publishing
	audio        uint32
}

// describe is our offer, or the answer to theirs.
func (o offer) describe(theirs string) (string, error) {
	if theirs == "" {
		return o.String(), nil
	}
	return o.reply(theirs)
}

func (o offer) String() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	direction, mids := "recvonly", "0 1"
	if o.publish {
		direction = "sendonly"
	}
	if !o.sound {
		mids = "0"
	}
	p("v=0\r\no=- %d 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0", sessionID(o.ours))
	p("a=group:BUNDLE %s\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS", mids)
	section := func(kind string, mid int, formats string) {
		p("m=%s 9 UDP/TLS/RTP/SAVPF %s\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0", kind, formats)
		p("a=ice-ufrag:%s\r\na=ice-pwd:%s\r\na=ice-options:trickle\r\na=fingerprint:%s\r\na=setup:actpass", o.ours.ufrag, o.ours.pwd, o.fingerprint)
		p("a=mid:%d\r\na=%s\r\na=rtcp-mux\r\na=rtcp-rsize", mid, direction)
		if !o.publish {
			p("a=extmap:%d %s", wideID, wideURI)
		}
	}
	repairable := func(pt, rtx int) {
		for _, fb := range []string{"goog-remb", "ccm fir", "nack", "nack pli"} {
			p("a=rtcp-fb:%d %s", pt, fb)
		}
		if !o.publish {
			p("a=rtcp-fb:%d transport-cc", pt)
		}
		p("a=rtpmap:%d rtx/90000\r\na=fmtp:%d apt=%d", rtx, rtx, pt)
	}
	formats := fmt.Sprint(ptH264, " ", ptH264RTX)
	if !o.publish {
		formats += fmt.Sprint(" ", ptVP8, " ", ptVP8RTX)
	}
	section("video", 0, formats)
	p("a=rtpmap:%d H264/90000\r\na=fmtp:%d level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f", ptH264, ptH264)
	repairable(ptH264, ptH264RTX)
	if o.publish {
		p("a=msid:load video\r\na=ssrc-group:FID %d %d\r\na=ssrc:%d cname:load\r\na=ssrc:%d cname:load", o.video, o.again, o.video, o.again)
	} else {
		p("a=rtpmap:%d VP8/90000", ptVP8)
		repairable(ptVP8, ptVP8RTX)
	}
	if o.sound {
		section("audio", 1, fmt.Sprint(ptOpus))
		p("a=rtpmap:%d opus/48000/2\r\na=fmtp:%d minptime=10;useinbandfec=1", ptOpus, ptOpus)
		if o.publish {
			p("a=msid:load audio\r\na=ssrc:%d cname:load", o.audio)
		}
	}
	return b.String()
}

// sessionID is a number of 63 bits (RFC 8829 §5.2.1).
func sessionID(c credentials) int64 {
	sum := sha256.Sum256([]byte(c.ufrag + c.pwd))
	var n int64
	for _, b := range sum[:8] {
		n = n<<8 | int64(b)
	}
	return n &^ (-1 << 63)
}

// answer is what the server says of a session.
type answer struct {
	theirs  credentials
	prints  [][sha256.Size]byte
	active  bool // the server begins DTLS
	at      []netip.AddrPort
	formats map[uint8]format
	wide    bool // packets have transport-wide numbers, of whose arrival the server is told
}

// format is what a payload type means.
type format struct {
	codec   string
	rate    int64
	video   bool
	repairs uint8 // it carries what was lost of this payload type (RFC 4588); 0: it is media
}

var errAnswer = errors.New("the server's answer can't be used")

func parseAnswer(text string) (*answer, error) {
	var d sdp.SessionDescription
	if err := d.UnmarshalString(text); err != nil {
		return nil, fmt.Errorf("%w: %w", errAnswer, err)
	}
	a := &answer{formats: map[uint8]format{}}
	a.transport(d.Attributes)
	for _, m := range d.MediaDescriptions {
		a.transport(m.Attributes)
		if m.MediaName.Port.Value == 0 || m.MediaName.Media != "video" && m.MediaName.Media != "audio" {
			continue
		}
		a.media(m)
	}
	switch {
	case a.theirs.ufrag == "" || a.theirs.pwd == "":
		return nil, fmt.Errorf("%w: it has no ice-ufrag or ice-pwd", errAnswer)
	case len(a.prints) == 0:
		return nil, fmt.Errorf("%w: it has no sha-256 fingerprint", errAnswer)
	case len(a.formats) == 0:
		return nil, fmt.Errorf("%w: it has no codec in common with us", load.ErrNoMedia)
	case len(a.at) == 0:
		return nil, fmt.Errorf("%w: the server's answer has no UDP candidate", load.ErrNoMedia)
	}
	return a, nil
}

// transport takes the lines that may stand before or in a media section. With BUNDLE all say the same.
func (a *answer) transport(lines []sdp.Attribute) {
	for _, l := range lines {
		switch l.Key {
		case "ice-ufrag":
			a.theirs.ufrag = l.Value
		case "ice-pwd":
			a.theirs.pwd = l.Value
		case "setup":
			a.active = l.Value == "active"
		case "fingerprint":
			hash, value, _ := strings.Cut(l.Value, " ")
			b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(value), ":", ""))
			if strings.EqualFold(hash, "sha-256") && err == nil && len(b) == sha256.Size {
				a.prints = append(a.prints, [sha256.Size]byte(b))
			}
		case "candidate":
			if at, ok := parseCandidate(l.Value); ok && !slices.Contains(a.at, at) {
				a.at = append(a.at, at)
			}
		}
	}
}

// parseCandidate reads a UDP host candidate (RFC 8839 §5.1). Names (mDNS) are not looked up: servers give addresses.
func parseCandidate(s string) (netip.AddrPort, bool) {
	f := strings.Fields(s)
	if len(f) < 8 || f[1] != "1" || !strings.EqualFold(f[2], "udp") {
		return netip.AddrPort{}, false
	}
	ip, err := netip.ParseAddr(f[4])
	port, perr := strconv.ParseUint(f[5], 10, 16)
	if err != nil || perr != nil || port == 0 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)), true
}

func (a *answer) media(m *sdp.MediaDescription) {
	video := m.MediaName.Media == "video"
	apt := map[string]string{}
	for _, l := range m.Attributes {
		if pt, params, ok := strings.Cut(l.Value, " "); ok && l.Key == "fmtp" {
			if main, ok := strings.CutPrefix(params, "apt="); ok {
				apt[pt] = main
			}
		}
	}
	for _, l := range m.Attributes {
		if l.Key == "extmap" && l.Value == fmt.Sprint(wideID, " ", wideURI) {
			a.wide = true
		}
		if l.Key != "rtpmap" {
			continue
		}
		pt, name, _ := strings.Cut(l.Value, " ")
		n, err := strconv.ParseUint(pt, 10, 7)
		parts := strings.Split(name, "/")
		if err != nil || len(parts) < 2 {
			continue
		}
		rate, err := strconv.ParseInt(parts[1], 10, 32)
		if err != nil || rate <= 0 {
			continue
		}
		f := format{codec: parts[0], rate: rate, video: video}
		if strings.EqualFold(f.codec, "rtx") {
			main, err := strconv.ParseUint(apt[pt], 10, 7)
			if err != nil {
				continue
			}
			f.repairs = uint8(main)
		}
		a.formats[uint8(n)] = f
	}
}

// keep drops the candidates that are not allowed. With none left it is an error.
func (a *answer) keep(allowed func(netip.Addr) bool) error {
	if allowed == nil {
		return nil
	}
	all := slices.Clone(a.at)
	a.at = slices.DeleteFunc(a.at, func(p netip.AddrPort) bool { return !allowed(p.Addr()) })
	if len(a.at) == 0 {
		return fmt.Errorf("the server's answer sends media to %s, which is not this machine: %w", all[0].Addr(), ErrNotYours)
	}
	return nil
}

// order puts the candidates in the order of trying: what HTTP has reached first, and loopback last unless HTTP came that way.
func (a *answer) order(reached netip.Addr) {
	rank := func(p netip.AddrPort) int {
		switch {
		case p.Addr() == reached:
			return 0
		case p.Addr().IsLoopback() != reached.IsLoopback():
			return 2
		}
		return 1
	}
	slices.SortStableFunc(a.at, func(x, y netip.AddrPort) int { return rank(x) - rank(y) })
}

// formatFingerprint writes a certificate's fingerprint (RFC 8122 §5).
func formatFingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	var out strings.Builder
	out.WriteString("sha-256 ")
	for i, b := range sum {
		if i > 0 {
			out.WriteByte(':')
		}
		fmt.Fprintf(&out, "%02X", b)
	}
	return out.String()
}
