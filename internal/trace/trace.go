// Package trace follows one request through the processes that it passes: by an id in the logs of all of them, and, where a collector of
// traces is set, by spans that are sent there (OpenTelemetry, OTLP over HTTP). Nothing waits for the collector: what it does not take
// in time is dropped.
//
// Imports: nothing of ours.
package trace

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"
)

// Config of a Tracer.
type Config struct {
	Endpoint string  // the collector's URL, such as http://127.0.0.1:4318; "/v1/traces" is added where it has no path. "": nothing is traced
	Ratio    float64 // share of the requests that are traced, 0 to 1
	Service  string  // "sluice-node"
	Instance string  // the process among those
	Version  string
	Log      *slog.Logger // default slog.Default()
}

// Limits of what waits for the collector.
const (
	maxQueue   = 2048 // spans; more are dropped
	maxBatch   = 512
	sendEvery  = 2 * time.Second
	sendWithin = 5 * time.Second
	endWithin  = 2 * time.Second // the last ones, when the process stops
	tellEvery  = time.Minute     // at most so often it is said that the collector does not take them
)

// Tracer makes spans. nil makes none, and its methods may be called.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   api.Tracer
	sender   *sender
}

// New returns nil when there is no endpoint. It does no I/O.
func New(cfg Config) (*Tracer, error) {
	if cfg.Endpoint == "" {
		return nil, nil
	}
	url := strings.TrimRight(cfg.Endpoint, "/")
	if i := strings.Index(url, "://"); i < 0 || !strings.Contains(url[i+3:], "/") {
		url += "/v1/traces" // OTLP's own path
	}
	to, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(url), otlptracehttp.WithTimeout(sendWithin),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: false})) // the next batch is the next try
	if err != nil {
		return nil, fmt.Errorf("make the exporter of traces: %w", err)
	}
	t := &Tracer{sender: &sender{to: to, url: url, log: cmp.Or(cfg.Log, slog.Default())}}
	t.provider = sdk.NewTracerProvider(sdk.WithSampler(sampler{cfg.Ratio}),
		sdk.WithBatcher(t.sender, sdk.WithMaxQueueSize(maxQueue), sdk.WithMaxExportBatchSize(maxBatch), sdk.WithBatchTimeout(sendEvery), sdk.WithExportTimeout(sendWithin)),
		sdk.WithSpanProcessor(ended{&t.sender.ended}),
		sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", cfg.Service), attribute.String("service.instance.id", cfg.Instance),
			attribute.String("service.version", cfg.Version))))
	t.tracer = t.provider.Tracer("sluice")
	return t, nil
}

// Run waits until ctx ends and sends what is left.
func (t *Tracer) Run(ctx context.Context) error {
	<-ctx.Done()
	if t == nil {
		return nil
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWithin)
	defer cancel()
	_ = t.provider.Shutdown(last) // the sender has told what went wrong
	return nil
}

// Stats count spans since the start: those that have ended, and of these those that the collector took and those that it did not. What is in neither
// waits, or was dropped because too many did.
type Stats struct{ Ended, Sent, Failed uint64 }

// Stats may be called from any goroutine.
func (t *Tracer) Stats() Stats {
	if t == nil {
		return Stats{}
	}
	s := t.sender
	return Stats{s.ended.Load(), s.sent.Load(), s.failed.Load()}
}

// Span is one step of a request. Its methods may be called on nil, which is a step that is not traced.
type Span struct{ span api.Span }

// Start begins a step of what ctx belongs to; where that is not traced, nothing. Attributes are names and values in turn.
func Start(ctx context.Context, name string, attributes ...string) (context.Context, *Span) {
	parent := api.SpanFromContext(ctx)
	if !parent.SpanContext().IsSampled() { // the parent may have ended already
		return ctx, nil
	}
	ctx, span := parent.TracerProvider().Tracer("sluice").Start(ctx, name, api.WithAttributes(pairs(attributes)...))
	return ctx, &Span{span}
}

// Continue begins a step of what another process has begun, of which Carried is parent.
func (t *Tracer) Continue(ctx context.Context, parent, name string, attributes ...string) (context.Context, *Span) {
	if t == nil || parent == "" {
		return ctx, nil
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": parent})
	if !api.SpanContextFromContext(ctx).IsSampled() {
		return ctx, nil
	}
	ctx, span := t.tracer.Start(ctx, name, api.WithSpanKind(api.SpanKindServer), api.WithAttributes(pairs(attributes)...))
	return ctx, &Span{span}
}

// Carried is what another process needs to go on with what ctx belongs to, as a W3C traceparent; "": it is not traced.
func Carried(ctx context.Context) string {
	if !api.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	c := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, c)
	return c["traceparent"]
}

// Forward writes the id and the trace of ctx into a request to another process.
func Forward(ctx context.Context, h http.Header) {
	if id := RequestOf(ctx); id != "" {
		h.Set(RequestHeader, id)
	}
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(h))
}

