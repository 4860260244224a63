package signal

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	egress "sluice/egress/webrtc"
	"sluice/internal/problem"
	"sluice/media"
)

// The layers extension of draft-ietf-wish-whep-03 §4.9: a viewer chooses among the renditions of the picture. Ours beyond it: enabled, by which a viewer
// does without picture or sound for a while.
const (
	layerPath = "layer"
	layerURN  = "urn:ietf:params:whep:ext:core:layer"
	// wholeRID names the picture as it is published, which has no name of its own.
	wholeRID   = "source"
	maxLayer   = 1 << 10 // bytes of a choice
	maxMediaID = 3       // characters
)

// viewer is a session of somebody who watches.
type viewer interface {
	Qualities() []egress.Quality // the best first
	Pin(track int) bool
	Adapt(width, height int)
	Show(kind media.Kind, on bool)
	Live() bool
}

// kindsOf are the kinds of medium of a description's lines; 0: of data, or of what was refused.
func kindsOf(sdp string) (kinds []media.Kind) {
	for line := range strings.Lines(sdp) {
		m, ok := strings.CutPrefix(line, "m=")
		if !ok {
			continue
		}
		name, rest, _ := strings.Cut(m, " ")
		kind := media.Kind(0)
		for _, k := range []media.Kind{media.Audio, media.Video} {
			if name == k.String() && !strings.HasPrefix(rest, "0 ") {
				kind = k
			}
		}
		kinds = append(kinds, kind)
	}
	return kinds
}

// lineOf is the index of the first line of a kind; -1: there is none.
func (e *entry) lineOf(kind media.Kind) int {
	for i, k := range e.kinds {
		if k == kind {
			return i
		}
	}
	return -1
}

// layer is a rendition in the layers event. One without a bitrate does not come to this node at the moment, but may be chosen.
type layer struct {
	RID           string `json:"rid"`
	Bitrate       int    `json:"bitrate,omitempty"`       // bit/s
	TargetBitrate int    `json:"targetBitrate,omitempty"` // the same, where it does not come
	Width         int    `json:"width,omitempty"`         // pixels
	Height        int    `json:"height,omitempty"`
}

func ridOf(q egress.Quality) string {
	if q.Name == "" {
		return wholeRID
	}
	return q.Name
}

// layers is the data of the layers event, and its part that is worth an event when it changes; "" when nothing is known.
func (e *entry) layers() (data, shape string) {
	line := e.lineOf(media.Video)
	if line < 0 {
		return "", ""
	}
	var all []layer
	for _, q := range e.viewer.Qualities() {
		l := layer{RID: ridOf(q), Width: q.Width, Height: q.Height}
		if q.Flowing {
			l.Bitrate = q.Bitrate
		} else {
			l.TargetBitrate = q.Bitrate
		}
		all = append(all, l)
		shape += fmt.Sprintf("%s %d %d %t\n", l.RID, l.Width, l.Height, q.Flowing)
	}
	if len(all) == 0 {
		return "", ""
	}
	b, _ := json.Marshal(map[string][]layer{strconv.Itoa(line): all}) // strings and numbers
	return string(b), shape
}

// selection is what a viewer wants of a media line. It takes the place of what he wanted before.
type selection struct {
	MediaID         *word  `json:"mediaId"` // index of the line; default the picture's
	RID             string `json:"rid"`
	EncodingID      string `json:"encodingId"` // the same in earlier drafts
	SpatialLayerID  int    `json:"spatialLayerId"`
	TemporalLayerID int    `json:"temporalLayerId"`
	MaxWidth        int    `json:"maxWidth"` // pixels; 0: no limit
	MaxHeight       int    `json:"maxHeight"`
	Enabled         *bool  `json:"enabled"` // default true
}

// word is a string that some send as a number.
type word string

// UnmarshalJSON implements json.Unmarshaler.
func (w *word) UnmarshalJSON(b []byte) error {
	var n json.Number
	err := json.Unmarshal(b, &n)
	if err != nil {
		err = json.Unmarshal(b, (*string)(w))
	} else {
		*w = word(n)
	}
	if len(*w) > maxMediaID {
		return fmt.Errorf("a mediaId has at most %d characters", maxMediaID)
	}
	return err
}

// layer serves /{session}/layer.
func (r *Resource) layer(w http.ResponseWriter, req *http.Request) {
	const methods = "OPTIONS, POST"
	if !r.cors(w, req) {
		return
	}
	if req.Method == http.MethodOptions {
		w.Header().Set("Allow", methods)
		w.Header().Set("Accept-Post", "application/json")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	e := r.find(req)
	switch {
	case e == nil:
		r.fail(w, req, problem.New(problem.NoSession, "the session has ended; there is nothing to choose"))
	case req.Method != http.MethodPost:
		w.Header().Set("Allow", methods)
		r.fail(w, req, problem.New(problem.MethodNotAllowed, "POST a choice here"))
	case e.viewer == nil:
		r.fail(w, req, problem.New(problem.NotFound, "a publisher has nothing to choose"))
	default:
		r.fail(w, req, e.choose(w, req))
	}
}

// choose does what a viewer's selection says.
func (e *entry) choose(w http.ResponseWriter, req *http.Request) error {
	text, err := body(w, req, "application/json", maxLayer)
	if err != nil {
		return err
	}
	var s selection
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return problem.New(problem.BadRequest, `the body is an object such as {"mediaId":"0","rid":"480p"}: `+err.Error())
	}
	if s.RID == "" {
		s.RID = s.EncodingID
	}
	if s.MaxWidth < 0 || s.MaxHeight < 0 {
		return problem.New(problem.BadRequest, "maxWidth and maxHeight are pixels")
	}
	line := e.lineOf(media.Video)
	if s.MediaID != nil {
		n, err := strconv.Atoi(string(*s.MediaID))
		if err != nil || n < 0 || n >= len(e.kinds) {
			return problem.New(problem.NoLayer, fmt.Sprintf("there is no media line %q; the first is \"0\"", string(*s.MediaID)))
		}
		line = n
	}
	if line < 0 || e.kinds[line] == 0 {
		return problem.New(problem.NoLayer, "nothing is sent by that media line")
	}
	kind := e.kinds[line]
	if s.SpatialLayerID != 0 || s.TemporalLayerID != 0 || kind == media.Audio && s.RID != "" {
		return problem.New(problem.NoLayer, "a layer is chosen by the rid of a picture; there are no spatial and temporal ones")
	}
	if kind == media.Video {
		if err := e.take(s); err != nil {
			return err
		}
	}
	e.viewer.Show(kind, s.Enabled == nil || *s.Enabled)
	w.WriteHeader(http.StatusOK)
	return nil
}

// take chooses the rendition.
func (e *entry) take(s selection) error {
	if s.RID == "" {
		e.viewer.Adapt(s.MaxWidth, s.MaxHeight)
		return nil
	}
	var names []string
	for _, q := range e.viewer.Qualities() {
		if ridOf(q) == s.RID && e.viewer.Pin(q.Track) {
			return nil
		}
		names = append(names, ridOf(q))
	}
	return problem.New(problem.NoLayer, "there are: "+strings.Join(names, ", "))
}
