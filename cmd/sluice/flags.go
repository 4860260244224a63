package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"sluice/internal/config"
)

// resolver gives kong the values of flags that are not on the command line: from the
// environment, else from the configuration file.
type resolver struct {
	named    *string // value of --config
	env      map[string]string
	settings []config.Setting

	config *config.Config // nil until a command with settings was seen
	file   string
	err    error // of reading; kong would put the name of an innocent flag before it
}

// Validate implements kong.Resolver.
func (r *resolver) Validate(*kong.Application) error { return nil }

// Resolve implements kong.Resolver.
func (r *resolver) Resolve(k *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	s, ok := r.setting(flag.Value)
	if !ok || r.err != nil {
		return nil, nil
	}
	if r.config == nil {
		r.load(k)
	}
	if r.err != nil {
		return nil, nil
	}
	return r.config.Text(s.Path), nil
}

func (r *resolver) load(k *kong.Context) {
	named := ""
	for _, f := range k.Flags() {
		if f.Name == "config" {
			named, _ = k.FlagValue(f).(string)
		}
	}
	r.file = config.File(named, r.env)
	r.config, r.err = config.Load(r.file, r.env)
}

func (r *resolver) setting(v *kong.Value) (config.Setting, bool) {
	i := slices.IndexFunc(r.settings, func(s config.Setting) bool { return s.At(v.Target) })
	if i < 0 {
		return config.Setting{}, false
	}
	return r.settings[i], true
}

// check holds the flags of the command to the same rules as the file.
func (r *resolver) check(k *kong.Context) error {
	for _, f := range k.Flags() {
		if s, ok := r.setting(f.Value); ok {
			if err := s.Check(); err != nil {
				return fmt.Errorf("--%s: %w", f.Name, err)
			}
		}
	}
	return nil
}

// help adds the variable to a flag's help.
func (r *resolver) help(v *kong.Value) string {
	if s, ok := r.setting(v); ok {
		return strings.TrimSuffix(v.Help, ".") + " ($" + s.Env + ")."
	}
	return v.Help
}

// noEmptyDefaults makes help show the name of a value where its default is empty.
func noEmptyDefaults(k *kong.Kong) error {
	return kong.Visit(k.Model, func(n kong.Visitable, next kong.Next) error {
		if f, ok := n.(*kong.Flag); ok && f.Default == "" {
			f.HasDefault = false
		}
		return next(nil)
	})
}
