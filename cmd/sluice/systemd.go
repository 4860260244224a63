package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"time"
)

// serviceUser is the user and the group of the package's units.
const serviceUser = "sluice"

// startWithin bounds a command to the service manager. A restart drains first: node.drain-deadline, and what stopping takes.
const startWithin = 3 * time.Minute

// serviceManager starts what runs at every boot.
type serviceManager interface {
	// start enables and starts a unit; one that runs is started again if its settings have changed.
	start(ctx context.Context, unit string, changed bool) error
}

// systemd is the service manager of this machine, nil: there is none, or another.
func systemd() serviceManager {
	if _, err := os.Stat("/run/systemd/system"); err != nil { // sd_booted(3)
		return nil
	}
	if path, err := exec.LookPath("systemctl"); err == nil {
		return systemctl(path)
	}
	return nil
}

// systemctl is the path of that program.
type systemctl string

func (s systemctl) start(ctx context.Context, unit string, changed bool) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	if err := s.run(ctx, "enable", unit); err != nil {
		return err
	}
	if changed {
		return s.run(ctx, "restart", unit)
	}
	return s.run(ctx, "start", unit)
}

func (s systemctl) run(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, string(s), append([]string{"--no-ask-password", "--quiet"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", args[0], err, bytes.TrimSpace(out))
	}
	return nil
}

// groupID is the number of the group that may read settings.
func groupID() (int, bool) {
	g, err := user.LookupGroup(serviceUser)
	if err != nil {
		return 0, false
	}
	gid, err := strconv.Atoi(g.Gid)
	return gid, err == nil
}
