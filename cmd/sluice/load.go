package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"sluice/internal/config"
	"sluice/internal/usage"
	"sluice/load/crowd"
)

type loadCmd struct {
	Publish string `help:"Publish to this WHIP address, or as plain RTP to rtp://HOST:PORT. %d in it is the stream's number, from 0." placeholder:"URL" group:"What:"`
	Play    string `help:"Watch from this WHEP address. %d in it is the stream's number." placeholder:"URL" group:"What:"`
	Streams int    `help:"How many streams." default:"1" group:"What:"`
	Viewers *int   `help:"Viewers of each stream; with --find-capacity the most there may be (then 10000 if not given)." placeholder:"50" group:"What:"`
	Rate    string `help:"Viewers that join: 100/s, 30/m." default:"100/s" group:"What:"`
	Follow  bool   `help:"Clients move when the server asks them to (see sluice drain), and viewers come back when their session is lost." group:"What:"`
	Token   string `help:"Bearer token, where the server wants one." group:"What:"`
	OwnIt   bool   `name:"i-own-this-server" help:"The server may be loaded. Needed for one that isn't on this machine." group:"What:"`
	PIDs    []int  `name:"pid" help:"The server's processes on this machine, to report what a packet, a viewer and a join cost it." placeholder:"PID,…" group:"What:"`

	For  time.Duration `help:"Measure so long, then end." default:"10s" group:"How long:"`
	Warm time.Duration `help:"From the last join to the measured time." default:"3s" group:"How long:"`

	Bitrate string        `help:"Of video, bit/s: 2500k, 2.5M." default:"2.5M" group:"Published video:"`
	FPS     int           `help:"Frames a second." default:"30" group:"Published video:"`
	GOP     time.Duration `help:"Time between key frames." default:"2s" group:"Published video:"`
	Audio   bool          `help:"With sound (--no-audio: without)." default:"true" negatable:"" group:"Published video:"`
	File    string        `help:"Publish this media file over and over instead of the synthetic picture; needs ffmpeg." placeholder:"FILE" group:"Published video:"`

	FailOver []string      `sep:"," help:"Exit with status 3 when a figure is beyond this: ttff_p95>300ms, loss>0.5%, up<99%. Figures: see below." placeholder:"NAME>VALUE" group:"Result:"`
	JSON     string        `name:"json" help:"Write the report as JSON; - is standard output." placeholder:"FILE" group:"Result:"`
	HTML     string        `name:"html" help:"Write the report as a page with charts." placeholder:"FILE" group:"Result:"`
	Find     bool          `name:"find-capacity" help:"Raise the viewers until a threshold breaks (default: loss>0.5%, latency_p95>200ms, up<99%), and name the number." group:"Result:"`
	From     int           `help:"Viewers of the first step of --find-capacity." default:"10" group:"Result:"`
	Hold     time.Duration `help:"Measured time of each step of --find-capacity." default:"4s" group:"Result:"`
	Limit    time.Duration `help:"Time that --find-capacity may take." default:"10m" group:"Result:"`

	Connections int    `help:"HTTP connections at once, and sessions that are opened at once." default:"32" group:"Connection:"`
	Insecure    bool   `help:"Take any certificate. Not needed with sluice up." group:"Connection:"`
	Dir         string `help:"Folder of the cluster that sluice up runs, whose certificates are trusted ($$SLUICE_UP_DIR)." default:"" placeholder:".sluice" group:"Connection:"`
	Verbose     bool   `short:"v" help:"Tell what happens." group:"Connection:"`
}

// Help lists the figures after the flags.
func (c *loadCmd) Help() string {
	var b bytes.Buffer
	b.WriteString("Figures for --fail-over, with > or <:\n")
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, d := range crowd.Distributions() {
		fmt.Fprintf(w, "  %s_p50 _p95 _p99 _max\t%s\t%s\n", d.Name, d.Unit, d.Text)
	}
	for _, n := range crowd.Names()[4*len(crowd.Distributions()):] {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", n.Name, n.Unit, n.Text)
	}
	_ = w.Flush() // into memory: can't fail
	b.WriteString("\nExample: sluice load --publish http://127.0.0.1:5080/live/whip/a --play http://127.0.0.1:5080/live/whep/a --viewers 200 --html report.html")
	return b.String()
}

