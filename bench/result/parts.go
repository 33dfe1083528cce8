//go:build linux

package result

import (
	"errors"
	"fmt"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// PartsOf prepares the tables of one of several processes for the way to the
// process that merges them.
func PartsOf(tables []*Table) []PartTable {
	var parts []PartTable
	for _, t := range tables {
		pt := PartTable{Command: t.Command, Title: t.Title, Unprinted: t.Unprinted}
		for _, c := range t.Columns {
			pt.Columns = append(pt.Columns, c)
		}
		for _, row := range t.parts {
			cells := make([]partCell, len(row))
			for i, cell := range row {
				cells[i] = partCellOf(cell)
			}
			pt.Rows = append(pt.Rows, cells)
		}
		parts = append(parts, pt)
	}
	return parts
}

// MergeTables makes one of the tables of all processes.
func MergeTables(processes [][]PartTable) ([]*Table, error) {
	var tables []*Table
	for i, pt := range processes[0] {
		t := &Table{
			Command: pt.Command, Title: fmt.Sprintf("%s; %d processes of each kind", pt.Title, len(processes)),
			Unprinted: pt.Unprinted,
		}
		for _, c := range pt.Columns {
			t.Columns = append(t.Columns, Column(c))
		}
		for r, row := range pt.Rows {
			cells := make([]any, len(row))
			for j, cell := range row {
				var others []Cell
				for _, c := range processes[1:] {
					if len(c) <= i || len(c[i].Rows) <= r {
						return nil, errors.New("the processes have different rows")
					}
					if o := c[i].Rows[r][j].Merge; o != nil {
						others = append(others, *o)
					}
				}
				if cell.Merge != nil {
					if err := cell.Merge.merge(others); err != nil {
						return nil, err
					}
				}
				cells[j] = cell.cell()
			}
			t.Add(cells...)
		}
		tables = append(tables, t)
	}
	return tables, nil
}

// partCell is a cell on its way: one that merges, or one that is the same in all
// processes, in its format.
type partCell struct {
	Merge *Cell    `json:",omitempty"`
	Text  string   `json:",omitempty"`
	Whole *int     `json:",omitempty"`
	Float *float64 `json:",omitempty"`
}

// PartTable is a table on its way.
type PartTable struct {
	Command, Title string
	Unprinted      bool
	Columns        [][3]string
	Rows           [][]partCell
}

func partCellOf(cell any) partCell {
	switch v := cell.(type) {
	case Cell:
		if v.How == "quantile" {
			v.Hist, _ = v.hist.h.Encode(hdrhistogram.V2CompressedEncodingCookieBase) // into memory
		}
		return partCell{Merge: &v}
	case int:
		return partCell{Whole: &v}
	case float64:
		return partCell{Float: &v}
	}
	return partCell{Text: fmt.Sprint(cell)}
}

func (c *partCell) cell() any {
	switch {
	case c.Merge != nil:
		return *c.Merge
	case c.Whole != nil:
		return *c.Whole
	case c.Float != nil:
		return *c.Float
	}
	return c.Text
}
