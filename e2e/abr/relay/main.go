// Command relay delays the UDP between one client and a server, as the kernel here can't: `relay 10.0.0.1:50000 50ms` prints where the client is to send
// to. `make abr` runs it.
//
// Imports: internal/impair, internal/lifecycle.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"sluice/internal/impair"
	"sluice/internal/lifecycle"
)

func main() {
	ctx, release := lifecycle.Signals(context.Background(), func(os.Signal) { os.Exit(130) })
	err := run(ctx, os.Args[1:], os.Stdout)
	release()
	if err != nil {
		fmt.Fprintln(os.Stderr, "relay:", err)
		os.Exit(1)
	}
}

// run relays until ctx ends.
func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("say where to, and the delay of each direction: relay 10.0.0.1:50000 50ms")
	}
	target, err := netip.ParseAddrPort(args[0])
	if err != nil {
		return err
	}
	delay, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	path := impair.Path{Delay: delay}
	r, err := impair.Listen(ctx, target, impair.Config{Up: path, Down: path})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, r.Addr())
	return r.Run(ctx)
}
