package node

import (
	"context"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/cluster/memory"
	"sluice/internal/config"
)

// Clients are told of the node's TURN server, each with credentials of its own.
func TestTURNIsTold(t *testing.T) {
	for _, on := range []bool{true, false} {
		cfg := config.Default().Node
		cfg.HTTP, cfg.Media, cfg.Relay, cfg.TrustedProxies = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", nil
		cfg.Announce = []string{"203.0.113.7"}
		if on {
			cfg.TURN.Listen = "127.0.0.1:0"
		}
		n, err := New(cfg, Deps{Registry: memory.NewStore(time.Now).Open()})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Listen(t.Context()); err != nil {
			t.Fatal(err)
		}
		ask := func() (links []string) {
			w := httptest.NewRecorder()
			n.http.Handler.ServeHTTP(w, httptest.NewRequest("OPTIONS", "/live/whep/x", nil))
			return w.Header().Values("Link")
		}
		first, second := ask(), ask()
		if !on {
			if len(first) != 0 {
				t.Errorf("told of %q without a TURN server", first)
			}
		} else if len(first) != 2 || !strings.HasPrefix(first[0], "<turn:203.0.113.7:") || !strings.Contains(first[1], "?transport=tcp>; rel=\"ice-server\"; username=") || first[0] == second[0] {
			t.Errorf("told of %q and then %q", first, second)
		}
		if r := n.rtc.Routes(); len(r) != 1 || r[0].Told.Addr() != netip.MustParseAddr("203.0.113.7") || r[0].Bound.Addr() != netip.MustParseAddr("127.0.0.1") || r[0].Told.Port() != r[0].Bound.Port() {
			t.Errorf("routes %v", r)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := n.Run(ctx); err != nil {
			t.Error(err)
		}
	}
}