// Adopt returns a context that ends with ctx and belongs to what from belongs to.
func Adopt(ctx, from context.Context) context.Context {
	ctx = WithRequest(ctx, RequestOf(from))
	if span := api.SpanFromContext(from); span.SpanContext().IsValid() {
		ctx = api.ContextWithSpan(ctx, span)
	}
	return ctx
}

// Set adds attributes, names and values in turn.
func (s *Span) Set(attributes ...string) {
	if s != nil {
		s.span.SetAttributes(pairs(attributes)...)
	}
}

// Link says that the step has to do with another trace, as Carried gives it.
func (s *Span) Link(parent string) {
	if s == nil || parent == "" {
		return
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": parent})
	if other := api.SpanContextFromContext(ctx); other.IsValid() {
		s.span.AddLink(api.Link{SpanContext: other})
	}
}

// End ends the step; an error says that it failed. Ending twice does nothing.
func (s *Span) End(err error) {
	if s == nil {
		return
	}
	if err != nil {
		s.span.SetStatus(codes.Error, err.Error())
	}
	s.span.End()
}

// enter begins the span of a request that comes in. A trace that it names goes on, but only who is trusted decides whether that is sent.
func (t *Tracer) enter(ctx context.Context, r *http.Request, trusted bool) (context.Context, *Span) {
	if t == nil {
		if !trusted { // nobody behind this process shall believe it
			r.Header.Del("traceparent")
		}
		return ctx, nil
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(r.Header))
	if !trusted {
		ctx = context.WithValue(ctx, strangerKey{}, true)
	}
	ctx, span := t.tracer.Start(ctx, r.Method, api.WithSpanKind(api.SpanKindServer), api.WithAttributes(attribute.String("sluice.request", RequestOf(ctx))))
	return context.WithValue(ctx, strangerKey{}, false), &Span{span}
}

// leave ends the span of a request.
func (s *Span) leave(name, method, route string, status int) {
	if s == nil {
		return
	}
	s.span.SetName(name)
	s.span.SetAttributes(attribute.String("http.request.method", method), attribute.String("http.route", route), attribute.Int("http.response.status_code", status))
	if status >= 500 {
		s.span.SetStatus(codes.Error, http.StatusText(status))
	}
	s.span.End()
}

func pairs(attributes []string) (list []attribute.KeyValue) {
	for i := 0; i+1 < len(attributes); i += 2 {
		list = append(list, attribute.String(attributes[i], attributes[i+1]))
	}
	return list
}

// strangerKey marks a trace that somebody has named who does not decide whether it is sent: else anybody could have all of his requests traced.
type strangerKey struct{}

// sampler traces a share of what begins here, and goes on with what was begun elsewhere.
type sampler struct{ ratio float64 }

// ShouldSample implements sdk.Sampler.
func (s sampler) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	parent := api.SpanContextFromContext(p.ParentContext)
	stranger, _ := p.ParentContext.Value(strangerKey{}).(bool)
	result := sdk.SamplingResult{Decision: sdk.Drop, Tracestate: parent.TraceState()}
	if parent.IsValid() && !stranger && parent.IsSampled() || (!parent.IsValid() || stranger) && rand.Float64() < s.ratio {
		result.Decision = sdk.RecordAndSample
	}
	return result
}

// Description implements sdk.Sampler.
func (s sampler) Description() string {
	return fmt.Sprintf("share of %g, decided where a request comes in", s.ratio)
}

// ended counts spans.
type ended struct{ n *atomic.Uint64 }

func (e ended) OnStart(context.Context, sdk.ReadWriteSpan) {}
func (e ended) OnEnd(s sdk.ReadOnlySpan) {
	if s.SpanContext().IsSampled() {
		e.n.Add(1)
	}
}
func (e ended) Shutdown(context.Context) error   { return nil }
func (e ended) ForceFlush(context.Context) error { return nil }

// sender gives spans to the collector, and tells the operator when it does not take them. It is called by one goroutine at a time.
type sender struct {
	to  sdk.SpanExporter
	url string
	log *slog.Logger

	ended, sent, failed atomic.Uint64

	told   time.Time
	broken bool
}

// ExportSpans implements sdk.SpanExporter. Its errors stay here: the library would write them to standard error.
func (s *sender) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := s.to.ExportSpans(ctx, spans)
	if err == nil {
		s.sent.Add(uint64(len(spans)))
		if s.broken {
			s.log.Info("the collector takes traces again", "endpoint", s.url)
		}
		s.broken, s.told = false, time.Time{}
		return nil
	}
	s.broken = true
	s.failed.Add(uint64(len(spans)))
	if now := time.Now(); now.Sub(s.told) >= tellEvery {
		s.told = now
		s.log.Warn("the collector does not take traces; they are dropped", "endpoint", s.url, "spans", s.failed.Load(), "error", err)
	}
	return nil
}

// Shutdown implements sdk.SpanExporter.
func (s *sender) Shutdown(ctx context.Context) error { return s.to.Shutdown(ctx) }
