package cluster

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// StoreKind is what a registry is kept in.
type StoreKind string

const (
	SQLite  StoreKind = "sqlite"  // a file, for the processes of one machine
	MongoDB StoreKind = "mongodb" // a server, for a cluster
)

// ErrBadStore: a store URL that can't be understood.
var ErrBadStore = errors.New("a store is sqlite:PATH, mongodb://…, mongodb+srv://… or the address of a MongoDB server")

// ParseStore reads a store URL. The rest is a path for SQLite and a connection
// string for MongoDB; a bare address means mongodb://ADDRESS/sluice. Errors
// wrap ErrBadStore and never repeat a URL, since it may hold a password.
func ParseStore(url string) (kind StoreKind, rest string, err error) {
	scheme, after, found := strings.Cut(url, ":")
	switch {
	case url == "":
		return "", "", fmt.Errorf("empty store: %w", ErrBadStore)
	case found && scheme == "sqlite":
		path := strings.TrimPrefix(after, "//") // sqlite:///var/x as others write it
		if path == "" {
			return "", "", fmt.Errorf("store without a path: %w", ErrBadStore)
		}
		return SQLite, path, nil
	case found && (scheme == "mongodb" || scheme == "mongodb+srv"):
		if !strings.HasPrefix(after, "//") || len(after) == len("//") {
			return "", "", fmt.Errorf("%s store without //HOST: %w", scheme, ErrBadStore)
		}
		return MongoDB, url, nil
	case strings.Contains(url, "://"):
		return "", "", fmt.Errorf("unknown kind of store %.20q: %w", scheme, ErrBadStore)
	case strings.HasSuffix(url, ".db") || strings.ContainsAny(url, `/\`):
		return "", "", fmt.Errorf("store looks like a file, write sqlite:PATH: %w", ErrBadStore)
	}
	for addr := range strings.SplitSeq(url, ",") { // the members of a replica set
		if !bareAddress(addr) {
			return "", "", fmt.Errorf("store is not an address: %w", ErrBadStore)
		}
	}
	return MongoDB, "mongodb://" + url + "/sluice", nil
}

// bareAddress accepts host, host:port, v4:port and [v6]:port.
func bareAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host = s
		if inner, ok := strings.CutPrefix(s, "["); ok { // [v6] without a port
			host, ok = strings.CutSuffix(inner, "]")
			return ok && net.ParseIP(host) != nil
		}
	} else if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return false
	}
	if strings.Contains(host, ":") {
		return err == nil && net.ParseIP(host) != nil
	}
	for i := range len(host) {
		c := host[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return host != ""
}
