package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// FileName is the file that is read when none is named and it is there.
const FileName = "sluice.yaml"

// Environ returns the variables of this process that begin with SLUICE_.
func Environ() map[string]string {
	env := map[string]string{}
	for _, kv := range os.Environ() {
		if k, v, _ := strings.Cut(kv, "="); strings.HasPrefix(k, "SLUICE_") {
			env[k] = v
		}
	}
	return env
}

// File returns the path of the configuration file: the one that was named, by flag or by
// SLUICE_CONFIG, else sluice.yaml in the working folder if there is one, else "".
func File(named string, env map[string]string) string {
	if named != "" {
		return named
	}
	if path := env["SLUICE_CONFIG"]; path != "" {
		return path
	}
	if _, err := os.Stat(FileName); err != nil {
		return ""
	}
	if path, err := filepath.Abs(FileName); err == nil {
		return path // child processes may run elsewhere
	}
	return FileName
}

// Load reads the settings from a file ("": none) and from the environment, which is stronger. A
// variable's name is the path of its key: node.limits.cpu is SLUICE_NODE_LIMITS_CPU. Lists are
// separated by commas. The error is for people, on one line.
func Load(path string, env map[string]string) (*Config, error) {
	l := newLoad()
	if path != "" {
		src, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no configuration file %s", path)
		}
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		if l.parse(src); len(l.mistakes) > 0 {
			return nil, fileError(path, l.mistakes)
		}
	}
	l.environ(env)
	if len(l.mistakes) > 0 {
		return nil, errors.New(l.mistakes[0].Text)
	}
	return l.cfg, nil
}

func fileError(path string, mistakes []Mistake) error {
	more := ""
	if n := len(mistakes) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more: sluice check %s)", n, path)
	}
	return fmt.Errorf("%s:%s%s", path, mistakes[0], more)
}

// environ applies the variables. SLUICE_CONFIG is not a setting, it names the file.
func (l *load) environ(env map[string]string) {
	known := map[string]field{}
	for _, f := range l.byPath {
		known[f.env()] = f
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		f, ok := known[name]
		if name == "SLUICE_CONFIG" {
			continue
		}
		if !ok {
			hint := ""
			if near := nearest(name, slices.Sorted(maps.Keys(known))); near != "" {
				hint = "; did you mean " + near + "?"
			}
			l.fail(0, "variable %s is not a setting%s", name, hint)
			continue
		}
		if err := f.set(f.split(env[name])); err != nil {
			l.fail(0, "variable %s: %v", name, err)
		}
	}
}

// Setting is one setting as a parser of flags sees it.
type Setting struct {
	Path string // such as "node.limits.cpu"
	Env  string // such as "SLUICE_NODE_LIMITS_CPU"
	f    field
}

// Settings lists the settings of a section that a parser of flags fills. ptr points to the section, path
// is where it is in Config: Settings("node", &cmd.Node).
func Settings(path string, ptr any) []Setting {
	var list []Setting
	for _, f := range fields(path, ptr) {
		list = append(list, Setting{Path: f.path, Env: f.env(), f: f})
	}
	return list
}

// At reports whether the setting is kept at v.
func (s Setting) At(v reflect.Value) bool {
	return v.CanAddr() && v.Type() == s.f.value.Type() && v.Addr().Pointer() == s.f.value.Addr().Pointer()
}

// Check says what is wrong with the value that the setting has now.
func (s Setting) Check() error {
	for _, text := range s.f.split(s.f.text()) {
		if err := s.f.check(text); err != nil {
			return err
		}
	}
	return nil
}

// Text returns the value in c of the setting with this path, lists with commas.
func (c *Config) Text(path string) string {
	for _, f := range fields("", c) {
		if f.path == path {
			return f.text()
		}
	}
	return ""
}
