//go:build linux

package attack

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
)

// tables are the results of attack.
type tables struct{ clients, server, attackers *result.Table }

func newTables() *tables {
	name := result.Column{"attack", "attack", "%s"}
	return &tables{
		&result.Table{
			Command: "attack",
			Title: "Attacks: 20 healthy clients that send 20 requests a second each, " +
				"and newcomers that connect beside it",
			Columns: []result.Column{
				name,
				{"path", "path", "%s"},
				{"p50_before_ms", "p50 before, ms", "%.1f"},
				{"p99_before_ms", "p99", "%.1f"},
				{"p50_ms", "during p50", "%.1f"},
				{"p99_ms", "p99", "%.1f"},
				{"p50_after_ms", "after p50", "%.1f"},
				{"p99_after_ms", "p99", "%.1f"},
				{"answered", "answered", "%d"},
				{"lost", "lost", "%d"},
				{"closed", "closed", "%d"},
				{"disordered", "disordered", "%d"},
				{"newcomers", "newcomers", "%d"},
				{"newcomer_p50_ms", "p50 ms", "%.1f"},
				{"newcomer_max_ms", "max", "%.1f"},
				{"refused", "refused", "%d"},
				{"reasons", "why closed or refused", "%s"},
			}, Charts: []result.Chart{{
				Kind: report.Bars, Title: "99th percentile of healthy clients", X: []string{"attack", "path"},
				Y: []string{"p99_before_ms", "p99_ms", "p99_after_ms"}, Axis: "ms", LogY: true,
			}},
		},
		&result.Table{Command: "attack-server", Title: "The attacked server", Columns: []result.Column{
			name,
			{"cores", "processors taken", "%.2f"},
			{"rss_before_mib", "RSS before MiB", "%.1f"},
			{"rss_peak_mib", "peak", "%.1f"},
			{"rss_after_mib", "after", "%.1f"},
			{"heap_before_mib", "heap before MiB", "%.1f"},
			{"heap_peak_mib", "peak", "%.1f"},
			{"heap_after_mib", "after", "%.1f"},
			{"descriptors_before", "descriptors before", "%d"},
			{"descriptors_peak", "peak", "%d"},
			{"descriptors", "after", "%d"},
			{"goroutines_before", "goroutines before", "%d"},
			{"goroutines_peak", "peak", "%d"},
			{"goroutines", "after", "%d"},
			{"log_lines", "lines logged", "%d"},
			{"recovered_ms", "as before after ms", "%.0f"},
		}, Charts: []result.Chart{{
			Kind: report.Bars, X: []string{"attack"}, Y: []string{"rss_peak_mib", "rss_after_mib"}, Axis: "MiB",
		}}},
		&result.Table{Command: "attack-attackers", Title: "The attackers", Columns: []result.Column{
			name,
			{"connects", "connects", "%d"},
			{"sent_mib", "MiB taken of them", "%.1f"},
			{"received_mib", "MiB sent to them", "%.1f"},
			{"answers", "messages", "%d"},
			{"kept", "open at the end", "%d"},
			{"ended", "ended by the server, with", "%s"},
		}},
	}
}

func (t *tables) all() []*result.Table { return []*result.Table{t.clients, t.server, t.attackers} }

// add adds the rows of an attack.
func (t *tables) add(r *attackRun) {
	h, n := r.h, r.n
	reasons := make(map[string]int)
	maps.Copy(reasons, n.refused)
	for why, count := range h.reasons {
		reasons[why] += count
	}
	var answered uint64
	for _, count := range h.answered {
		answered += count
	}
	t.clients.Add(r.name, r.session.Path,
		result.Millis(h.rtt[phaseBefore].Quantile(0.5)), result.Millis(h.rtt[phaseBefore].Quantile(0.99)),
		result.Millis(h.rtt[phaseDuring].Quantile(0.5)), result.Millis(h.rtt[phaseDuring].Quantile(0.99)),
		result.Millis(h.rtt[phaseAfter].Quantile(0.5)), result.Millis(h.rtt[phaseAfter].Quantile(0.99)),
		answered, r.lost, h.ended, h.disordered, n.came,
		result.Millis(n.took[phaseDuring].Quantile(0.5)), result.Millis(n.took[phaseDuring].Max()), n.refusals(),
		counted(reasons))
	elapsed := time.Duration(r.ended.At - r.before.At)
	t.server.Add(r.name, (r.ended.CPU-r.before.CPU).Seconds()/elapsed.Seconds(),
		mebibytes(r.before.RSS), mebibytes(r.after.PeakRSS), mebibytes(r.after.RSS),
		mebibytes(r.before.HeapAlloc), mebibytes(r.peak.HeapAlloc), mebibytes(r.after.HeapAlloc),
		r.before.Descriptors, r.peak.Descriptors, r.after.Descriptors,
		r.before.Goroutines, r.peak.Goroutines, r.after.Goroutines,
		r.after.LogLines, result.Millis(r.recovered))
	t.attackers.Add(r.name, r.tally.Connects, mebibytes(r.tally.Sent), mebibytes(r.tally.Received),
		r.tally.Answers, r.tally.Kept, counted(r.tally.Ended))
}

func mebibytes(n uint64) float64 { return float64(n) / (1 << 20) }

// counted is a list of causes with their counts, the most frequent first.
func counted[N int | uint64](m map[string]N) string {
	causes := slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		if m[a] != m[b] {
			return int(m[b]) - int(m[a])
		}
		return strings.Compare(a, b)
	})
	for i, why := range causes {
		causes[i] = fmt.Sprintf("%d: %s", m[why], why)
	}
	return strings.Join(causes, "; ")
}
