package config

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Set gives the setting at a path, such as "node.limits.cpu", a value as text; lists have commas. The error names the path.
func (c *Config) Set(path, text string) error {
	known := map[string]field{}
	for _, f := range fields("", c) {
		known[f.path] = f
	}
	f, ok := known[path]
	if !ok {
		hint := ""
		if near := nearest(path, slices.Sorted(maps.Keys(known))); near != "" {
			hint = fmt.Sprintf("; did you mean %q?", near)
		}
		return fmt.Errorf("there is no setting %q%s", path, hint)
	}
	if err := f.set(f.split(text)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// YAML writes the settings that are not at their default, in the order of sluice.yaml. Parse reads them back. Secrets are written out.
func (c *Config) YAML() []byte {
	var out bytes.Buffer
	fallback := Default()
	var open []string // sections that the last line is in
	for _, f := range fields("", c) {
		if f.text() == fallback.Text(f.path) {
			continue
		}
		keys := strings.Split(f.path, ".")
		section, key := keys[:len(keys)-1], keys[len(keys)-1]
		same := 0
		for same < len(section) && same < len(open) && section[same] == open[same] {
			same++
		}
		for i := same; i < len(section); i++ {
			fmt.Fprintf(&out, "%s%s:\n", strings.Repeat("  ", i), section[i])
		}
		open = section
		fmt.Fprintf(&out, "%s%s: %s\n", strings.Repeat("  ", len(section)), key, f.yaml())
	}
	return out.Bytes()
}

// yaml is the value as a file has it.
func (f field) yaml() string {
	if !f.isList() {
		return quote(f.text())
	}
	texts := f.split(f.text())
	for i, s := range texts {
		texts[i] = quote(s)
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

// quote leaves alone what YAML can't take for anything but itself.
func quote(s string) string {
	plain := s != ""
	for i, r := range s {
		plain = plain && (r == '.' || r == '-' && i > 0 || r == '/' || alphanumeric(r))
	}
	if plain && !slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(s)) || s == "true" || s == "false" {
		return s
	}
	return strconv.Quote(s) // JSON's escapes are YAML's
}
