package otel

import "github.com/qi-realtime/ws"

// Sampled opens Tracing.sampled.
func Sampled(t *Tracing, msg *ws.Message) bool { return t.sampled(nil, msg) }
