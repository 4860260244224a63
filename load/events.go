package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// errNoEvents: the server does not tell this session anything.
var errNoEvents = errors.New("the session has no events")

const (
	eventsAgain = time.Second      // until a stream of events that broke off is opened again
	eventsQuiet = 45 * time.Second // servers say something every 15 s or so
	eventsBytes = 64 << 10         // of one line
)

// eventsLink finds the address of server-sent events in the Link headers of an answer (RFC 8288 §3), "" when there is none.
func eventsLink(h http.Header) string {
	for _, line := range h.Values("Link") {
		if m := linkValue.FindStringSubmatch(line); m != nil {
			return m[1]
		}
	}
	return ""
}

// linkValue: that of WHEP, and its like for WHIP.
var linkValue = regexp.MustCompile(`<([^>]*)>[^<]*;\s*rel="?urn:ietf:params:whe?i?p:ext:core:server-sent-events"?`)

// AwaitMove waits until the server asks the client to open another session: then it is nil. While the session's events can't be
// had it tries again; an error says that they never will be, or that ctx has ended.
func (r *Resource) AwaitMove(ctx context.Context) error {
	if r.events == "" {
		return errNoEvents
	}
	for {
		moved, err := r.listen(ctx)
		if moved {
			return nil
		}
		if errors.Is(err, errNoEvents) {
			return err
		}
		timer := time.NewTimer(eventsAgain)
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// listen reads events until one says that we shall move.
func (r *Resource) listen(ctx context.Context) (moved bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.events, nil)
	if err != nil {
		return false, errNoEvents
	}
	req.Header.Set("Accept", "text/event-stream")
	if r.client.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.client.token)
	}
	resp, err := r.client.events.Do(req)
	if err != nil {
		return false, reached(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 == 4 || resp.StatusCode == http.StatusNoContent {
		return false, errNoEvents
	}
	if resp.StatusCode != http.StatusOK {
		return false, fmt.Errorf("read events: %s", resp.Status)
	}
	quiet := time.AfterFunc(eventsQuiet, cancel)
	defer quiet.Stop()
	lines := bufio.NewScanner(io.Reader(resp.Body))
	lines.Buffer(nil, eventsBytes)
	for lines.Scan() {
		quiet.Reset(eventsQuiet)
		if name, ok := strings.CutPrefix(lines.Text(), "event:"); ok && strings.TrimSpace(name) == "reconnect" {
			return true, nil
		}
	}
	return false, lines.Err()
}

// eventsAt resolves the address of a session's events; where it must not lead there are none.
func (c *Client) eventsAt(base *url.URL, link string) string {
	at, err := base.Parse(link)
	if link == "" || err != nil || c.follow(base, at) != nil {
		return ""
	}
	return at.String()
}
