// Package auth knows people and programs: their accounts, sessions and API keys, what each may do, and what each has done.
//
// Imports: cluster.
package auth

// Action is what somebody wants to do.
type Action string

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
