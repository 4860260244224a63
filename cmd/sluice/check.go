package main

import (
	"fmt"
	"os"
	"runtime"

	"sluice/internal/config"
)

type checkCmd struct {
	File string `arg:"" optional:"" help:"File to check; default: as the other commands find it."`
}

// Run prints every mistake on a line of its own, as FILE:LINE: TEXT, or TEXT for one of the environment.
func (c *checkCmd) Run(p *process, top *cli) error {
	named := c.File
	if named == "" {
		named = top.Config
	}
	path := config.File(named, p.env)
	if path == "" {
		return usageError{fmt.Errorf("there is no %s in this folder; name a file: sluice check FILE", config.FileName)}
	}
	src, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	mistakes := config.Check(src, p.env)
	where := path
	for _, m := range mistakes {
		if m.Line > 0 {
			fmt.Fprintf(p.out, "%s:%s\n", path, m)
			continue
		}
		fmt.Fprintln(p.out, m)
		where = path + " and the environment"
	}
	switch len(mistakes) {
	case 0:
		fmt.Fprintf(p.out, "%s: no mistakes\n", path)
		return nil
	case 1:
		return fmt.Errorf("1 mistake in %s", where)
	}
	return fmt.Errorf("%d mistakes in %s", len(mistakes), where)
}

type versionCmd struct{}

func (versionCmd) Run(p *process) error {
	_, err := fmt.Fprintf(p.out, "sluice %s (commit %s, %s, %s/%s)\n", version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
