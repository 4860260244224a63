package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"sluice/cluster"
	"sluice/internal/trace"
	"sluice/media"
)

const (
	maxEarly      = 64               // messages kept until the stream is named
	maxEarlyBytes = 256 << 10        // and their size
	socketWrite   = 10 * time.Second // for one message to be taken, by either side
	socketDial    = 5 * time.Second  // for a node's handshake
	maxReason     = 123              // bytes of a close reason. RFC 6455 §5.5
)

// message is one WebSocket message.
type message struct {
	kind websocket.MessageType
	data []byte
}

// socket is a client's WebSocket, its node's, and what goes from one to the other. Three goroutines:
// one reads the client, one reads the node and writes to the client, and
// serve, which writes to the node, pings it, and ends all.
type socket struct {
	h      *handler
	req    *http.Request
	client *websocket.Conn
	node   *websocket.Conn
	heard  atomic.Int64 // UnixNano of the client's last sign of life
	in     chan message // from the client; closed after its last message
	left   chan error   // why reading from the client ended; cap 1
	early  []message    // read before there was a node, and until a node has taken the client
	taken  atomic.Bool  // a node has: what is said now is for this node alone
	tried  map[string]bool
	key    media.Key     // the stream they name
	served *cluster.Node // for the log
}

// serveSocket accepts the upgrade before it knows the node: the stream is in the messages.
func (h *handler) serveSocket(w *response, r *http.Request) {
	g := h.g
	if !h.g.placer.ready(h.role) {
		h.noNode(w, r)
		return
	}
	s := &socket{h: h, req: r, in: make(chan message), left: make(chan error, 1), tried: map[string]bool{}}
	var err error
	s.client, err = websocket.Accept(w, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // the node sees Origin and Host, and decides
		OnPingReceived:     func(context.Context, []byte) bool { s.touch(); return true },
	})
	if err != nil { // Accept has answered
		return
	}
	w.status = http.StatusSwitchingProtocols
	s.client.SetReadLimit(g.cfg.MaxMessage)
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	done := make(chan struct{})
	s.touch()
	go func() { defer close(done); s.readClient(ctx) }()
	s.serve(ctx)
	cancel()
	_ = s.client.CloseNow()
	<-done
}

func (s *socket) touch() { s.heard.Store(time.Now().UnixNano()) }

func (s *socket) readClient(ctx context.Context) {
	defer close(s.in)
	for {
		kind, data, err := s.client.Read(ctx)
		if err != nil {
			s.left <- err
			return
		}
		s.touch()
		select {
		case s.in <- message{kind, data}:
		case <-ctx.Done():
			s.left <- ctx.Err()
			return
		}
	}
}

// serve places the socket, joins both ends, and says good-bye to both.
func (s *socket) serve(ctx context.Context) {
	if !s.gather() {
		return // the client left, or the gateway stops
	}
	if err := s.dial(ctx); err != nil {
		code, reason := websocket.StatusTryAgainLater, "no server is ready; connect again in a few seconds"
		var said *refusal
		if errors.As(err, &said) {
			code, reason = websocket.StatusPolicyViolation, said.reason
		}
		if errors.Is(err, errNoNode) {
			s.h.door.refused.Add(1)
			s.h.g.meters.noNode.Add(s.h.door.name)
		}
		s.bye(s.client, code, reason)
		return
	}
	for {
		full := s.join(ctx)
		if full == nil {
			return
		}
		if !s.another(ctx) { // the client hears it from the node that was asked first to have room, and may ask again
			s.taken.Store(true)
			if write(ctx, s.client, *full) != nil {
				_ = s.node.CloseNow()
				return
			}
			s.early = nil
		}
	}
}

