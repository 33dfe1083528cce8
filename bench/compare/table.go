//go:build linux

package compare

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/qi-realtime/ws/bench/contenders"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
)

// columns are the columns that a load's table may have: those whose
// figures its runs have.
var columns = []result.Column{
	{"rss_bytes", "RSS B/conn", "%.0f"},
	{"heap_bytes", "heap B/conn", "%.0f"},
	{"accept_us", "accept µs/conn", "%.1f"},
	{"per_second", "messages/s", "%.0f"},
	{"server_us", "server µs/msg", "%.2f"},
	{"write_calls", "writes/msg", "%.3f"},
	{"p50_us", "p50 µs", "%.0f"},
	{"p99_us", "p99 µs", "%.0f"},
	{"growth_mib", "RSS growth MiB", "%.1f"},
	{"ended", "stalled ended", "%.0f"},
	{"stalled_dropped", "stalled dropped", "%.0f"},
	{"missing", "missing", "%.0f"},
	{"disordered", "disordered", "%.0f"},
	{"dropped", "dropped", "%.0f"},
}

// significant rounds to four digits, for columns of figures of all sizes.
func significant(v float64) float64 {
	rounded, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 4, 64), 64) // of its own making
	return rounded
}

// isFault reports whether a figure counts faults: of these the worst round counts.
// Messages dropped for stalled members are no faults.
func isFault(key string) bool { return key == "missing" || key == "disordered" || key == "dropped" }

// table has a row for each library: medians over the rounds.
func (c *comparison) table() *result.Table {
	first, second := c.load.measures[0], c.load.measures[1]
	t := &result.Table{
		Command: "compare-" + c.load.name,
		Title:   fmt.Sprintf("Compare %s: %s (medians of %d rounds)", c.load.name, c.load.about, len(c.runs[0])),
		Columns: []result.Column{{"library", "library", "%s"}, {"version", "version", "%s"}},
		Charts: []result.Chart{
			{
				Kind: report.Bars, Title: first.name, X: []string{"library"}, Y: []string{first.key}, Min: []string{"min"},
				Max: []string{"max"}, Ratio: "ratio",
			},
			{Kind: report.Bars, Title: second.name, X: []string{"library"}, Y: []string{second.key}},
		},
	}
	var keys []string
	for _, col := range columns {
		if c.has(col.Key()) {
			t.Columns = append(t.Columns, col)
			keys = append(keys, col.Key())
		}
	}
	t.Columns = append(t.Columns,
		result.Column{"min", first.name + " min", "%.10g"}, result.Column{"max", "max", "%.10g"},
		result.Column{"ratio", "ratio to " + contenders.Ours, "%.2f"},
		result.Column{"ratio_" + second.key, second.name + " ratio", "%.2f"},
		result.Column{"status", "status", "%s"})
	for i, lib := range c.libraries {
		row := []any{lib.Name, lib.Version}
		for _, key := range keys {
			row = append(row, c.figure(i, key))
		}
		low, high := c.spread(i, first.key)
		t.Add(append(row, significant(low), significant(high), c.ratio(i, first.key), c.ratio(i, second.key), c.status(i))...)
	}
	return t
}

// has reports whether any run has such a figure.
func (c *comparison) has(key string) bool {
	return slices.ContainsFunc(slices.Concat(c.runs...), func(r *libraryRun) bool {
		_, ok := r.row[key]
		return ok
	})
}

// values are a library's figures of the rounds that it got through.
func (c *comparison) values(library int, key string) []float64 {
	var values []float64
	for _, r := range c.runs[library] {
		if v, ok := r.row[key]; ok {
			values = append(values, v)
		}
	}
	return values
}

// figure is the median, or of faults the most.
func (c *comparison) figure(library int, key string) float64 {
	values := c.values(library, key)
	if len(values) > 0 && isFault(key) {
		return slices.Max(values)
	}
	return result.Median(values)
}

func (c *comparison) spread(library int, key string) (low, high float64) {
	values := c.values(library, key)
	if len(values) == 0 {
		return 0, 0
	}
	return slices.Min(values), slices.Max(values)
}

