//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"github.com/qi-realtime/ws/bench/report"
)

// table is a command's result, for people and for programs.
type table struct {
	command, title string
	columns        []column
	rows           [][]any
	notes          []string // lines of text below the rows
	unprinted      bool     // a series, for charts and programs only
	charts         []chart  // how HTML shows the columns
	parts          [][]any  // the rows as they were added, see -procs
}

// chart names columns by their keys.
type chart = report.Chart

// column is one column: its key in JSON, its heading in text, and its format. A
// column without a heading is in JSON and charts only.
type column [3]string

func (c column) key() string     { return c[0] }
func (c column) heading() string { return c[1] }
func (c column) format() string  { return c[2] }

// add adds a row. Cells may be mergeable; then their values are shown.
func (t *table) add(cells ...any) {
	t.parts = append(t.parts, cells)
	row := slices.Clone(cells)
	for i, cell := range cells {
		if m, ok := cell.(mergeable); ok {
			row[i] = m.value()
		}
	}
	t.rows = append(t.rows, row)
}

// write prints the table, aligned to the right.
func (t *table) write(w io.Writer) {
	if t.unprinted {
		return
	}
	fmt.Fprintf(w, "\n%s\n", t.title)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, c := range t.columns {
		if c.heading() != "" {
			fmt.Fprintf(tw, "%s\t", c.heading())
		}
	}
	fmt.Fprintln(tw)
	for _, row := range t.rows {
		for i, cell := range row {
			switch c := t.columns[i]; {
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
	if len(t.notes) > 0 {
		fmt.Fprintln(w)
	}
	for _, note := range t.notes {
		fmt.Fprintln(w, note)
	}
}

// export is the table as the report package has it.
func (t *table) export() *report.Table {
	r := &report.Table{Command: t.command, Title: t.title, Notes: t.notes, Rows: t.rows, Charts: t.charts, ChartsOnly: t.unprinted}
	for _, c := range t.columns {
		r.Columns = append(r.Columns, report.Column{Key: c.key(), Heading: c.heading(), Format: c.format()})
	}
	return r
}

// imported is the reverse of export.
func imported(r *report.Table) *table {
	t := &table{command: r.Command, title: r.Title, notes: r.Notes, rows: r.Rows, charts: r.Charts, unprinted: r.ChartsOnly}
	for _, c := range r.Columns {
		t.columns = append(t.columns, column{c.Key, c.Heading, c.Format})
	}
	return t
}

// machine says where the numbers were made.
type machine = report.Machine

// thisMachine describes the machine. maxprocs is GOMAXPROCS of the server, or 0 if
// it is as here.
func thisMachine(ctx context.Context, maxprocs int) machine {
	m := machine{
		CPU: "unknown CPU", CPUs: runtime.NumCPU(), Go: runtime.Version() + " " + runtime.GOARCH,
		GOMAXPROCS: runtime.GOMAXPROCS(0), Server: maxprocs, Commit: commit(ctx), Modules: modules(),
	}
	if m.Server == 0 {
		m.Server = m.GOMAXPROCS
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		m.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load, _, _ = strings.Cut(string(b), " ")
	}
	return m
}

// commit is the revision that was built: go build notes it, go run does not.
func commit(ctx context.Context) string {
	revision, dirty := "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value[:min(12, len(s.Value))]
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = "+changes"
			}
		}
	}
	if revision != "" {
		return revision + dirty
	}
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty=+changes", "--abbrev=12").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// modules are the versions of the modules that this program is built of.
func modules() map[string]string {
	versions := map[string]string{}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return versions
	}
	for _, m := range info.Deps {
		if m.Replace == nil && m.Version != "(devel)" {
			versions[m.Path] = m.Version
		}
	}
	return versions
}

func writeMachine(w io.Writer, m *machine) {
	for _, line := range m.Lines()[:2] { // the modules are in JSON and reports
		fmt.Fprintln(w, line)
	}
}
