package relay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	in "sluice/ingest/relay"
	"sluice/media"
	wire "sluice/relay"
	"sluice/stream"
)

// lockedBuffer is a log that a test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestUnreachable: a client learns that the origin is out of reach, and nothing about where it is; the log has it all.
func TestUnreachable(t *testing.T) {
	mute, err := net.ListenPacket("udp", "127.0.0.1:0") // takes all and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mute.Close() }()
	addr := mute.LocalAddr().String()
	for _, c := range []struct {
		name   string
		lookup func() (in.Source, error)
		want   error
		log    []string // what it says; nothing: no warning
	}{
		{"an origin that does not answer", func() (in.Source, error) { return in.Source{Addr: addr, Key: "k", Node: "o1", Epoch: 1}, nil },
			in.ErrUnreachable, []string{"node=o1", "addr=" + addr, "error="}},
		{"an address that is none", func() (in.Source, error) { return in.Source{Addr: "nowhere", Key: "k", Node: "o1", Epoch: 1}, nil },
			in.ErrUnreachable, []string{"node=o1", "addr=nowhere"}},
		{"no registry", func() (in.Source, error) { return in.Source{}, fmt.Errorf("dial %s: refused", addr) }, in.ErrUnreachable, []string{"refused"}},
		{"nobody publishes", func() (in.Source, error) { return in.Source{}, stream.ErrOffline }, stream.ErrOffline, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			id, err := wire.NewIdentity()
			if err != nil {
				t.Fatal(err)
			}
			log := &lockedBuffer{}
			r := in.New(in.Config{Hub: stream.NewHub(stream.Config{}), Identity: id, Node: "e1",
				Lookup: func(context.Context, media.Key) (in.Source, error) { return c.lookup() },
				Log:    slog.New(slog.NewTextHandler(log, nil))})
			ctx, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { _ = r.Run(ctx) })
			defer wg.Wait()
			defer stop()
			began := time.Now()
			var pulls sync.WaitGroup
			for i := range 3 { // at a time: they are told as one
				pulls.Go(func() {
					err := r.Pull(t.Context(), media.Key{App: "live", ID: fmt.Sprint("s", i)})
					if !errors.Is(err, c.want) || c.want != stream.ErrOffline && errors.Is(err, stream.ErrOffline) {
						t.Errorf("error %v, want %v", err, c.want)
					}
					if text := fmt.Sprint(err); strings.Contains(text, "127.0.0.1") || strings.Contains(text, "o1") || strings.Contains(text, "nowhere") {
						t.Errorf("a client is told %q", text)
					}
				})
			}
			pulls.Wait()
			lines := strings.Count(log.String(), "level=WARN")
			if most := 1 + int(time.Since(began)/time.Second); len(c.log) > 0 && lines == 0 || len(c.log) == 0 && lines > 0 || lines > most {
				t.Errorf("%d warnings:\n%s", lines, log)
			}
			for _, want := range c.log {
				if !strings.Contains(log.String(), want) {
					t.Errorf("the log does not say %s:\n%s", want, log)
				}
			}
		})
	}
}
