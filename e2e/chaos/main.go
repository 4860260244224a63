// Command chaos breaks a cluster of real processes, each in a network namespace of its own, while people publish and watch, and measures what they
// notice: nodes and gateways are killed, stopped and cut off, the registry goes away. It prints a table of what must hold and what was
// measured, and keeps it as JSON. `make chaos` runs it; docs/cluster.md has the figures.
//
// Imports: internal/lifecycle, load/crowd.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"sluice/internal/lifecycle"
)

func main() {
	ctx, release := lifecycle.Signals(context.Background(), func(os.Signal) { os.Exit(130) })
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	release()
	os.Exit(code)
}

// cli is the command line.
type cli struct {
	Only     []string `help:"Which scenarios: ${scenarios}." default:"${scenarios}" enum:"${scenarios}"`
	Quick    bool     `help:"Fewer rounds, and 30 s where the long form takes 10 minutes."`
	Store    string   `help:"The registry: ${stores}." default:"sqlite" enum:"${stores}"`
	Loss     float64  `help:"Share of all UDP that the clients lose on the way in, 0 to 1." default:"0"`
	Rate     int      `help:"What the clients' cable carries, Mbit/s; 0: all that the machine can." default:"0"`
	FerretDB string   `name:"ferretdb" help:"The server behind --store=mongo." default:"bin/ferretdb" placeholder:"FILE"`
	Sluice   string   `help:"Our binary." default:"bin/sluice" placeholder:"FILE"`
	Out      string   `help:"Folder for the JSON file, and the logs of scenarios that miss a figure." default:"chaos-results" placeholder:"DIR"`
	Inside   int      `hidden:"" help:"The process that has made the namespaces; this one is in that of the clients."`
	Wire     string   `hidden:"" help:"Be the proxy before FerretDB, at this address."`
	To       string   `hidden:"" help:"Its socket."`
}

// run is main without the process around it; it returns the exit code.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	var c cli
	asked := false // for help
	parser, err := kong.New(&c, kong.Name("chaos"), kong.Description("Breaks a cluster and measures what people notice. Needs root."),
		kong.Vars{"scenarios": scenarioNames(), "stores": strings.Join(storeNames(), ",")}, kong.Writers(out, errs), kong.Exit(func(int) { asked = true }))
	if err == nil {
		_, err = parser.Parse(args)
	}
	if asked {
		return 0
	}
	if err == nil && (c.Loss < 0 || c.Loss > 0.5 || c.Rate < 0) {
		err = errors.New("give --loss 0 to 0.5 and --rate 0 or more")
	}
	if err != nil {
		fmt.Fprintf(errs, "chaos: %v (see: chaos --help)\n", err)
		return 2
	}
	switch {
	case c.Wire != "":
		err = wire(ctx, c.Wire, c.To)
	case c.Inside != 0:
		err = c.inside(ctx, out, errs)
	default:
		err = c.outside(ctx, args, out, errs)
	}
	var inner *exec.ExitError
	switch {
	case errors.As(err, &inner): // it has said why
		return max(1, inner.ExitCode())
	case err != nil:
		fmt.Fprintln(errs, "chaos:", err)
		return 1
	}
	return 0
}

const originCount, edgeCount, gatewayCount = 2, 3, 2

// outside makes the network, lets another process of this program work within, and takes the network away again, whatever became of that.
func (c *cli) outside(ctx context.Context, args []string, out, errs io.Writer) (err error) {
	if why := missing(); why != "" {
		return errors.New(why)
	}
	if err := sweep(ctx); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	n := layout(os.Getpid(), originCount, edgeCount, gatewayCount)
	defer func() { err = errors.Join(err, n.remove()) }()
	if err := n.build(ctx); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.hosts["clients"].namespace, self, "--inside", strconv.Itoa(os.Getpid())}, args...)...)
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	return cmd.Run()
}

// inside runs the scenarios.
func (c *cli) inside(ctx context.Context, out, errs io.Writer) error {
	binary, err := filepath.Abs(c.Sluice)
	if err != nil {
		return err
	}
	version, err := command(ctx, "", binary, "version")
	if err != nil {
		return fmt.Errorf("%w: make build makes it", err)
	}
	r := &result{Began: time.Now().Truncate(time.Second), Store: c.Store, Quick: c.Quick, Errors: map[string]string{}, Skipped: map[string]string{}}
	r.Version, _, _ = strings.Cut(version, "\n")
	n := layout(c.Inside, originCount, edgeCount, gatewayCount)
	if c.Rate > 0 {
		if err := n.limit(ctx, "clients", c.Rate); err != nil {
			return err
		}
	}
	for _, s := range scenarios() {
		if !slices.Contains(c.Only, s.name) {
			continue
		}
		r.scenario = s.title
		fmt.Fprintf(errs, "%-10s %s\n", s.name, s.title)
		began, rows := time.Now(), len(r.Rows)
		err := c.scenario(ctx, s, n, binary, r)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var skip skipped
		switch {
		case errors.As(err, &skip):
			r.Skipped[s.title] = err.Error()
			fmt.Fprintf(errs, "           left out: %v\n", err)
			continue
		case err != nil:
			r.Errors[s.title] = err.Error()
		}
		fmt.Fprintf(errs, "           %s in %s\n", verdict(r.Rows[rows:], err), time.Since(began).Round(time.Second))
	}
	fmt.Fprint(out, "\n", r)
	path, err := r.keep(c.Out)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nkept in %s\n", path)
	if n := r.missed(); n > 0 {
		return fmt.Errorf("%d figures were not reached", n)
	}
	return nil
}

func verdict(rows []row, err error) string {
	missed := 0
	for _, x := range rows {
		if x.Met != nil && !*x.Met {
			missed++
		}
	}
	switch {
	case err != nil:
		return "FAILED: " + err.Error()
	case missed > 0:
		return fmt.Sprintf("MISSED %d figures", missed)
	}
	return "met"
}

// scenario runs one in a world of its own.
func (c *cli) scenario(ctx context.Context, s scenario, n *network, binary string, r *result) (err error) {
	if s.lacks != nil {
		if why := s.lacks(ctx, binary); why != "" {
			return skipped(why)
		}
	}
	registry, err := c.registry(n)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "sluice-chaos-")
	if err != nil {
		return err
	}
	w := &world{binary: binary, dir: dir, net: n, store: registry, quick: c.Quick, loss: c.Loss, setup: s.setup}
	rows := len(r.Rows)
	defer func() {
		var skip skipped
		if !errors.As(err, &skip) && verdict(r.Rows[rows:], err) != "met" {
			err = errors.Join(err, w.logs(filepath.Join(c.Out, "logs", s.name)))
		}
		err = errors.Join(err, w.close(), os.RemoveAll(dir))
	}()
	if err := n.shape(ctx, "clients", c.Loss); err != nil {
		return err
	}
	if err := w.open(ctx); err != nil {
		return fmt.Errorf("start the cluster: %w", err)
	}
	return s.run(ctx, w, r)
}

func (c *cli) registry(n *network) (store, error) {
	if c.Store == "sqlite" {
		return &sqliteStore{}, nil
	}
	binary, err := filepath.Abs(c.FerretDB)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	return &mongoStore{binary: binary, self: self, host: n.hosts["registry"]}, err
}

// skipped says why a scenario makes no sense here.
type skipped string

func (s skipped) Error() string { return string(s) }
