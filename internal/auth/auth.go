// Package auth knows people and programs: their accounts, sessions and API keys, what each may do, and what each has done. And it has
// the Hook that decides who may publish and play.
//
// Imports: cluster, media.
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

// What people and programs ask of the API; see Can.
const (
	Public        Action = "public"         // open to everybody
	Self          Action = "self"           // about the own account: by its person, with a session
	StreamsRead   Action = "streams:read"   // streams, their viewers and statistics
	StreamsWrite  Action = "streams:write"  // make, change, stop and delete them
	AccessRead    Action = "access:read"    // tokens and subscribers
	AccessWrite   Action = "access:write"   // make, change, block and delete those
	SettingsRead  Action = "settings:read"  // of applications and the cluster, and webhooks
	SettingsWrite Action = "settings:write" // change those
	AppsRead      Action = "apps:read"      // which applications there are
	AppsWrite     Action = "apps:write"     // make and delete applications
	ClusterRead   Action = "cluster:read"   // nodes, resources, logs
	ClusterWrite  Action = "cluster:write"  // drain, note and remove nodes
	UsersRead     Action = "users:read"
	UsersWrite    Action = "users:write"
	AuditRead     Action = "audit:read"
	Debug         Action = "debug" // profiles of the processes
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
