package signal_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/media"
	"sluice/stream"
)

// renditions publishes a stream whose picture is there in several sizes, and returns its publisher.
func (s *server) renditions(t *testing.T, id string) *stream.Publisher {
	t.Helper()
	tracks := []media.Track{h264, opus}
	for _, r := range []media.Track{{Rendition: "480p", Height: 480, Bitrate: 800_000}, {Rendition: "240p", Height: 240, Bitrate: 400_000}} {
		r.Kind, r.Codec = h264.Kind, h264.Codec
		tracks = append(tracks, r)
	}
	p, err := s.hub.Publish(t.Context(), media.Key{App: "live", ID: id}, stream.PublishOptions{Tracks: tracks})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(stream.ErrStopped) })
	return p
}

// beep is a packet of sound.
func beep(seq uint16) *media.Burst {
	b := media.NewBurst(1, uint32(seq)*960)
	b.Arrived = time.Now().UnixNano()
	b.Append(seq, false, []byte{1, 2, 3})
	return b
}

func TestViewersAreToldOfTheStream(t *testing.T) {
	s := serve(t)
	p := s.renditions(t, "one")
	session, links := s.played(t, "one")
	for _, want := range []string{
		fmt.Sprintf(`<%s/events>; rel="urn:ietf:params:whep:ext:core:server-sent-events"; events="active,inactive,layers,reconnect,viewercount"`, session),
		fmt.Sprintf(`<%s/layer>; rel="urn:ietf:params:whep:ext:core:layer"`, session),
	} {
		if !strings.Contains(links, want) {
			t.Errorf("no link %s in\n%s", want, links)
		}
	}
	p.Write(beep(1))
	lines, few := s.events(t, session), s.events(t, session, "inactive")
	for _, want := range []string{"active {}", `layers {"0":[{"rid":"480p","targetBitrate":800000,"height":480},{"rid":"240p","targetBitrate":400000,"height":240}]}`, `viewercount {"viewercount":7}`} {
		if got := say(lines); got != want {
			t.Errorf("told %s, want %s", got, want)
		}
	}
	if n := s.whep.Listening(); n != 1 { // the other one did not ask for it
		t.Errorf("%d could be told to move", n)
	}
	if got := say(few); got != "inactive {}" { // a second later
		t.Errorf("who asked for little is told %s", got)
	}
	if got := say(lines); got != "inactive {}" {
		t.Errorf("told %s when the publisher fell silent", got)
	}
}

func TestViewersChooseALayer(t *testing.T) {
	s := serve(t)
	s.renditions(t, "one")
	watching, _ := s.played(t, "one")
	publishing, _ := s.published(t, "two")
	const js = "application/json"
	for _, c := range []struct {
		name, method, session, contentType, body string
		status                                   int
		code                                     string
	}{
		{"a rendition", "POST", watching, js, `{"mediaId":"0","rid":"480p"}`, 200, ""},
		{"as earlier drafts have it, and the line by number", "POST", watching, js, `{"mediaId":0,"encodingId":"240p"}`, 200, ""},
		{"the first picture", "POST", watching, js, `{"rid":"480p"}`, 200, ""},
		{"what the path takes", "POST", watching, js, `{"mediaId":"0"}`, 200, ""},
		{"at most so large", "POST", watching, js, `{"maxWidth":640,"maxHeight":360}`, 200, ""},
		{"no picture", "POST", watching, js, `{"enabled":false}`, 200, ""},
		{"members of other drafts", "POST", watching, js, `{"spatialLayerId":0,"maxTemporalLayerId":1,"other":[]}`, 200, ""},
		{"another rendition than there is", "POST", watching, js, `{"rid":"720p"}`, 404, "no_layer"},
		{"another line than there is", "POST", watching, js, `{"mediaId":"1","enabled":false}`, 404, "no_layer"},
		{"a line that is none", "POST", watching, js, `{"mediaId":"video"}`, 400, "bad_request"},
		{"a spatial layer", "POST", watching, js, `{"spatialLayerId":1}`, 404, "no_layer"},
		{"less than nothing", "POST", watching, js, `{"maxHeight":-1}`, 400, "bad_request"},
		{"of the wrong type", "POST", watching, js, `{"rid":480}`, 400, "bad_request"},
		{"a list", "POST", watching, js, `[]`, 400, "bad_request"},
		{"nothing", "POST", watching, js, ``, 400, "bad_request"},
		{"a line that is an object", "POST", watching, js, `{"mediaId":{}}`, 400, "bad_request"},
		{"too long", "POST", watching, js, `{"rid":"` + strings.Repeat("x", 2000) + `"}`, 413, "too_large"},
		{"of another content type", "POST", watching, sdp, `{}`, 415, "wrong_media_type"},
		{"GET", "GET", watching, "", "", 405, "method_not_allowed"},
		{"a browser asks before", "OPTIONS", watching, "", "", 204, ""},
		{"a publisher", "POST", publishing, js, `{}`, 404, "not_found"},
		{"a session that is not there", "POST", watching + "x", js, `{}`, 404, "no_session"},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, text, code := s.do(t, c.method, c.session+"/layer", c.contentType, c.body)
			if res.StatusCode != c.status || code != c.code {
				t.Errorf("%s %s", res.Status, text)
			}
		})
	}
}
