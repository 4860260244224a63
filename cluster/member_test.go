package cluster_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/cluster"
	"sluice/cluster/memory"
)

// All tests below run in a bubble (testing/synctest): their clock moves when everybody
// waits, and a goroutine that does not end fails the test.

// start runs a part until the returned function is called, which waits for its end.
func start(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
}

// pass lets time go by, until everybody waits again.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// story collects log lines.
type story struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *story) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

func (s *story) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.FieldsFunc(s.buf.String(), func(r rune) bool { return r == '\n' })
}

func (s *story) log() *slog.Logger { return slog.New(slog.NewTextHandler(s, nil)) }

// check compares the story with what each line must contain.
func (s *story) check(t *testing.T, want ...string) {
	t.Helper()
	got := s.lines()
	ok := len(got) == len(want)
	for i := 0; ok && i < len(want); i++ {
		ok = strings.Contains(got[i], want[i])
	}
	if !ok {
		t.Errorf("log\n%s\nwant lines with %q", strings.Join(got, "\n"), want)
	}
}

func TestMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore(time.Now)
		reg, look, log := store.Open(), store.Open(), &story{}
		var mu sync.Mutex
		state := cluster.Ready
		p := cluster.NewMember(reg, "a", func() cluster.Node {
			mu.Lock()
			defer mu.Unlock()
			return cluster.Node{State: state}
		}, log.log())
		stop := start(t, p.Run)
		defer stop()
		age := func() (cluster.Node, time.Duration) {
			t.Helper()
			list, err := look.Nodes(t.Context())
			if err != nil || len(list) != 1 {
				t.Fatalf("nodes %+v, %v; want one", list, err)
			}
			return list[0], time.Since(list[0].LastHeartbeat)
		}

		synctest.Wait()
		if n, old := age(); old != 0 || n.State != cluster.Ready {
			t.Errorf("at the start: %s, %v old", n.State, old)
		}
		pass(2500 * time.Millisecond)
		if _, old := age(); old != 500*time.Millisecond {
			t.Errorf("heartbeat is %v old, want 500ms", old)
		}
		mu.Lock()
		state = cluster.Draining
		mu.Unlock()
		p.Now()
		synctest.Wait()
		if n, old := age(); n.State != cluster.Draining || old != 0 {
			t.Errorf("after Now: %s, %v old; want draining, 0", n.State, old)
		}

		reg.Cut(true) // the registry is away for 10 s
		pass(10 * time.Second)
		if n, old := age(); n.Alive(time.Now()) {
			t.Errorf("heartbeat is %v old and the node lives", old)
		}
		reg.Cut(false)
		pass(time.Second)
		if n, _ := age(); !n.Alive(time.Now()) {
			t.Error("node has not come back")
		}
		log.check(t, "registry can't be reached", "outage=10s")

		stop()
		if list, err := look.Nodes(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("after a clean stop: %+v, %v", list, err)
		}
	})
}

func TestMemberStopsWithoutRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, log := memory.NewStore(time.Now).Open(), &story{}
		reg.Cut(true)
		stop := start(t, cluster.NewMember(reg, "a", func() cluster.Node { return cluster.Node{} }, log.log()).Run)
		pass(3 * time.Second)
		stop()
		log.check(t, "registry can't be reached", "outage=3s", "row stays")
	})
}

// A registry that swallows calls is no worse than one that refuses them.
func TestMemberHungRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &story{}
		hung := hangs{memory.NewStore(time.Now).Open()}
		stop := start(t, cluster.NewMember(hung, "a", func() cluster.Node { return cluster.Node{} }, log.log()).Run)
		pass(5 * time.Second)
		begin := time.Now()
		stop()
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("stop took %v", took)
		}
		log.check(t, "deadline exceeded", "still away", "row stays")
	})
}

// hangs is a registry that never answers.
type hangs struct{ *memory.Registry }

func (hangs) Join(ctx context.Context, _ cluster.Node) error     { <-ctx.Done(); return ctx.Err() }
func (hangs) Leave(ctx context.Context, _ string, _ int64) error { <-ctx.Done(); return ctx.Err() }
