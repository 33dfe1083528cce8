//go:build linux

package result

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/qi-realtime/ws/bench/report"
)

// Table is a command's result, for people and for programs.
type Table struct {
	Command, Title string
	Columns        []Column
	Rows           [][]any
	Notes          []string // lines of text below the rows
	Unprinted      bool     // a series, for charts and programs only
	Charts         []Chart  // how HTML shows the columns
	parts          [][]any  // the rows as they were added, see -procs
}

// Chart names columns by their keys.
type Chart = report.Chart

// Column is one column: its key in JSON, its heading in text, and its format. A
// column without a heading is in JSON and charts only.
type Column [3]string

// Key returns the name of the column in JSON.
func (c Column) Key() string     { return c[0] }
func (c Column) heading() string { return c[1] }
func (c Column) format() string  { return c[2] }

// Add adds a row. Cells may be mergeable; then their values are shown.
func (t *Table) Add(cells ...any) {
	t.parts = append(t.parts, cells)
	row := slices.Clone(cells)
	for i, cell := range cells {
		if m, ok := cell.(Cell); ok {
			row[i] = m.value()
		}
	}
	t.Rows = append(t.Rows, row)
}

// Last returns the numbers of the last row by their keys; milliseconds also as
// microseconds.
func (t *Table) Last() map[string]float64 {
	row := make(map[string]float64)
	for i, cell := range t.Rows[len(t.Rows)-1] {
		key := t.Columns[i].Key()
		switch v := cell.(type) {
		case float64:
			row[key] = v
		case int:
			row[key] = float64(v)
		case int64:
			row[key] = float64(v)
		case uint64:
			row[key] = float64(v)
		}
		if name, ok := strings.CutSuffix(key, "_ms"); ok {
			row[name+"_us"] = row[key] * 1000
		}
	}
	return row
}

// Write prints the table, aligned to the right.
func (t *Table) Write(w io.Writer) {
	if t.Unprinted {
		return
	}
	fmt.Fprintf(w, "\n%s\n", t.Title)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, c := range t.Columns {
		if c.heading() != "" {
			fmt.Fprintf(tw, "%s\t", c.heading())
		}
	}
	fmt.Fprintln(tw)
	for _, row := range t.Rows {
		for i, cell := range row {
			switch c := t.Columns[i]; {
			case c.heading() == "":
			case cell == nil:
				fmt.Fprint(tw, "-\t")
			default:
				fmt.Fprintf(tw, c.format()+"\t", cell)
			}
		}
		fmt.Fprintln(tw)
	}
	_ = tw.Flush()
	if len(t.Notes) > 0 {
		fmt.Fprintln(w)
	}
	for _, note := range t.Notes {
		fmt.Fprintln(w, note)
	}
}

// Export returns the table in the form of the report package.
func (t *Table) Export() *report.Table {
	r := &report.Table{
		Command: t.Command, Title: t.Title, Notes: t.Notes, Rows: t.Rows, Charts: t.Charts,
		ChartsOnly: t.Unprinted,
	}
	for _, c := range t.Columns {
		r.Columns = append(r.Columns, report.Column{Key: c.Key(), Heading: c.heading(), Format: c.format()})
	}
	return r
}

// Imported is the reverse of export.
func Imported(r *report.Table) *Table {
	t := &Table{
		Command: r.Command, Title: r.Title, Notes: r.Notes, Rows: r.Rows, Charts: r.Charts,
		Unprinted: r.ChartsOnly,
	}
	for _, c := range r.Columns {
		t.Columns = append(t.Columns, Column{c.Key, c.Heading, c.Format})
	}
	return t
}
