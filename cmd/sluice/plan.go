package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"sluice/internal/plan"
)

type planCmd struct {
	Viewers int     `help:"Viewers at the same time."`
	Bitrate string  `help:"Of the picture." default:"2500k"`
	Streams int     `help:"Streams that they share evenly." default:"1"`
	FPS     float64 `name:"fps" help:"Pictures a second." default:"30"`

	Region  string        `help:"Region of the price table." default:"westeurope"`
	Size    string        `help:"Machine of an edge; default: the cheapest in the end."`
	Gateway string        `help:"Front door: application-gateway or sluice." enum:"application-gateway,sluice" default:"application-gateway"`
	Store   string        `name:"registry" help:"Registry: mongodb (a machine) or cosmos." enum:"mongodb,cosmos" default:"mongodb"`
	Target  float64       `help:"Load at which groups are kept, 0 to 1; as gateway.scale.cpu." default:"0.6"`
	Fanout  int           `help:"As node.relay-fanout." default:"16"`
	Spare   int           `help:"Nodes that may fail at the peak." default:"1"`
	Stay    time.Duration `help:"How long a viewer stays." default:"30m"`
	Hours   float64       `help:"Hours of a month with this audience." default:"60"`

	Prices      string `help:"Price table; default: the one that comes with Sluice, whose prices are examples." placeholder:"FILE" type:"path"`
	PrintPrices bool   `help:"Print that table, to make one's own of it."`
	JSON        bool   `name:"json" help:"Print JSON."`
}

// Run prints how many machines an audience takes, and what they cost.
func (c *planCmd) Run(p *process) error {
	table := plan.Example
	if c.Prices != "" {
		var err error
		if table, err = os.ReadFile(c.Prices); err != nil {
			return fmt.Errorf("read prices: %w", err)
		}
	}
	if c.PrintPrices {
		_, err := p.out.Write(table)
		return err
	}
	prices, err := plan.ParsePrices(table)
	if err != nil {
		return usageError{err}
	}
	bitrate, err := plan.ParseBitrate(c.Bitrate)
	if err != nil {
		return usageError{fmt.Errorf("--bitrate: %w", err)}
	}
	ask := plan.Ask{Viewers: c.Viewers, Streams: c.Streams, Bitrate: bitrate, FPS: c.FPS, Target: c.Target, Fanout: c.Fanout,
		Stay: c.Stay.Minutes(), Hours: c.Hours, Spare: c.Spare, Region: c.Region, Size: c.Size, Gateway: c.Gateway, Store: c.Store}
	made, err := plan.Make(ask, plan.Measured(), prices)
	if err != nil {
		return usageError{err}
	}
	if c.JSON {
		return printJSON(p.out, made)
	}
	return printPlan(p.out, ask, made, c.Prices == "")
}

func printPlan(w io.Writer, a plan.Ask, p *plan.Plan, example bool) error {
	group := func(name string, g plan.Group, what string) {
		fmt.Fprintf(w, "%-9s %d × %s, at %.0f %% of CPU and %.0f %% of network at the peak%s\n", name, g.Nodes, g.Size, 100*g.CPU, 100*g.Network, what)
		fmt.Fprintf(w, "          scale set from %d to %d; %s is what ends first\n", g.Min, g.Max, g.LimitsBy)
	}
	fmt.Fprintf(w, "audience  %d viewers of %d streams, %.4g Mbit/s and %.4g pictures a second: %.4g Gbit/s\n", a.Viewers, a.Streams, a.Bitrate/1e6, a.FPS, p.Egress/1e3)
	group("edges", p.Edges, fmt.Sprintf(", with %d viewers each", p.Edges.PerNode))
	group("origins", p.Origins, "")
	fmt.Fprintf(w, "relay     a stream goes to %d edges, over %d hops at most: %.4g Mbit/s between nodes\n", p.Tree.EdgesPerStream, p.Tree.Depth, p.Tree.Mbit)
	fmt.Fprintf(w, "\n%s a month in %s, prices of %s\n", p.Currency, p.Region, p.Prices)
	for _, i := range p.Items {
		fmt.Fprintf(w, "  %-46s %12.0f\n", i.Name, i.Price)
	}
	fmt.Fprintf(w, "  %-46s %12.0f\n", "idle: nobody watches", p.Idle)
	fmt.Fprintf(w, "  %-46s %12.0f\n", fmt.Sprintf("more machines, for %.4g hours", a.Hours), p.Machines)
	fmt.Fprintf(w, "  %-46s %12.0f\n", fmt.Sprintf("%.0f GB to the internet in them", p.EgressGB), p.Traffic)
	fmt.Fprintf(w, "  %-46s %12.0f\n", "all", p.Total)
	if a.Hours > 0 {
		fmt.Fprintf(w, "1,000 viewers cost %.2f an hour beside what is idle\n", p.ByThousand)
	}
	fmt.Fprint(w, "\nMeasured over loopback on one machine (docs/performance.md): try it with sluice load before you rely on it.\n")
	if example {
		fmt.Fprint(w, "Prices are examples and must be checked: sluice plan --print-prices > prices.yaml, mend, and --prices prices.yaml.\n")
	}
	return nil
}
