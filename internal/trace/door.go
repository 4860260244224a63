package trace

import (
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// Door is how HTTP comes in: each request gets an id, a span and its place in the figures.
type Door struct {
	Tracer *Tracer // nil: no spans
	// Route names what a request wants, by one of a few names; it is asked after the request was served.
	Route func(*http.Request) string
	// Trusted says that the one who asks has decided whether to trace, as the gateway has for a node. nil: nobody.
	Trusted func(*http.Request) bool
	// Done is told of each request: status is 101 for a WebSocket, which took until it was open. nil: nobody wants to know.
	Done  func(route, method string, status int, took time.Duration)
	Quiet func(*http.Request) bool // requests that come all the time and are in no log and no trace; nil: none
	Log   *slog.Logger
}

// Wrap has requests come in by the door.
func (d Door) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		quiet := d.Quiet != nil && d.Quiet(r)
		id := identify(r)
		w.Header().Set(RequestHeader, id)
		ctx := WithRequest(r.Context(), id)
		var span *Span
		if !quiet {
			ctx, span = d.Tracer.enter(ctx, r, d.Trusted != nil && d.Trusted(r))
		}
		r = r.WithContext(ctx)
		out := &answer{ResponseWriter: w, began: time.Now()}
		out.open = func(status int) { // or the end, of what has none for a long time
			route, method := d.Route(r), method(r.Method)
			took := time.Since(out.began)
			if d.Done != nil {
				d.Done(route, method, status, took)
			}
			span.leave(method+" "+route, method, route, status)
			if !quiet {
				Log(ctx, d.Log).Debug("request", "method", r.Method, "route", route, "path", r.URL.Path, "status", status, "took", took.Round(time.Microsecond))
			}
		}
		defer out.end()
		next.ServeHTTP(out, r)
	})
}

// method is a request's as a label: anybody may invent more.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

// answer notices when a request is answered. A WebSocket and a stream of events are when they have begun.
type answer struct {
	http.ResponseWriter
	began  time.Time
	status int
	open   func(status int)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		a.status = status
		if status == http.StatusSwitchingProtocols || strings.HasPrefix(a.Header().Get("Content-Type"), "text/event-stream") {
			a.tell()
		}
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	return a.ResponseWriter.Write(b)
}

func (a *answer) tell() {
	if a.open != nil {
		a.open(a.status)
		a.open = nil
	}
}

// end is the end of the handler.
func (a *answer) end() {
	if a.status == 0 {
		a.status = http.StatusOK // net/http sends it
		if p := recover(); p != nil {
			a.status = http.StatusInternalServerError
			a.tell()
			panic(p)
		}
	}
	a.tell()
}
