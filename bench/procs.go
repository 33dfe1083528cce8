//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// With -procs N the command runs N times at once, each in a load generator
// process with a server process of its own and its share of the connections.
// They wait for each other before each load; their rows become one.

// part says which of several processes this one is.
type part struct {
	index, of int
	in        *bufio.Reader
	out       io.Writer
}

// readyLine is what a part says when it waits for the others.
const readyLine = "ready\n"

// share is the part's share of n.
func (p *part) share(n int) int {
	if p == nil {
		return n
	}
	return (n + p.of - 1 - p.index) / p.of
}

// together waits until all parts have come so far.
func (p *part) together() error {
	if p == nil {
		return nil
	}
	if _, err := io.WriteString(p.out, readyLine); err != nil {
		return err
	}
	_, err := p.in.ReadString('\n')
	return err
}

// mergeable is a cell that the rows of several processes make one of.
type mergeable struct {
	How    string  // sum, max, mean or quantile
	Value  float64 // in this process
	Whole  bool    // it is an int
	Weight float64 // mean: of this process
	Hist   []byte  // quantile: all values, on their way ...
	Q      float64 // ... and which it is

	hist histogram // quantile: all values in this process
}

// number is what can be summed up.
type number interface {
	~int | ~int64 | ~uint64 | ~float64
}

func mergeableOf[T number](how string, v T) mergeable {
	_, float := any(v).(float64)
	return mergeable{How: how, Value: float64(v), Whole: !float}
}

// sumOf is a cell whose values add up.
func sumOf[T number](v T) mergeable { return mergeableOf("sum", v) }

// maxOf is a cell of which the highest counts.
func maxOf[T number](v T) mergeable { return mergeableOf("max", v) }

// meanOf is a cell whose mean counts, by weight.
func meanOf(v, weight float64) mergeable { return mergeable{How: "mean", Value: v, Weight: weight} }

// millisOf is a cell that shows a quantile in milliseconds; 1 is the maximum.
func millisOf(h histogram, q float64) mergeable {
	m := mergeable{How: "quantile", Q: q, hist: h}
	m.Value = m.of(h)
	return m
}

func (m *mergeable) of(h histogram) float64 {
	if m.Q == 1 {
		return millis(h.max())
	}
	return millis(h.quantile(m.Q))
}

// histogram is that of a quantile, of this process or of another.
func (m *mergeable) histogram() (histogram, error) {
	if m.Hist == nil {
		return m.hist, nil
	}
	h, err := hdrhistogram.Decode(m.Hist)
	if err != nil {
		return histogram{}, fmt.Errorf("a histogram of another process: %w", err)
	}
	return histogram{h}, nil
}

// value is the cell as it is shown.
func (m *mergeable) value() any {
	if m.Whole {
		return int64(m.Value)
	}
	return m.Value
}

// merge adds the cells of other processes.
func (m *mergeable) merge(others []mergeable) error {
	all := append([]mergeable{*m}, others...)
	h := newHistogram()
	var sum, highest, weighted, weights float64
	for _, o := range all {
		sum, highest = sum+o.Value, max(highest, o.Value)
		weighted, weights = weighted+o.Value*o.Weight, weights+o.Weight
		if m.How == "quantile" {
			other, err := o.histogram()
			if err != nil {
				return err
			}
			h.add(other)
		}
	}
	switch m.How {
	case "sum":
		m.Value = sum
	case "max":
		m.Value = highest
	case "mean":
		m.Value, m.Weight = ratio(weighted, weights), weights
	case "quantile":
		m.Value = m.of(h)
	}
	return nil
}

// partCell is a cell on its way: a mergeable one, or one that is the same in all
// processes, in its format.
type partCell struct {
	Merge *mergeable `json:",omitempty"`
	Text  string     `json:",omitempty"`
	Whole *int       `json:",omitempty"`
	Float *float64   `json:",omitempty"`
}

// partTable is a table on its way.
type partTable struct {
	Command, Title string
	Unprinted      bool
	Columns        [][3]string
	Rows           [][]partCell
}

func partCellOf(cell any) partCell {
	switch v := cell.(type) {
	case mergeable:
		if v.How == "quantile" {
			v.Hist, _ = v.hist.h.Encode(hdrhistogram.V2CompressedEncodingCookieBase) // into memory
		}
		return partCell{Merge: &v}
	case int:
		return partCell{Whole: &v}
	case float64:
		return partCell{Float: &v}
	}
	return partCell{Text: fmt.Sprint(cell)}
}

func (c *partCell) cell() any {
	switch {
	case c.Merge != nil:
		return *c.Merge
	case c.Whole != nil:
		return *c.Whole
	case c.Float != nil:
		return *c.Float
	}
	return c.Text
}

