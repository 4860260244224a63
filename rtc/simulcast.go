package rtc

import (
	"slices"
	"strconv"
	"strings"

	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"

	"sluice/media"
)

// Header extensions that say of which rendition a packet is (RFC 8852 §3).
const (
	midURI    = "urn:ietf:params:rtp-hdrext:sdes:mid"
	ridURI    = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
	repairURI = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
)

// layers are the renditions in which a peer sends its picture at once (RFC 8853), the best first.
type layers struct {
	rids                   []string
	midID, ridID, repairID uint8 // of the header extensions
}

// maxLayers is how many are taken.
const maxLayers = 4

// simulcast reads the rid, simulcast and extmap lines of a media line that is sent.
func simulcast(m *sdp.MediaDescription) (l layers) {
	var offered []string
	for _, a := range m.Attributes {
		switch a.Key {
		case "simulcast": // send h;m,m2;~l: alternatives by comma, and those that are paused at first by ~ (RFC 8853 §5.1)
			f := strings.Fields(a.Value)
			for i := 0; i+1 < len(f); i += 2 {
				if f[i] != "send" {
					continue
				}
				for stream := range strings.SplitSeq(f[i+1], ";") {
					rid, _, _ := strings.Cut(stream, ",")
					offered = append(offered, strings.TrimPrefix(rid, "~"))
				}
			}
		case "extmap":
			number, uri, _ := strings.Cut(a.Value, " ")
			number, _, _ = strings.Cut(number, "/")
			id, err := strconv.ParseUint(number, 10, 8)
			if err != nil || id < 1 || id > 14 {
				continue
			}
			switch strings.TrimSpace(uri) {
			case midURI:
				l.midID = uint8(id)
			case ridURI:
				l.ridID = uint8(id)
			case repairURI:
				l.repairID = uint8(id)
			}
		}
	}
	if l.ridID == 0 {
		return layers{}
	}
	for _, rid := range offered {
		if validRID(rid) && !slices.Contains(l.rids, rid) && len(l.rids) < maxLayers {
			l.rids = append(l.rids, rid)
		}
	}
	if len(l.rids) < 2 {
		return layers{}
	}
	l.rids = ordered(l.rids)
	return l
}

// validRID is RFC 8851 §10: letters and digits, of which senders make use of up to 16.
func validRID(s string) bool {
	return s != "" && len(s) <= 16 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	})
}

// ordered puts the names that senders usually give in order, the largest rendition first: the description does not say which it is. Others
// stay as they were offered.
func ordered(rids []string) []string {
	for _, usual := range [][]string{{"f", "h", "q"}, {"h", "m", "l"}, {"high", "mid", "low"}, {"hi", "mid", "lo"}, {"high", "medium", "low"}} {
		if !slices.ContainsFunc(rids, func(r string) bool { return !slices.Contains(usual, r) }) {
			slices.SortFunc(rids, func(a, b string) int { return slices.Index(usual, a) - slices.Index(usual, b) })
			break
		}
	}
	return rids
}

// describe writes the lines of an answer that takes all layers.
func (l layers) describe(p printer) {
	for _, e := range []struct {
		id  uint8
		uri string
	}{{l.midID, midURI}, {l.ridID, ridURI}, {l.repairID, repairURI}} {
		if e.id != 0 {
			p("a=extmap:%d %s", e.id, e.uri)
		}
	}
	for _, rid := range l.rids {
		p("a=rid:%s recv", rid)
	}
	p("a=simulcast:recv %s", strings.Join(l.rids, ";"))
}

// trackOf finds the track of a packet: by its payload type, and where several share one by its source, which is known from packets that name
// their rendition (RFC 8852 §3.3). again: it is a packet that is sent again.
func (r *Receiver) trackOf(h *rtp.Header) (track int, again bool) {
	track = -1
	for i := range r.lanes {
		l := &r.lanes[i]
		again = l.rtxPT != 0 && l.rtxPT == h.PayloadType
		if l.pt != h.PayloadType && !again && (l.redPT == 0 || l.redPT != h.PayloadType) {
			continue
		}
		if l.rid == "" {
			return i, again
		}
		if again && l.repair == h.SSRC || !again && r.ssrcs[i].Load() == h.SSRC {
			return i, again
		}
		if track < 0 {
			track = i
		}
	}
	if track < 0 {
		return -1, false
	}
	again = r.lanes[track].pt != h.PayloadType
	name := string(h.GetExtension(r.layers.ridID))
	if again {
		name = string(h.GetExtension(r.layers.repairID))
	}
	for i := range r.lanes {
		if r.lanes[i].rid != "" && r.lanes[i].rid == name {
			return i, again
		}
	}
	return -1, false
}

// renditions are the tracks of a picture that comes in layers; the first is the picture itself.
func (l layers) renditions(t media.Track) (all []media.Track) {
	for _, rid := range l.rids[1:] {
		t.Rendition = rid
		all = append(all, t)
	}
	return all
}
