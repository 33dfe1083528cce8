package report_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/qi-realtime/ws/bench/report"
)

// node is an element of a page.
type node struct {
	name     string
	attr     map[string]string
	text     string // its own
	children []*node
}

// all returns the elements below n with the name.
func (n *node) all(name string) []*node {
	var out []*node
	for _, c := range n.children {
		if c.name == name {
			out = append(out, c)
		}
		out = append(out, c.all(name)...)
	}
	return out
}

// of returns the nodes that have all of the classes.
func of(nodes []*node, classes ...string) []*node {
	var out []*node
	for _, n := range nodes {
		have, ok := strings.Fields(n.attr["class"]), true
		for _, class := range classes {
			found := false
			for _, h := range have {
				found = found || h == class
			}
			ok = ok && found
		}
		if ok {
			out = append(out, n)
		}
	}
	return out
}

func (n *node) number(t *testing.T, attr string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(n.attr[attr], 64)
	require.NoError(t, err, "%s of %s", attr, n.name)
	return v
}

// content is the text of n and of all below it.
func (n *node) content() string {
	s := n.text
	for _, c := range n.children {
		s += c.content()
	}
	return s
}

// parse reads a page. Every element must be closed in its place.
func parse(t *testing.T, page []byte) *node {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	root := &node{}
	open := []*node{root}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			require.Len(t, open, 1, "all is closed")
			return root
		}
		require.NoError(t, err)
		top := open[len(open)-1]
		switch token := token.(type) {
		case xml.StartElement:
			n := &node{name: token.Name.Local, attr: map[string]string{}}
			for _, a := range token.Attr {
				n.attr[a.Name.Local] = a.Value
			}
			top.children = append(top.children, n)
			open = append(open, n)
		case xml.EndElement:
			require.Equal(t, top.name, token.Name.Local)
			open = open[:len(open)-1]
		case xml.CharData:
			top.text += string(token)
		}
	}
}

func render(t *testing.T, docs ...*report.Document) *node {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, report.HTML(&b, docs...))
	return parse(t, b.Bytes())
}

// pictures are the drawings of all charts for wide pages, or for narrow ones.
func pictures(page *node, size string) []*node {
	var out []*node
	for _, div := range of(page.all("div"), "pictures", size) {
		out = append(out, div.all("svg")...)
	}
	return out
}

func TestBarsAreProportional(t *testing.T) {
	table := compareTable(4)
	for _, size := range []string{"wide", "narrow"} {
		t.Run(size, func(t *testing.T) {
			svg := pictures(render(t, document(table)), size)
			require.Len(t, svg, 1)
			rects := svg[0].all("rect")
			require.Len(t, rects, len(table.Rows))
			scale := rects[0].number(t, "width") / table.Rows[0][2].(float64)
			require.Greater(t, scale, 1.0)
			for i, row := range table.Rows {
				assert.InDelta(t, row[2].(float64)*scale, rects[i].number(t, "width"), 0.1)
				whisker := of(svg[0].all("line"), "spread")[3*i]
				assert.InDelta(t, (row[4].(float64)-row[3].(float64))*scale, whisker.number(t, "x2")-whisker.number(t, "x1"), 0.2)
				assert.Equal(t, fmt.Sprintf("c%d", i%3), rects[i].attr["class"], "a color for each library")
				assert.Contains(t, of(svg[0].all("text"), "value")[i].content(), fmt.Sprintf("×%.2f", row[5]))
			}
		})
	}
}

func TestBarsOnALogarithmicAxis(t *testing.T) {
	svg := pictures(render(t, document(limitsTable())), "wide")[0]
	rects := svg.all("rect")
	require.Len(t, rects, 4, "a cell without a value has no bar")
	a, b, c := rects[0].number(t, "width"), rects[1].number(t, "width"), rects[2].number(t, "width")
	assert.InEpsilon(t, math.Log(1e9/19_800.0)/math.Log(28_232.0/19_800), (c-a)/(b-a), 0.02)
	for _, r := range rects {
		assert.Greater(t, r.number(t, "width"), 1.0)
	}
}

