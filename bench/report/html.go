package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
)

//go:embed report.html
var page string

var pageTemplate = template.Must(template.New("report").Parse(page))

// HTML writes documents as one page without dependencies: no network, no
// script.
func HTML(w io.Writer, docs ...*Document) error {
	var view pageView
	var before []string
	for _, d := range docs {
		v := docView{Document: d, ID: fmt.Sprintf("run%d", len(view.Docs)+1), Started: d.Started.Format(timeFormat)}
		lines := d.Machine.Lines()
		for i, line := range lines {
			if !slices.Contains(before, line) || i == 0 { // not the same again for each run
				v.Machine = append(v.Machine, line)
			}
		}
		before = lines
		for _, t := range d.Tables {
			v.Tables = append(v.Tables, t.view(&view))
		}
		view.Docs = append(view.Docs, v)
	}
	return pageTemplate.Execute(w, view)
}

// pageView is the data of the template; its parts are below.
type pageView struct {
	Docs []docView
	ids  int
}

type docView struct {
	*Document
	ID, Started string
	Machine     []string
	Tables      []tableView
}

type tableView struct {
	ID, Title  string
	Notes      []string
	Figures    []figureView
	Heads      []cellView
	Rows       [][]cellView
	ChartsOnly bool
}

type cellView struct {
	Text    string
	Numeric bool
}

type figureView struct {
	Title, Caption string
	Legend         []key
	Sizes          []sizeView
}

type sizeView struct {
	Class    string
	Pictures []pictureView
}

type pictureView struct {
	ID string
	*drawing
}

// id returns an id that no other element of the page has.
func (p *pageView) id(prefix string) string {
	p.ids++
	return fmt.Sprintf("%s%d", prefix, p.ids)
}

func (t *Table) view(p *pageView) tableView {
	v := tableView{ID: p.id("t"), Title: t.Title, Notes: t.Notes, ChartsOnly: t.ChartsOnly}
	columns := t.visible()
	numeric := make([]bool, len(t.Columns))
	for _, i := range columns {
		numeric[i] = t.numeric(i)
		v.Heads = append(v.Heads, cellView{t.Columns[i].Heading, numeric[i]})
	}
	for row := range t.Rows {
		var cells []cellView
		for _, i := range columns {
			cells = append(cells, cellView{t.Columns[i].Text(t.cell(row, i)), numeric[i]})
		}
		v.Rows = append(v.Rows, cells)
	}
	for i := range t.Charts {
		f := t.draw(&t.Charts[i])
		if f == nil {
			continue
		}
		fv := figureView{Title: f.Title, Caption: f.Caption, Legend: f.Legend}
		for _, size := range []struct {
			class    string
			drawings []*drawing
		}{{"wide", f.Wide}, {"narrow", f.Narrow}} {
			sv := sizeView{Class: size.class}
			for _, d := range size.drawings {
				sv.Pictures = append(sv.Pictures, pictureView{p.id("p"), d})
			}
			fv.Sizes = append(fv.Sizes, sv)
		}
		v.Figures = append(v.Figures, fv)
	}
	return v
}
