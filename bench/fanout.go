//go:build linux

package main

import (
	"context"
	"fmt"

	"github.com/qi-realtime/ws/bench/control"
)

// runFanout measures one room at full speed.
func runFanout(ctx context.Context, o *options) ([]*table, error) {
	o.setDefaults(10_000)
	t := &roomTest{ack: true, row: o.fanoutRow}
	t.table = &table{command: "fanout", title: "Fan-out to one room at full speed", columns: []column{
		{"path", "path", "%s"},
		{"members", "members", "%d"},
		{"stalled", "stalled", "%d"},
		{"outstanding", "outstanding", "%d"},
		{"size", "bytes", "%d"},
		{"per_second", "deliveries/s", "%.0f"},
		{"server_us", "server µs/dlv", "%.2f"},
		{"client_us", "client µs/dlv", "%.2f"},
		{"writes", "writes/dlv", "%.3f"},
		{"p50_ms", "p50 ms", "%.1f"},
		{"p99_ms", "p99 ms", "%.1f"},
		{"last_p50_ms", "last member p50 ms", "%.1f"},
		{"last_p99_ms", "p99 ms", "%.1f"},
		{"missing", "missing", "%d"},
		{"disordered", "disordered", "%d"},
		{"dropped", "dropped", "%d"},
	}}
	outstanding := []int{o.outstanding}
	if o.sweep {
		outstanding = []int{1, 4, 16, 64}
	}
	for _, k := range outstanding {
		t.loads = append(t.loads, roomLoad{
			control.Command{Name: "publish", Size: o.size, Outstanding: k},
			fmt.Sprintf("%d outstanding", k),
		})
	}
	return t.tables(ctx, o)
}

func (o *options) fanoutRow(r *room, c control.Command, w *outcome) []any {
	return []any{
		o.path, o.conns, r.stalled, c.Outstanding, c.Size, w.perSecond(w.client.messages), w.serverMicros(),
		micros(w.client.cpu) / float64(max(w.client.messages, 1)), w.perMessage(float64(w.server.Writes)),
		millis(w.rtt.quantile(0.5)), millis(w.rtt.quantile(0.99)),
		millis(w.last.quantile(0.5)), millis(w.last.quantile(0.99)),
		w.missing, w.disordered, w.dropped,
	}
}
