package main

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"sluice/internal/config"
	"sluice/load"
	"sluice/media"
)

// target is the stream that publish and play mean, and how to reach it.
type target struct {
	Dir      string `help:"Folder of the cluster that sluice up runs ($$SLUICE_UP_DIR)." default:"" placeholder:".sluice"`
	Token    string `help:"Bearer token, where the server wants one."`
	Insecure bool   `help:"Take any certificate. Not needed with sluice up."`
	Verbose  bool   `short:"v" help:"Tell what happens."`
}

// resolve makes a URL of APP/STREAM with the addresses that sluice up has left in its
// folder, and says whom to trust: the system's authorities and the one in that folder.
func (t target) resolve(p *process, top *cli, what, verb string, base func(address) string) (url string, roots *x509.CertPool, err error) {
	cfg, err := config.Load(config.File(top.Config, p.env), p.env)
	if err != nil {
		return "", nil, usageError{err}
	}
	h := home{dir: cmp.Or(t.Dir, cfg.Up.Dir)}
	if strings.HasPrefix(what, "https://") || strings.HasPrefix(what, "http://") {
		url = what
	} else {
		key, err := media.ParseKey(what)
		if err != nil {
			return "", nil, usageError{fmt.Errorf("%w; give APP/STREAM, such as live/stream1, or a URL", err)}
		}
		a, err := h.readAddress()
		if err != nil {
			return "", nil, err
		}
		url = base(a) + "/" + key.App + "/" + verb + "/" + key.ID
	}
	if roots, err = x509.SystemCertPool(); err != nil {
		roots = x509.NewCertPool() // a machine without any: the folder's may do
	}
	own, err := os.ReadFile(h.path(caFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", nil, fmt.Errorf("read certificate authority: %w", err)
	}
	roots.AppendCertsFromPEM(own)
	return url, roots, nil
}

func (t target) log() config.Log {
	if t.Verbose {
		return config.Log{Level: "info"}
	}
	return config.Log{Level: "warn"}
}

type publishCmd struct {
	target `embed:""`
	Source string `arg:"" help:"Media file, or test-pattern: a running clock with sound, H.264 and Opus."`
	To     string `arg:"" optional:"" default:"live/stream1" help:"APP/STREAM of the cluster that runs here, or the URL of a WHIP endpoint."`

	Width   int  `help:"Width of the test pattern, pixels." default:"1280"`
	Height  int  `help:"Height of the test pattern, pixels." default:"720"`
	FPS     int  `help:"Frames a second of the test pattern." default:"30"`
	Bitrate int  `help:"Of video that is encoded, bit/s." default:"2500000"`
	Loop    bool `help:"Begin the file again at its end."`
	Backup  bool `help:"As the stream's backup publisher, on another origin than the main one."`
}

// check refuses what would be no picture, before anything is asked of a server.
func (c *publishCmd) check() error {
	for _, f := range []struct {
		name  string
		value int
	}{{"width", c.Width}, {"height", c.Height}, {"fps", c.FPS}, {"bitrate", c.Bitrate}} {
		if f.value <= 0 { // the package takes 0 for a default
			return usageError{fmt.Errorf("--%s=%d: give a number above 0", f.name, f.value)}
		}
	}
	if err := (load.PublishConfig{Source: c.Source, Width: c.Width, Height: c.Height, FPS: c.FPS, Bitrate: c.Bitrate}).Check(); err != nil {
		return usageError{err}
	}
	return nil
}

// Run publishes until the file is over or the first signal.
func (c *publishCmd) Run(p *process, top *cli) error {
	if err := c.check(); err != nil {
		return err
	}
	url, roots, err := c.resolve(p, top, c.To, "whip", func(a address) string { return a.Publish })
	if err != nil {
		return err
	}
	if c.Backup {
		url += "?backup=1"
	}
	fmt.Fprintf(p.err, "publishing %s to %s (Ctrl-C ends it)\n", c.Source, url)
	return load.Publish(p.ctx, load.PublishConfig{
		URL: url, Source: c.Source, Token: c.Token, Insecure: c.Insecure, Roots: roots,
		Width: c.Width, Height: c.Height, FPS: c.FPS, Bitrate: c.Bitrate, Loop: c.Loop, Log: newLog(p.err, c.log()),
		Progress: func(s load.PublishStats) {
			switch {
			case s.Ended && s.Video:
				fmt.Fprintf(p.err, "ended after %d frames, %s\n", s.Frames, s.Elapsed.Round(100*time.Millisecond))
			case s.Ended:
				fmt.Fprintf(p.err, "ended after %s of sound\n", s.Elapsed.Round(100*time.Millisecond))
			default:
				fmt.Fprintf(p.err, "%6s  %s  %6.0f kbit/s  loss %.1f%%  round trip %s\n", s.Elapsed.Round(time.Second),
					pace(s.Video, s.FPS), s.Bitrate/1000, 100*s.Loss, s.RTT.Round(100*time.Microsecond))
			}
		},
	})
}

// pace is of pictures; packets of sound are none.
func pace(video bool, fps float64) string {
	if !video {
		return "sound only    "
	}
	return fmt.Sprintf("%5.1f frames/s", fps)
}

type playCmd struct {
	target   `embed:""`
	From     string        `arg:"" optional:"" default:"live/stream1" help:"APP/STREAM of the cluster that runs here, or the URL of a WHEP endpoint."`
	Duration time.Duration `help:"Watch so long; 0: until Ctrl-C." default:"0s"`
	Wait     time.Duration `help:"For a stream that isn't live, and to come back when the session is lost; 0: neither." default:"10s"`
	Out      string        `help:"Matroska file to write (WebM for VP8, VP9 and AV1)." placeholder:"FILE"`
	JSON     bool          `name:"json" help:"Print the report as JSON."`
}

// Run plays, and reports what was seen.
func (c *playCmd) Run(p *process, top *cli) error {
	url, roots, err := c.resolve(p, top, c.From, "whep", func(a address) string { return a.Play })
	if err != nil {
		return err
	}
	fmt.Fprintf(p.err, "watching %s (Ctrl-C ends it)\n", url)
	report, err := load.Play(p.ctx, load.PlayConfig{
		URL: url, Token: c.Token, Insecure: c.Insecure, Roots: roots, Duration: c.Duration, Wait: c.Wait, Out: c.Out, Log: newLog(p.err, c.log()),
		Waiting: func() { fmt.Fprintf(p.err, "waiting for %s to start\n", c.From) },
		Progress: func(s load.PlayStats) {
			fmt.Fprintf(p.err, "%6s  %s  %6.0f kbit/s  %d lost  latency %s\n",
				s.Elapsed.Round(time.Second), pace(s.Video, s.FPS), s.Bitrate/1000, s.Lost, s.Latency)
		},
	})
	if err != nil && report.FirstPacket == 0 {
		return err // nothing to report
	}
	if c.JSON {
		return errors.Join(err, printJSON(p.out, report))
	}
	fmt.Fprint(p.out, report)
	return err
}
