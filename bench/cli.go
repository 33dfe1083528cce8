//go:build linux

package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/qi-realtime/ws/bench/command"
)

// usageError is wrong use of the command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// invocation is a command line.
type invocation struct {
	args    []string
	session command.Session
	json    bool
	html    string
	runs    []run
	report  *merger // of "bench report", which runs no command
}

// run is a command with the options of its flags.
type run struct {
	*command.Command
	command.Runner
}

// parse reads a command line and checks its options. With -h it writes the help
// to out and returns flag.ErrHelp.
func parse(args []string, out io.Writer) (*invocation, error) {
	inv := newInvocation()
	inv.args = args
	before := inv.allFlags()
	if err := before.Parse(args); errors.Is(err, flag.ErrHelp) {
		writeUsage(out)
		return nil, err
	} else if err != nil {
		return nil, flagError(before, "", err)
	}
	name := before.Arg(0)
	if name == "" {
		var b strings.Builder
		writeUsage(&b)
		return nil, &usageError{b.String()}
	}
	if names := commandNames(); !slices.Contains(names, name) {
		return nil, &usageError{fmt.Sprintf("bench: no command %q%s (bench -h lists all)", name, didYouMean(name, names, ""))}
	}
	if err := inv.parseCommand(name, before, out); err != nil {
		return nil, err
	}
	if err := inv.validate(name); err != nil {
		return nil, &usageError{err.Error()}
	}
	return inv, nil
}

// parseCommand reads the flags behind the command's name. Those of before, which
// precede it, count as far as the command has them.
func (inv *invocation) parseCommand(name string, before *flag.FlagSet, out io.Writer) error {
	fs := inv.commandFlags(name)
	if err := copyFlags(fs, before); err != nil {
		return flagError(fs, name, err)
	}
	for rest := before.Args()[1:]; ; rest = fs.Args()[1:] {
		if err := fs.Parse(rest); errors.Is(err, flag.ErrHelp) {
			writeHelp(out, name)
			return err
		} else if err != nil {
			return flagError(fs, name, err)
		}
		switch {
		case fs.NArg() == 0:
			if name == "all" {
				return inv.addAll(fs)
			}
			return nil
		case inv.report == nil:
			return &usageError{fmt.Sprintf("bench %s: what is %q? Flags begin with -; bench %s -h lists them",
				name, fs.Arg(0), name)}
		}
		inv.report.files = append(inv.report.files, fs.Arg(0))
	}
}

// addAll adds the commands of "bench all". Each takes the flags that it has.
func (inv *invocation) addAll(all *flag.FlagSet) error {
	for _, c := range commands {
		if c.NotInAll {
			continue
		}
		if err := copyFlags(inv.commandFlags(c.Name), all); err != nil {
			return err
		}
	}
	return nil
}

// copyFlags sets the flags of to that are set in from.
func copyFlags(to, from *flag.FlagSet) (err error) {
	from.Visit(func(f *flag.Flag) {
		if to.Lookup(f.Name) == nil {
			return
		}
		if failed := to.Set(f.Name, f.Value.String()); failed != nil && err == nil {
			err = fmt.Errorf("invalid value %q for flag -%s: %w", f.Value, f.Name, failed)
		}
	})
	return err
}

func newInvocation() *invocation { return &invocation{session: command.NewSession()} }

// commandFlags adds a run of a command and returns its flags.
func (inv *invocation) commandFlags(name string) *flag.FlagSet {
	fs := newFlagSet(name)
	switch name {
	case "report":
		inv.report = new(merger)
		inv.report.flags(inv, fs)
		return fs
	case "all":
		return inv.allFlags()
	}
	c := commandNamed(name)
	r := c.New()
	inv.runs = append(inv.runs, run{c, r})
	inv.commonFlags(fs)
	if !c.Varies {
		inv.session.SettingFlags(fs)
	}
	if c.Procs {
		procsFlag(fs, &inv.session.Procs)
	}
	r.Flags(fs)
	return fs
}

// allFlags returns the flags of all commands. Flags that all commands have set the
// invocation; the others only hold a value.
func (inv *invocation) allFlags() *flag.FlagSet {
	fs := newFlagSet("all")
	inv.commonFlags(fs)
	inv.session.SettingFlags(fs)
	procsFlag(fs, &inv.session.Procs)
	for _, c := range commands {
		own := newFlagSet(c.Name)
		c.New().Flags(own)
		own.VisitAll(func(f *flag.Flag) {
			if fs.Lookup(f.Name) == nil {
				fs.Var(f.Value, f.Name, f.Usage)
			}
		})
	}
	return fs
}

