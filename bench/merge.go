//go:build linux

package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/qi-realtime/ws/bench/command"
	"github.com/qi-realtime/ws/bench/report"
	"github.com/qi-realtime/ws/bench/result"
)

var reportHelp = command.Command{
	Name: "report",
	Help: `Reads the output of -json, of one run or several, and makes one report of it: text,
unless -html or -markdown is given.`,
	Example: "bench report idle.json fanout.json -html report.html",
}

// merger is the command report: it merges the JSON documents of several runs into
// one report.
type merger struct {
	markdown bool
	files    []string
}

func (m *merger) flags(inv *invocation, fs *flag.FlagSet) {
	fs.StringVar(&inv.html, "html", inv.html, "write one report of all files to `file`")
	fs.BoolVar(&m.markdown, "markdown", m.markdown, "print the tables as Markdown")
	fs.BoolVar(&inv.json, "json", inv.json, "print the documents as one JSON array")
}

func (m *merger) run(inv *invocation, out io.Writer) error {
	if len(m.files) == 0 {
		return &usageError{"bench report: which files? Name the files with the output of -json"}
	}
	var docs []*report.Document
	for _, name := range m.files {
		b, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("bench report: %w", err)
		}
		d := new(report.Document)
		if err := json.Unmarshal(b, d); err != nil {
			return fmt.Errorf("bench report: %s is no output of -json: %w", name, err)
		}
		docs = append(docs, d)
	}
	page, err := createPage(inv.html)
	if err != nil {
		return err
	}
	defer page.discard()
	if err := page.write(docs...); err != nil {
		return err
	}
	switch {
	case m.markdown:
		return report.Markdown(out, docs...)
	case inv.json:
		return writeJSON(out, docs)
	case inv.html == "":
		for _, d := range docs {
			fmt.Fprintf(out, "%s\n", d.CommandLine)
			result.WriteMachine(out, &d.Machine)
			for _, t := range d.Tables {
				result.Imported(t).Write(out)
			}
			fmt.Fprintln(out)
		}
	}
	return nil
}
