package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// TestWire: messages of two clients go through whole and one at a time, also those that get no answer.
func TestWire(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	server, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var inside, most atomic.Int32
	var serving sync.WaitGroup
	defer serving.Wait()
	defer server.Close()
	serving.Go(func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				for {
					m, err := readMessage(conn)
					if err != nil {
						return
					}
					most.Store(max(most.Load(), inside.Add(1)))
					runtime.Gosched()
					inside.Add(-1)
					if m[headerLength]&moreToCome == 0 {
						_, _ = conn.Write(m)
					}
				}
			})
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	address := freeAddress(t)
	over := make(chan error, 1)
	go func() { over <- wire(ctx, address, path) }()
	message := func(flags byte, text string) []byte {
		m := binary.LittleEndian.AppendUint32(nil, uint32(headerLength+4+len(text)))
		m = append(m, make([]byte, 8)...)
		m = binary.LittleEndian.AppendUint32(m, opMsg)
		return append(append(m, flags, 0, 0, 0), text...)
	}
	var clients sync.WaitGroup
	for c := range 2 {
		clients.Go(func() {
			conn, err := dialSoon(address)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			for i := range 50 {
				m := message(0, fmt.Sprint(c, "/", i))
				if i%10 == 0 {
					_, _ = conn.Write(message(moreToCome, "no answer"))
				}
				_, _ = conn.Write(m)
				if got, err := readMessage(conn); err != nil || !bytes.Equal(got, m) {
					t.Errorf("client %d, message %d: %q, %v", c, i, got, err)
					return
				}
			}
		})
	}
	clients.Wait()
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
	if most.Load() != 1 {
		t.Errorf("%d messages were with the server at once", most.Load())
	}
}

// freeAddress is of a port that was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// dialSoon waits for somebody to listen.
func dialSoon(address string) (conn net.Conn, err error) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		if conn, err = net.Dial("tcp", address); err == nil {
			return conn, nil
		}
	}
	return nil, err
}
