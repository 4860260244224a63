// Package lifecycle runs the parts of a process: it starts them in order, stops
// them in the reverse order, and hears the signals that ask for it.
//
// Imports: nothing of ours.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Signals returns a context that ends at the first signal to stop (SIGINT, SIGTERM, SIGHUP):
// the process drains. The second calls force, once, from another goroutine: the process ends now. release
// ends the listening and waits for it.
func Signals(parent context.Context, force func(os.Signal)) (ctx context.Context, release func()) {
	ch := make(chan os.Signal, 2) // one for each that counts; more are dropped
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	ctx, cancel := context.WithCancelCause(parent)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case s := <-ch:
			cancel(fmt.Errorf("%w: %s", ErrSignal, s))
		case <-done:
			return
		}
		select {
		case s := <-ch:
			force(s)
		case <-done:
		}
	}()
	return ctx, func() {
		signal.Stop(ch)
		close(done)
		<-ended
		cancel(context.Canceled)
	}
}

// ErrSignal is the cause of a context that a signal ended.
var ErrSignal = errors.New("stopped by signal")

// ErrDone is what a part returns when all is done: the others are stopped, and that is no error.
var ErrDone = errors.New("all is done")

// Part is one of the things that a process is made of.
type Part struct {
	Name   string
	Listen func(context.Context) error // gets hold of what it needs, such as ports; may be nil
	Run    func(context.Context) error // blocks until its context ends and its goroutines have ended
}

// running is a part that was started.
type running struct {
	name string
	stop context.CancelFunc
	done chan struct{}
	err  error // valid once done is closed
}

// Run starts the parts in order: each listens, then runs. When ctx ends, or a part
// ends by itself, it stops them in the reverse order, each only after those that were started after it have ended.
// A part that has not ended stopWithin after it was told to is left behind and is an error.
// The result joins the errors of all parts; ending because ctx ended is none. When a part ended with ErrDone
// and nothing else went wrong, the result is ErrDone.
func Run(ctx context.Context, log *slog.Logger, stopWithin time.Duration, parts ...Part) error {
	var started []*running
	ended := make(chan *running, len(parts)) // room for all: nobody blocks
	var errs []error
	done := false
	for _, p := range parts {
		if p.Listen != nil {
			if err := p.Listen(ctx); err != nil {
				errs = append(errs, fmt.Errorf("start %s: %w", p.Name, err))
				break
			}
		}
		started = append(started, start(ctx, p, ended))
		log.Debug("started", "part", p.Name)
	}
	if len(errs) == 0 && len(started) > 0 {
		select {
		case <-ctx.Done():
		case r := <-ended:
			switch {
			case errors.Is(r.err, ErrDone):
				done = true
			case r.err == nil && ctx.Err() == nil:
				errs = append(errs, fmt.Errorf("%s ended by itself", r.name))
			}
		}
	}
	for i := len(started) - 1; i >= 0; i-- {
		r := started[i]
		if err := r.end(stopWithin); err != nil {
			errs = append(errs, err)
		}
		log.Debug("stopped", "part", r.name)
	}
	if done && len(errs) == 0 {
		return ErrDone
	}
	return errors.Join(errs...)
}

func start(ctx context.Context, p Part, ended chan<- *running) *running {
	// Its own context: the end of ctx must not stop all parts at once.
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	r := &running{name: p.Name, stop: stop, done: make(chan struct{})}
	go func() {
		r.err = p.Run(own)
		close(r.done)
		ended <- r
	}()
	return r
}

func (r *running) end(within time.Duration) error {
	r.stop()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-r.done:
	case <-timer.C:
		return fmt.Errorf("%s did not stop within %s", r.name, within)
	}
	if r.err != nil && !errors.Is(r.err, context.Canceled) && !errors.Is(r.err, ErrDone) {
		return fmt.Errorf("%s: %w", r.name, r.err)
	}
	return nil
}
