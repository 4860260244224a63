//go:build !linux

package crowd

import (
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// poller without epoll: a goroutine blocked in each socket.
type poller struct {
	queue chan datagram
	woken chan struct{}
}

type datagram struct {
	socket *socket
	b      []byte
	at     int64
}

// socket is one session's. It is closed by the goroutine of its loop only.
type socket struct {
	conn    *net.UDPConn
	session *session
	peer    atomic.Pointer[netip.AddrPort]
	gone    bool
}

func newPoller() (*poller, error) {
	return &poller{queue: make(chan datagram, 1024), woken: make(chan struct{}, 1)}, nil
}

func (p *poller) close() error { return nil }

func (p *poller) wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

func (p *poller) open(s *session, six bool) (*socket, error) {
	network := "udp4"
	if six {
		network = "udp"
	}
	conn, err := net.ListenUDP(network, nil)
	if err != nil {
		return nil, err
	}
	_ = conn.SetReadBuffer(receiveBuffer)
	k := &socket{conn: conn, session: s}
	go func() { // ends with the socket
		buf := make([]byte, 1536)
		for {
			n, _, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			select {
			case p.queue <- datagram{k, append([]byte(nil), buf[:n]...), time.Now().UnixNano()}:
			default: // lost, as in a socket that is full
			}
		}
	}()
	return k, nil
}

func (p *poller) remove(k *socket) {
	k.gone = true
	_ = k.conn.Close()
}

func (p *poller) wait(timeout time.Duration, take func(s *session, b []byte, at int64), batch func()) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case d := <-p.queue:
		batch()
		if !d.socket.gone {
			take(d.socket.session, d.b, d.at)
		}
	case <-p.woken:
		batch()
	case <-timer.C:
		batch()
	}
	return nil
}

func (k *socket) connect(to netip.AddrPort) { k.peer.Store(&to) }

func (k *socket) sendTo(b []byte, to netip.AddrPort) { _, _ = k.conn.WriteToUDPAddrPort(b, to) }

func (k *socket) send(b []byte) {
	if to := k.peer.Load(); to != nil {
		k.sendTo(b, *to)
	}
}

func (k *socket) sendAll(all [][]byte) {
	for _, b := range all {
		k.send(b)
	}
}
