package crowd

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Figures are what a run has measured, by name. Their units are those of Names. What isn't known is missing.
type Figures map[string]float64

// Name is a figure that a threshold may be put on.
type Name struct {
	Name string
	Unit string // ms, µs, %, KiB, MiB, Mbit/s, cores, or nothing
	Text string

	play, pid, one, follow bool // it needs viewers; --pid; viewers that don't come and go; --follow
}

type suffixed struct {
	suffix string
	q      float64
}

func quantiles() []suffixed {
	return []suffixed{{"_p50", 0.5}, {"_p95", 0.95}, {"_p99", 0.99}, {"_max", 1}}
}

// Distributions are figures with _p50, _p95, _p99 and _max.
func Distributions() []Name {
	return []Name{
		{Name: "ttff", Unit: "ms", Text: "from the request to the first key frame", play: true},
		{Name: "join", Unit: "ms", Text: "from the request until media can flow", play: true},
		{Name: "latency", Unit: "ms", Text: "of a frame, from its sending to the arrival of its last packet", play: true},
		{Name: "gap", Unit: "ms", Text: "a viewer's longest time without a new frame", play: true},
		{Name: "loss", Unit: "%", Text: "a viewer's packets that never came, also not again", play: true},
		{Name: "freezes", Text: "of a viewer, as WebRTC counts them", play: true},
	}
}

// Names are all figures.
func Names() (all []Name) {
	for _, d := range Distributions() {
		for _, q := range quantiles() {
			n := d
			n.Name += q.suffix
			all = append(all, n)
		}
	}
	return append(all,
		Name{Name: "up", Unit: "%", Text: "of the viewers that were asked for see a picture", play: true},
		Name{Name: "failed", Text: "viewers that could not join", play: true},
		Name{Name: "ended", Text: "sessions that ended before their time", play: true},
		Name{Name: "moved", Text: "times that a client went to another session because the server asked, with --follow", play: true, follow: true},
		Name{Name: "returned", Text: "times that a viewer came back after its session was lost, with --follow", play: true, follow: true},
		Name{Name: "loss", Unit: "%", Text: "of all packets to viewers", play: true},
		Name{Name: "freezes", Text: "of all viewers", play: true},
		Name{Name: "repaired", Text: "packets that came after they were asked for", play: true},
		Name{Name: "undecryptable", Text: "packets of a sample that were not sealed with the session's keys", play: true},
		Name{Name: "key_frame_requests", Text: "that viewers sent", play: true},
		Name{Name: "fps", Text: "frames a second of a viewer", play: true},
		Name{Name: "mbps", Unit: "Mbit/s", Text: "to all viewers", play: true},
		Name{Name: "packets_per_second", Text: "to all viewers", play: true},
		Name{Name: "cpu_per_packet", Unit: "µs", Text: "of the server, for a packet to a viewer", play: true, pid: true},
		Name{Name: "memory_per_viewer", Unit: "KiB", Text: "that the server grew by", play: true, pid: true, one: true},
		Name{Name: "cpu_per_join", Unit: "ms", Text: "of the server", play: true, pid: true, one: true},
		Name{Name: "server_cores", Unit: "cores", Text: "that the server kept busy", pid: true},
		Name{Name: "server_memory", Unit: "MiB", Text: "that the server has", pid: true},
		Name{Name: "load_cores", Unit: "cores", Text: "that this tool kept busy"},
		Name{Name: "load_busy", Unit: "%", Text: "of the processors that this tool may use"},
		Name{Name: "other_cores", Unit: "cores", Text: "that other programs kept busy"},
		Name{Name: "machine_busy", Unit: "%", Text: "of this machine's processors"},
	)
}

// Threshold is what a figure must not pass.
type Threshold struct {
	Name  Name
	Above bool // broken above the limit; else below
	Limit float64
}