// TestLines compares the points with the values by the ticks of both axes.
func TestLines(t *testing.T) {
	table := idleTable()
	svg := pictures(render(t, document(table)), "wide")[0]
	marks := of(svg.all("path"), "mark", "c0")
	require.Len(t, marks, 4)
	y := func(i int) float64 {
		var x, y float64
		_, err := fmt.Sscanf(marks[i].attr["d"], "M%f %f", &x, &y)
		require.NoError(t, err)
		return y
	}
	grid := of(svg.all("line"), "grid")
	zero, five := grid[0].number(t, "y1"), grid[1].number(t, "y1")
	assert.Equal(t, "5000", of(svg.all("text"), "end", "tick")[1].text)
	for i := range marks {
		assert.InDelta(t, table.Rows[i][2].(float64)/5000*(five-zero), y(i)-zero, 0.2)
	}
	assert.Len(t, of(svg.all("path"), "fit"), 4)
	legend := render(t, document(table)).all("ul")[0].content()
	assert.Contains(t, legend, "native, heap KiB (slope 0.5)")
	assert.Contains(t, legend, "http, RSS KiB (slope 0.75)")
}

func TestPercentiles(t *testing.T) {
	page := render(t, document(latencyTable()))
	svg := pictures(page, "wide")[0]
	var labels []string
	for _, text := range of(svg.all("text"), "mid", "tick") {
		labels = append(labels, text.text)
	}
	assert.Equal(t, []string{"50%", "90%", "99%", "99.9%", "99.99%"}, labels)
	assert.Len(t, of(svg.all("path"), "mark", "c3"), 5)
	var heads []string
	for _, th := range page.all("th") {
		heads = append(heads, th.text)
	}
	assert.Equal(t, []string{"publishes/s", "p50 ms", "p99 ms", "p99.9 ms"}, heads, "two columns are for the chart only")
}

func TestTicksAreRound(t *testing.T) {
	for _, log := range []bool{false, true} {
		for i := range 80 {
			top := math.Pow(1.57, float64(i-30))
			table := &report.Table{
				Columns: []report.Column{column("x", "x", "%g"), column("y", "y", "%g")}, Rows: [][]any{{1, top / 7}, {2, top}},
				Charts: []report.Chart{{Kind: report.Lines, X: []string{"x"}, Y: []string{"y"}, LogY: log}},
			}
			for _, size := range []string{"wide", "narrow"} {
				ticks := of(pictures(render(t, document(table)), size)[0].all("text"), "end", "tick")
				require.GreaterOrEqual(t, len(ticks), 2, "top %g", top)
				require.LessOrEqual(t, len(ticks), 12, "top %g", top)
				require.True(t, round(t, ticks[1].text, !log, ticks[0].text), "top %g: %s, %s", top, ticks[0].text, ticks[1].text)
				last := ticks[len(ticks)-1]
				require.GreaterOrEqual(t, tick(t, last.text), top*0.999)
			}
		}
	}
}

// tick is the value of a label.
func tick(t *testing.T, label string) float64 {
	t.Helper()
	factor := map[string]float64{"k": 1e3, "M": 1e6, "G": 1e9}
	f := 1.0
	if n := len(label) - 1; factor[label[n:]] > 0 {
		f, label = factor[label[n:]], label[:n]
	}
	v, err := strconv.ParseFloat(label, 64)
	require.NoError(t, err)
	return v * f
}

// round reports whether a tick, or its distance from the one before, is 1, 2 or 5
// times a power of ten.
func round(t *testing.T, label string, distance bool, before string) bool {
	t.Helper()
	v := tick(t, label)
	if distance {
		v -= tick(t, before)
	}
	m := v / math.Pow(10, math.Floor(math.Log10(v)+1e-9))
	return math.Abs(m-1) < 1e-6 || math.Abs(m-2) < 1e-6 || math.Abs(m-5) < 1e-6
}

// TestNothingOverlaps looks at all texts of a picture: none begins where another
// has not ended, and none leaves the picture. Characters are taken as 6.5 pixels
// wide, a little less than the charts do.
func TestNothingOverlaps(t *testing.T) {
	for name, table := range map[string]*report.Table{
		"one row": echoTable(1), "six rows": echoTable(6), "sixty rows": echoTable(60), "groups": compareTable(12),
		"log bars": limitsTable(),
		"lines":    idleTable(), "log lines": simTable(), "percentiles": latencyTable(), "many points": stormTable(),
	} {
		for _, size := range []string{"wide", "narrow"} {
			t.Run(name+" "+size, func(t *testing.T) {
				for _, svg := range pictures(render(t, document(table)), size) {
					assertApart(t, svg)
				}
			})
		}
	}
}

