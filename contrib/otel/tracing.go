package otel

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/qi-realtime/ws"
)

// scope is the name of the instrumentation.
const scope = "github.com/qi-realtime/ws/contrib/otel"

// defaultRatio is the share of messages that are sampled.
const defaultRatio = 0.01

// Tracing makes spans for messages. Safe for concurrent use.
type Tracing struct {
	tracer    trace.Tracer
	threshold uint64   // a message is sampled if a random number of 63 bits is below it
	follow    bool     // the client's traceparent decides
	contexts  sync.Map // *ws.Client to the context.Context of its sampled message
}

// Option configures New.
type Option func(*config)

// config holds the fields that Options set.
type config struct {
	provider trace.TracerProvider
	ratio    float64
	follow   bool
}

// Provider sets the TracerProvider. Default is the global one, as it is when New is called.
func Provider(p trace.TracerProvider) Option { return func(c *config) { c.provider = p } }

// Ratio sets the share of messages that are sampled, between 0 and 1. Default 0.01.
func Ratio(r float64) Option { return func(c *config) { c.ratio = r } }

// FollowClients lets a message's traceparent (W3C Trace Context) decide in place of the ratio:
// its flag "sampled" samples the message, and the span continues the client's trace. The
// ratio holds for messages without a valid traceparent. A client can have all of its messages
// sampled then: use it for clients that you trust, such as your own services.
func FollowClients() Option { return func(c *config) { c.follow = true } }

// New returns a Tracing. Call its Use before the middleware that should be part of the spans is
// added to the manager.
func New(opts ...Option) *Tracing {
	c := config{ratio: defaultRatio}
	for _, opt := range opts {
		opt(&c)
	}
	if c.provider == nil {
		c.provider = otel.GetTracerProvider()
	}
	return &Tracing{
		tracer:    c.provider.Tracer(scope),
		threshold: uint64(min(max(c.ratio, 0), 1) * math.MaxInt64),
		follow:    c.follow,
	}
}

// Use adds middleware to m that makes a span for the handler of each sampled message, with the
// middleware behind it. A message that is not sampled costs the decision alone. The span's name
// is the event, or "raw" for a message without the envelope, and the trace_id of the library's
// answer is the ID of its trace. A handler's error of code 500 or more, any other error that is
// no *ws.ClientError, and a panic set the status of the span.
//
// The middleware runs on the goroutine of the handler. Spans end there, too: a span processor that
// blocks would hold an event loop. The batch processor of the SDK does not, unless
// WithBlocking is set.
//
// Use returns ws.ErrRouterFrozen after Router.Freeze.
func (t *Tracing) Use(m *ws.Manager) error { return m.UseIf(t.sampled, t.record) }

// sampled decides on a message.
func (t *Tracing) sampled(_ *ws.Client, msg *ws.Message) bool {
	if t.follow {
		if parent := t.parent(msg); parent.IsValid() {
			return parent.IsSampled()
		}
	}
	return t.threshold > 0 && rand.Uint64()>>1 <= t.threshold
}

// parent returns the client's span, which is invalid without one.
func (t *Tracing) parent(msg *ws.Message) trace.SpanContext {
	if !t.follow {
		return trace.SpanContext{}
	}
	text := msg.TraceParent()
	if text == "" {
		return trace.SpanContext{}
	}
	carrier := propagation.MapCarrier{"traceparent": text}
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
}

// record handles a sampled message.
func (t *Tracing) record(c *ws.Client, msg *ws.Message, next ws.NextFunc) error {
	ctx := c.Context()
	if parent := t.parent(msg); parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	}
	name := msg.Event
	if msg.Type == ws.TypeRaw {
		name = "raw"
	}
	ctx, span := t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("network.protocol.name", "websocket"),
		attribute.String("ws.message.type", msg.Type),
		attribute.String("ws.client.id", c.ID),
		attribute.Int("ws.message.data_size", len(msg.Data)),
	))
	msg.SetTraceID(span.SpanContext().TraceID())
	t.contexts.Store(c, ctx)
	returned := false
	defer func() {
		t.contexts.Delete(c)
		if !returned {
			span.SetStatus(codes.Error, "panic")
		}
		span.End()
	}()
	err := next()
	returned = true
	if err != nil {
		note(span, err)
	}
	return err
}

// note records an error. An error that the client has caused does not fail the span.
func note(span trace.Span, err error) {
	span.RecordError(err)
	if known, ok := errors.AsType[*ws.ClientError](err); ok {
		span.SetAttributes(attribute.Int("ws.response.code", known.Code))
		if known.Code < 500 {
			return
		}
	}
	span.SetStatus(codes.Error, err.Error())
}

// Context returns the context of the message of c that is handled now: its span, if it is
// sampled, and c.Context, which ends with the connection. Call it within the handler. The
// context is for outgoing calls, which it makes a part of the trace.
func (t *Tracing) Context(c *ws.Client) context.Context {
	if ctx, ok := t.contexts.Load(c); ok {
		return ctx.(context.Context)
	}
	return c.Context()
}
