package publicip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/pion/stun/v4"
)

// firstRetry is the time after which a question is repeated, doubled each time (RFC 8489 §6.2.1).
const firstRetry = 500 * time.Millisecond

// askSTUN asks a server from which address our packets come (RFC 8489 §2).
func askSTUN(ctx context.Context, server string) (public, private netip.Addr, err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", server)
	if err != nil {
		return public, private, err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	question, err := stun.Build(stun.TransactionID, stun.BindingRequest)
	if err != nil {
		return public, private, err
	}
	if a, ok := conn.LocalAddr().(*net.UDPAddr); ok {
		private = a.AddrPort().Addr().Unmap()
	}
	for wait := firstRetry; ; wait *= 2 {
		if _, err := conn.Write(question.Raw); err != nil {
			return public, private, err
		}
		public, err = readSTUN(conn, question.TransactionID, time.Now().Add(wait))
		switch {
		case ctx.Err() != nil:
			return public, private, fmt.Errorf("no answer: %w", ctx.Err())
		case err == nil:
			return public, private, nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return public, private, err
		}
	}
}

// readSTUN waits until a time for the answer to one question.
func readSTUN(conn net.Conn, id [stun.TransactionIDSize]byte, until time.Time) (netip.Addr, error) {
	if err := conn.SetReadDeadline(until); err != nil {
		return netip.Addr{}, err
	}
	buf := make([]byte, 1500)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return netip.Addr{}, err
		}
		m := &stun.Message{Raw: buf[:n]}
		if m.Decode() != nil || m.TransactionID != id {
			continue // not for us
		}
		var mapped stun.XORMappedAddress
		if m.Type != stun.BindingSuccess || mapped.GetFrom(m) != nil {
			return netip.Addr{}, fmt.Errorf("the answer is %s, without an address", m.Type)
		}
		a, ok := netip.AddrFromSlice(mapped.IP)
		if !ok {
			return netip.Addr{}, fmt.Errorf("the answer's address is %v", mapped.IP)
		}
		return a.Unmap(), nil
	}
}
