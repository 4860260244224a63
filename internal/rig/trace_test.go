package rig

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"sluice/internal/trace"
)

// spanSeen is a span that reached the collector.
type spanSeen struct {
	service string
	*otlp.Span
}

// receiver is a collector of traces.
type receiver struct {
	mu    sync.Mutex
	spans []spanSeen
}

func (c *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = z
	}
	b, err := io.ReadAll(body)
	var req collector.ExportTraceServiceRequest
	if err != nil || proto.Unmarshal(b, &req) != nil || r.URL.Path != "/v1/traces" {
		http.Error(w, "not OTLP", http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range req.ResourceSpans {
		service := ""
		for _, a := range rs.Resource.Attributes {
			if a.Key == "service.instance.id" {
				service = a.Value.GetStringValue()
			}
		}
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				c.spans = append(c.spans, spanSeen{service, s})
			}
		}
	}
}

// of are the spans of a trace, as "process: name".
func (c *receiver) of(id []byte) (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if bytes.Equal(s.TraceId, id) {
			names = append(names, s.service+": "+s.Name)
		}
	}
	slices.Sort(names)
	return names
}

// find returns the first span of a process with that name.
func (c *receiver) find(service, name string) (spanSeen, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.spans, func(s spanSeen) bool { return s.service == service && s.Name == name })
	if i < 0 {
		return spanSeen{}, false
	}
	return c.spans[i], true
}

// buffer is a log that several goroutines write.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Split(b.b.String(), "\n")
}

// TestTrace: one trace has a viewer's way from the gateway to his first key frame, over the edge and the origin, and one id finds it in the logs of all three.
func TestTrace(t *testing.T) {
	rc, log := &receiver{}, &buffer{}
	srv := httptest.NewServer(rc)
	defer srv.Close()
	c := Start(t, Options{Edges: 1, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), Tracer: func(process string) *trace.Tracer {
		tr, err := trace.New(trace.Config{Endpoint: srv.URL, Ratio: 1, Service: "sluice", Instance: process})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = tr.Run(canceled()) })
		return tr
	}})
	c.publish(stream1)
	v := c.watch(stream1)
	c.More(5, v)

	setup := "POST setup"
	want := []string{
		"edge-1: ICE and DTLS", "edge-1: POST /{app}/whep/{id}", "edge-1: first key frame", "edge-1: registry look-up", "edge-1: relay subscribe", "edge-1: session negotiation",
		"gateway: " + setup, "gateway: ask node", "origin-1: relay serve",
	}
	c.Poll(15*time.Second, func() error {
		key, ok := rc.find("edge-1", "first key frame")
		if !ok {
			return fmt.Errorf("no viewer's first key frame has come")
		}
		got := slices.Compact(rc.of(key.TraceId)) // the first attempt may have been before the registry knew of the stream
		if !slices.Equal(got, want) {
			return fmt.Errorf("the trace has\n%q, want\n%q", got, want)
		}
		return nil
	})
	c.Poll(15*time.Second, func() error { // the publisher's is another one, to which the origin's step has a link
		first, ok := rc.find("origin-1", "first media")
		if !ok {
			return fmt.Errorf("no publisher's first media has come")
		}
		want := []string{"gateway: " + setup, "gateway: ask node", "origin-1: ICE and DTLS", "origin-1: POST /{app}/whip/{id}", "origin-1: first media", "origin-1: registry claim",
			"origin-1: session negotiation"}
		if got := rc.of(first.TraceId); !slices.Equal(got, want) {
			return fmt.Errorf("the publisher's trace has\n%q, want\n%q", got, want)
		}
		serve, ok := rc.find("origin-1", "relay serve")
		if !ok || len(serve.Links) != 1 || !bytes.Equal(serve.Links[0].TraceId, first.TraceId) {
			return fmt.Errorf("the origin's step has the links %v", serve.Links)
		}
		return nil
	})

	// The story of the viewer, as an operator finds it: by the id in the line of the gateway.
	id := ""
	takes := regexp.MustCompile(`msg="node takes a stream".* request=(\S+)`)
	for _, line := range log.lines() {
		if m := takes.FindStringSubmatch(line); m != nil {
			id = cmp.Or(id, m[1])
		}
	}
	if id == "" {
		t.Fatal("the origin does not say for which request an edge takes the stream")
	}
	for _, part := range []string{`msg="session request" request=`, `msg=request node=edge-1 request=`, `msg="stream pulled" node=edge-1`, `msg="stream published" node=edge-1`, `msg="viewer connected" node=edge-1`,
		`msg="node takes a stream" node=origin-1`} {
		if !slices.ContainsFunc(log.lines(), func(l string) bool { return strings.Contains(l, part) && strings.Contains(l, "request="+id) }) {
			t.Errorf("no line of request %s has %s", id, part)
		}
	}
	if t.Failed() {
		for _, l := range log.lines() {
			if strings.Contains(l, id) {
				t.Log(l)
			}
		}
	}
}

// canceled is a context that has ended.
func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
