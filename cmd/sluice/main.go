// Command sluice is a real-time video cluster: every process of it, and the tools to run it.
//
// Imports: cluster, cluster/mongo, cluster/sqlite, gateway, gateway/scaling, internal/auth, internal/config, internal/lifecycle, internal/metrics, internal/plan, internal/publicip, internal/trace, internal/usage, load, load/crowd, media, node.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"sluice/internal/config"
	"sluice/internal/lifecycle"
)

// Set by the linker (see Makefile).
var (
	version = "dev"
	commit  = "unknown"
)

// Exit codes. A process that a second signal ends says 130, as a shell does for SIGINT.
const (
	exitFailed = 1
	exitUsage  = 2
	exitBroken = 3 // a threshold of sluice load
	exitForced = 130
)

func main() {
	ctx, release := lifecycle.Signals(context.Background(), func(os.Signal) { os.Exit(exitForced) })
	code := run(ctx, os.Args[1:], config.Environ(), os.Stdin, os.Stdout, os.Stderr)
	release()
	os.Exit(code)
}

// cli is the command line. Flags come from the structs of internal/config.
type cli struct {
	Config string `help:"Configuration file; default: sluice.yaml in this folder, if there ($$SLUICE_CONFIG)." placeholder:"FILE"`

	Up      upCmd      `cmd:"" help:"Run a whole cluster on this machine."`
	Serve   serveCmd   `cmd:"" help:"Run one node: standalone, origin or edge."`
	Gateway gatewayCmd `cmd:"" help:"Run the front door."`
	Publish publishCmd `cmd:"" help:"Publish a file or a test pattern, as a user would."`
	Play    playCmd    `cmd:"" help:"Watch a stream, as a user would, and report what was seen."`
	Load    loadCmd    `cmd:"" help:"Load a server with publishers and viewers, measure what they see, find how many it carries."`
	Nodes   nodesCmd   `cmd:"" help:"List the nodes of a cluster."`
	Streams streamsCmd `cmd:"" help:"List the streams of a cluster."`
	Drain   drainCmd   `cmd:"" help:"Let a node go: its clients move to others, and it ends."`
	Join    joinCmd    `cmd:"" help:"Make this machine a part of a cluster: test the registry, write the settings, start the service."`
	Users   usersCmd   `cmd:"" help:"List, make, change and remove the accounts of a cluster."`
	Plan    planCmd    `cmd:"" help:"Say how many machines an audience takes, and what they cost."`
	Check   checkCmd   `cmd:"" help:"Find every mistake in a configuration file and the environment."`
	Healthy healthyCmd `cmd:"" help:"Ask a process of this machine whether it is well: for health checks of containers."`
	Version versionCmd `cmd:"" help:"Print version, commit and Go version."`
}

// sections are the parts of the command line that are settings, with their place in
// the configuration.
func (c *cli) sections() []config.Setting {
	var all []config.Setting
	add := func(path string, ptr any) { all = append(all, config.Settings(path, ptr)...) }
	add("up", &c.Up.Up)
	add("log", &c.Up.Log)
	add("trace", &c.Up.Trace)
	add("gateway.scale", &c.Up.Scale)
	add("", &c.Serve.Shared)
	add("node", &c.Serve.Node)
	add("log", &c.Serve.Log)
	add("trace", &c.Serve.Trace)
	add("", &c.Gateway.Shared)
	add("gateway", &c.Gateway.Gateway)
	add("log", &c.Gateway.Log)
	add("trace", &c.Gateway.Trace)
	return all
}

// process is what commands get: everything outside the command line that they may touch.
type process struct {
	ctx        context.Context // ends at the first signal
	in         io.Reader
	out        io.Writer
	err        io.Writer
	env        map[string]string
	config     *config.Config // file and environment, without flags
	configFile string         // "": none
}

// run is main without the process around it; it returns the exit code.
func run(ctx context.Context, args []string, env map[string]string, in io.Reader, out, errs io.Writer) int {
	if len(args) == 0 {
		args = []string{"--help"}
	}
	c := new(cli)
	r := &resolver{named: &c.Config, env: env, settings: c.sections()}
	asked := false // for help, which kong prints and then wants to exit
	parser, err := kong.New(c, kong.Name("sluice"),
		kong.Description("A real-time video cluster: publish on an origin, watch from an edge."),
		kong.Writers(out, errs), kong.PostBuild(noEmptyDefaults), kong.Exit(func(int) { asked = true }),
		kong.Resolvers(r), kong.ValueFormatter(r.help), kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		fmt.Fprintln(errs, "sluice:", err) // a wrong tag; every test fails
		return exitFailed
	}
	k, err := parser.Parse(bareAutoscale(args))
	if asked {
		return 0
	}
	if err = errors.Join(r.err, err); err == nil {
		err = r.check(k)
	}
	if err != nil {
		fmt.Fprintf(errs, "sluice: %s (see: sluice --help)\n", firstLine(err))
		return exitUsage
	}
	p := &process{ctx: ctx, in: in, out: out, err: errs, env: env, config: r.config, configFile: r.file}
	if unknown := config.Unknown(env); len(unknown) > 0 && k.Selected().Name != "check" { // check has a line for each
		fmt.Fprintf(errs, "sluice: warning: %s\n", strings.Join(unknown, "; "))
	}
	if err := k.Run(p); err != nil {
		fmt.Fprintf(errs, "sluice: %v\n", err)
		var usage usageError
		if errors.As(err, &usage) {
			return exitUsage
		}
		var broken thresholdError
		if errors.As(err, &broken) {
			return exitBroken
		}
		return exitFailed
	}
	return 0
}

// usageError is a mistake on the command line that only the command could see.
type usageError struct{ error }

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// bareAutoscale gives --autoscale its value when it stands alone.
func bareAutoscale(args []string) []string {
	args = slices.Clone(args)
	for i, a := range args {
		if a == "--autoscale" && (i+1 == len(args) || strings.HasPrefix(args[i+1], "-")) {
			args[i] = "--autoscale=auto"
		}
	}
	return args
}