// join joins the client and its node until one of them ends. If the node has no room and nothing has begun yet, its answer is returned
// and both are still open.
func (s *socket) join(ctx context.Context) (full *message) {
	log := trace.Log(s.req.Context(), s.h.g.log).With("port", s.h.door.name, "node", s.served.ID, "stream", s.key.String(), "peer", s.h.g.client.Of(s.req).String())
	log.Debug("socket is open")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	down := make(chan error, 1)
	go func() { down <- s.copyDown(ctx) }()
	why, ended := s.pump(ctx, down)
	var said *fullError
	if errors.As(why, &said) {
		log.Debug("node has no room")
		return &said.answer
	}
	cancel()
	_ = s.node.CloseNow()
	if !ended {
		<-down
	}
	log.Debug("socket is closed", "why", why)
	return nil
}

// another moves a client that nothing has begun for to another node; false when there is none.
func (s *socket) another(ctx context.Context) bool {
	old := s.node
	if len(s.tried) >= maxTries || s.dial(ctx) != nil {
		return false
	}
	_ = old.CloseNow()
	return true
}

// fullError is a node's answer that it has no room.
type fullError struct{ answer message }

func (e *fullError) Error() string { return "node has no room" }

// answered looks at what a node says first: whether it has taken the client, or has no room. A pong and the list of ICE servers
// are neither.
func answered(m message) (taken, full bool) {
	var v struct{ Command, Definition string }
	if m.kind != websocket.MessageText || json.Unmarshal(m.data, &v) != nil {
		return true, false
	}
	switch v.Command {
	case "pong", "iceServerConfig":
		return false, false
	case "error":
		full = v.Definition == "highResourceUsage"
	}
	return !full, full
}

// gather reads messages until one names a stream, FirstMessage has passed, or enough has
// come. False: there is nobody to serve.
func (s *socket) gather() bool {
	timer := time.NewTimer(s.h.g.cfg.FirstMessage)
	defer timer.Stop()
	size := 0
	for {
		select {
		case m, ok := <-s.in:
			if !ok {
				return false
			}
			s.early = append(s.early, m)
			size += len(m.data)
			s.key = streamNamed(m, s.req.URL.Path)
			if s.key != (media.Key{}) || len(s.early) >= maxEarly || size >= maxEarlyBytes {
				return true
			}
		case <-timer.C:
			return true
		case <-s.h.g.stopping.Done():
			s.bye(s.client, websocket.StatusGoingAway, "the gateway is stopping; connect again")
			return false
		}
	}
}

// streamNamed returns the stream that a message is about; the zero key when it names none, as ping and
// getIceServerConfig. Which command it is does not matter: the port has decided what the client
// gets, and everything about a stream is best asked where the stream is.
func streamNamed(m message, path string) media.Key {
	if m.kind != websocket.MessageText {
		return media.Key{}
	}
	var v struct {
		StreamID string `json:"streamId"`
		Room     string `json:"room"` // joinRoom may come without a streamId
	}
	if json.Unmarshal(m.data, &v) != nil {
		return media.Key{} // the node says what is wrong with it
	}
	if v.StreamID == "" {
		v.StreamID = v.Room
	}
	key, err := media.NewKey(appOf(path), v.StreamID)
	if err != nil {
		return media.Key{}
	}
	return key
}

// refusal is a node's answer to a handshake that another node would give too.
type refusal struct{ reason string }

func (e *refusal) Error() string { return e.reason }

// dial connects to the best node that lets us.
func (s *socket) dial(ctx context.Context) error {
	g := s.h.g
	var err error = errNoNode
	for range maxTries {
		place := func() (cluster.Node, bool) { return g.placer.session(s.h.role, s.key, s.tried) }
		if s.h.role == cluster.Origin && wantsBackup(s.req) {
			place = func() (cluster.Node, bool) { return g.placer.backup(s.key, s.tried) }
		}
		node, ok := place()
		if !ok {
			return err
		}
		s.tried[node.ID] = true
		in, span := trace.Start(ctx, "ask node", "node", node.ID)
		var retry bool
		retry, err = s.dialNode(in, node)
		g.meters.asked(span, dialled(retry, err), err)
		if err == nil {
			return nil
		}
		if !retry {
			g.placer.refused(s.h.role, s.key, node.ID)
			return err
		}
		trace.Log(ctx, g.log).Debug("node did not take a socket", "node", node.ID, "error", err)
	}
	return err
}

