package trace

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"strings"
)

// RequestHeader has the id by which one request is found in the logs of all processes that it passes.
const RequestHeader = "X-Request-Id"

// maxRequest is how long an id may be, in bytes.
const maxRequest = 64

// CleanRequest returns an id that may go into logs and headers as it is: 1 to 64 letters, digits and "-_.:"; "" for any other.
func CleanRequest(id string) string {
	if len(id) > maxRequest {
		return ""
	}
	for i := range len(id) {
		c := id[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_.:", c) >= 0) {
			return ""
		}
	}
	return id
}

// NewRequest makes an id.
func NewRequest() string { return strings.ToLower(rand.Text()[:16]) }

type requestKey struct{}

// WithRequest returns a context of the request with that id; with "" it is ctx.
func WithRequest(ctx context.Context, id string) context.Context {
	if id == "" {
		return ctx
	}
	return context.WithValue(ctx, requestKey{}, id)
}

// RequestOf is the id of the request that a context belongs to; "": none.
func RequestOf(ctx context.Context) string {
	id, _ := ctx.Value(requestKey{}).(string)
	return id
}

// Log returns a logger whose lines have the request's id, if there is one.
func Log(ctx context.Context, log *slog.Logger) *slog.Logger {
	if id := RequestOf(ctx); id != "" {
		return log.With("request", id)
	}
	return log
}

// identify takes the id that a request came with, or makes one. The request's header has it afterwards.
func identify(r *http.Request) string {
	id := CleanRequest(r.Header.Get(RequestHeader))
	if id == "" {
		id = NewRequest()
	}
	r.Header.Set(RequestHeader, id)
	return id
}
