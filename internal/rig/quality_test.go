package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sluice/media"
)

// An edge that nobody watches at tells of all renditions of a stream.
func TestStreamInfoBeforeTheFirstViewer(t *testing.T) {
	c := Start(t, Options{Edges: 1})
	key := media.Key{App: "live", ID: "asked"}
	c.ladderOf(c.Node("origin-1").Hub(), key)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://"+c.Node("edge-1").HTTPAddr()+"/live/websocket", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.CloseNow() }()
	c.Poll(15*time.Second, func() error { // the edge learns of the stream in a moment, and of its renditions
		if err := ws.Write(ctx, websocket.MessageText, []byte(`{"command":"getStreamInfo","streamId":"asked"}`)); err != nil {
			t.Fatal(err)
		}
		_, b, err := ws.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var m struct {
			StreamInfo []struct{ VideoBitrate int }
		}
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		if len(m.StreamInfo) != len(renditions()) {
			return fmt.Errorf("the answer is %s", b)
		}
		for i, r := range renditions() {
			if got := m.StreamInfo[i].VideoBitrate; got < r.rate()/2 || got > r.rate()*3/2 {
				return fmt.Errorf("rendition %q has %d bit/s, want about %d", r.name, got, r.rate())
			}
		}
		return nil
	})
	if i, _ := c.Node("edge-1").Hub().Info(key); i.Viewers != 0 {
		t.Errorf("who asked counts as %d viewers", i.Viewers)
	}
}
