package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// diary notes what happens, in order.
type diary struct {
	mu   sync.Mutex
	list []string
}

func (d *diary) note(s string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = append(d.list, s)
}

func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.list)
}

// part is well-behaved; listenErr and runErr make it fail, and lazy makes it take that long to stop.
func (d *diary) part(name string, listenErr, runErr error, lazy time.Duration) Part {
	return Part{
		Name:   name,
		Listen: func(context.Context) error { d.note("listen " + name); return listenErr },
		Run: func(ctx context.Context) error {
			if runErr != nil {
				return runErr
			}
			<-ctx.Done()
			<-time.After(lazy) // in synctest's time
			d.note("end " + name)
			return ctx.Err()
		},
	}
}

func TestRun(t *testing.T) {
	broken := errors.New("broken")
	for _, tc := range []struct {
		name  string
		parts func(d *diary) []Part
		want  []string
		err   string
	}{
		{"stops in reverse, one after the other", func(d *diary) []Part {
			return []Part{d.part("a", nil, nil, 0), d.part("b", nil, nil, 3*time.Second), d.part("c", nil, nil, time.Second)}
		}, []string{"listen a", "listen b", "listen c", "end c", "end b", "end a"}, "<nil>"},
		{"one can't listen", func(d *diary) []Part {
			return []Part{d.part("a", nil, nil, 0), d.part("b", broken, nil, 0), d.part("c", nil, nil, 0)}
		}, []string{"listen a", "listen b", "end a"}, "start b: broken"},
		{"one fails later", func(d *diary) []Part {
			return []Part{d.part("a", nil, nil, 0), d.part("b", nil, broken, 0), d.part("c", nil, nil, 0)}
		}, []string{"listen a", "listen b", "listen c", "end c", "end a"}, "b: broken"},
		{"one ends without a reason", func(d *diary) []Part {
			return []Part{d.part("a", nil, nil, 0), {Name: "b", Run: func(context.Context) error { return nil }}}
		}, []string{"listen a", "end a"}, "b ended by itself"},
		{"one says that all is done", func(d *diary) []Part {
			return []Part{d.part("a", nil, nil, 0), {Name: "b", Run: func(context.Context) error { return ErrDone }}, d.part("c", nil, nil, 0)}
		}, []string{"listen a", "listen c", "end c", "end a"}, "all is done"},
		{"all is done, and one fails", func(d *diary) []Part {
			return []Part{d.part("a", nil, nil, 0), {Name: "b", Run: func(context.Context) error { return ErrDone }},
				{Name: "c", Run: func(ctx context.Context) error { <-ctx.Done(); return broken }}}
		}, []string{"listen a", "end a"}, "c: broken"},
		{"one does not stop", func(d *diary) []Part {
			return []Part{d.part("a", nil, nil, 0), d.part("b", nil, nil, time.Minute)}
		}, []string{"listen a", "listen b", "end a"}, "b did not stop within 5s"},
		{"no parts", func(*diary) []Part { return nil }, nil, "<nil>"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := new(diary)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				err := Run(ctx, slog.New(slog.DiscardHandler), 5*time.Second, tc.parts(d)...)
				if fmt.Sprint(err) != tc.err {
					t.Errorf("got error %v, want %s", err, tc.err)
				}
				got := d.read()
				<-time.After(time.Hour) // the one that was left behind must end inside the bubble
				if !reflect.DeepEqual(got, tc.want) {
					t.Errorf("got %q, want %q", got, tc.want)
				}
			})
		})
	}
}

// TestSignals sends real signals to this process.
func TestSignals(t *testing.T) {
	forced := make(chan os.Signal, 1)
	ctx, release := Signals(t.Context(), func(s os.Signal) { forced <- s })
	kill := func(s syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), s); err != nil {
			t.Fatal(err)
		}
	}
	if ctx.Err() != nil {
		t.Fatal("ended before any signal")
	}
	kill(syscall.SIGTERM)
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the first signal did not end the context")
	}
	if !errors.Is(context.Cause(ctx), ErrSignal) {
		t.Errorf("cause is %v", context.Cause(ctx))
	}
	select {
	case s := <-forced:
		t.Fatalf("forced by the first signal %s", s)
	default:
	}
	kill(syscall.SIGINT)
	select {
	case s := <-forced:
		if s != os.Interrupt {
			t.Errorf("forced by %s", s)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the second signal did not force")
	}
	release()
}

func TestSignalsReleased(t *testing.T) {
	ctx, release := Signals(t.Context(), func(os.Signal) { t.Error("forced") })
	release() // returns only when the goroutine has ended
	if ctx.Err() == nil || errors.Is(context.Cause(ctx), ErrSignal) {
		t.Errorf("after release: %v, %v", ctx.Err(), context.Cause(ctx))
	}
}
