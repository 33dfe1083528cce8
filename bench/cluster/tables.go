//go:build linux

package cluster

import (
	"fmt"
	"slices"

	"github.com/qi-realtime/ws/bench/control"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
)

// tables holds a table for each load.
type tables struct {
	names []string
	of    map[string]*result.Table
}

var columns = []result.Column{
	{"broker", "broker", "%s"},
	{"history", "history", "%s"},
	{"nodes", "nodes", "%d"},
	{"members", "members", "%d"},
	{"rooms", "rooms", "%d"},
	{"size", "", "%d"},
	{"load", "load", "%s"},
	{"messages_per_second", "messages/s", "%.0f"},
	{"per_second", "deliveries/s", "%.0f"},
	{"nodes_us", "nodes µs/msg", "%.1f"},
	{"delivery_us", "µs/dlv", "%.2f"},
	{"broker_us", "broker µs/msg", "%.1f"},
	{"in", "in/msg", "%.2f"},
	{"out", "out/msg", "%.2f"},
	{"broker_per_delivery", "(in+out)/dlv", "%.4f"},
	{"broker_mb_per_second", "", "%.1f"},
	{"near_p50_ms", "own node p50 ms", "%.2f"},
	{"near_p99_ms", "p99", "%.2f"},
	{"far_p50_ms", "other nodes p50 ms", "%.2f"},
	{"far_p99_ms", "p99", "%.2f"},
	{"missing", "missing", "%d"},
	{"disordered", "disordered", "%d"},
	{"dropped", "dropped", "%d"},
	{"gaps", "gaps", "%d"},
	{"repairs", "", "%d"},
	{"refused", "refused", "%d"},
}

// newTables returns tables for the loads.
func newTables(names []string) *tables {
	t := &tables{of: make(map[string]*result.Table)}
	for _, k := range kinds() {
		if !slices.Contains(names, k.id()) {
			continue
		}
		t.names = append(t.names, k.id())
		t.of[k.id()] = &result.Table{
			Command: "cluster-" + k.id(), Title: k.heading(), Columns: columns, Charts: []result.Chart{{
				Kind: report.Bars, X: []string{"broker", "history"},
				Y: []string{"messages_per_second", "per_second", "nodes_us", "broker_us"},
			}, {
				Kind: report.Bars, Title: "From publish to delivery", X: []string{"broker", "history"},
				Y: []string{"near_p50_ms", "near_p99_ms", "far_p50_ms", "far_p99_ms"}, Axis: "ms", LogY: true,
			}},
		}
	}
	return t
}

func (t *tables) has(k kind) bool { return t.of[k.id()] != nil }

func (t *tables) all() (tables []*result.Table) {
	for _, name := range t.names {
		tables = append(tables, t.of[name])
	}
	return tables
}

// add adds a row.
func (t *tables) add(k kind, c *nodes, f *figures) {
	messages, deliveries := float64(max(f.published, 1)), float64(max(f.deliveries, 1))
	w := &f.whole
	published := float64(max(w.published, 1))
	seconds := f.elapsed.Seconds()
	members := 0
	for _, n := range c.members {
		members += n
	}
	name := c.broker
	if c.version != "" {
		name = c.version
		switch {
		case c.broker == control.Sharded:
			name += ", cluster of 3"
		case c.broker == control.NATSFiles && c.history:
			name += ", files"
		}
	}
	t.of[k.id()].Add(
		name, map[bool]string{true: "yes", false: "no"}[c.history], len(c.procs), members, c.rooms, f.command.Size,
		loadText(f),
		float64(f.published)/seconds, float64(f.deliveries)/seconds,
		result.Micros(f.nodesCPU)/messages, result.Micros(f.nodesCPU)/deliveries, result.Micros(f.brokerCPU)/messages,
		float64(w.in)/published, float64(w.out)/published, float64(w.in+w.out)/float64(max(w.deliveries, 1)),
		float64(f.bytesOut)/seconds/1e6,
		quantile(f.near, 0.5), quantile(f.near, 0.99), quantile(f.far, 0.5), quantile(f.far, 0.99),
		w.missing, w.disordered, w.dropped, w.gaps, w.repairs, w.errors)
	if w.broken != "" {
		t.of[k.id()].Notes = append(t.of[k.id()].Notes, name+": "+w.broken)
	}
}

func loadText(f *figures) string {
	if f.command.Rate > 0 {
		return fmt.Sprintf("%g/s", f.command.Rate)
	}
	return fmt.Sprintf("%d outstanding", f.command.Outstanding)
}

// quantile returns a cell of the table; nil is one without a value.
func quantile(h result.Histogram, q float64) any {
	if h.Count() == 0 {
		return nil
	}
	return result.Millis(h.Quantile(q))
}
