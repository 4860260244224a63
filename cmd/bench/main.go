// Command bench measures what a viewer costs a server: ours, the least that sending can cost on this machine, and Janus where it is
// installed, in turn and in one run. It prints a table and keeps it as JSON. `make bench` runs it; docs/performance.md has the method.
//
// Imports: internal/lifecycle, internal/usage, load/crowd, udp.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"sluice/internal/lifecycle"
)

func main() {
	ctx, release := lifecycle.Signals(context.Background(), func(os.Signal) { os.Exit(130) })
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	release()
	os.Exit(code)
}

// cli is the command line.
type cli struct {
	Seconds float64  `help:"Measured time of each case." default:"10"`
	Repeat  int      `help:"Runs of each case; the table has medians, with the least and the most." default:"1"`
	Only    []string `help:"What to measure: floor, ours, janus." default:"floor,ours,janus" enum:"floor,ours,janus"`
	Cases   []string `help:"Which cases: ${cases}." default:"${cases}" enum:"${cases}"`
	Sluice  string   `help:"Our binary." default:"bin/sluice" placeholder:"FILE"`
	Janus   string   `help:"The binary of Janus." default:"janus" placeholder:"FILE"`
	Out     string   `help:"Folder for the JSON file." default:"bench-results" placeholder:"DIR"`
}

// run is main without the process around it; it returns the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	if len(args) == 2 && args[0] == sinkCommand {
		if err := sink(ctx, args[1], in, out); err != nil {
			fmt.Fprintln(errs, "bench:", err)
			return 1
		}
		return 0
	}
	var c cli
	asked := false // for help
	parser, err := kong.New(&c, kong.Name("bench"), kong.Description("Measures what a viewer costs: ours, the floor, and Janus."),
		kong.Vars{"cases": caseNames()}, kong.Writers(out, errs), kong.Exit(func(int) { asked = true }))
	if err == nil {
		_, err = parser.Parse(args)
	}
	if asked {
		return 0
	}
	if err == nil && (c.Seconds < 1 || c.Seconds > 600 || c.Repeat < 1 || c.Repeat > 100) {
		err = errors.New("give --seconds 1 to 600 and --repeat 1 to 100")
	}
	if err != nil {
		fmt.Fprintf(errs, "bench: %v (see: bench --help)\n", err)
		return 2
	}
	if err := c.bench(ctx, cases(), out, errs); err != nil {
		fmt.Fprintln(errs, "bench:", err)
		return 1
	}
	return 0
}

// bench measures, prints the table and keeps the file.
func (c *cli) bench(ctx context.Context, all []scenario, out, errs io.Writer) error {
	r := &result{Began: time.Now().Truncate(time.Second), Machine: thisMachine(), Seconds: c.Seconds, Repeat: c.Repeat, Versions: map[string]string{}}
	subjects, err := c.subjects(ctx, r)
	if err != nil {
		return err
	}
	var plan []step
	var length time.Duration
	for n := range c.Repeat {
		for _, s := range all {
			if !slices.Contains(c.Cases, s.name) {
				continue
			}
			for _, x := range subjects { // in turn, so that what else the machine does hits all
				if s.line && x.name == janusName || s.segments == 0 && x.name == floorName {
					continue
				}
				plan = append(plan, step{n + 1, s, x})
				length += x.overhead(s) + time.Duration(c.Seconds*float64(time.Second))
			}
		}
	}
	fmt.Fprintf(errs, "%d runs, about %s; leave the machine alone meanwhile\n", len(plan), length.Round(time.Minute/2))
	for i, p := range plan {
		fmt.Fprintf(errs, "%3d/%d  %-5s  %-34s", i+1, len(plan), p.subject.name, p.scenario.title)
		f, warning, err := p.subject.measure(ctx, p.scenario, time.Duration(c.Seconds*float64(time.Second)))
		if ctx.Err() != nil {
			fmt.Fprintln(errs)
			return context.Cause(ctx)
		}
		one := measured{Server: p.subject.name, Case: p.scenario.name, Repeat: p.repeat, Figures: f, Warning: warning}
		if err != nil {
			one.Error = err.Error()
			fmt.Fprintf(errs, "failed: %v\n", err)
		} else {
			fmt.Fprintf(errs, "%6.2f µs a packet, %.2f cores of other work\n", f[cpuPerPacket], f[otherCores])
		}
		r.Runs = append(r.Runs, one)
	}
	r.conclude()
	fmt.Fprint(out, "\n", r)
	path, err := r.keep(c.Out)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nkept in %s\n", path)
	return r.failure()
}

// step is a run that is planned.
type step struct {
	repeat   int
	scenario scenario
	subject  subject
}

// subject is what is measured.
type subject struct {
	name     string
	overhead func(scenario) time.Duration // of a run, besides the measured time
	measure  func(context.Context, scenario, time.Duration) (figures map[string]float64, warning string, err error)
}

const (
	floorName = "floor"
	oursName  = "ours"
	janusName = "janus"
)

// subjects finds what there is to measure.
func (c *cli) subjects(ctx context.Context, r *result) (found []subject, err error) {
	if slices.Contains(c.Only, floorName) {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		found = append(found, subject{floorName, func(scenario) time.Duration { return floorWarm }, func(ctx context.Context, s scenario, d time.Duration) (map[string]float64, string, error) {
			f, err := measureFloor(ctx, self, s, d)
			return f, "", err
		}})
	}
	if slices.Contains(c.Only, oursName) {
		binary, err := filepath.Abs(c.Sluice)
		if err != nil {
			return nil, err
		}
		version, err := output(ctx, binary, "version")
		if err != nil {
			return nil, fmt.Errorf("%w: make build makes it", err)
		}
		r.Versions[oursName], _, _ = strings.Cut(version, "\n")
		found = append(found, subject{oursName, crowdOverhead, func(ctx context.Context, s scenario, d time.Duration) (map[string]float64, string, error) {
			return measureServer(ctx, s, d, func(ctx context.Context, dir string) (*server, error) { return startOurs(ctx, binary, dir, s.adaptive) })
		}})
	}
	if slices.Contains(c.Only, janusName) {
		j, version, err := findJanus(ctx, c.Janus)
		if err != nil {
			r.Notes = append(r.Notes, err.Error())
			return found, nil
		}
		r.Versions[janusName] = version
		found = append(found, subject{janusName, crowdOverhead, func(ctx context.Context, s scenario, d time.Duration) (map[string]float64, string, error) {
			return measureServer(ctx, s, d, j.start)
		}})
	}
	return found, nil
}
