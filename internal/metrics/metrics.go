// Package metrics shows figures to Prometheus.
//
// Imports: nothing of ours.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Gauge is a figure that goes up and down. Gauges of one name have the same help and the same labels.
type Gauge struct {
	Name, Help string
	Value      float64
	Labels     [][2]string // name and value
}

// Handler answers GET /metrics with what gauges says at that time, and with figures of the process.
func Handler(gauges func() []Gauge) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), source(gauges))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}

// source is a collector whose metrics are not known before.
type source func() []Gauge

// Describe implements prometheus.Collector.
func (source) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s source) Collect(out chan<- prometheus.Metric) {
	for _, g := range s() {
		names, values := make([]string, len(g.Labels)), make([]string, len(g.Labels))
		for i, l := range g.Labels {
			names[i], values[i] = l[0], l[1]
		}
		desc := prometheus.NewDesc(g.Name, g.Help, names, nil)
		m, err := prometheus.NewConstMetric(desc, prometheus.GaugeValue, g.Value, values...)
		if err != nil {
			m = prometheus.NewInvalidMetric(desc, err)
		}
		out <- m
	}
}