// runPart is the hidden command: one of several processes. arg is its number and
// how many there are, such as 0/2; args is the command line of all.
func runPart(ctx context.Context, arg string, args []string, in io.Reader, out io.Writer) error {
	p := &part{in: bufio.NewReader(in), out: out}
	if _, err := fmt.Sscanf(arg, "%d/%d", &p.index, &p.of); err != nil {
		return fmt.Errorf("bench: part %q: %w", arg, err)
	}
	inv, err := parse(args, io.Discard)
	if err != nil {
		return err
	}
	inv.session.part = p
	tables, err := inv.runs[0].run(ctx, &inv.session)
	if err != nil {
		return err
	}
	var parts []partTable
	for _, t := range tables {
		pt := partTable{Command: t.command, Title: t.title, Unprinted: t.unprinted}
		for _, c := range t.columns {
			pt.Columns = append(pt.Columns, c)
		}
		for _, row := range t.parts {
			cells := make([]partCell, len(row))
			for i, cell := range row {
				cells[i] = partCellOf(cell)
			}
			pt.Rows = append(pt.Rows, cells)
		}
		parts = append(parts, pt)
	}
	return json.NewEncoder(out).Encode(parts)
}

// runParts runs a command in several processes, and merges their tables.
func runParts(ctx context.Context, args []string, procs int) ([]*table, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends those that wait for one that failed
	children := make([]*child, procs)
	for i := range children {
		c, err := startChild(ctx, args, i, procs)
		if err != nil {
			return nil, err
		}
		defer func() { _ = c.wait() }() // its output says more
		children[i] = c
	}
	for {
		var ended int
		for _, c := range children {
			line, err := c.out.ReadBytes('\n')
			if err != nil {
				cancel()
				return nil, fmt.Errorf("process %d of %d: %w", c.index+1, len(children), errors.Join(err, c.wait()))
			}
			if string(line) == readyLine {
				continue
			}
			if err := json.Unmarshal(line, &c.tables); err != nil {
				return nil, err
			}
			ended++
		}
		if ended > 0 { // all of them have the same loads
			break
		}
		for _, c := range children {
			if _, err := io.WriteString(c.in, "\n"); err != nil {
				return nil, err
			}
		}
	}
	return mergeTables(children)
}

// child is one of the processes of -procs.
type child struct {
	index  int
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	tables []partTable
}

func startChild(ctx context.Context, args []string, index, procs int) (*child, error) {
	args = append([]string{"part", strconv.Itoa(index) + "/" + strconv.Itoa(procs)}, args...)
	c := &child{index: index, cmd: exec.CommandContext(ctx, os.Args[0], args...)}
	c.cmd.Stderr = os.Stderr
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	return c, c.cmd.Start()
}

func (c *child) wait() error {
	_ = c.in.Close()
	return c.cmd.Wait()
}

// mergeTables makes one of the tables of all processes.
func mergeTables(children []*child) ([]*table, error) {
	var tables []*table
	for i, pt := range children[0].tables {
		t := &table{command: pt.Command, title: fmt.Sprintf("%s; %d processes of each kind", pt.Title, len(children)), unprinted: pt.Unprinted}
		for _, c := range pt.Columns {
			t.columns = append(t.columns, column(c))
		}
		for r, row := range pt.Rows {
			cells := make([]any, len(row))
			for j, cell := range row {
				var others []mergeable
				for _, c := range children[1:] {
					if len(c.tables) <= i || len(c.tables[i].Rows) <= r {
						return nil, errors.New("the processes have different rows")
					}
					if o := c.tables[i].Rows[r][j].Merge; o != nil {
						others = append(others, *o)
					}
				}
				if cell.Merge != nil {
					if err := cell.Merge.merge(others); err != nil {
						return nil, err
					}
				}
				cells[j] = cell.cell()
			}
			t.add(cells...)
		}
		tables = append(tables, t)
	}
	return tables, nil
}

func procsFlag(fs *flag.FlagSet, procs *int) {
	fs.IntVar(procs, "procs", *procs, "so many load generator and server `processes`, each with its share of the connections; all else holds for each of them")
}

// validProcs returns an error if the command cannot run in several processes.
func validProcs(procs int, command string) error {
	var able []string
	for _, c := range commands {
		if c.procs {
			able = append(able, c.name)
		}
	}
	if procs > 1 && !slices.Contains(able, command) {
		return fmt.Errorf("bench: -procs works with %s, without -compare", strings.Join(able, ", "))
	}
	return atLeast("-procs", procs, 1)
}
