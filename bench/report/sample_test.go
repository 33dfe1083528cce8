package report_test

import (
	"fmt"
	"time"

	"github.com/qi-realtime/ws/bench/report"
)

// hostile is a label that must stay text.
const hostile = `<script>alert("x")</script> & 'y' </title></svg>|*_`

func column(key, heading, format string) report.Column {
	return report.Column{Key: key, Heading: heading, Format: format}
}

// idleTable has lines with a slope of exactly 0.5 KiB and 0.75 KiB.
func idleTable() *report.Table {
	t := &report.Table{
		Command: "idle", Title: "Idle connections: the server's memory after garbage collection",
		Columns: []report.Column{
			column("path", "path", "%s"), column("conns", "connections", "%d"), column("heap_bytes", "heap KiB", "%.0f"),
			column("rss_bytes", "RSS KiB", "%.0f"),
		},
		Charts: []report.Chart{{
			Kind: report.Lines, Title: "Memory of the server", X: []string{"conns"}, Y: []string{"heap_bytes", "rss_bytes"},
			Series: "path", Axis: "KiB", Fit: true,
		}},
	}
	for _, path := range []string{"native", "http"} {
		for _, n := range []int{2000, 5000, 10_000, 15_000} {
			t.Rows = append(t.Rows, []any{path, n, 600 + 0.5*float64(n), 9000 + 0.75*float64(n) + float64(len(path))*500})
		}
	}
	return t
}

// compareTable has loads loads and three libraries, with spread and ratio.
func compareTable(loads int) *report.Table {
	t := &report.Table{
		Command: "compare", Title: "The same load on each library", Notes: []string{"Median of 5 rounds; the line is " +
			"from the least to the most.", hostile},
		Columns: []report.Column{
			column("load", "load", "%s"), column("library", "library", "%s"), column("server_us", "server µs/msg", "%.2f"),
			column("low", "least", "%.2f"), column("high", "most", "%.2f"), column("ratio", "ratio to ws", "%.2f"),
		},
		Charts: []report.Chart{{
			Kind: report.Bars, Title: "CPU of the server", X: []string{"load"}, Y: []string{"server_us"}, Series: "library",
			Min: []string{"low"}, Max: []string{"high"}, Ratio: "ratio",
		}},
	}
	for i := range loads {
		load := fmt.Sprintf("%d outstanding", 1<<i)
		if i == 1 {
			load = hostile
		}
		for j, library := range []string{"ws", "lxzan/gws v1.8.9", "gorilla/websocket v1.5.3, hub and PreparedMessage"} {
			v := float64(1+j*3) * (1.2 + float64(i%5))
			t.Rows = append(t.Rows, []any{load, library, v, v * 0.9, v * 1.2, v / (1.2 + float64(i%5))})
		}
	}
	return t
}

// echoTable has n rows.
func echoTable(rows int) *report.Table {
	t := &report.Table{
		Command: "echo", Title: "Echo (HandleRaw inline, binary)",
		Columns: []report.Column{
			column("path", "path", "%s"), column("conns", "connections", "%d"), column("inflight", "in flight", "%d"),
			column("per_second", "messages/s", "%.0f"), column("server_us", "server µs/msg", "%.2f"),
		},
		Charts: []report.Chart{{
			Kind: report.Bars, X: []string{"path", "conns", "inflight"},
			Y: []string{"per_second", "server_us"},
		}},
	}
	for i := range rows {
		t.Rows = append(t.Rows, []any{"native", 1000, 1 << (i % 5), 300_000.0 / float64(i+1), 2.0 + float64(i%7)})
	}
	return t
}

// limitsTable is over seven decades, and has a limit that does not apply.
func limitsTable() *report.Table {
	return &report.Table{
		Command: "doctor", Title: "What this machine allows",
		Columns: []report.Column{
			column("limit", "limit", "%s"), column("now", "now", "%s"),
			column("conns", "connections", "%d"),
		},
		Rows: [][]any{
			{"RLIMIT_NOFILE", "20000", 19_800},
			{"net.ipv4.ip_local_port_range, for each address that the load comes from", "32768 60999", 28_232},
			{"fs.file-max", "9223372036854775807", 1_000_000_000},
			{"net.core.somaxconn", "128", 128},
			{"cgroup memory.max", "unlimited", nil},
		},
		Charts: []report.Chart{{
			Kind: report.Bars, Title: "Connections that each limit allows", X: []string{"limit"},
			Y: []string{"conns"}, LogY: true,
		}},
	}
}

// latencyTable has percentiles, two of them in the chart only.
func latencyTable() *report.Table {
	t := &report.Table{
		Command: "latency", Title: "Delivery latency in one room at a fixed rate",
		Columns: []report.Column{
			column("rate", "publishes/s", "%.1f"), column("p50_ms", "p50 ms", "%.1f"), column("p90_ms", "", "%.1f"),
			column("p99_ms", "p99 ms", "%.1f"), column("p999_ms", "p99.9 ms", "%.1f"), column("p9999_ms", "", "%.1f"),
		},
		Charts: []report.Chart{{
			Kind: report.Percentiles, Title: "Publish to delivery", X: []string{"rate"}, Axis: "ms",
			Y: []string{"p50_ms", "p90_ms", "p99_ms", "p999_ms", "p9999_ms"},
		}},
	}
	for i := range 4 {
		f := float64(i + 1)
		t.Rows = append(t.Rows, []any{4 * f, 12 * f, 20 * f, 31 * f, 64 * f, 130 * f})
	}
	return t
}

// simTable is for both axes logarithmic.
func simTable() *report.Table {
	t := &report.Table{
		Command: "sim", Title: "Connections without sockets",
		Columns: []report.Column{
			column("conns", "connections", "%d"), column("heap", "heap B/connection", "%.0f"),
			column("fanout", "fan-out ns", "%.0f"), column("join", "join ns", "%.0f"),
		},
		Charts: []report.Chart{
			{
				Kind: report.Lines, Title: "Cost at scale", X: []string{"conns"}, Y: []string{"fanout", "join"}, Axis: "ns",
				LogX: true, LogY: true,
			},
			{Kind: report.Lines, Title: "Memory at scale", X: []string{"conns"}, Y: []string{"heap"}, LogX: true},
		},
	}
	for i, n := range []int{10_000, 30_000, 100_000, 300_000, 1_000_000} {
		t.Rows = append(t.Rows, []any{n, 640 - i*3, 41 + i*17, 300 + i*i*80})
	}
	return t
}

// stormTable is a curve of many points.
func stormTable() *report.Table {
	t := &report.Table{
		Command: "storm", Title: "Mass connect",
		Columns: []report.Column{column("ms", "time ms", "%d"), column("open", "connections", "%d")},
		Charts:  []report.Chart{{Kind: report.Lines, Title: "Connections open", X: []string{"ms"}, Y: []string{"open"}}},
	}
	for i := range 120 {
		t.Rows = append(t.Rows, []any{i * 25, min(15_000, i*i*2)})
	}
	return t
}

func document(tables ...*report.Table) *report.Document {
	return &report.Document{
		CommandLine: "bench all -json", Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Tables: tables,
		Machine: report.Machine{
			CPU: "Some CPU @ 2.00GHz", CPUs: 2, Kernel: "6.1.0", Go: "go1.26.0 amd64", GOMAXPROCS: 2, Server: 2,
			Commit: "0123456789ab",
			Load:   "0.10", Modules: map[string]string{
				"github.com/gobwas/ws":         "v1.5.0",
				"github.com/panjf2000/gnet/v2": "v2.10.0",
			},
		},
	}
}
