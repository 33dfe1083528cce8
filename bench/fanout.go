//go:build linux

package main

import (
	"context"
	"fmt"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/report"
)

// runFanout measures rooms at full speed, or at fixed rates.
func runFanout(ctx context.Context, o *options) ([]*table, error) {
	o.setDefaults(10_000)
	if o.rooms > o.conns {
		return nil, fmt.Errorf("%d rooms need as many members, not %d: a smaller -rooms", o.rooms, o.conns)
	}
	t := &roomTest{ack: o.rates == "", row: o.fanoutRow}
	t.table = &table{command: "fanout", title: "Fan-out at full speed", columns: []column{
		{"path", "path", "%s"},
		{"members", "members", "%d"},
		{"rooms", "rooms", "%d"},
		{"stalled", "stalled", "%d"},
		{"trickling", "trickling", "%d"},
		{"outstanding", "outstanding", "%v"},
		{"size", "bytes", "%d"},
		{"per_second", "deliveries/s", "%.0f"},
		{"server_us", "server µs/dlv", "%.2f"},
		{"client_us", "client µs/dlv", "%.2f"},
		{"writes", "writes/dlv", "%.3f"},
		{"write_calls", "by the kernel", "%.3f"},
		{"p50_ms", "p50 ms", "%.1f"},
		{"p90_ms", "", "%.3f"},
		{"p99_ms", "p99 ms", "%.1f"},
		{"p999_ms", "p99.9 ms", "%.1f"},
		{"p9999_ms", "", "%.3f"},
		{"last_p50_ms", "last member p50 ms", "%.1f"},
		{"last_p99_ms", "p99 ms", "%.1f"},
		{"last_p999_ms", "p99.9 ms", "%.1f"},
		{"missing", "missing", "%d"},
		{"disordered", "disordered", "%d"},
		{"dropped", "dropped", "%d"},
		{"rss_growth_bytes", "RSS growth B", "%d"},
	}, charts: []chart{{
		Kind: report.Bars, X: []string{"outstanding", "path", "members", "rooms", "trickling", "size"}, Series: "stalled",
		Y: []string{"per_second", "server_us", "writes"},
	}}}
	if o.rates != "" {
		t.table.title = "Fan-out at a fixed rate"
		t.table.columns[5] = column{"rate", "publishes/s", "%v"}
		t.table.charts[0].X[0] = "rate"
		t.table.charts[0].Y = []string{"server_us"}
		t.table.charts = append([]chart{{
			Kind: report.Percentiles, Title: "From publish to delivery", X: []string{"rate", "path", "members", "rooms", "stalled", "trickling", "size"},
			Y: []string{"p50_ms", "p90_ms", "p99_ms", "p999_ms", "p9999_ms"}, Axis: "ms",
		}}, t.table.charts...)
	}
	if err := o.fanoutLoads(t); err != nil {
		return nil, err
	}
	return t.tables(ctx, o)
}

// runLatency is fanout at a low rate.
func runLatency(ctx context.Context, o *options) ([]*table, error) {
	if o.rates == "" {
		o.rates = "4"
	}
	o.duration *= 2
	tables, err := runFanout(ctx, o)
	for _, t := range tables {
		t.command = "latency" + t.command[len("fanout"):]
	}
	return tables, err
}

// fanoutLoads fills in the loads that the flags ask for.
func (o *options) fanoutLoads(t *roomTest) error {
	rates, err := o.rateList()
	if err != nil {
		return err
	}
	load := control.Command{Name: "publish", Size: o.size, Rooms: o.rooms}
	for _, load.Rate = range rates {
		t.loads = append(t.loads, roomLoad{load, fmt.Sprintf("%g publishes/s", load.Rate)})
	}
	if rates != nil {
		return nil
	}
	outstanding := []int{o.outstanding}
	if o.sweep {
		outstanding = []int{1, 4, 16, 64}
	}
	for _, load.Outstanding = range outstanding {
		t.loads = append(t.loads, roomLoad{load, fmt.Sprintf("%d outstanding", load.Outstanding)})
	}
	return nil
}

func (o *options) fanoutRow(r *room, c control.Command, w *outcome) []any {
	var load any = c.Outstanding
	if c.Rate > 0 {
		load = c.Rate
	}
	n := float64(max(w.client.messages, 1))
	return []any{
		o.path, sumOf(o.conns), sumOf(o.rooms), sumOf(r.stalled), sumOf(r.trickling), load, c.Size,
		sumOf(w.perSecond(w.client.messages)), meanOf(w.serverMicros(), n), meanOf(micros(w.client.cpu)/n, n),
		meanOf(w.perMessage(float64(w.server.Writes)), n), meanOf(w.perMessage(float64(w.server.WriteCalls)), n),
		millisOf(w.rtt, 0.5), millisOf(w.rtt, 0.9), millisOf(w.rtt, 0.99), millisOf(w.rtt, 0.999), millisOf(w.rtt, 0.9999),
		millisOf(w.last, 0.5), millisOf(w.last, 0.99), millisOf(w.last, 0.999),
		sumOf(w.missing), sumOf(w.disordered), sumOf(w.dropped), sumOf(w.rssGrowth),
	}
}
