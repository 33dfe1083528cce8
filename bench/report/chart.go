package report

import (
	"fmt"
	"math"
	"strings"
)

// The kinds of charts.
const (
	// Bars are horizontal: one for each row and column of Y.
	Bars = "bars"
	// Lines run over the column X[0], one for each value of Series and column of Y.
	Lines = "lines"
	// Percentiles are curves of one row each, over columns such as p50_ms,
	// p99_ms and p9999_ms: the digits are the percentile, two of them before
	// the point.
	Percentiles = "percentiles"
)

// Chart says how to draw a table. It names columns by their keys.
type Chart struct {
	Kind  string   `json:"kind"`
	Title string   `json:"title"`
	X     []string `json:"x,omitempty"` // Lines: the x axis; else the columns that name a row, as far as they differ
	Y     []string `json:"y"`
	// Axis is the unit that all of Y share, and so one axis; without it each is
	// drawn on its own, under its heading.
	Axis   string `json:"axis,omitempty"`
	Series string `json:"series,omitempty"` // has a color for each value
	LogX   bool   `json:"log_x,omitempty"`
	LogY   bool   `json:"log_y,omitempty"` // the axis of the values, of bars too
	// Min and Max are the ends of a bar's spread, for each of Y.
	Min []string `json:"min,omitempty"`
	Max []string `json:"max,omitempty"`
	// Ratio is written behind a bar, as in ×0.45.
	Ratio string `json:"ratio,omitempty"`
	// Fit adds the least-squares line to each line.
	Fit bool `json:"fit,omitempty"`
}

// drawing is one SVG picture.
type drawing struct {
	Title, Desc   string
	Width, Height float64
	Lines         []stroke // behind all
	Whiskers      []stroke // before the bars
	Rects         []rect
	Paths         []path
	Texts         []label
}

type (
	stroke struct {
		Class          string
		X1, Y1, X2, Y2 float64
	}
	rect struct {
		Class, Title        string
		X, Y, Width, Height float64
	}
	path struct{ Class, Title, D string }
	// label is text whose full form is in Title.
	label struct {
		Class, Text, Title string
		X, Y               float64
	}
)

// key is an entry of the legend.
type key struct{ Class, Mark, Name string }

// figure is a chart as it is shown: its pictures, drawn for each width.
type figure struct {
	Title, Caption string
	Legend         []key
	Wide, Narrow   []*drawing
}

// The widths that pictures are drawn for: a picture that is scaled has text
// that is too small on a phone.
const (
	wideWidth   = 760
	halfWidth   = 520 // of pictures that stand beside another
	narrowWidth = 360
)

// draw makes the pictures of a chart. Columns that do not exist are left out.
func (t *Table) draw(c *Chart) *figure {
	f := &figure{Title: c.Title}
	known := *c
	known.Y, known.Min, known.Max = nil, nil, nil
	for i, y := range c.Y {
		if t.column(y) >= 0 {
			known.Y = append(known.Y, y)
			known.Min, known.Max = append(known.Min, at(c.Min, i)), append(known.Max, at(c.Max, i))
		}
	}
	if len(known.Y) == 0 || len(t.Rows) == 0 {
		return nil
	}
	switch c.Kind {
	case Bars:
		t.drawBars(&known, f)
	case Lines, Percentiles:
		t.drawLines(&known, f)
	default:
		return nil
	}
	return f
}

// at is a key, or empty where there is none.
func at(keys []string, i int) string {
	if i < len(keys) {
		return keys[i]
	}
	return ""
}

// names names each row by the columns that differ between rows, and returns
// the values that all rows share.
func (t *Table) names(keys []string) (names []string, common string) {
	var same []string
	parts := make([][]string, len(t.Rows))
	for _, key := range keys {
		column := t.column(key)
		if column < 0 {
			continue
		}
		if t.constant(column) {
			same = append(same, t.part(0, column))
			continue
		}
		for row := range t.Rows {
			parts[row] = append(parts[row], t.part(row, column))
		}
	}
	for _, p := range parts {
		names = append(names, strings.Join(p, ", "))
	}
	return names, strings.Join(same, ", ")
}

// constant reports whether a column has one value in all rows.
func (t *Table) constant(column int) bool {
	for row := range t.Rows {
		if column < 0 || t.part(row, column) != t.part(0, column) {
			return false
		}
	}
	return true
}

// part is a cell with its heading, as in "64 outstanding".
func (t *Table) part(row, column int) string {
	cell := t.cell(row, column)
	text := t.Columns[column].Text(cell)
	if _, ok := number(cell); ok {
		return text + " " + t.Columns[column].Heading
	}
	return text
}

// unique numbers the names that occur more than once.
func unique(names []string) []string {
	total, seen := map[string]int{}, map[string]int{}
	for _, name := range names {
		total[name]++
	}
	out := make([]string, 0, len(names))
	for _, name := range names {
		if seen[name]++; total[name] > 1 {
			name = strings.TrimSpace(fmt.Sprintf("%s #%d", name, seen[name]))
		}
		out = append(out, name)
	}
	return out
}

// palette is how many colors there are, and marks how many shapes: lines are
// distinguished by both.
const palette = 7

func color(series int) string { return fmt.Sprintf("c%d", series%palette) }

// mark is the shape of a series' points, around a point.
func mark(series int, x, y float64) string {
	const r = 4
	switch series % 5 {
	case 0:
		return fmt.Sprintf("M%.1f %.1fa%d %d 0 1 0 %d 0a%d %d 0 1 0 %d 0z", x-r, y, r, r, 2*r, r, r, -2*r)
	case 1:
		return fmt.Sprintf("M%.1f %.1fh%dv%dh%dz", x-3.5, y-3.5, 7, 7, -7)
	case 2:
		return fmt.Sprintf("M%.1f %.1fl%.1f %.1fh%.1fz", x, y-4.6, 4.6, 8.2, -9.2)
	case 3:
		return fmt.Sprintf("M%.1f %.1fl5 5l-5 5l-5 -5z", x, y-5)
	}
	return fmt.Sprintf("M%.1f %.1fh9.2l-4.6 8.2z", x-4.6, y-3.6)
}

// finite reports whether v can be drawn.
func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
