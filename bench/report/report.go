// Package report holds the results of the bench commands in a neutral form:
// it reads and writes them as JSON, and writes them for people as Markdown and
// as one HTML file with charts.
package report

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// Document holds the results of one command line.
type Document struct {
	CommandLine string    `json:"command_line"`
	Started     time.Time `json:"started"`
	Machine     Machine   `json:"machine"`
	Tables      []*Table  `json:"results"`
}

// Table is one result. In JSON its rows are objects; charts and columns stand
// beside them, so that a report can be made of the JSON alone.
type Table struct {
	Command, Title string
	Columns        []Column
	Rows           [][]any  // numbers, strings, or nil
	Notes          []string // lines of text below the rows
	Charts         []Chart
	ChartsOnly     bool // the rows are a series that nobody reads
}

// Column is one column: its key in JSON, its heading with the unit, and its
// format, one verb. A column without a heading is for charts and programs only.
type Column struct {
	Key     string `json:"key"`
	Heading string `json:"heading"`
	Format  string `json:"format"`
}

// tableJSON is Table in JSON.
type tableJSON struct {
	Command string           `json:"command"`
	Title   string           `json:"title"`
	Columns []Column         `json:"columns"`
	Rows    []map[string]any `json:"rows"`
	Notes   []string         `json:"notes,omitempty"`
	Charts  []Chart          `json:"charts,omitempty"`

	ChartsOnly bool `json:"charts_only,omitempty"`
}

// MarshalJSON writes the rows as objects. A float that JSON cannot hold is null.
func (t *Table) MarshalJSON() ([]byte, error) {
	out := tableJSON{
		t.Command, t.Title, t.Columns, make([]map[string]any, 0, len(t.Rows)), t.Notes, t.Charts,
		t.ChartsOnly,
	}
	for _, cells := range t.Rows {
		row := make(map[string]any, len(cells))
		for i, cell := range cells[:min(len(cells), len(t.Columns))] {
			if v, ok := number(cell); ok && (math.IsNaN(v) || math.IsInf(v, 0)) {
				cell = nil
			}
			row[t.Columns[i].Key] = cell
		}
		out.Rows = append(out.Rows, row)
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads the output of MarshalJSON.
func (t *Table) UnmarshalJSON(b []byte) error {
	var in tableJSON
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	*t = Table{
		Command: in.Command, Title: in.Title, Columns: in.Columns, Notes: in.Notes, Charts: in.Charts,
		ChartsOnly: in.ChartsOnly,
	}
	if len(in.Rows) > 0 && len(in.Columns) == 0 {
		return fmt.Errorf("report: the table %q has rows but no columns", in.Title)
	}
	for _, row := range in.Rows {
		cells := make([]any, len(in.Columns))
		for i, c := range in.Columns {
			cells[i] = row[c.Key]
			if v, ok := cells[i].(float64); ok && c.whole() {
				cells[i] = int64(v)
			}
		}
		t.Rows = append(t.Rows, cells)
	}
	return nil
}

// column returns the index of the column with the key, or -1.
func (t *Table) column(key string) int {
	for i, c := range t.Columns {
		if c.Key == key {
			return i
		}
	}
	return -1
}

// cell returns one cell, or nil where there is none.
func (t *Table) cell(row, column int) any {
	if column < 0 || column >= len(t.Rows[row]) {
		return nil
	}
	return t.Rows[row][column]
}

// value is a cell as a number, or NaN.
func (t *Table) value(row, column int) float64 {
	if v, ok := number(t.cell(row, column)); ok {
		return v
	}
	return math.NaN()
}

// visible are the columns that have a heading.
func (t *Table) visible() []int {
	var columns []int
	for i, c := range t.Columns {
		if c.Heading != "" {
			columns = append(columns, i)
		}
	}
	return columns
}

// numeric reports whether a column has nothing but numbers.
func (t *Table) numeric(column int) bool {
	for row := range t.Rows {
		cell := t.cell(row, column)
		if _, ok := number(cell); !ok && cell != nil {
			return false
		}
	}
	return true
}