// ratio is the median of each round's ratio to this library, or 0 if there is
// none.
func (c *comparison) ratio(library int, key string) float64 {
	var ratios []float64
	for round, r := range c.runs[library] {
		if ours := c.runs[0][round]; r.err == nil && ours.err == nil {
			ratios = append(ratios, result.Ratio(r.row[key], ours.row[key]))
		}
	}
	return result.Median(ratios)
}

// status describes the faults.
func (c *comparison) status(library int) string {
	var failed []error
	for _, r := range c.runs[library] {
		if r.err != nil {
			failed = append(failed, r.err)
		}
	}
	var faults []string
	if len(failed) > 0 {
		message, _, _ := strings.Cut(failed[0].Error(), "\n")
		faults = append(faults, fmt.Sprintf("failed in %d of %d rounds: %s", len(failed), len(c.runs[library]), message))
	}
	if n := c.figure(library, "missing"); n > 0 {
		faults = append(faults, fmt.Sprintf("lost %.0f messages", n))
	}
	if n := c.figure(library, "disordered"); n > 0 {
		faults = append(faults, fmt.Sprintf("%.0f out of order", n))
	}
	if len(faults) == 0 {
		return "ok"
	}
	return strings.Join(faults, "; ")
}

func newSummary() *result.Table {
	return &result.Table{
		Command: "compare-summary",
		Title:   "Who is best, of those that did all that a load asked for",
		Columns: []result.Column{
			{"load", "load", "%s"},
			{"measure", "measured", "%s"},
			{"best", "best", "%s"},
			{"best_value", "its value", "%.10g"},
			{"second", "second", "%s"},
			{"second_value", "its value", "%.10g"},
			{"lead", "best is better by", "%.2fx"},
			{"ours", contenders.Ours, "%.10g"},
			{"verdict", "verdict", "%s"},
		},
	}
}

// summarize adds a row for each measure. By how much one is better than another
// is the ratio of the medians, or its inverse where less is better.
func (c *comparison) summarize(t *result.Table) {
	for _, m := range c.load.measures {
		order := c.ranking(m)
		if len(order) == 0 {
			t.Add(c.load.name, m.name, "none", 0.0, "none", 0.0, 0.0, significant(c.figure(0, m.key)),
				contenders.Ours+": "+c.status(0))
			continue
		}
		best, second := order[0], "none"
		var value, lead float64
		if len(order) > 1 {
			second, value = c.libraries[order[1]].Name, c.figure(order[1], m.key)
			lead = c.better(m, best, order[1])
		}
		t.Add(c.load.name, m.name, c.libraries[best].Name, significant(c.figure(best, m.key)),
			second, significant(value), lead,
			significant(c.figure(0, m.key)), c.verdict(m, order))
	}
}

// ranking is the libraries whose status is ok, best first. This one has one place.
func (c *comparison) ranking(m measure) []int {
	var order []int
	for i := range c.libraries {
		if c.status(i) == "ok" && !c.libraries[i].SingleWrites {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := c.figure(a, m.key), c.figure(b, m.key)
		switch {
		case x == y:
			return 0
		case (x < y) != m.more:
			return -1
		}
		return 1
	})
	return order
}

// better is the factor by which a is better than b.
func (c *comparison) better(m measure, a, b int) float64 {
	if m.more {
		return result.Ratio(c.figure(a, m.key), c.figure(b, m.key))
	}
	return result.Ratio(c.figure(b, m.key), c.figure(a, m.key))
}

// verdict describes the place of this library.
func (c *comparison) verdict(m measure, order []int) string {
	place := slices.Index(order, 0)
	switch {
	case place < 0:
		return contenders.Ours + ": " + c.status(0)
	case place > 0:
		return fmt.Sprintf("%s is number %d of %d: %s is %.2fx better", contenders.Ours, place+1, len(order),
			c.libraries[order[0]].Name, c.better(m, order[0], 0))
	}
	return contenders.Ours + " is best"
}
