//go:build linux

package main

import (
	"context"
	"fmt"

	"github.com/qi-realtime/ws/bench/control"
)

// runLatency measures one room at fixed rates.
func runLatency(ctx context.Context, o *options) ([]*table, error) {
	o.setDefaults(10_000)
	o.duration *= 2
	t := &roomTest{row: o.latencyRow}
	t.table = &table{command: "latency", title: "Delivery latency in one room at a fixed rate", columns: []column{
		{"path", "path", "%s"},
		{"members", "members", "%d"},
		{"stalled", "stalled", "%d"},
		{"rate", "publishes/s", "%.1f"},
		{"size", "bytes", "%d"},
		{"per_second", "deliveries/s", "%.0f"},
		{"server_us", "server µs/dlv", "%.2f"},
		{"p50_ms", "p50 ms", "%.1f"},
		{"p99_ms", "p99 ms", "%.1f"},
		{"p999_ms", "p99.9 ms", "%.1f"},
		{"last_p50_ms", "last member p50 ms", "%.1f"},
		{"last_p99_ms", "p99 ms", "%.1f"},
		{"last_p999_ms", "p99.9 ms", "%.1f"},
		{"writes", "writes/dlv", "%.3f"},
		{"missing", "missing", "%d"},
		{"disordered", "disordered", "%d"},
		{"dropped", "dropped", "%d"},
	}}
	rates, err := o.rateList()
	if err != nil {
		return nil, err
	}
	for _, rate := range rates {
		t.loads = append(t.loads, roomLoad{
			control.Command{Name: "publish", Size: o.size, Rate: rate},
			fmt.Sprintf("%g publishes/s", rate),
		})
	}
	return t.tables(ctx, o)
}

func (o *options) latencyRow(r *room, c control.Command, w *outcome) []any {
	return []any{
		o.path, o.conns, r.stalled, c.Rate, c.Size, w.perSecond(w.client.messages), w.serverMicros(),
		millis(w.rtt.quantile(0.5)), millis(w.rtt.quantile(0.99)), millis(w.rtt.quantile(0.999)),
		millis(w.last.quantile(0.5)), millis(w.last.quantile(0.99)), millis(w.last.quantile(0.999)),
		w.perMessage(float64(w.server.Writes)), w.missing, w.disordered, w.dropped,
	}
}
