package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"sluice/media"
	wire "sluice/relay"
)

// TestLatestToAvoid: of the nodes to avoid only some can be named, and those are the ones that have failed last.
func TestLatestToAvoid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(nil, media.Key{App: "live", ID: "s"}, slog.New(slog.DiscardHandler))
		for i := range wire.MaxAvoid + 4 {
			s.avoid(fmt.Sprint("n", i))
			<-time.After(time.Millisecond)
		}
		s.avoid("n0")
		if got := s.avoided(); len(got) != wire.MaxAvoid || got[0] != "n0" || got[1] != "n19" {
			t.Errorf("avoided are %v", got)
		}
		<-time.After(avoidFor)
		if got := s.avoided(); !slices.Equal(got, []string{"n0"}) {
			t.Errorf("later, avoided are %v, not only the one that was lost again", got)
		}
	})
}

// TestJustFailedIsNamed: a node that has failed within an attempt is named to the next that is asked, however many
// had failed before.
func TestJustFailedIsNamed(t *testing.T) {
	server, client := mustIdentity(t), mustIdentity(t)
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: udp}
	l, err := tr.Listen(server.ServerTLS(func(context.Context, string) bool { return true }), wire.ServerQUIC())
	if err != nil {
		t.Fatal(err)
	}
	o := Source{Addr: udp.LocalAddr().String(), Key: server.Key(), Node: "o", Epoch: 1}
	done := make(chan struct{})
	go func() { // sends each that asks to another node, which refuses
		defer close(done)
		for n := 0; ; n++ {
			conn, err := l.Accept(context.Background()) // a new one each time: nobody else takes anything from here
			if err != nil {
				return
			}
			ctl, err := conn.AcceptStream(context.Background())
			if err != nil {
				continue
			}
			rd := wire.NewReader(ctl, wire.MaxControl)
			_, _ = rd.Next() // Hello
			b, _ := rd.Next()
			f, _ := wire.ParseFrame(b)
			ask, _ := f.(wire.Subscribe)
			var answer wire.Frame = wire.End{Code: wire.Full}
			if last := fmt.Sprint("n", n/2-1); n%2 == 0 {
				answer = wire.Redirect{Addr: o.Addr, Key: o.Key, Node: fmt.Sprint("n", n/2)}
				if n > 0 && !slices.Contains(ask.Avoid, last) {
					t.Errorf("%s has just failed, but avoided are %v", last, ask.Avoid)
				}
			}
			hello := wire.AppendFrame(nil, wire.Hello{Version: wire.Version, Node: "o"})
			_, _ = ctl.Write(wire.AppendFrame(hello, answer))
			_ = ctl.Close()
		}
	}()
	defer func() { _ = tr.Close(); _ = udp.Close(); <-done }()

	r := New(Config{Identity: client, Node: "e", Log: slog.New(slog.DiscardHandler), Lookup: func(context.Context, media.Key) (Source, error) { return o, nil }})
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- r.Run(ctx) }()
	defer func() { cancel(); <-over }()
	var before, failed []string
	for i := range wire.MaxAvoid {
		before = append(before, fmt.Sprint("old", i))
	}
	s := newSession(r, media.Key{App: "live", ID: "s"}, slog.New(slog.DiscardHandler))
	if _, _, err := s.take(t.Context(), before, &failed, nil); !errors.Is(err, errFull) {
		t.Fatalf("take: %v", err)
	}
	if len(failed) != maxAsked/2 || failed[0] != fmt.Sprint("n", maxAsked/2-1) {
		t.Errorf("failed: %v", failed)
	}
}

// TestOnlyAddresses: a node that another one names must be an address; DNS is not asked.
func TestOnlyAddresses(t *testing.T) {
	r := New(Config{Identity: mustIdentity(t), Node: "e"})
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- r.Run(ctx) }()
	defer func() { cancel(); <-over }()
	for _, addr := range []string{"localhost:5000", "[::1", "127.0.0.1", ""} {
		if _, err := r.peer(t.Context(), Source{Addr: addr, Key: "k", Node: "x"}); err == nil || !strings.Contains(err.Error(), "not an address") {
			t.Errorf("%q: %v", addr, err)
		}
	}
}

func mustIdentity(t *testing.T) *wire.Identity {
	t.Helper()
	id, err := wire.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}
