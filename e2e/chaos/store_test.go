package main

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/cluster/sqlite"
)

// TestSQLiteLeaves: of a registry that has left, no reader and no writer gets what it must lock; afterwards all is as before. (SQLite itself
// would try for 10 s, which is too long for a test.)
func TestSQLiteLeaves(t *testing.T) {
	s := &sqliteStore{}
	if _, err := s.start(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	reg, err := sqlite.Open(t.Context(), s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	if _, err := reg.Nodes(t.Context()); err != nil { // the first reader makes the -shm file
		t.Fatal(err)
	}
	other, err := os.OpenFile(s.path+"-shm", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	locked := func() (n int) {
		for i := range int64(locks) {
			at := unix.Flock_t{Type: unix.F_RDLCK, Start: firstLock + i, Len: 1}
			if unix.FcntlFlock(other.Fd(), unix.F_OFD_SETLK, &at) != nil {
				n++
				continue
			}
			at.Type = unix.F_UNLCK
			if err := unix.FcntlFlock(other.Fd(), unix.F_OFD_SETLK, &at); err != nil {
				t.Fatal(err)
			}
		}
		return n
	}
	if err := s.leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := locked(); n != locks {
		t.Errorf("%d of %d locks are held", n, locks)
	}
	if err := s.comeBack(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := locked(); n != 0 {
		t.Errorf("%d locks are still held", n)
	}
	if _, err := reg.Nodes(t.Context()); err != nil {
		t.Error(err)
	}
}
