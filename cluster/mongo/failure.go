package mongo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"sluice/cluster"
)

// Codes of MongoDB's errors.
const (
	codeUnauthorized         = 13
	codeAuthenticationFailed = 18
)

// failure is an error with a text for operators; the driver's own goes on for lines.
type failure struct {
	text string
	err  error
}

func (f *failure) Error() string { return f.text }

// Unwrap lets callers find what ended their call.
func (f *failure) Unwrap() error { return f.err }

// hosts names the servers of a URL; of many, the first ones.
func hosts(list []string) string {
	const most = 3
	if len(list) > most {
		return strings.Join(list[:most], ",") + ",…"
	}
	return strings.Join(list, ",")
}

// badURL is an error for a URL that can't be understood. The driver's text may repeat parts of it, so only those
// are passed on that are known to hold none.
func badURL(err error) error {
	var dns *net.DNSError
	text := err.Error()
	hint := "check it against https://www.mongodb.com/docs/manual/reference/connection-string/"
	for _, known := range []struct{ part, hint string }{
		{"unescaped", "in the user's name and password write @ as %40, : as %3A, / as %2F and % as %25"},
		{"invalid URL escape", "in the user's name and password write @ as %40, : as %3A, / as %2F and % as %25"},
		{"authsource without", "it has authSource but no user"},
		{"username", "its user's name or password is missing, or can't be read"},
		{"certificate", "its certificate or key file can't be read"},
		{"no such file", "a file that it names can't be read"},
		{"permission denied", "a file that it names can't be read"},
	} {
		if strings.Contains(text, known.part) {
			hint = known.hint
			break
		}
	}
	if errors.As(err, &dns) {
		hint = fmt.Sprintf("mongodb+srv needs DNS records for its host, and DNS says of %s: %s", dns.Name, dns.Err)
	}
	return fmt.Errorf("the store's URL can't be used: %s: %w", hint, cluster.ErrBadStore)
}

// explain says what went wrong, and what to do about it, in one line without passwords.
func (r *Registry) explain(err error) error {
	for _, known := range []error{cluster.ErrFenced, cluster.ErrReplaced, cluster.ErrNoNode, cluster.ErrLeaseLost,
		cluster.ErrNoDocument, cluster.ErrExists, cluster.ErrConflict, cluster.ErrBadDocument, context.Canceled} {
		if err == nil || errors.Is(err, known) {
			return err
		}
	}
	text := err.Error()
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(text, p) {
				return true
			}
		}
		return false
	}
	var command driver.ServerError
	code := func(n int) bool { return errors.As(err, &command) && command.HasErrorCode(n) }
	say := func(format string, args ...any) error {
		return &failure{text: fmt.Sprintf("MongoDB at "+r.where+": "+format, args...), err: err}
	}
	switch {
	case code(codeUnauthorized), has("(Unauthorized)"):
		return say("the user may not do this: give it the role readWrite on the database, or name a user in the store's URL")
	case code(codeAuthenticationFailed), has("AuthenticationFailed", "auth error", "unable to authenticate"):
		return say("authentication failed: check user, password and authSource in the store's URL")
	case has("certificate", "x509:", "tls:", "handshake failure", "first record does not look like a TLS"):
		return say("TLS failed: %s; check tls and tlsCAFile in the store's URL", cause(text))
	case errors.Is(err, driver.ErrClientDisconnected):
		return say("the registry is closed")
	case driver.IsTimeout(err), driver.IsNetworkError(err), has("server selection error"):
		return say("no answer (%s): is it up, may this machine reach it, and does tls in the store's URL fit?", cause(text))
	}
	return say("%s", text)
}

// cause is the end of a long text of the driver: the last error of the last server it has tried.
func cause(text string) string {
	if _, last, ok := strings.Cut(text, "Last error: "); ok {
		text, _, _ = strings.Cut(last, " }")
	} else if strings.Contains(text, "server selection error") {
		return "in time"
	}
	const most = 160
	if parts := strings.Split(text, ": "); len(parts) > 2 {
		text = strings.Join(parts[len(parts)-2:], ": ")
	}
	if len(text) > most {
		text = text[:most] + "…"
	}
	return text
}
