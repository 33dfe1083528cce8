//go:build linux

package soak

import (
	"time"

	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
)

func newHealthyTable() *result.Table {
	return &result.Table{
		Command: "soak", Title: "Soak: healthy clients beside churn, storms, attacks, stalls and drains",
		Columns: []result.Column{
			{"seconds", "seconds", "%.0f"},
			{"cycles", "cycles", "%d"},
			{"clients", "healthy clients", "%d"},
			{"crowd", "others", "%d"},
			{"messages", "messages received", "%d"},
			{"spoken", "spoken", "%d"},
			{"moves", "changes of room", "%d"},
			{"reconnects", "reconnects", "%d"},
			{"requests", "requests", "%d"},
			{"p50_ms", "p50 ms", "%.1f"},
			{"p99_ms", "p99 ms", "%.1f"},
			{"max_ms", "max ms", "%.1f"},
			{"missing", "missing", "%d"},
			{"disordered", "disordered", "%d"},
			{"lost", "unanswered", "%d"},
			{"closed", "closed", "%d"},
			{"churned", "others came or went", "%d"},
			{"storms", "storms", "%d"},
			{"refused", "refused", "%d"},
			{"attackers", "connects of attackers", "%d"},
			{"drains", "drains", "%d"},
			{"dropped", "dropped for others", "%d"},
		},
	}
}

func (r *run) addHealthy(t *result.Table, missing, disordered, messages uint64) {
	n := &r.counts
	var spoken, moved, reconnected uint64
	for _, group := range r.chats {
		c := group.Counts()
		spoken, moved, reconnected = spoken+c.Sent, moved+c.Moved, reconnected+c.Reconnected
	}
	t.Add(time.Since(r.began).Seconds(), len(r.cycles), r.healthy, r.conns, messages, spoken, moved, reconnected,
		n.requests, result.Millis(n.rtt.Quantile(0.5)), result.Millis(n.rtt.Quantile(0.99)), result.Millis(n.rtt.Max()),
		missing, disordered, n.lost, n.stuck+uint64(n.closed), n.churned, n.storms, n.refused, n.attackers, n.drains,
		n.dropped)
}

// readersTable is the table of the clients of package client.
func (r *run) readersTable(n *readCounts) *result.Table {
	t := &result.Table{
		Command: "soak-readers", Title: "Soak: clients of package client in a room with a history",
		Columns: []result.Column{
			{"clients", "clients", "%d"},
			{"messages", "messages", "%d"},
			{"reconnects", "reconnects", "%d"},
			{"epochs", "new epochs", "%d"},
			{"gaps", "gaps", "%d"},
			{"named", "named in gaps", "%d"},
			{"missing", "missing", "%d"},
			{"disordered", "disordered", "%d"},
			{"closed", "closed", "%d"},
			{"absence_ms", "longest from loss to next message or gap, ms", "%.0f"},
		},
	}
	t.Add(len(r.read), n.messages, n.reconnects, n.epochs, n.gaps, n.named, n.missing, n.disordered, n.closed,
		result.Millis(n.absence))
	return t
}

func newCyclesTable() *result.Table {
	return &result.Table{
		Command: "soak-cycles",
		Title:   "The server at the end of each cycle, after garbage collection, with the healthy clients alone",
		Columns: []result.Column{
			{"cycle", "cycle", "%d"},
			{"part", "part", "%s"},
			{"path", "path", "%s"},
			{"attack", "attack", "%s"},
			{"storm_ms", "storm ms", "%.0f"},
			{"drain_ms", "drain ms", "%.0f"},
			{"p99_ms", "p99 of requests ms", "%.1f"},
			{"clients", "clients", "%d"},
			{"goroutines", "goroutines", "%d"},
			{"descriptors", "descriptors", "%d"},
			{"heap_mib", "heap MiB", "%.2f"},
			{"rss_mib", "RSS MiB", "%.1f"},
		}, Charts: []result.Chart{{
			Kind: report.Lines, Title: "At the end of each cycle", X: []string{"cycle"},
			Y: []string{"goroutines", "descriptors", "heap_mib", "rss_mib"}, Series: "part",
		}},
	}
}

func (r *run) addCycles(t *result.Table) {
	for i := range r.cycles {
		c := &r.cycles[i]
		t.Add(c.index+1, c.part, c.path, c.attack, result.Millis(c.storm), result.Millis(c.drain), result.Millis(c.p99),
			c.rest.Clients, goroutines(c.rest), c.rest.Descriptors, mebibytes(c.rest.HeapAlloc), mebibytes(c.rest.RSS))
	}
}

func newVerdictTable() *result.Table {
	return &result.Table{
		Command: "soak-verdict",
		Title:   "Growth: the median of the last third of the cycles against the first third, behind a quarter to warm up",
		Columns: []result.Column{
			{"part", "part", "%s"},
			{"resource", "resource", "%s"},
			{"cycles", "cycles", "%d"},
			{"first", "first third", "%.1f"},
			{"last", "last third", "%.1f"},
			{"growth", "growth", "%.1f"},
			{"each", "for each cycle", "%.3f"},
			{"allowed", "allowed", "%.1f"},
			{"flat", "flat", "%s"},
		},
	}
}

// series is the table of the samples.
func (r *run) series() *result.Table {
	t := &result.Table{
		Command: "soak-series", Title: "The server over time", Unprinted: true,
		Columns: []result.Column{
			{"at_s", "s", "%.1f"},
			{"clients", "clients", "%d"},
			{"goroutines", "goroutines", "%d"},
			{"descriptors", "descriptors", "%d"},
			{"heap_mib", "heap MiB", "%.2f"},
			{"rss_mib", "RSS MiB", "%.1f"},
			{"cpu_s", "CPU s", "%.1f"},
		}, Charts: []result.Chart{{
			Kind: report.Lines, Title: "The server over time", X: []string{"at_s"},
			Y: []string{"clients", "goroutines", "descriptors", "heap_mib", "rss_mib"},
		}},
	}
	for i := range r.samples {
		s := &r.samples[i]
		t.Add(float64(s.At-r.samples[0].At)/1e9, s.Clients, s.Goroutines, s.Descriptors, mebibytes(s.HeapAlloc),
			mebibytes(s.RSS), s.CPU.Seconds())
	}
	return t
}
