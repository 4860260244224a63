// Command simulate plays a cluster of a thousand edges and a million viewers in virtual time, and reports how it did.
// `make simulate` runs it; docs/cluster.md says what is modelled.
//
// Imports: internal/lifecycle, internal/simulate.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kong"

	"sluice/internal/lifecycle"
	"sluice/internal/simulate"
)

func main() {
	ctx, release := lifecycle.Signals(context.Background(), func(os.Signal) { os.Exit(130) })
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	release()
	os.Exit(code)
}

// cli is the command line.
type cli struct {
	Case     string `help:"full: 1,000 edges and a million viewers; budget: 100 nodes, for the registry's operations; small: what the tests run." default:"full" enum:"full,budget,small"`
	Seed     uint64 `help:"The same seed gives the same run." default:"1"`
	Edges    int    `help:"Edges at the start; 0: those of the case."`
	MaxEdges int    `help:"How many the autoscaler may have; 0: those of the case."`
	Viewers  int    `help:"How many come; 0: those of the case."`
	Streams  int    `help:"How many streams there are; 0: those of the case."`
	JSON     bool   `name:"json" help:"Print the report as JSON."`
}

// run is main without the process around it; it returns the exit code.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	var c cli
	asked := false // for help
	parser, err := kong.New(&c, kong.Name("simulate"), kong.Description("Plays a large cluster in virtual time, and reports how it did."),
		kong.Writers(out, errs), kong.Exit(func(int) { asked = true }))
	if err == nil {
		_, err = parser.Parse(args)
	}
	if asked {
		return 0
	}
	if err == nil {
		err = c.play(ctx, out)
	}
	if err != nil {
		_, _ = fmt.Fprintln(errs, "simulate:", err)
		return 1
	}
	return 0
}

// config is the case with what was asked for instead.
func (c *cli) config() (simulate.Config, error) {
	cfg := map[string]func() simulate.Config{"full": simulate.Full, "budget": simulate.Budget, "small": simulate.Small}[c.Case]()
	if min(c.Edges, c.MaxEdges, c.Viewers, c.Streams) < 0 {
		return cfg, fmt.Errorf("edges, viewers and streams can't be fewer than 0")
	}
	cfg.Seed = c.Seed
	cfg.Edges = cmp.Or(c.Edges, cfg.Edges)
	cfg.MaxEdges = max(cfg.Edges, cmp.Or(c.MaxEdges, cfg.MaxEdges))
	if c.Viewers > 0 {
		cfg.Flash.Viewers = int(float64(cfg.Flash.Viewers) * float64(c.Viewers) / float64(cfg.Viewers))
		cfg.Viewers = c.Viewers
	}
	cfg.Streams = cmp.Or(c.Streams, cfg.Streams)
	if cfg.Streams <= cfg.Flash.Rank {
		return cfg, fmt.Errorf("%d streams are too few: the flash crowd comes for that of rank %d", cfg.Streams, cfg.Flash.Rank)
	}
	return cfg, nil
}

func (c *cli) play(ctx context.Context, out io.Writer) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	report, err := simulate.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if !c.JSON {
		return report.Write(out)
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(report)
}
