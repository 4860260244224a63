package cluster_test

import (
	"bytes"
	"context"
	"errors"
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
		stop := start(t, cluster.NewMember(reg, "a", func() cluster.Node { return cluster.Node{} }, log.log()).Run)
		pass(500 * time.Millisecond)
		reg.Cut(true)
		pass(3 * time.Second)
		stop()
		log.check(t, "registry can't be reached", "outage=2.5s", "row stays")
	})
}

// One that has never reached the registry has nothing there.
func TestMemberNeverJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, log := memory.NewStore(time.Now).Open(), &story{}
		reg.Cut(true)
		stop := start(t, cluster.NewMember(reg, "a", func() cluster.Node { return cluster.Node{} }, log.log()).Run)
		pass(3 * time.Second)
		stop()
		log.check(t, "registry can't be reached", "outage=3s")
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

// Of two processes with one id the second does not join, unless the first is gone.
func TestOneID(t *testing.T) {
	for _, c := range []struct {
		name      string
		host      string // of the second; the first is process 1 on "here"
		pid       int
		beats     bool // the first goes on
		gone      bool // the second sees that it is gone
		joins     bool
		within    time.Duration // when it joins or ends
		says      string
		noProcess bool // rows of the first say nothing
	}{
		{name: "elsewhere, and it lives", host: "there", pid: 1, beats: true, within: 2 * time.Second, says: "process 1 on here; give each process its own --id, or stop that one first"},
		{name: "here, and it lives", host: "here", pid: 2, beats: true, within: 2 * time.Second, says: "process 1 on here; give each process its own --id"},
		{name: "elsewhere, and it was killed", host: "there", pid: 1, joins: true, within: 4 * time.Second},
		{name: "here, and it was killed", host: "here", pid: 2, gone: true, joins: true},
		{name: "elsewhere, whatever processes are here", host: "there", pid: 2, beats: true, gone: true, within: 2 * time.Second, says: "process 1 on here"},
		{name: "here, under the same number", host: "here", pid: 1, joins: true},
		{name: "unknown who it was", host: "here", pid: 2, beats: true, joins: true, noProcess: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.NewStore(time.Now)
				first := cluster.Node{ID: "a", Session: 7, PID: 1, Host: "here"}
				if c.noProcess {
					first.PID, first.Host = 0, ""
				}
				reg := store.Open()
				if err := reg.Join(t.Context(), first); err != nil {
					t.Fatal(err)
				}
				if c.beats {
					defer start(t, func(ctx context.Context) error {
						for tick := time.Tick(time.Second); ; {
							select {
							case <-ctx.Done():
								return nil
							case <-tick:
								_ = reg.Heartbeat(ctx, first)
							}
						}
					})()
				}
				pass(500 * time.Millisecond)
				log := &story{}
				p := cluster.NewMember(store.Open(), "a", func() cluster.Node { return cluster.Node{PID: c.pid, Host: c.host} }, log.log())
				p.Gone = func(pid int) bool { return c.gone && pid == 1 }
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ended := make(chan error, 1)
				go func() { ended <- p.Run(ctx) }()
				pass(c.within)
				nodes, err := store.Open().Nodes(t.Context())
				if err != nil || len(nodes) != 1 {
					t.Fatalf("nodes %+v, %v", nodes, err)
				}
				if joined := nodes[0].Session != first.Session; joined != c.joins {
					t.Errorf("joined: %v, want %v; log %q", joined, c.joins, log.lines())
				}
				if c.joins {
					cancel()
					if err := <-ended; err != nil {
						t.Error(err)
					}
					return
				}
				select {
				case err := <-ended:
					if !errors.Is(err, cluster.ErrIDInUse) || !strings.Contains(err.Error(), c.says) {
						t.Errorf("it ends with %v", err)
					}
				default:
					t.Error("it has not ended")
				}
				pass(10 * time.Second)
				if nodes, _ = store.Open().Nodes(t.Context()); len(nodes) != 1 || !nodes[0].Alive(time.Now()) || nodes[0].Fenced {
					t.Errorf("the first is %+v", nodes)
				}
			})
		})
	}
}
