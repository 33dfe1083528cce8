package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// point is one point of a curve, with its words.
type point struct {
	x, y float64
	text string
}

// curve is one line of a chart.
type curve struct {
	name   string
	points []point // by x
}

// manyPoints is how many points a line has before they are not marked.
const manyPoints = 40

// drawLines draws one picture for each column, or one for all if they share an
// axis.
func (t *Table) drawLines(c *Chart, f *figure) {
	var panels [][]string
	if c.Axis != "" || c.Kind == Percentiles {
		panels = [][]string{c.Y}
	} else {
		for _, y := range c.Y {
			panels = append(panels, []string{y})
		}
	}
	width := float64(halfWidth)
	if len(panels) == 1 {
		width = wideWidth
	}
	for _, columns := range panels {
		p := &plot{chart: c, title: c.Title, y: c.Axis, fit: c.Fit}
		if p.y == "" {
			p.y = t.Columns[t.column(columns[0])].Heading
		}
		if c.Kind == Percentiles {
			p.x = "percentile"
			p.curves, f.Caption = t.percentileCurves(c)
		} else if x := t.column(at(c.X, 0)); x >= 0 {
			p.x = t.Columns[x].Heading
			p.curves = t.curves(c, x, columns)
		}
		if f.Legend == nil && p.needsLegend() {
			f.Legend = p.legend(len(panels) == 1)
		}
		f.Wide = append(f.Wide, p.draw(width))
		f.Narrow = append(f.Narrow, p.draw(narrowWidth))
	}
}

// curves collects a line for each series and column.
func (t *Table) curves(c *Chart, x int, columns []string) []curve {
	var out []curve
	index := map[string]int{}
	series := t.column(c.Series)
	for row := range t.Rows {
		for _, y := range columns {
			column := t.column(y)
			name := t.Columns[column].Heading
			if series >= 0 {
				name = t.part(row, series)
				if len(columns) > 1 {
					name += ", " + t.Columns[column].Heading
				}
			}
			i, ok := index[name]
			if !ok {
				i = len(out)
				index[name] = i
				out = append(out, curve{name: name})
			}
			text := fmt.Sprintf("%s: %s at %s", name, t.Columns[column].Text(t.cell(row, column)), t.part(row, x))
			out[i].add(point{t.value(row, x), t.value(row, column), text}, c.LogX, c.LogY)
		}
	}
	for _, line := range out {
		slices.SortStableFunc(line.points, func(a, b point) int { return cmp.Compare(a.x, b.x) })
	}
	return out
}

// percentileCurves makes a curve of each row.
func (t *Table) percentileCurves(c *Chart) (curves []curve, common string) {
	keys := c.X
	if c.Series != "" {
		keys = append(slices.Clone(keys), c.Series)
	}
	names, common := t.names(keys)
	for row, name := range unique(names) {
		line := curve{name: name}
		for _, y := range c.Y {
			q := percentile(y)
			column := t.column(y)
			text := fmt.Sprintf("%s %s: %s %s", name, percent(q), t.Columns[column].Text(t.cell(row, column)), c.Axis)
			line.add(point{q, t.value(row, column), strings.TrimSpace(text)}, false, c.LogY)
		}
		slices.SortStableFunc(line.points, func(a, b point) int { return cmp.Compare(a.x, b.x) })
		curves = append(curves, line)
	}
	return curves, common
}

// percentile reads the percentile of a key such as p50_ms or p9999_ms; NaN if
// there is none below 100.
func percentile(key string) float64 {
	digits, _, _ := strings.Cut(strings.TrimPrefix(key, "p"), "_")
	if len(digits) > 2 {
		digits = digits[:2] + "." + digits[2:]
	}
	q, err := strconv.ParseFloat(digits, 64)
	if err != nil || q <= 0 || q >= 100 {
		return math.NaN()
	}
	return q
}

func percent(q float64) string { return strconv.FormatFloat(q, 'f', -1, 64) + "%" }

// add adds a point if it can be drawn.
func (c *curve) add(p point, logX, logY bool) {
	if !finite(p.x) || !finite(p.y) || (logX && p.x <= 0) || (logY && p.y <= 0) {
		return
	}
	c.points = append(c.points, p)
}

// slope is the least-squares line: y = a + b x.
func (c *curve) slope() (a, b float64) {
	var mx, my, xy, xx float64
	n := float64(len(c.points))
	for _, p := range c.points {
		mx, my = mx+p.x/n, my+p.y/n
	}
	for _, p := range c.points {
		xy, xx = xy+(p.x-mx)*(p.y-my), xx+(p.x-mx)*(p.x-mx)
	}
	if xx == 0 {
		return my, 0
	}
	return my - xy/xx*mx, xy / xx
}

// plot is a picture of lines.
type plot struct {
	chart       *Chart
	title, x, y string
	curves      []curve
	fit         bool
}

// fits reports whether the curve gets a least-squares line.
func (p *plot) fits(c *curve) bool {
	return p.fit && len(c.points) > 1 && !p.chart.LogX && !p.chart.LogY
}

// needsLegend reports whether the headings do not say it all.
func (p *plot) needsLegend() bool {
	return len(p.curves) > 1 || (len(p.curves) == 1 && (p.curves[0].name != p.y || p.fits(&p.curves[0])))
}

