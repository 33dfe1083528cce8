//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// table is a command's result, for people and for programs.
type table struct {
	command, title string
	columns        []column
	rows           [][]any
	notes          []string // lines of text below the rows
	unprinted      bool     // a series, for charts and programs only
}

// column is one column: its key in JSON, its heading in text, and its format.
type column struct{ key, heading, format string }

func (t *table) add(cells ...any) { t.rows = append(t.rows, cells) }

// write prints the table, aligned to the right.
func (t *table) write(w io.Writer) {
	if t.unprinted {
		return
	}
	fmt.Fprintf(w, "\n%s\n", t.title)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, c := range t.columns {
		fmt.Fprintf(tw, "%s\t", c.heading)
	}
	fmt.Fprintln(tw)
	for _, row := range t.rows {
		for i, cell := range row {
			fmt.Fprintf(tw, t.columns[i].format+"\t", cell)
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

// MarshalJSON writes the rows as objects.
func (t *table) MarshalJSON() ([]byte, error) {
	rows := make([]map[string]any, 0, len(t.rows))
	for _, cells := range t.rows {
		row := make(map[string]any, len(cells))
		for i, cell := range cells {
			row[t.columns[i].key] = cell
		}
		rows = append(rows, row)
	}
	doc := map[string]any{"command": t.command, "title": t.title, "rows": rows}
	if len(t.notes) > 0 {
		doc["notes"] = t.notes
	}
	return json.Marshal(doc)
}

// machine says where the numbers were made.
type machine struct {
	CPU        string `json:"cpu"`
	CPUs       int    `json:"cpus"`
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	GOMAXPROCS int    `json:"gomaxprocs"`
	Server     int    `json:"server_gomaxprocs"`
	Commit     string `json:"commit"`
	Load       string `json:"load_average"`
}

func thisMachine(ctx context.Context, o *options) machine {
	m := machine{
		CPU: "unknown CPU", CPUs: runtime.NumCPU(), Go: runtime.Version() + " " + runtime.GOARCH,
		GOMAXPROCS: runtime.GOMAXPROCS(0), Server: o.maxprocs, Commit: commit(ctx),
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

func (m *machine) write(w io.Writer) {
	fmt.Fprintf(w, "%s, %d CPUs, Linux %s, load %s before the run\n", m.CPU, m.CPUs, m.Kernel, m.Load)
	fmt.Fprintf(w, "%s, GOMAXPROCS %d (server) and %d (load generator), commit %s\n",
		m.Go, m.Server, m.GOMAXPROCS, m.Commit)
}
