// Package metrics shows figures to Prometheus, and profiles to operators of this machine.
//
// Figures are read from the counters that the parts keep, when Prometheus asks; only durations are counted as they happen, and
// none of those is on the way of a packet. No label has the name of a stream, a viewer or an address: docs/observability.md.
//
// Imports: cluster.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Set is the figures of one node or one gateway. Parts register with it; nil takes no figures.
type Set struct {
	all  *prometheus.Registry
	ours prometheus.Registerer // with the labels that all of ours have
}

// New returns a set that has the figures of the process. Each of ours gets labels: names and values in turn.
func New(labels ...string) *Set {
	all := prometheus.NewRegistry()
	all.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	same := prometheus.Labels{}
	for i := 0; i+1 < len(labels); i += 2 {
		same[labels[i]] = labels[i+1]
	}
	return &Set{all: all, ours: prometheus.WrapRegistererWith(same, all)}
}

// Handler answers GET /metrics.
func (s *Set) Handler() http.Handler { return promhttp.HandlerFor(s.all, promhttp.HandlerOpts{}) }

// Register has a part read at each scrape, from any goroutine.
func (s *Set) Register(read func(*Sample)) {
	if s != nil {
		s.ours.MustRegister(part(read))
	}
}

// Sample takes a part's figures at one moment. Figures of one name have the same help and the same labels, which are names and values in turn.
type Sample struct{ out chan<- prometheus.Metric }

// Gauge is a figure that goes up and down.
func (s *Sample) Gauge(name, help string, value float64, labels ...string) {
	s.add(prometheus.GaugeValue, name, help, value, labels)
}

// Counter is a figure that only grows; its name ends in _total.
func (s *Sample) Counter(name, help string, value float64, labels ...string) {
	s.add(prometheus.CounterValue, name, help, value, labels)
}

func (s *Sample) add(kind prometheus.ValueType, name, help string, value float64, labels []string) {
	var names, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	desc := prometheus.NewDesc(name, help, names, nil)
	m, err := prometheus.NewConstMetric(desc, kind, value, values...)
	if err != nil {
		m = prometheus.NewInvalidMetric(desc, err)
	}
	s.out <- m
}

// part is a collector whose metrics are not known before.
type part func(*Sample)

// Describe implements prometheus.Collector.
func (part) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (p part) Collect(out chan<- prometheus.Metric) { p(&Sample{out}) }

// Flag is 1 for true.
func Flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Bounds of durations, in seconds: of what people wait for, and of what should take milliseconds.
var (
	waits  = [...]float64{.025, .05, .1, .2, .3, .5, .75, 1, 1.5, 2, 3, 5, 10}
	delays = [...]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}
)

// Durations counts how long something takes, by one or more labels. Its methods may be called on nil, which counts nothing.
type Durations struct{ vec *prometheus.HistogramVec }

// Waits counts what people wait for, 25 ms to 10 s.
func (s *Set) Waits(name, help string, labels ...string) *Durations {
	return s.durations(name, help, waits[:], labels)
}

// Delays counts what should take milliseconds, 1 ms to 5 s.
func (s *Set) Delays(name, help string, labels ...string) *Durations {
	return s.durations(name, help, delays[:], labels)
}

func (s *Set) durations(name, help string, bounds []float64, labels []string) *Durations {
	if s == nil {
		return nil
	}
	d := &Durations{prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: bounds}, labels)}
	s.ours.MustRegister(d.vec)
	if len(labels) == 0 {
		d.Begin()
	}
	return d
}

// Observe counts one that took so many seconds. values are those of the labels.
func (d *Durations) Observe(seconds float64, values ...string) {
	if d != nil {
		d.vec.WithLabelValues(values...).Observe(seconds)
	}
}

// Begin has those with certain labels seen before the first.
func (d *Durations) Begin(values ...string) {
	if d != nil {
		d.vec.WithLabelValues(values...)
	}
}

// Counts counts events by a label. Its methods may be called on nil, which counts nothing.
type Counts struct{ vec *prometheus.CounterVec }

// Counts counts what nobody else does, by one label; its name ends in _total. Those of known are seen before the first event.
func (s *Set) Counts(name, help, label string, known ...string) *Counts {
	if s == nil {
		return nil
	}
	c := &Counts{prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})}
	s.ours.MustRegister(c.vec)
	for _, value := range known {
		c.vec.WithLabelValues(value)
	}
	return c
}

// Add counts one event.
func (c *Counts) Add(value string) {
	if c != nil {
		c.vec.WithLabelValues(value).Inc()
	}
}