// config makes the package's configuration of the flags; every mistake is found here.
func (c *loadCmd) config(p *process, top *cli) (cfg crowd.Config, err error) {
	cfg = crowd.Config{Publish: c.Publish, Play: c.Play, Streams: c.Streams, Viewers: 50, Warm: c.Warm, For: c.For,
		Connections: c.Connections, FPS: c.FPS, GOP: c.GOP, Audio: c.Audio, File: c.File, Follow: c.Follow, Token: c.Token, Insecure: c.Insecure, Own: c.OwnIt, PIDs: c.PIDs}
	if cfg.Rate, err = crowd.ParseRate(c.Rate); err != nil {
		return cfg, fmt.Errorf("--rate=%w", err)
	}
	if cfg.Bitrate, err = parseBitrate(c.Bitrate); err != nil {
		return cfg, fmt.Errorf("--bitrate=%w", err)
	}
	for _, s := range c.FailOver {
		t, err := crowd.ParseThresholds(s)
		if err != nil {
			return cfg, fmt.Errorf("--fail-over: %w", err)
		}
		cfg.Thresholds = append(cfg.Thresholds, t...)
	}
	if c.Viewers != nil {
		cfg.Viewers = *c.Viewers
	}
	if c.Find {
		if c.From < 1 || c.Hold < time.Second || c.Limit <= 0 {
			return cfg, errors.New("--find-capacity: give --from at least 1, --hold at least 1s and --limit a time")
		}
		cfg.Capacity = &crowd.Capacity{From: c.From, Hold: c.Hold, Limit: c.Limit}
		if len(cfg.Thresholds) == 0 {
			cfg.Thresholds = crowd.DefaultCapacityThresholds()
		}
		if c.Viewers == nil {
			cfg.Viewers = max(1, 10_000/max(1, cfg.Streams))
		}
	}
	if c.File != "" {
		if _, err := os.Stat(c.File); err != nil {
			return cfg, fmt.Errorf("--file: %w", err)
		}
	}
	for _, pid := range c.PIDs {
		if _, err := usage.Of(pid); err != nil {
			return cfg, fmt.Errorf("--pid: %w", err)
		}
	}
	if err := cfg.Check(); err != nil {
		return cfg, err
	}
	cfg.Roots, err = c.roots(p, top)
	return cfg, err
}

func (c *loadCmd) roots(p *process, top *cli) (*x509.CertPool, error) {
	first := c.Play
	if first == "" {
		first = c.Publish
	}
	_, roots, err := target{Dir: c.Dir}.resolve(p, top, first, "", nil)
	return roots, err
}

// parseBitrate reads bit/s with k or M.
func parseBitrate(s string) (int, error) {
	digits, unit := strings.TrimRight(s, "kKmM"), 1.0
	switch strings.ToLower(s[len(digits):]) {
	case "":
	case "k":
		unit = 1e3
	case "m":
		unit = 1e6
	default:
		digits = ""
	}
	v, err := strconv.ParseFloat(digits, 64)
	if err != nil || math.IsNaN(v) || v <= 0 || v*unit > 1e9 {
		return 0, fmt.Errorf("%s: give bit/s, such as 2500k or 2.5M", s)
	}
	return int(v * unit), nil
}

// thresholdError is for a run that went well and has shown that the server does not.
type thresholdError struct{ error }

