//go:build linux

package main

import "context"

// runFanout measures one room at full speed.
func runFanout(ctx context.Context, o *options) ([]*table, error) {
	t := &table{command: "fanout", title: "Fan-out to one room at full speed", columns: []column{
		{"path", "path", "%s"},
		{"members", "members", "%d"},
		{"outstanding", "outstanding", "%d"},
		{"size", "bytes", "%d"},
		{"per_second", "deliveries/s", "%.0f"},
		{"server_us", "server µs/dlv", "%.2f"},
		{"client_us", "client µs/dlv", "%.2f"},
		{"writes", "writes/dlv", "%.3f"},
		{"p50_ms", "p50 ms", "%.1f"},
		{"p99_ms", "p99 ms", "%.1f"},
		{"missing", "missing", "%d"},
		{"disordered", "disordered", "%d"},
		{"dropped", "dropped", "%d"},
	}}
	r, err := openRoom(ctx, o, true)
	if err != nil {
		return nil, err
	}
	defer r.stop()
	outstanding := []int{o.outstanding}
	if o.sweep {
		outstanding = []int{1, 4, 16, 64}
	}
	for range o.rounds {
		for _, k := range outstanding {
			w, err := r.publish(ctx, o, command{Name: "publish", Size: o.size, Outstanding: k})
			if err != nil {
				return nil, err
			}
			t.add(o.path, o.conns, k, o.size, w.perSecond(w.client.messages), w.perMessage(micros(w.server.CPU)),
				micros(w.client.cpu)/float64(max(w.client.messages, 1)), w.perMessage(float64(w.server.Writes)),
				micros(w.rtt.quantile(0.5))/1000, micros(w.rtt.quantile(0.99))/1000,
				w.missing, w.disordered, w.dropped)
		}
	}
	return []*table{t}, nil
}
