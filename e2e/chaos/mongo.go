package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// mongoStore speaks MongoDB's wire protocol in a namespace of its own: FerretDB, and before it a proxy that lets one message through at a time, as
// FerretDB's updates are not atomic among others.
type mongoStore struct {
	binary string // FerretDB's
	self   string // this program, which is the proxy
	host   host

	socket        string
	server, proxy *process
}

const mongoPort = "27017"

func (s *mongoStore) start(ctx context.Context, dir string) (string, error) {
	if _, err := os.Stat(s.binary); err != nil {
		return "", fmt.Errorf("%w: make ferretdb makes it, --ferretdb says where it is", err)
	}
	data := filepath.Join(dir, "mongo")
	if err := os.Mkdir(data, 0o700); err != nil {
		return "", err
	}
	s.socket = filepath.Join(dir, "mongo.sock")
	s.server = &process{name: "ferretdb", host: s.host, program: s.binary, log: filepath.Join(dir, "ferretdb.log"), args: []string{"--handler=sqlite", "--sqlite-url=file:" + data + "/", "--state-dir=" + data,
		"--listen-addr=", "--listen-unix=" + s.socket, "--debug-addr=-", "--telemetry=disable", "--log-level=WARN"}}
	s.proxy = &process{name: "wire", host: s.host, program: s.self, log: filepath.Join(dir, "wire.log"), args: []string{"--wire=" + s.address(), "--to=" + s.socket}}
	return "mongodb://" + s.address() + "/sluice", s.comeBack(ctx)
}

func (s *mongoStore) address() string { return net.JoinHostPort(s.host.address(), mongoPort) }

func (s *mongoStore) networked() bool { return true }

// leave ends the server without a word.
func (s *mongoStore) leave(context.Context) error {
	return errors.Join(s.proxy.kill(), s.server.kill())
}

// comeBack starts it with what it had.
func (s *mongoStore) comeBack(ctx context.Context) error {
	if err := os.Remove(s.socket); err != nil && !errors.Is(err, os.ErrNotExist) { // one that was killed leaves it, and could not bind it again
		return err
	}
	if err := errors.Join(s.server.start(), s.proxy.start()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for {
		err := reachable(ctx, "unix", s.socket)
		if err == nil {
			err = reachable(ctx, "tcp", s.address())
		}
		if err == nil {
			return nil
		}
		if !pause(ctx, 50*time.Millisecond) {
			return fmt.Errorf("the registry does not start: %w; its log ends with %s", err, tail(s.server.log))
		}
	}
}

func reachable(ctx context.Context, network, address string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func (s *mongoStore) stop() error {
	var err error
	for _, p := range []*process{s.proxy, s.server} {
		if p != nil {
			err = errors.Join(err, ignoreEnded(p.kill()))
		}
	}
	return err
}

// Of the wire protocol: a header begins with the message's length and ends with its kind; a flag in the body of OP_MSG says that no answer will come.
const (
	headerLength = 16
	longest      = 48_000_000
	opMsg        = 2013
	moreToCome   = 1 << 1
)

// wire passes messages between listen and a Unix socket, one message and its answer at a time, until ctx ends.
func wire(ctx context.Context, listen, to string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	var turn sync.Mutex
	var running sync.WaitGroup
	defer running.Wait()
	for {
		client, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		running.Go(func() {
			defer client.Close()
			defer context.AfterFunc(ctx, func() { _ = client.Close() })()
			server, err := net.Dial("unix", to)
			if err != nil {
				return
			}
			defer server.Close()
			for exchange(client, server, &turn) == nil {
			}
		})
	}
}

// exchange passes one message on, and its answer back. A server that does not answer is given up, as its others wait.
func exchange(client, server net.Conn, turn *sync.Mutex) error {
	message, err := readMessage(client)
	if err != nil {
		return err
	}
	answered := !(binary.LittleEndian.Uint32(message[12:]) == opMsg && len(message) >= headerLength+4 && binary.LittleEndian.Uint32(message[headerLength:])&moreToCome != 0)
	answer, err := func() ([]byte, error) {
		turn.Lock()
		defer turn.Unlock()
		if err := server.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return nil, err
		}
		if _, err := server.Write(message); err != nil || !answered {
			return nil, err
		}
		return readMessage(server)
	}()
	if err != nil || !answered {
		return err
	}
	_, err = client.Write(answer)
	return err
}

func readMessage(r io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(length[:])
	if n < headerLength || n > longest {
		return nil, fmt.Errorf("a message of %d bytes", n)
	}
	message := make([]byte, n)
	copy(message, length[:])
	_, err := io.ReadFull(r, message[4:])
	return message, err
}
