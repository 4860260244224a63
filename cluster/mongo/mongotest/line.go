package mongotest

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"sync"
)

// Operations and limits of the wire protocol, as in MongoDB's specification of it.
const (
	opQuery      = 2004 // the first hello of a connection
	opMsg        = 2013
	headerLength = 16
	maxMessage   = 48000000
	moreToCome   = 1 << 1 // flag of a message that gets no answer

	stringElement = 2 // type of an element of a document
)

// Line is a way to the server: a port of its own.
type Line struct {
	server   *Server
	listener net.Listener
	address  string
	running  sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	counts map[string]int
	lose   string // the next answer to this command gets lost
	off    bool
	open   chan struct{} // closed while messages go through
	closed bool
}

// Line opens a way to the server until the test ends; with a TLS configuration that has a certificate, it speaks TLS.
func (s *Server) Line(config *tls.Config) *Line {
	s.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	address := listener.Addr().String()
	if config != nil {
		listener = tls.NewListener(listener, config)
	}
	open := make(chan struct{})
	close(open)
	l := &Line{server: s, listener: listener, address: address, conns: map[net.Conn]struct{}{}, counts: map[string]int{}, open: open}
	l.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.running.Go(func() { l.serve(conn) })
		}
	})
	s.mu.Lock()
	s.lines = append(s.lines, l)
	s.mu.Unlock()
	return l
}

// Close ends the line; the end of the test does it too.
func (l *Line) Close() error {
	_ = l.listener.Close() // a second time
	l.Hold(false)
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.hangUp()
	l.running.Wait()
	return nil
}

// URL is the store of that name, without a user.
func (l *Line) URL(database string) string {
	return fmt.Sprintf("mongodb://%s/%s", l.address, database)
}

// Address is host and port.
func (l *Line) Address() string { return l.address }

// Cut ends all connections, and refuses new ones until it is called with false.
func (l *Line) Cut(off bool) {
	l.mu.Lock()
	l.off = off
	l.mu.Unlock()
	if off {
		l.hangUp()
	}
}

// Hold keeps every message back until it is called with false, like a server that hangs.
func (l *Line) Hold(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.open:
		if on {
			l.open = make(chan struct{})
		}
	default:
		if !on {
			close(l.open)
		}
	}
}

// LoseAnswer lets the next command of that name, as in Counts, be done, and then breaks the connection.
func (l *Line) LoseAnswer(command string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lose = command
}

// Counts says how many commands have come, by name and collection, as in "find streams".
func (l *Line) Counts() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.counts)
}

// Operations is the number of commands on collections that have come: what a registry asks, without what a driver
// does to keep its connections.
func (l *Line) Operations() int {
	sum := 0
	for name, n := range l.Counts() {
		if strings.Contains(name, " ") {
			sum += n
		}
	}
	return sum
}

func (l *Line) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		_ = c.Close()
	}
}

// admit notes a connection; false when there shall be none.
func (l *Line) admit(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.off || l.closed {
		return false
	}
	for _, c := range conns {
		l.conns[c] = struct{}{}
	}
	return true
}

func (l *Line) forget(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		delete(l.conns, c)
		_ = c.Close()
	}
}

func (l *Line) serve(client net.Conn) {
	defer l.forget(client)
	server, err := l.server.dial()
	if err != nil {
		return
	}
	defer l.forget(server)
	if !l.admit(client, server) {
		return
	}
	for l.pass(client, server) == nil {
	}
}

var errLost = errors.New("the answer got lost")

// pass takes one message to the server, and its answer back.
func (l *Line) pass(client, server net.Conn) error {
	message, err := read(client)
	if err != nil {
		return err
	}
	name, answered := parse(message)
	l.mu.Lock()
	l.counts[name]++
	lose := l.lose != "" && l.lose == name
	if lose {
		l.lose = ""
	}
	open := l.open
	l.mu.Unlock()
	<-open
	answer, err := l.ask(server, message, answered)
	if err != nil || !answered {
		return err
	}
	if lose {
		return errLost
	}
	_, err = client.Write(answer)
	return err
}

func (l *Line) ask(server net.Conn, message []byte, answered bool) (answer []byte, err error) {
	l.server.turn.Lock()
	defer l.server.turn.Unlock()
	if _, err = server.Write(message); err == nil && answered {
		answer, err = read(server)
	}
	return answer, err
}

// read reads one message, with its header.
func read(r io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(length[:])
	if n < headerLength || n > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes", n)
	}
	message := make([]byte, n)
	copy(message, length[:])
	_, err := io.ReadFull(r, message[4:])
	return message, err
}

// parse finds the command of a message and its collection, and whether there will be an answer.
func parse(message []byte) (name string, answered bool) {
	switch body := message[headerLength:]; binary.LittleEndian.Uint32(message[12:]) {
	case opQuery:
		return "hello", true
	case opMsg:
		// flags, kind 0, length of the document; then its first element: type, name, value.
		const first = 4 + 1 + 4
		if len(body) < first+1 {
			return "", true
		}
		answered = binary.LittleEndian.Uint32(body)&moreToCome == 0
		kind, rest := body[first], string(body[first+1:])
		name, rest, _ = strings.Cut(rest, "\x00")
		if kind == stringElement && len(rest) > 4 { // a string: its length, then itself
			collection, _, _ := strings.Cut(rest[4:], "\x00")
			name += " " + collection
		}
		return name, answered
	}
	return "other", true
}
