// Package auth decides who may publish and play.
//
// Imports: media.
package auth

import (
	"context"
	"errors"
	"net/netip"

	"sluice/media"
)

// What a Hook answers.
var (
	ErrUnauthorized = errors.New("a valid token is needed")
	ErrForbidden    = errors.New("this is not allowed")
)

// Action is what somebody wants to do.
type Action string

const (
	Publish Action = "publish"
	Play    Action = "play"
)

// Request is one wish, as it came by any of the ways to ask.
type Request struct {
	Action         Action
	Stream         media.Key
	Token          string // bearer token or the token of the protocol's message; "" none
	SubscriberID   string
	SubscriberCode string
	Remote         netip.Addr // the client, behind listed proxies; the zero Addr when unknown
}

// Hook allows a request with nil, else its error wraps ErrUnauthorized or ErrForbidden. It is called from any
// goroutine, once for each session, before anything is spent on it.
type Hook func(ctx context.Context, r Request) error

// AllowAll lets everybody do everything.
func AllowAll(context.Context, Request) error { return nil }
