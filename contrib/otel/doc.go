// Package otel connects a [ws.Manager] to OpenTelemetry: spans for the handlers of messages, and
// the figures of Manager.Stats as metrics.
//
//	tracing := otel.New(otel.Ratio(0.01))
//	err := tracing.Use(m)
//
//	reader := metric.NewPeriodicReader(exporter, metric.WithProducer(otel.NewProducer(m)))
//
// # Sampling
//
// The package decides on each message before it calls the tracer, because even a span that is not
// recorded costs allocations. A message that is not sampled costs some nanoseconds and
// allocates nothing. Leave the sampler of the TracerProvider at its default, which records
// each span that is started.
package otel
