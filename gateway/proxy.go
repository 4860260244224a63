package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"time"

	"sluice/cluster"
	"sluice/internal/problem"
	"sluice/internal/trace"
)

const (
	maxSignal  = 128 << 10        // bytes of an SDP or candidate; the nodes take no more
	maxReplay  = 64 << 10         // bytes of another body that is kept for a second try
	writeStall = 60 * time.Second // a client that takes nothing for that long is cut off
	maxTries   = 4                // nodes asked for one request
	maxRest    = 256 << 10        // bytes that are read and thrown away, of a body that was not wanted
	restWithin = time.Second      // and for how long
)

var (
	errNoNode   = errors.New("no node takes requests")
	errNodeGone = errors.New("the session's node is gone")
)

// handler serves one door: requests go to nodes of its role.
type handler struct {
	g    *Gateway
	door *door
	role cluster.Role
}

func (h *handler) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if !h.g.enter() {
		panic(http.ErrAbortHandler)
	}
	defer h.g.running.Done()
	w := newResponse(rw, r)
	defer w.done()
	rt, refusal := parseRoute(r)
	rt.note(r)
	if isUpgrade(r.Header) || rt.events {
		defer h.g.sockets.Add(-1)
		if h.g.sockets.Add(1) > int64(h.g.maxSockets) {
			w.Header().Set("Retry-After", retryAfter)
			h.refuse(w, r, problem.New(problem.NodeFull, "The gateway has no room for more sockets; try again later."))
			return
		}
	}
	if refusal != nil {
		h.refuse(w, r, refusal)
		return
	}
	switch rt.kind {
	case toSelf:
		w.Header().Set("Cache-Control", "no-store")
		_, _ = io.WriteString(w, "ok\n")
		return
	case toNobody:
		h.refuse(w, r, problem.New(problem.NotFound, "Figures are for operators: see gateway.operators in sluice.yaml."))
		return
	case newSocket:
		h.serveSocket(w, r)
		return
	}
	if isUpgrade(r.Header) || rt.events { // the proxy would join the two ends for ever
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(h.g.stopping, cancel)()
		r = r.WithContext(ctx)
	}
	t := &trip{h: h, route: rt, safe: r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions, tried: map[string]bool{}}
	if refusal := t.takeBody(w, r); refusal != nil {
		h.refuse(w, r, refusal)
		return
	}
	proxy := httputil.ReverseProxy{
		Transport:     t,
		FlushInterval: -1, // what a node sends goes on at once
		ErrorLog:      slog.NewLogLogger(h.g.log.Handler(), slog.LevelDebug),
		Rewrite: func(p *httputil.ProxyRequest) {
			h.g.client.Forward(p.Out.Header, p.In) // Host stays as the client wrote it
		},
		ModifyResponse: func(resp *http.Response) error {
			resp.Header.Del(trace.RequestHeader) // the answer has it already
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) { h.failed(w, r, err) },
	}
	proxy.ServeHTTP(w, r)
	if rt.signals() {
		trace.Log(r.Context(), h.g.log).Debug("session request", "port", h.door.name, "method", r.Method, "stream", rt.key.String(), "node", t.node,
			"status", w.status, "peer", h.g.client.Of(r).String())
	}
}

// failed answers for a node that did not.
func (h *handler) failed(w *response, r *http.Request, err error) {
	var tooLarge *http.MaxBytesError
	switch {
	case r.Context().Err() != nil: // the client left
		return
	case errors.Is(err, errNoNode):
		h.noNode(w, r)
	case errors.Is(err, errNodeGone):
		h.refuse(w, r, problem.New(problem.NoSession, "The node that held this session is gone; start a new session."))
	case errors.As(err, &tooLarge):
		h.refuse(w, r, problem.New(problem.TooLarge, "The body is larger than is taken here."))
	case isTimeout(err):
		h.refuse(w, r, problem.New(problem.Timeout, "The node did not answer in time; try again."))
	default:
		trace.Log(r.Context(), h.g.log).Debug("request failed", "port", h.door.name, "path", r.URL.Path, "error", err)
		h.noNode(w, r)
	}
}

// trip is one request on its way to a node, or to the next node when that one fails.
type trip struct {
	h     *handler
	route route
	safe  bool // the method changes nothing: it may be sent twice
	kept  bool // body is whole
	body  []byte
	tried map[string]bool
	node  string // the last one asked
}

// takeBody reads a body that is small enough to be sent again.
func (t *trip) takeBody(w *response, r *http.Request) *problem.Problem {
	limit := int64(maxReplay)
	switch {
	case r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0:
		t.kept = true
		return nil
	case t.route.signals():
		limit = maxSignal
		if r.ContentLength > limit {
			return tooLarge()
		}
	case r.ContentLength < 0 || r.ContentLength > limit:
		return nil // passes through, once
	}
	_ = w.control.SetReadDeadline(time.Now().Add(t.h.g.cfg.BodyTimeout)) // not supported: the server's own limits hold
	body, err := io.ReadAll(http.MaxBytesReader(w.ResponseWriter, r.Body, limit))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return tooLarge()
	case err != nil:
		w.body = nil // the deadline stays: net/http must not read on without one
		w.Header().Set("Connection", "close")
		return problem.New(problem.BadRequest, "The body did not arrive whole within "+t.h.g.cfg.BodyTimeout.String()+".")
	}
	w.body = nil
	_ = w.control.SetReadDeadline(time.Time{})
	t.kept, t.body = true, body
	return nil
}

func tooLarge() *problem.Problem {
	return problem.New(problem.TooLarge, "A body here is at most 128 KiB.")
}