// dialled is what came of connecting to a node, as a label.
func dialled(retry bool, err error) string {
	switch {
	case err == nil:
		return tryTaken
	case retry:
		return tryFailed
	}
	return tryRefused
}

func (s *socket) dialNode(ctx context.Context, node cluster.Node) (retry bool, err error) {
	g := s.h.g
	ctx, cancel := context.WithTimeout(ctx, socketDial)
	defer cancel()
	defer context.AfterFunc(g.pool.alive(node.ID), cancel)()
	defer context.AfterFunc(g.stopping, cancel)()
	conn, resp, err := websocket.Dial(ctx, "ws://"+node.HTTP+s.req.URL.RequestURI(), &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: g.transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		HTTPHeader: s.header(ctx),
		Host:       s.req.Host,
	})
	switch {
	case err == nil:
		conn.SetReadLimit(g.cfg.MaxMessage)
		s.node, s.served = conn, &node
		return false, nil
	case resp == nil:
		if isDial(err) {
			g.pool.failed(node.ID, err)
		}
		return true, fmt.Errorf("dial node %q: %w", node.ID, err)
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return true, fmt.Errorf("dial node %q: %s", node.ID, resp.Status)
	}
	// The node's problem body says more than its status.
	var body struct{ Code, Detail string }
	reason := resp.Status
	if resp.Body != nil && json.NewDecoder(resp.Body).Decode(&body) == nil && body.Code != "" {
		reason = body.Code + ": " + body.Detail
	}
	return false, &refusal{reason}
}

// header is the client's, without what belongs to its own connection. RFC 9110 §7.6.1
func (s *socket) header(ctx context.Context) http.Header {
	out := s.req.Header.Clone()
	for _, name := range []string{"Connection", "Upgrade", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding",
		"Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Extensions", "Sec-Websocket-Protocol", "Sec-Websocket-Accept"} {
		out.Del(name)
	}
	s.h.g.client.Forward(out, s.req)
	trace.Forward(ctx, out)
	return out
}

// pump sends what the client says to the node and watches over both ends. It returns why it ended, and
// whether the node's side has been heard to end.
func (s *socket) pump(ctx context.Context, down <-chan error) (why error, ended bool) {
	for _, m := range s.early {
		if err := write(ctx, s.node, m); err != nil {
			s.bye(s.client, websocket.StatusServiceRestart, "the server went away; connect again")
			return fmt.Errorf("write to node: %w", err), false
		}
	}
	tick := time.NewTicker(s.h.g.cfg.SocketPing)
	defer tick.Stop()
	alive := s.h.g.pool.alive(s.served.ID)
	gone := alive.Done()
	late := make(chan error, 1)
	for {
		select {
		case m, ok := <-s.in:
			if !ok {
				err := <-s.left
				s.pass(s.node, err, websocket.StatusGoingAway, "the client went away")
				return fmt.Errorf("client: %w", err), false
			}
			s.keep(m)
			if err := write(ctx, s.node, m); err != nil {
				select {
				case err = <-down: // its close frame says more
					s.pass(s.client, err, websocket.StatusServiceRestart, "the server went away; connect again")
					return fmt.Errorf("node: %v", err), true // not a fullError any more: the client has been sent away
				case <-time.After(time.Second):
				}
				s.bye(s.client, websocket.StatusServiceRestart, "the server went away; connect again")
				return fmt.Errorf("write to node: %w", err), false
			}
		case err := <-down:
			if full := (*fullError)(nil); errors.As(err, &full) {
				return err, true
			}
			s.pass(s.client, err, websocket.StatusServiceRestart, "the server went away; connect again")
			return fmt.Errorf("node: %w", err), true
		case <-gone:
			// Without an answer there will be no close frame either. A node that could not be dialled, or has left the registry, may serve on.
			if err := context.Cause(alive); isTimeout(err) {
				s.bye(s.client, websocket.StatusServiceRestart, "the server does not answer; connect again")
				return fmt.Errorf("node is down: %w", err), false
			}
			gone = nil
		case <-tick.C:
			if err := s.silent(); err != nil {
				return err, false
			}
			if gone == nil {
				alive = s.h.g.pool.alive(s.served.ID)
				gone = alive.Done()
			}
			go s.ping(ctx, s.node, late)
		case err := <-late:
			s.bye(s.client, websocket.StatusServiceRestart, "the server does not answer; connect again")
			return fmt.Errorf("ping node: %w", err), false
		case <-s.h.g.stopping.Done():
			s.bye(s.client, websocket.StatusGoingAway, "the gateway is stopping; connect again")
			s.bye(s.node, websocket.StatusGoingAway, "the gateway is stopping")
			return errors.New("the gateway stops"), false
		}
	}
}