// legend names the curves, with the slopes of a picture that stands alone.
func (p *plot) legend(slopes bool) []key {
	var keys []key
	for i, c := range p.curves {
		name := c.name
		if slopes && p.fits(&c) {
			_, b := c.slope()
			name += fmt.Sprintf(" (slope %s)", strconv.FormatFloat(b, 'g', 3, 64))
		}
		keys = append(keys, key{Class: color(i), Mark: mark(i, 14, 8), Name: name})
	}
	return keys
}

// scales makes both axes.
func (p *plot) scales(width, height float64) (x, y *scale, left float64) {
	var xs, ys []float64
	for _, c := range p.curves {
		for _, pt := range c.points {
			xs, ys = append(xs, pt.x), append(ys, pt.y)
		}
	}
	y = newScale(ys, p.chart.LogY, true, int(height/48))
	for _, tick := range y.ticks {
		left = max(left, textWidth(short(tick))+10)
	}
	y.from, y.to = height, 26
	if p.chart.Kind == Percentiles {
		x = percentileScale(xs)
	} else {
		x = newScale(xs, p.chart.LogX, false, int((width-left)/64))
	}
	x.from, x.to = left, width-24
	return x, y, left
}

// percentileScale has the logarithm of the share above the percentile.
func percentileScale(percentiles []float64) *scale {
	s := &scale{lo: 1 / above(50), hi: 1 / above(99), log: true}
	for _, q := range percentiles {
		s.lo, s.hi = min(s.lo, 1/above(q)), max(s.hi, 1/above(q))
	}
	for _, q := range []float64{50, 90, 99, 99.9, 99.99, 99.999} {
		if v := 1 / above(q); v >= s.lo*0.999 && v <= s.hi*1.001 {
			s.ticks = append(s.ticks, v)
		}
	}
	return s
}

// above is the share above the percentile.
func above(q float64) float64 { return 1 - q/100 }

// place is where a point's x is.
func (p *plot) place(x *scale, v float64) float64 {
	if p.chart.Kind == Percentiles {
		v = 1 / above(v)
	}
	return x.at(v)
}

// draw draws it all.
func (p *plot) draw(width float64) *drawing {
	height := max(200, min(340, width*0.5))
	d := &drawing{
		Width: width, Height: height + 44, Title: fmt.Sprintf("%s: %s over %s", p.title, p.y, p.x),
		Desc: p.describe(),
	}
	x, y, left := p.scales(width, height)
	d.Texts = append(d.Texts, label{Class: "head", Text: fit(p.y, width), X: 0, Y: 13})
	for _, tick := range y.ticks {
		d.Lines = append(d.Lines, stroke{"grid", left, y.at(tick), width - 24, y.at(tick)})
		d.Texts = append(d.Texts, label{Class: "end tick", Text: short(tick), X: left - 6, Y: y.at(tick) + 4})
	}
	for _, tick := range x.ticks {
		text := short(tick)
		if p.chart.Kind == Percentiles {
			text = percent(math.Round((100-100/tick)*1e6) / 1e6)
		}
		d.Lines = append(d.Lines, stroke{"grid", x.at(tick), 26, x.at(tick), height})
		d.Texts = append(d.Texts, label{Class: "mid tick", Text: text, X: x.at(tick), Y: height + 17})
	}
	d.Lines = append(d.Lines, stroke{"axis", left, height, width - 24, height})
	d.Texts = append(d.Texts, label{Class: "end head", Text: fit(p.x, width-left), X: width - 24, Y: height + 36})
	for i, c := range p.curves {
		p.drawCurve(d, i, &c, x, y)
	}
	return d
}

func (p *plot) drawCurve(d *drawing, series int, c *curve, x, y *scale) {
	if p.fits(c) {
		a, b := c.slope()
		first, last := c.points[0].x, c.points[len(c.points)-1].x
		d.Paths = append(d.Paths, path{Class: "fit " + color(series), D: fmt.Sprintf("M%.1f %.1fL%.1f %.1f",
			x.at(first), y.at(a+b*first), x.at(last), y.at(a+b*last))})
	}
	var line strings.Builder
	for i, pt := range c.points {
		command := "L"
		if i == 0 {
			command = "M"
		}
		fmt.Fprintf(&line, "%s%.1f %.1f", command, p.place(x, pt.x), y.at(pt.y))
	}
	if len(c.points) > 1 && !p.fits(c) {
		d.Paths = append(d.Paths, path{Class: "line " + color(series), Title: c.name, D: line.String()})
	}
	if len(c.points) > manyPoints {
		return
	}
	for _, pt := range c.points {
		d.Paths = append(d.Paths, path{
			Class: "mark " + color(series), Title: pt.text,
			D: mark(series, p.place(x, pt.x), y.at(pt.y)),
		})
	}
}

// describe describes the lines in words.
func (p *plot) describe() string {
	var words []string
	for _, c := range p.curves {
		if len(c.points) == 0 {
			continue
		}
		first, last := c.points[0], c.points[len(c.points)-1]
		words = append(words, fmt.Sprintf("%s from %s to %s", c.name, short(rounded(first.y)), short(rounded(last.y))))
	}
	if len(words) == 0 {
		return "There are no values."
	}
	return fmt.Sprintf("%s over %s: %s.", p.y, p.x, strings.Join(words, "; "))
}

// rounded keeps three digits.
func rounded(v float64) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 3, 64), 64)
	if err != nil {
		return v
	}
	return r
}
