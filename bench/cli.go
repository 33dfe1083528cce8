//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// usageError is wrong use of the command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// parse reads the command line into o and returns the command. With -h it writes
// the help to out and returns flag.ErrHelp.
func (o *options) parse(args []string, out io.Writer) (string, error) {
	fs := o.flags("")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		writeUsage(out)
		return "", err
	} else if err != nil {
		return "", flagError(fs, "", err)
	}
	cmd := fs.Arg(0)
	if cmd == "" {
		var b strings.Builder
		writeUsage(&b)
		return "", &usageError{b.String()}
	}
	if names := commandNames(); !slices.Contains(names, cmd) {
		return "", &usageError{fmt.Sprintf("bench: no command %q%s (bench -h lists all)", cmd, didYouMean(cmd, names, ""))}
	}
	sub := o.flags(cmd)
	for rest := fs.Args()[1:]; ; rest = sub.Args()[1:] {
		if err := sub.Parse(rest); errors.Is(err, flag.ErrHelp) {
			writeHelp(out, cmd)
			return "", err
		} else if err != nil {
			return "", flagError(sub, cmd, err)
		}
		switch {
		case sub.NArg() == 0:
			return cmd, nil
		case cmd != "report":
			return "", &usageError{fmt.Sprintf("bench %s: what is %q? Flags begin with -; bench %s -h lists them", cmd, sub.Arg(0), cmd)}
		}
		o.files = append(o.files, sub.Arg(0))
	}
}

// flags returns the flags of a command, or those of all if it is empty. What is
// in o is their default.
func (o *options) flags(cmd string) *flag.FlagSet {
	fs := flag.NewFlagSet("bench "+cmd, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	if cmd == "report" {
		fs.StringVar(&o.html, "html", o.html, "write one report of all files to `file`")
		fs.BoolVar(&o.markdown, "markdown", o.markdown, "print the tables as Markdown")
		fs.BoolVar(&o.json, "json", o.json, "print the documents as one JSON array")
		return fs
	}
	o.register(fs, cmd)
	return fs
}

// commandNames are all that parse knows.
func commandNames() []string {
	var names []string
	for _, c := range commands {
		names = append(names, c.name)
	}
	return append(names, "all", "report")
}

// flagError explains what the flag package complains of.
func flagError(fs *flag.FlagSet, cmd string, err error) error {
	help := strings.TrimSpace("bench "+cmd) + " -h"
	_, name, undefined := strings.Cut(err.Error(), "flag provided but not defined: -")
	if !undefined {
		return &usageError{fmt.Sprintf("bench: %v; see %s", err, help)}
	}
	var names, owners []string
	fs.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	for _, c := range commandNames() {
		o := defaultOptions()
		if c != "all" && o.flags(c).Lookup(name) != nil {
			owners = append(owners, c)
		}
	}
	text := fmt.Sprintf("bench: unknown flag -%s%s (%s lists all)", name, didYouMean(name, names, "-"), help)
	if len(owners) > 0 {
		text = fmt.Sprintf("bench: -%s is a flag of %s (%s lists others)", name, strings.Join(owners, " and "), help)
	}
	return &usageError{text}
}

// didYouMean suggests the nearest of names, if one is near.
func didYouMean(word string, names []string, prefix string) string {
	best, at := "", min(len(word), max(3, len(word)/3+1))
	for _, name := range names {
		d := distance(word, name)
		if len(word) > 2 && strings.HasPrefix(name, word) {
			d = 1 // cut short
		}
		if d < at {
			best, at = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s%s?", prefix, best)
}

// distance is how many bytes must be inserted, removed or replaced to make b
// of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			above := row[j+1]
			if a[i] == b[j] {
				row[j+1] = diagonal
			} else {
				row[j+1] = 1 + min(diagonal, above, row[j])
			}
			diagonal = above
		}
	}
	return row[len(b)]
}

// writeUsage writes the help of the whole.
func writeUsage(w io.Writer) {
	fmt.Fprint(w, "usage: bench COMMAND [flags]\n\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-8s  %s\n", c.name, c.about)
	}
	fmt.Fprint(w, "  all       all that measure, one after the other\n  report    one report of what -json has printed, of several runs\n\n")
	fmt.Fprint(w, "bench COMMAND -h explains a command and lists its flags. All know:\n\n")
	common := commonFlags()
	common.VisitAll(func(f *flag.Flag) { writeFlag(w, f) })
}

// commonFlags are those that all commands know.
func commonFlags() *flag.FlagSet {
	o := defaultOptions()
	return o.flags("none")
}

// writeHelp writes the help of one command.
func writeHelp(w io.Writer, cmd string) {
	h := help[cmd]
	if h.about == "" {
		for _, c := range commands {
			if c.name == cmd {
				h = helpText{c.about, "bench " + cmd}
			}
		}
	}
	fmt.Fprintf(w, "usage: bench %s [flags]\n\n%s\n\n  example: %s\n\nflags of %s:\n\n", cmd, h.about, h.example, cmd)
	o := defaultOptions()
	own, common := o.flags(cmd), commonFlags()
	if cmd == "report" {
		own.VisitAll(func(f *flag.Flag) { writeFlag(w, f) })
		return
	}
	own.VisitAll(func(f *flag.Flag) {
		if common.Lookup(f.Name) == nil {
			writeFlag(w, f)
		}
	})
	fmt.Fprint(w, "\nflags of all commands:\n\n")
	common.VisitAll(func(f *flag.Flag) { writeFlag(w, f) })
}

func writeFlag(w io.Writer, f *flag.Flag) {
	value, usage := flag.UnquoteUsage(f)
	fmt.Fprintf(w, "  %-20s  %s", strings.TrimSpace("-"+f.Name+" "+value), usage)
	if f.DefValue != "" && f.DefValue != "0" && f.DefValue != "false" {
		fmt.Fprintf(w, " (default %s)", f.DefValue)
	}
	fmt.Fprintln(w)
}