// Run loads the server, and reports.
func (c *loadCmd) Run(p *process, top *cli) error {
	cfg, err := c.config(p, top)
	if err != nil {
		return usageError{err}
	}
	level := "error"
	if c.Verbose {
		level = "info"
	}
	cfg.Log = newLog(p.err, config.Log{Level: level})
	files, err := c.files()
	if err != nil {
		return err
	}
	live := newLive(p.err)
	cfg.Progress, cfg.Step = live.sample, live.step
	report, err := crowd.Run(p.ctx, cfg)
	live.end()
	if err != nil {
		return errors.Join(err, files.close())
	}
	if err := c.write(p.out, files, report); err != nil {
		return err
	}
	if err := report.Unmeasured(); err != nil {
		return err
	}
	if len(report.Broken) > 0 {
		lines := make([]string, len(report.Broken))
		for i, b := range report.Broken {
			lines[i] = b.String()
		}
		return thresholdError{errors.New(strings.Join(lines, "; "))}
	}
	return nil
}

// reports are the files that were asked for. They are made before the run: it would be a pity to fail after it.
type reports struct{ json, html *os.File }

func (r reports) close() (err error) {
	for _, f := range []*os.File{r.json, r.html} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

func (c *loadCmd) files() (r reports, err error) {
	if c.JSON != "" && c.JSON != "-" {
		if r.json, err = os.Create(c.JSON); err != nil {
			return r, fmt.Errorf("--json: %w", err)
		}
	}
	if c.HTML != "" {
		if r.html, err = os.Create(c.HTML); err != nil {
			return r, errors.Join(fmt.Errorf("--html: %w", err), r.close())
		}
	}
	return r, nil
}

func (c *loadCmd) write(out io.Writer, files reports, report *crowd.Report) error {
	var all error
	if c.JSON == "-" {
		all = printJSON(out, report)
	} else {
		_, err := fmt.Fprint(out, report)
		all = err
	}
	if files.json != nil {
		e := json.NewEncoder(files.json)
		e.SetIndent("", "  ")
		all = errors.Join(all, e.Encode(report))
	}
	if files.html != nil {
		all = errors.Join(all, report.HTML(files.html))
	}
	return errors.Join(all, files.close())
}

// live shows how it goes: a line a second, on a terminal always the same one.
type live struct {
	out      io.Writer
	terminal bool
	open     bool // the line is not ended
}

func newLive(out io.Writer) *live {
	l := &live{out: out}
	if f, ok := out.(*os.File); ok {
		if info, err := f.Stat(); err == nil {
			l.terminal = info.Mode()&os.ModeCharDevice != 0
		}
	}
	return l
}

func (l *live) sample(s crowd.Sample) {
	line := fmt.Sprintf("%4.0fs  %-11s", s.At, s.Phase)
	if s.Publishers > 0 {
		line += fmt.Sprintf("  %d publishing", s.Publishers)
	}
	line += fmt.Sprintf("  %d of %d up", s.Up, s.Viewers)
	if s.Packets > 0 {
		line += fmt.Sprintf("  %7.1f Mbit/s  loss %.2f%%", s.Mbps, s.Loss)
	}
	if s.Frames > 0 {
		line += fmt.Sprintf("  latency p50 %.1f p95 %.1f ms", s.LatencyP50, s.LatencyP95)
	}
	if s.Failed > 0 {
		line += fmt.Sprintf("  %d failed", s.Failed)
	}
	if s.Ended > 0 {
		line += fmt.Sprintf("  %d ended", s.Ended)
	}
	if l.terminal {
		fmt.Fprintf(l.out, "\r\x1b[K%s", line)
		l.open = true
		return
	}
	fmt.Fprintln(l.out, line)
}

func (l *live) step(s crowd.Step) {
	l.end()
	verdict := "carried"
	if !s.Passed {
		verdict = "not carried: " + s.Why
	}
	fmt.Fprintf(l.out, "%4.0fs  %d viewers: %s\n", s.At, s.Viewers, verdict)
}

func (l *live) end() {
	if l.open {
		fmt.Fprintln(l.out)
		l.open = false
	}
}
