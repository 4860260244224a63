package signal

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"sluice/internal/access"
	"sluice/internal/problem"
	"sluice/media"
)

// Server-sent events of a session: the extension of draft-ietf-wish-whep-03 §4.9. WHIP has one of them under its own name: the one that tells
// a client to open another session, which the gateway leads to another node.
const (
	eventsPath = "events"

	reconnect   = "reconnect"
	active      = "active"   // the publisher sends
	inactive    = "inactive" // it does not any more
	layersEvent = "layers"
	viewerCount = "viewercount"
	// paused tells a publisher of several renditions which of them nobody takes: {"rids": ["f"]}. What is not in the list is wanted.
	paused = "paused"

	// eventsPing is how often an idle event stream says something: proxies cut off what is silent for a minute.
	eventsPing = 15 * time.Second
	// lookEvery is how often a viewer's stream is looked at for news, and countEvery how often its viewers are counted.
	lookEvery  = time.Second
	countEvery = 5 * time.Second
	// maxStreams of events of one session; a client that comes back may be a second one for a while.
	maxStreams = 2
	maxEvents  = 1 << 10 // bytes of the list of wanted events
)

// layered is a publisher's session that knows which renditions nobody takes; changed is closed when that changes. nil: there is one rendition only.
type layered interface {
	Paused() (rids []string, changed <-chan struct{})
}

// renditions are those of a session that publishes several.
func renditions(s Session) (l layered, several bool) {
	l, ok := s.(layered)
	if !ok {
		return nil, false
	}
	_, changed := l.Paused()
	return l, changed != nil
}

// known are the events that a session has.
func (r *Resource) known(s Session) []string {
	_, several := renditions(s)
	switch {
	case several:
		return []string{paused, reconnect}
	case r.cfg.Action == access.Publish:
		return []string{reconnect}
	case r.cfg.Viewers == nil:
		return []string{active, inactive, layersEvent, reconnect}
	}
	return []string{active, inactive, layersEvent, reconnect, viewerCount}
}

func (r *Resource) eventsLink(session string, s Session) string {
	return fmt.Sprintf(`<%s/%s>; rel="urn:ietf:params:%s:ext:core:server-sent-events"; events=%q`, session, eventsPath, r.cfg.Protocol, strings.Join(r.known(s), ","))
}

// events serves /{session}/events: POST says which events are wanted and gets the address of the stream, GET is the stream, of all
// events or of those that ?only= lists.
func (r *Resource) events(w http.ResponseWriter, req *http.Request) {
	const methods = "OPTIONS, GET, POST"
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
	if e == nil {
		r.fail(w, req, problem.New(problem.NoSession, "the session has ended; there is nothing to tell"))
		return
	}
	switch req.Method {
	case http.MethodPost:
		text, err := body(w, req, "application/json", maxEvents)
		var wanted []string
		if err == nil && json.Unmarshal([]byte(text), &wanted) != nil {
			err = problem.New(problem.BadRequest, `the body is a list of events, such as ["reconnect"]`)
		}
		if err != nil {
			r.fail(w, req, err)
			return
		}
		wanted = slices.DeleteFunc(wanted, func(name string) bool { return !slices.Contains(r.known(e.session), name) })
		w.Header().Set("Location", req.URL.EscapedPath()+"?only="+strings.Join(wanted, ","))
		w.WriteHeader(http.StatusCreated)
	case http.MethodGet:
		r.fail(w, req, r.stream(w, req, e))
	default:
		w.Header().Set("Allow", methods)
		r.fail(w, req, problem.New(problem.MethodNotAllowed, "GET the events here"))
	}
}

