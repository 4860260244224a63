package config

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Secret is a value that never reaches a log: it is itself, or "file:PATH" with the
// value in that file.
type Secret string

// String hides the value from fmt and slog.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "(secret)"
}

// MarshalText hides the value from encoders, such as that of slog's JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Value returns the secret, without the line end that editors leave in a file.
func (s Secret) Value() (string, error) {
	path, ok := strings.CutPrefix(string(s), "file:")
	if !ok {
		return string(s), nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// Size is a number of bytes. Its text has a unit: B, kB, MB, GB (powers of 1000) or KiB, MiB, GiB (of 1024).
type Size int64

// units go from the longest name to the shortest, as "MB" ends in "B".
var units = []struct {
	name  string
	bytes int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(b []byte) error {
	text := string(b)
	for _, u := range units {
		num, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
		if err != nil || n < 0 || n*float64(u.bytes) > 1<<60 {
			break
		}
		*s = Size(n * float64(u.bytes))
		return nil
	}
	return fmt.Errorf("%q is not a size with its unit, such as 16MB", text)
}

// String writes the size in the largest unit that divides it.
func (s Size) String() string {
	for _, name := range []string{"GB", "GiB", "MB", "MiB", "kB", "KiB"} {
		for _, u := range units {
			if u.name == name && s != 0 && int64(s)%u.bytes == 0 {
				return strconv.FormatInt(int64(s)/u.bytes, 10) + name
			}
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// Range reads MIN-MAX; auto is from some to twice as many, "" is 0 to 0.
func Range(s string, some int) (least, most int, err error) {
	switch s {
	case "":
		return 0, 0, nil
	case "auto":
		return some, 2 * some, nil
	}
	from, to, ok := strings.Cut(s, "-")
	least, errFrom := strconv.Atoi(from)
	most, errTo := strconv.Atoi(to)
	if !ok || errFrom != nil || errTo != nil || least < 1 || most < least || most > 100 {
		return 0, 0, fmt.Errorf("%q is not a range such as 1-4, of at most 100", s)
	}
	return least, most, nil
}