// commonFlags declares the flags that all commands have.
func (inv *invocation) commonFlags(fs *flag.FlagSet) {
	fs.BoolVar(&inv.json, "json", inv.json, "print JSON")
	fs.StringVar(&inv.html, "html", inv.html, "write the report with its charts to `file`, too")
	inv.session.Flags(fs)
}

func newFlagSet(name string) *flag.FlagSet {
	fs := flag.NewFlagSet("bench "+name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// validate checks the options.
func (inv *invocation) validate(name string) error {
	if inv.report != nil {
		return nil
	}
	if err := cmp.Or(inv.session.Validate(), validProcs(inv.session.Procs, name)); err != nil {
		return err
	}
	for _, r := range inv.runs {
		if err := r.Validate(&inv.session); err != nil {
			return err
		}
	}
	return nil
}

// commandNamed returns the command, or nil if there is none.
func commandNamed(name string) *command.Command {
	for _, c := range commands {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// commandNames are all names that parse knows.
func commandNames() []string {
	var names []string
	for _, c := range commands {
		names = append(names, c.Name)
	}
	return append(names, "all", "report")
}

// flagError explains an error of the flag package.
func flagError(fs *flag.FlagSet, cmd string, err error) error {
	help := strings.TrimSpace("bench "+cmd) + " -h"
	_, name, undefined := strings.Cut(err.Error(), "flag provided but not defined: -")
	if !undefined {
		return &usageError{fmt.Sprintf("bench: %v; see %s", err, help)}
	}
	var names, owners []string
	fs.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	for _, c := range commandNames() {
		if c != "all" && newInvocation().commandFlags(c).Lookup(name) != nil {
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
		fmt.Fprintf(w, "  %-8s  %s\n", c.Name, c.About)
	}
	fmt.Fprint(w, "  all       all commands that measure, one after the other\n"+
		"  report    one report of the output of -json, of several runs\n\n")
	fmt.Fprint(w, "bench COMMAND -h explains a command and lists its flags. All know:\n\n")
	common := commonFlags()
	common.VisitAll(func(f *flag.Flag) { writeFlag(w, f) })
}

// commonFlags returns the flags that all commands have.
func commonFlags() *flag.FlagSet {
	fs := newFlagSet("")
	inv := newInvocation()
	inv.commonFlags(fs)
	inv.session.SettingFlags(fs)
	return fs
}

// writeHelp writes the help of one command.
func writeHelp(w io.Writer, name string) {
	h := helpOf(name)
	fmt.Fprintf(w, "usage: bench %s [flags]\n\n%s\n\n  example: %s\n\nflags of %s:\n\n", name, h.Help, h.Example, name)
	own, common := newInvocation().commandFlags(name), commonFlags()
	if name == "report" {
		own.VisitAll(func(f *flag.Flag) { writeFlag(w, f) })
		return
	}
	isCommon := func(f *flag.Flag) bool { // sweep has lists in place of some
		c := common.Lookup(f.Name)
		return c != nil && c.Usage == f.Usage
	}
	own.VisitAll(func(f *flag.Flag) {
		if !isCommon(f) {
			writeFlag(w, f)
		}
	})
	fmt.Fprint(w, "\nflags of all commands:\n\n")
	own.VisitAll(func(f *flag.Flag) {
		if isCommon(f) {
			writeFlag(w, f)
		}
	})
}

var allHelp = command.Command{
	Name: "all",
	Help: `Runs all commands that measure, one after the other, with their defaults where a
flag does not say otherwise.`,
	Example: "bench all -html report.html -json",
}

// helpOf returns the command, or one that only has a help.
func helpOf(name string) *command.Command {
	switch name {
	case "all":
		return &allHelp
	case "report":
		return &reportHelp
	}
	return commandNamed(name)
}

func writeFlag(w io.Writer, f *flag.Flag) {
	value, usage := flag.UnquoteUsage(f)
	fmt.Fprintf(w, "  %-20s  %s", strings.TrimSpace("-"+f.Name+" "+value), usage)
	if f.DefValue != "" && f.DefValue != "0" && f.DefValue != "false" {
		fmt.Fprintf(w, " (default %s)", f.DefValue)
	}
	fmt.Fprintln(w)
}