// ParseThresholds reads a list such as "ttff_p95>300ms,loss>0.5%".
func ParseThresholds(list string) (all []Threshold, err error) {
	for s := range strings.SplitSeq(list, ",") {
		t, err := parseThreshold(strings.TrimSpace(s))
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

func parseThreshold(s string) (t Threshold, err error) {
	i := strings.IndexAny(s, "<>")
	if i <= 0 || i == len(s)-1 {
		return t, fmt.Errorf("threshold %q: write a name, > or <, and a value, such as ttff_p95>300ms", s)
	}
	name, value := strings.TrimSpace(s[:i]), strings.TrimSpace(s[i+1:])
	names := Names()
	n := slices.IndexFunc(names, func(n Name) bool { return n.Name == name })
	if n < 0 {
		return t, fmt.Errorf("threshold %q: there is no figure %q%s", s, name, meant(name, names))
	}
	t = Threshold{Name: names[n], Above: s[i] == '>'}
	if t.Limit, err = parseValue(value, t.Name.Unit); err != nil {
		return t, fmt.Errorf("threshold %q: %w", s, err)
	}
	return t, nil
}

// meant suggests names.
func meant(name string, names []Name) string {
	var like []string
	stem, _, _ := strings.Cut(name, "_")
	for _, n := range names {
		if stem != "" && strings.HasPrefix(n.Name, stem[:min(3, len(stem))]) {
			like = append(like, n.Name)
		}
	}
	if len(like) == 0 {
		return "; sluice load --help lists them"
	}
	return "; did you mean " + strings.Join(like, ", ") + "?"
}

// parseValue reads a number with or without a unit, which must be one of its figure's kind.
func parseValue(s, unit string) (float64, error) {
	digits := strings.TrimRightFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	got := strings.TrimSpace(s[len(digits):])
	v, err := strconv.ParseFloat(digits, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, fmt.Errorf("%q is no number", s)
	}
	if got == "" || strings.EqualFold(got, unit) {
		return v, nil
	}
	scale := map[string]map[string]float64{
		"ms":  {"s": 1000, "us": 0.001, "µs": 0.001},
		"µs":  {"us": 1, "ms": 1000},
		"KiB": {"kb": 1, "k": 1, "mib": 1024},
		"MiB": {"gib": 1024, "kib": 1.0 / 1024},
	}[unit]
	if k, ok := scale[strings.ToLower(got)]; ok {
		return v * k, nil
	}
	if unit == "" {
		return 0, fmt.Errorf("%q has no unit", strings.TrimSpace(s))
	}
	return 0, fmt.Errorf("%q is not in %s", s, unit)
}

// checkThresholds refuses thresholds that this run will not measure.
func checkThresholds(all []Threshold, c *Config) error {
	for _, t := range all {
		switch n := t.Name; {
		case n.play && c.Play == "":
			return fmt.Errorf("threshold on %s: without --play nobody measures it", n.Name)
		case n.pid && len(c.PIDs) == 0:
			return fmt.Errorf("threshold on %s: give the server's process with --pid", n.Name)
		case n.follow && !c.Follow:
			return fmt.Errorf("threshold on %s: it needs --follow", n.Name)
		case n.one && c.Capacity != nil:
			return fmt.Errorf("threshold on %s: it can't be measured while viewers come and go (--find-capacity)", n.Name)
		}
	}
	return nil
}

// String is how it was written.
func (t Threshold) String() string {
	op := "<"
	if t.Above {
		op = ">"
	}
	return t.Name.Name + op + strings.ReplaceAll(FormatValue(t.Limit, t.Name.Unit), " ", "")
}

// Break is a threshold that was broken. By is how much of the limit the value is beyond it.
type Break struct {
	Threshold string  `json:"threshold"`
	Name      string  `json:"name"`
	Value     float64 `json:"value"` // 0 if Missing
	Limit     float64 `json:"limit"`
	Unit      string  `json:"unit,omitempty"`
	Missing   bool    `json:"missing,omitempty"` // nothing was measured
}

// String says which threshold is broken and by how much.
func (b Break) String() string {
	if b.Missing {
		return b.Threshold + ": nothing was measured"
	}
	where, by := "above", b.Value-b.Limit
	if by < 0 {
		where, by = "below", -by
	}
	s := fmt.Sprintf("%s: it is %s, %s %s", b.Threshold, FormatValue(b.Value, b.Unit), FormatValue(by, b.Unit), where)
	if b.Limit != 0 {
		s += fmt.Sprintf(" (%.0f %% of the limit)", 100*b.Value/b.Limit)
	}
	return s
}

// broken tells which thresholds the figures break. What was not measured breaks its own: nobody can say that it is well.
func broken(all []Threshold, f Figures) (list []Break) {
	for _, t := range all {
		v, ok := f[t.Name.Name]
		if !ok || t.Above && v > t.Limit || !t.Above && v < t.Limit {
			list = append(list, Break{Threshold: t.String(), Name: t.Name.Name, Value: v, Limit: t.Limit, Unit: t.Name.Unit, Missing: !ok})
		}
	}
	return list
}

// FormatValue writes a figure with its unit, with as many digits as are of use.
func FormatValue(v float64, unit string) string {
	digits := 0
	switch a := math.Abs(v); {
	case unit == "" && v == math.Trunc(v):
	case a < 1 && a > 0:
		digits = 3
	case a < 10:
		digits = 2
	case a < 100:
		digits = 1
	}
	s := strconv.FormatFloat(v, 'f', digits, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	if unit == "" {
		return s
	}
	return s + " " + unit
}

// ParseRate reads a number of joins a second: "100/s", "100", or "30/m".
func ParseRate(s string) (float64, error) {
	errRate := errors.New("a rate is a number of joins a second, such as 100/s, or a minute, such as 30/m")
	n, per, _ := strings.Cut(s, "/")
	v, err := strconv.ParseFloat(strings.TrimSpace(n), 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, fmt.Errorf("%q: %w", s, errRate)
	}
	scale, ok := map[string]time.Duration{"": time.Second, "s": time.Second, "m": time.Minute}[strings.TrimSpace(per)]
	if !ok {
		return 0, fmt.Errorf("%q: %w", s, errRate)
	}
	return v / scale.Seconds(), nil
}