// stream sends events until the session ends or the client leaves.
func (r *Resource) stream(w http.ResponseWriter, req *http.Request, e *entry) error {
	wanted := r.known(e.session)
	if only := req.URL.Query(); only.Has("only") {
		wanted = strings.Split(only.Get("only"), ",")
	}
	move := make(chan struct{}, 1)
	if !r.listen(e, move, slices.Contains(wanted, reconnect)) {
		return problem.New(problem.TooMany, "the session's events are listened to already")
	}
	defer r.unlisten(e, move)
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // the server's own is for requests that end; not supported: nor is there one
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	send := func(text string) bool {
		_ = control.SetWriteDeadline(time.Now().Add(eventsPing))
		_, err := io.WriteString(w, text)
		return err == nil && control.Flush() == nil
	}
	ping := time.NewTicker(eventsPing)
	defer ping.Stop()
	ok := send("retry: 1000\n\n")
	news := news{of: e, wanted: wanted, viewers: r.cfg.Viewers}
	var look <-chan time.Time
	if news.any() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		look = tick.C
		ok = ok && send(news.look(time.Now()))
	}
	var changed <-chan struct{}
	publisher, several := renditions(e.session)
	tell := func() bool {
		var rids []string
		rids, changed = publisher.Paused()
		text, err := json.Marshal(map[string][]string{"rids": rids})
		return err == nil && send(event(paused, string(text)))
	}
	if several && slices.Contains(wanted, paused) {
		ok = ok && tell()
	}
	for ok {
		select {
		case <-changed:
			ok = tell()
		case <-move:
			ok = send(event(reconnect, "{}"))
		case now := <-look:
			if text := news.look(now); text != "" {
				ok = send(text)
			}
		case <-ping.C:
			ok = send(":\n\n")
		case <-e.gone:
			return nil
		case <-r.quiet.Done():
			return nil
		case <-req.Context().Done():
			return nil
		}
	}
	return nil
}

func event(name, data string) string { return "event: " + name + "\ndata: " + data + "\n\n" }

// news is what one listener has been told of a viewer's stream.
type news struct {
	of      *entry
	wanted  []string
	viewers func(media.Key) int // nil: nobody counts

	live    bool
	shape   string // of the layers
	count   string
	counted time.Time
}

func (n *news) wants(name string) bool { return slices.Contains(n.wanted, name) }

// any reports whether there may be news.
func (n *news) any() bool {
	return n.of.viewer != nil && slices.ContainsFunc(n.wanted, func(name string) bool { return name != reconnect })
}

// look is what is new, as text of the event stream; "": nothing.
func (n *news) look(now time.Time) (text string) {
	if live := n.of.viewer.Live(); live != n.live {
		n.live = live
		name := inactive
		if live {
			name = active
		}
		if n.wants(name) {
			text += event(name, "{}")
		}
	}
	if n.wants(layersEvent) {
		if data, shape := n.of.layers(); data != "" && shape != n.shape {
			n.shape = shape
			text += event(layersEvent, data)
		}
	}
	if n.wants(viewerCount) && n.viewers != nil && now.Sub(n.counted) >= countEvery {
		n.counted = now
		if data := fmt.Sprintf(`{"viewercount":%d}`, n.viewers(n.of.key)); data != n.count {
			n.count = data
			text += event(viewerCount, data)
		}
	}
	return text
}

func (r *Resource) listen(e *entry, move chan struct{}, moves bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.streams >= maxStreams {
		return false
	}
	e.streams++
	if !moves {
		return true
	}
	e.listeners = append(e.listeners, move)
	if e.told { // it came back meanwhile
		move <- struct{}{}
	}
	return true
}

func (r *Resource) unlisten(e *entry, move chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.streams--
	e.listeners = slices.DeleteFunc(e.listeners, func(l chan struct{}) bool { return l == move })
}

// Listening is how many sessions could be told to move and have not been.
func (r *Resource) Listening() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.sessions {
		if e.waits() {
			n++
		}
	}
	return n
}

// waits: the client listens, and was not told to move. The resource's mu is held.
func (e *entry) waits() bool { return !e.told && len(e.listeners) > 0 }

// Move tells n clients, any of those who listen, to open another session.
func (r *Resource) Move(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.sessions {
		if n <= 0 {
			return
		}
		if e.waits() {
			e.told = true
			n--
			for _, l := range e.listeners {
				select {
				case l <- struct{}{}:
				default: // it has one to read
				}
			}
		}
	}
}

// Stay forgets who was told to move, for the node goes on.
func (r *Resource) Stay() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.sessions {
		e.told = false
	}
}

// Shed ends n sessions, any: their clients come back by themselves, and the gateway leads them to other nodes.
func (r *Resource) Shed(n int, reason error) {
	r.mu.Lock()
	var chosen []*entry
	for name, e := range r.sessions {
		if len(chosen) >= n {
			break
		}
		chosen = append(chosen, e)
		r.forgetLocked(name)
	}
	r.mu.Unlock()
	for _, e := range chosen {
		e.session.Close(reason)
	}
}

// Hush ends all event streams, so that an HTTP server can stop.
func (r *Resource) Hush() { r.hush() }
