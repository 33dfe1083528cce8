package report

import (
	"fmt"
	"math"
	"slices"
)

// bar is one bar: NaN where there is no value.
type bar struct {
	group, name     string
	series          int
	value, min, max float64
	text            string // written behind it
}

const (
	barHeight  = 16
	barStep    = 22
	nameHeight = 16 // of a name above its bar
	groupStep  = 26
)

// drawBars draws one picture for each column, or one for all if they share an
// axis.
func (t *Table) drawBars(c *Chart, f *figure) {
	if t.constant(t.column(c.Series)) { // one color adds nothing
		c.X, c.Series = append(slices.Clone(c.X), c.Series), ""
	}
	groups, common := t.names(c.X)
	f.Caption = common
	shared := c.Axis != "" && len(c.Y) > 1
	if !shared && c.Series == "" {
		groups = unique(groups)
	}
	panels := [][]int{}
	for i := range c.Y {
		if shared && i > 0 {
			panels[0] = append(panels[0], i)
			continue
		}
		panels = append(panels, []int{i})
	}
	width := float64(halfWidth)
	if len(panels) == 1 {
		width = wideWidth
	}
	for _, panel := range panels {
		bars := t.bars(c, panel, groups)
		heading := c.Axis
		if heading == "" {
			heading = t.Columns[t.column(c.Y[panel[0]])].Heading
		}
		f.Wide = append(f.Wide, drawPanel(bars, f.Title, heading, c.LogY, width))
		f.Narrow = append(f.Narrow, drawPanel(bars, f.Title, heading, c.LogY, narrowWidth))
	}
}

// bars collects the bars of one picture, group by group.
func (t *Table) bars(c *Chart, panel []int, groups []string) []bar {
	var bars []bar
	var order []string
	seriesNames := []string{}
	series := t.column(c.Series)
	for row := range t.Rows {
		if !slices.Contains(order, groups[row]) {
			order = append(order, groups[row])
		}
		for n, i := range panel {
			column := t.column(c.Y[i])
			b := bar{
				group: groups[row], value: t.value(row, column),
				min: t.value(row, t.column(c.Min[i])), max: t.value(row, t.column(c.Max[i])),
				text: t.Columns[column].Text(t.cell(row, column)),
			}
			if r := t.value(row, t.column(c.Ratio)); finite(r) {
				b.text += fmt.Sprintf("  ×%.2f", r)
			}
			heading := t.Columns[column].Heading
			switch {
			case series < 0 && len(panel) == 1:
				b.name, b.group = b.group, ""
			case series < 0:
				b.name, b.series = heading, n
			default:
				b.name = t.part(row, series)
				if len(panel) > 1 {
					b.name += ", " + heading
				}
				if !slices.Contains(seriesNames, b.name) {
					seriesNames = append(seriesNames, b.name)
				}
				b.series = slices.Index(seriesNames, b.name)
			}
			bars = append(bars, b)
		}
	}
	slices.SortStableFunc(bars, func(a, b bar) int {
		return slices.Index(order, a.group) - slices.Index(order, b.group)
	})
	for from := 0; from < len(bars); { // a group's names, if there are several rounds
		to := from
		var names []string
		for ; to < len(bars) && bars[to].group == bars[from].group; to++ {
			names = append(names, bars[to].name)
		}
		for i, name := range unique(names) {
			bars[from+i].name = name
		}
		from = to
	}
	return bars
}

// drawPanel draws bars under a heading. Names stand before the bars, or above
// them if they are long.
func drawPanel(bars []bar, title, heading string, log bool, width float64) *drawing {
	d := &drawing{Width: width, Title: fmt.Sprintf("%s: %s", title, heading), Desc: describe(bars, heading)}
	var values []float64
	nameWidth, textWidest := 0.0, 0.0
	for _, b := range bars {
		values = append(values, b.value, b.min, b.max)
		nameWidth, textWidest = max(nameWidth, textWidth(b.name)+10), max(textWidest, textWidth(b.text)+10)
	}
	above := nameWidth > width*0.36
	if above {
		nameWidth = 6
	}
	textWidest = min(textWidest, width*0.45)
	plot := width - nameWidth - textWidest
	s := newScale(values, log, true, int(plot/64))
	s.from, s.to = nameWidth, nameWidth+plot
	if log { // the shortest bar is seen, too
		s.lo /= 2
	}
	d.Texts = append(d.Texts, label{Class: "head", Text: fit(heading, width), X: 0, Y: 14})
	y, group := 26.0, ""
	for _, b := range bars {
		if b.group != group {
			group = b.group
			d.Texts = append(d.Texts, label{Class: "group", Text: fit(group, width*0.95), Title: group, X: 0, Y: y + 18})
			y += groupStep
		}
		if above {
			d.Texts = append(d.Texts, label{Text: fit(b.name, width-8), Title: b.name, X: nameWidth + 2, Y: y + 11})
			y += nameHeight
		} else {
			d.Texts = append(d.Texts, label{Class: "end", Text: b.name, X: nameWidth - 6, Y: y + 12})
		}
		d.bar(&b, s, y)
		y += barStep
	}
	for _, tick := range s.ticks {
		x := s.at(tick)
		d.Lines = append(d.Lines, stroke{"grid", x, 24, x, y})
		class := "mid tick"
		if x < textWidth(short(tick))/2 {
			class = "tick" // it would begin outside
		}
		d.Texts = append(d.Texts, label{Class: class, Text: short(tick), X: x, Y: y + 14})
	}
	if s.at(s.lo) == s.from {
		d.Lines = append(d.Lines, stroke{"axis", s.from, 24, s.from, y})
	}
	d.Height = y + 20
	return d
}

// bar draws one bar with its spread and its value.
func (d *drawing) bar(b *bar, s *scale, y float64) {
	zero := s.at(0)
	if s.log {
		zero = s.from
	}
	end := zero
	if finite(b.value) {
		end = s.at(b.value)
		d.Rects = append(d.Rects, rect{
			Class: color(b.series), Title: fmt.Sprintf("%s: %s", b.name, b.text),
			X: min(zero, end), Y: y, Width: math.Abs(end - zero), Height: barHeight,
		})
	}
	textAt := max(zero, end)
	if finite(b.min) && finite(b.max) {
		from, to, middle := s.at(b.min), s.at(b.max), y+barHeight/2.0
		d.Whiskers = append(d.Whiskers, stroke{"spread", from, middle, to, middle},
			stroke{"spread", from, middle - 4, from, middle + 4}, stroke{"spread", to, middle - 4, to, middle + 4})
		textAt = max(textAt, to)
	}
	text := fit(b.text, d.Width-textAt-4)
	d.Texts = append(d.Texts, label{Class: "value", Text: text, Title: b.text, X: textAt + 6, Y: y + 12})
}

// describe describes the bars in words.
func describe(bars []bar, heading string) string {
	low, high := -1, -1
	for i, b := range bars {
		if !finite(b.value) {
			continue
		}
		if low < 0 || b.value < bars[low].value {
			low = i
		}
		if high < 0 || b.value > bars[high].value {
			high = i
		}
	}
	if low < 0 {
		return "There are no values."
	}
	say := func(b *bar) string {
		name := b.name
		if b.group != "" {
			name = b.group + ", " + name
		}
		if name == "" {
			return b.text
		}
		return b.text + " (" + name + ")"
	}
	if low == high {
		return fmt.Sprintf("One bar: %s %s.", heading, say(&bars[low]))
	}
	return fmt.Sprintf("%d bars: %s from %s to %s.", len(bars), heading, say(&bars[low]), say(&bars[high]))
}
