//go:build linux

package main

import (
	"context"
	"fmt"
)

// runLatency measures one room at a fixed rate.
func runLatency(ctx context.Context, o *options) ([]*table, error) {
	t := &table{command: "latency", title: "Delivery latency in one room at a fixed rate", columns: []column{
		{"path", "path", "%s"},
		{"members", "members", "%d"},
		{"rate", "publishes/s", "%.1f"},
		{"size", "bytes", "%d"},
		{"per_second", "deliveries/s", "%.0f"},
		{"server_us", "server µs/dlv", "%.2f"},
		{"p50_ms", "p50 ms", "%.1f"},
		{"p99_ms", "p99 ms", "%.1f"},
		{"last_p50_ms", "last member p50 ms", "%.1f"},
		{"last_p99_ms", "p99 ms", "%.1f"},
		{"writes", "writes/dlv", "%.3f"},
		{"missing", "missing", "%d"},
		{"disordered", "disordered", "%d"},
	}}
	o.duration *= 2
	r, err := openRoom(ctx, o, false)
	if err != nil {
		return nil, err
	}
	defer r.stop()
	if o.rate == 0 {
		return nil, fmt.Errorf("-rate is 0")
	}
	for range o.rounds {
		w, err := r.publish(ctx, o, command{Name: "publish", Size: o.size, Rate: o.rate})
		if err != nil {
			return nil, err
		}
		t.add(o.path, o.conns, o.rate, o.size, w.perSecond(w.client.messages), w.perMessage(micros(w.server.CPU)),
			micros(w.rtt.quantile(0.5))/1000, micros(w.rtt.quantile(0.99))/1000,
			micros(w.last.quantile(0.5))/1000, micros(w.last.quantile(0.99))/1000,
			w.perMessage(float64(w.server.Writes)), w.missing, w.disordered)
	}
	return []*table{t}, nil
}
