package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// store is the registry under test.
type store interface {
	start(ctx context.Context, dir string) (url string, err error)
	leave(ctx context.Context) error // nobody reaches it any more
	comeBack(ctx context.Context) error
	stop() error
	networked() bool // it can be cut off from one host alone
}

func storeNames() []string { return []string{"sqlite", "mongo"} }

// sqliteStore is a file that all namespaces share. It is taken away by another program's lock on all of it.
type sqliteStore struct {
	path string
	held *os.File
}

func (s *sqliteStore) start(_ context.Context, dir string) (string, error) {
	s.path = filepath.Join(dir, "sluice.db")
	return "sqlite:" + s.path, nil
}

func (s *sqliteStore) networked() bool { return false }

// The bytes of the -shm file that readers, writers and checkpoints lock (sqlite.org/walformat.html §2.3.1).
const firstLock, locks = 120, 8

// leave waits for each lock's turn, and keeps them: whoever wants to read or write finds the file busy.
func (s *sqliteStore) leave(ctx context.Context) error {
	f, err := os.OpenFile(s.path+"-shm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for i := range int64(locks) {
		for {
			err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: firstLock + i, Len: 1})
			if err == nil {
				break
			}
			if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) || !pause(ctx, time.Millisecond) {
				return errors.Join(fmt.Errorf("lock the registry: %w", err), f.Close())
			}
		}
	}
	s.held = f
	return nil
}

func (s *sqliteStore) comeBack(context.Context) error {
	err := s.held.Close()
	s.held = nil
	return err
}

func (s *sqliteStore) stop() error {
	if s.held == nil {
		return nil
	}
	return s.comeBack(context.Background())
}

// pause waits; false when ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