type box struct {
	text           string
	x1, y1, x2, y2 float64
}

func assertApart(t *testing.T, svg *node) {
	t.Helper()
	var boxes []box
	for _, text := range svg.all("text") {
		width := float64(len([]rune(text.text))) * 6.5
		x, y := text.number(t, "x"), text.number(t, "y")
		switch {
		case len(of([]*node{text}, "mid")) > 0:
			x -= width / 2
		case len(of([]*node{text}, "end")) > 0:
			x -= width
		}
		b := box{text.text, x, y - 9, x + width, y + 2}
		assert.GreaterOrEqual(t, b.x1, -1.0, b.text)
		assert.LessOrEqual(t, b.x2, svg.number(t, "width")+1, b.text)
		assert.LessOrEqual(t, b.y2, svg.number(t, "height"), b.text)
		for _, o := range boxes {
			apart := b.x1 >= o.x2 || o.x1 >= b.x2 || b.y1 >= o.y2 || o.y1 >= b.y2
			assert.True(t, apart, "%q and %q overlap", b.text, o.text)
		}
		boxes = append(boxes, b)
	}
	for _, r := range svg.all("rect") {
		for _, b := range boxes {
			x, y := r.number(t, "x"), r.number(t, "y")
			apart := b.x1 >= x+r.number(t, "width")-0.5 || b.x2 <= x+0.5 || b.y1 >= y+r.number(t, "height") || b.y2 <= y
			assert.True(t, apart, "%q is on a bar", b.text)
		}
	}
}

func TestHostileTextStaysText(t *testing.T) {
	table := compareTable(2)
	table.Title, table.Columns[0].Heading, table.Charts[0].Title = hostile, hostile, hostile
	d := document(table)
	d.CommandLine, d.Machine.CPU = hostile, hostile
	page := render(t, d, d)
	assert.Empty(t, page.all("script"))
	assert.Equal(t, hostile, page.all("h3")[0].content())
	assert.Equal(t, hostile, page.all("h2")[0].content())
	assert.Contains(t, page.all("svg")[0].all("title")[0].content(), hostile)
	assert.Equal(t, hostile, page.all("td")[3*6].content())
}

// TestPageIsSelfContained asserts that nothing is loaded, and that assistive
// technology finds its way.
func TestPageIsSelfContained(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, report.HTML(&b, document(idleTable(), limitsTable()), document(echoTable(3))))
	text := b.String()
	for _, loads := range []string{" src=", "@import", "url(", "<link", "<script", "srcset"} {
		assert.NotContains(t, text, loads)
	}
	page := parse(t, b.Bytes())
	ids := map[string]bool{}
	var walk func(n *node)
	walk = func(n *node) {
		if id := n.attr["id"]; id != "" {
			assert.False(t, ids[id], "%s twice", id)
			ids[id] = true
		}
		for _, c := range n.children {
			walk(c)
		}
	}
	walk(page)
	for _, svg := range append(pictures(page, "wide"), pictures(page, "narrow")...) {
		assert.Equal(t, "img", svg.attr["role"])
		for id := range strings.FieldsSeq(svg.attr["aria-labelledby"]) {
			assert.True(t, ids[id], id)
		}
		assert.NotEmpty(t, svg.all("desc")[0].text)
	}
	for _, a := range page.all("a") {
		assert.True(t, ids[strings.TrimPrefix(a.attr["href"], "#")], a.attr["href"])
	}
	assert.Contains(t, page.content(), "panjf2000/gnet/v2 v2.10.0")
	assert.Contains(t, page.content(), "2026-01-02 03:04:05 UTC")
}

// TestJSON asserts that a report made of JSON is the same.
func TestJSON(t *testing.T) {
	d := document(idleTable(), echoTable(6), compareTable(3), limitsTable(), latencyTable(), simTable(), stormTable())
	b, err := json.Marshal(d)
	require.NoError(t, err)
	got := new(report.Document)
	require.NoError(t, json.Unmarshal(b, got))
	for name, write := range map[string]func(io.Writer, ...*report.Document) error{
		"HTML": report.HTML, "Markdown": report.Markdown,
	} {
		var want, have bytes.Buffer
		require.NoError(t, write(&want, d))
		require.NoError(t, write(&have, got))
		assert.Equal(t, want.String(), have.String(), name)
	}
	t.Run("not a number", func(t *testing.T) {
		table := echoTable(1)
		table.Rows[0][4] = math.Inf(1)
		b, err := json.Marshal(table)
		require.NoError(t, err)
		assert.Contains(t, string(b), `"server_us":null`)
	})
	t.Run("rows without columns", func(t *testing.T) {
		assert.Error(t, json.Unmarshal([]byte(`{"title":"old","rows":[{"a":1}]}`), new(report.Table)))
	})
}

