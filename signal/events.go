package signal

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"sluice/internal/problem"
)

// Server-sent events of a session: the extension of draft-murillo-whep-03 §4.8.1, of whose events we have the one that tells a
// client to open another session, which the gateway leads to another node. WHIP has the same under its own name.
const (
	eventsPath = "events"
	reconnect  = "reconnect"
	// eventsPing is how often an idle event stream says something: proxies cut off what is silent for a minute.
	eventsPing = 15 * time.Second
	// maxListeners of one session; a client that comes back may be a second one for a while.
	maxListeners = 2
	maxEvents    = 1 << 10 // bytes of the list of wanted events
)

func (r *Resource) eventsLink(session string) string {
	return fmt.Sprintf(`<%s/%s>; rel="urn:ietf:params:%s:ext:core:server-sent-events"; events=%q`, session, eventsPath, r.cfg.Protocol, reconnect)
}

// events serves /{session}/events: POST says which events are wanted and gets the address of the stream, which is the same; GET is it.
func (r *Resource) events(w http.ResponseWriter, req *http.Request) {
	const methods = "OPTIONS, GET, POST"
	cors(w)
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
		w.Header().Set("Location", req.URL.EscapedPath())
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
	move := make(chan struct{}, 1)
	if !r.listen(e, move) {
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
	for ok {
		select {
		case <-move:
			ok = send("event: " + reconnect + "\ndata: {}\n\n")
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

func (r *Resource) listen(e *entry, move chan struct{}) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(e.listeners) >= maxListeners {
		return false
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