// keep remembers what the client says for another node, until one has taken it.
func (s *socket) keep(m message) {
	if len(s.early) >= maxEarly || len(m.data) > maxEarlyBytes/maxEarly {
		s.taken.Store(true)
	}
	if s.taken.Load() {
		s.early = nil
		return
	}
	s.early = append(s.early, m)
}

// silent closes a socket whose client has been silent for too long.
func (s *socket) silent() error {
	idle := time.Since(time.Unix(0, s.heard.Load()))
	if idle <= s.h.g.cfg.SocketIdle {
		return nil
	}
	reason := fmt.Sprintf("nothing was heard for %v; send a ping every few seconds", s.h.g.cfg.SocketIdle)
	s.bye(s.client, websocket.StatusPolicyViolation, reason)
	s.bye(s.node, websocket.StatusGoingAway, "the client is silent")
	return errors.New(reason)
}

// ping tells late when the node does not answer a ping on this connection: its machine may be well, and only the path of
// this connection lost. Any other end of the connection is for who reads it.
func (s *socket) ping(ctx context.Context, node *websocket.Conn, late chan<- error) {
	ctx, cancel := context.WithTimeout(ctx, 2*s.h.g.cfg.SocketPing)
	defer cancel()
	if err := node.Ping(ctx); errors.Is(err, context.DeadlineExceeded) {
		select {
		case late <- err:
		default: // an earlier one has told
		}
	}
}

// copyDown sends what the node says to the client. Its error is why the node's side ended.
func (s *socket) copyDown(ctx context.Context) error {
	for {
		kind, data, err := s.node.Read(ctx)
		if err != nil {
			return err
		}
		m := message{kind, data}
		if !s.taken.Load() {
			taken, full := answered(m)
			if full {
				return &fullError{m}
			}
			s.taken.Store(taken)
		}
		if err := write(ctx, s.client, m); err != nil {
			return fmt.Errorf("write to client: %w", err)
		}
	}
}

func write(ctx context.Context, c *websocket.Conn, m message) error {
	ctx, cancel := context.WithTimeout(ctx, socketWrite)
	defer cancel()
	return c.Write(ctx, m.kind, m.data)
}

// pass closes one end as the other end was closed, or with code and reason when that one
// just broke off.
func (s *socket) pass(to *websocket.Conn, err error, code websocket.StatusCode, reason string) {
	var ce websocket.CloseError
	if errors.As(err, &ce) {
		code, reason = ce.Code, ce.Reason
	}
	if errors.Is(err, websocket.ErrMessageTooBig) {
		code, reason = websocket.StatusMessageTooBig, "a message is larger than is taken here"
	}
	s.bye(to, code, reason)
}

func (s *socket) bye(to *websocket.Conn, code websocket.StatusCode, reason string) {
	reason = strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")
	_ = to.Close(code, reason) // whoever is gone needs no good-bye
}
