package crowd

import (
	"fmt"
	"strings"

	"github.com/pion/sdp/v3"
)

// reply answers the offer of a server for a viewer: everything that it sends is taken as it is (RFC 8829 §5.3.1), and DTLS is
// begun by us.
func (o offer) reply(theirs string) (string, error) {
	var d sdp.SessionDescription
	if err := d.UnmarshalString(theirs); err != nil {
		return "", fmt.Errorf("the server's offer can't be used: %w", err)
	}
	var mids []string
	var sections strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&sections, format+"\r\n", args...) }
	for _, m := range d.MediaDescriptions {
		media := m.MediaName
		line := fmt.Sprintf("%s %%d %s %s\r\nc=IN IP4 0.0.0.0", media.Media, strings.Join(media.Protos, "/"), strings.Join(media.Formats, " "))
		mid, _ := m.Attribute("mid")
		sends := media.Port.Value != 0 && (media.Media == "video" || media.Media == "audio" && o.sound)
		if !sends { // a refused section stays, with port 0 (RFC 3264 §6)
			p("m="+line+"\r\na=mid:%s\r\na=inactive", 0, mid)
			continue
		}
		mids = append(mids, mid)
		p("m="+line+"\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:%s\r\na=ice-pwd:%s\r\na=fingerprint:%s\r\na=setup:active", 9, o.ours.ufrag, o.ours.pwd, o.fingerprint)
		p("a=mid:%s\r\na=recvonly\r\na=rtcp-mux", mid)
		for _, a := range m.Attributes {
			switch {
			case a.Key == "rtpmap", a.Key == "fmtp":
				p("a=%s:%s", a.Key, a.Value)
			case a.Key == "rtcp-fb" && !strings.HasSuffix(a.Value, " transport-cc"): // needs an extension, which we don't answer
				p("a=%s:%s", a.Key, a.Value)
			}
		}
	}
	head := fmt.Sprintf("v=0\r\no=- %d 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE %s\r\na=msid-semantic: WMS\r\n", sessionID(o.ours), strings.Join(mids, " "))
	return head + sections.String(), nil
}
