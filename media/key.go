package media

import (
	"errors"
	"fmt"
	"strings"
)

// ErrBadKey: an application or stream name has characters that a URL, a file name or a
// registry could trip over.
var ErrBadKey = errors.New("a name is 1 to 128 letters, digits, '-', '_' or '.', and does not begin with '.'")

// Key names a stream in the whole cluster.
type Key struct {
	App string // application, such as "live"
	ID  string // stream within it, such as "stream1"
}

// NewKey checks both names; its error wraps ErrBadKey.
func NewKey(app, id string) (Key, error) {
	for _, s := range []string{app, id} {
		if !validName(s) {
			return Key{}, fmt.Errorf("name %.40q: %w", s, ErrBadKey)
		}
	}
	return Key{App: app, ID: id}, nil
}

// ParseKey reads what String wrote; its error wraps ErrBadKey.
func ParseKey(s string) (Key, error) {
	app, id, ok := strings.Cut(s, "/")
	if !ok {
		return Key{}, fmt.Errorf("stream %.40q is not APP/ID: %w", s, ErrBadKey)
	}
	return NewKey(app, id)
}

// backupSuffix is what no name has.
const backupSuffix = "~backup"

// Backup names what a stream's backup publisher sends, which is a stream of its own between nodes. NewKey and ParseKey refuse
// the name, so that no user can ask for it.
func (k Key) Backup() Key { return Key{App: k.App, ID: k.ID + backupSuffix} }

// Main names the stream itself, and says whether k is that of its backup.
func (k Key) Main() (main Key, backup bool) {
	k.ID, backup = strings.CutSuffix(k.ID, backupSuffix)
	return k, backup
}

// madeMark is what no name has, either.
const madeMark = "~made~"

// Made names renditions of a stream that another node makes, which are a stream of their own between nodes. What says which: a name as NewKey takes it.
func (k Key) Made(what string) Key { return Key{App: k.App, ID: k.ID + madeMark + what} }

// Source names the stream that k is renditions of, and says of which; "": k is none.
func (k Key) Source() (source Key, what string) {
	k.ID, what, _ = strings.Cut(k.ID, madeMark)
	return k, what
}

// String returns "app/id".
func (k Key) String() string { return k.App + "/" + k.ID }

// Matches reports whether a pattern is for the stream: its name, or the beginning of it and a "*".
func (k Key) Matches(pattern string) bool {
	if begin, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(k.String(), begin)
	}
	return k.String() == pattern
}

// CheckPattern refuses what Matches would never find a stream for; its error wraps ErrBadKey.
func CheckPattern(s string) error {
	begin, many := strings.CutSuffix(s, "*")
	app, id, whole := strings.Cut(begin, "/")
	if many { // what follows is anything
		if !whole {
			app += "a"
		}
		id, whole = id+"a", true
	}
	if !validName(app) || !validName(id) || !whole {
		return fmt.Errorf("%.80q is not a stream or some of them, such as live/stage, live/camera*, live/* or *: %w", s, ErrBadKey)
	}
	return nil
}

// MarshalText and UnmarshalText use the form of String.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *Key) UnmarshalText(b []byte) (err error) {
	*k, err = ParseKey(string(b))
	return err
}

func validName(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}
