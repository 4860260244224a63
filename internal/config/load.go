package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
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

// Check returns all that is wrong with a file's text and the environment together.
func Check(src []byte, env map[string]string) []Mistake {
	l := newLoad()
	l.parse(src)
	inFile := l.seen["up.play-port"]
	l.environ(env)
	for _, text := range Unknown(env) {
		l.fail(0, "%s", text)
	}
	if err := l.cfg.Up.Check(); err != nil {
		line := max(inFile, l.seen["up.publish-port"])
		l.mistakes = append(l.mistakes, Mistake{Line: line, Text: err.Error()})
	}
	slices.SortStableFunc(l.mistakes, func(a, b Mistake) int { return order(a) - order(b) })
	return l.mistakes
}

// order puts the mistakes of the environment after those of the file.
func order(m Mistake) int {
	if m.Line == 0 {
		return math.MaxInt
	}
	return m.Line
}

// Check says what is wrong with the settings together.
func (u Up) Check() error {
	if u.PublishPort == u.PlayPort {
		return fmt.Errorf("publish-port and play-port of up are both %d: they must differ", u.PlayPort)
	}
	return nil
}

func fileError(path string, mistakes []Mistake) error {
	more := ""
	if n := len(mistakes) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more: sluice check %s)", n, path)
	}
	return fmt.Errorf("%s:%s%s", path, mistakes[0], more)
}

// environ applies the variables that are settings.
func (l *load) environ(env map[string]string) {
	known := variables(l.cfg)
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if f, ok := known[name]; ok {
			if err := f.set(f.split(env[name])); err != nil {
				l.fail(0, "variable %s: %v", name, err)
			}
		}
	}
}

func variables(c *Config) map[string]field {
	known := map[string]field{}
	for _, f := range fields("", c) {
		known[f.env()] = f
	}
	return known
}

// Unknown says of each variable that is not a setting what was probably meant. They stop nothing: others name variables
// too, as Kubernetes does after its services. SLUICE_CONFIG is not a setting, it names the file.
func Unknown(env map[string]string) []string {
	known := variables(new(Config))
	names := slices.Sorted(maps.Keys(known))
	var list []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if _, ok := known[name]; ok || name == "SLUICE_CONFIG" {
			continue
		}
		hint := ""
		if near := nearest(name, names); near != "" {
			hint = "; did you mean " + near + "?"
		}
		list = append(list, "variable "+name+" is not a setting"+hint)
	}
	return list
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
