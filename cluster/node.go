package cluster

import (
	"fmt"
	"slices"
	"time"

	"sluice/media"
)

// DeadAfter is the age of a heartbeat at which a node counts as dead: five missed beats.
const DeadAfter = 5 * time.Second

const (
	// ForgetAfter is the age at which rows of nodes that died, and of streams that ended, are deleted. Until then operators see them.
	ForgetAfter = 24 * time.Hour
	// ForgetEvery is how often a process that goes on looks for such rows.
	ForgetEvery = time.Hour
)

// LoadOver is the time over which a node averages its CPU and egress.
const LoadOver = 3 * time.Second

// About what a row takes on the wire in the registry on MongoDB, in bytes: a node without what it serves, each stream
// that it serves, and a stream.
const (
	RowBytes     = 800
	ServingBytes = 60
	StreamBytes  = 250
)

// maxNodeID bounds a node's id: it is part of URLs and log lines.
const maxNodeID = 64

// Alive reports whether the node is not fenced and its heartbeat was less than DeadAfter old at that time.
// Use View.At rather than the present when the node comes from a Directory: the view
// may be old because the registry is away, and then nobody is dead for it. Otherwise use Registry.Now.
func (n Node) Alive(at time.Time) bool { return !n.Fenced && at.Sub(n.LastHeartbeat) < DeadAfter }

// Process names the process behind a row, which may join many times; "" when it does not say when it started.
func (n Node) Process() string {
	if n.Started.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d@%s since %d", n.PID, n.Host, n.Started.UnixMilli())
}

// Takes reports whether the node has that role's part, standalone nodes having both.
func (n Node) Takes(r Role) bool { return n.Role == r || n.Role == Standalone }

// Serves reports whether the node can serve the stream at this moment.
func (n Node) Serves(key media.Key) bool {
	return slices.ContainsFunc(n.Serving, func(s Serving) bool { return s.Stream == key })
}

// Viewers is the sum of the viewers of all streams it serves.
func (n Node) Viewers() int {
	sum := 0
	for _, s := range n.Serving {
		sum += s.Viewers
	}
	return sum
}

// Check reports what would make the row unreadable for others; every Registry asks
// it before it writes, so that one faulty node can't spoil everybody's view.
func (n Node) Check() error {
	if err := CheckNodeID(n.ID); err != nil {
		return err
	}
	if n.Session <= 0 {
		return fmt.Errorf("node %q: session %d is none", n.ID, n.Session)
	}
	for _, s := range n.Serving {
		if err := CheckKey(s.Stream); err != nil {
			return fmt.Errorf("node %q: %w", n.ID, err)
		}
	}
	for _, key := range n.Backups {
		if err := CheckKey(key); err != nil {
			return fmt.Errorf("node %q: %w", n.ID, err)
		}
	}
	return nil
}

// CheckNodeID accepts 1 to 64 letters, digits and '-': the id stands before the
// first dot of a session's URL.
func CheckNodeID(id string) error {
	ok := id != "" && len(id) <= maxNodeID
	for i := range len(id) {
		c := id[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-')
	}
	if !ok {
		return fmt.Errorf("node id %.80q: an id is 1 to %d letters, digits or '-'", id, maxNodeID)
	}
	return nil
}

// CheckKey refuses what media.NewKey refuses; its error wraps media.ErrBadKey.
func CheckKey(key media.Key) error {
	_, err := media.NewKey(key.App, key.ID)
	return err
}

// NextEpoch is the epoch of a claim by the registry's clock, in milliseconds of Unix time, so that epochs grow even when the rows that knew the last one
// are gone; and always higher than the last, whatever the clock says.
func NextEpoch(last int64, now time.Time) int64 { return max(last+1, now.UnixMilli()) }

// CheckClaim refuses what no Registry may write as a claim.
func CheckClaim(l Lease) error {
	if err := CheckKey(l.Key); err != nil {
		return fmt.Errorf("claim stream: %w", err)
	}
	if err := CheckNodeID(l.Node); err != nil {
		return fmt.Errorf("claim stream %q: %w", l.Key, err)
	}
	if l.Session <= 0 {
		return fmt.Errorf("claim stream %q: session %d is none", l.Key, l.Session)
	}
	return nil
}

// CheckReport refuses what no Registry may write as a report.
func CheckReport(l Lease, info StreamInfo) error {
	if info.State != Broadcasting && info.State != Interrupted && info.State != Leaving {
		return fmt.Errorf("report stream %q: state %q is none of %q, %q and %q", l.Key, info.State, Broadcasting, Interrupted, Leaving)
	}
	return nil
}