// TestOddTables asserts that nothing breaks where there is little to draw.
func TestOddTables(t *testing.T) {
	for _, kind := range []string{report.Bars, report.Lines, report.Percentiles, "pie"} {
		for name, rows := range map[string][][]any{
			"no rows": nil, "nothing in them": {{}, {}}, "zeros": {{0, 0}, {0, 0}}, "texts": {{"a", "b"}},
			"negative": {{-1, -5}, {3, 4}}, "one": {{7, 7}},
		} {
			for _, log := range []bool{false, true} {
				table := &report.Table{
					Columns: []report.Column{column("x", "x", "%d"), column("p50_y", "y", "%.1f")}, Rows: rows,
					Charts: []report.Chart{{
						Kind: kind, X: []string{"x"}, Y: []string{"p50_y", "missing"},
						LogX: log, LogY: log, Fit: true,
					}},
				}
				page := render(t, document(table))
				assert.NotContains(t, page.content(), "NaN", "%s of %s", kind, name)
				for _, svg := range page.all("svg") {
					for _, r := range svg.all("rect") {
						assert.GreaterOrEqual(t, r.number(t, "width"), 0.0)
					}
					for _, p := range svg.all("path") {
						assert.NotContains(t, p.attr["d"], "NaN", "%s of %s", kind, name)
					}
				}
			}
		}
	}
}

func TestMarkdown(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, report.Markdown(&b, document(compareTable(2), latencyTable())))
	text := b.String()
	assert.Contains(t, text, "    bench all -json\n")
	assert.Contains(t, text,
		"| load | library | server µs/msg | least | most | ratio to ws |\n| --- | --- | ---: | ---: | ---: | ---: |\n")
	assert.Contains(t, text, "| 1 outstanding | ws | 1.20 | 1.08 | 1.44 | 1.00 |\n")
	assert.NotContains(t, text, "<script>")
	for line := range strings.Lines(text) {
		if strings.Contains(line, "gws") {
			assert.Equal(t, 7, strings.Count(strings.ReplaceAll(line, `\|`, ""), "|"), line)
		}
	}
}

func TestText(t *testing.T) {
	for _, c := range []struct {
		format string
		cell   any
		want   string
	}{
		{"%d", 1234567, "1,234,567"},
		{"%d", 1234567.0, "1,234,567"},
		{"%.2f", -1234.5, "-1,234.50"},
		{"%.0f", 999.4, "999"},
		{"%s", "1234", "1234"},
		{"%.1f", nil, "–"},
		{"%.1f", math.NaN(), "–"},
		{"%s", 5, "5"},
		{"", 5, "5"},
		{"%d", uint64(12), "12"},
	} {
		assert.Equal(t, c.want, report.Column{Format: c.format}.Text(c.cell))
	}
}

// A series is drawn and not written out.
func TestChartsOnly(t *testing.T) {
	series := &report.Table{
		Title: "Connections over time", ChartsOnly: true,
		Columns: []report.Column{
			{Key: "ms", Heading: "ms", Format: "%d"}, {Key: "conns", Heading: "connections", Format: "%d"},
		},
		Rows:   [][]any{{1, 100}, {2, 31_337}},
		Charts: []report.Chart{{Kind: report.Lines, X: []string{"ms"}, Y: []string{"conns"}}},
	}
	b, err := json.Marshal(series)
	require.NoError(t, err)
	var again report.Table
	require.NoError(t, json.Unmarshal(b, &again))
	doc := &report.Document{Tables: []*report.Table{&again}}
	var html, markdown bytes.Buffer
	require.NoError(t, report.HTML(&html, doc))
	require.NoError(t, report.Markdown(&markdown, doc))
	assert.Contains(t, html.String(), "<svg")
	assert.NotContains(t, html.String(), "<table")
	assert.NotContains(t, markdown.String(), "|")
}
