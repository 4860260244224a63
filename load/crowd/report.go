package crowd

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what a run has found out. Its JSON is stable: fields may be added, not changed.
type Report struct {
	Began      time.Time `json:"began"`
	Config     Summary   `json:"config"`
	Stopped    string    `json:"stopped,omitempty"` // why it ended before its time
	Seconds    float64   `json:"seconds"`           // of the measured time
	Figures    Figures   `json:"figures"`           // units: see docs/load.md
	Failures   []Failure `json:"failures,omitempty"`
	Thresholds []string  `json:"thresholds,omitempty"`
	Broken     []Break   `json:"broken,omitempty"`
	Warning    string    `json:"warning,omitempty"` // what makes the figures doubtful
	Remarks    []string  `json:"remarks,omitempty"` // why a figure is left out
	Capacity   *Found    `json:"capacity,omitempty"`
	Samples    []Sample  `json:"samples"`            // one a second
	Joined     int       `json:"joined"`             // viewers, in the whole run
	Pictures   []float64 `json:"pictures,omitempty"` // ms from the request to the first key frame of each viewer, sorted

	first error // that a viewer could not join for
}

// Unmeasured says why there is nothing to judge the server by; nil when there is.
func (r *Report) Unmeasured() error {
	_, seen := r.Figures["packets_per_second"]
	switch {
	case r.Config.Play == "" || seen || r.Capacity != nil && r.Joined > 0:
		return nil
	case r.Joined > 0:
		return fmt.Errorf("nothing was measured: %s joined, and no packet came in the measured time", plural(r.Joined, "viewer"))
	case r.first != nil:
		return fmt.Errorf("nothing was measured: no viewer could join: %w", r.first)
	}
	return errors.New("nothing was measured: nobody has joined")
}

// Summary is what was asked for.
type Summary struct {
	Publish string  `json:"publish,omitempty"`
	Play    string  `json:"play,omitempty"`
	Streams int     `json:"streams"`
	Viewers int     `json:"viewers"` // of each stream
	Rate    float64 `json:"rate"`    // joins a second
	Bitrate int     `json:"bitrate,omitempty"`
	FPS     int     `json:"fps,omitempty"`
	GOP     float64 `json:"gop,omitempty"` // seconds
	Audio   bool    `json:"audio"`
	File    string  `json:"file,omitempty"`
}

// Failure is a reason for which viewers could not join.
type Failure struct {
	Error string `json:"error"`
	Times int    `json:"times"`
}

func (c *Config) summary() Summary {
	s := Summary{Publish: c.Publish, Play: c.Play, Streams: c.Streams, Rate: c.Rate, Audio: c.Audio, File: c.File}
	if c.Play != "" {
		s.Viewers = c.Viewers
	}
	if c.Publish != "" {
		s.Bitrate = c.Bitrate
		if c.File == "" {
			s.FPS, s.GOP = c.FPS, c.GOP.Seconds()
		}
	}
	return s
}

// conclude completes a report; o may be nil.
func (c *crowd) conclude(r *Report, o *outcome, stopped string) error {
	r.Stopped, r.Figures = stopped, Figures{}
	if o != nil {
		r.Seconds, r.Figures = o.seconds, c.figures(o)
		slices.Sort(o.pictures)
		r.Pictures = o.pictures
		r.Warning, r.Remarks = c.overloaded(r.Figures), o.remarks
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r.Samples, r.Joined, r.first = slices.Clone(c.samples), c.joined, c.why
	for e, n := range c.reasons {
		r.Failures = append(r.Failures, Failure{e, n})
	}
	slices.SortFunc(r.Failures, func(a, b Failure) int { return cmp.Or(b.Times-a.Times, strings.Compare(a.Error, b.Error)) })
	for _, t := range c.cfg.Thresholds {
		r.Thresholds = append(r.Thresholds, t.String())
	}
	if c.cfg.Capacity == nil {
		r.Broken = broken(c.cfg.Thresholds, r.Figures)
	}
	return nil
}

// what says in a line what was done.
func (r *Report) what() string {
	c := r.Config
	var parts []string
	if c.Publish != "" {
		s := fmt.Sprintf("%s of %s, %d frames/s", plural(c.Streams, "stream"), bitrate(c.Bitrate), c.FPS)
		if c.File != "" {
			s = fmt.Sprintf("%s of %s", plural(c.Streams, "stream"), c.File)
		} else if c.Audio {
			s += ", with sound"
		}
		parts = append(parts, s)
	}
	if c.Play != "" {
		most := ""
		if r.Capacity != nil {
			most = "at most "
		}
		parts = append(parts, most+plural(c.Viewers*c.Streams, "viewer"))
	}
	return strings.Join(parts, ", ")
}

func plural(n int, s string) string {
	if n == 1 {
		return "1 " + s
	}
	return fmt.Sprintf("%d %ss", n, s)
}

func bitrate(v int) string {
	if v >= 1_000_000 {
		return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", float64(v)/1e6), "0"), ".") + " Mbit/s"
	}
	return fmt.Sprintf("%.0f kbit/s", float64(v)/1e3)
}

// String is what a terminal shows.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, measured for %.1f s\n", r.what(), r.Seconds)
	if r.Stopped != "" {
		fmt.Fprintf(&b, "%s\n", r.Stopped)
	}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if _, ok := r.Figures["up"]; ok {
		fmt.Fprintln(w, "\nviewers\tp50\tp95\tp99\tmax\t")
		for _, d := range Distributions() {
			row := d.Name
			for _, q := range quantiles() {
				row += "\t" + r.value(d.Name+q.suffix, d.Unit)
			}
			fmt.Fprintf(w, "%s\t  %s\n", row, d.Text)
		}
	}
	w.Flush() // into memory: can't fail
	fmt.Fprintln(&b)
	for _, n := range Names() {
		if _, ok := r.Figures[n.Name]; ok && !n.distributed() {
			fmt.Fprintf(w, "%s\t%s\t  %s\n", n.Name, r.value(n.Name, n.Unit), n.Text)
		}
	}
	w.Flush()
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "%s: %s\n", plural(f.Times, "failure"), f.Error)
	}
	for _, s := range r.Remarks {
		fmt.Fprintf(&b, "%s\n", s)
	}
	if r.Warning != "" {
		fmt.Fprintf(&b, "careful: %s\n", r.Warning)
	}
	if k := r.Capacity; k != nil {
		fmt.Fprintf(&b, "\n%s\n", k)
	}
	for _, x := range r.Broken {
		fmt.Fprintf(&b, "broken: %s\n", x)
	}
	return b.String()
}

// String names the number and the reason.
func (k *Found) String() string {
	return fmt.Sprintf("capacity: %s (%s)", plural(k.Viewers, "viewer"), k.Reason)
}

func (n Name) distributed() bool {
	return slices.ContainsFunc(quantiles(), func(q suffixed) bool { return strings.HasSuffix(n.Name, q.suffix) })
}

func (r *Report) value(name, unit string) string {
	v, ok := r.Figures[name]
	if !ok {
		return "-"
	}
	return FormatValue(v, unit)
}
