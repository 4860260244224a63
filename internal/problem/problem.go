// Package problem is the list of error codes that users of the HTTP interfaces see, and
// the one way to write them: application/problem+json (RFC 9457).
//
// Imports: nothing of ours.
package problem

import (
	"encoding/json"
	"net/http"
)

// Code is a stable name that programs may switch on. Codes are never renamed.
type Code struct {
	Name   string
	Status int
	Title  string
}

// Problem is an error with its code and what to do about it. It is the body of the response.
type Problem struct {
	Code   Code
	Detail string
}

// New returns a problem; detail says what was wrong this time and what to do.
func New(c Code, detail string) *Problem { return &Problem{Code: c, Detail: detail} }

// Error implements error.
func (p *Problem) Error() string { return p.Code.Name + ": " + p.Detail }

// Write sends the problem as the response. Headers that the caller set before remain.
func (p *Problem) Write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Length")
	w.WriteHeader(p.Code.Status)
	_ = json.NewEncoder(w).Encode(map[string]any{ // a client that went away is its own report
		"type": "about:blank", "title": p.Code.Title, "status": p.Code.Status, "code": p.Code.Name, "detail": p.Detail,
	})
}