// RoundTrip implements http.RoundTripper.
func (t *trip) RoundTrip(r *http.Request) (*http.Response, error) {
	var lastErr error = errNoNode
	var full *http.Response // a node's "no room"
	for range maxTries {
		node, err := t.pick()
		if err != nil {
			if lastErr == errNoNode {
				lastErr = err
			}
			break
		}
		if full != nil {
			_ = full.Body.Close()
			full = nil
		}
		t.tried[node.ID], t.node = true, node.ID
		ctx, span := trace.Start(r.Context(), "ask node", "node", node.ID)
		resp, err := t.send(r.WithContext(ctx), node)
		t.h.g.meters.asked(span, outcome(resp, err), err)
		switch {
		case err == nil && resp.StatusCode == http.StatusServiceUnavailable && t.route.kind == newSetup:
			full = resp // another may have room; this one has less than its row says, so the session goes on counting there
		case err == nil:
			if t.route.kind == newSetup && resp.StatusCode/100 != 2 {
				t.h.g.placer.refused(t.h.role, t.route.key, node.ID)
			}
			return resp, nil
		case r.Context().Err() != nil || !t.again(err):
			return nil, t.final(err)
		default:
			lastErr = t.final(err)
		}
	}
	if full != nil {
		return full, nil
	}
	return nil, lastErr
}

// outcome is what came of asking a node, as a label.
func outcome(resp *http.Response, err error) string {
	switch {
	case err != nil:
		return tryFailed
	case resp.StatusCode == http.StatusServiceUnavailable:
		return tryFull
	}
	return tryTaken
}

func (t *trip) pick() (cluster.Node, error) {
	p, role := t.h.g.placer, t.h.role
	var node cluster.Node
	var ok bool
	switch t.route.kind {
	case toNode:
		if node, ok = p.node(t.route.node); !ok || t.tried[node.ID] {
			return node, errNodeGone
		}
		return node, nil
	case newSetup:
		if t.route.backup && role == cluster.Origin {
			node, ok = p.backup(t.route.key, t.tried)
			break
		}
		node, ok = p.session(role, t.route.key, t.tried)
	default:
		node, ok = p.request(role, t.route.key, t.tried)
	}
	if !ok {
		return node, errNoNode
	}
	return node, nil
}

// again reports whether another node may be asked after err. A failed dial has done nothing. A
// node that died has lost the session that it may have begun. A slow one may still do its work.
func (t *trip) again(err error) bool {
	return t.kept && (isDial(err) || (t.safe || t.route.kind == newSetup) && !isTimeout(err))
}

func (t *trip) final(err error) error {
	if t.route.kind == toNode && (isDial(err) || errors.Is(err, errNodeDown)) {
		return errNodeGone
	}
	return err
}

// send asks one node, and gives up when the node is found to be down.
func (t *trip) send(r *http.Request, node cluster.Node) (*http.Response, error) {
	g := t.h.g
	ctx, cancel := context.WithCancelCause(r.Context())
	stop := context.AfterFunc(g.pool.alive(node.ID), func() { cancel(errNodeDown) })
	out := r.Clone(ctx)
	out.URL.Scheme, out.URL.Host = "http", node.HTTP
	trace.Forward(ctx, out.Header)
	if t.kept {
		out.ContentLength = int64(len(t.body))
		out.TransferEncoding = nil
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(t.body)), nil }
		out.Body, _ = out.GetBody()
		if len(t.body) == 0 {
			out.Body, out.GetBody = http.NoBody, nil
		}
	}
	resp, err := g.transport.RoundTrip(out)
	stop()
	if err != nil {
		down := context.Cause(ctx) == errNodeDown
		cancel(nil)
		switch {
		case r.Context().Err() != nil:
		case down:
			return nil, errNodeDown
		case isDial(err):
			g.pool.failed(node.ID, err)
		}
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols { // there the body is the connection, and r's context ends it
		resp.Body = &body{resp.Body, cancel}
	}
	return resp, nil
}

// body frees its request's context when it is closed.
type body struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// response remembers the status, and cuts off clients that don't take what is sent, or that are slow to send what
// nobody waits for.
type response struct {
	http.ResponseWriter
	control *http.ResponseController
	status  int
	body    io.Reader // of the request; nil: nothing of it is left
}

func newResponse(w http.ResponseWriter, r *http.Request) *response {
	rw := &response{ResponseWriter: w, control: http.NewResponseController(w)}
	if r.Body != nil && r.Body != http.NoBody && r.ProtoMajor == 1 && !isUpgrade(r.Header) { // HTTP/2 just resets the stream
		rw.body = r.Body
	}
	return rw
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *response) WriteHeader(status int) {
	w.status = status
	if status >= 200 {
		w.readRest()
	}
	w.ResponseWriter.WriteHeader(status)
}

// readRest takes the end of a body that the answer did not wait for, within bounds. net/http would do it without a
// deadline. When it does not end, neither does the connection outlive the answer.
func (w *response) readRest() {
	if w.body == nil {
		return
	}
	_ = w.control.SetReadDeadline(time.Now().Add(restWithin))
	_, err := io.CopyN(io.Discard, w.body, maxRest)
	w.body = nil
	if err == io.EOF || errors.Is(err, http.ErrBodyReadAfterClose) {
		_ = w.control.SetReadDeadline(time.Time{})
		return
	}
	w.Header().Set("Connection", "close")
	_ = w.control.SetReadDeadline(time.Now())
}

func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	_ = w.control.SetWriteDeadline(time.Now().Add(writeStall))
	return w.ResponseWriter.Write(b)
}

// done leaves the connection to the next request as it was found.
func (w *response) done() {
	if w.status != http.StatusSwitchingProtocols {
		_ = w.control.SetWriteDeadline(time.Time{})
	}
}
