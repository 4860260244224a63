package rtc

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// What could not be sent is told of, but not often.
func TestFailuresAreTold(t *testing.T) {
	var out bytes.Buffer
	e := New(Config{Listen: "127.0.0.1:0", Shards: 1, NoTCP: true, Log: slog.New(slog.NewTextHandler(&out, nil))})
	if err := e.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer e.closeSockets()
	if !strings.Contains(out.String(), "media port is open") {
		t.Errorf("nothing says that the port is open: %s", out.String())
	}
	socket := e.hosts[0].sockets[0]
	batch, bad := socket.NewBatch(), socket.MakeAddr(netip.MustParseAddrPort("127.0.0.1:0"))
	now := time.Now()
	for _, c := range []struct {
		after time.Duration
		lines int
	}{{0, 1}, {time.Second, 1}, {2 * time.Second, 1}, {tellFailedEvery, 2}} {
		batch.Add(&bad, []byte{1}, 1)
		if err := batch.Flush(); err != nil {
			t.Fatal(err)
		}
		e.observe(now.Add(c.after))
		if n := strings.Count(out.String(), "could not be sent"); n != c.lines {
			t.Errorf("after %v: %d lines, want %d", c.after, n, c.lines)
		}
	}
	if n := e.Failed(); n != 4 {
		t.Errorf("%d failed, want 4", n)
	}
}
