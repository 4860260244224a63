package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Files in the folder of a cluster that sluice up runs.
const (
	registryFile = "sluice.db"
	addressFile  = "cluster.json" // an address
	lockFile     = "lock"         // held while up runs; has its pid
	logFolder    = "logs"
)

// home is the folder of a cluster that sluice up runs.
type home struct{ dir string }

func (h home) path(elem ...string) string { return filepath.Join(append([]string{h.dir}, elem...)...) }

// logPath is the log of a process.
func (h home) logPath(name string) string { return h.path(logFolder, name+".log") }

// exists reports whether a cluster was ever started here.
func (h home) exists() bool {
	_, err := os.Stat(h.path(registryFile))
	return err == nil
}

// make creates the folder. Only its owner may read it: it has private keys.
func (h home) make() error {
	if err := os.MkdirAll(h.path(logFolder), 0o700); err != nil {
		return fmt.Errorf("make folder for the cluster (choose another with --dir): %w", err)
	}
	return nil
}

// lock refuses a second up in the folder. The kernel takes the lock back when this
// process ends, however it ends.
func (h home) lock() (unlock func() error, err error) {
	f, err := os.OpenFile(h.path(lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid, _ := os.ReadFile(f.Name()) // best effort: it only makes the message better
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("a cluster runs in %s already (pid %s): stop it, or choose another folder with --dir", h.dir, strings.TrimSpace(string(pid)))
		}
		return nil, fmt.Errorf("lock folder: %w", err)
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, fmt.Sprintln(os.Getpid()))); err != nil {
		return nil, errors.Join(fmt.Errorf("lock folder: %w", err), f.Close())
	}
	return f.Close, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// address is where a cluster's gateway is, for sluice publish and sluice play.
type address struct {
	Publish string `json:"publish"` // such as https://localhost:8443
	Play    string `json:"play"`
	CA      string `json:"ca"` // path of the certificate to trust, PEM
	PID     int    `json:"pid"`
}

func (h home) writeAddress(a address) error {
	b, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(h.path(addressFile), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("note the cluster's address: %w", err)
	}
	return nil
}

func (h home) readAddress() (a address, err error) {
	b, err := os.ReadFile(h.path(addressFile))
	if errors.Is(err, fs.ErrNotExist) {
		return a, fmt.Errorf("no cluster runs in %s: start one with sluice up, or give a URL", h.dir)
	}
	if err != nil {
		return a, fmt.Errorf("read the cluster's address: %w", err)
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("read %s: %w", h.path(addressFile), err)
	}
	return a, nil
}
